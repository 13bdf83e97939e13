//! Which files of a build's context are meant: `.dockerignore` and the patterns in it.
//!
//! Both ends of `POST /build` read it: the client leaves out what matches, the daemon takes away a Dockerfile that
//! was sent only to be read. Paths are relative to the context, parted by slashes, without a leading one.
//!
//! Source: moby's patternmatcher, whose rules these are: the last pattern that matches a path or a directory above
//! it decides, `!` turns back, `**` goes through any number of directories.

use std::iter::Peekable;
use std::str::Chars;

/// The name of the file that holds the patterns.
pub const FILE: &str = ".dockerignore";

/// Patterns in their order.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    patterns: Vec<Pattern>,
}

/// Which patterns a directory matched: what is below it matches them too.
#[derive(Clone, Debug, Default)]
pub struct Matched(Vec<bool>);

#[derive(Clone, Debug)]
struct Pattern {
    /// Cleaned, without the exclamation mark.
    text: String,
    /// `!`: what matches is meant after all.
    is_exception: bool,
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Letter(char),
    /// `?`
    Any,
    /// `*`
    Many,
    /// `**` with something behind it: nothing, or whatever ends with a slash. Two tokens: the choice, and the way.
    Deep,
    Inside,
    /// `**` at the end, and `**` before a text without signs: everything.
    All,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

const SYNTAX: &str = "syntax error in pattern";

impl Patterns {
    /// Reads a `.dockerignore`. The error lacks the file's name.
    pub fn read(text: &[u8]) -> Result<Patterns, String> {
        let text = String::from_utf8_lossy(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text));
        let mut patterns = Patterns::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let line = line.trim();
            let (mark, path) = match line.strip_prefix('!') {
                Some(path) => ("!", path.trim()),
                None => ("", line),
            };
            if line.is_empty() {
                continue;
            }
            let mut path = if path.is_empty() { String::new() } else { clean(path) };
            if path.len() > 1 && path.starts_with('/') {
                path.remove(0);
            }
            patterns.add(&format!("{mark}{path}"))?;
        }
        Ok(patterns)
    }

    /// Adds a pattern behind the others; one of blanks is none.
    pub fn add(&mut self, pattern: &str) -> Result<(), String> {
        let pattern = pattern.trim();
        if pattern.is_empty() {
            return Ok(());
        }
        let cleaned = clean(pattern);
        let (text, is_exception) = match cleaned.strip_prefix('!') {
            Some("") => return Err("illegal exclusion pattern: \"!\"".to_owned()),
            Some(text) => (text.to_owned(), true),
            None => (cleaned, false),
        };
        let tokens = tokens(&text)?;
        self.patterns.push(Pattern { text, is_exception, tokens });
        Ok(())
    }

    /// Whether `path`, or a directory above it, matches.
    pub fn matches(&self, path: &str) -> bool {
        let mut result = false;
        for pattern in &self.patterns {
            // Only what is not matched yet can match, and only what is can be turned back.
            if pattern.is_exception != result {
                continue;
            }
            let mut ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
            if ends.any(|end| pattern.matches(&path[..end])) {
                result = !pattern.is_exception;
            }
        }
        result
    }

    /// The same for one who walks down: `above` is what this gave for the directory that `path` is in.
    ///
    /// Compat: an exception that a directory had no use for is not known of below it, as with docker.
    pub fn matches_below(&self, path: &str, above: &Matched) -> (bool, Matched) {
        let mut result = false;
        let mut matched = vec![false; self.patterns.len()];
        for (index, pattern) in self.patterns.iter().enumerate() {
            let is_above = above.0.get(index).copied().unwrap_or(false);
            if !is_above && pattern.is_exception != result {
                continue;
            }
            if is_above || pattern.matches(path) {
                matched[index] = true;
                result = !pattern.is_exception;
            }
        }
        (result, Matched(matched))
    }

    /// Whether an exception may be below `directory`, which itself matches.
    ///
    /// Compat: only one that names the directory counts, as with docker; one with signs in that place does not.
    pub fn has_exception_below(&self, directory: &str) -> bool {
        let below = format!("{directory}/");
        self.patterns
            .iter()
            .any(|pattern| pattern.is_exception && format!("{}/", pattern.text).starts_with(&below))
    }
}

