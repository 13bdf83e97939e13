//! Docker Compose 2: projects from up to down, on the default and on the host's network.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::requires::requires;
use crate::support::terminal::Terminal;
use crate::support::{Cmd, Daemon, eventually, requires};

/// Two services: one on the default network, one on the host's.
const TWO: &str = r#"
name: demo
services:
  db:
    image: busybox
    network_mode: bridge
    command: ["sh", "-c", "echo db up; exec sleep 1000"]
    environment:
      COLOUR: blue
    stop_signal: SIGKILL
    sysctls: {net.ipv4.ip_default_ttl: "7"}
    logging:
      driver: json-file
      options: {max-size: 1m, max-file: "2"}
  web:
    image: busybox
    network_mode: host
    depends_on: [db]
    entrypoint: ["sh", "-c"]
    command: ["trap 'echo bye; exit 3' TERM; echo web up; echo to stderr >&2; while :; do sleep 0.05; done"]
    restart: on-failure
    tmpfs: ["/scratch:size=1m"]
    labels: {tier: front}
    stop_grace_period: 20s
    working_dir: /tmp
    user: "1000"
    read_only: true
    init: true
    cap_drop: [ALL]
    ulimits: {nofile: 128}
    deploy:
      resources:
        limits: {cpus: "0.5", memory: 64M, pids: 50}
        reservations: {memory: 32M}
"#;

/// A compose file in a directory of its own.
pub struct Project {
    pub daemon: Daemon,
    pub dir: PathBuf,
    compose: PathBuf,
}

impl Project {
    pub fn new(compose: PathBuf, yaml: &str) -> Project {
        let daemon = Daemon::start();
        let dir = daemon.dir().join("project");
        std::fs::create_dir(&dir).expect("a fresh directory");
        let project = Project { daemon, dir, compose };
        project.write(yaml);
        project
    }

    /// Replaces the compose file.
    pub fn write(&self, yaml: &str) {
        std::fs::write(self.dir.join("compose.yaml"), yaml).expect("a fresh directory");
    }

    /// `docker-compose args` in the project's directory.
    pub fn compose(&self, args: &[&str]) -> Cmd {
        Cmd::new(&self.compose)
            .arg("-f")
            .arg(self.dir.join("compose.yaml"))
            .args(args)
            .env("DOCKER_HOST", self.daemon.host())
            .env("DOCKER_CONFIG", self.daemon.dir().join("docker-config"))
    }

    /// What inspect says of a container.
    fn inspect(&self, container: &str) -> Value {
        self.daemon.api("GET", &format!("/containers/{container}/json")).is(200).json()
    }

    fn id(&self, container: &str) -> String {
        self.inspect(container)["Id"].as_str().expect("an id").to_owned()
    }
}

pub fn project(yaml: &str) -> Project {
    Project::new(requires::compose_path().expect("the test requires compose"), yaml)
}

