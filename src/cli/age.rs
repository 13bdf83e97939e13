//! Archives for nobody else's eyes, in age's format, version 1: what dewar writes `age` reads, and the other way round.
//!
//! ```text
//!  age-encryption.org/v1
//!  -> X25519 SHARE          a stanza per recipient: the file's key, under the recipient's
//!  WRAPPED
//!  --- MAC                  of all that is above, by the file's key
//!  nonce, chunks            64 KiB each with a tag; the last one says so
//! ```
//!
//! Keys never leave the client: it encrypts what the daemon sends, and decrypts what it sends to the daemon, as it
//! comes and in constant memory. A chunk is given away only when its tag is right; a stream that ends before its last
//! chunk is an error, never a shorter one.
//!
//! Not here: armour, SSH keys, plugins; they are refused by name. Where keys come from: [`keys`].
//! Source: the C2SP specification of age.

mod bech32;
pub mod keys;

use std::io::{self, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{hkdf, hmac};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

/// How a file begins.
pub const INTRO: &[u8] = b"age-encryption.org/v1\n";
/// How an armoured one does.
const ARMOR: &[u8] = b"-----BEGIN AGE";
const X25519_INFO: &[u8] = b"age-encryption.org/v1/X25519";
const SCRYPT_SALT: &[u8] = b"age-encryption.org/v1/scrypt";
/// Columns of a stanza's body.
const COLUMNS: usize = 64;
const FILE_KEY_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const CHUNK_BYTES: usize = 64 << 10;
/// As age has it: a second, and 256 MiB of memory.
const WORK: u8 = 18;
/// A gibibyte of memory; more is asked for by nobody who means well.
const MOST_WORK: u8 = 20;
/// Longest header that is read: some ten thousand recipients.
const MOST_HEADER: usize = 2 << 20;

/// Who will be able to read what is encrypted.
pub enum Recipients {
    /// Public keys of X25519, one at least.
    Keys(Vec<[u8; 32]>),
    Passphrase(String),
}

/// With what it is decrypted.
pub enum Identity {
    /// A secret key of X25519.
    Key([u8; 32]),
    Passphrase(String),
}

fn damaged(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the encrypted file is damaged: {what}"))
}

fn refused(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.into())
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the kernel gives no random numbers"))?;
    Ok(bytes)
}

fn derive(secret: &[u8], salt: &[u8], info: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    let info = [info];
    let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    derived
        .expand(&info, hkdf::HKDF_SHA256)
        .and_then(|output| output.fill(&mut key))
        .expect("32 bytes are as many as SHA-256 has");
    key
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key is 32 bytes long"))
}

fn nonce() -> Nonce {
    // Each wrapping key is used once.
    Nonce::assume_unique_for_key([0; 12])
}

/// A file's key under another's.
fn wrap(key: &[u8; 32], file_key: &[u8; FILE_KEY_BYTES]) -> io::Result<Vec<u8>> {
    let mut body = file_key.to_vec();
    let sealed = cipher(key).seal_in_place_append_tag(nonce(), Aad::empty(), &mut body);
    sealed.map_err(|_| io::Error::other("encrypt the key of a file")).map(|()| body)
}

/// The other way round; `None` where it is another's.
fn unwrap(key: &[u8; 32], body: &[u8]) -> Option<[u8; FILE_KEY_BYTES]> {
    let mut body = body.to_vec();
    cipher(key)
        .open_in_place(nonce(), Aad::empty(), &mut body)
        .ok()
        .and_then(|plain| (&*plain).try_into().ok())
}

/// The key that wraps a file's for `theirs`, whose secret or whose recipient's share `ours` belongs to.
fn shared(secret: [u8; 32], peer: [u8; 32], share: &[u8; 32], recipient: &[u8; 32]) -> Option<[u8; 32]> {
    let shared = x25519(secret, peer);
    // A point of small order: anybody would know it.
    (shared != [0; 32]).then(|| derive(&shared, &[*share, *recipient].concat(), X25519_INFO))
}

