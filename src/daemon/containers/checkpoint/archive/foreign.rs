//! What other engines and tools look for in a checkpoint's archive: derived from the manifest, in their words.
//!
//! Sources: podman's `libpod.ContainerConfig`, checkpointctl's `lib/metadata.go`, the OCI runtime spec.

use std::collections::BTreeMap;
use std::io;

use serde_json::{Value, json};

use super::Whiteouts;
use crate::daemon::containers::checkpoint::manifest::Manifest;
use crate::daemon::containers::container::Record;
use crate::daemon::containers::spec;
use crate::daemon::networks::network::Given;

/// The documents, by name.
///
/// # Errors
/// None that happens: only JSON is made.
pub fn documents(manifest: &Manifest, whiteouts: &Whiteouts) -> io::Result<Vec<(&'static str, Vec<u8>)>> {
    let record = manifest.record.as_deref().cloned().unwrap_or_default();
    let mut documents = vec![
        ("config.dump", serde_json::to_vec(&config(manifest, &record))?),
        ("spec.dump", serde_json::to_vec(&spec(manifest, &record))?),
        ("network.status", serde_json::to_vec(&networks(&manifest.places.networks))?),
    ];
    if !whiteouts.deleted.is_empty() {
        let absolute: Vec<String> = whiteouts.deleted.iter().map(|path| format!("/{path}")).collect();
        documents.push(("deleted.files", serde_json::to_vec(&absolute)?));
    }
    Ok(documents)
}

/// podman's configuration of a container, as far as there is something to say.
fn config(manifest: &Manifest, record: &Record) -> Value {
    let volumes: Vec<Value> = record
        .mounts
        .iter()
        .filter(|mount| mount.kind == "volume")
        .map(|mount| {
            json!({
                "volumeName": mount.name,
                "dest": mount.destination,
                "options": [if mount.rw { "rw" } else { "ro" }],
                "isAnonymous": mount.is_anonymous,
            })
        })
        .collect();
    let image_id = manifest.image_id.strip_prefix("sha256:").unwrap_or(&manifest.image_id);
    json!({
        "id": manifest.container_id,
        "name": manifest.container_name,
        "rootfsImageID": image_id,
        "rootfsImageName": manifest.image,
        "rawImageName": manifest.image,
        // checkpointctl's own names for the three.
        "rootfsImage": manifest.image,
        "rootfsImageRef": manifest.image_id,
        "runtime": "dewar",
        "createdTime": record.created,
        "checkpointedTime": manifest.created,
        "restored": false,
        "command": record.config.cmd,
        "entrypoint": record.config.entrypoint,
        "labels": record.config.labels,
        "stdin": record.config.open_stdin,
        "user": record.config.user,
        "shmSize": record.host_config.shm_size,
        "namedVolumes": volumes,
    })
}

/// An OCI spec that says what ran, not how it was confined.
fn spec(manifest: &Manifest, record: &Record) -> Value {
    // What the generated files are of is nobody's business elsewhere.
    let own = spec::elsewhere(record).map(|spec| spec.mounts).unwrap_or_default().into_iter();
    let own = own.filter(|own| own.kind != "bind" && own.kind != "tmpfs" || own.destination == "/dev");
    let own = own.map(|own| json!(own));
    let given = record.mounts.iter().map(|mount| {
        json!({
            "destination": mount.destination,
            "type": if mount.kind == "tmpfs" { "tmpfs" } else { "bind" },
            "source": mount.source,
            "options": [if mount.rw { "rw" } else { "ro" }],
        })
    });
    let mounts: Vec<Value> = own.chain(given).collect();
    let args: Vec<&String> = std::iter::once(&record.path).chain(&record.args).collect();
    json!({
        "ociVersion": "1.0.0",
        "process": {
            "terminal": record.config.tty,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": record.config.env,
            "cwd": if record.config.working_dir.is_empty() { "/" } else { &record.config.working_dir },
        },
        "root": {"path": "rootfs"},
        "hostname": record.config.hostname,
        "mounts": mounts,
        "annotations": {
            // checkpointctl shows most of what it knows for this one.
            "io.container.manager": "libpod",
            "org.criu.checkpoint.engine.name": "dewar",
            "org.criu.checkpoint.engine.version": manifest.engine,
        },
        "linux": {},
    })
}

/// Where it was in networks, as netavark reports it; `null` for nowhere.
pub fn networks(places: &BTreeMap<String, Given>) -> Value {
    let status = |given: &Given| {
        let v4 = given.ipv4.map(|subnet| (subnet, given.gateway.map(|gateway| gateway.to_string())));
        let v6 = given.ipv6.map(|subnet| (subnet, given.ipv6_gateway.map(|gateway| gateway.to_string())));
        let subnets: Vec<Value> = [v4, v6]
            .into_iter()
            .flatten()
            .map(|(subnet, gateway)| {
                json!({"ipnet": format!("{}/{}", subnet.address, subnet.prefix), "gateway": gateway})
            })
            .collect();
        let interface = if given.interface.is_empty() { "eth0" } else { &given.interface };
        json!({"interfaces": {interface: {"subnets": subnets, "mac_address": given.mac}}})
    };
    // `none` and `host` are no networks to others.
    let is_place = |given: &Given| given.ipv4.is_some() || given.ipv6.is_some() || !given.mac.is_empty();
    let places = places.iter().filter(|(_, given)| is_place(given));
    let networks: serde_json::Map<String, Value> =
        places.map(|(name, given)| (name.clone(), status(given))).collect();
    if networks.is_empty() { Value::Null } else { Value::Object(networks) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn places_in_networks_are_told_as_netavark_does() {
        let fixture = "src/daemon/containers/checkpoint/fixtures/v1";
        let manifest = Manifest::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join(fixture)).unwrap();
        let (name, given) = manifest.places.networks.first_key_value().unwrap();
        let subnet = given.ipv4.unwrap();
        let interface = &networks(&manifest.places.networks)[name]["interfaces"]["eth0"];
        assert_eq!(interface["mac_address"], json!(given.mac));
        assert_eq!(interface["subnets"][0]["ipnet"], format!("{}/{}", subnet.address, subnet.prefix));
        assert_eq!(networks(&BTreeMap::new()), Value::Null);
    }
}
