//! Image references: `[domain/]path[:tag][@digest]`, in Docker's short and long spelling.
//!
//! ```text
//! debian                → docker.io/library/debian:latest       familiar → normalised
//! me/tool:1             → docker.io/me/tool:1
//! localhost:5000/a@sha256:…   stays: its first part has a dot, a colon, or is "localhost"
//! ```
//!
//! Source: the grammar in distribution's `reference` package; limits are its own (name 255, tag 128).

use std::fmt;

use super::codec::Digest;
use crate::daemon::error::{Error, Result};

const DEFAULT_DOMAIN: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";

/// A name with a tag, a digest, both or neither, normalised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses either spelling. Refuses what could be mistaken for an image's id: 64 hex digits.
    pub fn parse(text: &str) -> Result<Reference> {
        let invalid = || Error::invalid("invalid reference format");
        if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Error::invalid(format!(
                "invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            )));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest).ok_or_else(invalid)?)),
            None => (text, None),
        };
        // A colon after the last slash begins the tag; one before it belongs to the domain's port.
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[slash..].find(':') {
            Some(colon) => (&rest[..slash + colon], Some(rest[slash + colon + 1..].to_owned())),
            None => (rest, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid());
        }
        let (domain, path) = split_domain(name);
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(Error::invalid(
                "invalid reference format: repository name (".to_owned()
                    + path.as_str()
                    + ") must be lowercase",
            ));
        }
        if !is_domain(&domain) || !path.split('/').all(is_component) {
            return Err(invalid());
        }
        if domain.len() + 1 + path.len() > 255 {
            return Err(Error::invalid("repository name must not be more than 255 characters"));
        }
        Ok(Reference { domain, path, tag, digest })
    }

    /// What `fromImage` and `tag` mean together: the second is a tag or a digest, or empty. With neither, all tags.
    ///
    /// Refuses `scratch` (403), which is no image.
    pub fn named(name: &str, version: &str) -> Result<Reference> {
        let reference = Reference::parse(name.trim_end_matches(':'))?;
        if reference.domain() == DEFAULT_DOMAIN && reference.path() == "library/scratch" {
            return Err(Error::forbidden("'scratch' is a reserved name"));
        }
        match version {
            "" => Ok(reference),
            digest if digest.contains(':') => {
                let digest =
                    Digest::parse(digest).ok_or_else(|| Error::invalid("invalid reference format"))?;
                Ok(reference.with_digest(digest))
            }
            tag => reference.with_tag(tag),
        }
    }

    /// The same, with the tag `latest` if it has neither tag nor digest.
    pub fn with_default_tag(mut self) -> Reference {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same repository with another tag.
    pub fn with_tag(&self, tag: &str) -> Result<Reference> {
        if !is_tag(tag) {
            return Err(Error::invalid("invalid tag format"));
        }
        Ok(Reference { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository with a digest instead of a tag.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The registry's host, `docker.io` for Docker's.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository's name in its registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The name in its short spelling, without tag and digest.
    pub fn familiar_name(&self) -> String {
        let short = match self.path.strip_prefix("library/") {
            Some(short) if !short.contains('/') => short,
            _ => &self.path,
        };
        // docker.io/localhost/a has no short spelling: "localhost/a" is another repository.
        if self.domain == DEFAULT_DOMAIN && split_domain(short).1 == self.path {
            return short.to_owned();
        }
        format!("{}/{}", self.domain, self.path)
    }

    /// All of it in its short spelling, as people write it.
    pub fn familiar(&self) -> String {
        self.familiar_name() + &self.suffix()
    }

    /// Whether both are in the same repository.
    pub fn same_repository(&self, other: &Reference) -> bool {
        self.domain == other.domain && self.path == other.path
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }
}

/// The normalised spelling.
impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}{}", self.domain, self.path, self.suffix())
    }
}

fn split_domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (if first == "index.docker.io" { DEFAULT_DOMAIN } else { first }, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    };
    if domain == DEFAULT_DOMAIN && !path.contains('/') {
        return (domain.to_owned(), format!("library/{path}"));
    }
    (domain.to_owned(), path.to_owned())
}

