//! Every operation of the Engine API is served or refused by name; none is a bare 404.

use crate::support::Daemon;
use crate::support::requires::requires;

/// Method, path and operationId of Engine API 1.51, the three checkpoint operations, and dewar's own. `x` stands for an object
/// that is not there.
pub const OPERATIONS: &[(&str, &str, &str)] = &[
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
    ("GET", "/containers/x/checkpoint-check", "CheckpointCheck"),
    ("POST", "/containers/x/checkpoint-stream", "CheckpointStream"),
    ("GET", "/containers/x/checkpoints/y/json", "CheckpointInspect"),
    ("GET", "/checkpoints", "CheckpointListAll"),
    ("POST", "/checkpoints/prune", "CheckpointPrune"),
    ("GET", "/containers/x/checkpoints/y/archive", "CheckpointExport"),
    ("POST", "/checkpoints/import", "CheckpointImport"),
    ("POST", "/containers/x/checkpoints/y/push?reference=z", "CheckpointPush"),
    ("POST", "/checkpoints/pull?reference=x", "CheckpointPull"),
    ("POST", "/containers/x/checkpoints/y/restore", "CheckpointRestore"),
    ("POST", "/containers/x/clone", "ContainerClone"),
    ("POST", "/containers/x/migrate", "ContainerMigrate"),
    ("POST", "/migrations", "MigrationReceive"),
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

/// What is refused answers 503 where clients look for swarm and else 501, and says why.
#[test]
fn every_operation_is_served_or_refused_by_name() {
    requires!(root);
    let daemon = Daemon::empty();
    let mut missing = Vec::new();
    let (mut refused, mut swarm) = (0, 0);
    for (method, path, id) in OPERATIONS {
        let reply = daemon.api(method, path);
        let text = reply.text();
        if text.contains("page not found") {
            missing.push(format!("{id}: {method} {path}"));
        }
        match reply.status {
            501 => {
                refused += 1;
                let message = reply.json()["message"].as_str().unwrap_or_default().to_owned();
                let (_, reason) = message.split_once(": ").unwrap_or_default();
                assert!(reason.contains("dewar"), "{id}: {message}");
            }
            503 => {
                swarm += 1;
                // Clients look for the words; the update of a volume has its own.
                let words = if *id == "VolumeUpdate" {
                    "swarm is unavailable"
                } else {
                    "This node is not a swarm manager."
                };
                assert!(text.contains(words), "{id}: {text}");
            }
            // Nobody is there to pull from.
            500 if text.contains("registry-1.docker.io") || text.contains("index.docker.io") => {}
            status => assert!(status < 500, "{id}: {method} {path}: {status} {text}"),
        }
    }
    println!(
        "{} operations: {} served, {refused} refused by name, {swarm} of swarm refused as by any node outside one",
        OPERATIONS.len(),
        OPERATIONS.len() - refused - swarm - missing.len(),
    );
    assert!(missing.is_empty(), "neither served nor refused:\n  {}", missing.join("\n  "));
    assert_eq!(
        OPERATIONS.len(),
        107 + 3 + 13,
        "Engine API 1.51 has 107 operations, there are three of checkpoints and thirteen of dewar's own"
    );
}

#[test]
fn what_is_beside_the_operations_is_answered_too() {
    requires!(root);
    let daemon = Daemon::empty();
    assert_eq!(daemon.api("GET", "/plugins").is(200).json(), serde_json::json!([]));
    daemon.api("GET", "/plugins?filters=%7B%22bogus%22%3A%5B%22x%22%5D%7D").refuses(400, "invalid filter");
    for path in ["/session", "/grpc", "/v1.51/session"] {
        daemon.api("POST", path).refuses(501, "classic builder only");
    }
    for path in ["/nope", "/containers/json", "/v1.51/images/x/json"] {
        let reply = daemon.api("OPTIONS", path).is(200);
        assert!(reply.body.is_empty(), "{}", reply.text());
    }
}
