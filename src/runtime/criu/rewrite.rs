//! CRIU's images of another engine's dump, changed so that CRIU takes from us what that engine had it save or make:
//! mounts get keys, and so does the network namespace. And those of ours, changed for another engine: mounts that it
//! leaves to CRIU lose their keys, and cgroups become what it gives ([`cgroups`]).
//!
//! Only what is said here is changed; every other field stays as it was written. As in [`images`](super::images),
//! files may be anybody's.
//!
//! Source: CRIU's `images/{mnt,netdev,core,fdinfo,regfile,inventory}.proto`.

pub mod cgroups;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::images::{
    COMMON_MAGIC, CORE_MAGIC, FILES_MAGIC, PSTREE_MAGIC, content, failed, malformed, number, records,
};
use super::rpc::{Fields, Malformed, Value, Writer};
use crate::runtime::{Cause, Error};

const IDS_MAGIC: u32 = 0x5443_2030;
const MOUNTS_MAGIC: u32 = 0x5556_3928;
const NETNS_MAGIC: u32 = 0x5593_3752;
const NETDEV_MAGIC: u32 = 0x5737_3951;
const INVENTORY_MAGIC: u32 = 0x5831_3116;
/// `mnt_entry.ext_key` and `netns_entry.ext_key`.
const MOUNT_KEY: u32 = 18;
const NETNS_KEY: u32 = 8;

/// What a mount is of: `mnt_entry.fstype`, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filesystem {
    Devtmpfs,
    Tmpfs,
    Cgroup,
    Other,
}

/// A mount of the container's first mount namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    pub filesystem: Filesystem,
    pub id: u32,
    pub parent: u32,
    /// Of the file system; CRIU names the image of a tmpfs by it.
    pub device: u32,
    /// What of the file system is mounted.
    pub root: String,
    /// Where.
    pub destination: String,
    /// Of the file system.
    pub options: String,
    /// By which CRIU asks for it on a restore.
    pub key: Option<String>,
    raw: Vec<u8>,
}

/// An image in place of the one of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub name: String,
    pub content: Vec<u8>,
}

/// Where the namespaces of the first process are written, by the number in the images' names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    network: u32,
    mount: u32,
}

/// What of a dump stands in the way of a thaw here, or must be as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// In the words of uname(2); empty for one that has no name here.
    pub architecture: &'static str,
    /// The security module that labelled the processes.
    pub labelled_by: Option<&'static str>,
    pub has_user_namespace: bool,
    /// Permission bits of the root directory, if a process has it open or is in it.
    pub root_mode: Option<u32>,
}

/// The first process of a dump.
fn first(images: &Path) -> Result<u32, Error> {
    let path = images.join("pstree.img");
    let records = records(&path, [COMMON_MAGIC, PSTREE_MAGIC])?;
    let first = records.first().ok_or_else(|| malformed(&path))?;
    field(first, 1).map_err(|Malformed| malformed(&path))?.ok_or_else(|| malformed(&path))
}

/// A number of a record.
fn field(record: &[u8], wanted: u32) -> Result<Option<u32>, Malformed> {
    let mut found = None;
    for field in Fields(record) {
        match field? {
            (at, value @ Value::Int(_)) if at == wanted => found = Some(number(value)),
            _ => {}
        }
    }
    Ok(found)
}

/// Where the namespaces of the first process are.
///
/// # Errors
/// An image is missing or damaged.
pub fn namespaces(images: &Path) -> Result<Namespaces, Error> {
    let path = images.join(format!("ids-{}.img", first(images)?));
    let records = records(&path, [COMMON_MAGIC, IDS_MAGIC])?;
    let record = records.first().ok_or_else(|| malformed(&path))?;
    let field = |at| field(record, at).map_err(|Malformed| malformed(&path));
    Ok(Namespaces { network: field(6)?.unwrap_or(0), mount: field(9)?.unwrap_or(0) })
}

/// What is known of a dump by its images.
///
/// # Errors
/// An image is missing or damaged.
pub fn facts(images: &Path) -> Result<Facts, Error> {
    let mut facts = Facts::default();
    let path = images.join(format!("core-{}.img", first(images)?));
    let cores = records(&path, [COMMON_MAGIC, CORE_MAGIC])?;
    let machine = cores.first().map(|core| field(core, 1)).transpose();
    // `core_entry.march`
    facts.architecture = match machine.map_err(|Malformed| malformed(&path))?.flatten() {
        Some(1) => "x86_64",
        Some(3) => "aarch64",
        Some(4) => "ppc64le",
        Some(5) => "s390x",
        _ => "",
    };
    let path = images.join("inventory.img");
    // It has one magic number, so its first record's length stands where others have their second.
    let content = content(&path)?;
    let record = match content.split_first_chunk::<8>() {
        Some((head, record)) if head[..4] == INVENTORY_MAGIC.to_le_bytes() => record,
        _ => return Err(malformed(&path)),
    };
    // `inventory_entry.lsmtype`
    facts.labelled_by = match field(record, 6).map_err(|Malformed| malformed(&path))? {
        None | Some(0) => None,
        Some(1) => Some("SELinux"),
        Some(2) => Some("AppArmor"),
        Some(_) => Some("a security module"),
    };
    let names = std::fs::read_dir(images).map_err(|error| failed(images, error))?;
    facts.has_user_namespace =
        names.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("userns-"));
    facts.root_mode = root_mode(&images.join("files.img"))?;
    Ok(facts)
}

