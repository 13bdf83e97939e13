//! What a `COPY` or `ADD` takes, and from where.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use crate::daemon::build::root;
use crate::daemon::build::stage::Stage;
use crate::daemon::dockerfile::{Copy, Source};
use crate::daemon::error::{Error, Result};
use crate::daemon::images::codec;
use crate::http::api::ignore::Patterns;
use crate::runtime::layer::{Limits, tar};

/// One thing to be copied.
#[derive(Debug)]
pub struct Item {
    /// What it is called in a directory it is copied into.
    pub name: Vec<u8>,
    /// Directories it is put in there; for `--parents`.
    pub below: Vec<u8>,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    /// A file, or what is in a directory.
    Tree { inode: OwnedFd, excludes: Arc<Excludes>, keeps_owner: bool },
    /// To be unpacked.
    Archive(OwnedFd),
    /// Written in the Dockerfile.
    Text(String),
}

/// `--exclude`: patterns of what is left out, relative to what is copied.
#[derive(Debug, Default)]
pub struct Excludes(Patterns);

impl Excludes {
    /// Whether the entry, whose path is relative to what is copied, is left out.
    pub fn hides(&self, path: &[u8]) -> bool {
        let path = String::from_utf8_lossy(path);
        let path = path.trim_start_matches("./").trim_matches('/');
        !matches!(path, "" | ".") && self.0.matches(path)
    }
}

/// Finds everything a `COPY` or, as `name` says, an `ADD` takes.
///
/// # Errors
/// InvalidParameter, in Docker's words, when there is nothing of a name, or outside the context.
pub fn gather(stage: &Stage<'_>, copy: &Copy, name: &str, target: &str) -> Result<Vec<Item>> {
    let from_image = match &copy.from {
        Some(from) => Some(stage.job.root_of(stage.job.image_from(from, stage.at)?.as_ref())?),
        None => None,
    };
    let root = from_image.as_ref().map_or(stage.job.context.root.as_fd(), |root| root.as_fd());
    let mut patterns = Patterns::default();
    for word in &copy.exclude {
        patterns.add(&stage.expand(word)?).map_err(Error::invalid)?;
    }
    let source = Tree {
        root,
        is_context: from_image.is_none(),
        is_add: name == "ADD",
        has_parents: copy.parents,
        excludes: Arc::new(Excludes(patterns)),
    };
    let mut items = Vec::new();
    for word in &copy.sources {
        match word {
            Source::Here(file) => {
                let text = file.text();
                let text = if file.expand { stage.expand_text(&text)? } else { text };
                let name = file.name.clone().into_bytes();
                items.push(Item { name, below: Vec::new(), content: Content::Text(text) });
            }
            Source::Path(path) => {
                let path = stage.expand(path)?;
                let is_url = path.starts_with("http://") || path.starts_with("https://");
                if is_url && name == "COPY" {
                    return Err(Error::invalid("source can't be a URL for COPY"));
                }
                if is_url {
                    items.push(crate::daemon::build::fetch::item(stage, copy, &path, target)?);
                    continue;
                }
                source.find(&path, &mut items)?;
            }
        }
    }
    if items.is_empty() {
        return Err(Error::invalid("no source files were specified"));
    }
    Ok(items)
}

/// Where paths are looked for.
struct Tree<'a> {
    root: BorrowedFd<'a>,
    is_context: bool,
    is_add: bool,
    has_parents: bool,
    excludes: Arc<Excludes>,
}

