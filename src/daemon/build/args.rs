//! `ARG`: what a build is given from outside, and where it can be seen.
//!
//! ```text
//!  --build-arg          what was given
//!  ARG before FROM      can be seen in FROM lines, and in a stage that says ARG too
//!  ARG in a stage       can be seen from there on; an ENV of the same name counts more
//!  HTTP_PROXY …         can be seen without ARG, and does not decide what is in the cache
//! ```

use std::collections::BTreeMap;

/// Can be seen without being declared.
const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

type Values = BTreeMap<String, Option<String>>;

/// The arguments as one stage sees them.
#[derive(Clone, Debug, Default)]
pub struct Args {
    given: Values,
    /// Of the whole file.
    global: Values,
    declared: Values,
}

impl Args {
    /// Before the first stage. `platform` is what every file may ask for.
    pub fn new(given: Values, platform: Values) -> Args {
        Args { given, global: platform, declared: Values::new() }
    }

    /// `ARG` before the first `FROM`.
    pub fn declare_global(&mut self, name: &str, default: Option<String>) {
        self.global.insert(name.to_owned(), default);
    }

    /// `ARG` in a stage.
    pub fn declare(&mut self, name: &str, default: Option<String>) {
        self.declared.insert(name.to_owned(), default);
    }

    /// What a `FROM` line sees.
    pub fn global(&self, name: &str) -> Option<String> {
        self.value(name, self.global.get(name)?)
    }

    /// What a stage sees.
    pub fn get(&self, name: &str) -> Option<String> {
        match self.declared.get(name) {
            Some(default) => self.value(name, default),
            None if PREDEFINED.contains(&name) => self.given.get(name)?.clone(),
            None => None,
        }
    }

    /// All that a stage sees and `env` (`KEY=value`) does not have, as `KEY=value`, sorted.
    pub fn beside(&self, env: &[String]) -> Vec<String> {
        let is_free = |name: &str| {
            !env.iter().any(|entry| entry.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')))
        };
        let names = self.declared.keys().map(String::as_str).chain(PREDEFINED);
        let mut all: Vec<String> = names
            .filter(|name| is_free(name))
            .filter_map(|name| Some(format!("{name}={}", self.get(name)?)))
            .collect();
        all.sort();
        all.dedup();
        all
    }

    /// Whether it decides what is in the cache.
    pub fn counts(&self, entry: &str) -> bool {
        let name = entry.split('=').next().unwrap_or_default();
        !PREDEFINED.contains(&name) || self.declared.contains_key(name)
    }

    fn value(&self, name: &str, default: &Option<String>) -> Option<String> {
        // Given without a value is not given.
        let given = self.given.get(name).cloned().flatten();
        let global = || self.global.get(name).cloned().flatten();
        given.or_else(|| default.clone()).or_else(global)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn what_is_given_counts_more_than_defaults_and_is_seen_where_declared() {
        let given = [("a", "given"), ("b", "given"), ("HTTP_PROXY", "p")];
        let given = given.map(|(name, value)| (name.to_owned(), some(value)));
        let mut args = Args::new(given.into(), [("TARGETOS".to_owned(), some("linux"))].into());
        args.declare_global("a", some("global"));
        args.declare_global("c", some("global"));
        assert_eq!(
            (args.global("a"), args.global("b"), args.global("c")),
            (some("given"), None, some("global"))
        );
        assert_eq!((args.get("a"), args.get("TARGETOS"), args.get("HTTP_PROXY")), (None, None, some("p")));
        for (name, default) in
            [("a", some("own")), ("c", None), ("d", some("own")), ("e", None), ("TARGETOS", None)]
        {
            args.declare(name, default);
        }
        assert_eq!(
            args.beside(&["d=env".to_owned()]),
            ["HTTP_PROXY=p", "TARGETOS=linux", "a=given", "c=global"]
        );
        assert!(!args.counts("HTTP_PROXY=p") && args.counts("a=given"));
        args.declare("HTTP_PROXY", None);
        assert!(args.counts("HTTP_PROXY=p"));
    }
}
