//! Where recipients, identities and passphrases come from: words, files, the terminal.

use std::fs;
use std::io::{self, Read, Write};

use super::{Decrypt, Encrypt, INTRO, Identity, Recipients, bech32};
use crate::cli::command::{Flag, Matches};
use crate::cli::error::Error;
use crate::cli::login;
use crate::cli::terminal::is_typed;

/// A file of keys is no larger.
const MOST_BYTES: u64 = 1 << 20;

pub static RECIPIENT: Flag =
    Flag::many("recipient", "KEY", "Encrypt for this public key of age (repeatable)");
pub static RECIPIENTS_FILE: Flag = Flag::many(
    "recipients-file",
    "FILE",
    "Encrypt for the public keys in this file, one a line (repeatable)",
);
pub static IDENTITY: Flag =
    Flag::many("identity", "FILE", "Decrypt with the secret keys of age in this file (repeatable)");
pub static PASSPHRASE: Flag =
    Flag::switch("passphrase", "Encrypt or decrypt with a passphrase, which is asked for");
pub static PASSPHRASE_FILE: Flag = Flag::value(
    "passphrase-file",
    "FILE",
    "Encrypt or decrypt with the passphrase in the first line of this file",
);

/// For whom an archive is to be; what was said, and not yet read.
pub struct For {
    keys: Vec<String>,
    files: Vec<String>,
    phrase: Phrase,
}

/// What is to open one.
pub struct By {
    files: Vec<String>,
    phrase: Phrase,
}

enum Phrase {
    None,
    Asked,
    File(String),
}

impl Phrase {
    fn of(matches: &Matches) -> Result<Phrase, Error> {
        match (matches.is(&PASSPHRASE), matches.get(&PASSPHRASE_FILE)) {
            (true, Some(_)) => {
                Err(Error::Local("--passphrase and --passphrase-file exclude one another".to_owned()))
            }
            (true, None) => Ok(Phrase::Asked),
            (false, Some(path)) => Ok(Phrase::File(path.to_owned())),
            (false, None) => Ok(Phrase::None),
        }
    }

    fn read(&self, is_new: bool) -> Result<Option<String>, Error> {
        let phrase = match self {
            Phrase::None => return Ok(None),
            Phrase::File(path) => text_of(path)?.lines().next().unwrap_or_default().to_owned(),
            Phrase::Asked => {
                if !is_typed() {
                    let text =
                        "no terminal to ask for the passphrase: --passphrase-file reads it from a file";
                    return Err(Error::Local(text.to_owned()));
                }
                let phrase = ask("Passphrase: ")?;
                if is_new && ask("Again: ")? != phrase {
                    return Err(Error::Local("the passphrases differ".to_owned()));
                }
                phrase
            }
        };
        match phrase.is_empty() {
            true => Err(Error::Local("the passphrase is empty".to_owned())),
            false => Ok(Some(phrase)),
        }
    }
}

fn ask(prompt: &str) -> Result<String, Error> {
    // Not on standard output, where the archive may go.
    let show = |text: &str| io::stderr().write_all(text.as_bytes());
    login::ask_hidden(prompt, show)?.ok_or_else(|| Error::Local("no passphrase was given".to_owned()))
}

impl For {
    /// Reads the flags; `None` if it is for everybody.
    pub fn of(matches: &Matches) -> Result<Option<For>, Error> {
        let wish = For {
            keys: matches.list(&RECIPIENT).to_vec(),
            files: matches.list(&RECIPIENTS_FILE).to_vec(),
            phrase: Phrase::of(matches)?,
        };
        for key in &wish.keys {
            recipient(key).map_err(|why| Error::Local(format!("--recipient {key}: {why}")))?;
        }
        let has_keys = !wish.keys.is_empty() || !wish.files.is_empty();
        match (has_keys, &wish.phrase) {
            (false, Phrase::None) => Ok(None),
            (true, Phrase::Asked | Phrase::File(_)) => {
                let text = "a passphrase and recipients exclude one another: age knows no file with both";
                Err(Error::Local(text.to_owned()))
            }
            _ => Ok(Some(wish)),
        }
    }

    /// Reads the files, asks for the passphrase.
    pub fn recipients(&self) -> Result<Recipients, Error> {
        if let Some(phrase) = self.phrase.read(true)? {
            return Ok(Recipients::Passphrase(phrase));
        }
        let mut keys = Vec::new();
        for key in &self.keys {
            keys.push(recipient(key).map_err(|why| Error::Local(format!("--recipient {key}: {why}")))?);
        }
        for path in &self.files {
            for (number, line) in lines(&text_of(path)?) {
                let key = recipient(line);
                keys.push(key.map_err(|why| Error::Local(format!("read {path}, line {number}: {why}")))?);
            }
        }
        match keys.is_empty() {
            true => Err(Error::Local("the files of recipients name none".to_owned())),
            false => Ok(Recipients::Keys(keys)),
        }
    }
}

