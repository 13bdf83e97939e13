//! Memory that a dump left where it was: of a tree that stands frozen, or of images that it was written to later.
//!
//! A lazy dump writes everything but the pages that can be brought later: its pagemaps name those, and no
//! `pages-*.img` has them. They are read out of the frozen processes, or [`write_out`] puts them into the images, which
//! are then those of a dump that was not lazy.
//!
//! Source: CRIU's `images/pagemap.proto` and `criu/include/pagemap.h`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::images::{COMMON_MAGIC, failed, malformed, number, records};
use super::rewrite;
use super::rpc::{Fields, Malformed, Value, Writer};
use crate::runtime::{Cause, Error};

const PAGEMAP_MAGIC: u32 = 0x5608_4025;
/// `pagemap_entry.flags`.
const LAZY: u32 = 1 << 1;
const PRESENT: u32 = 1 << 2;
/// What the pages file that [`write_out`] makes has more in its number: the dump's own stays until its end.
const WRITTEN_OUT: u32 = 1 << 30;
const CHUNK_BYTES: usize = 1 << 20;

/// Pages of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// Of the first page, in the process.
    address: u64,
    pages: u64,
    flags: u32,
    /// Where they are in the pages file, if they are there.
    at: u64,
}

impl Entry {
    fn is_elsewhere(&self) -> bool {
        self.flags & (LAZY | PRESENT) == LAZY
    }

    fn bytes(&self) -> u64 {
        self.pages.saturating_mul(page_bytes())
    }
}

/// `pagemap-*.img`.
struct Pagemap {
    /// The number of the pages file.
    pages_id: u32,
    entries: Vec<Entry>,
}

/// A process of the container, by its number there.
struct Process {
    entries: Vec<Entry>,
    /// Of the frozen process.
    live: Option<File>,
    /// What the images have.
    written: Option<File>,
}

/// The lazy pages of a dump, from wherever they are.
pub struct Memory {
    processes: BTreeMap<u64, Process>,
}

/// The size of a page.
pub fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// The pagemaps of processes in a directory of images, by the process's number in the container.
fn pagemaps(images: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let list = |error: io::Error| failed(images, error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(images).map_err(list)? {
        let path = entry.map_err(list)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_prefix("pagemap-").and_then(|name| name.strip_suffix(".img"));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            found.push((number, path));
        }
    }
    Ok(found)
}

fn pagemap(path: &Path) -> Result<Pagemap, Error> {
    let records = records(path, [COMMON_MAGIC, PAGEMAP_MAGIC])?;
    decode(&records).map_err(|Malformed| malformed(path))
}

fn decode(records: &[Vec<u8>]) -> Result<Pagemap, Malformed> {
    let (head, records) = records.split_first().ok_or(Malformed)?;
    let mut map = Pagemap { pages_id: 0, entries: Vec::with_capacity(records.len()) };
    for field in Fields(head) {
        if let (1, value) = field? {
            map.pages_id = number(value);
        }
    }
    let mut at = 0_u64;
    for record in records {
        let (mut address, mut pages, mut flags, mut is_in_parent) = (0, 0, None, false);
        for field in Fields(record) {
            match field? {
                (1, value) => address = value.int(),
                // The wider one came later.
                (2 | 5, value @ Value::Int(1..)) => pages = value.int(),
                (3, value) => is_in_parent = value.int() != 0,
                (4, value) => flags = Some(number(value)),
                _ => {}
            }
        }
        let flags = flags.unwrap_or(if is_in_parent { 0 } else { PRESENT });
        let entry = Entry { address, pages, flags, at };
        // Nothing of it may lie beyond the end of all addresses.
        let bytes = pages.checked_mul(page_bytes()).ok_or(Malformed)?;
        address.checked_add(bytes).ok_or(Malformed)?;
        if flags & PRESENT != 0 {
            at = at.checked_add(bytes).ok_or(Malformed)?;
        }
        map.entries.push(entry);
    }
    Ok(map)
}

