//! What is in a checkpoint, read from its manifest and from CRIU's images.

use std::collections::BTreeMap;
use std::path::Path;

use super::manifest::Manifest;
use super::{find, volumes};
use crate::daemon::containers::container::{Container, Record};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::names::CheckpointId;
use crate::http::api::checkpoint::{
    CheckpointConnection, CheckpointContainer, CheckpointDetail, CheckpointLeftOut, CheckpointNeeds,
    CheckpointPlace, CheckpointProcess, CheckpointSizes, CheckpointVolume,
};
use crate::runtime::criu::images;

/// All that is known of one checkpoint.
///
/// # Errors
/// NotFound for an unknown one; System for one that is damaged.
pub fn inspect(engine: &Engine, container: &Container, id: &str, custom: &str) -> Result<CheckpointDetail> {
    let id = CheckpointId::parse(id)?;
    let (dir, manifest) = find(container, &id, custom)?;
    let attempt = |error: Error| error.during(format!("Cannot inspect checkpoint {id}"));
    let images_dir = dir.join("images");
    let tree = images::tree(&images_dir).map_err(|error| attempt(error.into()))?;
    let connections = images::connections(&images_dir).map_err(|error| attempt(error.into()))?;
    let current = container.record();
    let record = manifest.record.as_deref().unwrap_or(&current);
    Ok(CheckpointDetail {
        name: manifest.name.clone(),
        container: CheckpointContainer {
            id: manifest.container_id.clone(),
            name: manifest.container_name.clone(),
        },
        image: if manifest.image.is_empty() { record.config.image.clone() } else { manifest.image.clone() },
        image_id: manifest.image_id.clone(),
        created: manifest.created.clone(),
        directory: dir.to_string_lossy().into_owned(),
        format: manifest.version,
        engine: manifest.engine.clone(),
        criu: manifest.criu.clone(),
        kernel: manifest.kernel.clone(),
        architecture: manifest.architecture.clone(),
        cgroup_version: manifest.cgroup_version,
        leave_running: manifest.options.leave_running,
        freezing_us: manifest.freezing_us,
        frozen_us: manifest.frozen_us,
        log_bytes: manifest.log_bytes,
        size: sizes(&dir, &manifest)?,
        processes: tree
            .into_iter()
            .map(|task| CheckpointProcess {
                pid: task.pid,
                ppid: task.ppid,
                command: task.comm,
                threads: task.threads as u32,
                uid: task.credentials.first().map(|thread| thread.uids[1]),
                is_dead: task.is_dead,
            })
            .collect(),
        connections: connections
            .into_iter()
            .map(|found| CheckpointConnection {
                local: found.local.to_string(),
                remote: found.remote.to_string(),
            })
            .collect(),
        networks: places(&manifest),
        ports: manifest.places.ports.iter().map(port).collect(),
        volumes: manifest
            .volumes
            .iter()
            .map(|saved| CheckpointVolume {
                name: saved.name.clone(),
                destinations: saved.destinations.clone(),
                size: manifest.files.get(&saved.file).map_or(0, |file| file.bytes),
            })
            .collect(),
        left_out: left_out(engine, record, &manifest),
        needs: CheckpointNeeds {
            lazy: manifest.needs.lazy,
            tcp: manifest.needs.tcp,
            volumes: manifest.needs.volumes.clone(),
            criu: manifest.criu.clone(),
            kernel: manifest.kernel.clone(),
            cpu_features: manifest.cpu_features.iter().cloned().collect(),
        },
    })
}

fn port(claim: &crate::daemon::networks::ports::Claim) -> String {
    format!("{}:{}->{}/{}", claim.host, claim.host_port, claim.port, claim.protocol.name())
}

fn places(manifest: &Manifest) -> BTreeMap<String, CheckpointPlace> {
    let place = |given: &crate::daemon::networks::network::Given| CheckpointPlace {
        ip_address: given.ipv4.map(|subnet| subnet.address.to_string()).unwrap_or_default(),
        global_ipv6_address: given.ipv6.map(|subnet| subnet.address.to_string()).unwrap_or_default(),
        mac_address: given.mac.clone(),
    };
    manifest.places.networks.iter().map(|(name, given)| (name.clone(), place(given))).collect()
}

/// By what they are for. Of a checkpoint that does not say, the directory is asked.
fn sizes(dir: &Path, manifest: &Manifest) -> Result<CheckpointSizes> {
    let mut sizes = CheckpointSizes::default();
    let files = match manifest.files.is_empty() {
        false => manifest.files.iter().map(|(name, file)| (name.clone(), file.bytes)).collect(),
        true => super::seal::sizes(dir)?,
    };
    for (name, bytes) in files {
        let part = match name.as_str() {
            name if name.starts_with("images/pages-") => &mut sizes.memory,
            name if name.starts_with("images/") => &mut sizes.processes,
            "rootfs.tar" => &mut sizes.root_filesystem,
            "shm.tar" => &mut sizes.shared_memory,
            name if name.starts_with("tmpfs-") => &mut sizes.tmpfs,
            name if name.starts_with("volumes/") => &mut sizes.volumes,
            _ => &mut sizes.other,
        };
        *part += bytes;
        sizes.total += bytes;
    }
    Ok(sizes)
}

/// What the container has mounted that is not in the checkpoint.
fn left_out(engine: &Engine, record: &Record, manifest: &Manifest) -> Vec<CheckpointLeftOut> {
    let mut found = Vec::new();
    for mount in &record.mounts {
        let reason = match mount.kind.as_str() {
            "bind" => "it is the host's",
            "volume" if manifest.volumes.iter().any(|saved| saved.name == mount.name) => continue,
            "volume" => match engine.volumes.get(&mount.name) {
                Ok(volume) => volumes::why_not(mount, &volume).unwrap_or("it was left out on request"),
                Err(_) => "it was left out",
            },
            _ => continue,
        };
        found.push(CheckpointLeftOut {
            kind: mount.kind.clone(),
            source: if mount.name.is_empty() { mount.source.clone() } else { mount.name.clone() },
            destination: mount.destination.clone(),
            reason: reason.to_owned(),
        });
    }
    found
}