fn stretched(passphrase: &str, salt: &[u8], work: u8) -> io::Result<[u8; 32]> {
    let mut key = [0; 32];
    let params = scrypt::Params::new(work, 8, 1).map_err(|cause| refused(cause.to_string()))?;
    scrypt::scrypt(passphrase.as_bytes(), &[SCRYPT_SALT, salt].concat(), &params, &mut key)
        .map_err(|cause| refused(cause.to_string()))?;
    Ok(key)
}

fn mac_key(file_key: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &derive(file_key, b"", b"header"))
}

fn stanza(words: &[&str], body: &[u8]) -> String {
    let text = BASE64.encode(body);
    let mut out = format!("-> {}\n", words.join(" "));
    let mut rest = text.as_str();
    while rest.len() >= COLUMNS {
        let (line, more) = rest.split_at(COLUMNS);
        out += &format!("{line}\n");
        rest = more;
    }
    // A line that is not full ends it, were it empty.
    out + rest + "\n"
}

/// Encrypts what it reads from another.
pub struct Encrypt<R> {
    source: R,
    /// Ready to be given away, from `given` on.
    ready: Vec<u8>,
    given: usize,
    /// Read, and not yet encrypted: a chunk and a byte at most, for only what follows tells whether it is the last.
    plain: Vec<u8>,
    chunks: Chunks,
    is_over: bool,
}

impl<R: Read> Encrypt<R> {
    /// Writes the header. A passphrase costs a second and 256 MiB.
    ///
    /// # Errors
    /// A recipient's key is none.
    pub fn new(source: R, recipients: &Recipients) -> io::Result<Encrypt<R>> {
        let file_key: [u8; FILE_KEY_BYTES] = random()?;
        let mut header = String::from_utf8_lossy(INTRO).into_owned();
        match recipients {
            Recipients::Keys(keys) => {
                for recipient in keys {
                    let secret: [u8; 32] = random()?;
                    let share = x25519(secret, X25519_BASEPOINT_BYTES);
                    let key = shared(secret, *recipient, &share, recipient)
                        .ok_or_else(|| refused("a recipient's key is no key"))?;
                    header += &stanza(&["X25519", &BASE64.encode(share)], &wrap(&key, &file_key)?);
                }
            }
            Recipients::Passphrase(passphrase) => {
                let salt: [u8; 16] = random()?;
                let key = stretched(passphrase, &salt, WORK)?;
                let words = ["scrypt", &BASE64.encode(salt), &WORK.to_string()];
                header += &stanza(&words, &wrap(&key, &file_key)?);
            }
        }
        header += "---";
        let tag = hmac::sign(&mac_key(&file_key), header.as_bytes());
        let mut ready = format!("{header} {}\n", BASE64.encode(tag)).into_bytes();
        let salt: [u8; 16] = random()?;
        ready.extend_from_slice(&salt);
        let chunks = Chunks::new(&file_key, &salt);
        Ok(Encrypt { source, ready, given: 0, plain: Vec::new(), chunks, is_over: false })
    }
}

impl<R: Read> Read for Encrypt<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.given == self.ready.len() && !self.is_over {
            let wanted = (CHUNK_BYTES + 1).saturating_sub(self.plain.len());
            (&mut self.source).take(wanted as u64).read_to_end(&mut self.plain)?;
            self.is_over = self.plain.len() <= CHUNK_BYTES;
            let rest = self.plain.split_off(self.plain.len().min(CHUNK_BYTES));
            self.ready = std::mem::replace(&mut self.plain, rest);
            self.given = 0;
            let nonce = self.chunks.next(self.is_over)?;
            let sealed = self.chunks.cipher.seal_in_place_append_tag(nonce, Aad::empty(), &mut self.ready);
            sealed.map_err(|_| io::Error::other("encrypt a chunk"))?;
        }
        give(&self.ready, &mut self.given, into)
    }
}

