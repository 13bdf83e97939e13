//! CRIU's image files, as far as dewar looks into them: the process tree with its credentials, the connections, and
//! what the dump took.
//!
//! An image is two magic numbers and then records, each a u32 length and a protobuf message; `pages-*.img` is raw.
//! Files come from disk and may be anybody's: lengths are checked, unknown fields are skipped.
//!
//! Source: CRIU's `images/*.proto` and `criu/include/magic.h`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::rpc::{Fields, Malformed, Value};
use crate::runtime::{Cause, Error};

pub(super) const COMMON_MAGIC: u32 = 0x5456_4319;
const SERVICE_MAGIC: u32 = 0x5510_5940;
pub(super) const PSTREE_MAGIC: u32 = 0x5027_3030;
pub(super) const CORE_MAGIC: u32 = 0x5505_3847;
pub(super) const FILES_MAGIC: u32 = 0x5630_3138;
const STATS_MAGIC: u32 = 0x5709_3306;
/// Larger than any of these files gets: a process tree is a few hundred bytes per process, open files likewise.
const MAX_BYTES: u64 = 256 << 20;

/// What a dump took, in microseconds and pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpStats {
    /// Until everything stood still.
    pub freezing_us: u64,
    /// From then until it ran again, or was gone; what dewar saves meanwhile is part of it.
    pub frozen_us: u64,
    pub memory_pages: u64,
}

/// A process of a checkpoint, as it will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// In the container.
    pub pid: u32,
    pub ppid: u32,
    /// Its command's name.
    pub comm: String,
    pub threads: usize,
    /// Of each thread.
    pub credentials: Vec<Credentials>,
    /// It has ended and waits to be reaped: it has no credentials.
    pub is_dead: bool,
}

/// Who a thread is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Real, effective, saved, of the filesystem.
    pub uids: [u32; 4],
    pub gids: [u32; 4],
    pub groups: Vec<u32>,
    pub inheritable: u64,
    pub permitted: u64,
    pub effective: u64,
    pub bounding: u64,
    pub ambient: u64,
    pub no_new_privs: bool,
    pub seccomp: Seccomp,
}

/// A thread's filter of system calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    #[default]
    Off,
    Strict,
    Filter,
}

/// A TCP connection that was open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

pub(super) fn failed(path: &Path, cause: impl Into<Cause>) -> Error {
    Error { op: "read".into(), object: format!("{path:?}"), cause: cause.into() }
}

pub(super) fn malformed(path: &Path) -> Error {
    failed(path, Cause::Refused("it is no image of criu's, or damaged".into()))
}

/// The records of an image.
pub(super) fn records(path: &Path, magic: [u32; 2]) -> Result<Vec<Vec<u8>>, Error> {
    split(&content(path)?, magic).ok_or_else(|| malformed(path))
}

/// All of an image.
pub(super) fn content(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = std::fs::metadata(path).map_err(|error| failed(path, error))?.len();
    if bytes > MAX_BYTES {
        return Err(failed(path, Cause::Refused(format!("it has {bytes} bytes"))));
    }
    std::fs::read(path).map_err(|error| failed(path, error))
}

fn split(content: &[u8], magic: [u32; 2]) -> Option<Vec<Vec<u8>>> {
    let mut rest = content;
    let mut word = || {
        let (first, others) = rest.split_first_chunk::<4>()?;
        rest = others;
        Some(u32::from_le_bytes(*first))
    };
    if [word()?, word()?] != magic {
        return None;
    }
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (length, others) = rest.split_first_chunk::<4>()?;
        let (record, others) = others.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        found.push(record.to_vec());
        rest = others;
    }
    Some(found)
}

/// What the dump whose work directory this was took.
///
/// # Errors
/// It left no statistics, or they make no sense.
pub fn stats(work_dir: &Path) -> Result<DumpStats, Error> {
    let path = work_dir.join("stats-dump");
    let records = records(&path, [SERVICE_MAGIC, STATS_MAGIC])?;
    let record = records.first().ok_or_else(|| malformed(&path))?;
    decode_stats(record).map_err(|Malformed| malformed(&path))
}

fn decode_stats(record: &[u8]) -> Result<DumpStats, Malformed> {
    let mut stats = DumpStats::default();
    for field in Fields(record) {
        let (1, Value::Bytes(dump)) = field? else { continue };
        for field in Fields(dump) {
            match field? {
                (1, value) => stats.freezing_us = value.int(),
                (2, value) => stats.frozen_us = value.int(),
                (7, value) => stats.memory_pages = value.int(),
                _ => {}
            }
        }
    }
    Ok(stats)
}

