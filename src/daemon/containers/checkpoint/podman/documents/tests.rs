//! Containers of podman's as records, and those that cannot be.

use serde_json::json;

use super::{Value, describe, places};

const ID: &str = "7dc3e0a3678274853c1f31930f94e3d0fbfab9e5ad4c58c32e66a0ce053dd6f5";

fn config() -> Value {
    json!({
        "id": ID, "name": "web", "rootfsImageName": "docker.io/library/busybox:latest",
        "rootfsImageID": "5aa484", "stopSignal": 15, "stopTimeout": 10, "stdin": true, "labels": {"a": "b"},
        "privileged": false, "createNetNS": true, "shmSize": 65_536_000, "restart_policy": "always",
        "namedVolumes": [{"volumeName": "data", "dest": "/data", "options": ["rprivate", "ro"]}],
        "newPortMappings": [
            {"host_ip": "", "container_port": 80, "host_port": 8080, "range": 2, "protocol": "tcp"},
        ],
        "newNetworks": {"podman": {}, "inner": {}}, "pod": null,
    })
}

fn spec() -> Value {
    let own = |name: &str| format!("/run/containers/storage/vfs-containers/{ID}/userdata/{name}");
    json!({
        "process": {
            "terminal": true, "args": ["sh", "-c", "true"], "env": ["A=b"], "cwd": "/srv",
            "capabilities": {"bounding": ["CAP_CHOWN"]}, "noNewPrivileges": true,
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512}],
        },
        "root": {"path": "/x", "readonly": true}, "hostname": "web1",
        "annotations": {"io.container.manager": "libpod"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs",
             "options": ["rw", "size=1m", "tmpcopyup", "rprivate"]},
            {"destination": "/etc/hosts", "type": "bind", "source": own("hosts"), "options": ["bind"]},
            {"destination": "/dev/shm", "type": "bind", "source": own("shm"), "options": ["bind"]},
            {"destination": "/run/.containerenv", "type": "bind", "source": own(".containerenv")},
            {"destination": "/run/secrets", "type": "bind", "source": own("secrets")},
            {"destination": "/data", "type": "bind", "source": "/var/lib/volumes/data/_data"},
            {"destination": "/host", "type": "bind", "source": "/srv/x", "options": ["rbind", "ro", "rslave"]},
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "network", "path": "/run/netns/netns-1"},
            ],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}, "maskedPaths": ["/proc/x"],
            "resources": {"memory": {"limit": 1_048_576}, "pids": {"limit": 99}},
        },
    })
}

