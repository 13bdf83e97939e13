//! Where the kernel's control groups are mounted: version 1, version 2, or both at once.
//!
//! In: `/proc/self/mountinfo`, or one `statfs` on a pure v2 host. Out: a [`Layout`], which answers the one
//! question the rest asks: in which directory does controller X keep the files of cgroup P, and in which
//! version's dialect are they written?
//!
//! ```text
//!   v2       /sys/fs/cgroup                      cgroup2: all controllers
//!   v1       /sys/fs/cgroup/{cpu,memory,…}       one hierarchy per controller, or per co-mounted group
//!   hybrid   as v1, and /sys/fs/cgroup/unified   cgroup2: processes, kill, freeze, BPF; perhaps a controller
//! ```
//!
//! A controller lives in exactly one hierarchy, so the versions are told apart per controller, never per host.
//!
//! Source: cgroups(7), proc_pid_mountinfo(5).

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::failed;
use crate::runtime::{Cause, Error};

/// Where distributions mount cgroups, and where containers look for them.
pub const ROOT: &str = "/sys/fs/cgroup";

/// The kernel writes as much of the mount table as is asked for.
const CHUNK_BYTES: usize = 4 << 10;

/// Every controller a v1 mount option can name; other options are flags of the mount.
const CONTROLLERS: [&str; 14] = [
    "cpuset",
    "cpu",
    "cpuacct",
    "blkio",
    "memory",
    "devices",
    "freezer",
    "net_cls",
    "perf_event",
    "net_prio",
    "hugetlb",
    "pids",
    "rdma",
    "misc",
];

/// One v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    pub mount: PathBuf,
    /// `cpu`, `cpuacct`, … in the mount's order, or one `name=systemd`.
    pub controllers: Vec<String>,
}

impl Hierarchy {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

/// The cgroup mounts of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    pub v1: Vec<Hierarchy>,
    /// The cgroup2 mount: the only one on a v2 host, `unified` on a hybrid one.
    pub v2: Option<PathBuf>,
}

/// The dialect a controller's files speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

impl Layout {
    /// This host's layout, looked up once per process.
    ///
    /// # Errors
    /// When nothing is mounted; see [`super::ensure_mounted`].
    pub fn host() -> Result<&'static Layout, Error> {
        static HOST: OnceLock<Layout> = OnceLock::new();
        if let Some(layout) = HOST.get() {
            return Ok(layout);
        }
        let layout = Layout::detect()?;
        if layout.is_empty() {
            return Err(Error {
                op: "find".to_owned(),
                object: "cgroups".to_owned(),
                cause: Cause::Refused("no cgroup filesystem is mounted".to_owned()),
            });
        }
        Ok(HOST.get_or_init(|| layout))
    }

    /// Looks at the mounts as they are now.
    pub fn detect() -> Result<Layout, Error> {
        // With a thousand containers the mount table is long; a v2 host need not read it.
        const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
        if let Ok(stat) = rustix::fs::statfs(ROOT)
            && u64::try_from(stat.f_type) == Ok(CGROUP2_SUPER_MAGIC)
        {
            return Ok(Layout::unified(Path::new(ROOT)));
        }
        let (list, table) = (Path::new("/proc/self/cgroup"), Path::new("/proc/self/mountinfo"));
        let groups = std::fs::read(list).map_err(|e| failed("read", list, e))?;
        // One line for each hierarchy of version 1; the other is always there.
        let count = groups.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        let file = std::fs::File::open(table).map_err(|e| failed("read", table, e))?;
        let mounts = BufReader::with_capacity(CHUNK_BYTES, file);
        Layout::read(mounts, count).map_err(|e| failed("read", table, e))
    }

    /// A v2-only layout rooted at `root`.
    pub fn unified(root: &Path) -> Layout {
        Layout { v1: Vec::new(), v2: Some(root.to_owned()) }
    }

    pub fn is_empty(&self) -> bool {
        self.v1.is_empty() && self.v2.is_none()
    }

    /// Whether controllers are v2's alone (`CgroupVersion` "2" in Docker's words).
    pub fn is_v2(&self) -> bool {
        self.v1.is_empty() && self.v2.is_some()
    }

    /// Reads a mount table up to where `count` hierarchies have been seen: with the containers it grows, and those were
    /// mounted before. Lines that make no sense are skipped.
    fn read(mut mounts: impl BufRead, count: usize) -> io::Result<Layout> {
        let (mut layout, mut line) = (Layout::default(), Vec::new());
        while layout.mounts().count() < count {
            line.clear();
            if mounts.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            layout.take(line.strip_suffix(b"\n").unwrap_or(&line));
        }
        Ok(layout)
    }

    /// Adds what a line of a mount table says.
    fn take(&mut self, line: &[u8]) {
        let Ok(line) = std::str::from_utf8(line) else { return };
        let Some((mount, filesystem)) = line.split_once(" - cgroup") else { return };
        let mut fields = mount.split(' ').skip(3);
        let (Some(root), Some(point)) = (fields.next(), fields.next()) else { return };
        // A mount of something outside our cgroup namespace.
        if root.starts_with("/..") {
            return;
        }
        let point = PathBuf::from(unescape(point));
        let mut fields = filesystem.split(' ');
        let (kind, options) = (fields.next(), fields.nth(1).unwrap_or_default());
        match kind {
            Some("2") if self.v2.is_none() => self.v2 = Some(point),
            Some("") => {
                let controllers: Vec<String> = options
                    .split(',')
                    .filter(|word| CONTROLLERS.contains(word) || word.starts_with("name="))
                    .map(str::to_owned)
                    .collect();
                // The first mount of a hierarchy is as good as any later one.
                if !controllers.is_empty() && !self.v1.iter().any(|known| known.controllers == controllers) {
                    self.v1.push(Hierarchy { mount: point, controllers });
                }
            }
            _ => {}
        }
    }

    /// The mount that holds `controller` (by its v1 name; `blkio` is v2's `io`), and its dialect.
    ///
    /// `available` lists the controllers of the cgroup2 mount, see [`Layout::v2_controllers`].
    pub(super) fn home(&self, controller: &str, available: &str) -> Option<(Version, &Path)> {
        if let Some(hierarchy) = self.v1.iter().find(|h| h.has(controller)) {
            return Some((Version::V1, &hierarchy.mount));
        }
        let name = match controller {
            "blkio" => "io",
            "cpuacct" => "cpu",
            name => name,
        };
        let root = self.v2.as_deref()?;
        available.split_ascii_whitespace().any(|word| word == name).then_some((Version::V2, root))
    }

    /// Which version's files `controller` (by its v1 name) has on this host, if any.
    pub fn place_of(&self, controller: &str) -> Option<Version> {
        self.home(controller, &self.v2_controllers()).map(|(version, _)| version)
    }

    /// The words of the cgroup2 mount's `cgroup.controllers`; empty without one.
    pub(super) fn v2_controllers(&self) -> String {
        self.v2
            .as_ref()
            .and_then(|root| std::fs::read_to_string(root.join("cgroup.controllers")).ok())
            .unwrap_or_default()
    }

    /// All mounts, v1 first.
    pub(super) fn mounts(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().map(|hierarchy| hierarchy.mount.as_path()).chain(self.v2.as_deref())
    }
}

