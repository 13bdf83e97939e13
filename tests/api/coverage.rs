//! Every operation of the Engine API is served or refused by name; none is a bare 404.

use crate::support::Daemon;
use crate::support::requires::requires;

/// Method, path and operationId of Engine API 1.51, and the three checkpoint operations. `x` stands for an object
/// that is not there.
const OPERATIONS: &[(&str, &str, &str)] = &[
    ("GET", "/containers/json", "ContainerList"),
    ("POST", "/containers/create", "ContainerCreate"),
    ("GET", "/containers/x/json", "ContainerInspect"),
    ("GET", "/containers/x/top", "ContainerTop"),
    ("GET", "/containers/x/logs?stdout=1", "ContainerLogs"),
    ("GET", "/containers/x/changes", "ContainerChanges"),
    ("GET", "/containers/x/export", "ContainerExport"),
    ("GET", "/containers/x/stats", "ContainerStats"),
    ("POST", "/containers/x/resize?h=1&w=1", "ContainerResize"),
    ("POST", "/containers/x/start", "ContainerStart"),
    ("POST", "/containers/x/stop", "ContainerStop"),
    ("POST", "/containers/x/restart", "ContainerRestart"),
    ("POST", "/containers/x/kill", "ContainerKill"),
    ("POST", "/containers/x/update", "ContainerUpdate"),
    ("POST", "/containers/x/rename?name=y", "ContainerRename"),
    ("POST", "/containers/x/pause", "ContainerPause"),
    ("POST", "/containers/x/unpause", "ContainerUnpause"),
    ("POST", "/containers/x/attach", "ContainerAttach"),
    ("GET", "/containers/x/attach/ws", "ContainerAttachWebsocket"),
    ("POST", "/containers/x/wait", "ContainerWait"),
    ("DELETE", "/containers/x", "ContainerDelete"),
    ("HEAD", "/containers/x/archive?path=/", "ContainerArchiveInfo"),
    ("GET", "/containers/x/archive?path=/", "ContainerArchive"),
    ("PUT", "/containers/x/archive?path=/", "PutContainerArchive"),
    ("POST", "/containers/prune", "ContainerPrune"),
    ("POST", "/containers/x/checkpoints", "CheckpointCreate"),
    ("GET", "/containers/x/checkpoints", "CheckpointList"),
    ("DELETE", "/containers/x/checkpoints/y", "CheckpointDelete"),
    ("GET", "/images/json", "ImageList"),
    ("POST", "/build", "ImageBuild"),
    ("POST", "/build/prune", "BuildPrune"),
    ("POST", "/images/create?fromImage=x", "ImageCreate"),
    ("GET", "/images/x/json", "ImageInspect"),
    ("GET", "/images/x/history", "ImageHistory"),
    ("POST", "/images/x/push", "ImagePush"),
    ("POST", "/images/x/tag?repo=y", "ImageTag"),
    ("DELETE", "/images/x", "ImageDelete"),
    ("GET", "/images/search?term=x", "ImageSearch"),
    ("POST", "/images/prune", "ImagePrune"),
    ("POST", "/auth", "SystemAuth"),
    ("GET", "/info", "SystemInfo"),
    ("GET", "/version", "SystemVersion"),
    ("GET", "/_ping", "SystemPing"),
    ("HEAD", "/_ping", "SystemPingHead"),
    ("POST", "/commit?container=x", "ImageCommit"),
    ("GET", "/events?until=1", "SystemEvents"),
    ("GET", "/system/df", "SystemDataUsage"),
    ("GET", "/images/x/get", "ImageGet"),
    ("GET", "/images/get?names=x", "ImageGetAll"),
    ("POST", "/images/load", "ImageLoad"),
    ("POST", "/containers/x/exec", "ContainerExec"),
    ("POST", "/exec/x/start", "ExecStart"),
    ("POST", "/exec/x/resize?h=1&w=1", "ExecResize"),
    ("GET", "/exec/x/json", "ExecInspect"),
    ("GET", "/volumes", "VolumeList"),
    ("POST", "/volumes/create", "VolumeCreate"),
    ("GET", "/volumes/x", "VolumeInspect"),
    ("PUT", "/volumes/x", "VolumeUpdate"),
    ("DELETE", "/volumes/x", "VolumeDelete"),
    ("POST", "/volumes/prune", "VolumePrune"),
    ("GET", "/networks", "NetworkList"),
    ("GET", "/networks/x", "NetworkInspect"),
    ("DELETE", "/networks/x", "NetworkDelete"),
    ("POST", "/networks/create", "NetworkCreate"),
    ("POST", "/networks/x/connect", "NetworkConnect"),
    ("POST", "/networks/x/disconnect", "NetworkDisconnect"),
    ("POST", "/networks/prune", "NetworkPrune"),
    ("GET", "/plugins", "PluginList"),
    ("GET", "/plugins/privileges?remote=x", "GetPluginPrivileges"),
    ("POST", "/plugins/pull?remote=x", "PluginPull"),
    ("GET", "/plugins/x/json", "PluginInspect"),
    ("DELETE", "/plugins/x", "PluginDelete"),
    ("POST", "/plugins/x/enable", "PluginEnable"),
    ("POST", "/plugins/x/disable", "PluginDisable"),
    ("POST", "/plugins/x/upgrade?remote=y", "PluginUpgrade"),
    ("POST", "/plugins/create?name=x", "PluginCreate"),
    ("POST", "/plugins/x/push", "PluginPush"),
    ("POST", "/plugins/x/set", "PluginSet"),
    ("GET", "/nodes", "NodeList"),
    ("GET", "/nodes/x", "NodeInspect"),
    ("DELETE", "/nodes/x", "NodeDelete"),
    ("POST", "/nodes/x/update?version=1", "NodeUpdate"),
    ("GET", "/swarm", "SwarmInspect"),
    ("POST", "/swarm/init", "SwarmInit"),
    ("POST", "/swarm/join", "SwarmJoin"),
    ("POST", "/swarm/leave", "SwarmLeave"),
    ("POST", "/swarm/update?version=1", "SwarmUpdate"),
    ("GET", "/swarm/unlockkey", "SwarmUnlockkey"),
    ("POST", "/swarm/unlock", "SwarmUnlock"),
    ("GET", "/services", "ServiceList"),
    ("POST", "/services/create", "ServiceCreate"),
    ("GET", "/services/x", "ServiceInspect"),
    ("DELETE", "/services/x", "ServiceDelete"),
    ("POST", "/services/x/update?version=1", "ServiceUpdate"),
    ("GET", "/services/x/logs", "ServiceLogs"),
    ("GET", "/tasks", "TaskList"),
    ("GET", "/tasks/x", "TaskInspect"),
    ("GET", "/tasks/x/logs", "TaskLogs"),
    ("GET", "/secrets", "SecretList"),
    ("POST", "/secrets/create", "SecretCreate"),
    ("GET", "/secrets/x", "SecretInspect"),
    ("DELETE", "/secrets/x", "SecretDelete"),
    ("POST", "/secrets/x/update?version=1", "SecretUpdate"),
    ("GET", "/configs", "ConfigList"),
    ("POST", "/configs/create", "ConfigCreate"),
    ("GET", "/configs/x", "ConfigInspect"),
    ("DELETE", "/configs/x", "ConfigDelete"),
    ("POST", "/configs/x/update?version=1", "ConfigUpdate"),
    ("GET", "/distribution/x/json", "DistributionInspect"),
    ("POST", "/session", "Session"),
];

#[test]
fn every_operation_is_served_or_refused_by_name() {
    requires!(root);
    let daemon = Daemon::empty();
    let mut missing = Vec::new();
    let mut refused = 0;
    for (method, path, id) in OPERATIONS {
        let reply = daemon.api(method, path);
        let text = reply.text();
        if text.contains("page not found") {
            missing.push(format!("{id}: {method} {path}"));
        }
        assert!(
            reply.status < 500 || matches!(reply.status, 501 | 503),
            "{id}: {method} {path}: {} {text}",
            reply.status
        );
        refused += usize::from(matches!(reply.status, 501 | 503));
    }
    println!("{} operations, {refused} refused by name", OPERATIONS.len());
    assert!(missing.is_empty(), "neither served nor refused:\n  {}", missing.join("\n  "));
}
