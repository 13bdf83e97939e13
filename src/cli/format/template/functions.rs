//! The functions a template may call: Go's own, and the ones Docker adds.

use std::cmp::Ordering;

use super::printf::printf;
use crate::cli::format::value::{Nothing, Value};

/// Every name that is a function. `and` and `or` are evaluated by the caller, which stops early.
pub const FUNCTIONS: &[&str] = &[
    "and", "eq", "ge", "gt", "html", "index", "join", "js", "json", "le", "len", "lower", "lt", "ne", "not",
    "or", "pad", "print", "printf", "println", "slice", "split", "title", "truncate", "upper", "urlquery",
];

/// Calls `name`. The error is worded as Go words it.
pub fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let argument = |at: usize| arguments.get(at).ok_or_else(|| format!("wrong number of args for {name}"));
    let text = |at: usize| argument(at).map(Value::show);
    let number = |at: usize| match argument(at)? {
        Value::Int(number) => usize::try_from(*number)
            .ok()
            .filter(|number| *number <= 1 << 16)
            .ok_or_else(|| format!("{name} needs a small number")),
        other => Err(format!("wrong type for value; expected int; got {}", other.type_name())),
    };
    let joined = |separator: &str| arguments.iter().map(Value::show).collect::<Vec<_>>().join(separator);
    Ok(match name {
        "json" => Value::Text(json(argument(0)?)),
        "upper" => Value::Text(text(0)?.to_uppercase()),
        "lower" => Value::Text(text(0)?.to_lowercase()),
        "title" => Value::Text(title(&text(0)?)),
        "join" => match argument(0)? {
            Value::List(items) => {
                Value::Text(items.iter().map(Value::show).collect::<Vec<_>>().join(&text(1)?))
            }
            Value::Null(_) => Value::Text(String::new()),
            other => {
                return Err(format!("wrong type for value; expected []string; got {}", other.type_name()));
            }
        },
        "split" => {
            let separator = text(1)?;
            Value::List(text(0)?.split(&separator).map(|part| Value::Text(part.to_owned())).collect())
        }
        "truncate" => Value::Text(text(0)?.chars().take(number(1)?).collect()),
        // Nothing stays nothing, however wide.
        "pad" if text(0)?.is_empty() => Value::Text(String::new()),
        "pad" => Value::Text(format!("{}{}{}", " ".repeat(number(1)?), text(0)?, " ".repeat(number(2)?))),
        "len" => Value::Int(match argument(0)? {
            Value::List(items) => items.len() as i128,
            Value::Map { entries, .. } => entries.len() as i128,
            Value::Text(text) => text.len() as i128,
            Value::Null(Nothing::List | Nothing::Map) => 0,
            Value::Null(Nothing::Pointer) | Value::Missing => return Err("len of nil pointer".to_owned()),
            other => return Err(format!("len of type {}", other.type_name())),
        }),
        "index" => index(argument(0)?, &arguments[1..])?,
        "slice" => slice(argument(0)?, &arguments[1..])?,
        "print" => Value::Text(print(arguments)),
        "println" => Value::Text(joined(" ") + "\n"),
        "printf" => Value::Text(printf(&text(0)?, arguments.get(1..).unwrap_or_default())),
        "html" => Value::Text(escape(&joined(""), |c| match c {
            '<' => Some("&lt;"),
            '>' => Some("&gt;"),
            '&' => Some("&amp;"),
            '"' => Some("&#34;"),
            '\'' => Some("&#39;"),
            _ => None,
        })),
        "js" => Value::Text(escape(&joined(""), |c| match c {
            '\\' => Some("\\\\"),
            '\'' => Some("\\'"),
            '"' => Some("\\\""),
            '<' => Some("\\u003C"),
            '>' => Some("\\u003E"),
            '&' => Some("\\u0026"),
            '=' => Some("\\u003D"),
            _ => None,
        })),
        "urlquery" => Value::Text(urlquery(&joined(""))),
        "eq" => {
            let first = argument(0)?;
            argument(1)?;
            let mut equal = false;
            for other in &arguments[1..] {
                equal = equal || is_equal(first, other)?;
            }
            Value::Bool(equal)
        }
        "ne" => Value::Bool(!is_equal(argument(0)?, argument(1)?)?),
        "lt" => Value::Bool(order(argument(0)?, argument(1)?)?.is_lt()),
        "le" => Value::Bool(order(argument(0)?, argument(1)?)?.is_le()),
        "gt" => Value::Bool(order(argument(0)?, argument(1)?)?.is_gt()),
        "ge" => Value::Bool(order(argument(0)?, argument(1)?)?.is_ge()),
        "not" => Value::Bool(!argument(0)?.is_true()),
        _ => return Err(format!("wrong number of args for {name}")),
    })
}

