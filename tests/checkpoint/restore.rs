//! New containers out of a checkpoint: what they have of the original, what is their own, and what is left when they
//! cannot be made.

use serde_json::{Value, json};

use super::network::{fill, goes_on, published, said, serving};
use super::peers::{Line, PORT};
use super::{counting, counts_on, counts_past, exec, numbers, numbers_of};
use crate::network::site::Site;
use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, eventually};

fn inspect(daemon: &Daemon, name: &str) -> Value {
    daemon.api("GET", &format!("/containers/{name}/json")).is(200).json()
}

#[test]
fn copies_go_on_beside_the_original() {
    requires!(root, criu);
    let daemon = counting(&["--tmpfs", "/scratch", "--memory", "64m"]);
    exec(
        &daemon,
        "web",
        "echo frozen > /file; echo shared > /dev/shm/file; echo kept > /scratch/file; rm /bin/vi",
    );
    daemon.dewar(&["checkpoint", "create", "--leave-running", "web", "cp1"]).ok();
    let frozen = numbers(&daemon).len() as u32;
    exec(&daemon, "web", "echo later > /file");
    daemon
        .dewar(&["restore", "--count", "3", "--name", "copy", "web", "cp1"])
        .ok()
        .stdout_is("copy-1\ncopy-2\ncopy-3\n");
    let mut seen = vec![inspect(&daemon, "web")];
    for name in ["copy-1", "copy-2", "copy-3"] {
        counts_on(&daemon, name);
        // The log is the copy's own and begins where the original was frozen.
        let first = numbers_of(&daemon, name)[0];
        assert!(first > 1 && first <= frozen + 1, "{name} began with {first}, frozen by {frozen}");
        let script = "cat /file /dev/shm/file /scratch/file; test -e /bin/vi || echo gone";
        assert_eq!(exec(&daemon, name, script), "frozen\nshared\nkept\ngone\n");
        // A machine of its own.
        let found = inspect(&daemon, name);
        let id = found["Id"].as_str().expect("an id").to_owned();
        assert_eq!(exec(&daemon, name, "hostname; cat /etc/hostname"), format!("{0}\n{0}\n", &id[..12]));
        assert_eq!(found["Config"]["Hostname"], &id[..12]);
        assert_eq!(found["HostConfig"]["Memory"], 64 << 20);
        let pid = found["State"]["Pid"].as_u64().expect("a pid");
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
        assert!(
            cgroup.contains(&id) && seen.iter().all(|other| !cgroup.contains(other["Id"].as_str().unwrap()))
        );
        for other in &seen {
            assert!(other["Id"] != found["Id"] && other["State"]["Pid"] != found["State"]["Pid"]);
        }
        seen.push(found);
    }
    // What one writes is in none of the others.
    exec(&daemon, "copy-1", "echo one > /file; echo one > /dev/shm/file; echo one > /scratch/file");
    for name in ["copy-2", "copy-3"] {
        assert_eq!(exec(&daemon, name, "cat /file /dev/shm/file /scratch/file"), "frozen\nshared\nkept\n");
    }
    counts_past(&daemon, numbers(&daemon).len());
    daemon.has_told(&["container create", "name=copy-2"]);
    daemon.has_told(&["container restore", "name=copy-2"]);
    // Each lives and ends by itself.
    daemon.dewar(&["stop", "-t", "0", "copy-1"]).ok();
    assert_eq!(daemon.state("copy-1")["ExitCode"], 137);
    daemon.dewar(&["rm", "-f", "copy-2"]).ok();
    counts_on(&daemon, "copy-3");
    daemon.dewar(&["pause", "copy-3"]).ok();
    daemon.dewar(&["unpause", "copy-3"]).ok();
    // Started without a checkpoint it begins anew, as what it was created as.
    daemon.dewar(&["start", "copy-1"]).ok();
    eventually("a new beginning", || daemon.logs("copy-1").contains("\n1\n2\n"));
}

