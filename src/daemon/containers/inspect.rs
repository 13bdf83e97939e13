//! `inspect`: everything known about one container.

use std::collections::BTreeMap;

use super::container::{Container, Record};
use super::exec::Phase;
use super::logs::drivers;
use super::state::State;
use crate::daemon::engine::Engine;
use crate::daemon::error::Result;
use crate::daemon::volumes::bytes_below;
use crate::http::api::checkpoint_policy::CheckpointingState;
use crate::http::api::container::{ContainerInspect, ContainerState, GraphDriver, NetworkSettings};

/// How Docker writes "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Describes a container.
pub fn inspect(engine: &Engine, container: &Container, with_size: bool) -> Result<ContainerInspect> {
    let (record, execs, health) = {
        let inner = container.lock();
        let running: Vec<String> = inner
            .execs
            .iter()
            .filter(|(_, exec)| matches!(exec.phase, Phase::Running))
            .map(|(id, _)| id.clone())
            .collect();
        let health = inner.health.as_ref().map(|monitor| monitor.describe());
        (inner.record.clone(), (!running.is_empty()).then_some(running), health)
    };
    // An image that is damaged or gone is told at the next start, not to those who only look.
    let overlay = super::rootfs::overlay(engine, container, &record).ok();
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let lower: Vec<String> = overlay.iter().flat_map(|overlay| &overlay.lower).map(|dir| text(dir)).collect();
    let layer = container.layer_dir(record.layer);
    let size = with_size.then(|| size_rw(container, &record));
    let mut host_config = record.host_config.clone();
    (host_config.masked_paths, host_config.readonly_paths) = super::spec::hidden_paths(&record)?;
    Ok(ContainerInspect {
        id: record.id.clone(),
        created: record.created.clone(),
        path: record.path.clone(),
        args: record.args.clone(),
        state: ContainerState { health, ..state(&record) },
        image: record.image_id.clone(),
        resolv_conf_path: text(&container.dir.join("resolv.conf")),
        hostname_path: text(&container.dir.join("hostname")),
        hosts_path: text(&container.dir.join("hosts")),
        log_path: match drivers::place(container, &record.host_config.log_config) {
            Some((path, _)) if drivers::is_told(&record.host_config.log_config) => text(&path),
            _ => String::new(),
        },
        name: format!("/{}", record.name),
        restart_count: record.restart_count,
        driver: "overlay2".to_owned(),
        platform: "linux".to_owned(),
        exec_ids: execs,
        graph_driver: GraphDriver {
            name: "overlay2".to_owned(),
            data: BTreeMap::from([
                ("ID".to_owned(), record.id.clone()),
                ("LowerDir".to_owned(), lower.join(":")),
                ("MergedDir".to_owned(), text(&engine.state_dir.run_dir(&record.id).join("rootfs"))),
                ("UpperDir".to_owned(), text(&layer.join("upper"))),
                ("WorkDir".to_owned(), text(&layer.join("work"))),
            ]),
        },
        size_rw: size,
        size_root_fs: size.map(|size| size.saturating_add(super::list::image_size(engine, &record))),
        mounts: record.mounts.iter().map(super::mounts::Mount::shown).collect(),
        network_settings: network_settings(engine, &record),
        config: record.config,
        host_config,
        ..ContainerInspect::default()
    })
}

fn network_settings(engine: &Engine, record: &Record) -> NetworkSettings {
    let is_alive = record.state.is_alive();
    let networks = super::network::shown(engine, record);
    let bridge = networks.get("bridge").cloned().unwrap_or_default();
    NetworkSettings {
        // The sandbox is the container's one network namespace: it needs no other name.
        sandbox_id: if is_alive { record.id.clone() } else { String::new() },
        sandbox_key: engine.state_dir.netns(&record.id).to_string_lossy().into_owned(),
        ports: super::network::shown_ports(engine, record),
        endpoint_id: bridge.endpoint_id,
        gateway: bridge.gateway,
        ip_address: bridge.ip_address,
        ip_prefix_len: bridge.ip_prefix_len,
        ipv6_gateway: bridge.ipv6_gateway,
        global_ipv6_address: bridge.global_ipv6_address,
        global_ipv6_prefix_len: bridge.global_ipv6_prefix_len,
        mac_address: bridge.mac_address,
        networks,
        ..NetworkSettings::default()
    }
}

fn state(record: &Record) -> ContainerState {
    let time = |text: &String| if text.is_empty() { NEVER.to_owned() } else { text.clone() };
    ContainerState {
        status: record.state.name().to_owned(),
        running: record.state.is_alive() || record.state == State::Restarting,
        paused: record.state == State::Paused,
        restarting: record.state == State::Restarting,
        oom_killed: record.oom_killed,
        dead: record.state == State::Dead,
        pid: record.pid,
        exit_code: record.exit_code,
        error: record.error.clone(),
        started_at: time(&record.started_at),
        finished_at: time(&record.finished_at),
        health: None,
        checkpointing: checkpointing(record),
    }
}

fn checkpointing(record: &Record) -> CheckpointingState {
    let asleep = record.hibernation.as_ref().filter(|asleep| !asleep.is_used_up);
    CheckpointingState {
        hibernated: asleep.map(|asleep| asleep.checkpoint.clone()).unwrap_or_default(),
        thaw_failure: record.thaw_failure.clone(),
        scheduled: record.scheduled.names.clone(),
        schedule_failure: record.scheduled.failure.clone(),
        failures: record.scheduled.failures,
    }
}

/// Bytes in the writable layer, each file counted once; 0 when they cannot be counted.
pub fn size_rw(container: &Container, record: &Record) -> i64 {
    let upper = container.layer_dir(record.layer).join("upper");
    bytes_below(&upper).ok().and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(0)
}
