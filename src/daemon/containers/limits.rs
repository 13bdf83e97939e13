//! Limits by themselves: what may be asked for, and what this kernel can set.
//!
//! What has to do with each other, and becomes what for the kernel, is `spec`'s; the rest of a request is
//! `checks`'. Texts are Docker's where there is one.

use std::sync::OnceLock;

use crate::daemon::error::{Error, Result};
use crate::http::api::container::{Resources, ULIMITS};
use crate::runtime::cgroup::{self, Features};

/// Checks that each limit is one.
///
/// # Errors
/// InvalidParameter.
pub fn check(limits: &Resources) -> Result<()> {
    // It becomes a path below the cgroup hierarchies.
    if limits.cgroup_parent.split('/').any(|part| part == ".." || part == ".") {
        return Err(Error::invalid(format!("invalid cgroup parent: {:?}", limits.cgroup_parent)));
    }
    if limits.cpu_shares < 0 {
        return Err(Error::invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            limits.cpu_shares
        )));
    }
    if limits.nano_cpus > 0 && limits.nano_cpus < 10_000_000 {
        return Err(Error::invalid("range of CPUs is from 0.01: less than a hundredth is no time at all"));
    }
    if limits.memory_swap < -1 {
        return Err(Error::invalid(format!("invalid memory swap limit ({})", limits.memory_swap)));
    }
    if limits.memory_reservation != 0 && limits.memory_reservation < 6 << 20 {
        return Err(Error::invalid("Minimum memory reservation allowed is 6MB"));
    }
    if let Some(weight) = limits.blkio_weight_device.iter().find(|one| !(10..=1000).contains(&one.weight)) {
        return Err(Error::invalid(format!(
            "Range of blkio weight is from 10 to 1000: {} for {:?}",
            weight.weight, weight.path
        )));
    }
    if let Some(limit) = limits.ulimits.iter().find(|limit| !ULIMITS.contains(&limit.name.as_str())) {
        return Err(Error::invalid(format!("invalid ulimit type: {}", limit.name)));
    }
    Ok(())
}

/// What this kernel can limit; looked at once.
pub fn kernel() -> Result<&'static Features> {
    static KERNEL: OnceLock<Features> = OnceLock::new();
    match KERNEL.get() {
        Some(known) => Ok(known),
        None => {
            let found = cgroup::features()?;
            Ok(KERNEL.get_or_init(|| found))
        }
    }
}

/// Takes out the limits this kernel cannot set, and says so, in Docker's words.
pub fn discard_unsupported(limits: &mut Resources, kernel: &Features) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut unless = |is_there: bool, is_asked: bool, text: &str, discard: &mut dyn FnMut()| {
        if !is_there && is_asked {
            warnings.push(text.to_owned());
            discard();
        }
    };
    unless(
        kernel.memory_limit,
        limits.memory > 0,
        "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
        &mut || (limits.memory, limits.memory_swap) = (0, 0),
    );
    unless(
        kernel.swap_limit,
        limits.memory > 0 && limits.memory_swap != -1,
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
        &mut || limits.memory_swap = -1,
    );
    unless(
        kernel.memory_swappiness,
        limits.memory_swappiness.is_some_and(|value| value != -1),
        "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
        &mut || limits.memory_swappiness = None,
    );
    unless(
        kernel.memory_reservation,
        limits.memory_reservation > 0,
        "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.",
        &mut || limits.memory_reservation = 0,
    );
    unless(
        kernel.oom_kill_disable,
        limits.oom_kill_disable == Some(true),
        "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
        &mut || limits.oom_kill_disable = None,
    );
    unless(
        kernel.pids_limit,
        limits.pids_limit.is_some(),
        "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
        &mut || limits.pids_limit = None,
    );
    unless(
        kernel.cpu_shares,
        limits.cpu_shares > 0,
        "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
        &mut || limits.cpu_shares = 0,
    );
    unless(
        kernel.cpu_cfs_period && kernel.cpu_cfs_quota,
        limits.cpu_period > 0 || limits.cpu_quota > 0 || limits.nano_cpus > 0,
        "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
        &mut || (limits.cpu_period, limits.cpu_quota, limits.nano_cpus) = (0, 0, 0),
    );
    unless(
        kernel.cpuset,
        !limits.cpuset_cpus.is_empty() || !limits.cpuset_mems.is_empty(),
        "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.",
        &mut || {
            limits.cpuset_cpus.clear();
            limits.cpuset_mems.clear();
        },
    );
    unless(
        kernel.blkio_weight,
        limits.blkio_weight > 0,
        "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
        &mut || limits.blkio_weight = 0,
    );
    // No kernel that dewar runs on and that still has the knob is left.
    unless(
        false,
        !limits.blkio_weight_device.is_empty(),
        "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
        &mut || limits.blkio_weight_device.clear(),
    );
    if limits.oom_kill_disable == Some(true) && limits.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources."
                .to_owned(),
        );
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api::container::Ulimit;

    #[test]
    fn a_cgroup_parent_cannot_climb() {
        let parent =
            |text: &str| check(&Resources { cgroup_parent: text.to_owned(), ..Resources::default() });
        parent("/mine/own.slice").unwrap();
        for bad in ["../../etc", "/a/../b", "./a", ".."] {
            assert!(parent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_out_of_range_are_the_callers_mistake() {
        let ulimit = Ulimit { name: "x".to_owned(), hard: 1, soft: 1 };
        for limits in [
            Resources { cpu_shares: -1, ..Resources::default() },
            Resources { memory_reservation: -1, ..Resources::default() },
            Resources { memory_swap: -2, ..Resources::default() },
            Resources { nano_cpus: 1, ..Resources::default() },
            Resources { ulimits: vec![ulimit], ..Resources::default() },
        ] {
            assert!(check(&limits).is_err(), "{limits:?}");
        }
    }

    #[test]
    fn what_the_kernel_lacks_is_discarded_and_said() {
        let asked =
            Resources { memory: 64 << 20, memory_swap: 128 << 20, cpu_shares: 5, ..Resources::default() };
        let mut limits = asked.clone();
        let kernel = Features { memory_limit: true, cpu_shares: true, ..Features::default() };
        let warnings = discard_unsupported(&mut limits, &kernel);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("does not support swap limit"), "{warnings:?}");
        assert_eq!(limits, Resources { memory_swap: -1, ..asked });
    }
}
