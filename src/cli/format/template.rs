//! Go's templates, as `--format` uses them.
//!
//! ```text
//! text {{.Field.Sub}} {{json .}} {{index .Map "key"}} {{(index .List 0).X}} {{len .List}} {{.A | upper}}
//! {{if .A}}…{{else if eq .B "x"}}…{{else}}…{{end}}   {{with .A}}…{{end}}   {{$x := .A}}   {{/* note */}}
//! {{range $key, $value := .Map}}…{{break}}…{{else}}…{{end}}   {{define "x"}}…{{end}}{{template "x" .}}
//! ```
//!
//! Fields that do not exist are errors, as in Docker: a typing mistake must not print nothing. Messages are
//! Go's, because scripts show them to people who look them up.
//!
//! Limits: no methods but those a row declares (`.Label "key"`), no complex numbers, no `call`.
//!
//! Source: Go's text/template documentation; the functions Docker adds are listed in its formatting guide.

mod functions;
mod lex;
mod parse;
mod printf;
#[cfg(test)]
mod tests;

use super::value::{Nothing, Value};
use parse::Tree;

/// A template, read and ready to be applied.
#[derive(Debug)]
pub struct Template {
    text: String,
    tree: Tree,
}

#[derive(Debug)]
enum Node {
    Text(String),
    Print(Pipe),
    If { pipe: Pipe, then: Vec<Node>, otherwise: Vec<Node> },
    With { pipe: Pipe, then: Vec<Node>, otherwise: Vec<Node> },
    Range { pipe: Pipe, then: Vec<Node>, otherwise: Vec<Node> },
    Template { name: String, data: Option<Pipe>, at: usize },
    Break,
    Continue,
}

/// Calls joined by `|`; each hands its value to the next as the last argument.
#[derive(Debug)]
struct Pipe {
    /// `$x :=`; empty for none.
    names: Vec<String>,
    /// `:=` makes variables, `=` changes them.
    declares: bool,
    calls: Vec<Call>,
}

/// A function with arguments, or a lone operand, or a method-like field with arguments (`.Label "key"`).
#[derive(Debug)]
struct Call {
    operands: Vec<Operand>,
    at: usize,
    text: String,
}

#[derive(Debug)]
enum Operand {
    /// `.A.B`, `$x.A`, `(…).A`: fields of the dot, or of `head`.
    Chain {
        head: Option<Box<Operand>>,
        fields: Vec<String>,
        at: usize,
        text: String,
    },
    /// `$x`; the name is empty for `$`.
    Variable(String),
    Literal(Value),
    Function(String),
    Nested(Pipe),
}

/// Why a template does not read or apply; [`std::fmt::Display`] words it as Go does.
#[derive(Debug, PartialEq)]
struct Failure(String);

impl Failure {
    /// A mistake in the text, at a byte of it.
    fn at(text: &str, at: usize, cause: &str) -> Failure {
        let line = text[..at.min(text.len())].matches('\n').count() + 1;
        Failure(format!("template: :{line}: {cause}"))
    }
}

/// Where the run goes after a node.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

/// Templates that call each other for ever end here.
const CALLS: usize = 100;

impl Template {
    /// Reads a template. The error says what was not understood, in Go's words.
    pub fn parse(text: &str) -> Result<Template, String> {
        let tree = parse::parse(text).map_err(|Failure(words)| words)?;
        Ok(Template { text: text.to_owned(), tree })
    }

    /// Whether the template asks for the field `name` anywhere.
    pub fn mentions(&self, name: &str) -> bool {
        self.text.contains(name)
    }

    /// Applies the template to `data`.
    pub fn render(&self, data: &Value) -> Result<String, String> {
        let mut run = Run {
            template: self,
            variables: vec![(String::new(), data.clone())],
            calls: 0,
            out: String::new(),
        };
        run.nodes(&self.tree.nodes, data).map_err(|Failure(words)| words)?;
        Ok(run.out)
    }
}