fn root_mode(path: &Path) -> Result<Option<u32>, Error> {
    const DIRECTORY: u32 = 0o040_000;
    for record in records(path, [COMMON_MAGIC, FILES_MAGIC])? {
        for outer in Fields(&record) {
            // `file_entry.reg`
            let (3, Value::Bytes(file)) = outer.map_err(|Malformed| malformed(path))? else { continue };
            let mut is_root = false;
            for inner in Fields(file) {
                if let (6, name @ Value::Bytes(_)) = inner.map_err(|Malformed| malformed(path))? {
                    is_root = matches!(name.text().as_str(), "/" | ".");
                }
            }
            let mode = field(file, 10).map_err(|Malformed| malformed(path))?;
            if let Some(mode) = mode.filter(|mode| is_root && mode & 0o170_000 == DIRECTORY) {
                return Ok(Some(mode & 0o7777));
            }
        }
    }
    Ok(None)
}

fn mounts_path(images: &Path, namespaces: Namespaces) -> PathBuf {
    images.join(format!("mountpoints-{}.img", namespaces.mount))
}

/// The mounts of the container.
///
/// # Errors
/// The image is missing or damaged.
pub fn mounts(images: &Path, namespaces: Namespaces) -> Result<Vec<MountEntry>, Error> {
    let path = mounts_path(images, namespaces);
    let records = records(&path, [COMMON_MAGIC, MOUNTS_MAGIC])?;
    records.into_iter().map(|raw| decode_mount(raw).map_err(|Malformed| malformed(&path))).collect()
}

fn decode_mount(raw: Vec<u8>) -> Result<MountEntry, Malformed> {
    let mut entry = MountEntry {
        filesystem: Filesystem::Other,
        id: 0,
        parent: 0,
        device: 0,
        root: String::new(),
        destination: String::new(),
        options: String::new(),
        key: None,
        raw: Vec::new(),
    };
    for field in Fields(&raw) {
        match field? {
            (1, value) => {
                entry.filesystem = match value.int() {
                    3 => Filesystem::Devtmpfs,
                    5 => Filesystem::Tmpfs,
                    12 | 23 => Filesystem::Cgroup,
                    _ => Filesystem::Other,
                };
            }
            (2, value) => entry.id = number(value),
            (3, value) => entry.device = number(value),
            (4, value) => entry.parent = number(value),
            (6, value) => entry.root = value.text(),
            (7, value) => entry.destination = value.text(),
            (9, value) => entry.options = value.text(),
            (MOUNT_KEY, value) => entry.key = Some(value.text()),
            _ => {}
        }
    }
    entry.raw = raw;
    Ok(entry)
}

/// The mounts again, as an image with its name: those in `gone` are left out, and each has the key it has in `entries`, or
/// none.
///
/// # Errors
/// The image is damaged; something is mounted on one that is to be gone.
pub fn encode_mounts(
    images: &Path,
    namespaces: Namespaces,
    entries: &[MountEntry],
    gone: &BTreeSet<u32>,
) -> Result<Image, Error> {
    let path = mounts_path(images, namespaces);
    let mut records = Vec::new();
    for entry in entries.iter().filter(|entry| !gone.contains(&entry.id)) {
        if gone.contains(&entry.parent) {
            let reason = format!("{} is mounted on what is not here", entry.destination);
            return Err(failed(&path, Cause::Refused(reason)));
        }
        let mut record = without(&entry.raw, MOUNT_KEY).map_err(|Malformed| malformed(&path))?;
        if let Some(text) = &entry.key {
            let mut key = Writer::default();
            key.text(MOUNT_KEY, text.as_bytes());
            record.extend_from_slice(key.bytes());
        }
        records.push(record);
    }
    Ok(Image { name: name_of(&path), content: encode(&path, MOUNTS_MAGIC, &records)? })
}