/// A row marshals itself, and Go's marshaller escapes for HTML; the function `json` does not.
fn json(value: &Value) -> String {
    let is_row = matches!(value, Value::Struct(fields) if fields.iter().any(|field| field.name == " type"));
    value.json(is_row)
}

fn title(text: &str) -> String {
    let mut after_letter = false;
    let mut out = String::new();
    for c in text.chars() {
        match after_letter {
            true => out.push(c),
            false => out.extend(c.to_uppercase()),
        }
        after_letter = c.is_alphanumeric() || c == '_' || c == '\'';
    }
    out
}

fn index(value: &Value, keys: &[Value]) -> Result<Value, String> {
    let mut value = value.clone();
    for key in keys {
        value = match (value, key) {
            (Value::List(mut items), Value::Int(at)) => match usize::try_from(*at) {
                Ok(at) if at < items.len() => items.swap_remove(at),
                _ => return Err(format!("reflect: slice index out of range: {at}")),
            },
            (Value::Map { mut entries, text }, Value::Text(name)) => match entries.remove(name) {
                Some(value) => value,
                // Go gives the zero value of the map's element.
                None if text => Value::Text(String::new()),
                None => Value::Missing,
            },
            (Value::Null(Nothing::Map), Value::Text(_)) => Value::Missing,
            (Value::Null(Nothing::List), Value::Int(at)) => {
                return Err(format!("reflect: slice index out of range: {at}"));
            }
            (Value::Text(text), Value::Int(at)) => {
                match usize::try_from(*at).ok().and_then(|at| text.as_bytes().get(at)) {
                    Some(byte) => Value::Int((*byte).into()),
                    None => return Err(format!("reflect: string index out of range: {at}")),
                }
            }
            (Value::Null(_) | Value::Missing, _) => return Err("index of untyped nil".to_owned()),
            (Value::List(_), key) => {
                return Err(format!("cannot index slice/array with type {}", key.type_name()));
            }
            (Value::Map { .. }, key) => {
                return Err(format!("value has type {}; should be string", key.type_name()));
            }
            (other, _) => return Err(format!("can't index item of type {}", other.type_name())),
        };
    }
    Ok(value)
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, String> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(Value::Int(number)) => usize::try_from(*number)
            .ok()
            .filter(|number| *number <= length)
            .ok_or_else(|| format!("index out of range: {number}")),
        Some(other) => Err(format!("cannot index slice/array with type {}", other.type_name())),
    };
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    Ok(match value {
        Value::List(items) => Value::List(items[from..to].to_vec()),
        other => Value::Text(String::from_utf8_lossy(&other.show().as_bytes()[from..to]).into_owned()),
    })
}

/// Go's `Sprint`: a blank between two operands when neither is a string.
fn print(arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut after_text = true;
    for argument in arguments {
        let is_text = matches!(argument, Value::Text(_));
        if !after_text && !is_text {
            out.push(' ');
        }
        out += &argument.show();
        after_text = is_text;
    }
    out
}

fn escape(text: &str, replacement: impl Fn(char) -> Option<&'static str>) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match replacement(c) {
            Some(other) => out.push_str(other),
            None => out.push(c),
        }
    }
    out
}

fn urlquery(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            b' ' => out.push('+'),
            other => out += &format!("%{other:02X}"),
        }
    }
    out
}

fn is_equal(left: &Value, right: &Value) -> Result<bool, String> {
    let is_nothing = |value: &Value| matches!(value, Value::Null(_) | Value::Missing);
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => Ok(left == right),
        (Value::Int(left), Value::Int(right)) => Ok(left == right),
        (Value::Float(left), Value::Float(right)) => Ok(left == right),
        (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
        (left, right) if is_nothing(left) || is_nothing(right) => Ok(is_nothing(left) && is_nothing(right)),
        (Value::List(_) | Value::Map { .. }, _) | (_, Value::List(_) | Value::Map { .. }) => {
            Err("non-comparable type".to_owned())
        }
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn order(left: &Value, right: &Value) -> Result<Ordering, String> {
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => Ok(left.cmp(right)),
        (Value::Int(left), Value::Int(right)) => Ok(left.cmp(right)),
        (Value::Float(left), Value::Float(right)) => {
            left.partial_cmp(right).ok_or_else(|| "invalid type for comparison".to_owned())
        }
        (Value::Bool(_), Value::Bool(_)) => Err("invalid type for comparison".to_owned()),
        _ => Err("incompatible types for comparison".to_owned()),
    }
}