fn give(ready: &[u8], given: &mut usize, into: &mut [u8]) -> io::Result<usize> {
    let count = into.len().min(ready.len() - *given);
    into[..count].copy_from_slice(&ready[*given..*given + count]);
    *given += count;
    Ok(count)
}

/// The key of a file's content, and which chunk is next.
struct Chunks {
    cipher: LessSafeKey,
    number: u64,
}

impl Chunks {
    fn new(file_key: &[u8], salt: &[u8]) -> Chunks {
        Chunks { cipher: cipher(&derive(file_key, salt, b"payload")), number: 0 }
    }

    fn next(&mut self, is_last: bool) -> io::Result<Nonce> {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&self.number.to_be_bytes());
        nonce[11] = u8::from(is_last);
        self.number = self.number.checked_add(1).ok_or_else(|| damaged("it has no end"))?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// Decrypts what it reads from another.
pub struct Decrypt<R> {
    source: R,
    ready: Vec<u8>,
    given: usize,
    /// Read, and not yet decrypted.
    sealed: Vec<u8>,
    chunks: Chunks,
    is_over: bool,
}

impl<R: Read> Decrypt<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// It is not encrypted, or for somebody else, or damaged.
    pub fn new(mut source: R, identities: &[Identity]) -> io::Result<Decrypt<R>> {
        let header = Header::read(&mut source)?;
        let file_key = header.open(identities)?;
        let mut salt = [0; 16];
        source.read_exact(&mut salt).map_err(cut_off)?;
        let chunks = Chunks::new(&file_key, &salt);
        Ok(Decrypt { source, ready: Vec::new(), given: 0, sealed: Vec::new(), chunks, is_over: false })
    }
}

fn cut_off(cause: io::Error) -> io::Error {
    if cause.kind() == io::ErrorKind::UnexpectedEof { damaged("it is cut off") } else { cause }
}

impl<R: Read> Read for Decrypt<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        const SEALED_BYTES: usize = CHUNK_BYTES + TAG_BYTES;
        while self.given == self.ready.len() && !self.is_over {
            let wanted = (SEALED_BYTES + 1).saturating_sub(self.sealed.len());
            (&mut self.source).take(wanted as u64).read_to_end(&mut self.sealed)?;
            let is_last = self.sealed.len() <= SEALED_BYTES;
            let rest = self.sealed.split_off(self.sealed.len().min(SEALED_BYTES));
            self.ready = std::mem::replace(&mut self.sealed, rest);
            self.given = 0;
            let is_first = self.chunks.number == 0;
            let nonce = self.chunks.next(is_last)?;
            let open = self.chunks.cipher.open_in_place(nonce, Aad::empty(), &mut self.ready);
            let Ok(bytes) = open.map(|plain| plain.len()) else {
                self.ready.clear();
                let what = if is_last { "it is cut off, or was changed" } else { "it was changed" };
                return Err(damaged(what));
            };
            if is_last && bytes == 0 && !is_first {
                return Err(damaged("it ends twice"));
            }
            self.ready.truncate(bytes);
            self.is_over = is_last;
        }
        give(&self.ready, &mut self.given, into)
    }
}

struct Stanza {
    words: Vec<String>,
    body: Vec<u8>,
}

/// What a file says of itself.
struct Header {
    stanzas: Vec<Stanza>,
    /// What the MAC is of.
    signed: Vec<u8>,
    mac: Vec<u8>,
}

