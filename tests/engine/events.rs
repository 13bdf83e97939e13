//! `docker events`: filters, bounds, the past and what is to come.

use std::io::{BufRead, BufReader};

use crate::support::requires::requires;
use crate::support::{Daemon, busybox_tar, eventually};

/// Seconds since the epoch with their fraction: clients cut "now" to whole seconds.
pub fn now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}

/// What has happened so far, as the stock client tells it.
pub fn told(daemon: &Daemon, flags: &[&str]) -> Vec<String> {
    let output = daemon.docker(&["events", "--since", "1", "--until", &now()]).args(flags).ok();
    output.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn filters_choose_as_dockers_do() {
    requires!(root, docker);
    let daemon = Daemon::start();
    daemon.docker(&["tag", "busybox", "reg.example/box:v1"]).ok();
    let create = |name: &str, image: &str, flags: &[&str]| {
        let command = daemon.docker(&["create", "--name", name, "--network", "none"]).args(flags);
        command.args([image, "true"]).ok().trimmed().to_owned()
    };
    let id = create("web1", "busybox", &["--label", "tier=front"]);
    create("web2", "reg.example/box:v1", &["--label", "tier=back"]);
    daemon.docker(&["start", "web1"]).ok();
    daemon.docker(&["wait", "web1"]).ok();
    eventually("its end", || daemon.state("web1")["Status"] == "exited");
    let chosen = |filters: &[&str]| {
        let mut flags = vec!["--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"];
        filters.iter().for_each(|filter| flags.extend(["--filter", filter]));
        told(&daemon, &flags)
    };
    let web1 = ["container create web1", "container start web1", "container die web1"];
    assert_eq!(chosen(&["container=web1"]), web1);
    assert_eq!(chosen(&[&format!("container={}", &id[..12])]), web1);
    assert_eq!(chosen(&["container=web"]).len(), 4, "the beginning of a name");
    assert_eq!(chosen(&["container=web1", "event=die", "event=start"]), web1[1..]);
    assert_eq!(chosen(&["label=tier=back"]), ["container create web2"]);
    assert_eq!(chosen(&["label=tier"]).len(), 4);
    assert_eq!(chosen(&["image=reg.example/box"]), ["image tag reg.example/box:v1", "container create web2"]);
    assert_eq!(chosen(&["type=image", "event=tag"]), ["image tag reg.example/box:v1"]);
    assert_eq!(chosen(&["type=image", "type=container", "scope=local"]).len(), 6);
    for none in ["volume=web1", "network=web1", "daemon=x", "plugin=x", "node=x", "service=x", "secret=x"] {
        assert!(chosen(&[none]).is_empty(), "{none}");
    }
    daemon.docker(&["events", "--filter", "nope=1"]).fails(1).stderr_has("invalid filter 'nope'");
    let line = told(&daemon, &["--filter", "event=die", "--format", "json"]).join("\n");
    let event: serde_json::Value = serde_json::from_str(&line).expect("one object");
    assert_eq!(
        (&event["status"], &event["from"], &event["scope"]),
        (&"die".into(), &"busybox".into(), &"local".into())
    );
    assert_eq!(event["Actor"]["Attributes"]["tier"], "front");
    assert_eq!(event["Actor"]["Attributes"]["exitCode"], "0");
    assert_eq!(event["Actor"]["Attributes"]["execDuration"], "0");
    assert_eq!((&event["id"], &event["Actor"]["ID"]), (&id.as_str().into(), &id.as_str().into()));
}

#[test]
fn bounds_end_the_stream_and_a_client_that_leaves_is_forgotten() {
    requires!(root, docker);
    let daemon = Daemon::empty();
    daemon.docker(&["import"]).arg(busybox_tar()).arg("busybox").ok();
    // An end in the past ends at once, with the past before it.
    assert_eq!(daemon.docker(&["events", "--until", &now()]).ok().stdout.lines().count(), 1);
    daemon.api("GET", "/events?since=20&until=10").refuses(400, "cannot be after `until` time (10)");
    daemon.api("GET", "/events?since=tomorrow").refuses(400, "since");
    let listeners = || daemon.api("GET", "/info").is(200).json()["NEventsListener"].clone();
    let mut clients: Vec<_> = (0..5).map(|_| daemon.docker(&["events"]).spawn()).collect();
    eventually("five listeners", || listeners() == 5);
    // Nothing happens that would give them away.
    clients.clear();
    eventually("no listener", || listeners() == 0);
    let mut client = daemon.docker(&["events", "--filter", "event=tag", "--format", "{{.Action}}"]).spawn();
    eventually("a listener", || listeners() == 1);
    daemon.docker(&["tag", "busybox", "two"]).ok();
    let mut line = String::new();
    BufReader::new(client.child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert_eq!(line, "tag\n");
}

/// Clients come in the middle of many events, with and without a past: each sees all that it asked for, once.
#[test]
fn no_event_is_lost_between_the_past_and_the_future() {
    requires!(root, docker_py);
    let daemon = Daemon::start();
    let script = r#"
import threading, time
box = client.containers.create('busybox', ['true'], network_mode='none', name='n0')
ROUNDS = 120
failures = []
def listen(after):
    while int(client.api.inspect_container(box.id)['Name'][2:]) < after:
        time.sleep(0.001)
    own = docker.DockerClient(base_url=client.api.base_url.replace('http+docker://localhost', SOCKET))
    seen = []
    for event in own.events(decode=True, since=1, filters={'event': 'rename', 'container': box.id}):
        seen.append(event['Actor']['Attributes']['name'])
        if len(seen) == ROUNDS:
            break
    if seen != ['n%d' % n for n in range(1, ROUNDS + 1)]:
        failures.append((after, seen))
threads = [threading.Thread(target=listen, args=(after,), daemon=True) for after in (0, 20, 50, 80, 110)]
for thread in threads: thread.start()
for n in range(1, ROUNDS + 1): box.rename('n%d' % n)
for thread in threads:
    thread.join(30)
    assert not thread.is_alive(), 'an event is missing'
assert not failures, failures
past = list(client.events(decode=True, since=1, until=int(time.time()) + 1, filters={'event': ['rename', 'create']}))
assert len(past) == ROUNDS + 1, len(past)
"#;
    daemon.python(&format!("SOCKET = '{}'\n{script}", daemon.host())).ok();
}
