//! Docker Compose 2: who waits for whose health.

use super::compose::project;
use crate::support::requires::requires;

/// One that is well when told so, and one that needs it.
const HEALTH: &str = r#"
name: health
services:
  db:
    image: busybox
    network_mode: bridge
    command: ["sh", "-c", "sleep 0.5; touch /tmp/ready; exec sleep 1000"]
    stop_signal: SIGKILL
    healthcheck:
      test: [CMD, test, -f, /tmp/ready]
      interval: 200ms
      timeout: 20s
      retries: 100
  web:
    image: busybox
    network_mode: host
    depends_on: {db: {condition: service_healthy}}
    command: [sleep, "1000"]
    stop_signal: SIGKILL
"#;

#[test]
fn health_is_waited_for() {
    requires!(root, compose);
    let project = project(HEALTH);
    let compose = |args: &[&str]| project.compose(args);
    compose(&["up", "-d"]).ok().stderr_has("Container health-db-1  Healthy");
    compose(&["ps", "db"]).ok().stdout_has("(healthy)");
    compose(&["ps", "--format", "{{.Service}} {{.Health}}"]).ok().stdout_is("db healthy\nweb \n");
    let state = |name: &str| project.daemon.state(name);
    let (db, web) = (state("health-db-1"), state("health-web-1"));
    let well = db["Health"]["Log"].as_array().expect("probes").iter().find(|probe| probe["ExitCode"] == 0);
    let well = well.expect("a probe that found it well")["End"].as_str().expect("a time").to_owned();
    assert!(web["StartedAt"].as_str().expect("a time") > well.as_str(), "web started before db was well");
    compose(&["down"]).ok();
}

#[test]
fn an_unhealthy_dependency_stops_what_needs_it() {
    requires!(root, compose);
    let sick = HEALTH
        .replace("retries: 100", "retries: 2")
        .replace("[CMD, test, -f, /tmp/ready]", "[CMD, \"false\"]");
    let project = project(&sick);
    let up = project.compose(&["up", "-d"]).fails(1);
    up.stderr_has("dependency failed to start: container health-db-1 is unhealthy");
    project
        .compose(&["ps", "-a", "--format", "{{.Service}} {{.State}}"])
        .ok()
        .stdout_is("db running\nweb created\n");
    project.compose(&["ps", "db"]).ok().stdout_has("(unhealthy)");
    project.compose(&["down"]).ok();
}