/// Whether all the memory that the images in `images` name is in them.
///
/// # Errors
/// They are damaged.
pub fn is_whole(images: &Path) -> Result<bool, Error> {
    for (_, path) in pagemaps(images)? {
        if pagemap(&path)?.entries.iter().any(Entry::is_elsewhere) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn pages_path(images: &Path, id: u32) -> PathBuf {
    images.join(format!("pages-{id}.img"))
}

/// The processes among `pids` by their numbers in their own pid namespace, each with its memory, to be read.
fn live(pids: &[i32]) -> BTreeMap<u64, File> {
    let inner = |pid: i32| -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        line.split_whitespace().last()?.parse().ok()
    };
    let open = |pid: &i32| Some((inner(*pid)?, File::open(format!("/proc/{pid}/mem")).ok()?));
    pids.iter().filter_map(open).collect()
}

impl Memory {
    /// Of the frozen processes `pids`, whose lazy dump is in `images`.
    ///
    /// # Errors
    /// The images are damaged, or are not of these processes.
    pub fn of_tree(images: &Path, pids: &[i32]) -> Result<Memory, Error> {
        let mut live = live(pids);
        let mut processes = BTreeMap::new();
        for (id, path) in pagemaps(images)? {
            let mut entries = pagemap(&path)?.entries;
            entries.retain(Entry::is_elsewhere);
            let live = match (live.remove(&id), entries.is_empty()) {
                (_, true) => continue,
                (None, false) => return Err(failed(&path, Cause::Refused("its process is gone".into()))),
                (live, false) => live,
            };
            processes.insert(id, Process { entries, live, written: None });
        }
        Ok(Memory { processes })
    }

    /// Of what [`write_out`] has written to `images`.
    ///
    /// # Errors
    /// They are damaged, or not whole.
    pub fn of_images(images: &Path) -> Result<Memory, Error> {
        let mut processes = BTreeMap::new();
        for (id, path) in pagemaps(images)? {
            let Pagemap { pages_id, mut entries } = pagemap(&path)?;
            if entries.iter().any(Entry::is_elsewhere) {
                return Err(failed(&path, Cause::Refused("its memory was not written".into())));
            }
            entries.retain(|entry| entry.flags & LAZY != 0);
            if !entries.is_empty() {
                let path = pages_path(images, pages_id);
                let file = File::open(&path).map_err(|error| failed(&path, error))?;
                processes.insert(id, Process { entries, live: None, written: Some(file) });
            }
        }
        Ok(Memory { processes })
    }

    /// Of all of it.
    pub fn bytes(&self) -> u64 {
        let entries = self.processes.values().flat_map(|process| &process.entries);
        entries.fold(0, |sum, entry| sum.saturating_add(entry.bytes()))
    }

    /// Reads `into.len()` bytes at `address` of a process; they are pages of one stretch of its memory.
    ///
    /// # Errors
    /// It has no such lazy pages, or is gone.
    pub fn read(&self, process: u64, address: u64, into: &mut [u8]) -> Result<(), Error> {
        let failed = |cause: Cause| Error {
            op: "read memory of".into(),
            object: format!("process {process} at {address:#x}"),
            cause,
        };
        let none = || failed(Cause::Refused("it is none that the dump left out".into()));
        let process = self.processes.get(&process).ok_or_else(none)?;
        let next = process.entries.partition_point(|entry| entry.address <= address);
        let entry = next.checked_sub(1).and_then(|at| process.entries.get(at)).ok_or_else(none)?;
        let within = address - entry.address;
        if within.saturating_add(into.len() as u64) > entry.bytes() {
            return Err(none());
        }
        let read = match (&process.live, &process.written) {
            (Some(live), _) => live.read_exact_at(into, address),
            (None, Some(written)) => written.read_exact_at(into, entry.at + within),
            (None, None) => Err(io::ErrorKind::NotFound.into()),
        };
        read.map_err(|error| failed(error.into()))
    }
}

/// Puts what a lazy dump left in the frozen processes `pids` into its images. Blocks for as long as that takes to
/// write. Cut off, it can be begun again.
///
/// # Errors
/// A process is gone; the disk is full.
pub fn write_out(images: &Path, pids: &[i32]) -> Result<(), Error> {
    let live = live(pids);
    for (id, path) in pagemaps(images)? {
        let map = pagemap(&path)?;
        if !map.entries.iter().any(Entry::is_elsewhere) {
            continue;
        }
        let live =
            live.get(&id).ok_or_else(|| failed(&path, Cause::Refused("its process is gone".into())))?;
        let (old, new) = (pages_path(images, map.pages_id), map.pages_id | WRITTEN_OUT);
        let target = pages_path(images, new);
        let write = || -> io::Result<()> {
            let written = File::open(&old)?;
            let mut options = File::options();
            let file = options.write(true).create(true).truncate(true).mode(0o600).open(&target)?;
            let mut out = BufWriter::with_capacity(0, file);
            let mut chunk = vec![0; CHUNK_BYTES];
            for entry in &map.entries {
                let (from, start) = match (entry.is_elsewhere(), entry.flags & PRESENT != 0) {
                    (true, _) => (live, entry.address),
                    (false, true) => (&written, entry.at),
                    (false, false) => continue,
                };
                let mut done = 0;
                while done < entry.bytes() {
                    let count = (entry.bytes() - done).min(CHUNK_BYTES as u64) as usize;
                    from.read_exact_at(&mut chunk[..count], start + done)?;
                    out.write_all(&chunk[..count])?;
                    done += count as u64;
                }
            }
            out.flush()
        };
        write().map_err(|error| failed(&target, error))?;
        let mut head = Writer::default();
        head.int(1, u64::from(new));
        let mut records = vec![head.bytes().to_vec()];
        let narrow = |pages: u64| u32::try_from(pages).is_ok();
        for entry in &map.entries {
            let mut record = Writer::default();
            let flags = if entry.is_elsewhere() { entry.flags | PRESENT } else { entry.flags };
            record.int(1, entry.address).int(2, if narrow(entry.pages) { entry.pages } else { 0 });
            record.int(4, u64::from(flags)).int(5, entry.pages);
            records.push(record.bytes().to_vec());
        }
        // The pagemap is what counts: until it is there the dump is as it was.
        let fresh = path.with_extension("new");
        rewrite::write(&fresh, PAGEMAP_MAGIC, &records)?;
        std::fs::rename(&fresh, &path).map_err(|error| failed(&path, error))?;
        std::fs::remove_file(&old).map_err(|error| failed(&old, error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dewar-memory-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// A pagemap of this process, by its number in its own namespace: `entries` are addresses, pages and flags.
    fn write_map(dir: &Path, entries: &[(u64, u64, u32)]) -> u64 {
        let own = *live(&[std::process::id() as i32]).keys().next().unwrap();
        let mut head = Writer::default();
        head.int(1, 1);
        let mut records = vec![head.bytes().to_vec()];
        for (number, (address, pages, flags)) in entries.iter().enumerate() {
            let mut record = Writer::default();
            // As older and newer releases do.
            let field = if number % 2 == 0 { 2 } else { 5 };
            record.int(1, *address).int(field, *pages).int(4, u64::from(*flags));
            records.push(record.bytes().to_vec());
        }
        rewrite::write(&dir.join(format!("pagemap-{own}.img")), PAGEMAP_MAGIC, &records).unwrap();
        own
    }

    #[test]
    fn what_was_left_out_is_read_where_it_is_and_written_to_its_place() {
        let dir = scratch("whole");
        let page = page_bytes() as usize;
        let buffer: Vec<u8> = (0..8 * page).map(|at| (at / 64 % 251) as u8).collect();
        let first = (buffer.as_ptr() as usize).next_multiple_of(page);
        let start = first - buffer.as_ptr() as usize;
        let address = first as u64;
        // Two that are in the pages file already, with others around them that are not.
        let entries = [
            (address, 3, LAZY),
            (address + 3 * page as u64, 2, PRESENT),
            (address + 5 * page as u64, 2, LAZY),
        ];
        let own = write_map(&dir, &entries);
        std::fs::write(dir.join("pages-1.img"), vec![7; 2 * page]).unwrap();
        let pids = [std::process::id() as i32];
        assert!(!is_whole(&dir).unwrap());
        assert!(Memory::of_images(&dir).is_err());
        let check = |memory: &Memory, bytes: usize| {
            assert_eq!(memory.bytes(), bytes as u64);
            for (from, pages) in [(0, 3), (1, 2), (5, 2), (6, 1)] {
                let mut read = vec![0; pages * page];
                memory.read(own, address + (from * page) as u64, &mut read).unwrap();
                assert!(read == buffer[start + from * page..start + (from + pages) * page], "{from}");
            }
            // What was not left out is nobody's who asks, nor is what lies beyond, or is another process's.
            for (process, from, pages) in [(own, 3, 1), (own, 2, 2), (own, 7, 1), (own + 1, 0, 1)] {
                let at = address + (from * page) as u64;
                assert!(memory.read(process, at, &mut vec![0; pages * page]).is_err(), "{from}");
            }
            assert!(memory.read(own, u64::MAX, &mut vec![0; page]).is_err());
        };
        check(&Memory::of_tree(&dir, &pids).unwrap(), 5 * page);
        assert!(Memory::of_tree(&dir, &[]).is_err(), "its process is gone");
        assert!(write_out(&dir, &[]).is_err(), "its process is gone");
        assert!(!is_whole(&dir).unwrap());
        write_out(&dir, &pids).unwrap();
        assert!(is_whole(&dir).unwrap());
        check(&Memory::of_images(&dir).unwrap(), 5 * page);
        let written = std::fs::read(pages_path(&dir, 1 | WRITTEN_OUT)).unwrap();
        assert_eq!(written.len(), 7 * page);
        assert!(written[3 * page..5 * page].iter().all(|byte| *byte == 7));
        assert!(!pages_path(&dir, 1).exists());
        // There is nothing left to do.
        write_out(&dir, &pids).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_map_that_makes_no_sense_is_refused() {
        let dir = scratch("strange");
        write_map(&dir, &[(u64::MAX - 8191, u64::from(u32::MAX), LAZY)]);
        assert!(is_whole(&dir).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
