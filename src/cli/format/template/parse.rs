//! Tokens to a tree: blocks, pipelines, operands.

use std::collections::BTreeMap;

use super::functions::FUNCTIONS;
use super::lex::{self, Kind, Piece, Token};
use super::{Call, Failure, Node, Operand, Pipe};
use crate::cli::format::value::{Nothing, Value};

/// Nested blocks and parentheses beyond this are refused rather than risk the stack.
const DEPTH: usize = 64;

/// What a template is made of.
#[derive(Debug)]
pub struct Tree {
    pub nodes: Vec<Node>,
    /// The templates it defines, by name.
    pub defines: BTreeMap<String, Vec<Node>>,
}

pub fn parse(text: &str) -> Result<Tree, Failure> {
    let pieces = lex::pieces(text)?;
    let mut parser = Parser { text, pieces: pieces.into_iter(), defines: BTreeMap::new(), ranges: 0 };
    let (nodes, end) = parser.block(0)?;
    match end {
        None => Ok(Tree { nodes, defines: parser.defines }),
        Some((mut words, at)) => Err(Failure::at(text, at, &format!("unexpected {{{{{}}}}}", words.word()))),
    }
}

struct Parser<'a> {
    text: &'a str,
    pieces: std::vec::IntoIter<Piece>,
    defines: BTreeMap<String, Vec<Node>>,
    /// How many `range` the place is inside of: `break` needs one.
    ranges: usize,
}

/// The tokens of one action, taken from the front.
struct Words<'a> {
    text: &'a str,
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    at: usize,
}

type End<'a> = Option<(Words<'a>, usize)>;

impl<'a> Parser<'a> {
    /// Nodes up to `end` or `else`, whose action is given back.
    fn block(&mut self, depth: usize) -> Result<(Vec<Node>, End<'a>), Failure> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (tokens, at) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens, at) => (tokens, at),
            };
            if depth > DEPTH {
                return Err(Failure::at(self.text, at, "blocks are nested too deep"));
            }
            let mut words = Words { text: self.text, tokens: tokens.into_iter().peekable(), at };
            match words.peek_word().as_str() {
                "end" | "else" => return Ok((nodes, Some((words, at)))),
                "if" | "with" | "range" => nodes.push(self.branch(words, depth)?),
                "break" | "continue" => {
                    let word = words.word();
                    if self.ranges == 0 {
                        return Err(Failure::at(
                            self.text,
                            at,
                            &format!("{{{{{word}}}}} outside {{{{range}}}}"),
                        ));
                    }
                    nodes.push(if word == "break" { Node::Break } else { Node::Continue });
                }
                "template" => {
                    words.word();
                    let name_at = words.tokens.peek().map_or(at, |token| token.at);
                    let name = words.text_literal("template")?;
                    let data =
                        if words.tokens.peek().is_some() { Some(words.pipe("template")?) } else { None };
                    nodes.push(Node::Template { name, data, at: name_at });
                }
                word @ ("define" | "block") => {
                    words.word();
                    let name = words.text_literal(word)?;
                    let data = if word == "block" { Some(words.pipe(word)?) } else { None };
                    let (body, end) = self.block(depth + 1)?;
                    self.must_end(end)?;
                    self.defines.insert(name.clone(), body);
                    if data.is_some() {
                        nodes.push(Node::Template { name, data, at });
                    }
                }
                _ => nodes.push(Node::Print(words.pipe("command")?)),
            }
        }
        Ok((nodes, None))
    }

    /// `if`, `with` and `range`: the pipeline, what follows it, and `else`.
    fn branch(&mut self, mut words: Words<'a>, depth: usize) -> Result<Node, Failure> {
        let word = words.word();
        if depth > DEPTH {
            return Err(Failure::at(self.text, words.at, "blocks are nested too deep"));
        }
        let pipe = words.pipe(&word)?;
        let is_range = usize::from(word == "range");
        self.ranges += is_range;
        let body = self.block(depth + 1);
        self.ranges -= is_range;
        let (then, end) = body?;
        let otherwise = self.alternative(end, depth)?;
        Ok(match word.as_str() {
            "if" => Node::If { pipe, then, otherwise },
            "with" => Node::With { pipe, then, otherwise },
            _ => Node::Range { pipe, then, otherwise },
        })
    }

    /// What follows `else`, or nothing; consumes the block's `end`.
    fn alternative(&mut self, end: End<'a>, depth: usize) -> Result<Vec<Node>, Failure> {
        let Some((mut words, _)) = end else {
            return Err(Failure::at(self.text, self.text.len(), "unexpected EOF"));
        };
        if words.word() == "end" {
            return Ok(Vec::new());
        }
        // `else if` and `else with` share the `end` of the block they belong to.
        if matches!(words.peek_word().as_str(), "if" | "with") {
            return Ok(vec![self.branch(words, depth + 1)?]);
        }
        let (nodes, end) = self.block(depth + 1)?;
        self.must_end(end)?;
        Ok(nodes)
    }

    fn must_end(&self, end: End<'a>) -> Result<(), Failure> {
        match end {
            None => Err(Failure::at(self.text, self.text.len(), "unexpected EOF")),
            Some((mut words, at)) => match words.word().as_str() {
                "end" => Ok(()),
                word => Err(Failure::at(self.text, at, &format!("unexpected {{{{{word}}}}}"))),
            },
        }
    }
}

