//! The `tag` of log options: Go's templates as far as tags use them.
//!
//! Text, `{{.Field}}`, `{{index .ContainerLabels "key"}}`, string literals, pipes into `lower`, `upper`, `title`,
//! `json` and `truncate N`, and `{{-`, `-}}`. Conditions and loops are refused, not ignored.
//!
//! Source: moby `daemon/logger/loginfo.go` and `daemon/internal/.../templates`; text/template of Go.

use crate::daemon::containers::container::Record;
use crate::daemon::error::{Error, Result};

/// Refuses a tag that cannot be expanded, whatever the container.
pub fn check(tag: &str) -> Result<()> {
    expand(tag, &Record::default()).map(drop)
}

/// The tag of a container.
///
/// # Errors
/// InvalidParameter, beginning as Go's messages do.
pub fn expand(tag: &str, record: &Record) -> Result<String> {
    let failed = |cause: String| Error::invalid(format!("template: log-tag:1: {cause}"));
    let (mut out, mut rest) = (String::new(), tag);
    while let Some((text, after)) = rest.split_once("{{") {
        out.push_str(text);
        let after = match after.strip_prefix("- ") {
            Some(trimmed) => {
                out.truncate(out.trim_end().len());
                trimmed
            }
            None => after,
        };
        let end = action_end(after).ok_or_else(|| failed("unclosed action".to_owned()))?;
        let (action, mut following) = (&after[..end], &after[end + 2..]);
        let action = match action.strip_suffix(" -") {
            Some(action) => {
                following = following.trim_start();
                action
            }
            None => action,
        };
        out.push_str(&evaluate(action, record).map_err(failed)?);
        rest = following;
    }
    out.push_str(rest);
    Ok(out)
}

/// Where `}}` closes an action; not inside a string.
fn action_end(text: &str) -> Option<usize> {
    let (mut quote, mut escaped) = (None, false);
    for (at, letter) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if letter == '\\' => escaped = true,
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if matches!(letter, '"' | '`') => quote = Some(letter),
            None if text[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

/// The words of an action; a pipe is one.
fn words(action: &str) -> Result<Vec<Word>, String> {
    let (mut words, mut rest) = (Vec::new(), action.trim_start());
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '|' => {
                words.push(Word::Pipe);
                1
            }
            '"' => {
                let inner = &rest[1..];
                let close = (0..inner.len()).find(|at| {
                    inner.as_bytes()[*at] == b'"'
                        && inner[..*at].bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 0
                });
                let close = close.ok_or("unterminated quoted string")?;
                let text = serde_json::from_str(&rest[..close + 2]);
                words.push(Word::Text(text.map_err(|_| "bad string".to_owned())?));
                close + 2
            }
            '`' => {
                let close = rest[1..].find('`').ok_or("unterminated raw quoted string")?;
                words.push(Word::Text(rest[1..close + 1].to_owned()));
                close + 2
            }
            _ => {
                let end =
                    rest.find(|letter: char| letter.is_whitespace() || matches!(letter, '|' | '"' | '`'));
                let end = end.unwrap_or(rest.len());
                words.push(Word::Name(rest[..end].to_owned()));
                end
            }
        };
        rest = rest[length..].trim_start();
    }
    Ok(words)
}

#[derive(Debug, PartialEq, Eq)]
enum Word {
    Pipe,
    Text(String),
    Name(String),
}

/// What a pipeline hands on.
enum Value {
    Text(String),
    List(Vec<String>),
    Map(Vec<(String, String)>),
}

impl Value {
    /// As Go prints it.
    fn text(self) -> String {
        match self {
            Value::Text(text) => text,
            Value::List(items) => format!("[{}]", items.join(" ")),
            Value::Map(pairs) => {
                let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}:{value}")).collect();
                format!("map[{}]", pairs.join(" "))
            }
        }
    }

    fn json(self) -> String {
        let json = match self {
            Value::Text(text) => text.into(),
            Value::List(items) => items.into(),
            Value::Map(pairs) => {
                serde_json::Value::Object(pairs.into_iter().map(|(key, value)| (key, value.into())).collect())
            }
        };
        json.to_string()
    }
}

fn evaluate(action: &str, record: &Record) -> Result<String, String> {
    let words = words(action)?;
    let mut value = None;
    for command in words.split(|word| *word == Word::Pipe) {
        value = Some(call(command, value, record)?);
    }
    value.map(Value::text).ok_or_else(|| "missing value for command".to_owned())
}

fn call(command: &[Word], piped: Option<Value>, record: &Record) -> Result<Value, String> {
    let text = |value: Option<Value>, arguments: &[Word]| -> Result<String, String> {
        match (value, arguments) {
            (Some(value), []) => Ok(value.text()),
            (None, [word]) => Ok(operand(word, record)?.text()),
            _ => Err("wrong number of arguments".to_owned()),
        }
    };
    match command {
        [] => Err("missing value for command".to_owned()),
        [Word::Name(name), arguments @ ..] if !name.starts_with('.') => match (name.as_str(), arguments) {
            ("lower", _) => Ok(Value::Text(text(piped, arguments)?.to_lowercase())),
            ("upper", _) => Ok(Value::Text(text(piped, arguments)?.to_uppercase())),
            ("title", _) => Ok(Value::Text(title(&text(piped, arguments)?))),
            ("json", []) => {
                piped.map(|value| Value::Text(value.json())).ok_or("json: no argument".to_owned())
            }
            ("json", [word]) => Ok(Value::Text(operand(word, record)?.json())),
            ("truncate", [word, Word::Name(count)] | [Word::Name(count), word]) if piped.is_none() => {
                truncate(operand(word, record)?, count)
            }
            ("truncate", [Word::Name(count)]) => truncate(piped.ok_or("truncate: no argument")?, count),
            ("index", [of, Word::Text(key)]) if piped.is_none() => match operand(of, record)? {
                Value::Map(pairs) => {
                    let found = pairs.into_iter().find(|(name, _)| name == key);
                    Ok(Value::Text(found.map(|(_, value)| value).unwrap_or_default()))
                }
                _ => Err("can't index item: not a map".to_owned()),
            },
            ("if" | "with" | "range" | "template" | "define" | "block" | "else" | "end", _) => {
                Err(format!("{name:?} is not supported in a tag"))
            }
            _ => Err(format!("function {name:?} not defined")),
        },
        [word] if piped.is_none() => operand(word, record),
        _ => Err("can't give argument to non-function".to_owned()),
    }
}

