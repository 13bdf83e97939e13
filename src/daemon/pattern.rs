//! The regular expressions of `--filter name=…`, matched in linear time and bounded in memory.
//!
//! What does not parse, or would become too big, matches only itself.
//!
//! Source: Docker matches a filter's value exactly or as an RE2 search.

use regex_lite::{Regex, RegexBuilder};

/// Bytes a compiled pattern may take: a few hundred letters' worth, as names have.
const MOST_BYTES: usize = 64 * 1024;
/// How deep groups may be nested.
const MOST_NESTED: u32 = 32;

/// A filter's value, ready to be matched against names.
#[derive(Debug)]
pub struct Pattern {
    text: String,
    regex: Option<Regex>,
}

impl Pattern {
    pub fn new(text: &str) -> Pattern {
        let regex = RegexBuilder::new(text).size_limit(MOST_BYTES).nest_limit(MOST_NESTED).build();
        Pattern { text: text.to_owned(), regex: regex.ok() }
    }

    /// Whether the pattern is `text`, or occurs in it.
    pub fn matches(&self, text: &str) -> bool {
        self.text == text || self.regex.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, text, wanted) in [
            ("web", "my-web-1", true),
            ("^web$", "web", true),
            ("^web$", "web1", false),
            ("^/?web$", "/web", true),
            ("^web", "a-web", false),
            ("web|db", "the-db", true),
            ("^(web|db)$", "db", true),
            ("^(web|db|x)$", "x", true),
            ("^(web|db)$", "dbx", false),
            ("^(?:a|b)+c$", "ababc", true),
            ("we.", "wex", true),
            ("w.*b$", "wxyzb", true),
            ("^wb*$", "w", true),
            ("^wb+$", "w", false),
            ("^wb?$", "wbb", false),
            ("^[a-c]{2,3}$", "abc", true),
            ("^[a-c]{2,3}$", "abca", false),
            ("^[a-c]{2}$", "ab", true),
            ("^x{2,}$", "xxxx", true),
            ("[^0-9]$", "a1", false),
            (r"^a\.b$", "a.b", true),
            (r"^a\.b$", "axb", false),
            (r"^\d+$", "123", true),
            (r"^[\w-]+$", "a-b_1", true),
            ("^(a(b|c)?)*$", "abaca", true),
            ("^(a|b|)$", "", true),
            ("", "anything", true),
            ("(?i)web", "WEB", true),
            ("x{", "x{", true),
            // Not patterns: they match only themselves.
            ("*web", "my*web", false),
            ("*web", "*web", true),
            ("(web", "web", false),
            ("[web", "web", false),
            ("web)", "web", false),
            ("a{2,1}", "aa", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), wanted, "{pattern:?} {text:?}");
        }
    }

    /// Exponential for a backtracking matcher, and too big for a program.
    #[test]
    fn no_pattern_is_slow_or_big() {
        let text = "a".repeat(2000);
        assert!(!Pattern::new("^(a*)*(a*)*(a*)*b$").matches(&text));
        assert!(!Pattern::new("((((a{1000}){1000}){1000}){1000})").matches(&text));
        assert!(!Pattern::new(&"(".repeat(100_000)).matches(&text));
        assert!(!Pattern::new(&"a?".repeat(100_000)).matches("b"));
        assert!(!Pattern::new(&format!("{}b", "(a|".repeat(1000))).matches("b"));
    }
}
