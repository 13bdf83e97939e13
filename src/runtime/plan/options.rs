//! `mount(8)` option words, and what each means to the kernel.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// Mount attributes by their word. The values are `MOUNT_ATTR_*` of mount_setattr(2).
const ATTRIBUTES: [(&str, u64); 8] = [
    ("ro", libc::MOUNT_ATTR_RDONLY),
    ("nosuid", libc::MOUNT_ATTR_NOSUID),
    ("nodev", libc::MOUNT_ATTR_NODEV),
    ("noexec", libc::MOUNT_ATTR_NOEXEC),
    ("noatime", libc::MOUNT_ATTR_NOATIME),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME),
    ("nodiratime", libc::MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW),
];

/// Words that take an earlier one back.
const OPPOSITES: [(&str, u64); 9] = [
    ("rw", libc::MOUNT_ATTR_RDONLY),
    ("suid", libc::MOUNT_ATTR_NOSUID),
    ("dev", libc::MOUNT_ATTR_NODEV),
    ("exec", libc::MOUNT_ATTR_NOEXEC),
    ("atime", libc::MOUNT_ATTR_NOATIME),
    ("relatime", libc::MOUNT_ATTR__ATIME),
    ("nostrictatime", libc::MOUNT_ATTR_STRICTATIME),
    ("diratime", libc::MOUNT_ATTR_NODIRATIME),
    ("symfollow", libc::MOUNT_ATTR_NOSYMFOLLOW),
];

/// Words that change nothing here: the default, or about mount(8)'s own work.
const SILENT: [&str; 7] = ["defaults", "async", "loud", "silent", "norelatime", "nofail", "_netdev"];

/// Whether the mount shows something that exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Binding {
    #[default]
    None,
    /// `bind`: one mount.
    One,
    /// `rbind`: and what is mounted below it.
    Tree,
}

/// How mounts and unmounts travel between copies of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Propagation {
    Shared,
    RShared,
    Slave,
    RSlave,
    Private,
    RPrivate,
    Unbindable,
    RUnbindable,
}

impl Propagation {
    const WORDS: [(&'static str, Propagation); 8] = [
        ("shared", Propagation::Shared),
        ("rshared", Propagation::RShared),
        ("slave", Propagation::Slave),
        ("rslave", Propagation::RSlave),
        ("private", Propagation::Private),
        ("rprivate", Propagation::RPrivate),
        ("unbindable", Propagation::Unbindable),
        ("runbindable", Propagation::RUnbindable),
    ];

    /// `rslave` and the like.
    pub fn parse(word: &str) -> Option<Propagation> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, value)| *value)
    }

    /// The kernel's flag, without its reach.
    pub fn flag(self) -> u64 {
        match self {
            Self::Shared | Self::RShared => libc::MS_SHARED,
            Self::Slave | Self::RSlave => libc::MS_SLAVE,
            Self::Private | Self::RPrivate => libc::MS_PRIVATE,
            Self::Unbindable | Self::RUnbindable => libc::MS_UNBINDABLE,
        }
    }

    pub fn is_recursive(self) -> bool {
        matches!(self, Self::RShared | Self::RSlave | Self::RPrivate | Self::RUnbindable)
    }

    pub fn is_shared(self) -> bool {
        matches!(self, Self::Shared | Self::RShared)
    }

    pub fn is_unbindable(self) -> bool {
        matches!(self, Self::Unbindable | Self::RUnbindable)
    }
}

impl fmt::Display for Propagation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::WORDS.iter().find(|(_, value)| value == self).map_or("", |(word, _)| *word);
        f.write_str(word)
    }
}

/// A mount's options, understood.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Options {
    pub binding: Binding,
    /// `MOUNT_ATTR_*` of the mount itself.
    pub attributes: u64,
    /// `MOUNT_ATTR_*` of the mount and everything below it.
    pub recursive: u64,
    /// In order.
    pub propagation: Vec<Propagation>,
    /// `X-mount.subdir=`: what of a bind's source is shown, found beneath the source and never outside of
    /// it, whatever links there are. Empty for all.
    pub below: PathBuf,
    /// What only the file system understands: `mode=755`, `newinstance`.
    pub data: Vec<String>,
}

impl Options {
    /// Understands `words`, later ones winning.
    ///
    /// # Errors
    /// The text of the refusal: an empty word or one with a NUL.
    pub fn parse(words: &[String]) -> Result<Options, String> {
        let mut options = Options::default();
        for word in words {
            options.add(word)?;
        }
        Ok(options)
    }

