//! Go's `Sprintf`, for the verbs that make sense of the values a template has.

use crate::cli::format::value::Value;

/// Widths beyond this are a mistake.
const MAX_WIDTH: usize = 4096;

/// What stands between `%` and the verb.
#[derive(Default)]
struct Flags {
    left: bool,
    plus: bool,
    sharp: bool,
    zero: bool,
    space: bool,
    width: usize,
    precision: Option<usize>,
}

/// Fills `format`. Mistakes are told in the text itself, as Go tells them: `%!d(string=x)`.
pub fn printf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut rest = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = Flags::default();
        while let Some(flag) = chars.next_if(|c| "-+# 0".contains(*c)) {
            match flag {
                '-' => flags.left = true,
                '+' => flags.plus = true,
                '#' => flags.sharp = true,
                '0' => flags.zero = true,
                _ => flags.space = true,
            }
        }
        flags.width = number(&mut chars).unwrap_or(0);
        if chars.next_if_eq(&'.').is_some() {
            flags.precision = Some(number(&mut chars).unwrap_or(0));
        }
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        match rest.next() {
            Some(value) => out += &padded(&one(verb, value, &flags), value, verb, &flags),
            None => out += &format!("%!{verb}(MISSING)"),
        }
    }
    let extra: Vec<String> = rest.map(|value| format!("{}={}", value.type_name(), value.verb_v())).collect();
    if !extra.is_empty() {
        out += &format!("%!(EXTRA {})", extra.join(", "));
    }
    out
}

fn number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<usize> {
    let mut number = None;
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        let digit = digit.to_digit(10).unwrap_or(0) as usize;
        number = Some((number.unwrap_or(0usize).saturating_mul(10).saturating_add(digit)).min(MAX_WIDTH));
    }
    number
}

fn one(verb: char, value: &Value, flags: &Flags) -> String {
    let cut = |text: String| match flags.precision {
        Some(most) => text.chars().take(most).collect(),
        None => text,
    };
    let signed = |number: i128, digits: String| match number {
        i128::MIN..0 => format!("-{digits}"),
        _ if flags.plus => format!("+{digits}"),
        _ if flags.space => format!(" {digits}"),
        _ => digits,
    };
    match (verb, value) {
        ('v', Value::Text(text)) if flags.sharp => format!("{text:?}"),
        ('v', Value::Int(number)) => signed(*number, number.unsigned_abs().to_string()),
        ('v', value) => value.verb_v(),
        ('T', value) => value.type_name().to_owned(),
        ('s', Value::Text(text)) => cut(text.clone()),
        ('q', Value::Text(text)) => format!("{:?}", cut(text.clone())),
        ('x', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('X', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02X}")).collect(),
        ('t', Value::Bool(on)) => on.to_string(),
        ('d', Value::Int(number)) => signed(*number, number.unsigned_abs().to_string()),
        ('x', Value::Int(number)) => {
            let digits = format!("{:x}", number.unsigned_abs());
            signed(*number, if flags.sharp { format!("0x{digits}") } else { digits })
        }
        ('X', Value::Int(number)) => signed(*number, format!("{:X}", number.unsigned_abs())),
        ('o', Value::Int(number)) => signed(*number, format!("{:o}", number.unsigned_abs())),
        ('b', Value::Int(number)) => signed(*number, format!("{:b}", number.unsigned_abs())),
        ('c', Value::Int(number)) => {
            u32::try_from(*number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}').to_string()
        }
        ('f' | 'F', Value::Float(number)) => format!("{number:.*}", flags.precision.unwrap_or(6)),
        ('g', Value::Float(number)) => number.to_string(),
        // Verbs go into lists.
        ('s' | 'q' | 'd' | 'x', Value::List(items)) => {
            let items: Vec<String> = items.iter().map(|item| one(verb, item, flags)).collect();
            format!("[{}]", items.join(" "))
        }
        ('s', Value::Map { .. } | Value::Struct(_)) => value.verb_v(),
        (verb, value) => match value.type_name() {
            "<nil>" => format!("%!{verb}(<nil>)"),
            name => format!("%!{verb}({name}={})", value.verb_v()),
        },
    }
}

fn padded(text: &str, value: &Value, verb: char, flags: &Flags) -> String {
    let missing = flags.width.saturating_sub(text.chars().count());
    let is_number = matches!(value, Value::Int(_) | Value::Float(_)) && verb != 'c';
    match (flags.left, flags.zero && is_number) {
        (true, _) => format!("{text}{}", " ".repeat(missing)),
        (false, true) => match text.strip_prefix(['-', '+']) {
            Some(digits) => format!("{}{}{digits}", &text[..1], "0".repeat(missing)),
            None => format!("{}{text}", "0".repeat(missing)),
        },
        (false, false) => format!("{}{text}", " ".repeat(missing)),
    }
}