impl Pattern {
    fn matches(&self, path: &str) -> bool {
        // The set of tokens that what was read so far leads to; `len` is the end.
        let mut states = vec![false; self.tokens.len() + 1];
        let mut next = states.clone();
        self.enter(&mut states, 0);
        for letter in path.chars() {
            next.fill(false);
            for index in (0..self.tokens.len()).filter(|index| states[*index]) {
                match &self.tokens[index] {
                    Token::Letter(wanted) if *wanted == letter => self.enter(&mut next, index + 1),
                    Token::Any if letter != '/' => self.enter(&mut next, index + 1),
                    Token::Many if letter != '/' => self.enter(&mut next, index),
                    Token::All => self.enter(&mut next, index),
                    Token::Inside => {
                        next[index] = true;
                        if letter == '/' {
                            self.enter(&mut next, index + 1);
                        }
                    }
                    Token::Class { negated, ranges } => {
                        let is_in = ranges.iter().any(|(low, high)| (*low..=*high).contains(&letter));
                        if is_in != *negated {
                            self.enter(&mut next, index + 1);
                        }
                    }
                    _ => {}
                }
            }
            std::mem::swap(&mut states, &mut next);
        }
        states[self.tokens.len()]
    }

    /// Marks a token, and those behind it where it can stand for nothing.
    fn enter(&self, states: &mut [bool], mut index: usize) {
        loop {
            if states[index] {
                return;
            }
            states[index] = true;
            match self.tokens.get(index) {
                Some(Token::Many | Token::All) => index += 1,
                Some(Token::Deep) => {
                    states[index + 1] = true;
                    index += 2;
                }
                _ => return,
            }
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    // Compat: before a text without signs it need not end at a slash.
    if let Some(rest) = text.strip_prefix("**")
        && !rest.contains(['*', '?', '[', ']', '\\'])
    {
        return Ok(match rest.strip_prefix('/') {
            Some(rest) if !rest.is_empty() => {
                [Token::Deep, Token::Inside].into_iter().chain(rest.chars().map(Token::Letter)).collect()
            }
            _ => [Token::All].into_iter().chain(rest.chars().map(Token::Letter)).collect(),
        });
    }
    let mut tokens = Vec::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '*' if letters.next_if_eq(&'*').is_some() => {
                letters.next_if_eq(&'/');
                match letters.peek() {
                    None => tokens.push(Token::All),
                    Some(_) => tokens.extend([Token::Deep, Token::Inside]),
                }
            }
            '*' => tokens.push(Token::Many),
            '?' => tokens.push(Token::Any),
            '\\' => tokens.push(Token::Letter(letters.next().ok_or(SYNTAX)?)),
            '[' => tokens.push(class(&mut letters).ok_or(SYNTAX)?),
            letter => tokens.push(Token::Letter(letter)),
        }
    }
    Ok(tokens)
}

/// What follows `[`.
fn class(letters: &mut Peekable<Chars<'_>>) -> Option<Token> {
    let negated = letters.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match letters.next()? {
            ']' if ranges.is_empty() => return None,
            ']' => return Some(Token::Class { negated, ranges }),
            '-' => return None,
            '\\' => letters.next()?,
            letter => letter,
        };
        let mut high = low;
        if letters.next_if_eq(&'-').is_some() {
            high = match letters.next()? {
                ']' | '-' => return None,
                '\\' => letters.next()?,
                letter => letter,
            };
        }
        ranges.push((low, high));
    }
}

