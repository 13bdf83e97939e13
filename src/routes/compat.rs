//! Older API versions: requests are lifted to the newest shape, answers lowered to their caller's.
//!
//! Everything else knows one shape, that of [`API_VERSION`](crate::http::api::API_VERSION). Each line of [`LOWER`]
//! undoes one change of an answer, newest first, for callers older than the change; each `before` of a lift
//! takes out what a version had not got, or says what its silence meant. Both are ordered by version, so that
//! the next change goes on top.
//!
//! Not lifted: `CgroupnsMode`, whose default is private on every host and for every version, because a container
//! in the host's cgroup namespace cannot be thawed.
//!
//! Not here: which operations a version has (`http::api::SINCE`), how a stream is framed (`container::stream_type`).
//!
//! Source: Engine API version history, 1.24 to 1.51.

use serde::Serialize;
use serde_json::{Value, json};

use crate::daemon::error::{Error, Result};
use crate::http::api::container::{ContainerCreate, ContainerUpdate};
use crate::http::api::exec::ExecCreate;
use crate::http::api::network::{NetworkConnect, NetworkCreate};
use crate::http::api::{ApiVersion, Endpoint, Shape, image, stats};
use crate::http::reply::Reply;

/// One change of an answer: the version that made it, where, and how an older caller's looks.
struct Lower(u16, &'static str, fn(&mut Value));

static LOWER: &[Lower] = &[
    // 1.51 counts the containers of an image.
    Lower(51, "ImageList", |list| each(list, |image| image["Containers"] = json!(-1))),
    // 1.50 left out of an image what only containers have.
    Lower(50, "ImageInspect", |image| {
        for name in ["AttachStderr", "AttachStdin", "AttachStdout", "OpenStdin", "StdinOnce", "Tty"] {
            image["Config"][name] = json!(false);
        }
        for name in ["Domainname", "Hostname", "Image"] {
            image["Config"][name] = json!("");
        }
    }),
    Lower(50, "SystemInfo", |info| {
        info["BridgeNfIptables"] = json!(false);
        info["BridgeNfIp6tables"] = json!(false);
    }),
    // 1.49 expects no commits of other programs.
    Lower(49, "SystemInfo", |info| {
        for name in ["ContainerdCommit", "RuncCommit", "InitCommit"] {
            info[name]["Expected"] = info[name]["ID"].clone();
        }
        for name in ["AllowNondistributableArtifactsCIDRs", "AllowNondistributableArtifactsHostnames"] {
            info["RegistryConfig"][name] = Value::Null;
        }
    }),
    // 1.46 lists annotations.
    Lower(46, "ContainerList", |list| {
        each(list, |container| drop(take(&mut container["HostConfig"], "Annotations")))
    }),
    // 1.45 keeps a container's own names out of its aliases, and images without the container they came from.
    Lower(45, "ContainerInspect", |container| {
        let id: String = container["Id"].as_str().unwrap_or_default().chars().take(12).collect();
        let names = [json!(id), container["Config"]["Hostname"].clone()];
        let networks = container["NetworkSettings"]["Networks"].as_object_mut();
        for (name, endpoint) in networks.into_iter().flatten() {
            // Only networks of one's own have aliases.
            if matches!(name.as_str(), "bridge" | "host" | "none") {
                continue;
            }
            let mut aliases = endpoint["Aliases"].as_array().cloned().unwrap_or_default();
            for name in &names {
                if !aliases.contains(name) {
                    aliases.push(name.clone());
                }
            }
            endpoint["Aliases"] = json!(aliases);
        }
    }),
    Lower(45, "ImageInspect", |image| {
        image["Container"] = json!("");
        image["ContainerConfig"] = json!({
            "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false,
            "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": null,
            "Image": "", "Volumes": null, "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": null,
        });
    }),
    // 1.44 has one size of an image, and no creation where none is known.
    Lower(44, "ImageList", |list| each(list, virtual_size)),
    Lower(44, "ImageInspect", |image| {
        virtual_size(image);
        if image["Created"].is_null() {
            image["Created"] = json!("0001-01-01T00:00:00Z");
        }
    }),
    Lower(44, "SystemDataUsage", |usage| each(&mut usage["Images"], virtual_size)),
    // 1.43 leaves the names of a nameless image empty.
    Lower(43, "ImageList", |list| {
        each(list, |image| {
            let is_empty = |names: &Value| names.as_array().is_none_or(Vec::is_empty);
            if is_empty(&image["RepoTags"]) && is_empty(&image["RepoDigests"]) {
                image["RepoTags"] = json!(["<none>:<none>"]);
                image["RepoDigests"] = json!(["<none>@<none>"]);
            }
        });
    }),
    // 1.42 limits no kernel memory.
    Lower(42, "SystemInfo", |info| {
        info["KernelMemory"] = json!(false);
        info["KernelMemoryTCP"] = json!(false);
    }),
    // 1.25 tells security options from each other by name.
    Lower(25, "SystemInfo", |info| {
        info["ExecutionDriver"] = json!("<not supported>");
        each(&mut info["SecurityOptions"], |option| {
            let text = option.as_str().unwrap_or_default();
            *option = json!(text.split(',').next().unwrap_or_default().trim_start_matches("name="));
        });
    }),
];

fn each(list: &mut Value, change: impl Fn(&mut Value)) {
    list.as_array_mut().into_iter().flatten().for_each(change);
}

fn take(object: &mut Value, name: &str) -> Option<Value> {
    object.as_object_mut()?.remove(name)
}

fn virtual_size(image: &mut Value) {
    image["VirtualSize"] = image["Size"].clone();
}

/// The endpoint's answer, in the shape `version` knows.
pub fn reply<Q, B, R: Serialize>(
    endpoint: &Endpoint<Q, B, R>,
    version: ApiVersion,
    answer: &R,
) -> Result<Reply> {
    let id = endpoint.operation.id;
    let is_due = |step: &&Lower| step.1 == id && before(version, step.0);
    if endpoint.operation.shape != Shape::Json || !LOWER.iter().any(|step| is_due(&step)) {
        return Ok(endpoint.reply(answer));
    }
    let mut value = serde_json::to_value(answer)
        .map_err(|cause| Error::system(format!("encode the answer of {id}"), cause))?;
    LOWER.iter().filter(is_due).for_each(|step| (step.2)(&mut value));
    Ok(Reply::json(endpoint.operation.status, &value))
}

/// Whether `version` is older than 1.`minor`.
pub fn before(version: ApiVersion, minor: u16) -> bool {
    version < ApiVersion { major: 1, minor }
}

/// What a create of an older version means in the newest one.
///
/// # Errors
/// InvalidParameter for what the version does not have and what cannot be ignored without harm.
pub fn lift_create(version: ApiVersion, request: &mut ContainerCreate) -> Result<()> {
    let before = |minor| before(version, minor);
    let host = &mut request.host_config;
    let needs = |what: &str, minor| Err(Error::invalid(format!("{what} needs API v1.{minor} or newer")));
    for mount in &mut host.mounts {
        if before(48) && mount.kind == "image" {
            return needs("Mount type \"Image\"", 48);
        }
        if let Some(tmpfs) = &mut mount.tmpfs_options
            && before(46)
        {
            tmpfs.options.clear();
        }
        if before(45) && mount.volume_options.as_ref().is_some_and(|options| !options.subpath.is_empty()) {
            return needs("VolumeOptions.Subpath", 45);
        }
        if let Some(bind) = &mut mount.bind_options {
            if before(44) && bind.read_only_force_recursive {
                return needs("BindOptions.ReadOnlyForceRecursive", 44);
            }
            if before(42) {
                bind.create_mountpoint = false;
            }
            if before(40) {
                bind.non_recursive = false;
            }
        }
        if before(42) {
            // Options of another type of mount were not looked at.
            match mount.kind.as_str() {
                "bind" => (mount.volume_options, mount.tmpfs_options) = (None, None),
                "volume" => (mount.bind_options, mount.tmpfs_options) = (None, None),
                "tmpfs" => (mount.bind_options, mount.volume_options) = (None, None),
                _ => {}
            }
        }
    }
    if before(48) {
        for endpoint in request.networking_config.endpoints_config.values_mut() {
            endpoint.gw_priority = 0;
        }
    }
    if before(44) {
        let networks: Vec<&str> =
            request.networking_config.endpoints_config.keys().map(String::as_str).collect();
        if networks.len() > 1 {
            return Err(Error::invalid(format!(
                "Container cannot be connected to network endpoints: {}",
                networks.join(", ")
            )));
        }
        if let Some(health) = &mut request.config.healthcheck {
            health.start_interval = 0;
        }
        for endpoint in request.networking_config.endpoints_config.values_mut() {
            endpoint.mac_address.clear();
        }
    }
    if before(43) {
        host.annotations.clear();
    }
    if before(42) {
        host.console_size = [0, 0];
    }
    if before(40) && host.ipc_mode.is_empty() {
        host.ipc_mode = "shareable".to_owned();
    }
    if before(25) {
        // The client removes its container itself.
        host.auto_remove = false;
    }
    Ok(())
}

/// What an update of an older version means in the newest one.
pub fn lift_update(version: ApiVersion, request: &mut ContainerUpdate) {
    if before(version, 40) {
        request.resources.pids_limit = None;
    }
}

/// What an exec of an older version means in the newest one.
pub fn lift_exec(version: ApiVersion, request: &mut ExecCreate) {
    if before(version, 42) {
        request.console_size = None;
    }
}

/// What a network of an older version means in the newest one: IPv4 could not be turned off before 1.48.
pub fn lift_network_create(version: ApiVersion, request: &mut NetworkCreate) {
    if before(version, 48) {
        request.enable_ipv4 = None;
    }
}

/// What a connect of an older version means in the newest one.
pub fn lift_network_connect(version: ApiVersion, request: &mut NetworkConnect) {
    let Some(settings) = &mut request.endpoint_config else { return };
    if before(version, 48) {
        settings.gw_priority = 0;
    }
    if before(version, 44) {
        settings.mac_address.clear();
    }
}

/// The signal of a stop or restart, which had none before 1.42.
pub fn stop_signal(version: ApiVersion, signal: &str) -> &str {
    if before(version, 42) { "" } else { signal }
}

/// `until` of logs, unknown before 1.35.
pub fn lift_logs(version: ApiVersion, query: &mut crate::http::api::container::LogsQuery) {
    if before(version, 35) {
        query.until.clear();
    }
}

/// A single sample at once, unknown before 1.41.
pub fn lift_stats(version: ApiVersion, query: &mut stats::StatsQuery) {
    if before(version, 41) {
        query.one_shot = false;
    }
}

/// `filter=NAME` of the image list, gone with 1.41.
pub fn lift_images(version: ApiVersion, query: &mut image::ListQuery) {
    if before(version, 41) && !query.filter.is_empty() {
        query.filters.add("reference", &query.filter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api::container::{CONTAINER_LIST, ContainerSummary};
    use crate::http::api::image::{IMAGE_LIST, ImageSummary};

    const fn version(minor: u16) -> ApiVersion {
        ApiVersion { major: 1, minor }
    }

    fn images(minor: u16) -> Value {
        let image = ImageSummary { containers: 2, size: 7, ..ImageSummary::default() };
        let reply = reply(&IMAGE_LIST, version(minor), &vec![image]).unwrap();
        serde_json::from_slice::<Value>(reply.body().unwrap()).unwrap()[0].take()
    }

    #[test]
    fn images_look_as_each_version_knows_them() {
        assert_eq!(images(51)["Containers"], 2);
        assert_eq!(images(50)["Containers"], -1);
        assert!(images(44)["VirtualSize"].is_null());
        assert_eq!(images(43)["VirtualSize"], 7);
        assert_eq!(images(43)["RepoTags"], json!([]));
        assert_eq!(images(42)["RepoTags"], json!(["<none>:<none>"]));
        assert_eq!(images(24)["RepoDigests"], json!(["<none>@<none>"]));
    }

    #[test]
    fn annotations_are_listed_from_1_46() {
        let mut container = ContainerSummary::default();
        container.host_config.annotations.insert("a".to_owned(), "b".to_owned());
        let list = vec![container];
        let host = |minor| {
            let reply = reply(&CONTAINER_LIST, version(minor), &list).unwrap();
            serde_json::from_slice::<Value>(reply.body().unwrap()).unwrap()[0]["HostConfig"].take()
        };
        assert_eq!(host(46)["Annotations"]["a"], "b");
        assert_eq!(host(45), json!({"NetworkMode": ""}));
    }

    #[test]
    fn a_containers_names_were_aliases_in_its_own_networks() {
        let lower = LOWER.iter().find(|step| step.0 == 45 && step.1 == "ContainerInspect").unwrap().2;
        let mut container = json!({
            "Id": "0123456789abcdef", "Config": {"Hostname": "web"},
            "NetworkSettings": {"Networks": {"front": {"Aliases": ["web"]}, "bridge": {"Aliases": null}}},
        });
        lower(&mut container);
        let networks = &container["NetworkSettings"]["Networks"];
        assert_eq!(networks["front"]["Aliases"], json!(["web", "0123456789ab"]));
        assert!(networks["bridge"]["Aliases"].is_null());
    }

    #[test]
    fn a_create_means_what_its_version_meant() {
        let lifted = |minor, body: Value| {
            let mut request = crate::http::api::decode(body.to_string().as_bytes()).unwrap();
            lift_create(version(minor), &mut request).map(|()| request)
        };
        let ipc_mode = |minor| lifted(minor, json!({})).unwrap().host_config.ipc_mode;
        assert_eq!(
            (ipc_mode(51).as_str(), ipc_mode(40).as_str(), ipc_mode(39).as_str()),
            ("", "", "shareable")
        );
        let body = json!({
            "Healthcheck": {"StartInterval": 5},
            "HostConfig": {"ConsoleSize": [24, 80], "Annotations": {"a": "b"}, "AutoRemove": true},
        });
        let of = |minor| {
            let request = lifted(minor, body.clone()).unwrap();
            let host = request.host_config;
            let start = request.config.healthcheck.map_or(0, |health| health.start_interval);
            (start, host.annotations.len(), host.console_size, host.auto_remove)
        };
        assert_eq!(of(44), (5, 1, [24, 80], true));
        assert_eq!(of(43), (0, 1, [24, 80], true));
        assert_eq!(of(42), (0, 0, [24, 80], true));
        assert_eq!(of(41), (0, 0, [0, 0], true));
        assert_eq!(of(24), (0, 0, [0, 0], false));
        let two = json!({"NetworkingConfig": {"EndpointsConfig": {"a": {}, "b": {}}}});
        assert!(lifted(43, two.clone()).unwrap_err().message.contains("a, b"));
        lifted(44, two).unwrap();
        let mount = |options: Value| json!({"HostConfig": {"Mounts": [options]}});
        let subpath = mount(json!({"Type": "volume", "VolumeOptions": {"Subpath": "x"}}));
        assert!(lifted(44, subpath.clone()).unwrap_err().message.contains("needs API v1.45"));
        lifted(45, subpath).unwrap();
        let mixed = mount(json!({"Type": "bind", "TmpfsOptions": {"Mode": 1}}));
        assert!(lifted(41, mixed.clone()).unwrap().host_config.mounts[0].tmpfs_options.is_none());
        assert!(lifted(42, mixed).unwrap().host_config.mounts[0].tmpfs_options.is_some());
    }

    /// A step for an operation that is not there would never be taken.
    #[test]
    fn steps_are_in_order_and_name_operations() {
        assert!(LOWER.is_sorted_by_key(|step| std::cmp::Reverse(step.0)));
        for step in LOWER {
            assert!(crate::routes::ROUTES.iter().any(|route| route.operation.id == step.1), "{}", step.1);
        }
    }
}
