//! `checkpoint.json`: what a checkpoint holds, where it comes from and what must hold for it to be thawed.
//!
//! | version | says |
//! |---|---|
//! | 1 | name, container, image, kernel, architecture, places in networks |
//! | 2 | the container's whole record, CRIU, CPU features, cgroup version, options, volumes, needs, the time it stood still, and size and digest of every file |
//! | 3 | that its memory is compressed ([`pack`]) |
//! | 4 | that some of its memory was written while it ran (`runtime::criu::predump`) |
//! | 5 | that the digests of large files are still to come ([`digests`](super::digests)) |
//!
//! All are read, and none is written as a later version than it needs; what a version does not say is empty. It is the
//! last file written before the checkpoint gets its name, and is written again only when the digests are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::pack;
use super::seal::{self, Known, Sealed};
use crate::daemon::containers::container::Record;
use crate::daemon::containers::create::now;
use crate::daemon::containers::hibernate::Hibernation;
use crate::daemon::containers::network::Frozen;
use crate::daemon::containers::schedule;
use crate::daemon::error::{Error, Result};
use crate::daemon::state_dir::{self, Durability};
use crate::runtime::cgroup;
use crate::runtime::criu::images;
use crate::runtime::shim::checkpoint::WHOLE;

/// The manifest's name in a checkpoint's directory.
pub const MANIFEST: &str = "checkpoint.json";
/// What a checkpoint's name ends in while it is made or removed.
pub const PARTIAL: &str = ".partial";
/// What this dewar writes, and the newest it reads.
pub const VERSION: u32 = 5;
/// What a dewar must know to thaw one whose memory is not compressed; one whose memory is; one with pre-dumps; and one
/// without all digests.
pub const PLAIN: u32 = 2;
const COMPRESSED: u32 = 3;
const PRE_DUMPED: u32 = 4;
const UNDIGESTED: u32 = 5;

/// What must hold for the images to be thawed, and what is in them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Manifest {
    #[serde(default = "first_version")]
    pub version: u32,
    pub name: String,
    pub container_id: String,
    pub container_name: String,
    /// The image below the saved layer; another one would not fit.
    pub image_id: String,
    /// UTC, RFC 3339 with nanoseconds.
    pub created: String,
    pub kernel: String,
    pub architecture: String,
    /// The dewar that wrote it.
    pub engine: String,
    /// Where it was in networks, which it is to be again.
    #[serde(default)]
    pub places: Frozen,

    // Since version 2.
    /// The container as it was: configuration, mounts, networks, state and the exit before this life. Of version 1
    /// nothing.
    #[serde(default)]
    pub record: Option<Box<Record>>,
    /// The image's name as the container was created with it.
    #[serde(default)]
    pub image: String,
    #[serde(default)]
    pub criu: String,
    /// In the kernel's words, sorted.
    #[serde(default)]
    pub cpu_features: BTreeSet<String>,
    /// 1 or 2; 0 where it is not known.
    #[serde(default)]
    pub cgroup_version: u32,
    /// Of the host's kernel: what was written in this life of it and not touched since need not be read to be
    /// known.
    #[serde(default)]
    pub boot_id: String,
    /// How long the log was: what comes later was said after the freeze.
    #[serde(default)]
    pub log_bytes: Option<u64>,
    #[serde(default)]
    pub options: Options,
    /// How long it took until everything stood still, in microseconds.
    #[serde(default)]
    pub freezing_us: Option<u64>,
    /// How long it then stood still.
    #[serde(default)]
    pub frozen_us: Option<u64>,
    #[serde(default)]
    pub volumes: Vec<SavedVolume>,
    #[serde(default)]
    pub needs: Needs,
    /// How many passes over its memory were made while it ran: what they have is not written again.
    #[serde(default)]
    pub pre_dumps: u32,
    /// By path in the checkpoint's directory; this file is not among them.
    #[serde(default)]
    pub files: BTreeMap<String, Sealed>,
}

fn first_version() -> u32 {
    1
}

/// What a checkpoint was asked for with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    pub leave_running: bool,
    /// TCP connections were not saved.
    pub tcp_close: bool,
    /// Its memory is compressed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub compress: bool,
}

