//! The part of Go's templates that `--format` needs, over JSON values.
//!
//! ```text
//! text {{.Field.Sub}} {{json .}} {{index .Map "key"}} {{len .List}} {{join .List ", "}} {{upper .Name}}
//! {{if .A}}…{{else if eq .B "x"}}…{{else}}…{{end}}   {{range .List}}{{.}}{{else}}…{{end}}
//! {{range $key, $value := .Map}}…{{end}}   {{with .A}}…{{end}}   {{printf "%s %d" .A .B}}   {{.A | upper}}
//! ```
//!
//! Fields that do not exist are errors, as in Docker: a typing mistake must not print nothing.
//!
//! Not here: templates by name, methods, comparison of complex values, `break` and `continue`; using one is
//! an error that names it.
//!
//! Stays whole: parser and evaluator of one small language, each meaningless without the other.
//!
//! Source: Go's text/template documentation; the functions Docker adds are listed in its formatting guide.

use serde_json::Value;

/// Nested blocks and parentheses beyond this are refused rather than risk the stack.
const DEPTH: usize = 64;

/// A template, read and ready to be applied.
#[derive(Debug)]
pub struct Template {
    nodes: Vec<Node>,
}

#[derive(Debug)]
enum Node {
    Text(String),
    Print(Pipe),
    If { condition: Pipe, then: Vec<Node>, otherwise: Vec<Node> },
    With { value: Pipe, then: Vec<Node>, otherwise: Vec<Node> },
    Range { key: Option<String>, value: Option<String>, list: Pipe, body: Vec<Node>, otherwise: Vec<Node> },
    Set { name: String, value: Pipe },
}

/// Calls joined by `|`; each hands its value to the next as the last argument.
#[derive(Debug)]
struct Pipe(Vec<Call>);

/// A function with arguments, or a lone operand, or a method-like field with arguments (`.Label "key"`).
#[derive(Debug)]
struct Call(Vec<Operand>);

#[derive(Debug)]
enum Operand {
    /// `.`, `.A.B`
    Field(Vec<String>),
    /// `$x.A`; the name is empty for `$`.
    Variable(String, Vec<String>),
    Literal(Value),
    Function(String),
    Nested(Pipe),
}

impl Template {
    /// Reads a template. The error says what was not understood.
    pub fn parse(text: &str) -> Result<Template, String> {
        // The shell leaves \t and \n as they are typed; Docker's client expands them.
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let pieces = split(&text)?;
        let mut at = 0;
        let (nodes, end) = block(&pieces, &mut at, 0)?;
        match end {
            None => Ok(Template { nodes }),
            Some(word) => Err(format!("unexpected {{{{{word}}}}}")),
        }
    }

    /// Applies the template to `data`.
    pub fn render(&self, data: &Value) -> Result<String, String> {
        let mut out = String::new();
        let mut scope = Scope { root: data, variables: Vec::new() };
        run(&self.nodes, data, &mut scope, &mut out)?;
        Ok(out)
    }
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Action(String),
}

/// Cuts text from actions, and trims where `{{-` and `-}}` ask for it.
fn split(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    while let Some(start) = rest.find("{{") {
        let mut before = &rest[..start];
        let inside = &rest[start + 2..];
        let end = action_end(inside).ok_or("unclosed action: }} is missing")?;
        let mut action = &inside[..end];
        rest = &inside[end + 2..];
        if trim_next {
            before = before.trim_start();
        }
        if let Some(trimmed) = action.strip_prefix("- ") {
            action = trimmed;
            before = before.trim_end();
        }
        trim_next = action.ends_with(" -");
        if trim_next {
            action = &action[..action.len() - 2];
        }
        pieces.push(Piece::Text(before.to_owned()));
        let action = action.trim();
        if !(action.starts_with("/*") && action.ends_with("*/")) {
            pieces.push(Piece::Action(action.to_owned()));
        }
    }
    pieces.push(Piece::Text(if trim_next { rest.trim_start() } else { rest }.to_owned()));
    Ok(pieces)
}

