//! What templates look at: JSON that remembers what Go would have made of it.
//!
//! Docker applies templates to Go values, so a missing list prints as `[]`, a missing object as `<nil>` and
//! an object as `{a b}`, and `{{if .State.Health}}` is no mistake although the field is left out of the
//! JSON. A [`Value`] keeps what that takes: the order of fields, which of them were left out, and what kind
//! of nothing stands in a field.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing where there might be something: null on the wire.
    Null(Nothing),
    /// Not there at all: what a map gives for a key it lacks.
    Missing,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Value>),
    /// By key; `text` when its values are texts, whose nothing is the empty one.
    Map {
        entries: BTreeMap<String, Value>,
        text: bool,
    },
    Struct(Vec<Field>),
}

/// A field of a [`Value::Struct`].
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub name: String,
    pub value: Value,
    /// Whether JSON shows it: not when it was left out for saying nothing.
    pub shown: bool,
}

/// What a null would be in Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nothing {
    Pointer,
    List,
    Map,
}

/// Fields that hold lists: their null prints as `[]`.
const LISTS: &[&str] = &[
    "Aliases",
    "Args",
    "Binds",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "DNSNames",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Devices",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "Entrypoint",
    "Env",
    "ExecIDs",
    "ExtraHosts",
    "GroupAdd",
    "LinkLocalIPs",
    "Links",
    "Log",
    "MaskedPaths",
    "Mounts",
    "OnBuild",
    "ReadonlyPaths",
    "RepoDigests",
    "RepoTags",
    "SecondaryIPAddresses",
    "SecondaryIPv6Addresses",
    "SecurityOpt",
    "Shell",
    "Test",
    "Ulimits",
    "VolumesFrom",
    "Warnings",
];

/// Fields that hold maps: their null prints as `map[]`.
const MAPS: &[&str] = &[
    "Annotations",
    "Containers",
    "DriverOpts",
    "ExposedPorts",
    "Labels",
    "Networks",
    "Options",
    "PortBindings",
    "Ports",
    "Status",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
];

/// Maps whose values are more than a text.
const MAPS_OF_MORE: &[&str] =
    &["Containers", "ExposedPorts", "Networks", "PortBindings", "Ports", "Runtimes", "Volumes"];

/// Fields that may point to something: left out, they are nil and not empty.
const POINTERS: &[&str] = &[
    "BindOptions",
    "Descriptor",
    "Health",
    "Healthcheck",
    "IPAMConfig",
    "ImageManifestDescriptor",
    "ImageOptions",
    "Init",
    "Manifests",
    "MemorySwappiness",
    "OomKillDisable",
    "PidsLimit",
    "Reservations",
    "SizeRootFs",
    "SizeRw",
    "StopTimeout",
    "Swarm",
    "TmpfsOptions",
    "UsageData",
    "VolumeOptions",
];

/// Fields of dewar's own. Compat: where they are left out, a structure prints as Docker's does.
const OWN: &[&str] = &["CheckpointPolicy", "Checkpointing"];

/// Switches that are left out when they are off.
const SWITCHES: &[&str] = &["ArgsEscaped", "NetworkDisabled", "ReadOnly"];

impl Value {
    /// The nothing of the field `name`.
    pub fn null_of(name: &str) -> Value {
        Value::Null(match name {
            _ if LISTS.contains(&name) => Nothing::List,
            _ if MAPS.contains(&name) => Nothing::Map,
            _ => Nothing::Pointer,
        })
    }

    /// What the field `name` is when JSON leaves it out.
    pub fn zero_of(name: &str) -> Value {
        match name {
            _ if LISTS.contains(&name) || MAPS.contains(&name) || POINTERS.contains(&name) => {
                Value::null_of(name)
            }
            _ if SWITCHES.contains(&name) => Value::Bool(false),
            _ => Value::Text(String::new()),
        }
    }

    /// Whether objects that have the field `name` may leave it out.
    pub fn is_optional(name: &str) -> bool {
        POINTERS.contains(&name)
    }

