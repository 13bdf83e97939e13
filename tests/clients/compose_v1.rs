//! Docker Compose 1.29: Python, docker-py 5, API 1.22 files; still on many hosts.

use super::compose::Project;
use crate::support::requires;
use crate::support::requires::requires;

const TWO: &str = r#"
version: "2.4"
services:
  db:
    image: busybox
    network_mode: bridge
    command: ["sh", "-c", "echo db up; exec sleep 1000"]
    environment: {COLOUR: blue}
    mem_limit: 64m
  web:
    image: busybox
    network_mode: host
    command: ["sh", "-c", "echo web up; exec sleep 1000"]
    depends_on: [db]
"#;

#[test]
fn the_old_compose_works_too() {
    requires!(root, compose_v1);
    let project = Project::new(requires::compose_v1_path().expect("required above"), TWO);
    let compose = |args: &[&str]| project.compose(&["-p", "old"]).args(args);
    compose(&["up", "-d"]).ok();
    compose(&["ps"]).ok().stdout_has("old_db_1").stdout_has("Up");
    compose(&["logs", "--no-color"]).ok().stdout_has("db_1   | db up").stdout_has("web_1  | web up");
    compose(&["exec", "-T", "db", "sh", "-c", "echo $COLOUR; exit 4"]).fails(4).stdout_is("blue\n");
    compose(&["run", "--rm", "-T", "db", "echo", "once"]).ok().stdout_has("once");
    compose(&["top"]).ok().stdout_has("sleep 1000");
    compose(&["up", "-d"]).ok().stderr_has("old_web_1 is up-to-date");
    compose(&["stop", "-t", "0", "web"]).ok();
    compose(&["start", "web"]).ok();
    compose(&["up", "-d", "--scale", "db=2"]).ok();
    assert_eq!(compose(&["ps", "-q", "db"]).ok().stdout.lines().count(), 2);
    compose(&["down", "-v", "-t", "0"]).ok();
    assert_eq!(project.daemon.api("GET", "/containers/json?all=1").json(), serde_json::json!([]));
}