#[test]
fn a_container_of_podmans_becomes_a_record() {
    let found = describe(&config(), &spec()).unwrap();
    assert_eq!((found.name.as_str(), found.image_id.as_str()), ("web", "sha256:5aa484"));
    let (record, host) = (&found.record, &found.record.host_config);
    assert_eq!((record.path.as_str(), record.args.len()), ("sh", 2));
    let config = &record.config;
    assert!(config.tty && config.open_stdin);
    assert_eq!((config.hostname.as_str(), config.working_dir.as_str()), ("web1", "/srv"));
    assert_eq!(config.stop_signal.as_deref(), Some("15"));
    assert_eq!(host.network_mode, "default");
    assert_eq!((host.ipc_mode.as_str(), host.uts_mode.as_str()), ("", ""));
    assert_eq!(host.cap_add.as_deref(), Some(&["CAP_CHOWN".to_owned()][..]));
    assert_eq!(host.security_opt.as_deref(), Some(&["no-new-privileges".to_owned()][..]));
    assert_eq!((host.resources.memory, host.resources.pids_limit), (1 << 20, Some(99)));
    assert_eq!(host.resources.ulimits[0].name, "nofile");
    assert_eq!(host.tmpfs["/scratch"], "rw,size=1m");
    assert_eq!(host.port_bindings["81/tcp"].as_ref().unwrap()[0].host_port, "8081");
    let mounts: Vec<(&str, &str, bool)> = record
        .mounts
        .iter()
        .map(|mount| (mount.kind.as_str(), mount.destination.as_str(), mount.rw))
        .collect();
    assert_eq!(mounts, [("volume", "/data", false), ("bind", "/host", false)]);
    assert_eq!(host.binds.as_deref().unwrap(), ["data:/data:ro", "/srv/x:/host:ro"]);
    let around = &found.surroundings;
    assert!(around.has_netns && around.masked.contains("/proc/x"));
    assert_eq!(
        around.binds.iter().collect::<Vec<_>>(),
        ["/data", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/host"]
    );
    assert_eq!(around.dropped.iter().collect::<Vec<_>>(), ["/run/.containerenv", "/run/secrets"]);
    assert_eq!(found.warnings.len(), 2, "{:?}", found.warnings);
}

#[test]
fn what_cannot_be_here_is_named() {
    let refusal = |change: &dyn Fn(&mut Value, &mut Value)| {
        let (mut config, mut spec) = (config(), spec());
        change(&mut config, &mut spec);
        describe(&config, &spec).unwrap_err().message
    };
    let set = |key: &'static str, value: Value| {
        refusal(&move |config: &mut Value, _: &mut Value| config[key] = value.clone())
    };
    assert!(set("pod", json!("0123456789abcdef")).contains("it is in pod 0123456789ab"));
    assert!(set("netNsCtr", json!("abc")).contains("the network namespace of container abc"));
    assert!(set("createNetNS", json!(false)).contains("/run/netns/netns-1 of the other host"));
    assert!(set("rootfs", json!("/srv/root")).contains("directory /srv/root"));
    let add = |kind: &str| {
        let namespace = json!({"type": kind});
        refusal(&move |_: &mut Value, spec: &mut Value| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(namespace.clone());
        })
    };
    assert!(add("user").contains("user namespace"));
    let alone = refusal(&|_, spec| spec["linux"]["namespaces"] = json!([{"type": "mount"}]));
    assert!(alone.contains("process ids"), "{alone}");
    let crio = refusal(&|_, spec| spec["annotations"]["io.container.manager"] = json!("cri-o"));
    assert!(crio.contains("cri-o wrote it"), "{crio}");
    let overlay = refusal(&|_, spec| {
        spec["mounts"][2] = json!({"destination": "/o", "type": "overlay", "source": "/src"});
    });
    assert!(overlay.contains("at /o is an overlay"), "{overlay}");
}

#[test]
fn documents_without_sense_are_refused() {
    for (config, spec) in [
        (json!(null), json!(null)),
        (json!([1]), json!({"annotations": {"io.container.manager": "libpod"}})),
        (config(), json!({"annotations": {"io.container.manager": "libpod"}, "linux": 7, "mounts": "x"})),
    ] {
        assert!(describe(&config, &spec).is_err());
    }
}

#[test]
fn without_confinement_it_has_none_here() {
    let mut spec = spec();
    spec["linux"]["seccomp"] = json!(null);
    spec["linux"]["maskedPaths"] = json!([]);
    let options = describe(&config(), &spec).unwrap().record.host_config.security_opt.unwrap();
    assert_eq!(options, ["no-new-privileges", "seccomp=unconfined", "systempaths=unconfined"]);
}

#[test]
fn places_are_those_of_networks_here() {
    let interface = json!({
        "subnets": [{"ipnet": "10.88.0.2/16", "gateway": "10.88.0.1"}, {"ipnet": "fd00::2/64"}, {"ipnet": "none"}],
        "mac_address": "aa:bb:cc:dd:ee:ff",
    });
    let found = places(&json!({"podman": {"interfaces": {"eth0": interface}}, "inner": {}}));
    assert_eq!(found.keys().collect::<Vec<_>>(), ["bridge"]);
    let given = &found["bridge"];
    assert_eq!(given.ipv4, "10.88.0.2/16".parse().ok());
    assert_eq!((given.ipv6, given.mac.as_str()), ("fd00::2/64".parse().ok(), "aa:bb:cc:dd:ee:ff"));
    assert!(places(&json!(null)).is_empty() && places(&json!([1])).is_empty());
}