/// Writes the mounts as [`encode_mounts`] has them.
///
/// # Errors
/// As there, and the image cannot be written.
pub fn write_mounts(
    images: &Path,
    namespaces: Namespaces,
    entries: &[MountEntry],
    gone: &BTreeSet<u32>,
) -> Result<(), Error> {
    let path = mounts_path(images, namespaces);
    let image = encode_mounts(images, namespaces, entries, gone)?;
    std::fs::write(&path, image.content).map_err(|error| failed(&path, error))
}

/// A record without one of its fields.
fn without(record: &[u8], field: u32) -> Result<Vec<u8>, Malformed> {
    let mut kept = Vec::new();
    let mut fields = Fields(record);
    loop {
        let before = fields.0;
        let Some(found) = fields.next() else { return Ok(kept) };
        if found?.0 != field {
            kept.extend_from_slice(&before[..before.len() - fields.0.len()]);
        }
    }
}

/// A file on one of the `mounts`, named by their ids, that a process has open, mapped or for its directory.
///
/// # Errors
/// The image is missing or damaged.
pub fn file_on(images: &Path, mounts: &BTreeSet<u32>) -> Result<Option<String>, Error> {
    let path = images.join("files.img");
    for record in records(&path, [COMMON_MAGIC, FILES_MAGIC])? {
        for outer in Fields(&record) {
            // `file_entry.reg`
            let (3, Value::Bytes(file)) = outer.map_err(|Malformed| malformed(&path))? else { continue };
            let (mut name, mut mount) = (String::new(), None);
            for inner in Fields(file) {
                match inner.map_err(|Malformed| malformed(&path))? {
                    (6, value) => name = value.text(),
                    // A sint32, whose lowest bit is the sign.
                    (7, value) => mount = Some(number(value) >> 1),
                    _ => {}
                }
            }
            if mount.is_some_and(|mount| mounts.contains(&mount)) {
                return Ok(Some(name));
            }
        }
    }
    Ok(None)
}

/// Makes the network namespace of the first process one that CRIU is given under `key`. There is no image of one
/// that nothing was saved of, as runc has it.
///
/// # Errors
/// The image is damaged, or cannot be written.
pub fn write_netns(images: &Path, namespaces: Namespaces, key: &str) -> Result<(), Error> {
    let path = images.join(format!("netns-{}.img", namespaces.network));
    if path.exists() {
        records(&path, [COMMON_MAGIC, NETNS_MAGIC])?;
    }
    let mut record = Writer::default();
    record.text(NETNS_KEY, key.as_bytes());
    write(&path, NETNS_MAGIC, &[record.bytes().to_vec()])
}