#[test]
fn up_shows_and_goes_into_a_project() {
    requires!(root, compose);
    let project = project(TWO);
    let compose = |args: &[&str]| project.compose(args);
    compose(&["config", "--services"]).ok().stdout_has("db\n").stdout_has("web\n");
    compose(&["up", "-d"]).ok().stderr_has("Container demo-web-1  Started");

    compose(&["ps"]).ok().stdout_has("demo-db-1").stdout_has("demo-web-1").stdout_has("Up ");
    let rows = compose(&["ps", "--format", "json"]).ok().stdout;
    let rows: Vec<Value> =
        rows.lines().map(|row| serde_json::from_str(row).expect("a row of JSON")).collect();
    let states: Vec<_> = rows.iter().map(|row| (row["Service"].as_str(), row["State"].as_str())).collect();
    assert_eq!(states, [(Some("db"), Some("running")), (Some("web"), Some("running"))]);
    compose(&["ls"]).ok().stdout_has("demo").stdout_has("running(2)");
    compose(&["images"]).ok().stdout_has("demo-web-1").stdout_has("busybox");
    compose(&["top", "db"]).ok().stdout_has("sleep 1000");
    compose(&["stats", "--no-stream"]).ok().stdout_has("demo-web-1").stdout_has("/ 64MiB");
    compose(&["port", "web", "80"]).fails(1).stderr_has("no port 80/tcp");

    // The daemon has what the file says.
    let web = project.inspect("demo-web-1");
    let host = &web["HostConfig"];
    assert_eq!((&host["NanoCpus"], &host["Memory"]), (&500_000_000.into(), &(64 << 20).into()), "{host}");
    assert_eq!((&host["PidsLimit"], &host["MemoryReservation"]), (&50.into(), &(32 << 20).into()), "{host}");
    assert_eq!((&host["NetworkMode"], &host["ReadonlyRootfs"]), (&"host".into(), &true.into()), "{host}");
    assert_eq!(host["RestartPolicy"]["Name"], "on-failure");
    assert_eq!(
        (&web["Config"]["StopTimeout"], &web["Config"]["Labels"]["tier"]),
        (&20.into(), &"front".into())
    );
    assert_eq!(project.inspect("demo-db-1")["HostConfig"]["LogConfig"]["Config"]["max-file"], "2");
    let script =
        "id -u; pwd; ulimit -n; grep -c ' /scratch tmpfs' /proc/mounts; grep CapEff /proc/self/status";
    compose(&["exec", "-T", "web", "sh", "-c", script])
        .ok()
        .stdout_is("1000\n/tmp\n128\n1\nCapEff:\t0000000000000000\n");

    compose(&["exec", "-T", "db", "sh", "-c", "echo $COLOUR; cat /proc/sys/net/ipv4/ip_default_ttl; exit 5"])
        .fails(5)
        .stdout_is("blue\n7\n");
    compose(&["exec", "-T", "db", "cat"]).stdin("typed\n").ok().stdout_is("typed\n");
    compose(&["exec", "-d", "db", "touch", "/tmp/touched"]).ok();
    compose(&["run", "--rm", "-T", "-e", "COLOUR=red", "db", "sh", "-c", "echo $COLOUR; exit 6"])
        .fails(6)
        .stdout_has("red\n");
    compose(&["logs", "--no-log-prefix", "db"]).ok().stdout_is("db up\n");
    compose(&["logs", "--no-color"])
        .ok()
        .stdout_has("db-1")
        .stdout_has(" | db up\n")
        .stdout_has("web-1")
        .stdout_has(" | to stderr\n");
    compose(&["logs", "--no-color", "-t", "--tail", "1", "db"]).ok().stdout_has("Z db up\n");

    let file = project.daemon.dir().join("file");
    std::fs::write(&file, "copied\n").expect("a fresh directory");
    compose(&["cp"]).arg(&file).arg("db:/tmp/in").ok();
    compose(&["exec", "-T", "db", "cat", "/tmp/in"]).ok().stdout_is("copied\n");
    compose(&["cp", "db:/tmp/in"]).arg(project.daemon.dir().join("out")).ok();
    assert_eq!(std::fs::read(project.daemon.dir().join("out")).expect("copied"), b"copied\n");

    // It takes the end of the stream for a failure.
    let events = compose(&["events", "--json", "--since", "1h", "--until", "0s"]).run();
    events.stdout_has(r#""action":"create""#).stdout_has(r#""service":"web""#);

    // A stopped project keeps its containers; web ends by itself within its grace.
    compose(&["stop"]).ok();
    compose(&["logs", "--no-log-prefix", "--tail", "1", "web"]).ok().stdout_is("bye\n");
    compose(&["ps", "-a", "--format", "{{.Name}} {{.State}} {{.ExitCode}}"])
        .ok()
        .stdout_is("demo-db-1 exited 137\ndemo-web-1 exited 3\n");
    compose(&["ps", "-q"]).ok().stdout_is("");
    compose(&["down", "-v", "--remove-orphans"]).ok().stderr_has("Container demo-db-1  Removed");
    project.daemon.docker(&["ps", "-aq"]).ok().stdout_is("");
}

#[test]
fn starts_stops_pauses_and_kills_services() {
    requires!(root, compose);
    let project = project(&TWO.replace("20s", "0s"));
    let compose = |args: &[&str]| project.compose(args);
    let states = || compose(&["ps", "-a", "--format", "{{.Service}} {{.State}}"]).ok().stdout;
    compose(&["create"]).ok();
    assert_eq!(states(), "db created\nweb created\n");
    compose(&["start"]).ok();
    assert_eq!(states(), "db running\nweb running\n");
    compose(&["pause", "db"]).ok();
    assert_eq!(states(), "db paused\nweb running\n");
    compose(&["unpause", "db"]).ok();
    let started = |name| project.inspect(name)["State"]["StartedAt"].clone();
    let before = (started("demo-db-1"), started("demo-web-1"));
    compose(&["restart", "db"]).ok();
    assert!(before.0 != started("demo-db-1"), "db was not restarted");
    compose(&["kill", "-s", "KILL", "web"]).ok();
    assert_eq!(states(), "db running\nweb exited\n");
    compose(&["up", "-d"]).ok();
    assert_eq!(states(), "db running\nweb running\n");
    compose(&["stop", "-t", "0", "web"]).ok();
    compose(&["rm", "-f", "web"]).ok();
    assert_eq!(states(), "db running\n");
    compose(&["rm", "-fs", "db"]).ok();
    assert_eq!(states(), "");

    // It waits for what runs when it looks; on a busy machine that may be over by then.
    project.write("name: demo\nservices:\n  job:\n    image: busybox\n    command: sh -c 'sleep 1; exit 9'\n    network_mode: none");
    let waited = (0..10).map(|_| {
        compose(&["up", "-d"]).ok();
        compose(&["wait", "job"]).run()
    });
    let codes: Vec<i32> = waited.map(|output| output.code).take_while(|code| *code != 9).collect();
    assert!(codes.len() < 10, "wait never gave the exit code: {codes:?}");
}

#[test]
fn up_again_recreates_what_changed_and_scales() {
    requires!(root, compose);
    let project = project(TWO);
    let compose = |args: &[&str]| project.compose(args);
    compose(&["up", "-d"]).ok();
    let (db, web) = (project.id("demo-db-1"), project.id("demo-web-1"));
    compose(&["up", "-d"]).ok().stderr_has("Container demo-web-1  Running");
    assert_eq!((project.id("demo-db-1"), project.id("demo-web-1")), (db.clone(), web.clone()), "recreated");

    project.write(&TWO.replace("blue", "green"));
    compose(&["up", "-d", "-t", "0"]).ok().stderr_has("Container demo-db-1  Recreated");
    assert_ne!(project.id("demo-db-1"), db, "a changed service stays as it was");
    compose(&["exec", "-T", "db", "sh", "-c", "echo $COLOUR"]).ok().stdout_is("green\n");
    let db = project.id("demo-db-1");
    compose(&["up", "-d", "-t", "0", "--force-recreate", "db"]).ok();
    assert_ne!(project.id("demo-db-1"), db);

    compose(&["up", "-d", "--scale", "db=3"]).ok();
    compose(&["ps", "db", "--format", "{{.Name}}"]).ok().stdout_is("demo-db-1\ndemo-db-2\ndemo-db-3\n");
    compose(&["exec", "-T", "--index", "3", "db", "hostname"]).ok();
    compose(&["scale", "db=1"]).ok();
    compose(&["ps", "db", "--format", "{{.Name}}"]).ok().stdout_is("demo-db-1\n");

    // A service that left the file is an orphan, kept until told otherwise.
    let (head, _) = TWO.split_once("  web:").expect("two services");
    project.write(head);
    compose(&["up", "-d"]).ok().stderr_has("Found orphan containers ([demo-web-1])");
    compose(&["down", "-t", "0", "--remove-orphans"]).ok().stderr_has("Container demo-web-1  Removed");
    project.daemon.docker(&["ps", "-aq"]).ok().stdout_is("");
}

#[test]
fn follows_logs_and_events_and_runs_in_the_foreground() {
    requires!(root, compose);
    let project = project(
        r#"
name: front
services:
  counter:
    image: busybox
    network_mode: host
    command: ["sh", "-c", "i=0; while [ $$i -lt 5 ]; do echo line $$((i=i+1)); sleep 0.05; done; sleep 1000"]
    stop_grace_period: 0s
  job:
    image: busybox
    network_mode: none
    command: ["sh", "-c", "echo working; sleep 0.5; exit 7"]
"#,
    );
    let compose = |args: &[&str]| project.compose(args);
    let mut events = compose(&["events"]).spawn();
    let mut seen = BufReader::new(events.child.stdout.take().expect("piped")).lines();
    eventually("compose listens", || project.daemon.api("GET", "/info").json()["NEventsListener"] == 1);
    let up = compose(&["up", "--no-color", "--abort-on-container-exit", "--exit-code-from", "job"]).fails(7);
    up.stdout_has("counter-1")
        .stdout_has(" | line 1\n")
        .stdout_has("| working\n")
        .says("job-1 exited with code 7");
    let mut until = |part: &str| {
        let found = seen.by_ref().map_while(Result::ok).find(|line| line.contains(part));
        assert!(found.is_some(), "no event {part:?}");
    };
    until("container create");
    until("container start");
    until("container die");
    drop(events);

    compose(&["up", "-d", "counter"]).ok();
    let mut follow = compose(&["logs", "-f", "--no-color", "--no-log-prefix", "counter"]).spawn();
    let lines = BufReader::new(follow.child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let last = lines.into_iter().find(|line| line == "line 5");
    assert!(last.is_some(), "the log ended before its end");
    drop(follow);
    compose(&["down", "-t", "0"]).ok();
}

#[test]
fn a_terminal_in_a_service() {
    requires!(root, compose);
    let project = project(TWO);
    project.compose(&["up", "-d", "db"]).ok();
    let on_terminal = |args: &[&str]| {
        let variables = [
            format!("DOCKER_HOST={}", project.daemon.host()),
            format!("DOCKER_CONFIG={}", project.daemon.dir().join("docker-config").display()),
        ];
        let file = project.dir.join("compose.yaml").display().to_string();
        let program = project.compose.display().to_string();
        let mut line: Vec<&str> = variables.iter().map(String::as_str).collect();
        line.extend([program.as_str(), "-f", file.as_str()]);
        line.extend(args);
        Terminal::start(Path::new("/usr/bin/env"), &line)
    };
    for (args, code) in [(&["exec", "db", "sh"][..], 5), (&["run", "--rm", "db", "sh"], 6)] {
        let mut terminal = on_terminal(args);
        terminal.expect("#");
        terminal.send(&format!("echo a$((40+2))b $COLOUR; exit {code}\n"));
        terminal.expect("a42b blue");
        assert_eq!(terminal.wait(), code);
    }
    project.compose(&["down"]).ok();
}

#[test]
fn the_docker_client_finds_it_as_a_plugin() {
    requires!(root, docker, compose);
    let project = project(TWO);
    let plugins = project.daemon.dir().join("docker-config/cli-plugins");
    std::fs::create_dir_all(&plugins).expect("a fresh directory");
    let compose = requires::compose_path().expect("required above");
    std::os::unix::fs::symlink(compose, plugins.join("docker-compose")).expect("a fresh directory");
    let docker = |args: &[&str]| {
        let file = project.dir.join("compose.yaml");
        project.daemon.docker(&["compose", "-f"]).arg(file).args(args)
    };
    docker(&["version", "--short"]).ok().stdout_has("2.");
    docker(&["up", "-d"]).ok();
    docker(&["ps", "--services"]).ok().stdout_has("db\n").stdout_has("web\n");
    docker(&["exec", "-T", "db", "echo", "in"]).ok().stdout_is("in\n");
    docker(&["down", "-t", "0"]).ok();
}

#[test]
fn what_cannot_be_had_is_said_in_words() {
    requires!(root, compose);
    let project = project("name: far\nservices:\n  far:\n    image: absent:v1\n    network_mode: none\n");
    project.compose(&["up", "-d"]).fails(1).stderr_has("registry-1.docker.io").no_panic();
    project.compose(&["pull"]).fails(1).stderr_has("registry-1.docker.io");
    project.write(
        "name: far\nservices:\n  far:\n    image: busybox\n    network_mode: none\n    command: [absent-program]\n",
    );
    project.compose(&["up", "-d"]).fails(1).stderr_has("executable file not found");
    project.compose(&["down"]).ok();

    // A network of a driver that is not there.
    project.write(
        "name: far\nservices:\n  far:\n    image: busybox\nnetworks:\n  default:\n    driver: weave\n",
    );
    project.compose(&["up", "-d"]).fails(1).stderr_has("weave");
    project.compose(&["ps", "-aq"]).ok().stdout_is("");
    project.compose(&["down", "-v"]).ok();
}

/// What a file can say beyond the everyday: secrets and configs, a service's network and processes, profiles, order.
const RICH: &str = r#"
name: rich
x-base: &base
  image: busybox
  pull_policy: never
  command: [sleep, "1000"]
secrets:
  from-file: {file: ./secret}
  from-env: {environment: SECRET}
configs:
  inline: {content: "inline config\n"}
services:
  first:
    <<: *base
    network_mode: none
    command: [echo, initialised]
  main:
    <<: *base
    network_mode: none
    depends_on: {first: {condition: service_completed_successfully}}
    env_file: [./variables]
    secrets: [from-file, {source: from-env, target: /run/other}]
    configs: [inline]
    hostname: mainhost
    extra_hosts: ["other:10.0.0.9"]
    dns: [9.9.9.9]
    shm_size: 8m
    group_add: ["50"]
    security_opt: [no-new-privileges]
    devices: ["/dev/null:/dev/mynull"]
    tty: true
    stdin_open: true
    ulimits: {nofile: {soft: 100, hard: 200}}
  side:
    <<: *base
    network_mode: service:main
    pid: service:main
    ipc: host
  extra:
    <<: *base
    profiles: [extra]
    network_mode: none
"#;

#[test]
fn a_rich_file_is_done_justice() {
    requires!(root, compose);
    let project = project(RICH);
    std::fs::write(project.dir.join("secret"), "from a file\n").expect("a fresh directory");
    std::fs::write(project.dir.join("variables"), "FROM_FILE=yes\n").expect("a fresh directory");
    let compose = |args: &[&str]| project.compose(args).env("SECRET", "from the environment");
    compose(&["up", "-d", "--wait"]).ok().stderr_has("Container rich-first-1  Exited");
    let script = "cat /run/secrets/from-file /run/other /inline; echo; hostname; echo $FROM_FILE; ulimit -n; id -G; \
                  grep other /etc/hosts; cat /etc/resolv.conf; ls /dev/mynull; grep NoNew /proc/self/status";
    compose(&["exec", "-T", "main", "sh", "-c", script]).ok().stdout_is(
        "from a file\nfrom the environmentinline config\n\nmainhost\nyes\n100\n0 50\n10.0.0.9\tother\n\
         nameserver 9.9.9.9\n/dev/mynull\nNoNewPrivs:\t1\n",
    );
    let links = "readlink /proc/self/ns/net; readlink /proc/self/ns/pid";
    let spaces = |service| compose(&["exec", "-T", service, "sh", "-c", links]).ok().stdout;
    assert_eq!(spaces("main"), spaces("side"));
    compose(&["ps", "-a", "--status", "exited", "--format", "{{.Service}}"]).ok().stdout_is("first\n");
    compose(&["--profile", "extra", "up", "-d", "extra"]).ok();
    compose(&["ps", "--services"]).ok().stdout_has("extra");
    compose(&["run", "--rm", "-T", "--no-deps", "--entrypoint", "hostname", "main"])
        .ok()
        .stdout_has("mainhost");
    compose(&["--profile", "*", "down", "-v", "-t", "0"]).ok();
    project.daemon.docker(&["ps", "-aq"]).ok().stdout_is("");
}
