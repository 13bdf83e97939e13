//! What podman is told of a container: its own `config.dump`, and a runtime specification that its runtime restores by.
//!
//! What is not said is podman's default there: the cgroup manager, and where it keeps things. The runtime must be said, and
//! podman restores with no other.
//!
//! Sources: podman's `libpod/container_config.go`, the OCI runtime specification.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::daemon::containers::checkpoint::archive::foreign;
use crate::daemon::containers::checkpoint::manifest::Manifest;
use crate::daemon::containers::container::Record;
use crate::daemon::containers::spec;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::reference::Reference;
use crate::daemon::networks::network::Given;
use crate::runtime::capabilities;
use crate::runtime::criu::images::Credentials;
use crate::runtime::shim::checkpoint::release::Lacks;
use crate::runtime::signal;
use crate::runtime::spec::{Mount, Spec, User};

/// podman's default network.
const NETWORK: &str = "podman";
/// Where a podman that is not told otherwise has its volumes: its own archives say so, too.
const VOLUMES: &str = "/var/lib/containers/storage/volumes";
/// podman's default runtime, which gives what is external the keys that it has here.
const RUNTIME: &str = "crun";
/// What a container is stopped by if it does not say.
const TERM: i32 = 15;
/// Mounts that podman has for every container, or that its images have no more.
const PODMANS: [&str; 5] = ["/dev/shm", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/sys/fs/cgroup"];

/// Refuses what no container of podman's can be.
///
/// # Errors
/// Conflict.
pub fn check(record: &Record, manifest: &Manifest) -> Result<()> {
    let host = &record.host_config;
    let reason = if spec::has_reaper(record) {
        "its first process is the init of --init, which is this dewar's"
    } else if host.network_mode.starts_with("container:") {
        "it shares another container's network"
    } else if !matches!(host.ipc_mode.as_str(), "" | "private" | "shareable" | "none") {
        "it shares an IPC namespace (--ipc)"
    } else if manifest.needs.lazy {
        "its memory is elsewhere"
    } else {
        return Ok(());
    };
    Err(Error::conflict(format!("{reason}, which podman cannot restore")))
}

/// What podman does not have for it: without a network it has nothing to say in `resolv.conf`, and leaves the namespace to
/// CRIU.
pub fn lacks(record: &Record) -> Lacks<'static> {
    if record.host_config.network_mode != "none" {
        return Lacks::default();
    }
    let is_given = record.mounts.iter().any(|mount| mount.destination == "/etc/resolv.conf");
    Lacks { mounts: if is_given { &[] } else { &["/etc/resolv.conf"] }, network: true }
}

/// In what networks podman is to have it, and at which addresses: in the default one at any, for it has another subnet.
fn places(manifest: &Manifest) -> BTreeMap<String, Given> {
    let named = manifest.places.networks.iter().filter(|(name, _)| !matches!(name.as_str(), "none" | "host"));
    named
        .map(|(name, given)| match name.as_str() {
            "bridge" => (NETWORK.to_owned(), Given { ipv4: None, ipv6: None, ..given.clone() }),
            name => (name.to_owned(), given.clone()),
        })
        .collect()
}

/// `network.status`.
pub fn networks(manifest: &Manifest) -> Vec<u8> {
    foreign::networks(&places(manifest)).to_string().into_bytes()
}

