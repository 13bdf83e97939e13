//! Control groups: which are mounted, what each controller is for, and what goes without it.

use super::{Check, Verdict};
use crate::runtime::cgroup::{self, Features, Layout, Version};

/// A controller by its v1 name, what goes without it, and how a kernel comes to have it.
const CONTROLLERS: [(&str, &str, &str); 6] = [
    (
        "memory",
        "no --memory, no memory in stats, no OOM notices",
        "CONFIG_MEMCG; cgroup_enable=memory on the kernel's command line",
    ),
    ("cpu", "no --cpus, --cpu-shares and --cpu-quota", "CONFIG_CGROUP_SCHED and CONFIG_CFS_BANDWIDTH"),
    ("cpuset", "no --cpuset-cpus and --cpuset-mems", "CONFIG_CPUSETS"),
    ("pids", "no --pids-limit: a fork bomb in a container is the host's", "CONFIG_CGROUP_PIDS"),
    ("blkio", "no --blkio-weight and --device-read-bps and its kin", "CONFIG_BLK_CGROUP"),
    ("hugetlb", "huge pages are not counted", "CONFIG_CGROUP_HUGETLB"),
];

pub(super) fn checks() -> Vec<Check> {
    let layout = match Layout::detect() {
        Ok(layout) => layout,
        Err(error) => {
            return vec![Check::ok("cgroups", "mounts", error.to_string()).but(
                Verdict::Missing,
                "no container can be started",
                "mount /proc",
            )];
        }
    };
    if layout.is_empty() {
        return vec![unmounted()];
    }
    let features = cgroup::features_of(&layout);
    let mut checks = vec![Check::ok("cgroups", "mounts", describe(&layout))];
    for (name, costs, config) in CONTROLLERS {
        checks.push(controller(&layout, name, costs, config));
    }
    checks.extend(finer(&layout, &features));
    checks.push(devices(&layout));
    checks.push(freezer(&layout));
    checks
}

fn unmounted() -> Check {
    let check = Check::ok("cgroups", "mounts", "none");
    if cgroup::can_mount() {
        // Nothing to be done, and nothing that a daemon has not done before anybody asks.
        Check { found: "none yet: the daemon mounts cgroup2".into(), ..check }
    } else {
        check.but(
            Verdict::Missing,
            "no container can be started",
            "a kernel with CONFIG_CGROUPS; then the daemon mounts cgroup2 by itself",
        )
    }
}

fn describe(layout: &Layout) -> String {
    match (&layout.v2, layout.v1.len()) {
        (Some(v2), 0) => format!("version 2 at {}", v2.display()),
        (Some(v2), count) => format!("hybrid: {count} of version 1, version 2 at {}", v2.display()),
        (None, count) => format!("version 1: {count} hierarchies"),
    }
}

fn controller(layout: &Layout, name: &str, costs: &str, config: &str) -> Check {
    let place = layout.place_of(name);
    let check = |found: &str| Check::ok("cgroups", name, found);
    match place {
        Some(Version::V1) => check("version 1"),
        Some(Version::V2) => check("version 2"),
        // Nobody asks dewar to limit these: a note is enough.
        None if name == "hugetlb" => check("not there (nothing of dewar needs it)"),
        None => {
            check("not there").but(Verdict::Warning, costs, format!("a kernel with {config}; then mount it"))
        }
    }
}

/// Parts of controllers that are switched on or compiled in by themselves.
fn finer(layout: &Layout, features: &Features) -> Vec<Check> {
    let mut checks = Vec::new();
    if layout.place_of("memory").is_some() {
        let check = |found: &str| Check::ok("cgroups", "swap accounting", found);
        checks.push(match features.swap_limit {
            true => check("works"),
            false => check("not there").but(
                Verdict::Warning,
                "--memory-swap has no effect: a container may swap as much as it likes",
                "swapaccount=1 on the kernel's command line, or CONFIG_SWAP",
            ),
        });
    }
    if layout.place_of("blkio").is_some() {
        for (name, has, costs, config) in [
            (
                "io weight",
                features.blkio_weight,
                "--blkio-weight has no effect",
                "CONFIG_IOSCHED_BFQ or CONFIG_BLK_CGROUP_IOCOST",
            ),
            (
                "io limits",
                features.blkio_throttle,
                "--device-read-bps and its kin have no effect",
                "CONFIG_BLK_DEV_THROTTLING",
            ),
        ] {
            checks.push(match has {
                true => Check::ok("cgroups", name, "works"),
                false => Check::ok("cgroups", name, "not there").but(
                    Verdict::Warning,
                    costs,
                    format!("a kernel with {config}"),
                ),
            });
        }
    }
    checks
}

fn devices(layout: &Layout) -> Check {
    let check = |found: String| Check::ok("cgroups", "devices", found);
    if layout.place_of("devices") == Some(Version::V1) {
        return check("version 1".into());
    }
    let lacking = |found: String| {
        check(found).but(
            Verdict::Missing,
            "which devices a container may use cannot be restricted, and so it is not started",
            "a kernel with CONFIG_CGROUP_BPF and CONFIG_BPF_SYSCALL, or the devices controller of version 1",
        )
    };
    if layout.v2.is_none() {
        return lacking("neither the controller nor cgroup2 is mounted".into());
    }
    match cgroup::can_restrict() {
        Ok(()) => check("by BPF".into()),
        Err(error) => lacking(format!("loading a BPF program: {error}")),
    }
}

fn freezer(layout: &Layout) -> Check {
    let check = |found: &str| Check::ok("cgroups", "freezer", found);
    match (layout.place_of("freezer"), &layout.v2) {
        (Some(Version::V1), _) => check("version 1"),
        // Part of cgroup2 itself since Linux 5.2.
        (_, Some(_)) => check("version 2"),
        _ => check("not there").but(
            Verdict::Warning,
            "no pause, and no checkpoint while an exec runs",
            "a kernel with CONFIG_CGROUP_FREEZER; then mount it, or cgroup2",
        ),
    }
}