/// Makes the network namespace of the first process one that CRIU makes, with nothing but a loopback device that is up: the
/// images that say so.
///
/// # Errors
/// None that happens.
pub fn encode_loopback(images: &Path, namespaces: Namespaces) -> Result<[Image; 2], Error> {
    /// `net_device_entry`: `ND_TYPE__LOOPBACK`, and IFF_UP, IFF_LOOPBACK, IFF_RUNNING and IFF_LOWER_UP.
    const KIND: u64 = 1;
    const FLAGS: u64 = 0x1_0049;
    const MTU: u64 = 65_536;
    let mut device = Writer::default();
    device.int(1, KIND).int(2, 1).int(3, MTU).int(4, FLAGS).text(5, b"lo");
    let image = |kind: &str, magic: u32, record: &Writer| -> Result<Image, Error> {
        let name = format!("{kind}-{}.img", namespaces.network);
        let content = encode(&images.join(&name), magic, &[record.bytes().to_vec()])?;
        Ok(Image { name, content })
    };
    Ok([image("netns", NETNS_MAGIC, &Writer::default())?, image("netdev", NETDEV_MAGIC, &device)?])
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// `path` is named in the error only.
fn encode(path: &Path, magic: u32, records: &[Vec<u8>]) -> Result<Vec<u8>, Error> {
    let mut bytes = [COMMON_MAGIC.to_le_bytes(), magic.to_le_bytes()].concat();
    for record in records {
        let length = u32::try_from(record.len())
            .map_err(|_| failed(path, Cause::Refused(format!("a record of {} bytes", record.len()))))?;
        bytes.extend(length.to_le_bytes());
        bytes.extend(record);
    }
    Ok(bytes)
}

pub(super) fn write(path: &Path, magic: u32, records: &[Vec<u8>]) -> Result<(), Error> {
    std::fs::write(path, encode(path, magic, records)?).map_err(|error| failed(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dewar-rewrite-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn mount(id: u64, parent: u64, destination: &str) -> Vec<u8> {
        let mut entry = Writer::default();
        entry.int(1, 5).int(2, id).int(3, 46).int(4, parent).int(5, 7).text(6, b"/");
        entry.text(7, destination.as_bytes()).text(8, b"tmpfs").text(9, b"size=1k").int(10, 0);
        entry.bytes().to_vec()
    }

    #[test]
    fn mounts_get_keys_and_are_left_out() {
        let dir = scratch("mounts");
        let ns = Namespaces { network: 10, mount: 13 };
        let written = [mount(1, 0, "/"), mount(2, 1, "/dev"), mount(3, 1, "/run/.containerenv")];
        write(&mounts_path(&dir, ns), MOUNTS_MAGIC, &written).unwrap();
        let mut entries = mounts(&dir, ns).unwrap();
        assert_eq!((entries[1].filesystem, entries[1].device), (Filesystem::Tmpfs, 46));
        assert_eq!((entries[1].options.as_str(), &entries[1].key), ("size=1k", &None));
        entries[1].key = Some("/dev".into());
        write_mounts(&dir, ns, &entries, &[3].into()).unwrap();
        let again = mounts(&dir, ns).unwrap();
        assert_eq!(again.len(), 2);
        assert_eq!(again[1].key.as_deref(), Some("/dev"));
        assert!(again[1].raw.starts_with(&written[1]), "what was there stays");
        // And a key goes, where there is none to be.
        let mut without = again.clone();
        without[1].key = None;
        write_mounts(&dir, ns, &without, &BTreeSet::new()).unwrap();
        assert_eq!(mounts(&dir, ns).unwrap()[1].raw, written[1]);
        // What is mounted on one that is gone has no place.
        let error = write_mounts(&dir, ns, &entries, &[1].into()).unwrap_err();
        assert!(error.to_string().contains("/dev is mounted on what is not here"), "{error}");
        std::fs::write(mounts_path(&dir, ns), b"no image").unwrap();
        assert!(mounts(&dir, ns).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_file_is_found_by_its_mount() {
        let dir = scratch("files");
        let mut file = Writer::default();
        // A sint32.
        file.int(1, 5).text(6, b"/sys/fs/cgroup/pids/pids.max").int(7, 131 << 1);
        let mut entry = Writer::default();
        entry.int(1, 1).int(2, 5).message(3, &file);
        write(&dir.join("files.img"), FILES_MAGIC, &[entry.bytes().to_vec()]).unwrap();
        assert_eq!(file_on(&dir, &[131].into()).unwrap().as_deref(), Some("/sys/fs/cgroup/pids/pids.max"));
        assert_eq!(file_on(&dir, &[130, 262].into()).unwrap(), None);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_dump_says_what_it_was() {
        let dir = scratch("facts");
        let mut task = Writer::default();
        task.int(1, 1).int(2, 0);
        write(&dir.join("pstree.img"), PSTREE_MAGIC, &[task.bytes().to_vec()]).unwrap();
        let mut core = Writer::default();
        core.int(1, 1);
        write(&dir.join("core-1.img"), CORE_MAGIC, &[core.bytes().to_vec()]).unwrap();
        let mut ids = Writer::default();
        ids.int(6, 10).int(9, 13);
        write(&dir.join("ids-1.img"), IDS_MAGIC, &[ids.bytes().to_vec()]).unwrap();
        let mut file = Writer::default();
        file.int(1, 5).text(6, b"/").int(7, 1).int(10, 0o040_555);
        let mut entry = Writer::default();
        entry.int(1, 1).int(2, 5).message(3, &file);
        write(&dir.join("files.img"), FILES_MAGIC, &[entry.bytes().to_vec()]).unwrap();
        let mut inventory = Writer::default();
        inventory.int(1, 2).int(6, 1);
        let length = (inventory.bytes().len() as u32).to_le_bytes();
        let bytes = [&INVENTORY_MAGIC.to_le_bytes()[..], &length, inventory.bytes()].concat();
        std::fs::write(dir.join("inventory.img"), bytes).unwrap();
        std::fs::write(dir.join("userns-9.img"), b"").unwrap();
        let expected = Facts {
            architecture: "x86_64",
            labelled_by: Some("SELinux"),
            has_user_namespace: true,
            root_mode: Some(0o555),
        };
        assert_eq!(facts(&dir).unwrap(), expected);
        assert_eq!(namespaces(&dir).unwrap(), Namespaces { network: 10, mount: 13 });
        write(&dir.join("netns-10.img"), NETNS_MAGIC, &[vec![0x18, 1]]).unwrap();
        write_netns(&dir, namespaces(&dir).unwrap(), "key").unwrap();
        let records = records(&dir.join("netns-10.img"), [COMMON_MAGIC, NETNS_MAGIC]).unwrap();
        assert_eq!(records, [b"\x42\x03key".to_vec()]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