/// A volume's content in a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedVolume {
    pub name: String,
    /// Below the checkpoint's directory: a tar of the volume.
    pub file: String,
    /// Where the container has it.
    pub destinations: Vec<String>,
}

/// What a restore cannot do without.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Needs {
    /// Somebody who serves its memory: the pages are not here.
    pub lazy: bool,
    /// Open TCP connections, which go on only at the addresses they were at; how many.
    pub tcp: u32,
    /// Volumes whose content it brings.
    pub volumes: Vec<String>,
}

/// A dump that has begun: where it goes, and what its manifest will say of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UnderWay {
    /// The directory of checkpoints.
    pub dir: PathBuf,
    pub name: String,
    #[serde(default)]
    pub options: Options,
    #[serde(default)]
    pub criu: String,
    #[serde(default)]
    pub volumes: Vec<SavedVolume>,
    #[serde(default)]
    pub log_bytes: Option<u64>,
    #[serde(default)]
    pub purpose: Purpose,
}

/// What a checkpoint is made for: what is noted of it once it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Somebody asked for it, and will say what becomes of it.
    #[default]
    Asked,
    /// The next start thaws it. The daemon's end made it, or a stop by hand.
    Hibernation { by_daemon: bool, was_paused: bool },
    /// The container's schedule, which will remove it, too.
    Schedule,
}

/// When the digests of large files are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digesting {
    /// Before the checkpoint has its name.
    Now,
    /// By whoever then asks for it ([`digests`](super::digests)).
    Later,
}

impl UnderWay {
    /// Where the shim writes it.
    pub fn partial(&self) -> PathBuf {
        self.dir.join(format!("{}{PARTIAL}", self.name))
    }

    /// Whether the shim has said that nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.partial().join(WHOLE).is_file()
    }

    /// Compresses its memory if that is wanted, seals its files and gives it its name; gives what it says of itself.
    /// Called again after a failure, it goes on.
    pub fn publish(&self, record: &Record, digesting: Digesting) -> Result<Manifest> {
        let (partial, target) = (self.partial(), self.dir.join(&self.name));
        if self.options.compress {
            pack::pack(&partial)?;
        }
        let files = match digesting {
            Digesting::Now => seal::seal(&partial, Known::new())?,
            Digesting::Later => seal::seal_small(&partial)?,
        };
        let manifest = self.describe(record, files);
        state_dir::save(&partial.join(MANIFEST), &manifest, Durability::Synced)?;
        fs::rename(&partial, &target)
            .map_err(|cause| Error::system(format!("rename {partial:?} to {target:?}"), cause))?;
        Ok(manifest)
    }

    /// Whether it has its name.
    pub fn is_published(&self) -> bool {
        self.dir.join(&self.name).join(MANIFEST).is_file()
    }

    /// Puts into the container's record what follows from its being there.
    pub fn note(&self, record: &mut Record) {
        match self.purpose {
            Purpose::Asked => {}
            Purpose::Schedule => schedule::note(record, &self.name),
            Purpose::Hibernation { by_daemon, was_paused } => {
                record.hibernation = Some(Hibernation {
                    checkpoint: self.name.clone(),
                    by_daemon,
                    was_paused,
                    ..Hibernation::default()
                });
                record.thaw_failure = None;
            }
        }
    }

    /// What its manifest says, or would say by now.
    pub fn describe(&self, record: &Record, files: BTreeMap<String, Sealed>) -> Manifest {
        let partial = self.partial();
        let uname = rustix::system::uname();
        // A dump without them is as good; only nothing is told of it.
        let stats = images::stats(&partial).ok();
        let connections = images::connections(&partial.join("images")).map_or(0, |found| found.len());
        let needs = Needs {
            lazy: false,
            tcp: if self.options.tcp_close { 0 } else { connections as u32 },
            volumes: self.volumes.iter().map(|volume| volume.name.clone()).collect(),
        };
        Manifest {
            version: PLAIN,
            name: self.name.clone(),
            container_id: record.id.clone(),
            container_name: record.name.clone(),
            image_id: record.image_id.clone(),
            created: now(),
            kernel: uname.release().to_string_lossy().into_owned(),
            architecture: uname.machine().to_string_lossy().into_owned(),
            engine: env!("CARGO_PKG_VERSION").to_owned(),
            places: Frozen::of(record),
            record: Some(Box::new(Record { dump: None, ..record.clone() })),
            image: record.config.image.clone(),
            criu: self.criu.clone(),
            cpu_features: cpu_features(),
            cgroup_version: cgroup_version(),
            boot_id: boot_id(),
            log_bytes: self.log_bytes,
            options: self.options.clone(),
            freezing_us: stats.map(|stats| stats.freezing_us),
            frozen_us: stats.map(|stats| stats.frozen_us),
            volumes: self.volumes.clone(),
            needs,
            pre_dumps: 0,
            files,
        }
        .with_its_version()
    }
}