    fn add(&mut self, word: &str) -> Result<(), String> {
        if word.is_empty() || word.contains('\0') {
            return Err(format!("{word:?} is no mount option"));
        }
        let attribute = |word: &str| ATTRIBUTES.iter().find(|(known, _)| *known == word).map(|(_, bit)| *bit);
        let opposite = |word: &str| OPPOSITES.iter().find(|(known, _)| *known == word).map(|(_, bit)| *bit);
        match word {
            "bind" => self.binding = Binding::One,
            "rbind" => self.binding = Binding::Tree,
            _ if SILENT.contains(&word) => {}
            _ => {
                if let Some(propagation) = Propagation::parse(word) {
                    self.propagation.push(propagation);
                } else if let Some(bit) = attribute(word) {
                    self.attributes = set(self.attributes, bit);
                } else if let Some(bit) = opposite(word) {
                    self.attributes &= !bit;
                } else if let Some(bit) = word.strip_prefix('r').and_then(attribute) {
                    self.recursive = set(self.recursive, bit);
                } else if let Some(bit) = word.strip_prefix('r').and_then(opposite) {
                    self.recursive &= !bit;
                } else if let Some(below) = word.strip_prefix("X-mount.subdir=") {
                    self.below = below.into();
                } else {
                    self.data.push(word.to_owned());
                }
            }
        }
        Ok(())
    }

    /// Takes `ro` out, and tells whether it was there.
    pub fn take_read_only(&mut self) -> bool {
        let read_only = self.attributes & libc::MOUNT_ATTR_RDONLY != 0;
        self.attributes &= !libc::MOUNT_ATTR_RDONLY;
        read_only
    }
}

/// The three access time policies are one field, not bits.
fn set(attributes: u64, bit: u64) -> u64 {
    if bit & libc::MOUNT_ATTR__ATIME != 0 {
        (attributes & !libc::MOUNT_ATTR__ATIME) | bit
    } else {
        attributes | bit
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = Vec::new();
        match self.binding {
            Binding::None => {}
            Binding::One => words.push("bind".to_owned()),
            Binding::Tree => words.push("rbind".to_owned()),
        }
        let named =
            |bits: u64| ATTRIBUTES.iter().filter(move |(_, bit)| bits & bit != 0).map(|(word, _)| word);
        words.extend(named(self.attributes).map(|word| (*word).to_owned()));
        words.extend(named(self.recursive).map(|word| format!("r{word}")));
        words.extend(self.propagation.iter().map(Propagation::to_string));
        if !self.below.as_os_str().is_empty() {
            words.push(format!("X-mount.subdir={}", self.below.display()));
        }
        words.extend(self.data.iter().cloned());
        f.write_str(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Options {
        Options::parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn words_become_attributes_propagation_and_data() {
        let options = parse("rbind,rprivate,ro,rro,nosuid,mode=755,X-mount.subdir=a/b");
        assert_eq!(options.binding, Binding::Tree);
        assert_eq!(options.attributes, 1 | 2);
        assert_eq!(options.recursive, 1);
        assert_eq!(parse("rbind,ro").recursive, 0);
        assert_eq!(options.below, PathBuf::from("a/b"));
        assert_eq!(options.propagation, [Propagation::RPrivate]);
        assert_eq!(options.data, ["mode=755"]);
    }

    #[test]
    fn later_words_win() {
        assert_eq!(parse("ro,rw,noexec,exec").attributes, 0);
        assert_eq!(parse("noatime,strictatime").attributes, libc::MOUNT_ATTR_STRICTATIME);
        assert_eq!(parse("strictatime,relatime").attributes, 0);
        assert_eq!(parse("bind,ro").recursive, 0);
        assert_eq!(parse("rro,rrw").recursive, 0);
    }

    #[test]
    fn every_word_is_known_once() {
        let mut words: Vec<&str> = ATTRIBUTES.iter().chain(&OPPOSITES).map(|(word, _)| *word).collect();
        words.extend(SILENT);
        words.extend(Propagation::WORDS.iter().map(|(word, _)| *word));
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
    }

    #[test]
    fn an_empty_word_is_refused() {
        assert!(Options::parse(&[String::new()]).is_err());
        assert!(Options::parse(&["mode=\0".to_owned()]).is_err());
    }
}
