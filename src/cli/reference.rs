//! Image names as people type them, and what they mean in full: `busybox` is `docker.io/library/busybox`.
//!
//! The daemon decides what a name means; the client needs to know where its own messages and requests spell
//! one out, as docker's do.

/// A name taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `docker.io/library/busybox`
    pub name: String,
    /// The same as people write it: `busybox`.
    pub familiar: String,
    /// Empty when there is none.
    pub tag: String,
    /// Empty when there is none.
    pub digest: String,
}

impl Reference {
    /// Reads a name; the error is the distribution library's, which docker shows.
    pub fn parse(text: &str) -> Result<Reference, String> {
        let invalid = || "invalid reference format".to_owned();
        let (rest, digest) = text.split_once('@').unwrap_or((text, ""));
        let (familiar, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (rest, ""),
        };
        let is_tag = |tag: &str| {
            tag.len() <= 128
                && !tag.starts_with(['.', '-'])
                && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        };
        let has_empty_part =
            (rest.ends_with(':') && tag.is_empty()) || (text.contains('@') && digest.is_empty());
        if familiar.is_empty() || has_empty_part || !is_tag(tag) {
            return Err(invalid());
        }
        let (domain, path) = match familiar.split_once('/') {
            Some((domain, path))
                if domain.contains(['.', ':'])
                    || domain == "localhost"
                    || domain != domain.to_ascii_lowercase() =>
            {
                (domain, path.to_owned())
            }
            _ => ("docker.io", familiar.to_owned()),
        };
        let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
        let path = match domain {
            "docker.io" if !path.contains('/') => format!("library/{path}"),
            _ => path,
        };
        if path != path.to_ascii_lowercase() {
            return Err(format!("invalid reference format: repository name ({path}) must be lowercase"));
        }
        let is_component = |part: &str| {
            let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
            edge(part.chars().next())
                && edge(part.chars().next_back())
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        if !path.split('/').all(is_component) {
            return Err(invalid());
        }
        let name = format!("{domain}/{path}");
        let familiar = match name.strip_prefix("docker.io/") {
            Some(rest) => rest.strip_prefix("library/").filter(|rest| !rest.contains('/')).unwrap_or(rest),
            None => &name,
        };
        Ok(Reference {
            familiar: familiar.to_owned(),
            name: name.clone(),
            tag: tag.to_owned(),
            digest: digest.to_owned(),
        })
    }

    /// With the tag that is meant when neither tag nor digest is given.
    pub fn or_latest(mut self) -> Reference {
        if self.tag.is_empty() && self.digest.is_empty() {
            self.tag = "latest".to_owned();
        }
        self
    }

    /// What `pull` asks for beside the name: the digest, else the tag.
    pub fn version(&self) -> &str {
        if self.digest.is_empty() { &self.tag } else { &self.digest }
    }
}

/// As people write it, with tag and digest.
impl std::fmt::Display for Reference {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.familiar)?;
        if !self.tag.is_empty() {
            write!(out, ":{}", self.tag)?;
        }
        if !self.digest.is_empty() {
            write!(out, "@{}", self.digest)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelt_out() {
        let cases = [
            ("busybox", "docker.io/library/busybox", "busybox:latest"),
            ("docker.io/busybox:1", "docker.io/library/busybox", "busybox:1"),
            ("me/app", "docker.io/me/app", "me/app:latest"),
            ("localhost:5000/a/b", "localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("ghcr.io/a@sha256:00", "ghcr.io/a", "ghcr.io/a@sha256:00"),
        ];
        for (text, name, shown) in cases {
            let reference = Reference::parse(text).unwrap().or_latest();
            assert_eq!((reference.name.as_str(), reference.to_string().as_str()), (name, shown), "{text}");
        }
        assert_eq!(
            Reference::parse("UPPER").unwrap_err(),
            "invalid reference format: repository name (library/UPPER) must be lowercase"
        );
        for text in ["", ":1", "a:", "a@", "a b", "a//b", "-a", "a:b c", "a/"] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }
}