/// Host name or bracketed IPv6 address, with an optional port.
fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, port)) if port.starts_with(':') => (address, Some(&port[1..])),
            _ => return false,
        },
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let is_host = if domain.starts_with('[') {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':')
    } else {
        host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
    };
    is_host && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Lower-case letters and digits, parted by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !(bytes.first().is_some_and(is_word) && bytes.last().is_some_and(is_word)) {
        return false;
    }
    bytes.split(is_word).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
    })
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn short_and_long_spellings_meet() {
        for (text, long, short) in [
            ("debian", "docker.io/library/debian", "debian"),
            ("library/debian:12", "docker.io/library/debian:12", "debian:12"),
            ("index.docker.io/a/b", "docker.io/a/b", "a/b"),
            ("docker.io/debian", "docker.io/library/debian", "debian"),
            ("me/tool:v1_x.y-z", "docker.io/me/tool:v1_x.y-z", "me/tool:v1_x.y-z"),
            ("localhost/a", "localhost/a", "localhost/a"),
            ("localhost:5000/a:b", "localhost:5000/a:b", "localhost:5000/a:b"),
            ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
            ("Reg.example.com/a__b/c---d", "Reg.example.com/a__b/c---d", "Reg.example.com/a__b/c---d"),
            ("a.b/c", "a.b/c", "a.b/c"),
            ("library/x/y", "docker.io/library/x/y", "library/x/y"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!((reference.to_string().as_str(), reference.familiar().as_str()), (long, short));
        }
        let pinned = Reference::parse(&format!("a:b@sha256:{HEX}")).unwrap();
        assert_eq!(pinned.familiar(), format!("a:b@sha256:{HEX}"));
        assert_eq!(Reference::parse("a").unwrap().with_default_tag().familiar(), "a:latest");
    }

    #[test]
    fn what_is_no_reference_is_refused_in_dockers_words() {
        for text in [
            "",
            ":a",
            "a:",
            "a::b",
            "-a",
            "a/",
            "/a",
            "a//b",
            "a b",
            "a:b c",
            "a___b",
            "a..b",
            "a@b",
            "a@sha256:12",
            "a-",
            "ex-.com:1/a",
            "a.b:x/c",
            "[::1/a",
            "a:.b",
            "\u{e9}",
            "../a",
            "a/../b",
        ] {
            let failure = Reference::parse(text).unwrap_err().to_string();
            assert!(failure.starts_with("invalid reference format"), "{text:?}: {failure}");
        }
        let failure = Reference::parse("Debian").unwrap_err().to_string();
        assert!(failure.ends_with("must be lowercase"), "{failure}");
        assert!(Reference::parse(HEX).unwrap_err().to_string().contains("64-byte hexadecimal"));
        assert!(Reference::parse(&"a".repeat(300)).is_err());
        assert!(Reference::parse(&format!("a:{}", "b".repeat(129))).is_err());
    }

    /// Whatever parses has spellings that parse to the same again.
    #[test]
    fn spellings_are_stable() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below as u64) as usize
        };
        let words = [
            "a",
            "B",
            "library",
            "docker.io",
            "localhost",
            "/",
            "/",
            ":",
            "@",
            ".",
            "-",
            "_",
            "5000",
            "sha256:",
            HEX,
            "latest",
            "x.y",
            "[::1]",
        ];
        let mut parsed = 0;
        for _ in 0..200_000 {
            let text: String = (0..=random(6)).map(|_| words[random(words.len())]).collect();
            let Ok(reference) = Reference::parse(&text) else { continue };
            parsed += 1;
            for spelling in [reference.to_string(), reference.familiar()] {
                match Reference::parse(&spelling) {
                    Ok(again) => assert_eq!(again, reference, "{text:?} as {spelling:?}"),
                    // "library/<64 hex>" has a short form that would be an id.
                    Err(failure) => assert!(failure.to_string().contains("64-byte"), "{text:?}: {failure}"),
                }
            }
        }
        assert!(parsed > 10_000, "{parsed}");
    }
}
