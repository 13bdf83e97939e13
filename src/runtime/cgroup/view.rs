//! What a container sees at `/sys/fs/cgroup`, and what this host can limit.
//!
//! ```text
//!   v2      cgroup2 at /sys/fs/cgroup
//!   v1      tmpfs at /sys/fs/cgroup, a cgroup mount per hierarchy in it, links cpu → cpu,cpuacct
//!   hybrid  as v1, and a cgroup2 mount at unified
//! ```
//!
//! Of the hierarchies of version 1 the container's own directories are bound in. Version 2 it mounts where it has a
//! cgroup namespace, and finds itself at the root; without one it is shown the host's tree, which is why that is only
//! ever offered read-only by default.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::layout::{Layout, ROOT, Version};
use crate::runtime::Error;
use crate::runtime::spec::Mount;

/// Whose cgroup namespace the container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    Private,
    Host,
}

/// The mounts, in order, and the links to make between them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    pub mounts: Vec<Mount>,
    /// `(link, target)`: to make inside the tmpfs, which is the first mount.
    pub symlinks: Vec<(String, String)>,
    /// A last mount step, after the links: makes the tmpfs read-only.
    pub seal: Option<Mount>,
}

/// The mounts for a container at cgroup `path`, processes of it already inside.
///
/// `writable` is for privileged containers; their sub-cgroups are removed with the container's.
pub fn view(path: &str, namespace: Namespace, writable: bool) -> Result<View, Error> {
    Ok(view_in(Layout::host()?, path, namespace, writable))
}

fn view_in(layout: &Layout, path: &str, namespace: Namespace, writable: bool) -> View {
    let access = if writable { "rw" } else { "ro" };
    let options = |more: &[&str]| -> Vec<String> {
        ["nosuid", "nodev", "noexec"].iter().chain(more).map(|&word| word.to_owned()).collect()
    };
    let bind = |source: &Path, destination: String| Mount {
        destination,
        kind: "bind".to_owned(),
        source: source.display().to_string(),
        options: options(&["bind", access, "private"]),
    };
    let own = |mount: &Path| mount.join(path.trim_start_matches('/'));
    let cgroup2 = |mount: &Path, destination: String| match namespace {
        Namespace::Private => Mount {
            destination,
            kind: "cgroup2".to_owned(),
            source: "cgroup".to_owned(),
            options: options(&["relatime", access]),
        },
        Namespace::Host => bind(mount, destination),
    };
    if layout.is_v2() {
        let mounts = layout.v2.iter().map(|mount| cgroup2(mount, ROOT.to_owned())).collect();
        return View { mounts, ..View::default() };
    }
    let tmpfs = |more: &[&str]| Mount {
        destination: ROOT.to_owned(),
        kind: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        options: options(more),
    };
    let mut view = View { mounts: vec![tmpfs(&["mode=755"])], ..View::default() };
    for hierarchy in &layout.v1 {
        let name = hierarchy.controllers.join(",").trim_start_matches("name=").to_owned();
        let destination = format!("{ROOT}/{name}");
        // Inside a cgroup namespace it is the root, as that of a mount of its own would be; but mounting a hierarchy
        // of version 1 walks every cgroup of version 2 on the host.
        view.mounts.push(bind(&own(&hierarchy.mount), destination));
        if hierarchy.controllers.len() > 1 {
            let links = hierarchy.controllers.iter().map(|link| (format!("{ROOT}/{link}"), name.clone()));
            view.symlinks.extend(links);
        }
    }
    if let Some(mount) = &layout.v2 {
        let destination = format!("{ROOT}/unified");
        view.mounts.push(match namespace {
            Namespace::Private => cgroup2(mount, destination),
            Namespace::Host => bind(&own(mount), destination),
        });
    }
    if !writable {
        view.seal = Some(tmpfs(&["remount", "ro", "mode=755"]));
    }
    view
}

/// What this host's cgroups can do, in the terms of Docker's `info`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one fact each, as Docker lists them")]
pub struct Features {
    /// 1 (also on hybrid hosts) or 2.
    pub version: u8,
    pub memory_limit: bool,
    pub swap_limit: bool,
    pub memory_reservation: bool,
    pub oom_kill_disable: bool,
    pub memory_swappiness: bool,
    pub cpu_shares: bool,
    pub cpu_cfs_period: bool,
    pub cpu_cfs_quota: bool,
    pub cpuset: bool,
    pub pids_limit: bool,
    pub blkio_weight: bool,
    pub blkio_throttle: bool,
    /// Processors and memory nodes a cpuset may name, for instance `0-3`.
    pub cpus: String,
    pub mems: String,
}