/// Where the action ends; quotes may hide braces.
fn action_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut at = 0;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(b'"'), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (None, byte @ (b'"' | b'`')) => quote = Some(byte),
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Reads nodes up to `end` or `else`, which is given back for the caller to act on.
fn block(pieces: &[Piece], at: &mut usize, depth: usize) -> Result<(Vec<Node>, Option<String>), String> {
    if depth > DEPTH {
        return Err("blocks are nested too deep".to_owned());
    }
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.get(*at) {
        *at += 1;
        let action = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text.clone()));
                continue;
            }
            Piece::Action(action) => action,
        };
        let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
        match word {
            "end" | "else" => return Ok((nodes, Some(action.clone()))),
            "if" | "with" => nodes.push(branch(word, rest, pieces, at, depth)?),
            "range" => {
                let (names, list) = range_head(rest)?;
                let (body, end) = block(pieces, at, depth + 1)?;
                let otherwise = alternative(end, pieces, at, depth)?;
                let (key, value) = names;
                nodes.push(Node::Range { key, value, list, body, otherwise });
            }
            "template" | "define" | "block" | "break" | "continue" => {
                return Err(format!("{{{{{word}}}}} is not supported"));
            }
            "" => return Err("an action is empty".to_owned()),
            _ => match action.split_once(":=").filter(|_| word.starts_with('$')) {
                Some((name, value)) => {
                    let name = name.trim().trim_start_matches('$').to_owned();
                    nodes.push(Node::Set { name, value: pipe(value)? });
                }
                None => nodes.push(Node::Print(pipe(action)?)),
            },
        }
    }
    Ok((nodes, None))
}

/// `if` and `with`: the condition, what follows it, and `else`.
fn branch(word: &str, rest: &str, pieces: &[Piece], at: &mut usize, depth: usize) -> Result<Node, String> {
    let condition = pipe(rest)?;
    let (then, end) = block(pieces, at, depth + 1)?;
    let otherwise = alternative(end, pieces, at, depth)?;
    Ok(match word {
        "if" => Node::If { condition, then, otherwise },
        _ => Node::With { value: condition, then, otherwise },
    })
}

/// What follows `else`, or nothing; consumes the block's `end`.
fn alternative(
    end: Option<String>,
    pieces: &[Piece],
    at: &mut usize,
    depth: usize,
) -> Result<Vec<Node>, String> {
    let word = end.ok_or("{{end}} is missing")?;
    if word == "end" {
        return Ok(Vec::new());
    }
    let rest = word.strip_prefix("else").unwrap_or_default().trim();
    if let Some(condition) = rest.strip_prefix("if ") {
        if depth > DEPTH {
            return Err("blocks are nested too deep".to_owned());
        }
        // `else if` shares the `end` of the `if` it belongs to.
        return Ok(vec![branch("if", condition, pieces, at, depth + 1)?]);
    }
    match block(pieces, at, depth + 1)? {
        (nodes, Some(word)) if word == "end" => Ok(nodes),
        _ => Err("{{end}} is missing".to_owned()),
    }
}

type Names = (Option<String>, Option<String>);

