//! `POST /containers/{name}/update`: limits and restart policy of a container that exists.
//!
//! What is zero or absent stays as it is. The merged limits are checked as at create, put in force when the
//! container runs, and only then written down: a limit the kernel refuses is not kept.

use std::sync::Arc;

use super::container::Container;
use super::{checks, hibernate, schedule, spec, state::State};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::http::api::container::{ContainerUpdate, ContainerUpdated, Resources};
use crate::runtime::cgroup::{Cgroup, Undo};
use crate::runtime::spec::Pids;

/// Changes the container.
///
/// # Errors
/// InvalidParameter for a limit out of range, Conflict for one that contradicts another, System when the
/// kernel refuses it; the old limits then stay.
pub fn update(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    request: &ContainerUpdate,
) -> Result<ContainerUpdated> {
    let _action = container.begin();
    apply(engine, container, request)
        .map_err(|error| error.during(format!("Cannot update container {}", container.id)))
}

fn apply(engine: &Arc<Engine>, container: &Container, request: &ContainerUpdate) -> Result<ContainerUpdated> {
    let record = container.record();
    if matches!(record.state, State::Removing | State::Dead) {
        return Err(Error::conflict("container is marked for removal and cannot be \"update\""));
    }
    let policy = &request.restart_policy;
    if !policy.name.is_empty() {
        checks::restart_policy(policy)?;
        if record.host_config.auto_remove && policy.name != "no" {
            return Err(Error::conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
    }
    let asked = &request.checkpoint_policy;
    hibernate::check(asked, record.host_config.auto_remove)?;
    schedule::check(asked)?;
    let old = &record.host_config.resources;
    let new = merge(old, &request.resources)?;
    let mut warnings = Vec::new();
    let mut undo = None;
    if new != *old {
        checks::cpuset(&new)?;
        let mut limits = spec::resources(&new)?;
        if matches!(record.state, State::Running | State::Paused) {
            if request.resources.pids_limit.is_some() && limits.pids.limit.is_none() {
                limits.pids = Pids { limit: Some(-1) };
            }
            let cgroup = Cgroup::open(&spec::cgroup_path(&record, &engine.config().cgroup_parent()))?;
            // Should this daemon die in between, the next one puts the recorded limits in force again.
            mark(container, true)?;
            let updated = match cgroup.update(&limits) {
                Ok(updated) => updated,
                Err(error) => {
                    mark(container, false)?;
                    return Err(error.into());
                }
            };
            warnings = updated.0;
            undo = Some(updated.1);
        }
    }
    let mut inner = container.lock();
    inner.record.host_config.resources = new;
    inner.record.is_updating = false;
    if !policy.name.is_empty() {
        inner.record.host_config.restart_policy = policy.clone();
    }
    let checkpoints = &mut inner.record.host_config.checkpoint_policy;
    take(&mut checkpoints.stop_mode, &asked.stop_mode);
    take(&mut checkpoints.every, &asked.every);
    take(&mut checkpoints.keep, &asked.keep);
    if let Err(error) = container.save(&inner) {
        inner.record.host_config = record.host_config;
        undo.into_iter().for_each(Undo::run);
        return Err(error);
    }
    let attributes = inner.record.event_attributes();
    let is_scheduled = schedule::has_schedule(&inner.record);
    drop(inner);
    if is_scheduled {
        engine.schedule.ring(engine);
    }
    engine.events.publish("container", "update", &container.id, attributes);
    Ok(ContainerUpdated { warnings })
}

/// Notes that the limits in the kernel may not be those on record, or that they are.
fn mark(container: &Container, is_updating: bool) -> Result<()> {
    let mut inner = container.lock();
    inner.record.is_updating = is_updating;
    container.save(&inner)
}

/// The old limits with what the request sets.
fn merge(old: &Resources, asked: &Resources) -> Result<Resources> {
    for (is_asked, is_set, what) in [
        (asked.nano_cpus != 0, old.cpu_period != 0, ("Nano CPUs", "CPU Period")),
        (asked.nano_cpus != 0, old.cpu_quota != 0, ("Nano CPUs", "CPU Quota")),
        (asked.cpu_period != 0, old.nano_cpus != 0, ("CPU Period", "NanoCPUs")),
        (asked.cpu_quota != 0, old.nano_cpus != 0, ("CPU Quota", "NanoCPUs")),
    ] {
        if is_asked && is_set {
            let (new, set) = what;
            return Err(Error::conflict(format!(
                "Conflicting options: {new} cannot be updated as {set} has already been set"
            )));
        }
    }
    if asked.memory > 0 && asked.memory_swap == 0 && old.memory_swap > 0 && asked.memory > old.memory_swap {
        return Err(Error::conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ));
    }
    let mut new = old.clone();
    take(&mut new.cpu_shares, &asked.cpu_shares);
    take(&mut new.memory, &asked.memory);
    take(&mut new.nano_cpus, &asked.nano_cpus);
    take(&mut new.blkio_weight, &asked.blkio_weight);
    take(&mut new.blkio_device_read_bps, &asked.blkio_device_read_bps);
    take(&mut new.blkio_device_write_bps, &asked.blkio_device_write_bps);
    take(&mut new.blkio_device_read_iops, &asked.blkio_device_read_iops);
    take(&mut new.blkio_device_write_iops, &asked.blkio_device_write_iops);
    take(&mut new.cpu_period, &asked.cpu_period);
    take(&mut new.cpu_quota, &asked.cpu_quota);
    take(&mut new.cpuset_cpus, &asked.cpuset_cpus);
    take(&mut new.cpuset_mems, &asked.cpuset_mems);
    take(&mut new.memory_reservation, &asked.memory_reservation);
    take(&mut new.memory_swap, &asked.memory_swap);
    take(&mut new.oom_kill_disable, &asked.oom_kill_disable);
    if asked.memory_swappiness.is_some_and(|value| value != -1) {
        new.memory_swappiness = asked.memory_swappiness;
    }
    if asked.pids_limit.is_some() {
        new.pids_limit = asked.pids_limit.filter(|limit| *limit > 0);
    }
    Ok(new)
}

fn take<T: Default + PartialEq + Clone>(field: &mut T, asked: &T) {
    if *asked != T::default() {
        field.clone_from(asked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api::Class;

    const MIB: i64 = 1 << 20;

    fn limited() -> Resources {
        let pids_limit = Some(10);
        Resources { memory: 64 * MIB, memory_swap: 128 * MIB, pids_limit, ..Resources::default() }
    }

    #[test]
    fn what_is_not_asked_for_stays() {
        let asked = Resources { cpu_shares: 512, ..Resources::default() };
        assert_eq!(merge(&limited(), &asked).unwrap(), Resources { cpu_shares: 512, ..limited() });
        let asked = Resources { pids_limit: Some(-1), ..Resources::default() };
        assert_eq!(merge(&limited(), &asked).unwrap(), Resources { pids_limit: None, ..limited() });
    }

    #[test]
    fn memory_beyond_the_swap_limit_wants_both() {
        let asked = Resources { memory: 256 * MIB, ..Resources::default() };
        let error = merge(&limited(), &asked).unwrap_err();
        assert_eq!(error.class, Class::Conflict);
        assert!(error.message.contains("update the memoryswap at the same time"));
        merge(&limited(), &Resources { memory_swap: 512 * MIB, ..asked }).unwrap();
    }

    #[test]
    fn cpus_and_quota_exclude_each_other() {
        let cpus = Resources { nano_cpus: 1_000_000_000, ..Resources::default() };
        let quota = Resources { cpu_quota: 50_000, ..Resources::default() };
        assert_eq!(merge(&cpus, &quota).unwrap_err().class, Class::Conflict);
        assert_eq!(merge(&quota, &cpus).unwrap_err().class, Class::Conflict);
    }
}
