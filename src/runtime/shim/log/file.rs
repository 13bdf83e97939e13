//! A log file that is set aside when it has grown to its limit.
//!
//! A full disk must not stop the container: what cannot be written is lost, and writing is tried again with
//! the next entry. An entry cut short is completed first, so that none is torn. What a power cut tore in the file
//! of an earlier run is made harmless when it is opened again: the next entry must not be lost with it.
//!
//! Source: moby `daemon/logger/loggerutils/logfile.go` for the rotation's order and limit.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::compress::{Names, Worker};
use super::entry::Frame;
use crate::runtime::{LogFile, LogFormat, LogMark};

/// Where entries go.
#[derive(Debug)]
pub struct RotatedFile {
    config: LogFile,
    names: Names,
    worker: Option<Worker>,
    file: Option<File>,
    size: u64,
    /// What a full disk kept from being written of an entry that was begun.
    torn: Vec<u8>,
}

impl RotatedFile {
    pub fn open(config: LogFile) -> io::Result<RotatedFile> {
        let mut file = open_append(&config.path)?;
        mend(&mut file, config.format)?;
        let size = file.metadata()?.len();
        let names = Names::new(&config.path, config.max_files);
        names.tidy();
        let worker = if config.compress { names.start() } else { None };
        Ok(RotatedFile { config, names, worker, file: Some(file), size, torn: Vec::new() })
    }

    /// Who compresses rotated files at the moment.
    pub fn worker(&self) -> Option<&Worker> {
        self.worker.as_ref()
    }

    /// The worker has ended: there may have been a rotation since it last looked. One that failed is not tried
    /// again before the next.
    pub fn worker_ended(&mut self) {
        let has_done_its_work = self.worker.take().is_some_and(|mut worker| worker.has_succeeded());
        if has_done_its_work {
            self.worker = self.names.start();
        }
    }

    /// Where the next entry will be written; `None` when the file cannot be looked at.
    pub fn mark(&self) -> Option<LogMark> {
        let inode = self.file.as_ref()?.metadata().ok()?.ino();
        Some(LogMark { inode, bytes: self.size })
    }

    /// Appends whole entries; `ends` says where each ends. Failure loses them.
    pub fn append(&mut self, entries: &[u8], ends: &[usize]) {
        if self.config.max_size_bytes.is_some_and(|max| self.size >= max) && self.torn.is_empty() {
            self.rotate();
        }
        if self.file.is_none() {
            self.file = open_append(&self.config.path).ok();
        }
        let Some(file) = &mut self.file else { return };
        while !self.torn.is_empty() {
            match file.write(&self.torn) {
                Ok(written) if written > 0 => {
                    self.torn.drain(..written);
                    self.size += written as u64;
                }
                _ => return,
            }
        }
        let mut at = 0;
        while at < entries.len() {
            match file.write(&entries[at..]) {
                Ok(written) if written > 0 => {
                    at += written;
                    self.size += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        let begun = at > 0 && at < entries.len() && !ends.contains(&at);
        if begun {
            let end = ends.iter().copied().find(|end| *end > at).unwrap_or(entries.len());
            self.torn = entries[at..end].to_vec();
        }
    }

    /// Whether the file has reached its size once `bytes` more are in it.
    pub fn is_full_with(&self, bytes: usize) -> bool {
        bytes > 0 && self.config.max_size_bytes.is_some_and(|max| self.size + bytes as u64 >= max)
    }

    fn rotate(&mut self) {
        self.file = None;
        self.size = 0;
        self.names.rotate();
        if self.config.compress && self.worker.is_none() {
            self.worker = self.names.start();
        }
    }
}

impl Drop for RotatedFile {
    fn drop(&mut self) {
        if self.worker.take().is_some() {
            self.names.remove_scratch();
        }
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    // 0640: readable by the log's group, as Docker's.
    OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)
}

/// Makes what an unfinished write left at the end harmless: a line is ended, a message is cut off.
fn mend(file: &mut File, format: LogFormat) -> io::Result<()> {
    let length = file.seek(SeekFrom::End(0))?;
    if length == 0 {
        return Ok(());
    }
    match format {
        LogFormat::Json => {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        LogFormat::Local if ends_whole(file, length)? => {}
        LogFormat::Local => {
            let whole = whole_messages(file, length)?;
            file.set_len(whole)?;
        }
    }
    Ok(())
}

/// Whether the two lengths of the last message of a `local` file agree.
fn ends_whole(file: &mut File, length: u64) -> io::Result<bool> {
    let Some(after) = length.checked_sub(4) else { return Ok(false) };
    let mut number = [0; 4];
    file.seek(SeekFrom::Start(after))?;
    file.read_exact(&mut number)?;
    let Some(before) = after.checked_sub(u64::from(u32::from_be_bytes(number)) + 4) else {
        return Ok(false);
    };
    let mut first = [0; 4];
    file.seek(SeekFrom::Start(before))?;
    file.read_exact(&mut first)?;
    Ok(first == number && number != [0; 4])
}

/// How much of a `local` file, from its beginning, is whole messages.
fn whole_messages(file: &mut File, length: u64) -> io::Result<u64> {
    let mut at = 0;
    // Only the lengths and the first field are looked at: most of the file is not read.
    loop {
        let mut head = Vec::with_capacity(6);
        file.seek(SeekFrom::Start(at))?;
        Read::take(&mut *file, 6).read_to_end(&mut head)?;
        let Frame::Short(more) = Frame::at(&head) else { return Ok(at) };
        let end = at + (head.len() + more) as u64;
        if head.len() < 6 || end > length {
            return Ok(at);
        }
        let mut after = [0; 4];
        file.seek(SeekFrom::Start(end - 4))?;
        file.read_exact(&mut after)?;
        if after[..] != head[..4] {
            return Ok(at);
        }
        at = end;
    }
}