impl Manifest {
    /// Reads that of the checkpoint in `dir`.
    ///
    /// # Errors
    /// It is missing or damaged, or a later dewar wrote it.
    pub fn load(dir: &Path) -> Result<Manifest> {
        let path = dir.join(MANIFEST);
        let manifest: Manifest = state_dir::load(&path)?;
        if manifest.version > VERSION {
            return Err(Error::conflict(format!(
                "read {path:?}: a later dewar wrote it, in version {}; this one knows {VERSION}",
                manifest.version
            )));
        }
        Ok(manifest)
    }

    /// With so many passes over its memory.
    pub fn with_pre_dumps(self, pre_dumps: u32) -> Manifest {
        Manifest { pre_dumps, ..self }.with_its_version()
    }

    /// In the version that it needs.
    pub fn with_its_version(self) -> Manifest {
        let version = if !self.has_digests() {
            UNDIGESTED
        } else if self.pre_dumps > 0 {
            PRE_DUMPED
        } else if self.options.compress {
            COMPRESSED
        } else {
            PLAIN
        };
        Manifest { version, ..self }
    }

    /// Whether all its files have their digests.
    pub fn has_digests(&self) -> bool {
        self.files.values().all(|file| file.sha256.is_some())
    }

    /// Bytes of all its files; 0 where it does not say.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }
}

/// What this machine's CPUs can do, in the kernel's words.
pub fn cpu_features() -> BTreeSet<String> {
    parse_features(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

fn parse_features(cpuinfo: &str) -> BTreeSet<String> {
    let line = cpuinfo.lines().find_map(|line| {
        let (name, words) = line.split_once(':')?;
        // x86, arm
        matches!(name.trim(), "flags" | "Features").then_some(words)
    });
    line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// Of the kernel that runs; empty where it does not say.
pub fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

fn cgroup_version() -> u32 {
    cgroup::Layout::host().map_or(0, |layout| if layout.is_v2() { 2 } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the first version wrote is read for good.
    #[test]
    fn a_recorded_checkpoint_of_version_1_is_read() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/daemon/containers/checkpoint/fixtures/v1");
        let manifest = Manifest::load(&dir).unwrap();
        assert_eq!((manifest.version, manifest.name.as_str()), (1, "cp1"));
        assert_eq!(manifest.container_name, "web");
        assert_eq!(manifest.places.networks.len(), 1);
        assert!(manifest.record.is_none() && manifest.files.is_empty() && manifest.volumes.is_empty());
        assert_eq!((manifest.frozen_us, manifest.bytes()), (None, 0));
    }

    #[test]
    fn a_later_version_is_left_alone() {
        let dir = std::env::temp_dir().join(format!("dewar-manifest-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let under_way = UnderWay { dir: dir.clone(), name: "cp".into(), ..UnderWay::default() };
        let mut manifest = under_way.describe(&Record::default(), BTreeMap::new());
        state_dir::save(&dir.join(MANIFEST), &manifest, Durability::Renamed).unwrap();
        assert_eq!(Manifest::load(&dir).unwrap().version, PLAIN);
        manifest.version = VERSION + 1;
        state_dir::save(&dir.join(MANIFEST), &manifest, Durability::Renamed).unwrap();
        assert!(Manifest::load(&dir).unwrap_err().message.contains("a later dewar wrote it"));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn cpu_features_are_the_kernels_words() {
        let x86 = "processor\t: 0\nflags\t\t: fpu avx2 sse\nvmx flags\t: vnmi\n";
        let features = parse_features(x86);
        assert_eq!(features.iter().map(String::as_str).collect::<Vec<_>>(), ["avx2", "fpu", "sse"]);
        assert_eq!(parse_features("Features\t: fp asimd\n").len(), 2);
    }
}
