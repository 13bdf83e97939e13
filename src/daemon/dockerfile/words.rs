//! An instruction taken apart into words, before anything is expanded.

/// An instruction's name, its flags and the rest.
#[derive(Debug, PartialEq)]
pub struct Split<'a> {
    /// As written.
    pub name: &'a str,
    /// With their `--`, quotes taken away.
    pub flags: Vec<String>,
    pub rest: &'a str,
}

/// Blanks as Docker's own expression for them has them.
fn is_blank(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\x0b' | '\x0c' | '\r')
}

/// Takes the name and the flags off.
pub fn split_command(line: &str) -> Split<'_> {
    let line = line.trim();
    let (name, rest) = line.split_once(is_blank).unwrap_or((line, ""));
    let (flags, rest) = flags(rest.trim_start());
    Split { name, flags, rest: rest.trim() }
}

/// Leading words that begin with `--`; a lone `--` ends them.
fn flags(text: &str) -> (Vec<String>, &str) {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (found, rest);
        }
        let mut word = String::new();
        let mut quote = None;
        let mut letters = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, letter)) = letters.next() {
            match (letter, quote) {
                ('\\', _) => word.extend(letters.next().map(|(_, letter)| letter)),
                (letter, Some(open)) if letter == open => quote = None,
                (letter, Some(_)) => word.push(letter),
                ('"' | '\'', None) => quote = Some(letter),
                (letter, None) if letter.is_whitespace() => {
                    end = at;
                    break;
                }
                (letter, None) => word.push(letter),
            }
        }
        rest = &rest[end..];
        if word == "--" {
            return (found, rest);
        }
        found.push(word);
    }
}

/// Words parted by blanks. Quotes keep blanks together and stay, for the expansion to take away.
pub fn words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter == escape && quote != Some('\'') {
            // At the very end it escapes nothing, and is not meant.
            if let Some(next) = letters.next() {
                word.get_or_insert_default().extend([letter, next]);
            }
            continue;
        }
        match quote {
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if letter.is_whitespace() => {
                words.extend(word.take());
                continue;
            }
            None if matches!(letter, '"' | '\'') => quote = Some(letter),
            None => {}
        }
        word.get_or_insert_default().push(letter);
    }
    words.extend(word);
    words
}

/// Words parted by blanks alone: quotes mean nothing.
pub fn plain_words(text: &str) -> Vec<String> {
    text.split(is_blank).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// What a text is that may be a JSON array.
#[derive(Debug, PartialEq)]
pub enum Json {
    Words(Vec<String>),
    /// An array with something else in it than strings, which is never meant for a shell.
    NotStrings,
    /// Meant for a shell.
    No,
}

/// `["a", "b"]`.
pub fn json_words(text: &str) -> Json {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Json::No;
    }
    if let Ok(words) = serde_json::from_str(text) {
        return Json::Words(words);
    }
    match serde_json::from_str::<Vec<serde::de::IgnoredAny>>(text) {
        Ok(_) => Json::NotStrings,
        Err(_) => Json::No,
    }
}

/// Said of [`Json::NotStrings`].
pub const NOT_STRINGS: &str = "when using JSON array syntax, arrays must be comprised of strings only";

/// `KEY=value ...`, or `KEY value` that sets one.
pub fn pairs(text: &str, escape: char, instruction: &str) -> Result<Vec<(String, String)>, String> {
    let words = words(text, escape);
    let Some(first) = words.first() else {
        return Err(format!("{instruction} requires at least one argument"));
    };
    let pairs: Vec<(String, String)> = if !first.contains('=') {
        let Some((key, value)) = text.split_once(is_blank) else {
            return Err(format!("{instruction} must have two arguments"));
        };
        vec![(key.to_owned(), value.trim_start_matches(is_blank).to_owned())]
    } else {
        let mut pairs = Vec::new();
        for word in &words {
            let Some((key, value)) = word.split_once('=') else {
                return Err(format!(
                    "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
                ));
            };
            pairs.push((key.to_owned(), value.to_owned()));
        }
        pairs
    };
    match pairs.iter().any(|(key, _)| key.is_empty()) {
        true => Err(format!("{instruction} names can not be blank")),
        false => Ok(pairs),
    }
}