/// Undoes mountinfo's `\040` for space and its kin.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(decoded) = octal {
            bytes.push(decoded);
            rest = &tail[3..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &[u8] = b"\
23 1 254:0 / / rw,relatime - ext4 /dev/root rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
34 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,xattr,release_agent=/lib/x,name=systemd
35 31 0:30 / /mnt/again rw - cgroup cgroup rw,memory
36 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime - cgroup2 cgroup2 rw,nsdelegate
37 31 0:39 /../.. /mnt/outside rw - cgroup cgroup rw,pids
nonsense - cgroup
";

    #[test]
    fn reads_a_hybrid_mount_table() {
        let layout = Layout::read(HYBRID, usize::MAX).unwrap();
        let names: Vec<_> = layout.v1.iter().map(|h| h.controllers.join("+")).collect();
        assert_eq!(names, ["cpu+cpuacct", "memory", "name=systemd"]);
        assert_eq!(layout.v2.as_deref(), Some(Path::new("/sys/fs/cgroup/uni fied")));
        assert!(!layout.is_v2());
    }

    #[test]
    fn the_table_is_read_no_further_than_needed() {
        struct Broken;
        impl io::Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("nobody reads this"))
            }
        }
        let long = || io::Read::chain(HYBRID, BufReader::new(Broken));
        assert_eq!(Layout::read(long(), 4).unwrap(), Layout::read(HYBRID, usize::MAX).unwrap());
        assert!(Layout::read(long(), 5).is_err());
    }

    #[test]
    fn a_controller_has_one_home() {
        let layout = Layout::read(HYBRID, usize::MAX).unwrap();
        let (version, mount) = layout.home("memory", "io hugetlb").expect("memory is mounted");
        assert_eq!((version, mount), (Version::V1, Path::new("/sys/fs/cgroup/memory")));
        let (version, mount) = layout.home("blkio", "io hugetlb").expect("io is on v2");
        assert_eq!((version, mount), (Version::V2, Path::new("/sys/fs/cgroup/uni fied")));
        assert_eq!(layout.home("pids", "io hugetlb"), None);
    }

    #[test]
    fn garbage_is_an_empty_layout() {
        assert!(
            Layout::read(&b" - cgroup\n - cgroup2 x\n\xff\xfe - cgroup2\n\\9"[..], 9).unwrap().is_empty()
        );
    }

    #[test]
    fn finds_this_hosts_mounts() {
        assert!(!Layout::detect().expect("readable").is_empty());
    }
}