    /// A map of the field `name`.
    pub fn map_of(name: &str, entries: BTreeMap<String, Value>) -> Value {
        let text =
            !MAPS_OF_MORE.contains(&name) && entries.values().all(|value| matches!(value, Value::Text(_)));
        Value::Map { entries, text }
    }

    /// A row of a listing: an object whose fields are a structure's. Names that start with a blank are for
    /// templates only.
    pub fn row(row: &super::Row) -> Value {
        Value::Struct(
            row.iter()
                .map(|(name, value)| Field {
                    name: name.clone(),
                    value: Value::from_json(value),
                    shown: !name.starts_with(' '),
                })
                .collect(),
        )
    }

    /// Plain JSON: objects are maps.
    pub fn from_json(json: &serde_json::Value) -> Value {
        match json {
            serde_json::Value::Null => Value::Null(Nothing::Pointer),
            serde_json::Value::Bool(on) => Value::Bool(*on),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Value::Int(number.into()),
                (None, Some(number)) => Value::Int(number.into()),
                (None, None) => Value::Float(number.as_f64().unwrap_or_default()),
            },
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Array(items) => Value::List(items.iter().map(Value::from_json).collect()),
            serde_json::Value::Object(fields) => Value::map_of(
                "",
                fields.iter().map(|(name, value)| (name.clone(), Value::from_json(value))).collect(),
            ),
        }
    }

    /// Whether `if` takes the first branch.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Null(_) | Value::Missing => false,
            Value::Bool(on) => *on,
            Value::Int(number) => *number != 0,
            Value::Float(number) => *number != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::List(items) => !items.is_empty(),
            Value::Map { entries, .. } => !entries.is_empty(),
            // A structure is there or it is not.
            Value::Struct(_) => true,
        }
    }

    /// As an action prints it: `%v`, with a word for what is not there.
    pub fn show(&self) -> String {
        match self {
            Value::Missing => "<no value>".to_owned(),
            other => other.verb_v(),
        }
    }

    /// As Go's `%v` prints it.
    pub fn verb_v(&self) -> String {
        let spaced = |items: Vec<String>| items.join(" ");
        match self {
            Value::Null(Nothing::Pointer) | Value::Missing => "<nil>".to_owned(),
            Value::Null(Nothing::List) => "[]".to_owned(),
            Value::Null(Nothing::Map) => "map[]".to_owned(),
            Value::Bool(on) => on.to_string(),
            Value::Int(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Text(text) => text.clone(),
            Value::List(items) => format!("[{}]", spaced(items.iter().map(Value::verb_v).collect())),
            Value::Map { entries, .. } => {
                let entries = entries.iter().map(|(key, value)| format!("{key}:{}", value.verb_v()));
                format!("map[{}]", spaced(entries.collect()))
            }
            Value::Struct(fields) => {
                let is_there = |field: &&Field| field.shown || !OWN.contains(&field.name.as_str());
                let fields = fields.iter().filter(|field| !field.name.starts_with(' ')).filter(is_there);
                format!("{{{}}}", spaced(fields.map(|field| field.value.verb_v()).collect()))
            }
        }
    }

    /// The name of the type in Go's complaints.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null(_) | Value::Missing => "<nil>",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float64",
            Value::Text(_) => "string",
            Value::List(_) => "[]interface {}",
            Value::Map { .. } => "map[string]interface {}",
            Value::Struct(_) => "struct",
        }
    }

    /// One line of JSON. `html` escapes `<`, `>` and `&`, as Go does unless told otherwise.
    pub fn json(&self, html: bool) -> String {
        let mut out = String::new();
        self.write_json(&mut out, html, None);
        out
    }

    /// Indented JSON, as `inspect` prints it.
    pub fn pretty(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out, false, Some(0));
        out
    }

    /// `depth` is how deep the lines are indented; none for a single line.
    fn write_json(&self, out: &mut String, html: bool, depth: Option<usize>) {
        match self {
            Value::Null(_) | Value::Missing => out.push_str("null"),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => out.push_str(&self.verb_v()),
            Value::Text(text) => quote(text, html, out),
            Value::List(items) => {
                write_items(out, "[]", depth, items.iter(), |out, item, depth| {
                    item.write_json(out, html, depth);
                });
            }
            Value::Map { entries, .. } => {
                write_items(out, "{}", depth, entries.iter(), |out, (name, value), depth| {
                    write_pair(out, name, value, html, depth);
                });
            }
            Value::Struct(fields) => {
                let shown = fields.iter().filter(|field| field.shown);
                write_items(out, "{}", depth, shown, |out, field, depth| {
                    write_pair(out, &field.name, &field.value, html, depth);
                });
            }
        }
    }
}