impl Words<'_> {
    fn failed<T>(&self, cause: &str) -> Result<T, Failure> {
        Err(Failure::at(self.text, self.at, cause))
    }

    fn peek_word(&mut self) -> String {
        match self.tokens.peek().map(|token| &token.kind) {
            Some(Kind::Word(word)) => word.clone(),
            _ => String::new(),
        }
    }

    fn word(&mut self) -> String {
        let word = self.peek_word();
        if !word.is_empty() {
            self.tokens.next();
        }
        word
    }

    fn text_literal(&mut self, of: &str) -> Result<String, Failure> {
        match self.tokens.next().map(|token| token.kind) {
            Some(Kind::Text(text)) => Ok(text),
            _ => self.failed(&format!("unexpected token in {of} clause")),
        }
    }

    /// The whole rest of an action.
    fn pipe(&mut self, of: &str) -> Result<Pipe, Failure> {
        let pipe = self.pipe_until(of, 0)?;
        match self.tokens.next() {
            None => Ok(pipe),
            Some(_) => self.failed(&format!("unexpected token in {of}")),
        }
    }

    fn pipe_until(&mut self, of: &str, depth: usize) -> Result<Pipe, Failure> {
        if depth > DEPTH {
            return self.failed("parentheses are nested too deep");
        }
        let (names, declares) = self.declarations();
        let mut calls = Vec::new();
        loop {
            let mut operands = Vec::new();
            let start = self.tokens.peek().map_or(self.at, |token| token.at);
            let mut end = start;
            while let Some(token) =
                self.tokens.next_if(|token| !matches!(token.kind, Kind::Bar | Kind::Close))
            {
                end = token.end;
                operands.push(self.operand(token, depth, &mut end)?);
            }
            if operands.is_empty() {
                return match calls.is_empty() {
                    true => self.failed(&format!("missing value for {of}")),
                    false => self.failed("missing value for command"),
                };
            }
            calls.push(Call { operands, at: start, text: self.text[start..end].to_owned() });
            if self.tokens.next_if(|token| token.kind == Kind::Bar).is_none() {
                return Ok(Pipe { names, declares, calls });
            }
        }
    }

    /// `$x :=`, `$i, $x :=` or `$x =`.
    fn declarations(&mut self) -> (Vec<String>, bool) {
        let mut ahead = self.tokens.clone();
        let mut names = Vec::new();
        while let Some(Kind::Variable(name)) = ahead.next().map(|token| token.kind) {
            names.push(name);
            match ahead.next().map(|token| token.kind) {
                Some(Kind::Comma) => {}
                Some(kind @ (Kind::Declare | Kind::Assign)) => {
                    self.tokens = ahead;
                    return (names, kind == Kind::Declare);
                }
                _ => break,
            }
        }
        (Vec::new(), true)
    }

    fn operand(&mut self, token: Token, depth: usize, end: &mut usize) -> Result<Operand, Failure> {
        let start = token.at;
        Ok(match token.kind {
            Kind::Text(text) => Operand::Literal(Value::Text(text)),
            Kind::Int(number) => Operand::Literal(Value::Int(number)),
            Kind::Float(number) => Operand::Literal(Value::Float(number)),
            Kind::Word(word) => match word.as_str() {
                "true" | "false" => Operand::Literal(Value::Bool(word == "true")),
                "nil" => Operand::Literal(Value::Null(Nothing::Pointer)),
                _ if FUNCTIONS.contains(&word.as_str()) => Operand::Function(word),
                _ => return self.failed(&format!("function {word:?} not defined")),
            },
            Kind::Dot => Operand::Chain { head: None, fields: Vec::new(), at: start, text: ".".to_owned() },
            Kind::Field(name) => {
                let (fields, second) = self.fields(vec![name], end);
                let at = second.unwrap_or(start);
                Operand::Chain { head: None, fields, at, text: self.text[start..*end].to_owned() }
            }
            Kind::Variable(name) => {
                let (fields, _) = self.fields(Vec::new(), end);
                let text = self.text[start..*end].to_owned();
                Operand::Chain { head: Some(Box::new(Operand::Variable(name))), fields, at: start, text }
            }
            Kind::Open => {
                let pipe = self.pipe_until("parenthesized pipeline", depth + 1)?;
                match self.tokens.next() {
                    Some(Token { kind: Kind::Close, end: closed, .. }) => *end = closed,
                    _ => return self.failed("unclosed left paren"),
                }
                let nested = Operand::Nested(pipe);
                let (fields, first) = self.fields(Vec::new(), end);
                match first {
                    None => nested,
                    Some(at) => {
                        let text = self.text[start..*end].to_owned();
                        Operand::Chain { head: Some(Box::new(nested)), fields, at, text }
                    }
                }
            }
            kind => return self.failed(&format!("unexpected {kind:?} in operand")),
        })
    }

    /// The fields that follow without a blank, and where the first of them stands.
    fn fields(&mut self, mut fields: Vec<String>, end: &mut usize) -> (Vec<String>, Option<usize>) {
        let mut first = None;
        while let Some(token) =
            self.tokens.next_if(|token| !token.spaced && matches!(token.kind, Kind::Field(_)))
        {
            first = first.or(Some(token.at));
            *end = token.end;
            if let Kind::Field(name) = token.kind {
                fields.push(name);
            }
        }
        (fields, first)
    }
}
