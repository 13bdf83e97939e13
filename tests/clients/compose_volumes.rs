//! Docker Compose 2: volumes, which outlive their containers.

use super::compose::project;
use crate::support::requires::requires;

const STATEFUL: &str = r#"
name: state
services:
  db:
    image: busybox
    network_mode: bridge
    command: ["sh", "-c", "echo $$COLOUR > /anonymous/colour.$$COLOUR; touch /data/ready; exec sleep 1000"]
    environment: {COLOUR: blue}
    stop_signal: SIGKILL
    volumes:
      - data:/data
      - /anonymous
      - ./made/by/up:/bound
      - ./compose.yaml:/file:ro
      - {type: tmpfs, target: /scratch, tmpfs: {size: 1048576}}
    healthcheck:
      test: [CMD, test, -f, /data/ready]
      interval: 200ms
      timeout: 20s
      retries: 100
  web:
    image: busybox
    network_mode: host
    depends_on: {db: {condition: service_healthy}}
    command: ["sh", "-c", "ls /shared; exec sleep 1000"]
    stop_signal: SIGKILL
    volumes: ["data:/shared:ro"]
volumes:
  data:
    labels: {keep: "yes"}
"#;

#[test]
fn they_outlive_their_containers() {
    requires!(root, docker, compose);
    let project = project(STATEFUL);
    let compose = |args: &[&str]| project.compose(args);
    let volumes = || project.daemon.docker(&["volume", "ls", "-q"]).ok().stdout;
    compose(&["up", "-d", "--wait"])
        .ok()
        .stderr_has("Volume state_data  Created")
        .stderr_has("state-db-1  Healthy");
    compose(&["ps", "db"]).ok().stdout_has("(healthy)");
    compose(&["ps", "db", "--format", "{{.Health}}"]).ok().stdout_is("healthy\n");
    // It was started after db was healthy, which made this file.
    compose(&["logs", "--no-log-prefix", "web"]).ok().stdout_is("ready\n");
    compose(&["volumes", "-q"]).ok().stdout_is("state_data\n");
    let labels = ["volume", "inspect", "-f", "{{.Labels.keep}}", "state_data"];
    project.daemon.docker(&labels).ok().stdout_is("yes\n");
    compose(&["exec", "-T", "web", "touch", "/shared/no"]).fails(1).stderr_has("Read-only file system");
    let script =
        "touch /bound/there /scratch/x; touch /file; grep -c ' /scratch tmpfs.*size=1024k' /proc/mounts";
    compose(&["exec", "-T", "db", "sh", "-c", script]).ok().stdout_is("1\n").stderr_has("/file: Read-only");
    assert!(project.dir.join("made/by/up/there").exists());

    // Recreated, it finds both its volumes again, the one without a name too.
    project.write(&STATEFUL.replace("blue", "green"));
    compose(&["up", "-d", "--wait"]).ok().stderr_has("Container state-db-1  Recreated");
    compose(&["exec", "-T", "db", "ls", "/anonymous"]).ok().stdout_is("colour.blue\ncolour.green\n");
    assert_eq!(volumes().lines().count(), 2, "{}", volumes());

    compose(&["down"]).ok();
    assert!(volumes().contains("state_data\n"), "{}", volumes());
    compose(&["run", "--rm", "-T", "--no-deps", "web", "ls", "/shared"]).ok().stdout_is("ready\n");
    // The anonymous volume of a container that is gone is nobody's; Compose leaves it to prune.
    compose(&["up", "-d", "--wait"]).ok();
    compose(&["down", "-v"]).ok().stderr_has("Volume state_data  Removed");
    assert!(!volumes().contains("state_data\n"), "{}", volumes());
    project.daemon.docker(&["volume", "prune", "-f"]).ok();
    assert_eq!(volumes(), "");
}
