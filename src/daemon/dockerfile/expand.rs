//! Variables and quotes in words, as Docker's shell lexer reads them.
//!
//! `$x`, `${x}`, `${x-w}` `${x+w}` `${x?w}` and with `:` before the sign (empty counts as unset), `${x#p}` `${x##p}`
//! `${x%p}` `${x%%p}` (prefix or suffix off, shortest or longest), `${x/p/w}` `${x//p/w}` (first or every match).
//! Patterns know `*` and `?`.

use std::fmt;

use regex_lite::Regex;

/// Bytes one expansion may come to. A variable that holds itself twice doubles with every step.
const LONGEST: usize = 1 << 20;
/// `${a:-${b:-${c...` may go this deep.
const DEEPEST: usize = 50;

/// Why a word cannot be expanded. Displayed in Docker's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpandError {
    word: String,
    cause: String,
}

impl fmt::Display for ExpandError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "failed to process {:?}: {}", self.word, self.cause)
    }
}

/// Replaces variables and takes quotes and escapes away; blanks stay.
pub fn expand(
    word: &str,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, ExpandError> {
    Lexer::new(word, escape, lookup).whole()
}

/// [`expand`] for a text of its own, a here-document: quotes are letters like others, escapes go.
pub fn expand_text(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, ExpandError> {
    Lexer::new(text, '\\', lookup).quotes(Quotes::Plain).whole()
}

/// [`expand`], with the result parted at blanks that no quotes hold together.
pub fn expand_words(
    word: &str,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, ExpandError> {
    Lexer::new(word, escape, lookup).words()
}

/// What becomes of quotes and escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quotes {
    Removed,
    /// Both stay, and still keep together what they enclose.
    Kept,
    /// Quotes mean nothing, escapes are removed.
    Plain,
}

/// One word's way through the expansion.
pub struct Lexer<'a> {
    word: &'a str,
    letters: std::iter::Peekable<std::str::Chars<'a>>,
    escape: char,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    quotes: Quotes,
    /// Whether escapes stay: in patterns, where they mean something themselves.
    raw_escapes: bool,
    keep_unset: bool,
    depth: usize,
}

/// What was read so far: as one text, and as words.
#[derive(Default)]
struct Out {
    text: String,
    words: Vec<String>,
    word: String,
}

impl Out {
    /// Text whose blanks part words.
    fn open(&mut self, text: &str) {
        self.text.push_str(text);
        for letter in text.chars() {
            if letter.is_whitespace() {
                self.end_word();
            } else {
                self.word.push(letter);
            }
        }
    }

    /// Text that was quoted.
    fn closed(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.push_str(text);
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }
}

impl<'a> Lexer<'a> {
    pub fn new(word: &'a str, escape: char, lookup: &'a dyn Fn(&str) -> Option<String>) -> Lexer<'a> {
        Lexer {
            word,
            letters: word.chars().peekable(),
            escape,
            lookup,
            quotes: Quotes::Removed,
            raw_escapes: false,
            keep_unset: false,
            depth: 0,
        }
    }

    pub fn quotes(mut self, quotes: Quotes) -> Lexer<'a> {
        self.quotes = quotes;
        self.raw_escapes = quotes == Quotes::Kept;
        self
    }

    /// Leaves variables that are not set as they are.
    pub fn keep_unset(mut self) -> Lexer<'a> {
        self.keep_unset = true;
        self
    }

    /// The result as one text.
    pub fn whole(mut self) -> Result<String, ExpandError> {
        let word = self.word;
        match self.until(None) {
            Ok(out) => Ok(out.text),
            Err(cause) => Err(ExpandError { word: word.to_owned(), cause }),
        }
    }

    /// The result as words.
    pub fn words(mut self) -> Result<Vec<String>, ExpandError> {
        let word = self.word;
        match self.until(None) {
            Ok(mut out) => {
                out.end_word();
                Ok(out.words)
            }
            Err(cause) => Err(ExpandError { word: word.to_owned(), cause }),
        }
    }

    /// Reads up to `stop`, which is consumed, or to the end.
    fn until(&mut self, stop: Option<char>) -> Result<Out, String> {
        let mut out = Out::default();
        while let Some(&letter) = self.letters.peek() {
            if Some(letter) == stop {
                self.letters.next();
                return Ok(out);
            }
            match letter {
                '$' => {
                    let value = self.dollar()?;
                    out.open(&value);
                }
                '\'' if self.quotes != Quotes::Plain => {
                    let text = self.single_quoted()?;
                    out.closed(&text);
                }
                '"' if self.quotes != Quotes::Plain => {
                    let text = self.double_quoted()?;
                    out.closed(&text);
                }
                _ => {
                    self.letters.next();
                    if letter == self.escape {
                        if self.raw_escapes {
                            out.closed(letter.encode_utf8(&mut [0; 4]));
                        }
                        let Some(next) = self.letters.next() else { break };
                        out.closed(next.encode_utf8(&mut [0; 4]));
                    } else {
                        out.open(letter.encode_utf8(&mut [0; 4]));
                    }
                }
            }
            limit(&out.text)?;
        }
        match stop {
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
            None => Ok(out),
        }
    }

    /// [`Lexer::until`], with escapes kept or not.
    fn until_with(&mut self, stop: char, raw_escapes: bool) -> Result<String, String> {
        let before = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let out = self.until(Some(stop));
        self.raw_escapes = before;
        out.map(|out| out.text)
    }

    fn quote_mark(&self, mark: char) -> Option<char> {
        (self.quotes == Quotes::Kept).then_some(mark)
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        self.letters.next();
        let mut text = String::from_iter(self.quote_mark('\''));
        loop {
            match self.letters.next() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching single-quote".to_owned()
                    );
                }
                Some('\'') => break,
                Some(letter) => text.push(letter),
            }
        }
        text.extend(self.quote_mark('\''));
        Ok(text)
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        self.letters.next();
        let mut text = String::from_iter(self.quote_mark('"'));
        loop {
            match self.letters.peek() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching double-quote".to_owned()
                    );
                }
                Some('"') => {
                    self.letters.next();
                    break;
                }
                Some('$') => {
                    let value = self.dollar()?;
                    text.push_str(&value);
                    limit(&text)?;
                }
                Some(&letter) => {
                    self.letters.next();
                    if letter != self.escape {
                        text.push(letter);
                        continue;
                    }
                    if self.raw_escapes {
                        text.push(letter);
                    }
                    match self.letters.peek() {
                        None => {}
                        // Only these can be escaped here; before others it stands for itself.
                        Some(&next) if next == '"' || next == '$' || next == self.escape => {
                            self.letters.next();
                            text.push(next);
                        }
                        Some(_) => text.push(letter),
                    }
                }
            }
        }
        text.extend(self.quote_mark('"'));
        Ok(text)
    }

    fn dollar(&mut self) -> Result<String, String> {
        self.letters.next();
        if self.letters.peek() != Some(&'{') {
            let name = self.name();
            return Ok(match name.is_empty() {
                true => "$".to_owned(),
                false => match (self.lookup)(&name) {
                    None if self.keep_unset => format!("${name}"),
                    value => value.unwrap_or_default(),
                },
            });
        }
        self.letters.next();
        if self.depth == DEEPEST {
            return Err("syntax error: substitutions are nested too deeply".to_owned());
        }
        self.depth += 1;
        let value = self.braces();
        self.depth -= 1;
        value
    }

    /// What follows `${`.
    fn braces(&mut self) -> Result<String, String> {
        let missing = || "syntax error: missing '}'".to_owned();
        match self.letters.peek() {
            None => return Err(missing()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        let mut sign = self.letters.next().ok_or_else(missing)?;
        let mut signs = sign.to_string();
        if sign == '}' {
            return Ok(match (self.lookup)(&name) {
                None if self.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            });
        }
        if sign == '/' {
            return self.replacement(&name);
        }
        let empty_is_unset = sign == ':';
        if empty_is_unset {
            sign = self.letters.next().ok_or_else(missing)?;
            signs.push(sign);
        }
        let unsupported = || Err(format!("unsupported modifier ({signs}) in substitution"));
        if !matches!(sign, '-' | '+' | '?' | '#' | '%') {
            return unsupported();
        }
        let word = self
            .until_with('}', matches!(sign, '#' | '%'))
            .map_err(|cause| if self.letters.peek().is_none() { missing() } else { cause })?;
        let value = (self.lookup)(&name);
        if self.keep_unset && value.is_none() {
            return Ok(format!("${{{name}{signs}{word}}}"));
        }
        let is_set = value.as_ref().is_some_and(|value| !(empty_is_unset && value.is_empty()));
        let is_there = value.is_some();
        let value = value.unwrap_or_default();
        match sign {
            '-' => Ok(if is_set { value } else { word }),
            '+' => Ok(if is_set { word } else { String::new() }),
            '?' if is_set => Ok(value),
            '?' => {
                let default =
                    if is_there { "is not allowed to be empty" } else { "is not allowed to be unset" };
                Err(format!("{name}: {}", if word.is_empty() { default } else { &word }))
            }
            _ => {
                let (pattern, greedy) = match word.strip_prefix(sign) {
                    Some(pattern) => (pattern, true),
                    None => (word.as_str(), false),
                };
                if sign == '#' {
                    return without_prefix(pattern, &value, greedy);
                }
                // Backwards a suffix is a prefix, and the shortest one is found first.
                let reversed: String = value.chars().rev().collect();
                let rest = without_prefix(&reverse_pattern(pattern), &reversed, greedy)?;
                Ok(rest.chars().rev().collect())
            }
        }
    }

    /// What follows `${name/`.
    fn replacement(&mut self, name: &str) -> Result<String, String> {
        let every = self.letters.peek() == Some(&'/');
        if every {
            self.letters.next();
        }
        let at_end = |lexer: &mut Lexer<'_>, cause: String, missing: &str| match lexer.letters.peek() {
            None => missing.to_owned(),
            Some(_) => cause,
        };
        let pattern = self
            .until_with('/', true)
            .map_err(|cause| at_end(self, cause, "syntax error: missing '/' in ${}"))?;
        let word =
            self.until_with('}', true).map_err(|cause| at_end(self, cause, "syntax error: missing '}'"))?;
        let value = match (self.lookup)(name) {
            None if self.keep_unset => return Ok(format!("${{{name}/{pattern}/{word}}}")),
            value => value.unwrap_or_default(),
        };
        let expression = expression(&pattern, true, false)?;
        let count = if every { 0 } else { 1 };
        // Every match may grow; what it would come to is known before it is made.
        let matches = expression.find_iter(&value).take(if every { usize::MAX } else { 1 }).count();
        if matches.saturating_mul(word.len()) > LONGEST {
            return Err(too_long());
        }
        Ok(expression.replacen(&value, count, regex_lite::NoExpand(&word)).into_owned())
    }

    /// A variable's name; digits, or one sign that has a meaning to shells, are names too.
    fn name(&mut self) -> String {
        let mut name = String::new();
        let Some(&first) = self.letters.peek() else { return name };
        if first.is_numeric() {
            while let Some(digit) = self.letters.next_if(|letter| letter.is_numeric()) {
                name.push(digit);
            }
        } else if matches!(first, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
            self.letters.next();
            name.push(first);
        } else {
            while let Some(letter) = self.letters.next_if(|letter| letter.is_alphanumeric() || *letter == '_')
            {
                name.push(letter);
            }
        }
        name
    }
}