/// The processes of a checkpoint, parents before their children.
///
/// # Errors
/// An image is missing or damaged.
pub fn tree(images: &Path) -> Result<Vec<Task>, Error> {
    let path = images.join("pstree.img");
    let mut tasks = Vec::new();
    for record in records(&path, [COMMON_MAGIC, PSTREE_MAGIC])? {
        let mut task = Task::default();
        let mut threads = Vec::new();
        let mut decode = || -> Result<(), Malformed> {
            for field in Fields(&record) {
                match field? {
                    (1, value) => task.pid = number(value),
                    (2, value) => task.ppid = number(value),
                    (5, value) => repeated(value, &mut threads)?,
                    _ => {}
                }
            }
            Ok(())
        };
        decode().map_err(|Malformed| malformed(&path))?;
        let leader = core(images, task.pid)?;
        (task.comm, task.is_dead, task.threads) = (leader.comm, leader.is_dead, threads.len().max(1));
        task.credentials.extend(leader.credentials);
        // Of one that has ended CRIU counts a thread that it does not name.
        for thread in threads.into_iter().filter(|thread| *thread != task.pid && !task.is_dead) {
            task.credentials.extend(core(images, thread)?.credentials);
        }
        tasks.push(task);
    }
    Ok(tasks)
}

/// What is known of one thread.
fn core(images: &Path, thread: u32) -> Result<Core, Error> {
    let path = images.join(format!("core-{thread}.img"));
    let records = records(&path, [COMMON_MAGIC, CORE_MAGIC])?;
    let record = records.first().ok_or_else(|| malformed(&path))?;
    decode_core(record).map_err(|Malformed| malformed(&path))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Core {
    comm: String,
    is_dead: bool,
    credentials: Option<Credentials>,
}

/// `core_entry`.
fn decode_core(record: &[u8]) -> Result<Core, Malformed> {
    /// `task_core_entry.task_state`.
    const DEAD: u64 = 2;
    const ZOMBIE: u64 = 6;
    let mut core = Core::default();
    let (mut old_seccomp, mut seccomp) = (None, None);
    for field in Fields(record) {
        match field? {
            (3, Value::Bytes(task)) => {
                for field in Fields(task) {
                    match field? {
                        (1, value) => core.is_dead = matches!(value.int(), DEAD | ZOMBIE),
                        (6, value) => core.comm = value.text(),
                        (11, value) => old_seccomp = Some(value.int()),
                        _ => {}
                    }
                }
            }
            (5, Value::Bytes(thread)) => {
                for field in Fields(thread) {
                    match field? {
                        (10, Value::Bytes(creds)) => core.credentials = Some(decode_credentials(creds)?),
                        (11, value) => seccomp = Some(value.int()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if let Some(credentials) = &mut core.credentials {
        credentials.seccomp = match seccomp.or(old_seccomp) {
            None | Some(0) => Seccomp::Off,
            Some(1) => Seccomp::Strict,
            Some(_) => Seccomp::Filter,
        };
    }
    Ok(core)
}

/// `creds_entry`.
fn decode_credentials(record: &[u8]) -> Result<Credentials, Malformed> {
    let mut credentials = Credentials::default();
    let mut sets: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for field in Fields(record) {
        match field? {
            (at @ (1 | 3 | 5 | 7), value) => credentials.uids[at as usize / 2] = number(value),
            (at @ (2 | 4 | 6 | 8), value) => credentials.gids[at as usize / 2 - 1] = number(value),
            (at @ (9..=12 | AMBIENT), value) => repeated(value, sets.entry(at).or_default())?,
            (14, value) => repeated(value, &mut credentials.groups)?,
            (NO_NEW_PRIVS, value) => credentials.no_new_privs = value.int() != 0,
            _ => {}
        }
    }
    let set = |at: u32| {
        let words = sets.get(&at).map_or(&[][..], Vec::as_slice);
        words.iter().take(2).rev().fold(0, |set, word| set << 32 | u64::from(*word))
    };
    credentials.inheritable = set(9);
    credentials.permitted = set(10);
    credentials.effective = set(11);
    credentials.bounding = set(12);
    credentials.ambient = set(AMBIENT);
    Ok(credentials)
}

/// `creds_entry.no_new_privs` and `cap_amb`: absent in images of old.
const NO_NEW_PRIVS: u32 = 18;
const AMBIENT: u32 = 19;

/// The TCP connections of a checkpoint.
///
/// # Errors
/// The image is missing or damaged.
pub fn connections(images: &Path) -> Result<Vec<Connection>, Error> {
    let path = images.join("files.img");
    let mut found = Vec::new();
    for record in records(&path, [COMMON_MAGIC, FILES_MAGIC])? {
        for field in Fields(&record) {
            // `file_entry.isk`
            if let (4, Value::Bytes(socket)) = field.map_err(|Malformed| malformed(&path))? {
                found.extend(decode_socket(socket).map_err(|Malformed| malformed(&path))?);
            }
        }
    }
    Ok(found)
}

/// `inet_sk_entry`, if it is a connection.
fn decode_socket(record: &[u8]) -> Result<Option<Connection>, Malformed> {
    const TCP: u64 = 6;
    /// `TCP_CLOSE`, `TCP_LISTEN`.
    const UNCONNECTED: [u64; 2] = [7, 10];
    let (mut family, mut protocol, mut state) = (0, 0, 0);
    let mut ports = [0_u16; 2];
    let mut addresses = [Vec::new(), Vec::new()];
    for field in Fields(record) {
        match field? {
            (3, value) => family = value.int(),
            (5, value) => protocol = value.int(),
            (6, value) => state = value.int(),
            (7, value) => ports[0] = value.int() as u16,
            (8, value) => ports[1] = value.int() as u16,
            (11, value) => repeated(value, &mut addresses[0])?,
            (12, value) => repeated(value, &mut addresses[1])?,
            _ => {}
        }
    }
    if protocol != TCP || UNCONNECTED.contains(&state) {
        return Ok(None);
    }
    let end = |at: usize| address(family, &addresses[at]).map(|address| SocketAddr::new(address, ports[at]));
    let (Some(local), Some(remote)) = (end(0), end(1)) else { return Err(Malformed) };
    Ok(Some(Connection { local, remote }))
}

/// Words in the order of the network, read as the host's.
fn address(family: u64, words: &[u32]) -> Option<IpAddr> {
    const INET6: u64 = 10;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    if family == INET6 {
        let octets: [u8; 16] = bytes.get(..16)?.try_into().ok()?;
        return Some(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical());
    }
    let octets: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    Some(IpAddr::V4(Ipv4Addr::from(octets)))
}

pub(super) fn number(value: Value<'_>) -> u32 {
    value.int() as u32
}

/// A repeated number, packed or not.
fn repeated(value: Value<'_>, into: &mut Vec<u32>) -> Result<(), Malformed> {
    match value {
        Value::Bytes(packed) => {
            let mut fields = Fields(packed);
            while !fields.0.is_empty() {
                into.push(fields.varint()? as u32);
            }
        }
        other => into.push(number(other)),
    }
    Ok(())
}

/// An image with these records.
#[cfg(test)]
pub(crate) fn image<Record: std::borrow::Borrow<super::rpc::Writer>>(
    magic: u32,
    records: &[Record],
) -> Vec<u8> {
    let mut bytes = [COMMON_MAGIC.to_le_bytes(), magic.to_le_bytes()].concat();
    for record in records {
        let record = record.borrow().bytes();
        bytes.extend((record.len() as u32).to_le_bytes());
        bytes.extend(record);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::rpc::Writer;
    use super::*;

    #[test]
    fn a_tree_is_read_with_its_credentials() {
        let dir = std::env::temp_dir().join(format!("dewar-images-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let mut task = Writer::default();
        task.int(1, 1).int(2, 0).int(3, 1).int(4, 1).int(5, 1);
        std::fs::write(dir.join("pstree.img"), image(PSTREE_MAGIC, &[&task])).unwrap();
        let mut creds = Writer::default();
        creds.int(1, 10).int(2, 20).int(3, 11).int(4, 21).int(5, 12).int(6, 22).int(7, 13).int(8, 23);
        creds.int(11, 0xa804_25fb).int(11, 1).int(14, 5).int(14, 6);
        let mut thread = Writer::default();
        thread.message(10, &creds).int(11, 2);
        let mut tc = Writer::default();
        tc.int(1, 1).text(6, b"sleep");
        let mut core = Writer::default();
        core.int(1, 1).message(3, &tc).message(5, &thread);
        std::fs::write(dir.join("core-1.img"), image(CORE_MAGIC, &[&core])).unwrap();
        let tree = tree(&dir).unwrap();
        let credentials = &tree[0].credentials[0];
        assert_eq!((tree.len(), tree[0].comm.as_str(), tree[0].threads), (1, "sleep", 1));
        assert_eq!((credentials.uids, credentials.gids), ([10, 11, 12, 13], [20, 21, 22, 23]));
        assert_eq!((credentials.effective, credentials.seccomp), (0x1_a804_25fb, Seccomp::Filter));
        assert_eq!(credentials.groups, [5, 6]);
        // Not an image, cut short, a length that leads out of it.
        for damaged in [&b"not an image"[..], &image(CORE_MAGIC, &[&core])[..30], &[0xff; 64]] {
            std::fs::write(dir.join("core-1.img"), damaged).unwrap();
            assert!(super::tree(&dir).is_err(), "{damaged:?}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn connections_are_told_from_listeners() {
        let socket = |state: u64| {
            let mut socket = Writer::default();
            socket.int(3, 2).int(4, 1).int(5, 6).int(6, state).int(7, 80).int(8, 4000);
            socket.int(11, u64::from(u32::from_ne_bytes([10, 0, 0, 1])));
            socket.int(12, u64::from(u32::from_ne_bytes([10, 0, 0, 2])));
            socket
        };
        assert_eq!(decode_socket(socket(10).bytes()), Ok(None));
        let connection = decode_socket(socket(1).bytes()).unwrap().unwrap();
        assert_eq!(connection.local, "10.0.0.1:80".parse().unwrap());
        assert_eq!(connection.remote, "10.0.0.2:4000".parse().unwrap());
    }

    #[test]
    fn the_time_it_stood_still_is_read() {
        let mut dump = Writer::default();
        dump.int(1, 100).int(2, 31_000).int(7, 16);
        let mut stats = Writer::default();
        stats.message(1, &dump);
        let expected = DumpStats { freezing_us: 100, frozen_us: 31_000, memory_pages: 16 };
        assert_eq!(decode_stats(stats.bytes()), Ok(expected));
    }
}
