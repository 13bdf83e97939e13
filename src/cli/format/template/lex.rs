//! A template cut into text and actions, and actions into tokens, each with where it stands.

use super::Failure;

/// A piece of a template; positions are bytes from its start.
#[derive(Debug)]
pub enum Piece {
    Text(String),
    Action(Vec<Token>, usize),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub kind: Kind,
    pub at: usize,
    pub end: usize,
    /// Whether white space stands before it: it ends a chain of fields.
    pub spaced: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A keyword, a function, `true`, `nil`.
    Word(String),
    /// `.Name`, without the dot.
    Field(String),
    /// `.` alone.
    Dot,
    /// `$name`, without the dollar.
    Variable(String),
    Text(String),
    Int(i128),
    Float(f64),
    Open,
    Close,
    Bar,
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

/// Cuts `text` up, trimming where `{{-` and `-}}` ask for it; comments are gone.
pub fn pieces(text: &str) -> Result<Vec<Piece>, Failure> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut trim_next = false;
    while let Some(start) = text[at..].find("{{").map(|found| found + at) {
        let mut before = &text[at..start];
        let mut inside = start + 2;
        if trim_next {
            before = before.trim_start();
        }
        let is_trimming =
            |rest: &str| rest.starts_with('-') && rest[1..].starts_with(|c: char| c.is_ascii_whitespace());
        if is_trimming(&text[inside..]) {
            before = before.trim_end();
            inside += 1;
        }
        pieces.push(Piece::Text(before.to_owned()));
        let rest = &text[inside..];
        let comment = rest.trim_start();
        if comment.starts_with("/*") {
            let open = inside + (rest.len() - comment.len());
            let close =
                text[open..].find("*/").ok_or_else(|| Failure::at(text, start, "unclosed comment"))?;
            let tail = &text[open + close + 2..];
            let trimmed = tail.trim_start();
            trim_next = trimmed.starts_with("-}}");
            let end = trimmed.strip_prefix('-').unwrap_or(trimmed);
            if !end.starts_with("}}") {
                return Err(Failure::at(text, start, "comment ends before closing delimiter"));
            }
            at = text.len() - end.len() + 2;
            continue;
        }
        let (tokens, end, trims) = action(text, inside)?;
        pieces.push(Piece::Action(tokens, start));
        at = end;
        trim_next = trims;
    }
    let rest = &text[at..];
    pieces.push(Piece::Text(if trim_next { rest.trim_start() } else { rest }.to_owned()));
    Ok(pieces)
}

/// The tokens of an action, where the text goes on after it, and whether what follows is trimmed.
fn action(text: &str, start: usize) -> Result<(Vec<Token>, usize, bool), Failure> {
    let failed = |at: usize, cause: &str| Failure::at(text, at, cause);
    let bytes = text.as_bytes();
    let mut tokens: Vec<Token> = Vec::new();
    let (mut at, mut spaced, mut depth) = (start, false, 0usize);
    loop {
        let rest = &text[at..];
        let Some(c) = rest.chars().next() else { return Err(failed(start, "unclosed action")) };
        if spaced && rest.starts_with("-}}") {
            return Ok((tokens, at + 3, true));
        }
        if rest.starts_with("}}") {
            return match depth {
                0 => Ok((tokens, at + 2, false)),
                _ => Err(failed(at, "unclosed left paren")),
            };
        }
        if c.is_ascii_whitespace() {
            (at, spaced) = (at + 1, true);
            continue;
        }
        let name_end = |from: usize| {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            text[from..].find(|c| !is_part(c)).map_or(text.len(), |length| from + length)
        };
        let (kind, end) = match c {
            '(' => {
                depth += 1;
                (Kind::Open, at + 1)
            }
            ')' => {
                depth = depth.checked_sub(1).ok_or_else(|| failed(at, "unexpected right paren"))?;
                (Kind::Close, at + 1)
            }
            '|' => (Kind::Bar, at + 1),
            ',' => (Kind::Comma, at + 1),
            ':' if rest.starts_with(":=") => (Kind::Declare, at + 2),
            '=' => (Kind::Assign, at + 1),
            '"' | '`' => quoted(text, at)?,
            '\'' => letter(text, at)?,
            '.' if bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => number(text, at)?,
            '.' => match name_end(at + 1) {
                end if end == at + 1 => (Kind::Dot, end),
                end => (Kind::Field(text[at + 1..end].to_owned()), end),
            },
            '$' => {
                let end = name_end(at + 1);
                (Kind::Variable(text[at + 1..end].to_owned()), end)
            }
            '0'..='9' | '+' | '-' => number(text, at)?,
            c if c.is_alphabetic() || c == '_' => {
                let end = name_end(at);
                (Kind::Word(text[at..end].to_owned()), end)
            }
            c => return Err(failed(at, &format!("unexpected {c:?} in operand"))),
        };
        tokens.push(Token { kind, at, end, spaced });
        (at, spaced) = (end, false);
    }
}

fn quoted(text: &str, at: usize) -> Result<(Kind, usize), Failure> {
    let failed = || Failure::at(text, at, "unterminated quoted string");
    if let Some(raw) = text[at..].strip_prefix('`') {
        let end = raw.find('`').ok_or_else(failed)?;
        return Ok((Kind::Text(raw[..end].to_owned()), at + end + 2));
    }
    let mut word = String::new();
    let mut chars = text[at + 1..].char_indices();
    while let Some((offset, c)) = chars.next() {
        match c {
            '"' => return Ok((Kind::Text(word), at + offset + 2)),
            '\n' => return Err(failed()),
            '\\' => word.push(match chars.next().ok_or_else(failed)?.1 {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            }),
            other => word.push(other),
        }
    }
    Err(failed())
}

/// `'x'`: a number, the letter's.
fn letter(text: &str, at: usize) -> Result<(Kind, usize), Failure> {
    let mut chars = text[at + 1..].chars();
    match (chars.next(), chars.next()) {
        (Some(c), Some('\'')) if c != '\\' => Ok((Kind::Int(u32::from(c).into()), at + 2 + c.len_utf8())),
        _ => Err(Failure::at(text, at, "malformed character constant")),
    }
}

fn number(text: &str, at: usize) -> Result<(Kind, usize), Failure> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
    let end = text[at..].find(|c| !is_part(c)).map_or(text.len(), |length| at + length);
    let word = &text[at..end];
    let kind = match word.strip_prefix("0x").map(|digits| i128::from_str_radix(digits, 16)) {
        Some(Ok(number)) => Some(Kind::Int(number)),
        _ => word.parse().map(Kind::Int).or_else(|_| word.parse().map(Kind::Float)).ok(),
    };
    kind.map(|kind| (kind, end)).ok_or_else(|| Failure::at(text, at, &format!("bad number syntax: {word:?}")))
}
