//! The keys of the objects clients read: what is there, what is null and what is left out, as Docker 28 has it.

use serde_json::{Value, json};

use crate::support::Daemon;
use crate::support::requires::requires;

#[track_caller]
fn has_keys(object: &Value, what: &str, keys: &str) {
    let have: Vec<&str> =
        object.as_object().map(|fields| fields.keys().map(String::as_str).collect()).unwrap_or_default();
    let wanted: Vec<&str> = keys.split_whitespace().collect();
    let missing: Vec<_> = wanted.iter().filter(|key| !have.contains(key)).collect();
    let extra: Vec<_> = have.iter().filter(|key| !wanted.contains(key)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "{what}: missing {missing:?}, beyond {extra:?}");
}

const HOST_CONFIG: &str = "Binds ContainerIDFile LogConfig NetworkMode PortBindings RestartPolicy AutoRemove VolumeDriver \
    VolumesFrom ConsoleSize CapAdd CapDrop CgroupnsMode Dns DnsOptions DnsSearch ExtraHosts GroupAdd IpcMode Cgroup Links \
    OomScoreAdj PidMode Privileged PublishAllPorts ReadonlyRootfs SecurityOpt UTSMode UsernsMode ShmSize Runtime Isolation \
    CpuShares Memory NanoCpus CgroupParent BlkioWeight BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps \
    BlkioDeviceReadIOps BlkioDeviceWriteIOps CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpusetCpus CpusetMems \
    Devices DeviceCgroupRules DeviceRequests MemoryReservation MemorySwap MemorySwappiness OomKillDisable PidsLimit Ulimits \
    CpuCount CpuPercent IOMaximumIOps IOMaximumBandwidth MaskedPaths ReadonlyPaths";

const ENDPOINT: &str = "IPAMConfig Links Aliases MacAddress DriverOpts GwPriority NetworkID EndpointID Gateway IPAddress \
    IPPrefixLen IPv6Gateway GlobalIPv6Address GlobalIPv6PrefixLen DNSNames";

#[test]
fn a_container_has_dockers_keys() {
    requires!(root);
    let daemon = Daemon::start();
    let bind = format!("{}:/mnt:ro", daemon.dir().display());
    let body = json!({
        "Image": "busybox", "Cmd": ["sh", "-c", "sleep 1000"], "ExposedPorts": {"80/tcp": {}},
        "HostConfig": {"NetworkMode": "bridge", "Binds": [bind]},
    });
    daemon.api_json("POST", "/containers/create?name=web", &body).is(201);
    let inspect = daemon.api("GET", "/containers/web/json").is(200).json();
    has_keys(
        &inspect,
        "container",
        "Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount Driver Platform \
         MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver Mounts Config NetworkSettings",
    );
    has_keys(
        &inspect["State"],
        "State",
        "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt",
    );
    assert_eq!(inspect["State"]["StartedAt"], "0001-01-01T00:00:00Z");
    has_keys(&inspect["HostConfig"], "HostConfig", HOST_CONFIG);
    for name in [
        "CapAdd",
        "CapDrop",
        "ExtraHosts",
        "GroupAdd",
        "Links",
        "SecurityOpt",
        "VolumesFrom",
        "MemorySwappiness",
        "PidsLimit",
    ] {
        assert!(inspect["HostConfig"][name].is_null(), "{name}: {}", inspect["HostConfig"][name]);
    }
    assert!(
        inspect["HostConfig"]["MaskedPaths"]
            .as_array()
            .is_some_and(|paths| paths.contains(&json!("/proc/kcore")))
    );
    has_keys(
        &inspect["Config"],
        "Config",
        "Hostname Domainname User AttachStdin AttachStdout AttachStderr ExposedPorts Tty OpenStdin StdinOnce Env Cmd Image \
         Volumes WorkingDir Entrypoint OnBuild Labels",
    );
    for name in ["Volumes", "Entrypoint", "OnBuild"] {
        assert!(inspect["Config"][name].is_null(), "{name}");
    }
    has_keys(&inspect["GraphDriver"], "GraphDriver", "Name Data");
    has_keys(&inspect["GraphDriver"]["Data"], "GraphDriver.Data", "ID LowerDir MergedDir UpperDir WorkDir");
    has_keys(&inspect["Mounts"][0], "mount", "Type Source Destination Mode RW Propagation");
    has_keys(
        &inspect["NetworkSettings"],
        "NetworkSettings",
        "Bridge SandboxID SandboxKey Ports HairpinMode LinkLocalIPv6Address LinkLocalIPv6PrefixLen SecondaryIPAddresses \
         SecondaryIPv6Addresses EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen IPAddress IPPrefixLen IPv6Gateway \
         MacAddress Networks",
    );
    has_keys(&inspect["NetworkSettings"]["Networks"]["bridge"], "endpoint", ENDPOINT);
    // Ports lead somewhere while the container runs.
    assert_eq!(inspect["NetworkSettings"]["Ports"], json!({}));
    daemon.api("POST", "/containers/web/start").is(204);
    let inspect = daemon.api("GET", "/containers/web/json?size=1").is(200).json();
    assert_eq!(inspect["NetworkSettings"]["Ports"], json!({"80/tcp": null}));
    let image = daemon.api("GET", "/images/busybox/json").is(200).json();
    let size = |name: &str| inspect[name].as_i64().unwrap_or(-1);
    assert_eq!(size("SizeRootFs") - size("SizeRw"), image["Size"].as_i64().unwrap_or_default());
    let list = daemon.api("GET", "/containers/json").is(200).json();
    has_keys(
        &list[0],
        "ps",
        "Id Names Image ImageID Command Created Ports Labels State Status HostConfig NetworkSettings Mounts",
    );
    assert_eq!(list[0]["Command"], "sh -c 'sleep 1000'");
    assert_eq!(list[0]["Ports"], json!([{"PrivatePort": 80, "Type": "tcp"}]));
    has_keys(&list[0]["HostConfig"], "ps HostConfig", "NetworkMode");
    has_keys(&list[0]["NetworkSettings"]["Networks"]["bridge"], "ps endpoint", ENDPOINT);
    // The name moves on: the container keeps what it was made from.
    assert_eq!(list[0]["Image"], "busybox");
    daemon.dewar(&["import", "--message", "another"]).arg(crate::support::busybox_tar()).arg("busybox").ok();
    let list = daemon.api("GET", "/containers/json").is(200).json();
    assert_eq!(list[0]["Image"], image["Id"]);
}