/// Looks at the mounted controllers.
pub fn features() -> Result<Features, Error> {
    Ok(features_of(Layout::host()?))
}

/// As [`features`], of these mounts.
pub fn features_of(layout: &Layout) -> Features {
    let available = layout.v2_controllers();
    let home = |controller| layout.home(controller, &available);
    // v2's files do not exist at the root; its controllers are complete since Linux 5.2 but for swap, which
    // can be compiled out.
    let has = |controller, file: &str, on_v2: bool| match home(controller) {
        Some((Version::V1, mount)) => mount.join(file).exists(),
        Some((Version::V2, _)) => on_v2,
        None => false,
    };
    let set = |file: &str| {
        let v1 = home("cpuset").map(|(_, mount)| mount.to_owned());
        let mount = v1.unwrap_or_default();
        // v1 keeps the root's in `cpuset.cpus`, v2 in `cpuset.cpus.effective`.
        [file.to_owned(), format!("{file}.effective")]
            .iter()
            .find_map(|name| std::fs::read_to_string(mount.join(name)).ok())
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    Features {
        version: if layout.is_v2() { 2 } else { 1 },
        memory_limit: has("memory", "memory.limit_in_bytes", true),
        swap_limit: has("memory", "memory.memsw.limit_in_bytes", Path::new("/proc/swaps").exists()),
        memory_reservation: has("memory", "memory.soft_limit_in_bytes", true),
        oom_kill_disable: has("memory", "memory.oom_control", false),
        memory_swappiness: has("memory", "memory.swappiness", false),
        cpu_shares: has("cpu", "cpu.shares", true),
        cpu_cfs_period: has("cpu", "cpu.cfs_period_us", true),
        cpu_cfs_quota: has("cpu", "cpu.cfs_quota_us", true),
        cpuset: has("cpuset", "cpuset.cpus", true),
        pids_limit: home("pids").is_some(),
        // v1's weight files exist only below the root, where bfq or cfq is built in.
        blkio_weight: has("blkio", "blkio.weight", true) || has("blkio", "blkio.bfq.io_serviced", true),
        blkio_throttle: has("blkio", "blkio.throttle.read_bps_device", true),
        cpus: set("cpuset.cpus"),
        mems: set("cpuset.mems"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::cgroup::layout::Hierarchy;

    fn hierarchy(mount: &str, controllers: &[&str]) -> Hierarchy {
        Hierarchy {
            mount: mount.into(),
            controllers: controllers.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    fn hybrid() -> Layout {
        Layout {
            v1: vec![
                hierarchy("/sys/fs/cgroup/cpu,cpuacct", &["cpu", "cpuacct"]),
                hierarchy("/sys/fs/cgroup/systemd", &["name=systemd"]),
            ],
            v2: Some("/sys/fs/cgroup/unified".into()),
        }
    }

    #[test]
    fn hybrid_containers_get_a_tmpfs_of_mounts() {
        let view = view_in(&hybrid(), "/dewar/x", Namespace::Private, false);
        let seen: Vec<_> = view.mounts.iter().map(|m| format!("{} {}", m.kind, m.destination)).collect();
        assert_eq!(
            seen,
            [
                "tmpfs /sys/fs/cgroup",
                "bind /sys/fs/cgroup/cpu,cpuacct",
                "bind /sys/fs/cgroup/systemd",
                "cgroup2 /sys/fs/cgroup/unified"
            ]
        );
        assert_eq!(view.mounts[2].source, "/sys/fs/cgroup/systemd/dewar/x");
        assert!(view.mounts[1].options.contains(&"ro".to_owned()));
        assert_eq!(view.symlinks[1], ("/sys/fs/cgroup/cpuacct".to_owned(), "cpu,cpuacct".to_owned()));
        assert!(view.seal.is_some());
    }

    #[test]
    fn without_a_namespace_own_directories_are_bound() {
        let view = view_in(&hybrid(), "/dewar/x", Namespace::Host, true);
        assert_eq!(view.mounts[1].source, "/sys/fs/cgroup/cpu,cpuacct/dewar/x");
        assert_eq!(view.seal, None);
    }

    #[test]
    fn v2_is_one_mount() {
        let view = view_in(&Layout::unified(Path::new(ROOT)), "/dewar/x", Namespace::Private, false);
        assert_eq!(view.mounts.len(), 1);
        assert_eq!((view.mounts[0].kind.as_str(), view.mounts[0].destination.as_str()), ("cgroup2", ROOT));
    }

    #[test]
    fn this_host_limits_memory() {
        let features = features().unwrap();
        assert!(features.memory_limit && features.pids_limit, "{features:?}");
        assert!(!features.cpus.is_empty());
    }
}
