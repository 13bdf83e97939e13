//! A container's logs on their way: the one that is written, and those that were put aside.
//!
//! They are sent while the container runs, and when it stands still what it has said since. If one was put aside
//! meanwhile, and so all have other names, they are sent once more.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::account::Account;
use super::send::Line;
use super::wire::{Item, Message};
use crate::daemon::containers::container::Container;
use crate::daemon::containers::logs::drivers;
use crate::daemon::error::{Error, Result};

/// Digits of the number of one that was put aside.
const MOST_DIGITS: usize = 6;

/// Where a container's log is; `None` for one that is kept elsewhere, or nowhere.
pub fn place(container: &Container) -> Option<PathBuf> {
    let record = container.record();
    drivers::place(container, &record.host_config.log_config).map(|(path, _)| path)
}

/// Whether a name is a log's with this behind it: `.N` or `.N.gz`.
pub fn is_suffix(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('.') else { return false };
    let number = rest.strip_suffix(".gz").unwrap_or(rest);
    (1..=MOST_DIGITS).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// The path of one that was put aside.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// What is put aside beside a log, by suffix.
fn aside(path: &Path) -> Vec<String> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let entries = path.parent().map(fs::read_dir).into_iter().flatten().flatten().flatten();
    let suffixes = entries.filter_map(|entry| {
        let suffix = entry.file_name().to_str()?.strip_prefix(name)?.to_owned();
        is_suffix(&suffix).then_some(suffix)
    });
    let mut found: Vec<String> = suffixes.collect();
    found.sort();
    found
}

/// Removes all there is of a log.
pub fn remove(path: &Path) -> Result<()> {
    for path in aside(path).iter().map(|suffix| beside(path, suffix)).chain([path.to_owned()]) {
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::system(format!("remove {path:?}"), cause));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The container's logs, sent as far as they are there.
pub struct LogSender {
    path: Option<PathBuf>,
    file: Option<File>,
    sent: u64,
}

impl LogSender {
    pub fn open(container: &Container) -> LogSender {
        let path = place(container);
        LogSender { file: path.as_ref().and_then(|path| File::open(path).ok()), path, sent: 0 }
    }

    /// Sends all there is, those that were put aside first.
    ///
    /// # Errors
    /// They cannot be read; the connection broke.
    pub fn send(&mut self, line: &Line, account: &mut Account<'_>) -> Result<()> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        for suffix in aside(&path) {
            // One that has another name by now is sent again at the end.
            let Ok(file) = File::open(beside(&path, &suffix)) else { continue };
            let mut so_far = 0;
            let mut sent = |bytes| account.sent(bytes, "log", None, &mut so_far);
            line.sender.file(Item::OldLog(suffix), file, &mut sent)?;
        }
        self.send_more(line, account)
    }

    /// Sends what has not been sent yet of the one that is written.
    fn send_more(&mut self, line: &Line, account: &mut Account<'_>) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let failed = |cause: std::io::Error| Error::system("read its log", cause);
        let length = file.metadata().map_err(failed)?.len();
        if length <= self.sent {
            return Ok(());
        }
        file.seek(SeekFrom::Start(self.sent)).map_err(failed)?;
        let mut so_far = 0;
        let mut sent = |bytes| account.sent(bytes, "log", None, &mut so_far);
        line.sender.file(Item::Log, file.take(length - self.sent), &mut sent)?;
        self.sent = length;
        Ok(())
    }

    /// Sends what has come since, of a container that stands still; all of it if names have changed.
    ///
    /// # Errors
    /// As [`send`](LogSender::send).
    pub fn send_rest(&mut self, line: &Line, account: &mut Account<'_>) -> Result<()> {
        let inode = |file: &File| file.metadata().map(|meta| meta.ino()).ok();
        let now = self.path.as_ref().and_then(|path| File::open(path).ok());
        if now.as_ref().and_then(inode) == self.file.as_ref().and_then(inode) {
            return self.send_more(line, account);
        }
        line.sender.tell(&Message::LogsAnew {})?;
        (self.file, self.sent) = (now, 0);
        self.send(line, account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_that_were_put_aside_are_known_by_their_names() {
        for suffix in [".1", ".12", ".3.gz"] {
            assert!(is_suffix(suffix), "{suffix}");
        }
        for suffix in ["", ".", ".gz", ".x", "1", ".1.gz.tmp", ".1/../x", ".1234567"] {
            assert!(!is_suffix(suffix), "{suffix}");
        }
    }
}