#[test]
fn an_image_has_dockers_keys() {
    requires!(root);
    let daemon = Daemon::start();
    let image = daemon.api("GET", "/images/busybox/json").is(200).json();
    has_keys(
        &image,
        "image",
        "Id RepoTags RepoDigests Parent Comment Created DockerVersion Author Config Architecture Os Size GraphDriver RootFS \
         Metadata",
    );
    has_keys(&image["Config"], "Config", "Cmd Entrypoint Env Labels OnBuild User Volumes WorkingDir");
    for name in ["Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "Volumes"] {
        assert!(image["Config"][name].is_null(), "{name}: {}", image["Config"][name]);
    }
    has_keys(&image["RootFS"], "RootFS", "Type Layers");
    let list = daemon.api("GET", "/images/json").is(200).json();
    has_keys(
        &list[0],
        "images",
        "Containers Created Id Labels ParentId RepoDigests RepoTags SharedSize Size",
    );
}

#[test]
fn the_engine_has_dockers_keys() {
    requires!(root, docker);
    let daemon = Daemon::empty();
    let info = daemon.api("GET", "/info").is(200).json();
    let have = info.as_object().expect("an object");
    for key in "ID Containers ContainersRunning ContainersPaused ContainersStopped Images Driver DriverStatus Plugins MemoryLimit \
        SwapLimit CpuCfsPeriod CpuCfsQuota CPUShares CPUSet PidsLimit IPv4Forwarding Debug NFd OomKillDisable NGoroutines \
        SystemTime LoggingDriver CgroupDriver CgroupVersion NEventsListener KernelVersion OperatingSystem OSVersion OSType \
        Architecture IndexServerAddress RegistryConfig NCPU MemTotal GenericResources DockerRootDir HttpProxy HttpsProxy NoProxy \
        Name Labels ExperimentalBuild ServerVersion Runtimes DefaultRuntime Swarm LiveRestoreEnabled Isolation InitBinary \
        ContainerdCommit RuncCommit InitCommit SecurityOptions CDISpecDirs Warnings"
        .split_whitespace()
    {
        assert!(have.contains_key(key), "{key}");
    }
    assert_eq!(info["Plugins"]["Network"], json!(["bridge", "host", "ipvlan", "macvlan", "null"]));
    let warnings = info["Warnings"].as_array().cloned().unwrap_or_default();
    assert!(
        warnings.iter().all(|text| text.as_str().is_some_and(|text| text.starts_with("WARNING: "))),
        "{warnings:?}"
    );
    assert_eq!(
        warnings.iter().any(|text| *text == "WARNING: No swap limit support"),
        info["SwapLimit"] == false,
        "{warnings:?}"
    );
    let version = daemon.api("GET", "/version").is(200).json();
    has_keys(
        &version,
        "version",
        "Platform Components Version ApiVersion MinAPIVersion GitCommit GoVersion Os Arch KernelVersion Experimental BuildTime",
    );
    has_keys(
        &version["Components"][0]["Details"],
        "Engine",
        "ApiVersion Arch BuildTime Experimental GitCommit GoVersion KernelVersion MinAPIVersion Os",
    );
    // Both clients read it; what the stock one adds of itself aside.
    let json = daemon.docker(&["info", "--format", "{{json .}}"]).ok();
    let seen: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!((&seen["ID"], &seen["ServerErrors"]), (&info["ID"], &Value::Null));
    daemon
        .docker(&["version", "--format", "{{.Server.Version}}"])
        .ok()
        .stdout_is(&format!("{}\n", env!("CARGO_PKG_VERSION")));
}
