//! Lines of a Dockerfile put together: directives, comments, continuations, here-documents.

use super::expand::{Lexer, Quotes};
use super::words::{Json, json_words, split_command};
use super::{HereDoc, ParseError, Warning};

/// Docker refuses longer ones.
const LONGEST_LINE: usize = 65_535;

/// Directives that may stand in comments at the top.
const DIRECTIVES: [&str; 3] = ["syntax", "escape", "check"];

/// One instruction's lines.
#[derive(Debug)]
pub struct Line {
    /// Counted from 1.
    pub first: u32,
    pub last: u32,
    /// Continuations joined, comments gone.
    pub text: String,
    pub files: Vec<HereDoc>,
}

#[derive(Debug)]
pub struct Lines {
    pub escape: char,
    pub lines: Vec<Line>,
    pub warnings: Vec<Warning>,
}

/// Parts a text into instructions.
pub fn read(text: &[u8]) -> Result<Lines, ParseError> {
    let text = String::from_utf8_lossy(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text));
    let mut directives = Directives::default();
    let mut found = Lines { escape: '\\', lines: Vec::new(), warnings: Vec::new() };
    // Each with its number; the line feed stays, here-documents need it.
    let mut source = (1..).zip(text.split_inclusive('\n'));
    while let Some((first, raw)) = source.next() {
        check_length(first, raw)?;
        let line = raw.trim_start().trim_end_matches(['\r', '\n']);
        if let Some(escape) = directives.read(line).map_err(|cause| ParseError { line: first, cause })? {
            found.escape = escape;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (part, mut goes_on) = without_continuation(line, found.escape);
        let mut line = Line { first, last: first, text: part.to_owned(), files: Vec::new() };
        let mut empty = false;
        while goes_on && let Some((number, raw)) = source.next() {
            check_length(number, raw)?;
            line.last = number;
            let next = raw.trim_end_matches(['\r', '\n']);
            match next.trim_start() {
                comment if comment.starts_with('#') => continue,
                "" => empty = true,
                _ => {
                    let part;
                    (part, goes_on) = without_continuation(next, found.escape);
                    line.text.push_str(part);
                }
            }
        }
        if empty {
            found.warnings.push(Warning {
                line: line.first,
                text: format!("Empty continuation line found in:\n    {}", line.text),
            });
        }
        for mut file in here_docs_of(&line.text) {
            loop {
                let Some((number, raw)) = source.next() else {
                    return Err(ParseError { line: line.first, cause: "unterminated heredoc".to_owned() });
                };
                line.last = number;
                let end = raw.trim_end_matches(['\r', '\n']);
                let end = if file.chomp { end.trim_start_matches('\t') } else { end };
                if end == file.name {
                    break;
                }
                file.content.push_str(raw);
            }
            line.files.push(file);
        }
        if !line.text.trim().is_empty() {
            found.lines.push(line);
        }
    }
    Ok(found)
}

fn check_length(line: u32, raw: &str) -> Result<(), ParseError> {
    match raw.len() > LONGEST_LINE {
        true => Err(ParseError {
            line,
            cause: format!("dockerfile line greater than max allowed size of {LONGEST_LINE}"),
        }),
        false => Ok(()),
    }
}

/// The line without the escape character at its end, and whether there was one.
fn without_continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(line) => (line, true),
        None => (line, false),
    }
}

/// `# name = value` lines before everything else.
#[derive(Debug, Default)]
struct Directives {
    seen: Vec<&'static str>,
    done: bool,
}

impl Directives {
    /// Takes the next line; gives the escape character that it sets.
    fn read(&mut self, line: &str) -> Result<Option<char>, String> {
        let directive = match self.done {
            true => None,
            false => line.strip_prefix('#').and_then(|rest| rest.split_once('=')),
        };
        let known = directive.and_then(|(name, value)| {
            let name = DIRECTIVES.into_iter().find(|known| known.eq_ignore_ascii_case(name.trim()))?;
            (!value.trim().is_empty()).then_some((name, value.trim()))
        });
        let Some((name, value)) = known else {
            self.done = true;
            return Ok(None);
        };
        if self.seen.contains(&name) {
            return Err(format!("only one {name} parser directive can be used"));
        }
        self.seen.push(name);
        match (name, value) {
            ("escape", "\\") => Ok(Some('\\')),
            ("escape", "`") => Ok(Some('`')),
            ("escape", _) => Err(format!("invalid escape token '{value}' does not match ` or \\")),
            _ => Ok(None),
        }
    }
}

/// The here-documents a line announces, their content still empty.
fn here_docs_of(line: &str) -> Vec<HereDoc> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let mut command = split_command(line);
    if command.name.eq_ignore_ascii_case("ONBUILD") {
        command = split_command(command.rest);
    }
    let may = ["ADD", "COPY", "RUN"].iter().any(|name| command.name.eq_ignore_ascii_case(name));
    if !may || matches!(json_words(command.rest), Json::Words(_)) {
        return Vec::new();
    }
    // A quote that is never closed ends the search, as it does for Docker.
    let words = Lexer::new(line, '\\', &|_| None).quotes(Quotes::Kept).keep_unset().words();
    words.unwrap_or_default().iter().filter_map(|word| here_doc(word)).collect()
}

/// `<<NAME`, `<<-NAME`, `<<"NAME"`, `3<<NAME`: a here-document without content; `None` when it is no such word.
pub fn here_doc(word: &str) -> Option<HereDoc> {
    let rest = word.trim_start_matches(|letter: char| letter.is_ascii_digit()).strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let unset = |_: &str| None;
    let mut bare = Lexer::new(rest, '\\', &unset).keep_unset().words().ok()?;
    let kept = Lexer::new(rest, '\\', &unset).quotes(Quotes::Kept).keep_unset().words().ok()?;
    if bare.len() != 1 {
        return None;
    }
    let expand = bare == kept;
    Some(HereDoc { name: bare.pop()?, content: String::new(), expand, chomp })
}