#[test]
fn a_copy_of_a_copy_of_a_copy() {
    requires!(root, criu);
    let mut daemon = counting(&[]);
    let mut last = "web".to_owned();
    for generation in 1..=3 {
        daemon.dewar(&["checkpoint", "create", "--leave-running", &last, "cp"]).ok();
        exec(&daemon, &last, "echo after > /after");
        let name = format!("g{generation}");
        daemon.dewar(&["restore", "--name", &name, &last, "cp"]).ok();
        counts_on(&daemon, &name);
        assert_eq!(exec(&daemon, &name, "test -e /after || echo none"), "none\n");
        last = name;
    }
    // All of them outlive the daemon.
    daemon.kill9();
    daemon.restart();
    counts_past(&daemon, numbers(&daemon).len());
    for name in ["g1", "g2", "g3"] {
        assert_eq!(daemon.state(name)["Status"], "running");
        counts_on(&daemon, name);
    }
}

#[test]
fn a_hostname_that_somebody_chose_stays_and_labels_and_rm_are_taken() {
    requires!(root, criu);
    let daemon = counting(&["--hostname", "chosen", "--restart", "always", "--label", "old=1"]);
    daemon.dewar(&["checkpoint", "create", "--leave-running", "web", "cp1"]).ok();
    daemon.dewar(&["restore", "--rm", "--label", "new=2", "--name", "copy", "web", "cp1"]).ok();
    assert_eq!(exec(&daemon, "copy", "hostname; cat /etc/hostname"), "chosen\nchosen\n");
    let labels = inspect(&daemon, "copy")["Config"]["Labels"].clone();
    assert_eq!(labels, json!({"old": "1", "new": "2"}));
    daemon.dewar(&["kill", "copy"]).ok();
    eventually("it removing itself", || daemon.api("GET", "/containers/copy/json").status == 404);
    // A name nobody gave is made up, and the policy is the original's.
    let name = daemon.dewar(&["restore", "web", "cp1"]).ok().trimmed().to_owned();
    let pid = daemon.state(&name)["Pid"].clone();
    exec(&daemon, &name, "kill -9 -1 2> /dev/null; true");
    exec(&daemon, "web", "true");
    daemon.dewar(&["exec", &name, "kill", "-9", "1"]).run();
    let other = inspect(&daemon, &name)["HostConfig"]["RestartPolicy"]["Name"].clone();
    assert_eq!((other, pid.is_number()), ("always".into(), true));
}

#[test]
fn on_a_terminal_and_with_an_exit_code() {
    requires!(root, criu);
    let daemon = Daemon::start();
    daemon.run_detached("web", &["-i"], "echo ready; read line; echo got $line; exit 42");
    eventually("it being ready", || daemon.logs("web").contains("ready"));
    daemon.dewar(&["checkpoint", "create", "--leave-running", "web", "cp1"]).ok();
    daemon.dewar(&["restore", "--count", "2", "--name", "copy", "web", "cp1"]).ok();
    for (name, word) in [("copy-1", "one"), ("copy-2", "two"), ("web", "three")] {
        daemon
            .dewar(&["attach", name])
            .stdin(format!("{word}\n"))
            .fails(42)
            .stdout_has(&format!("got {word}"));
        assert_eq!(daemon.state(name)["ExitCode"], 42);
    }
    assert_eq!(daemon.logs("copy-1"), "got one\n");
    daemon.run_detached("tty", &["-it"], "i=0; while read line; do i=$((i+1)); echo $i $line; done");
    daemon.dewar(&["checkpoint", "create", "--leave-running", "tty", "cp1"]).ok();
    daemon.dewar(&["restore", "--name", "tty2", "tty", "cp1"]).ok();
    let host = daemon.host();
    for name in ["tty2", "tty"] {
        let args = ["-H", &host, "attach", name];
        let mut terminal = crate::support::terminal::Terminal::start(&crate::support::binary(), &args);
        terminal.send("word\n");
        terminal.expect("1 word");
    }
}