fn too_long() -> String {
    format!("it comes to more than {LONGEST} bytes")
}

fn limit(text: &str) -> Result<(), String> {
    if text.len() > LONGEST { Err(too_long()) } else { Ok(()) }
}

/// A shell's pattern as a regular expression.
fn expression(pattern: &str, greedy: bool, anchored: bool) -> Result<Regex, String> {
    let invalid = |cause: &dyn fmt::Display| format!("invalid pattern ({pattern}) in substitution: {cause}");
    let mut text = String::from(if anchored { "^" } else { "" });
    let mut letters = pattern.chars().peekable();
    while let Some(mut letter) = letters.next() {
        match letter {
            '*' => text.push_str(if greedy { ".*" } else { ".*?" }),
            '?' => text.push('.'),
            _ => {
                if letter == '\\' {
                    match letters.peek() {
                        // They need an escape in `${}`, which is not the pattern's.
                        Some('}' | '/') => continue,
                        Some('*' | '?' | '\\') => letter = letters.next().unwrap_or(letter),
                        Some(other) => return Err(invalid(&format!("invalid escape '\\{other}'"))),
                        None => return Err(invalid(&"invalid escape at the end")),
                    }
                }
                text.push_str(&regex_lite::escape(letter.encode_utf8(&mut [0; 4])));
            }
        }
    }
    Regex::new(&text).map_err(|cause| invalid(&cause))
}

fn without_prefix(pattern: &str, value: &str, greedy: bool) -> Result<String, String> {
    let expression = expression(pattern, greedy, true)?;
    Ok(value[expression.find(value).map_or(0, |found| found.end())..].to_owned())
}

/// Backwards, with escapes still before what they escape.
fn reverse_pattern(pattern: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        let mut part = letter.to_string();
        if letter == '\\' {
            part.extend(letters.next());
        }
        parts.push(part);
    }
    parts.into_iter().rev().collect()
}