/// The ports of the host that lead to it.
fn ports(manifest: &Manifest) -> Vec<Value> {
    let mut ports = Vec::new();
    for claim in manifest.places.ports.iter().filter(|claim| claim.host_port != 0) {
        let address = if claim.host.is_unspecified() { String::new() } else { claim.host.to_string() };
        let port = json!({
            "host_ip": address,
            "container_port": claim.port,
            "host_port": claim.host_port,
            "range": 1,
            "protocol": claim.protocol.name(),
        });
        // For all addresses there are two claims, one of each family.
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports
}

/// The image in full: podman has no short names.
fn image(manifest: &Manifest) -> String {
    match Reference::parse(&manifest.image) {
        Ok(name) => name.with_default_tag().to_string(),
        // It was created by an id.
        Err(_) => manifest.image_id.trim_start_matches("sha256:").to_owned(),
    }
}

/// `config.dump`.
pub fn config(manifest: &Manifest, record: &Record) -> Vec<u8> {
    let (host, config) = (&record.host_config, &record.config);
    let volumes = record.mounts.iter().filter(|mount| mount.kind == "volume").map(|mount| {
        json!({
            "volumeName": mount.name,
            "dest": mount.destination,
            "options": [if mount.rw { "rw" } else { "ro" }, "rprivate", "rbind"],
            "isAnonymous": mount.is_anonymous,
            "subPath": mount.subpath,
        })
    });
    let networks = places(manifest).into_iter().map(|(name, given)| {
        let interface = if given.interface.is_empty() { "eth0".to_owned() } else { given.interface };
        (name, json!({"interface_name": interface}))
    });
    let mode = match host.network_mode.as_str() {
        mode @ ("host" | "none") => mode,
        _ => "bridge",
    };
    let stop_signal = config.stop_signal.as_deref().and_then(signal::number).unwrap_or(TERM);
    let mut text = json!({
        "id": manifest.container_id,
        "name": manifest.container_name,
        "rootfsImageID": manifest.image_id.trim_start_matches("sha256:"),
        "rootfsImageName": image(manifest),
        "rawImageName": manifest.image,
        // checkpointctl's own names for two of the three.
        "rootfsImage": manifest.image,
        "rootfsImageRef": manifest.image_id,
        "runtime": RUNTIME,
        "checkpointedTime": manifest.created,
        "createdTime": record.created,
        "idMappingsOptions": {"HostUIDMapping": true, "HostGIDMapping": true},
        "shmSize": host.shm_size,
        "namedVolumes": volumes.collect::<Vec<Value>>(),
        // Accounts are those of the image.
        "passwd": false,
        "privileged": host.privileged,
        "createNetNS": mode == "bridge",
        "networkMode": mode,
        "newNetworks": networks.collect::<Map<String, Value>>(),
        "newPortMappings": ports(manifest),
        "dnsSearch": host.dns_search,
        "dnsOption": host.dns_options,
        "hostsAdd": host.extra_hosts,
        "command": config.cmd,
        "entrypoint": config.entrypoint,
        "user": config.user,
        "groups": host.group_add,
        "labels": config.labels,
        "stdin": config.open_stdin,
        "stopSignal": stop_signal,
        "stopTimeout": config.stop_timeout.unwrap_or(10).max(0),
        "cgroupParent": host.resources.cgroup_parent,
        "logDriver": "k8s-file",
        "umask": "0022",
        "healthcheck": config.healthcheck,
    });
    let dns: Vec<&String> = host.dns.iter().filter(|server| !server.is_empty()).collect();
    if !dns.is_empty() {
        text["dnsServer"] = json!(dns);
    }
    if matches!(host.restart_policy.name.as_str(), "always" | "unless-stopped" | "on-failure") {
        text["restart_policy"] = json!(host.restart_policy.name);
        text["restart_retries"] = json!(host.restart_policy.maximum_retry_count.max(0));
    }
    text.to_string().into_bytes()
}

/// `spec.dump`: what the container was made of here, without what is podman's there.
pub fn spec(manifest: &Manifest, record: &Record, mut spec: Spec, user: &Credentials) -> Vec<u8> {
    let own = |destination: &str| record.mounts.iter().find(|mount| mount.destination == destination);
    spec.mounts
        .retain(|mount| own(&mount.destination).is_some() || !PODMANS.contains(&mount.destination.as_str()));
    for mount in &mut spec.mounts {
        let Some(own) = own(&mount.destination).filter(|own| own.kind != "tmpfs") else { continue };
        if own.kind == "volume" {
            mount.source = format!("{VOLUMES}/{}/_data", own.name);
            if !own.subpath.is_empty() {
                mount.source = format!("{}/{}", mount.source, own.subpath);
            }
        }
        *mount = Mount { options: options(own.rw, &own.propagation), ..std::mem::take(mount) };
    }
    spec.linux.namespaces.iter_mut().for_each(|namespace| namespace.path = None);
    spec.process.user = User {
        uid: user.uids[0],
        gid: user.gids[0],
        additional_gids: user.groups.clone(),
        umask: Some(0o022),
        ..User::default()
    };
    // As many as its processes had, which may be less than it asked for.
    let held = capabilities::names(user.bounding);
    if let Some(sets) = &mut spec.process.capabilities {
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.retain(|name| held.contains(name));
        }
    }
    "rootfs".clone_into(&mut spec.root.path);
    for (key, value) in [
        ("io.container.manager", "libpod"),
        ("org.criu.checkpoint.engine.name", "dewar"),
        ("org.criu.checkpoint.engine.version", &manifest.engine),
    ] {
        spec.annotations.insert(key.to_owned(), value.to_owned());
    }
    json!(spec).to_string().into_bytes()
}

/// Of a bind mount, in words that every runtime knows.
fn options(rw: bool, propagation: &str) -> Vec<String> {
    let propagation = if propagation.is_empty() { "rprivate" } else { propagation };
    ["rbind", propagation, if rw { "rw" } else { "ro" }].map(str::to_owned).to_vec()
}