#[test]
fn a_copy_beside_the_original_has_an_address_of_its_own() {
    requires!(root, criu, docker, iproute);
    let site = serving();
    let to = published(&site);
    let mut line = site.outside.within(|| Line::open(&to));
    site.ok("checkpoint create --leave-running web cp1");
    site.daemon.dewar(&["restore", "--name", "copy", "web", "cp1"]).ok();
    // The original's connections know nothing of it.
    assert!(line.says(), "the line from outside is dead");
    goes_on(&site, "web");
    goes_on(&site, "asker");
    let endpoint = |name: &str| site.inspect(name)["NetworkSettings"]["Networks"]["shop"].clone();
    for key in ["IPAddress", "GlobalIPv6Address", "MacAddress"] {
        assert_ne!(endpoint("web")[key], endpoint("copy")[key], "{key}");
    }
    // It serves at its address, under its name, and at a port of its own of the host's.
    let beside = site.running("asker").inside;
    for address in [site.address("copy", "shop"), format!("[{}]", site.address6("copy", "shop"))] {
        let mut line = beside.within(|| Line::open(&format!("{address}:{PORT}")));
        assert!(line.says());
    }
    assert!(site.sh("asker", "nslookup copy").contains(&site.address("copy", "shop")));
    let port = |name: &str| {
        let ports = site.inspect(name)["NetworkSettings"]["Ports"].clone();
        ports[format!("{PORT}/tcp")][0]["HostPort"].as_str().unwrap_or_default().to_owned()
    };
    assert_ne!(port("copy"), port("web"));
    let to = format!("{}:{}", crate::network::site::HOST, port("copy"));
    let mut own = site.outside.within(|| Line::open(&to));
    assert!(own.says());
    // Its own connections were closed, which it has noticed, and it talks to itself again.
    eventually("the copy talking again", || site.daemon.logs("copy").matches("said ").count() > 3);
    assert!(site.daemon.logs("copy").contains("broken"));
    let hosts = site.sh("copy", "cat /etc/hosts");
    assert!(
        hosts.contains(&site.address("copy", "shop")) && !hosts.contains(&site.address("web", "shop")),
        "{hosts}"
    );
    // A copy of the one that asks is a client like any other.
    site.ok("checkpoint create --leave-running asker cp1");
    site.daemon.dewar(&["restore", "--count", "2", "--name", "client", "asker", "cp1"]).ok();
    for name in ["client-1", "client-2"] {
        eventually("it asking again", || site.daemon.logs(name).matches("said ").count() > 3);
    }
    goes_on(&site, "web");
    assert!(line.says() && said(&site, "asker") > 0);
}

#[test]
fn one_copy_of_what_runs_no_more_takes_over_its_connections() {
    requires!(root, criu, docker, iproute);
    let site = serving();
    let (to, address) = (published(&site), site.address("web", "shop"));
    let mut line = site.outside.within(|| Line::open(&to));
    site.ok("checkpoint create web cp1");
    site.daemon.dewar(&["restore", "--name", "heir", "web", "cp1"]).ok();
    assert_eq!(site.address("heir", "shop"), address);
    assert!(line.says(), "the line from outside is dead");
    goes_on(&site, "asker");
    goes_on(&site, "heir");
    // Asked for by hand it is the same; closed on request.
    site.ok("checkpoint create heir cp2");
    site.daemon.dewar(&["restore", "--name", "third", "--ip", &address, "heir", "cp2"]).ok();
    assert!(line.says(), "the line from outside is dead");
    site.ok("checkpoint create third cp3");
    site.daemon.dewar(&["restore", "--name", "fourth", "--tcp-close", "third", "cp3"]).ok();
    assert!(!line.says(), "the line from outside was to be closed");
    assert_eq!(site.address("fourth", "shop"), address);
}