impl Header {
    fn read(source: &mut impl Read) -> io::Result<Header> {
        let mut signed = Vec::new();
        let mut line = Vec::new();
        next_line(source, INTRO.len(), &mut line)?;
        if line.starts_with(ARMOR) {
            return Err(refused("it is armoured: age --decrypt reads it, and writes what import reads"));
        }
        if line != INTRO {
            return Err(refused("it is not encrypted, or not by age's format, version 1"));
        }
        signed.extend_from_slice(&line);
        let mut stanzas: Vec<Stanza> = Vec::new();
        let mut is_open = false;
        loop {
            let left = MOST_HEADER.saturating_sub(signed.len());
            next_line(source, left, &mut line)?;
            let text = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
            let text = text.ok_or_else(|| damaged("its header is too long, or cut off"))?;
            if is_open {
                let bytes = BASE64.decode(text).ok().filter(|_| text.len() <= COLUMNS);
                let bytes = bytes.ok_or_else(|| damaged("its header is not base64"))?;
                stanzas.iter_mut().next_back().into_iter().for_each(|last| last.body.extend(&bytes));
                is_open = text.len() == COLUMNS;
            } else if let Some(words) = text.strip_prefix("-> ") {
                let words = words.split(' ').map(str::to_owned).collect();
                stanzas.push(Stanza { words, body: Vec::new() });
                is_open = true;
            } else if let Some(mac) = text.strip_prefix("--- ") {
                signed.extend_from_slice(b"---");
                let mac = BASE64.decode(mac).map_err(|_| damaged("its header is not base64"))?;
                return Ok(Header { stanzas, signed, mac });
            } else {
                return Err(damaged("its header is none of age's"));
            }
            signed.extend_from_slice(&line);
        }
    }

    /// The file's key.
    fn open(&self, identities: &[Identity]) -> io::Result<[u8; FILE_KEY_BYTES]> {
        let is_by_passphrase = self.stanzas.iter().any(|stanza| stanza.words[0] == "scrypt");
        if is_by_passphrase && self.stanzas.len() > 1 {
            return Err(damaged("it has a passphrase and another recipient"));
        }
        for identity in identities {
            for stanza in &self.stanzas {
                let Some(key) = stanza.open(identity)? else { continue };
                return match hmac::verify(&mac_key(&key), &self.signed, &self.mac) {
                    Ok(()) => Ok(key),
                    Err(_) => Err(damaged("its header was changed")),
                };
            }
        }
        let has_passphrase = identities.iter().any(|identity| matches!(identity, Identity::Passphrase(_)));
        Err(refused(match (is_by_passphrase, has_passphrase) {
            (true, true) => "the passphrase is wrong",
            (true, false) => "it is encrypted with a passphrase: --passphrase or --passphrase-file opens it",
            (false, true) => "it is encrypted for a key, not with a passphrase: --identity opens it",
            (false, false) => "it is encrypted for somebody else: none of the identities opens it",
        }))
    }
}

impl Stanza {
    /// The file's key, if it is for this one.
    fn open(&self, identity: &Identity) -> io::Result<Option<[u8; FILE_KEY_BYTES]>> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        match (identity, words.as_slice()) {
            (Identity::Key(secret), ["X25519", share]) => {
                let share = BASE64.decode(share).ok().and_then(|share| <[u8; 32]>::try_from(share).ok());
                let share = share.ok_or_else(|| damaged("a share in its header is none"))?;
                let recipient = x25519(*secret, X25519_BASEPOINT_BYTES);
                let key = shared(*secret, share, &share, &recipient);
                let key = key.ok_or_else(|| damaged("a share in its header is none"))?;
                Ok(unwrap(&key, &self.body))
            }
            (Identity::Passphrase(passphrase), ["scrypt", salt, work]) => {
                let salt = BASE64.decode(salt).ok().filter(|salt| salt.len() == 16);
                let salt = salt.ok_or_else(|| damaged("the salt in its header is none"))?;
                let work = work.parse::<u8>().ok().filter(|work| *work > 0);
                let work = work.ok_or_else(|| damaged("the work factor in its header is none"))?;
                if work > MOST_WORK {
                    let text = format!(
                        "its work factor {work} would take more than a gibibyte ({MOST_WORK} is the most)"
                    );
                    return Err(refused(text));
                }
                Ok(unwrap(&stretched(passphrase, &salt, work)?, &self.body))
            }
            _ => Ok(None),
        }
    }
}