/// One application of a template.
struct Run<'a> {
    template: &'a Template,
    /// Innermost last; `$` first.
    variables: Vec<(String, Value)>,
    calls: usize,
    out: String,
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, Failure> {
        let outer = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot)?;
            if flow != Flow::On {
                break;
            }
        }
        self.variables.truncate(outer);
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, Failure> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.names.is_empty() {
                    self.out.push_str(&value.show());
                }
            }
            Node::If { pipe, then, otherwise } => {
                let outer = self.variables.len();
                let branch = if self.pipe(pipe, dot)?.is_true() { then } else { otherwise };
                let flow = self.nodes(branch, dot);
                self.variables.truncate(outer);
                return flow;
            }
            Node::With { pipe, then, otherwise } => {
                let outer = self.variables.len();
                let value = self.pipe(pipe, dot)?;
                let flow = match value.is_true() {
                    true => self.nodes(then, &value),
                    false => self.nodes(otherwise, dot),
                };
                self.variables.truncate(outer);
                return flow;
            }
            Node::Range { pipe, then, otherwise } => return self.range(pipe, then, otherwise, dot),
            Node::Template { name, data, at } => self.template(name, data.as_ref(), *at, dot)?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn range(
        &mut self,
        pipe: &Pipe,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, Failure> {
        let outer = self.variables.len();
        // The names stand for what is walked through, not for the whole.
        let whole = self.calls_of(pipe, dot)?;
        let items: Vec<(Value, Value)> = match whole {
            Value::List(items) => {
                items.into_iter().enumerate().map(|(at, item)| (Value::Int(at as i128), item)).collect()
            }
            Value::Map { entries, .. } => {
                entries.into_iter().map(|(key, value)| (Value::Text(key), value)).collect()
            }
            Value::Int(count) => {
                (0..count.clamp(0, 1 << 20)).map(|at| (Value::Int(at), Value::Int(at))).collect()
            }
            Value::Missing | Value::Null(Nothing::List | Nothing::Map) => Vec::new(),
            other => {
                let what = format!("range can't iterate over {}", other.verb_v());
                return Err(self.failure(pipe.calls[0].at, &pipe.calls[0].text, &what));
            }
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, item) in items {
            match pipe.names.as_slice() {
                [] => {}
                [value] => self.variables.push((value.clone(), item.clone())),
                [first, second, ..] => {
                    self.variables.push((first.clone(), key));
                    self.variables.push((second.clone(), item.clone()));
                }
            }
            let flow = self.nodes(body, &item)?;
            self.variables.truncate(outer);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn template(&mut self, name: &str, data: Option<&Pipe>, at: usize, dot: &Value) -> Result<(), Failure> {
        let node = format!("{{{{template {name:?}}}}}");
        let Some(nodes) = self.template.tree.defines.get(name) else {
            return Err(self.failure(at, &node, &format!("template {name:?} not defined")));
        };
        self.calls += 1;
        if self.calls > CALLS {
            return Err(self.failure(at, &node, "exceeded maximum template depth"));
        }
        let data = data.map_or(Ok(Value::Missing), |pipe| self.pipe(pipe, dot))?;
        let caller = std::mem::replace(&mut self.variables, vec![(String::new(), data.clone())]);
        let result = self.nodes(nodes, &data);
        self.variables = caller;
        self.calls -= 1;
        result.map(drop)
    }

    /// The pipeline's value; its names are set.
    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, Failure> {
        let value = self.calls_of(pipe, dot)?;
        for name in &pipe.names {
            if pipe.declares {
                self.variables.push((name.clone(), value.clone()));
                continue;
            }
            match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
                Some((_, old)) => *old = value.clone(),
                None => {
                    return Err(self.failure(pipe.calls[0].at, &format!("${name}"), "undefined variable"));
                }
            }
        }
        Ok(value)
    }

    fn calls_of(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, Failure> {
        let mut carried = None;
        for call in &pipe.calls {
            carried = Some(self.call(call, carried, dot)?);
        }
        Ok(carried.unwrap_or(Value::Missing))
    }

    fn call(&mut self, call: &Call, carried: Option<Value>, dot: &Value) -> Result<Value, Failure> {
        let (first, rest) =
            call.operands.split_first().expect("a call has an operand: the parser refuses others");
        if let Operand::Function(name) = first
            && matches!(name.as_str(), "and" | "or")
        {
            // The first that decides is the value; the others are not looked at.
            let mut last = Value::Missing;
            for operand in rest {
                last = self.operand(operand, dot)?;
                if last.is_true() == (name == "or") {
                    return Ok(last);
                }
            }
            return Ok(carried.unwrap_or(last));
        }
        let mut arguments =
            rest.iter().map(|operand| self.operand(operand, dot)).collect::<Result<Vec<_>, _>>()?;
        arguments.extend(carried);
        match first {
            Operand::Function(name) => functions::call(name, &arguments).map_err(|cause| {
                self.failure(call.at, &call.text, &format!("error calling {name}: {cause}"))
            }),
            operand if arguments.is_empty() => self.operand(operand, dot),
            Operand::Chain { head: None, fields, .. } if fields.len() == 1 => {
                self.method(&fields[0], &arguments, call, dot)
            }
            _ => Err(self.failure(call.at, &call.text, "can't give argument to non-function")),
        }
    }

    /// `.Label "key"`: a row carries the map under a name of its own.
    fn method(&self, name: &str, arguments: &[Value], call: &Call, dot: &Value) -> Result<Value, Failure> {
        let hidden = match dot {
            Value::Struct(fields) => fields.iter().find(|field| field.name.strip_prefix(' ') == Some(name)),
            _ => None,
        };
        match (hidden.map(|field| &field.value), arguments) {
            (Some(Value::Map { entries, .. }), [Value::Text(key)]) => {
                Ok(entries.get(key).cloned().unwrap_or(Value::Text(String::new())))
            }
            _ => Err(self.failure(
                call.at,
                &format!(".{name}"),
                &format!("{name} has arguments but cannot be invoked as function"),
            )),
        }
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, Failure> {
        match operand {
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Nested(pipe) => self.pipe(pipe, dot),
            Operand::Function(name) => functions::call(name, &[])
                .map_err(|cause| Failure(format!("template: :1: error calling {name}: {cause}"))),
            Operand::Variable(name) => self
                .variables
                .iter()
                .rev()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
                .ok_or_else(|| Failure(format!("template: :1: undefined variable \"${name}\""))),
            Operand::Chain { head, fields, at, text } => {
                let start = match head {
                    None => dot.clone(),
                    Some(head) => self.operand(head, dot)?,
                };
                self.walk(start, fields).map_err(|cause| self.failure(*at, text, &cause))
            }
        }
    }

    /// The value at the end of a chain of fields.
    fn walk(&self, mut value: Value, path: &[String]) -> Result<Value, String> {
        for (step, name) in path.iter().enumerate() {
            value = match value {
                Value::Struct(fields) => {
                    let found = fields
                        .iter()
                        .find(|field| field.name == *name)
                        // Go's own name of a field may differ from JSON's: ID and Id, APIVersion and ApiVersion.
                        .or_else(|| fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)));
                    let row =
                        fields.iter().find(|field| field.name == " type").map(|field| field.value.show());
                    match (found, row) {
                        (Some(field), _) if !field.shown && step + 1 < path.len() => match &field.value {
                            Value::Null(_) => return Err(format!("map has no entry for key {name:?}")),
                            other => other.clone(),
                        },
                        (Some(field), _) => field.value.clone(),
                        (None, Some(row)) => {
                            return Err(format!("can't evaluate field {name} in type {row}"));
                        }
                        // Left out by a type that does not have it yet, or by an older daemon.
                        (None, None) if Value::is_optional(name) && step + 1 == path.len() => {
                            Value::zero_of(name)
                        }
                        (None, None) => return Err(format!("map has no entry for key {name:?}")),
                    }
                }
                Value::Map { mut entries, .. } => entries.remove(name).unwrap_or(Value::Missing),
                Value::Null(_) | Value::Missing => {
                    return Err(format!("nil pointer evaluating interface {{}}.{name}"));
                }
                _ => return Err(format!("can't evaluate field {name} in type interface {{}}")),
            };
        }
        Ok(value)
    }

    fn failure(&self, at: usize, node: &str, cause: &str) -> Failure {
        let before = &self.template.text[..at.min(self.template.text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |start| start + 1);
        Failure(format!("template: :{line}:{column}: executing \"\" at <{node}>: {cause}"))
    }
}