/// `$i, $x := .List`, `$x := .List` or `.List`.
fn range_head(text: &str) -> Result<(Names, Pipe), String> {
    let Some((names, list)) = text.split_once(":=") else { return Ok(((None, None), pipe(text)?)) };
    let mut names =
        names.split(',').map(|name| name.trim().trim_start_matches('$').to_owned()).collect::<Vec<_>>();
    let value = names.pop();
    Ok(((names.pop(), value), pipe(list)?))
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Open,
    Close,
    Bar,
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '(' => tokens.push(Token::Open),
            ')' => tokens.push(Token::Close),
            '|' => tokens.push(Token::Bar),
            '`' => tokens.push(Token::Text(chars.by_ref().take_while(|c| *c != '`').collect())),
            '"' => {
                let mut word = String::new();
                loop {
                    match chars.next().ok_or_else(|| format!("a quote is not closed in {text:?}"))? {
                        '"' => break,
                        '\\' => word.push(match chars.next() {
                            Some('n') => '\n',
                            Some('t') => '\t',
                            Some(other) => other,
                            None => return Err(format!("a quote is not closed in {text:?}")),
                        }),
                        other => word.push(other),
                    }
                }
                tokens.push(Token::Text(word));
            }
            c if c.is_whitespace() => {}
            c => {
                let mut word = String::from(c);
                while let Some(c) = chars.next_if(|c| !c.is_whitespace() && !"()|\"`".contains(*c)) {
                    word.push(c);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Ok(tokens)
}

fn pipe(text: &str) -> Result<Pipe, String> {
    let tokens = tokens(text)?;
    let mut at = 0;
    let pipe = pipe_of(&tokens, &mut at, 0)?;
    if at < tokens.len() {
        return Err(format!("unexpected ) in {text:?}"));
    }
    Ok(pipe)
}

fn pipe_of(tokens: &[Token], at: &mut usize, depth: usize) -> Result<Pipe, String> {
    if depth > DEPTH {
        return Err("parentheses are nested too deep".to_owned());
    }
    let mut calls = Vec::new();
    let mut operands = Vec::new();
    loop {
        let token = tokens.get(*at);
        if matches!(token, None | Some(Token::Bar | Token::Close)) {
            if operands.is_empty() {
                return Err("a value is missing".to_owned());
            }
            calls.push(Call(std::mem::take(&mut operands)));
        }
        match token {
            None | Some(Token::Close) => return Ok(Pipe(calls)),
            Some(Token::Bar) => *at += 1,
            Some(Token::Open) => {
                *at += 1;
                operands.push(Operand::Nested(pipe_of(tokens, at, depth + 1)?));
                if tokens.get(*at) != Some(&Token::Close) {
                    return Err("a ) is missing".to_owned());
                }
                *at += 1;
            }
            Some(Token::Text(text)) => {
                *at += 1;
                operands.push(Operand::Literal(Value::from(text.as_str())));
            }
            Some(Token::Word(word)) => {
                *at += 1;
                operands.push(operand(word)?);
            }
        }
    }
}

fn operand(word: &str) -> Result<Operand, String> {
    let path = |text: &str| text.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    if word.starts_with('.') {
        return Ok(Operand::Field(path(word)));
    }
    if let Some(name) = word.strip_prefix('$') {
        let (name, fields) = name.split_once('.').unwrap_or((name, ""));
        return Ok(Operand::Variable(name.to_owned(), path(fields)));
    }
    match word {
        "true" | "false" => Ok(Operand::Literal(Value::from(word == "true"))),
        "nil" => Ok(Operand::Literal(Value::Null)),
        _ => match word.parse::<i64>() {
            Ok(number) => Ok(Operand::Literal(Value::from(number))),
            Err(_) => match FUNCTIONS.contains(&word) {
                true => Ok(Operand::Function(word.to_owned())),
                false => Err(format!("function {word:?} is not supported")),
            },
        },
    }
}

struct Scope<'a> {
    root: &'a Value,
    variables: Vec<(String, Value)>,
}

fn run(nodes: &[Node], dot: &Value, scope: &mut Scope<'_>, out: &mut String) -> Result<(), String> {
    let outer = scope.variables.len();
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipe) => out.push_str(&show(&value_of(pipe, dot, scope)?)),
            Node::Set { name, value } => {
                let value = value_of(value, dot, scope)?;
                scope.variables.push((name.clone(), value));
            }
            Node::If { condition, then, otherwise } => {
                let branch = if is_true(&value_of(condition, dot, scope)?) { then } else { otherwise };
                run(branch, dot, scope, out)?;
            }
            Node::With { value, then, otherwise } => {
                let value = value_of(value, dot, scope)?;
                match is_true(&value) {
                    true => run(then, &value, scope, out)?,
                    false => run(otherwise, dot, scope, out)?,
                }
            }
            Node::Range { key, value, list, body, otherwise } => {
                let items: Vec<(Value, Value)> = match value_of(list, dot, scope)? {
                    Value::Array(items) => {
                        items.into_iter().enumerate().map(|(at, item)| (Value::from(at), item)).collect()
                    }
                    Value::Object(fields) => fields.into_iter().map(|(k, v)| (Value::from(k), v)).collect(),
                    Value::Null => Vec::new(),
                    other => return Err(format!("range can't iterate over {}", show(&other))),
                };
                if items.is_empty() {
                    run(otherwise, dot, scope, out)?;
                }
                for (at, item) in items {
                    let outer = scope.variables.len();
                    scope.variables.extend(key.iter().map(|name| (name.clone(), at.clone())));
                    scope.variables.extend(value.iter().map(|name| (name.clone(), item.clone())));
                    run(body, &item, scope, out)?;
                    scope.variables.truncate(outer);
                }
            }
        }
    }
    scope.variables.truncate(outer);
    Ok(())
}