/// Reads up to and with the next line feed, `most` bytes at most, and nothing of what follows.
fn next_line(source: &mut impl Read, most: usize, line: &mut Vec<u8>) -> io::Result<()> {
    line.clear();
    let mut byte = [0];
    while line.len() < most && line.last() != Some(&b'\n') {
        match source.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => line.push(byte[0]),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> ([u8; 32], [u8; 32]) {
        let secret = random().unwrap();
        (secret, x25519(secret, X25519_BASEPOINT_BYTES))
    }

    fn encrypted(plain: &[u8], recipients: &Recipients) -> Vec<u8> {
        let mut out = Vec::new();
        Encrypt::new(plain, recipients).unwrap().read_to_end(&mut out).unwrap();
        out
    }

    fn decrypted(sealed: &[u8], identity: Identity) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        let mut reader = Decrypt::new(sealed, &[identity]).map_err(|cause| cause.to_string())?;
        reader.read_to_end(&mut out).map_err(|cause| cause.to_string())?;
        Ok(out)
    }

    #[test]
    fn what_is_encrypted_is_decrypted_at_every_edge_of_a_chunk() {
        let (secret, public) = pair();
        for bytes in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let plain: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
            let sealed = encrypted(&plain, &Recipients::Keys(vec![pair().1, public]));
            assert!(decrypted(&sealed, Identity::Key(secret)).unwrap() == plain, "{bytes}");
        }
    }

    #[test]
    fn every_changed_byte_and_every_end_too_early_is_seen() {
        let (secret, public) = pair();
        let plain = vec![7; CHUNK_BYTES + 100];
        let sealed = encrypted(&plain, &Recipients::Keys(vec![public]));
        let body = sealed.len() - plain.len() - 2 * TAG_BYTES;
        for at in (0..body).chain([body + 5, body + CHUNK_BYTES + 3, sealed.len() - 1]) {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(decrypted(&changed, Identity::Key(secret)).is_err(), "byte {at}");
        }
        for length in (0..=body).chain([body + CHUNK_BYTES + TAG_BYTES, sealed.len() - 1]) {
            assert!(decrypted(&sealed[..length], Identity::Key(secret)).is_err(), "{length} bytes");
        }
        let whole = [&sealed[..], b"more"].concat();
        assert!(decrypted(&whole, Identity::Key(secret)).unwrap_err().contains("changed"));
    }

    #[test]
    fn nobody_else_reads_it() {
        let (_, public) = pair();
        let sealed = encrypted(b"secret", &Recipients::Keys(vec![public]));
        let why = |identity| decrypted(&sealed, identity).unwrap_err();
        assert!(why(Identity::Key(pair().0)).contains("for somebody else"));
        assert!(why(Identity::Passphrase("x".into())).contains("--identity opens it"));
        assert!(decrypted(b"a tar", Identity::Key([1; 32])).unwrap_err().contains("not encrypted"));
        let armored = b"-----BEGIN AGE ENCRYPTED FILE-----\n";
        assert!(decrypted(armored, Identity::Key([1; 32])).unwrap_err().contains("armoured"));
    }

    #[test]
    fn a_passphrase_opens_it_and_no_work_is_too_much() {
        let sealed = encrypted(b"secret", &Recipients::Passphrase("good".into()));
        let why = |phrase: &str| decrypted(&sealed, Identity::Passphrase(phrase.into()));
        assert_eq!(why("good").unwrap(), b"secret");
        assert!(why("bad").unwrap_err().contains("passphrase is wrong"));
        assert!(decrypted(&sealed, Identity::Key([1; 32])).unwrap_err().contains("with a passphrase"));
        let text = String::from_utf8_lossy(&sealed).into_owned();
        let hostile = text.replacen(" 18\n", " 30\n", 1);
        let why = decrypted(hostile.as_bytes(), Identity::Passphrase("good".into())).unwrap_err();
        assert!(why.contains("work factor 30"), "{why}");
    }
}