#[test]
fn addresses_networks_and_ports_that_are_asked_for() {
    requires!(root, criu, docker, iproute);
    let site = Site::new();
    fill(&site, &["-p", "8080:7000"], "server");
    site.ok("network create --subnet 10.10.0.0/24 other");
    site.ok("checkpoint create --leave-running web cp1");
    // The fixed port is the original's: said, and not published.
    let line = ["restore", "--name", "one", "--ip", "10.9.0.77", "--mac", "02:42:0a:09:00:77", "web", "cp1"];
    site.daemon.dewar(&line).ok().stderr_has("8080").stderr_has("not published");
    let found = site.inspect("one");
    let place = &found["NetworkSettings"]["Networks"]["shop"];
    assert_eq!(
        (&place["IPAddress"], &place["MacAddress"]),
        (&"10.9.0.77".into(), &"02:42:0a:09:00:77".into())
    );
    assert!(!found["HostConfig"]["PortBindings"].to_string().contains("8080"), "{found}");
    // It can be started again by itself.
    site.ok("restart -t 0 one");
    // Another network, another port.
    site.daemon
        .dewar(&["restore", "--name", "two", "--network", "other", "-p", "8081:7000", "web", "cp1"])
        .ok();
    assert!(site.address("two", "other").starts_with("10.10.0."));
    let mut line = site.outside.within(|| Line::open(&format!("{}:8081", crate::network::site::HOST)));
    assert!(line.says());
    // A range is shared out.
    site.daemon
        .dewar(&["restore", "--count", "2", "--name", "three", "-p", "8090-8099:7000", "web", "cp1"])
        .ok();
    // What cannot be is refused, and nothing of it stays.
    let before = site.daemon.leftovers();
    let names = || site.ok("ps -a --format {{.Names}}");
    let known = names();
    for (flags, text) in [
        (&["-p", "8081:7000"][..], "already allocated"),
        (&["--ip", "10.9.0.77"], "in use"),
        (&["--ip", "10.99.0.1"], "10.99.0.1"),
        (&["--network", "none-such"], "none-such"),
        (&["--volume", "data:/nowhere"], "/nowhere"),
        (&["--name", "one"], "already in use"),
        (&["--mac", "x"], "mac address"),
    ] {
        let output = site.daemon.dewar(&["restore"]).args(flags).args(["web", "cp1"]).run();
        assert_eq!(output.code, 1, "{output}");
        output.says(text).no_panic();
        assert_eq!(names(), known, "{flags:?}");
    }
    before.assert_same_now();
    goes_on(&site, "web");
}

#[test]
fn of_several_copies_those_that_stand_stay() {
    requires!(root, criu);
    let daemon = counting(&[]);
    daemon.dewar(&["checkpoint", "create", "--leave-running", "web", "cp1"]).ok();
    daemon.dewar(&["checkpoint", "create", "--leave-running", "web", "bad"]).ok();
    daemon.dewar(&["create", "--name", "copy-2", "--network", "none", "busybox", "true"]).ok();
    // A name that is taken is known before anything is made.
    daemon.dewar(&["restore", "--count", "3", "--name", "copy", "web", "cp1"]).fails(1).stderr_has("copy-2");
    let names = || daemon.dewar(&["ps", "-a", "--format", "{{.Names}}"]).ok().stdout;
    assert_eq!(names().lines().count(), 2, "{}", names());
    // The original starts a process for each number; frozen, it has the same ones before and after.
    daemon.dewar(&["pause", "web"]).ok();
    let before = daemon.leftovers();
    let found = Cmd::new("find")
        .arg(daemon.dir().join("data"))
        .args(["-path", "*/bad/*", "-name", "mountpoints-*.img", "-o", "-path", "*/bad/checkpoint.json"])
        .ok();
    assert_eq!(found.stdout.lines().count(), 2, "{}", found.stdout);
    for file in found.stdout.lines() {
        let content = match file.ends_with(".json") {
            false => "not an image".to_owned(),
            // Without digests, or it would be found out before anything is tried.
            true => {
                let text = std::fs::read(file).expect("a file of the checkpoint");
                let mut says: serde_json::Value = serde_json::from_slice(&text).expect("it is JSON");
                says.as_object_mut().expect("a map").remove("files");
                says.to_string()
            }
        };
        std::fs::write(file, content).expect("a file of ours");
    }
    let output = daemon.dewar(&["restore", "--count", "2", "--name", "broken", "web", "bad"]).fails(1);
    output.stderr_has("2 of 2 copies failed").stderr_has("broken-1").stderr_has("broken-2");
    assert_eq!(names().lines().count(), 2, "{}", names());
    before.assert_same_now();
    daemon.dewar(&["unpause", "web"]).ok();
    let dirs = std::fs::read_dir(daemon.dir().join("data/containers")).expect("it is there").count();
    assert_eq!(dirs, 2);
    daemon.dewar(&["restore", "--name", "broken-1", "web", "cp1"]).ok();
    counts_on(&daemon, "broken-1");
    daemon.dewar(&["restore", "web", "none-such"]).fails(1).stderr_has("none-such");
    daemon.dewar(&["restore", "none-such", "cp1"]).fails(1).stderr_has("none-such");
    daemon
        .api_json("POST", "/containers/web/checkpoints/cp1/restore", &json!({"Count": 100_000}))
        .refuses(400, "most");
    let body = json!({"Count": 2, "IPv4Address": "10.0.0.1"});
    daemon.api_json("POST", "/containers/web/checkpoints/cp1/restore", &body).refuses(400, "one copy");
    // Only its own volumes and directories can be pointed elsewhere, and it has none.
    let body = json!({"Volumes": {"/": "/etc"}});
    daemon.api_json("POST", "/containers/web/checkpoints/cp1/restore", &body).refuses(400, "no mount");
    counts_past(&daemon, numbers(&daemon).len());
}