fn truncate(value: Value, count: &str) -> Result<Value, String> {
    let count: usize = count.parse().map_err(|_| format!("truncate: {count:?} is not a number"))?;
    let text = value.text();
    let end = text.char_indices().nth(count).map_or(text.len(), |(at, _)| at);
    Ok(Value::Text(text[..end].to_owned()))
}

fn title(text: &str) -> String {
    let mut is_first = true;
    let raise = |letter: char| {
        let raised = if is_first { letter.to_uppercase().next().unwrap_or(letter) } else { letter };
        is_first = !letter.is_alphanumeric();
        raised
    };
    text.chars().map(raise).collect()
}

fn operand(word: &Word, record: &Record) -> Result<Value, String> {
    match word {
        Word::Text(text) => Ok(Value::Text(text.clone())),
        Word::Name(name) => {
            let field = name.strip_prefix('.').ok_or_else(|| format!("unexpected {name:?}"))?;
            self::field(field, record)
                .ok_or_else(|| format!("<.{field}>: can't evaluate field {field} in type logger.Info"))
        }
        Word::Pipe => Err("unexpected \"|\"".to_owned()),
    }
}

fn field(name: &str, record: &Record) -> Option<Value> {
    let image_id = record.image_id.strip_prefix("sha256:").unwrap_or(&record.image_id);
    let short = |id: &str| id.get(..12).unwrap_or(id).to_owned();
    let map = |pairs: &std::collections::BTreeMap<String, String>| {
        Value::Map(pairs.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    };
    let text = match name {
        "ID" => short(&record.id),
        "FullID" | "ContainerID" => record.id.clone(),
        "Name" => record.name.clone(),
        "FullName" | "ContainerName" => format!("/{}", record.name),
        "ImageID" => short(image_id),
        "ImageFullID" | "ContainerImageID" => record.image_id.clone(),
        "ImageName" | "ContainerImageName" => record.config.image.clone(),
        "Command" => {
            let words: Vec<&str> =
                std::iter::once(&record.path).chain(&record.args).map(String::as_str).collect();
            words.join(" ")
        }
        "ContainerEntrypoint" => record.path.clone(),
        "ContainerArgs" => return Some(Value::List(record.args.clone())),
        "ContainerEnv" => return Some(Value::List(record.config.env.clone())),
        "ContainerLabels" => return Some(map(&record.config.labels)),
        "Config" => return Some(map(&record.host_config.log_config.config)),
        "ContainerCreated" => record.created.clone(),
        "Hostname" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        "DaemonName" => "docker".to_owned(),
        _ => return None,
    };
    Some(Value::Text(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_expanded_as_dockers() {
        let mut record = Record { id: "ab".repeat(32), name: "web".into(), ..Record::default() };
        record.image_id = format!("sha256:{}", "cd".repeat(32));
        record.config.image = "busybox:1".into();
        record.path = "sh".into();
        record.args = vec!["-c".into(), "x y".into()];
        record.config.labels = [("role".to_owned(), "db one".to_owned())].into();
        let full = "cd".repeat(32);
        for (tag, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("{{.ID}}", "abababababab"),
            ("{{ .Name }}/{{.ImageName}}", "web/busybox:1"),
            ("{{.ImageID}}", "cdcdcdcdcdcd"),
            ("{{.ImageFullID}}", &format!("sha256:{full}")),
            ("{{.Command}}", "sh -c x y"),
            ("{{.ContainerArgs}}", "[-c x y]"),
            ("{{.DaemonName}}", "docker"),
            ("{{index .ContainerLabels \"role\"}}|{{index .ContainerLabels `no`}}", "db one|"),
            ("{{.ContainerLabels}} {{json .ContainerLabels}}", "map[role:db one] {\"role\":\"db one\"}"),
            ("{{.Name | upper}} {{upper .Name}} {{.Name|title}}", "WEB WEB Web"),
            ("{{.FullID | truncate 3}} {{truncate .FullID 2}}", "aba ab"),
            ("a {{- .Name -}} b", "awebb"),
            ("{{\"}}\"}} {{`\"`}}", "}} \""),
        ] {
            assert_eq!(expand(tag, &record).unwrap(), expected, "{tag}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (tag, part) in [
            ("{{.Nope}}", "can't evaluate field Nope in type logger.Info"),
            ("{{.Name", "unclosed action"),
            ("{{}}", "missing value"),
            ("{{nope .Name}}", "function \"nope\" not defined"),
            ("{{if .Name}}x{{end}}", "\"if\" is not supported"),
            ("{{.Name .ID}}", "can't give argument"),
            ("{{.Name | }}", "missing value"),
            ("{{\"x}}", "unclosed action"),
            ("{{index .Name \"x\"}}", "not a map"),
            ("{{| upper}}", "missing value"),
            ("{{truncate .Name x}}", "not a number"),
        ] {
            let message = check(tag).unwrap_err().message;
            assert!(
                message.starts_with("template: log-tag:1: ") && message.contains(part),
                "{tag}: {message}"
            );
        }
    }
}