fn value_of(pipe: &Pipe, dot: &Value, scope: &Scope<'_>) -> Result<Value, String> {
    let mut carried = None;
    for Call(operands) in &pipe.0 {
        let (first, rest) = operands.split_first().expect("a call has an operand: the parser refuses others");
        let mut arguments =
            rest.iter().map(|operand| resolve(operand, dot, scope)).collect::<Result<Vec<_>, _>>()?;
        arguments.extend(carried.take());
        carried = Some(match first {
            Operand::Function(name) => call(name, &arguments)?,
            // `.Label "key"`: Docker's rows have methods; ours have an object of that name.
            Operand::Field(path) if !arguments.is_empty() => {
                let hidden: Vec<String> = path.iter().map(|part| format!(" {part}")).collect();
                let object = field(dot, &hidden).or_else(|_| field(dot, path))?;
                let mut given = vec![object];
                given.extend(arguments);
                call("index", &given)?
            }
            operand if arguments.is_empty() => resolve(operand, dot, scope)?,
            _ => return Err("a value can't be called like a function".to_owned()),
        });
    }
    carried.ok_or_else(|| "a value is missing".to_owned())
}

fn resolve(operand: &Operand, dot: &Value, scope: &Scope<'_>) -> Result<Value, String> {
    match operand {
        Operand::Field(path) => field(dot, path),
        Operand::Variable(name, path) if name.is_empty() => field(scope.root, path),
        Operand::Variable(name, path) => {
            let found = scope.variables.iter().rev().find(|(known, _)| known == name);
            field(&found.ok_or_else(|| format!("undefined variable \"${name}\""))?.1, path)
        }
        Operand::Literal(value) => Ok(value.clone()),
        Operand::Function(name) => call(name, &[]),
        Operand::Nested(pipe) => value_of(pipe, dot, scope),
    }
}

fn field(value: &Value, path: &[String]) -> Result<Value, String> {
    let mut value = value;
    for name in path {
        value = match value {
            Value::Object(fields) => fields
                .get(name)
                .ok_or_else(|| format!("there is no field {name:?} in .{}", path.join(".")))?,
            Value::Null => return Err(format!("nothing is set before {name:?} in .{}", path.join("."))),
            _ => return Err(format!("can't read field {name:?} of a plain value in .{}", path.join("."))),
        };
    }
    Ok(value.clone())
}

const FUNCTIONS: &[&str] = &[
    "json", "index", "len", "join", "split", "upper", "lower", "title", "truncate", "pad", "println",
    "print", "printf", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not",
];

fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let argument = |at: usize| {
        arguments
            .get(at)
            .ok_or_else(|| format!("{name} needs {} argument{}", at + 1, if at == 0 { "" } else { "s" }))
    };
    let number = |at: usize| {
        let number = argument(at)?.as_u64().and_then(|number| usize::try_from(number).ok());
        number.filter(|number| *number <= 1 << 16).ok_or_else(|| format!("{name} needs a small number"))
    };
    Ok(match name {
        "json" => Value::from(argument(0)?.to_string()),
        "upper" => Value::from(show(argument(0)?).to_uppercase()),
        "lower" => Value::from(show(argument(0)?).to_lowercase()),
        "title" => {
            let text = show(argument(0)?);
            let mut chars = text.chars();
            let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
            Value::from(first + chars.as_str())
        }
        "join" => match argument(0)? {
            Value::Array(items) => {
                Value::from(items.iter().map(show).collect::<Vec<_>>().join(&show(argument(1)?)))
            }
            _ => return Err("join needs a list".to_owned()),
        },
        "split" => {
            let separator = show(argument(1)?);
            Value::from(show(argument(0)?).split(&separator).map(str::to_owned).collect::<Vec<_>>())
        }
        "truncate" => Value::from(show(argument(0)?).chars().take(number(1)?).collect::<String>()),
        "pad" => {
            Value::from(format!("{}{}{}", " ".repeat(number(1)?), show(argument(0)?), " ".repeat(number(2)?)))
        }
        "len" => match argument(0)? {
            Value::Array(items) => Value::from(items.len()),
            Value::Object(fields) => Value::from(fields.len()),
            Value::String(text) => Value::from(text.len()),
            Value::Null => Value::from(0),
            other => return Err(format!("len of {} makes no sense", show(other))),
        },
        "index" => {
            let mut value = argument(0)?;
            for key in &arguments[1..] {
                value = match (value, key) {
                    (Value::Array(items), Value::Number(at)) => at
                        .as_u64()
                        .and_then(|at| items.get(usize::try_from(at).ok()?))
                        .ok_or_else(|| format!("index out of range: {at}"))?,
                    (Value::Object(fields), Value::String(name)) => match fields.get(name) {
                        Some(value) => value,
                        // Go gives the zero value of the map's element, which prints as nothing.
                        None => return Ok(Value::from("")),
                    },
                    (value, key) => return Err(format!("can't index {} with {}", show(value), show(key))),
                };
            }
            value.clone()
        }
        "print" => Value::from(arguments.iter().map(show).collect::<String>()),
        "println" => Value::from(arguments.iter().map(show).collect::<Vec<_>>().join(" ") + "\n"),
        "printf" => Value::from(printf(&show(argument(0)?), &arguments[1..])?),
        "eq" => {
            let first = argument(0)?;
            argument(1)?;
            Value::from(arguments[1..].iter().any(|other| show(other) == show(first)))
        }
        "ne" => Value::from(show(argument(0)?) != show(argument(1)?)),
        "lt" | "le" | "gt" | "ge" => {
            let (left, right) = (argument(0)?, argument(1)?);
            let order = match (left.as_f64(), right.as_f64()) {
                (Some(left), Some(right)) => left.partial_cmp(&right),
                _ => Some(show(left).cmp(&show(right))),
            };
            let order = order.ok_or("incomparable numbers")?;
            Value::from(match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            })
        }
        "not" => Value::from(!is_true(argument(0)?)),
        "and" => {
            arguments.iter().find(|value| !is_true(value)).or(arguments.last()).cloned().unwrap_or_default()
        }
        "or" => {
            arguments.iter().find(|value| is_true(value)).or(arguments.last()).cloned().unwrap_or_default()
        }
        _ => return Err(format!("function {name:?} is not supported")),
    })
}

/// `%s %v %d %q %%`, with a width (`%-10s`).
fn printf(format: &str, arguments: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let left = chars.next_if_eq(&'-').is_some();
        let mut width = 0usize;
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            width =
                width.saturating_mul(10).saturating_add(digit.to_digit(10).unwrap_or(0) as usize).min(4096);
        }
        let verb = chars.next().ok_or("printf: % at the end")?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let argument = arguments.next().ok_or_else(|| format!("printf: no argument for %{verb}"))?;
        let text = match verb {
            's' | 'v' | 'd' => show(argument),
            'q' => format!("{:?}", show(argument)),
            't' => is_true(argument).to_string(),
            _ => return Err(format!("printf: %{verb} is not supported")),
        };
        out += &if left { format!("{text:<width$}") } else { format!("{text:>width$}") };
    }
    Ok(out)
}

