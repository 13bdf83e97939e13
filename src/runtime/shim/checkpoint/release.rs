//! A dump of ours made one that another engine restores: what a thaw here takes from the shim is given to CRIU, or is what that
//! engine has for every container. The way back of [`adopt`](super::adopt).
//!
//! | here | of the other engine |
//! |---|---|
//! | [`Kind::Bind`], [`Kind::Null`], `/dev/shm` | external, under the same key |
//! | [`Kind::Tmpfs`], [`Kind::Dev`] | a tmpfs of CRIU's, which GNU tar fills from an image |
//! | [`Kind::Cgroup`] | left out of the images: no two hosts have the same hierarchies |
//! | no cgroups | the one that it makes for the container |
//!
//! The dump itself stays as it is.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Kind, Mounts, dev, load, refused};
use crate::runtime::Error;
use crate::runtime::criu::rewrite::{self, Filesystem, Image};
use crate::runtime::spec::Spec;

/// A tar without members.
const NOTHING: [u8; 1024] = [0; 1024];

/// What the other engine restores instead.
#[derive(Debug, Default)]
pub struct Released {
    /// In place of those of the same names.
    pub images: Vec<Image>,
    pub tmpfs: Vec<Tmpfs>,
}

/// The content of a tmpfs that CRIU makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmpfs {
    /// The image that CRIU looks for: a tar, packed by gzip.
    pub image: String,
    pub content: Content,
}

/// A plain tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// In the dump's directory.
    File(String),
    Made(Vec<u8>),
}

/// What the other engine does not have for the container.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lacks<'a> {
    /// Mounts, by their destinations.
    pub mounts: &'a [&'a str],
    /// A network namespace: CRIU makes one, with nothing but a loopback device.
    pub network: bool,
}

/// Looks through the dump in `dir`, of a container that `spec` is of.
///
/// # Errors
/// An image is damaged; `Cause::Refused` for what no other engine can give.
pub fn release(dir: &Path, spec: &Spec, lacks: &Lacks<'_>) -> Result<Released, Error> {
    let images = dir.join("images");
    let namespaces = rewrite::namespaces(&images)?;
    let mut entries = rewrite::mounts(&images, namespaces)?;
    let known: Mounts = load(&dir.join("mounts.json"))?;
    let mut gone = BTreeSet::new();
    let mut released = Released::default();
    for entry in &mut entries {
        let Some(key) = &entry.key else { continue };
        let external = known.mounts.iter().find(|mount| mount.destination == *key);
        let external = external.ok_or_else(|| {
            refused("hand over the mount at", &entry.destination, "mounts.json does not say what it is")
        })?;
        let is_own = entry.filesystem == Filesystem::Tmpfs && entry.root == "/";
        let content = match &external.kind {
            Kind::Bind { mount, below } if !below.is_empty() => {
                let reason = format!("it came along with the one at {mount}");
                return Err(refused("hand over the mount at", &entry.destination, &reason));
            }
            Kind::Cgroup { .. } => {
                gone.insert(entry.id);
                continue;
            }
            _ if lacks.mounts.contains(&entry.destination.as_str()) => {
                gone.insert(entry.id);
                continue;
            }
            Kind::Dev { .. } if is_own => Content::Made(dev::archive(spec)?),
            Kind::Tmpfs { archive, .. } if is_own && entry.destination != "/dev/shm" => match archive {
                Some(name) => Content::File(name.clone()),
                None => Content::Made(NOTHING.to_vec()),
            },
            _ => continue,
        };
        entry.key = None;
        let image = format!("tmpfs-dev-{}.tar.gz.img", entry.device);
        // One that is mounted twice.
        if released.tmpfs.iter().all(|known| known.image != image) {
            released.tmpfs.push(Tmpfs { image, content });
        }
    }
    if let Some(file) = rewrite::file_on(&images, &gone)? {
        let reason = "a process has it open, and it is on a mount that is not there elsewhere";
        return Err(refused("hand over", &file, reason));
    }
    released.images = vec![
        rewrite::encode_mounts(&images, namespaces, &entries, &gone)?,
        rewrite::cgroups::encode(&images)?,
    ];
    if lacks.network {
        released.images.extend(rewrite::encode_loopback(&images, namespaces)?);
    }
    Ok(released)
}

#[cfg(test)]
mod tests {
    use super::super::External;
    use super::*;
    use crate::runtime::criu::images::image;
    use crate::runtime::criu::rpc::Writer;