impl Tree<'_> {
    fn find(&self, word: &str, items: &mut Vec<Item>) -> Result<()> {
        let mut parts: Vec<&str> = Vec::new();
        for part in word.split('/') {
            match part {
                "" | "." => {}
                ".." if parts.pop().is_none() && self.is_context => {
                    return Err(Error::invalid(format!(
                        "forbidden path outside the build context: {word} ()"
                    )));
                }
                ".." => {}
                part => parts.push(part),
            }
        }
        // With `--parents`, what is before `/./` stays behind.
        let skipped = match word.split_once("/./") {
            Some((before, _)) if self.has_parents => {
                before.split('/').filter(|part| !matches!(*part, "" | ".")).count()
            }
            _ => 0,
        };
        if !parts.iter().any(|part| part.contains(['*', '?', '[', '\\'])) {
            items.push(self.item(parts.join("/").as_bytes(), skipped)?);
            return Ok(());
        }
        let mut found = vec![Vec::new()];
        for part in parts {
            let mut next = Vec::new();
            for directory in found {
                for name in self.names_in(&directory)? {
                    let fits = matches(part.as_bytes(), &name);
                    let fits =
                        fits.ok_or_else(|| Error::invalid(format!("syntax error in pattern {word:?}")))?;
                    if fits {
                        let slash: &[u8] = if directory.is_empty() { b"" } else { b"/" };
                        next.push([directory.as_slice(), slash, &name].concat());
                    }
                }
            }
            found = next;
        }
        for path in found {
            if !self.excludes.hides(&path) {
                items.push(self.item(&path, skipped)?);
            }
        }
        Ok(())
    }

    fn names_in(&self, directory: &[u8]) -> Result<Vec<Vec<u8>>> {
        let failed = |cause: &dyn std::fmt::Display| {
            Error::system(format!("list {:?}", String::from_utf8_lossy(directory)), cause)
        };
        let inode = match root::open_plain(self.root, directory) {
            Ok(inode) => inode,
            // What is no directory has nothing in it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
            Err(errno) => return Err(failed(&errno)),
        };
        let stat = rustix::fs::statat(&inode, "", AtFlags::EMPTY_PATH).map_err(|errno| failed(&errno))?;
        if root::kind(&stat) != FileType::Directory {
            return Ok(Vec::new());
        }
        let reader = root::reopen(&inode).and_then(|file| Ok(rustix::fs::Dir::read_from(file)?));
        let mut names = Vec::new();
        for entry in reader.map_err(|cause| failed(&cause))? {
            let entry = entry.map_err(|errno| failed(&errno))?;
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => names.push(name.to_vec()),
            }
        }
        names.sort();
        Ok(names)
    }

    fn item(&self, path: &[u8], skipped: usize) -> Result<Item> {
        let shown = String::from_utf8_lossy(path);
        let inode = match root::open(self.root, path) {
            Ok(inode) => inode,
            Err(Errno::NOENT | Errno::NOTDIR) => {
                let stat = format!("stat {shown}: file does not exist");
                return Err(Error::invalid(match self.is_context {
                    true => format!("file not found in build context or excluded by .dockerignore: {stat}"),
                    false => stat,
                }));
            }
            Err(errno) => return Err(Error::invalid(format!("open {shown:?}: {errno}"))),
        };
        let stat = rustix::fs::statat(&inode, "", AtFlags::EMPTY_PATH)
            .map_err(|errno| Error::system(format!("look at {shown:?}"), errno))?;
        let at = path.iter().rposition(|byte| *byte == b'/');
        let (parent, name) = at.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]));
        let below = match (self.has_parents, root::kind(&stat)) {
            (false, _) => Vec::new(),
            (true, FileType::Directory) => without(path, skipped),
            (true, _) => without(parent, skipped),
        };
        let is_archive =
            self.is_add && root::kind(&stat) == FileType::RegularFile && is_archive(&inode, name)?;
        let content = match is_archive {
            true => Content::Archive(inode),
            false => {
                Content::Tree { inode, excludes: Arc::clone(&self.excludes), keeps_owner: !self.is_context }
            }
        };
        Ok(Item { name: name.to_vec(), below, content })
    }
}

/// `path` without its first parts.
fn without(path: &[u8], parts: usize) -> Vec<u8> {
    path.split(|byte| *byte == b'/').skip(parts).collect::<Vec<_>>().join(&b'/')
}

/// Whether the file is a tar, compressed or not.
fn is_archive(inode: &OwnedFd, name: &[u8]) -> Result<bool> {
    let file = root::reopen(inode)
        .map_err(|cause| Error::system(format!("read {:?}", String::from_utf8_lossy(name)), cause))?;
    match codec::decompress(file) {
        Ok(stream) => Ok(matches!(tar::Reader::new(stream, Limits::default()).next_entry(), Ok(Some(_)))),
        // What cannot be decompressed here cannot be told from a tar; by its name it can.
        Err(error) => {
            let name = String::from_utf8_lossy(name);
            let is_tar = name.contains(".tar.") || name.ends_with(".txz") || name.ends_with(".tbz2");
            if is_tar { Err(error) } else { Ok(false) }
        }
    }
}

/// Go's `filepath.Match` for a name without slashes: `*`, `?`, `[a-z]`, `[^a]`, `\x`; `None` for what is no pattern.
pub fn matches(pattern: &[u8], name: &[u8]) -> Option<bool> {
    // Where to go on when what follows the last star does not fit: one more letter for the star.
    let mut retry: Option<(usize, usize)> = None;
    let (mut at, mut seen) = (0, 0);
    loop {
        if at == pattern.len() && seen == name.len() {
            return Some(true);
        }
        let next = match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, seen));
                at += 1;
                continue;
            }
            Some(_) if seen == name.len() => {
                // The rest must still be a pattern, and may only be stars, which were just dealt with.
                check(&pattern[at..])?;
                None
            }
            Some(_) => one(&pattern[at..], &name[seen..])?,
            None => None,
        };
        match (next, retry) {
            (Some((of_pattern, of_name)), _) => (at, seen) = (at + of_pattern, seen + of_name),
            (None, Some((after, from))) if from < name.len() => {
                retry = Some((after, from + 1));
                (at, seen) = (after, from + 1);
            }
            _ => return Some(false),
        }
    }
}