#[test]
fn mounts_are_pointed_elsewhere() {
    requires!(root, criu);
    let daemon = Daemon::start();
    let (first, second) = (daemon.dir().join("first"), daemon.dir().join("second"));
    for dir in [&first, &second] {
        std::fs::create_dir(dir).expect("a fresh directory");
    }
    std::fs::write(second.join("word"), "second\n").expect("a fresh directory");
    std::fs::write(first.join("word"), "first\n").expect("a fresh directory");
    daemon.run(&["-v", "other:/v"], "echo other > /v/word").ok();
    let bind = format!("{}:/bind:ro", first.display());
    daemon.run_detached("web", &["-v", &bind, "-v", "data:/data"], super::COUNTER);
    exec(&daemon, "web", "echo data > /data/word");
    daemon.dewar(&["checkpoint", "create", "--leave-running", "web", "cp1"]).ok();
    let to = format!("{}:/bind", second.display());
    daemon.dewar(&["restore", "--name", "copy", "-v", &to, "-v", "other:/data", "web", "cp1"]).ok();
    counts_on(&daemon, "copy");
    assert_eq!(
        exec(&daemon, "copy", "cat /bind/word /data/word; touch /bind/x 2>/dev/null || echo ro"),
        "second\nother\nro\n"
    );
    let found = inspect(&daemon, "copy");
    let text = format!("{}{}", found["HostConfig"]["Binds"], found["Mounts"]);
    assert!(
        text.contains("other:/data") && text.contains(&format!("{}:/bind:ro", second.display())),
        "{text}"
    );
    assert!(!text.contains("first"), "{text}");
    // What it is mounted with holds the next time, too.
    daemon.dewar(&["restart", "-t", "0", "copy"]).ok();
    assert_eq!(exec(&daemon, "copy", "cat /bind/word /data/word"), "second\nother\n");
    assert_eq!(exec(&daemon, "web", "cat /bind/word /data/word"), "first\ndata\n");
    daemon.dewar(&["volume", "rm", "other"]).fails(1).stderr_has("in use");
    // What nobody points elsewhere is the original's, which is said.
    daemon.dewar(&["restore", "--name", "near", "web", "cp1"]).ok().stderr_has("volume data is shared");
    assert_eq!(exec(&daemon, "near", "cat /bind/word /data/word"), "first\ndata\n");
    daemon.dewar(&["restore", "-v", "/none-such:/bind", "web", "cp1"]).fails(1).stderr_has("/none-such");
}