/// A value as Go's `%v` prints it.
pub fn show(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(on) => on.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(key, _)| !key.starts_with(' '));
            format!("map[{}]", fields.map(|(k, v)| format!("{k}:{}", show(v))).collect::<Vec<_>>().join(" "))
        }
    }
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str) -> Result<String, String> {
        let data = serde_json::json!({
            "Name": "/web", "Count": 3, "Empty": "", "Nothing": null,
            "State": {"Running": true, "Pid": 42},
            "List": ["a", "b"],
            "Map": {"x.y": "1", "z": "2"},
            " Label": {"k": "v"},
            "Label": "k=v",
        });
        Template::parse(template)?.render(&data)
    }

    #[test]
    fn templates_print_what_go_prints() {
        let cases = [
            ("plain", "plain"),
            ("{{.Name}} {{ .State.Pid }}", "/web 42"),
            ("{{json .State}}", r#"{"Pid":42,"Running":true}"#),
            ("{{.List}} {{.State}} {{.Nothing}}", "[a b] map[Pid:42 Running:true] <no value>"),
            ("{{index .Map \"x.y\"}}{{index .Map \"no\"}}{{index .List 1}}", "1b"),
            ("{{range .List}}<{{.}}>{{end}}", "<a><b>"),
            ("{{range $k, $v := .Map}}{{$k}}={{$v}};{{end}}", "x.y=1;z=2;"),
            ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
            ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
            ("{{if .Empty}}a{{else if eq .Name \"/web\"}}b{{else}}c{{end}}", "b"),
            ("{{with .State}}{{.Pid}} {{$.Name}}{{end}}", "42 /web"),
            ("{{join .List \", \"}} {{upper .Name}} {{len .List}}", "a, b /WEB 2"),
            ("{{.Name | upper | printf \"%8s|\"}}", "    /WEB|"),
            ("{{printf \"%-6s|%d%%\" .Name .Count}}", "/web  |3%"),
            ("{{if and .Name (not .Empty)}}y{{end}}", "y"),
            ("{{if gt .Count 2}}y{{end}}{{if ne .Name \"x\"}}z{{end}}", "yz"),
            ("a {{- .Count -}} b", "a3b"),
            ("{{/* note */}}x", "x"),
            ("{{.Label \"k\"}}", "v"),
            ("{{$x := .Count}}{{$x}}\\n", "3\n"),
            ("{{range split .Name \"w\"}}[{{.}}]{{end}}", "[/][eb]"),
            ("{{\"}}\"}}", "}}"),
        ];
        for (template, text) in cases {
            assert_eq!(render(template).as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("{{.Nmae}}", "no field \"Nmae\""),
            ("{{.State.Pid.X}}", "plain value"),
            ("{{.Name", "}} is missing"),
            ("{{if .Name}}x", "{{end}} is missing"),
            ("x{{end}}", "unexpected {{end}}"),
            ("{{frobnicate .}}", "\"frobnicate\" is not supported"),
            ("{{template \"x\"}}", "not supported"),
            ("{{}}", "empty"),
            ("{{index .List 9}}", "out of range"),
            ("{{range .Count}}{{end}}", "can't iterate"),
            ("{{(.Name}}", ") is missing"),
            ("{{printf \"%x\" 1}}", "%x is not supported"),
            ("{{.Name .Count}}", "can't index"),
            ("{{pad .Name 99999999 0}}", "small number"),
        ];
        for (template, words) in cases {
            let error = render(template).unwrap_err();
            assert!(error.contains(words), "{template}: {error}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "{{if .Name}}".repeat(1000) + &"{{end}}".repeat(1000);
        assert!(Template::parse(&deep).is_err());
        let deep = format!("{{{{{}.{}}}}}", "(".repeat(1000), ")".repeat(1000));
        assert!(Template::parse(&deep).is_err());
        let chain = "{{if .Empty}}".to_owned() + &"{{else if .Empty}}".repeat(1000) + "{{end}}";
        assert!(Template::parse(&chain).is_err());
    }
}