fn check(mut pattern: &[u8]) -> Option<()> {
    while !pattern.is_empty() {
        pattern = match pattern[0] {
            b'*' => &pattern[1..],
            _ => &pattern[one_length(pattern)?..],
        };
    }
    Some(())
}

/// Bytes of the pattern that stand for one letter.
fn one_length(pattern: &[u8]) -> Option<usize> {
    match pattern {
        [b'\\'] => None,
        [b'\\', ..] => Some(2),
        [b'[', rest @ ..] => {
            let mut at = usize::from(rest.first() == Some(&b'^'));
            let start = at;
            loop {
                match rest.get(at)? {
                    b']' if at > start => return Some(at + 2),
                    b'\\' => at += 2,
                    _ => at += 1,
                }
            }
        }
        _ => Some(1),
    }
}

/// Whether one letter fits, and if so how many bytes of both that took; `None` for what is no pattern.
fn one(pattern: &[u8], name: &[u8]) -> Option<Option<(usize, usize)>> {
    let length = one_length(pattern)?;
    let width = letter_width(name);
    let fits = match pattern {
        [b'?', ..] => return Some(Some((1, width))),
        [b'\\', literal, ..] => name.first() == Some(literal),
        [b'[', ..] => {
            let class = std::str::from_utf8(&pattern[1..length - 1]).ok()?;
            let (class, is_negated) = match class.strip_prefix('^') {
                Some(class) => (class, true),
                None => (class, false),
            };
            let letter = std::str::from_utf8(&name[..width]).ok().and_then(|text| text.chars().next());
            let mut letters = class.chars().peekable();
            let mut hit = false;
            let literal = |letters: &mut std::iter::Peekable<std::str::Chars<'_>>| match letters.next()? {
                '\\' => letters.next(),
                letter => Some(letter),
            };
            while letters.peek().is_some() {
                let low = literal(&mut letters)?;
                let high = if letters.peek() == Some(&'-') {
                    letters.next();
                    literal(&mut letters)?
                } else {
                    low
                };
                hit |= letter.is_some_and(|letter| low <= letter && letter <= high);
            }
            if hit == is_negated {
                return Some(None);
            }
            return Some(Some((length, width)));
        }
        [literal, ..] => name.first() == Some(literal),
        [] => false,
    };
    Some(fits.then_some((length, 1)))
}

fn letter_width(name: &[u8]) -> usize {
    let width = match name.first() {
        Some(0xc0..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf7) => 4,
        _ => 1,
    };
    if name.len() >= width && std::str::from_utf8(&name[..width]).is_ok() { width } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_go() {
        // Source: Go's own table, path/filepath/match_test.go, without slashes.
        for (pattern, name, wanted) in [
            ("abc", "abc", Some(true)),
            ("*", "abc", Some(true)),
            ("*c", "abc", Some(true)),
            ("a*", "a", Some(true)),
            ("a*b*c*d*e*", "axbxcxdxe", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
            ("ab[c]", "abc", Some(true)),
            ("ab[b-d]", "abc", Some(true)),
            ("ab[e-g]", "abc", Some(false)),
            ("ab[^c]", "abc", Some(false)),
            ("ab[^b-d]", "abc", Some(false)),
            ("ab[^e-g]", "abc", Some(true)),
            ("a\\*b", "a*b", Some(true)),
            ("a\\*b", "ab", Some(false)),
            ("a?b", "a\u{263a}b", Some(true)),
            ("a[^a]b", "a\u{263a}b", Some(true)),
            ("a???b", "a\u{263a}b", Some(false)),
            ("[a-\u{3b6}]*", "\u{3b1}", Some(true)),
            ("*[a-\u{3b6}]", "A", Some(false)),
            ("[\\]a]", "]", Some(true)),
            ("[", "a", None),
            ("[^", "a", None),
            ("a[", "a", None),
            ("a\\", "a", None),
            ("", "", Some(true)),
            ("a", "", Some(false)),
            ("*x", "xxx", Some(true)),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), wanted, "{pattern} {name}");
        }
    }

    #[test]
    fn excludes_hide_names_and_what_is_below() {
        let hides = |pattern: &str, path: &str| {
            let mut patterns = Patterns::default();
            patterns.add(pattern).unwrap();
            Excludes(patterns).hides(path.as_bytes())
        };
        assert!(hides("*.txt", "a.txt") && !hides("*.txt", "sub/a.txt") && hides("**/*.txt", "sub/a.txt"));
        assert!(hides("sub", "sub/") && hides("sub", "sub/deep/file") && !hides("sub", "subway"));
        assert!(!hides("**", "./") && !hides("**", ".") && hides("**", "x"));
    }
}
