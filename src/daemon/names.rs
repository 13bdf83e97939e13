//! Names and identifiers: what may be one, and how a new one is made.

use super::error::{Error, Result};

/// Docker's rule for containers, volumes and checkpoints: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
///
/// Nothing that passes can climb out of a directory it is joined to.
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() >= 2
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// A container's name as the caller gave it, one leading `/` removed. Docker's text on refusal.
pub fn container_name(text: &str) -> Result<&str> {
    let name = text.strip_prefix('/').unwrap_or(text);
    if is_name(name) {
        Ok(name)
    } else {
        Err(Error::invalid(format!(
            "Invalid container name ({text}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )))
    }
}

/// A checkpoint's name: checked before any path is made of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckpointId(String);

/// It names a directory, with a suffix while it is being made: NAME_MAX is 255.
const MAX_CHECKPOINT_ID_BYTES: usize = 128;

impl CheckpointId {
    /// A name as [`is_name`] wants it that does not end in a dot, and is not one of our half-made ones.
    pub fn parse(text: &str) -> Result<CheckpointId> {
        let fits = text.len() <= MAX_CHECKPOINT_ID_BYTES;
        if fits && is_name(text) && !text.ends_with('.') && !text.ends_with(".partial") {
            Ok(CheckpointId(text.to_owned()))
        } else {
            Err(Error::invalid(format!(
                "Invalid checkpoint ID ({text}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, without a final dot, \
                 at most {MAX_CHECKPOINT_ID_BYTES} of them"
            )))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for CheckpointId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

/// `count` random bytes.
///
/// # Errors
/// System, when the kernel has no randomness to give.
pub fn random<const COUNT: usize>() -> Result<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(filled) if filled == COUNT => Ok(bytes),
        Ok(_) => Err(Error::system("draw a random id", "short read")),
        Err(cause) => Err(Error::system("draw a random id", cause)),
    }
}

/// 64 hex digits.
///
/// Compat: an id whose first twelve digits are all decimal is drawn again, as Docker does: its short form
/// would be taken for a number.
pub fn new_id() -> Result<String> {
    loop {
        let id: String = random::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        if !id[..12].bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(id);
        }
    }
}

/// Whether `text` is a whole id.
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `adjective_surname` for a container nobody named. The caller draws again on a collision.
pub fn generate() -> Result<String> {
    let [left, right] = random::<2>()?;
    let pick = |words: &[&'static str], byte: u8| words[usize::from(byte) % words.len()];
    Ok(format!("{}_{}", pick(ADJECTIVES, left), pick(PEOPLE, right)))
}

static ADJECTIVES: &[&str] = &[
    "able", "arctic", "boreal", "brave", "brisk", "calm", "chilly", "clear", "cool", "crisp", "deep",
    "eager", "fair", "firm", "fresh", "frosty", "frozen", "gentle", "glacial", "hardy", "icy", "keen",
    "kind", "lively", "lucid", "mellow", "mild", "nimble", "noble", "patient", "polar", "proud", "quick",
    "quiet", "rapid", "ready", "serene", "sharp", "silent", "sleek", "smooth", "snowy", "solid", "stable",
    "steady", "still", "sturdy", "subtle", "swift", "tidy", "tranquil", "trusty", "vivid", "warm", "wintry",
    "wise", "witty", "zesty",
];

/// People of cold physics and of computing.
static PEOPLE: &[&str] = &[
    "amundsen",
    "babbage",
    "bardeen",
    "bose",
    "boyle",
    "cailletet",
    "carnot",
    "celsius",
    "charles",
    "clausius",
    "curie",
    "dewar",
    "dijkstra",
    "einstein",
    "fahrenheit",
    "faraday",
    "franklin",
    "galileo",
    "gibbs",
    "hamilton",
    "helmholtz",
    "hopper",
    "joule",
    "kapitsa",
    "kelvin",
    "knuth",
    "lamarr",
    "landau",
    "leavitt",
    "linde",
    "liskov",
    "lovelace",
    "maxwell",
    "meitner",
    "mendeleev",
    "nansen",
    "nernst",
    "newton",
    "noether",
    "olszewski",
    "onnes",
    "pascal",
    "perlman",
    "pictet",
    "planck",
    "ramanujan",
    "ritchie",
    "rutherford",
    "shackleton",
    "shannon",
    "thompson",
    "torvalds",
    "turing",
    "volta",
    "wilson",
    "wozniak",
    "wroblewski",
    "yalow",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_climb_out_of_a_directory() {
        for bad in ["", "a", "..", ".x", "a/b", "../x", "a\0b", "-rf", "a b", "ä1", "/"] {
            assert!(!is_name(bad), "{bad:?}");
        }
        for good in ["ab", "a.b", "A-1_x", "0x"] {
            assert!(is_name(good), "{good:?}");
        }
    }

    #[test]
    fn a_checkpoint_id_is_no_path_and_no_half_made_one() {
        for bad in ["..", "a/b", "cp1.", "x.partial", "../../etc", "a"] {
            assert!(CheckpointId::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(CheckpointId::parse("cp1").unwrap().as_str(), "cp1");
    }

    #[test]
    fn ids_are_64_hex_digits_and_generated_names_are_names() {
        let id = new_id().unwrap();
        assert!(is_id(&id), "{id}");
        for _ in 0..50 {
            let name = generate().unwrap();
            assert!(is_name(&name), "{name}");
        }
    }
}