/// `source`, encrypted if there are recipients.
pub fn encrypted(
    source: Box<dyn Read + Send>,
    recipients: Option<&Recipients>,
) -> Result<Box<dyn Read + Send>, Error> {
    let Some(recipients) = recipients else { return Ok(source) };
    let encrypt =
        Encrypt::new(source, recipients).map_err(|cause| Error::local("encrypt the archive", cause))?;
    Ok(Box::new(encrypt))
}

impl By {
    /// Reads the flags.
    pub fn of(matches: &Matches) -> Result<By, Error> {
        Ok(By { files: matches.list(&IDENTITY).to_vec(), phrase: Phrase::of(matches)? })
    }

    /// `source`, called `name`, decrypted if it is to be.
    ///
    /// # Errors
    /// It is encrypted and nothing opens it, or the other way round.
    pub fn decrypted(
        &self,
        mut source: Box<dyn Read + Send>,
        name: &str,
    ) -> Result<Box<dyn Read + Send>, Error> {
        let failed = |cause: io::Error| Error::local(format!("decrypt {name}"), cause);
        let identities = self.identities()?;
        if !identities.is_empty() {
            return Ok(Box::new(Decrypt::new(source, &identities).map_err(failed)?));
        }
        let mut start = Vec::new();
        (&mut source)
            .take(INTRO.len() as u64)
            .read_to_end(&mut start)
            .map_err(|cause| Error::local(format!("read {name}"), cause))?;
        if start == INTRO {
            let text = "it is encrypted: --identity, --passphrase or --passphrase-file opens it";
            return Err(Error::local(format!("decrypt {name}"), text));
        }
        Ok(Box::new(io::Cursor::new(start).chain(source)))
    }

    fn identities(&self) -> Result<Vec<Identity>, Error> {
        let mut identities = Vec::new();
        for path in &self.files {
            let before = identities.len();
            for (number, line) in lines(&text_of(path)?) {
                let key = identity(line);
                let key = key.map_err(|why| Error::Local(format!("read {path}, line {number}: {why}")))?;
                identities.push(Identity::Key(key));
            }
            if identities.len() == before {
                return Err(Error::Local(format!("read {path}: there is no identity in it")));
            }
        }
        identities.extend(self.phrase.read(false)?.map(Identity::Passphrase));
        Ok(identities)
    }
}

fn text_of(path: &str) -> Result<String, Error> {
    let failed = |cause: io::Error| Error::open(path, &cause);
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(failed)?.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    let text = String::from_utf8(bytes).ok().filter(|text| text.len() as u64 <= MOST_BYTES);
    let text = text.ok_or_else(|| Error::Local(format!("read {path}: it is no file of keys")))?;
    match text.as_bytes().starts_with(INTRO) {
        true => Err(Error::Local(format!("read {path}: it is encrypted itself: age --decrypt opens it"))),
        false => Ok(text),
    }
}

/// Lines that say something, and their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn recipient(text: &str) -> Result<[u8; 32], &'static str> {
    if text.starts_with("ssh-") {
        return Err("keys of SSH are not supported: age-keygen makes one that is");
    }
    if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
        return Err("it is a secret key: give the public one, which begins with age1");
    }
    key(text, "age").ok_or("it is no public key of age, which begins with age1")
}

fn identity(text: &str) -> Result<[u8; 32], &'static str> {
    match text {
        _ if text.starts_with("-----BEGIN") => {
            Err("keys of SSH are not supported: age-keygen makes one that is")
        }
        _ if text.starts_with("AGE-PLUGIN-") => Err("plugins of age are not supported"),
        _ => key(text, "age-secret-key-")
            .ok_or("it is no secret key of age, which begins with AGE-SECRET-KEY-1"),
    }
}

fn key(text: &str, word: &str) -> Option<[u8; 32]> {
    let (found, bytes) = bech32::decode(text)?;
    bytes.try_into().ok().filter(|_| found == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;

    const PUBLIC: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";
    const SECRET: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

    #[test]
    fn keys_are_what_they_are_said_to_be() {
        assert!(recipient(PUBLIC).is_ok() && identity(SECRET).is_ok());
        assert!(recipient(SECRET).unwrap_err().contains("secret"));
        assert!(recipient("ssh-ed25519 AAAA").unwrap_err().contains("SSH"));
        assert!(recipient("age1x").is_err() && identity(PUBLIC).is_err());
        assert!(identity("AGE-PLUGIN-YUBIKEY-1X").unwrap_err().contains("plugins"));
        assert_eq!(lines("# a\n\nb \n").collect::<Vec<_>>(), [(3, "b")]);
    }

    #[test]
    fn flags_that_do_not_go_together_are_refused() {
        let said = |line: &str| For::of(&matches_of(line));
        assert!(said("checkpoint export web cp1").unwrap().is_none());
        assert!(said(&format!("checkpoint export --recipient {PUBLIC} web cp1")).unwrap().is_some());
        assert!(said("checkpoint export --recipient age1x web cp1").is_err());
        assert!(said(&format!("checkpoint export --passphrase --recipient {PUBLIC} web cp1")).is_err());
        assert!(said("checkpoint export --passphrase --passphrase-file f web cp1").is_err());
    }
}