fn write_items<I>(
    out: &mut String,
    brackets: &str,
    depth: Option<usize>,
    items: impl Iterator<Item = I>,
    mut write: impl FnMut(&mut String, I, Option<usize>),
) {
    let (open, close) = brackets.split_at(1);
    let inner = depth.map(|depth| depth + 1);
    let new_line = |out: &mut String, depth: Option<usize>| {
        if let Some(depth) = depth {
            let _ = write!(out, "\n{:width$}", "", width = depth * 4);
        }
    };
    out.push_str(open);
    let mut is_empty = true;
    for item in items {
        if !is_empty {
            out.push(',');
        }
        is_empty = false;
        new_line(out, inner);
        write(out, item, inner);
    }
    if !is_empty {
        new_line(out, depth);
    }
    out.push_str(close);
}

fn write_pair(out: &mut String, name: &str, value: &Value, html: bool, depth: Option<usize>) {
    quote(name, html, out);
    out.push_str(if depth.is_some() { ": " } else { ":" });
    value.write_json(out, html, depth);
}

/// A JSON string, escaped as Go's encoder does.
fn quote(text: &str, html: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' if html => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_written_as_go_writes_it() {
        let value = Value::Struct(vec![
            Field { name: "B".into(), value: Value::Text("a<\n\"\u{1}".into()), shown: true },
            Field {
                name: "A".into(),
                value: Value::List(vec![Value::Int(1), Value::Bool(true)]),
                shown: true,
            },
            Field { name: "C".into(), value: Value::null_of("C"), shown: true },
            Field { name: "D".into(), value: Value::null_of("D"), shown: false },
            Field { name: "E".into(), value: Value::map_of("E", BTreeMap::new()), shown: true },
        ]);
        assert_eq!(value.json(true), r#"{"B":"a\u003c\n\"\u0001","A":[1,true],"C":null,"E":{}}"#);
        assert_eq!(
            value.pretty(),
            "{\n    \"B\": \"a<\\n\\\"\\u0001\",\n    \"A\": [\n        1,\n        true\n    ],\n    \
             \"C\": null,\n    \"E\": {}\n}"
        );
    }

    #[test]
    fn what_is_dewars_own_is_printed_only_where_it_is() {
        let field = |name: &str, shown| Field { name: name.into(), value: Value::Text("x".into()), shown };
        let of = |shown| Value::Struct(vec![field("Status", true), field("Checkpointing", shown)]);
        assert_eq!((of(false).show(), of(true).show()), ("{x}".to_owned(), "{x x}".to_owned()));
    }

    #[test]
    fn nothing_prints_by_its_kind() {
        assert_eq!(Value::null_of("Binds").show(), "[]");
        assert_eq!(Value::null_of("Labels").show(), "map[]");
        assert_eq!(Value::null_of("Init").show(), "<nil>");
        assert_eq!(Value::zero_of("Health").show(), "<nil>");
        assert_eq!(Value::zero_of("Domainname").show(), "");
        assert_eq!(Value::Missing.show(), "<no value>");
        let large = Value::from_json(&serde_json::json!([5_000_000_000_u64, 1.5, u64::MAX]));
        assert_eq!(large.show(), "[5000000000 1.5 18446744073709551615]");
    }
}