    #[test]
    fn what_the_shim_gives_here_criu_makes_there_or_it_is_refused() {
        let dir = std::env::temp_dir().join(format!("dewar-release-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("images")).unwrap();
        let write = |name: &str, magic: u32, records: &[Writer]| {
            std::fs::write(dir.join("images").join(name), image(magic, records)).unwrap();
        };
        let (mut task, mut ids, mut file) = (Writer::default(), Writer::default(), Writer::default());
        task.int(1, 1).int(2, 0);
        write("pstree.img", 0x5027_3030, &[task]);
        ids.int(6, 10).int(9, 13);
        write("ids-1.img", 0x5443_2030, &[ids]);
        let mut open = Writer::default();
        file.text(6, b"/etc/resolv.conf").int(7, 7 << 1);
        open.int(1, 1).int(2, 1).message(3, &file);
        write("files.img", 0x5630_3138, &[open]);
        write("cgroup.img", 0x5938_3330, &[Writer::default()]);
        let bind = |below: &str| Kind::Bind { mount: "/data".into(), below: below.into() };
        let tmpfs = |archive: Option<&str>| Kind::Tmpfs {
            options: String::new(),
            archive: archive.map(str::to_owned),
        };
        // Type, id, what it is.
        let mounts = [
            (17, "/", None),
            (5, "/dev", Some(Kind::Dev { options: String::new() })),
            (5, "/dev/shm", Some(tmpfs(Some("shm.tar")))),
            (5, "/scratch", Some(tmpfs(Some("tmpfs-1.tar")))),
            (5, "/proc/acpi", Some(tmpfs(None))),
            (12, "/sys/fs/cgroup/pids", Some(Kind::Cgroup { below: "pids".into() })),
            (0, "/etc/resolv.conf", Some(bind(""))),
        ];
        let save = |mounts: &[(u64, &str, Option<Kind>)]| {
            let entries = mounts.iter().zip(1..).map(|((kind, destination, external), id)| {
                let mut entry = Writer::default();
                entry.int(1, *kind).int(2, id).int(3, id + 40).int(4, u64::from(id > 1)).text(6, b"/");
                entry.text(7, destination.as_bytes());
                if external.is_some() {
                    entry.text(18, destination.as_bytes());
                }
                entry
            });
            write("mountpoints-13.img", 0x5556_3928, &entries.collect::<Vec<_>>());
            let known = mounts.iter().filter_map(|(_, destination, kind)| {
                Some(External { destination: (*destination).to_owned(), kind: kind.clone()? })
            });
            super::super::save(&dir.join("mounts.json"), &Mounts { version: 1, mounts: known.collect() })
                .unwrap();
        };
        save(&mounts);
        let released = release(&dir, &Spec::default(), &Lacks::default()).unwrap();
        let found = |image: &str| released.tmpfs.iter().find(|tmpfs| tmpfs.image == image).unwrap();
        assert_eq!(found("tmpfs-dev-44.tar.gz.img").content, Content::File("tmpfs-1.tar".into()));
        assert_eq!(found("tmpfs-dev-45.tar.gz.img").content, Content::Made(NOTHING.to_vec()));
        assert_eq!(released.tmpfs.len(), 3, "/dev is the third");
        assert_eq!(released.images.len(), 2);
        std::fs::write(dir.join("images/mountpoints-13.img"), &released.images[0].content).unwrap();
        let again =
            rewrite::mounts(&dir.join("images"), rewrite::namespaces(&dir.join("images")).unwrap()).unwrap();
        let keyed = |entry: &rewrite::MountEntry| (entry.destination.clone(), entry.key.is_some());
        let expected = [
            ("/", false),
            ("/dev", false),
            ("/dev/shm", true),
            ("/scratch", false),
            ("/proc/acpi", false),
            ("/etc/resolv.conf", true),
        ];
        assert_eq!(
            again.iter().map(keyed).collect::<Vec<_>>(),
            expected.map(|(path, has_key)| (path.to_owned(), has_key))
        );
        // Without the mount that a process has a file open on.
        save(&mounts);
        let lacks = Lacks { mounts: &["/etc/resolv.conf"], network: true };
        let error = release(&dir, &Spec::default(), &lacks).unwrap_err().to_string();
        assert!(error.contains("/etc/resolv.conf: a process has it open"), "{error}");
        let lacks = Lacks { mounts: &[], network: true };
        let released = release(&dir, &Spec::default(), &lacks).unwrap();
        let names: Vec<&str> = released.images.iter().map(|image| image.name.as_str()).collect();
        assert_eq!(names, ["mountpoints-13.img", "cgroup.img", "netns-10.img", "netdev-10.img"]);
        save(&[(17, "/", None), (0, "/data/sub", Some(bind("sub")))]);
        let error = release(&dir, &Spec::default(), &Lacks::default()).unwrap_err().to_string();
        assert!(error.contains("/data/sub: it came along with the one at /data"), "{error}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