/// The shortest way to write a path: without empty parts, `.` and, where something is before it, `..`.
fn clean(path: &str) -> String {
    let root = if path.starts_with('/') { "/" } else { "" };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if !root.is_empty() => {}
            part => parts.push(part),
        }
    }
    let path = format!("{root}{}", parts.join("/"));
    if path.is_empty() { ".".to_owned() } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(pattern: &str) -> Result<Patterns, String> {
        let mut patterns = Patterns::default();
        patterns.add(pattern)?;
        Ok(patterns)
    }

    /// Source: the cases of patternmatcher's own tests.
    #[test]
    fn single_patterns() {
        for (pattern, path, expected) in [
            ("**", "file", true),
            ("**", "file/", true),
            ("**/", "file", true),
            ("**/", "/", true),
            ("**", "/", true),
            ("**", "dir/file", true),
            ("**/", "dir/file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir/dir2/file", true),
            ("**/dir", "dir", true),
            ("**/dir", "dir/file", true),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/**", "dir/dir2/dir2/file", true),
            ("**file", "file", true),
            ("**file", "dir/file", true),
            ("**/file", "dir/file", true),
            ("**file", "dir/dir/file", true),
            ("**/file", "dir/dir/file", true),
            ("**/file*", "dir/dir/file", true),
            ("**/file*", "dir/dir/file.txt", true),
            ("**/file*txt", "dir/dir/file.txt", true),
            ("**/file*.txt", "dir/dir/file.txt", true),
            ("**/file*.txt*", "dir/dir/file.txt", true),
            ("**/**/*.txt", "dir/dir/file.txt", true),
            ("**/**/*.txt2", "dir/dir/file.txt", false),
            ("**/*.txt", "file.txt", true),
            ("**/**/*.txt", "file.txt", true),
            ("a**/*.txt", "a/file.txt", true),
            ("a**/*.txt", "a/dir/file.txt", true),
            ("a**/*.txt", "a/dir/dir/file.txt", true),
            ("a/*.txt", "a/dir/file.txt", false),
            ("a/*.txt", "a/file.txt", true),
            ("a/*.txt**", "a/file.txt", true),
            ("a[b-d]e", "ae", false),
            ("a[b-d]e", "ace", true),
            ("a[b-d]e", "aae", false),
            ("a[^b-d]e", "aze", true),
            (".*", ".foo", true),
            (".*", "foo", false),
            ("abc.def", "abcdef", false),
            ("abc.def", "abc.def", true),
            ("abc.def", "abcZdef", false),
            ("abc?def", "abcZdef", true),
            ("abc?def", "abcdef", false),
            ("a\\\\", "a\\", true),
            ("**/foo/bar", "foo/bar", true),
            ("**/foo/bar", "dir/foo/bar", true),
            ("**/foo/bar", "dir/dir2/foo/bar", true),
            ("abc/**", "abc", false),
            ("abc/**", "abc/def", true),
            ("abc/**", "abc/def/ghi", true),
            ("**/.foo", ".foo", true),
            ("**/.foo", "bar.foo", false),
            ("a(b)c/def", "a(b)c/def", true),
            ("a(b)c/def", "a(b)c/xyz", false),
            ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
            (
                "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
                "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
                true,
            ),
            ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "aXb", false),
            // Go's own for a single directory.
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("a*", "ab/c", true),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a?b", "a\u{263a}b", true),
            ("a[^a]b", "a\u{263a}b", true),
            ("a???b", "a\u{263a}b", false),
            ("[a-\u{3b6}]*", "\u{3b1}", true),
            ("*[a-\u{3b6}]", "A", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "x", true),
            ("*x", "xxx", true),
            ("./a/../b/", "b", true),
        ] {
            assert_eq!(one(pattern).unwrap().matches(path), expected, "{pattern:?} and {path:?}");
        }
        for pattern in ["[]a]", "[", "[^", "[^bc", "a[", "[-]", "[x-]", "[a-b-c]", "[-x]", "\\", "a\\"] {
            assert_eq!(one(pattern).unwrap_err(), SYNTAX, "{pattern:?}");
        }
        assert_eq!(one("!").unwrap_err(), "illegal exclusion pattern: \"!\"");
    }

    #[test]
    fn the_last_that_matches_decides() {
        for (patterns, path, expected) in [
            (&["a*", "!ab", "abc"][..], "ab", false),
            (&["*", "!d/f"], "d/f", false),
            (&["d", "!d/f"], "d/f", false),
            (&["d", "!d/f", "d/*"], "d/f", true),
            (&["d", "!d/f"], "d/g", true),
            (&["*", "!util/docker/web"], "util/docker/web/foo", false),
            (&["*", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", true),
            (&["*", "!dist/proxy.py.whl"], "dist/proxy.py.whl", false),
            (&["dist/", "!dist/*.whl"], "dist/a.whl", false),
            (&["!a"], "a", false),
            (&["fileutils.go", "!*.go"], "fileutils.go", false),
            (&["!*.go", "fileutils.go"], "fileutils.go", true),
            (&["docs", "!docs", "docs/README.md"], "docs/README.md", true),
            (&["docs/README.md", "!docs"], "docs/README.md", false),
            (&["docs", "!docs/README.md"], "docs/README.md", false),
        ] {
            let mut made = Patterns::default();
            for pattern in patterns {
                made.add(pattern).unwrap();
            }
            assert_eq!(made.matches(path), expected, "{patterns:?} and {path:?}");
        }
    }

    #[test]
    fn the_file_is_read_line_by_line() {
        let text = b"\xef\xbb\xbftest1\n/test2\r\n/a/file/here\n\nlastfile\n# this is a comment\n! /inverted/abs/path  \n /\n\
            \tblanks \n#no\n!\xc3\xa9\n";
        let patterns = Patterns::read(text).unwrap();
        let texts: Vec<_> = patterns
            .patterns
            .iter()
            .map(|pattern| format!("{}{}", if pattern.is_exception { "!" } else { "" }, pattern.text))
            .collect();
        assert_eq!(
            texts,
            ["test1", "test2", "a/file/here", "lastfile", "!inverted/abs/path", "/", "blanks", "!\u{e9}"]
        );
        assert!(Patterns::read(b"!\n").is_err() && Patterns::read(b"[\n").is_err());
        assert!(!Patterns::read(b" # blank before\n").unwrap().patterns.is_empty());
    }

    #[test]
    fn exceptions_keep_a_directory_open() {
        let patterns = Patterns::read(b"d\n!d/e/f\n!x*/y\n").unwrap();
        assert!(patterns.has_exception_below("d") && patterns.has_exception_below("d/e"));
        assert!(patterns.has_exception_below("d/e/f"));
        assert!(!patterns.has_exception_below("d/g") && !patterns.has_exception_below("x1"));
        let (is_out, matched) = patterns.matches_below("d", &Matched::default());
        assert!(is_out);
        let (is_out, matched) = patterns.matches_below("d/e", &matched);
        assert!(is_out);
        assert!(!patterns.matches_below("d/e/f", &matched).0 && patterns.matches_below("d/e/g", &matched).0);
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        let pattern = one(&"*a".repeat(200)).unwrap();
        assert!(!pattern.matches(&format!("{}b", "a".repeat(4000))));
        for seed in 0..5000u32 {
            let letters = ['*', '?', '[', ']', '\\', '/', '!', '-', '^', 'a', '.', '\u{e9}'];
            let mut state = seed.wrapping_mul(2_654_435_761) | 1;
            let text: String = (0..seed % 12)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    letters[(state >> 16) as usize % letters.len()]
                })
                .collect();
            if let Ok(patterns) = Patterns::read(text.as_bytes()) {
                let _ = patterns.matches("a/b\u{e9}/.c");
            }
        }
    }
}
