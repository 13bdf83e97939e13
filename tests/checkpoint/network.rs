//! Connections over a freeze and a thaw: kept where they can be, closed where they cannot or should not.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::peers::{self, Line, PORT, datagram};
use crate::network::macvlan::kernel_has;
use crate::network::site::{HOST, Site};
use crate::support::prop::check;
use crate::support::requires::{self, requires};
use crate::support::{Cmd, TempDir, eventually, within};

/// A server `web` in a network of its own, published at a port of the host's choice, and a client `asker` beside it.
#[track_caller]
pub(super) fn serving() -> Site {
    let site = Site::new();
    fill(&site, &[], "server");
    site
}

#[track_caller]
pub(super) fn fill(site: &Site, flags: &[&str], role: &str) {
    site.ok("network create --subnet 10.9.0.0/24 --ipv6 --subnet fd00:9::/64 shop");
    let port = PORT.to_string();
    let flags = [&["--network", "shop", "-p", &port], flags].concat();
    peers::run(&site.daemon, "web", &flags, role);
    let to = format!("{}:{PORT}", site.address("web", "shop"));
    peers::run(&site.daemon, "asker", &["--network", "shop"], &to);
    for name in ["web", "asker"] {
        eventually("the conversation", || said(site, name) > 3);
    }
}

/// How far the container's conversation is; the test fails if it ever broke.
#[track_caller]
pub(super) fn said(site: &Site, name: &str) -> usize {
    let logs = site.daemon.logs(name);
    assert!(!logs.contains("broken"), "{name}: {logs}");
    logs.matches("said ").count()
}

/// The container's conversation goes on and has not broken.
#[track_caller]
pub(super) fn goes_on(site: &Site, name: &str) {
    let before = said(site, name);
    eventually("the conversation to go on", || said(site, name) > before + 3);
}

/// Where the outside reaches `web`.
#[track_caller]
pub(super) fn published(site: &Site) -> String {
    let ports = site.inspect("web")["NetworkSettings"]["Ports"].clone();
    let port = ports[format!("{PORT}/tcp")][0]["HostPort"].as_str().unwrap_or_default().to_owned();
    assert!(!port.is_empty(), "{ports}");
    format!("{HOST}:{port}")
}

/// What of `web`'s place must be the same for connections to go on.
fn place(site: &Site) -> [Value; 3] {
    let endpoint = site.inspect("web")["NetworkSettings"]["Networks"]["shop"].clone();
    ["IPAddress", "GlobalIPv6Address", "MacAddress"].map(|key| endpoint[key].clone())
}

/// New connections reach `web`: from outside, from beside it by name, over UDP and IPv6.
#[track_caller]
pub(super) fn is_reached(site: &Site) {
    let to = published(site);
    let mut line = site.outside.within(|| Line::open(&to));
    assert!(line.says());
    let [v4, v6, _] = place(site).map(|text| text.as_str().unwrap_or_default().to_owned());
    let beside = site.running("asker").inside;
    for to in [format!("{v4}:{PORT}"), format!("[{v6}]:{PORT}")] {
        assert!(beside.within(|| datagram(&to)).ends_with(" word"), "{to}");
        assert!(beside.within(|| Line::open(&to)).says(), "{to}");
    }
    assert!(site.sh("asker", "nslookup web").contains(&v4));
}

#[test]
fn connections_outlive_a_checkpoint_that_leaves_running() {
    requires!(root, criu, docker, iproute);
    let site = serving();
    let to = published(&site);
    let mut line = site.outside.within(|| Line::open(&to));
    for name in ["one", "two"] {
        site.ok(&format!("checkpoint create --leave-running web {name}"));
        assert!(line.says(), "the line from outside is dead after {name}");
        goes_on(&site, "asker");
        goes_on(&site, "web");
    }
    is_reached(&site);
    // The one that asks, too.
    site.ok("checkpoint create --leave-running asker one");
    goes_on(&site, "asker");
}

#[test]
fn connections_go_on_after_thaws() {
    requires!(root, criu, docker, iproute);
    let site = serving();
    let (to, before) = (published(&site), place(&site));
    let mut line = site.outside.within(|| Line::open(&to));
    for generation in 1..=3 {
        site.ok(&format!("checkpoint create web cp{generation}"));
        assert_eq!(site.daemon.state("web")["Running"], false);
        site.ok(&format!("start --checkpoint cp{generation} web"));
        assert!(line.says(), "the line from outside is dead in generation {generation}");
        goes_on(&site, "asker");
        goes_on(&site, "web");
        assert_eq!((published(&site), place(&site)), (to.clone(), before.clone()));
    }
    is_reached(&site);
    // What asked is frozen for longer than its peer's first tries.
    site.ok("checkpoint create asker cp1");
    std::thread::sleep(std::time::Duration::from_secs(1));
    site.ok("start --checkpoint cp1 asker");
    goes_on(&site, "asker");
}

/// On the host's own wire, where no bridge holds anything back.
#[test]
fn connections_on_a_macvlan_go_on_after_thaws() {
    requires!(root, criu, docker, iproute);
    let site = Site::new();
    let create = "network create -d macvlan --subnet 192.0.2.0/24 --ip-range 192.0.2.64/26 --gateway 192.0.2.2 -o parent=lan shop";
    if !kernel_has("macvlan") {
        site.refuses(create, "macvlan");
        return;
    }
    site.ok(create);
    peers::run(&site.daemon, "web", &["--network", "shop"], "server");
    let address = site.address("web", "shop");
    peers::run(&site.daemon, "asker", &["--network", "shop"], &format!("{address}:{PORT}"));
    let mut line = site.outside.within(|| Line::open(&format!("{address}:{PORT}")));
    assert!(line.says());
    let before = place(&site);
    for (name, checkpoint) in [("web", "cp1"), ("web", "cp2"), ("asker", "cp1")] {
        site.ok(&format!("checkpoint create {name} {checkpoint}"));
        site.ok(&format!("start --checkpoint {checkpoint} {name}"));
        assert!(line.says(), "the line from outside is dead after {checkpoint} of {name}");
        goes_on(&site, "asker");
    }
    assert_eq!(place(&site), before);
    site.ok("checkpoint create --leave-running web cp3");
    assert!(line.says(), "the line from outside is dead after a checkpoint that leaves it running");
    goes_on(&site, "asker");
}

#[test]
fn connections_are_closed_on_request() {
    requires!(root, criu, docker, iproute);
    let site = serving();
    let before = place(&site);
    let to = published(&site);
    let mut line = site.outside.within(|| Line::open(&to));
    site.ok("checkpoint create web cp1");
    site.daemon.dewar(&["start", "--checkpoint", "cp1", "--tcp-close", "web"]).ok();
    assert!(!line.says(), "the line from outside was to be closed");
    eventually("the others to learn of it", || {
        ["web", "asker"].iter().all(|name| site.daemon.logs(name).contains("broken"))
    });
    assert_eq!(place(&site), before);
    is_reached(&site);
    site.daemon.has_told(&["container restore", "tcp=closed"]);
}

#[test]
fn a_taken_address_means_another_and_closed_connections() {
    requires!(root, criu, docker, iproute);
    let site = serving();
    let [old, ..] = place(&site).map(|text| text.as_str().unwrap_or_default().to_owned());
    let to = published(&site);
    let mut line = site.outside.within(|| Line::open(&to));
    site.ok("checkpoint create web cp1");
    site.run("squatter", &format!("--network shop --ip {old}"));
    site.ok("start --checkpoint cp1 web");
    assert_ne!(site.address("web", "shop"), old);
    assert!(!line.says(), "a line to an address that is another's now");
    eventually("the others to learn of it", || site.daemon.logs("web").contains("broken"));
    let log = site.daemon.log();
    assert!(log.contains(&old) && log.contains("TCP connections are closed"), "{log}");
    is_reached(&site);
}

#[test]
fn a_dump_that_fails_lets_the_traffic_go_on() {
    requires!(root, criu, docker, iproute);
    let site = Site::new();
    let dir = TempDir::new();
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a fresh directory");
    let flag = format!("{}:{}", socket.display(), peers::OUTSIDE);
    fill(&site, &["-v", &flag], peers::UNFREEZABLE);
    let to = published(&site);
    let mut line = site.outside.within(|| Line::open(&to));
    for flags in ["", "--leave-running"] {
        site.refuses(&format!("checkpoint create {flags} web cp1"), "unix socket outside");
        assert_eq!(site.daemon.state("web")["Running"], true);
        assert!(line.says(), "the line from outside is dead");
        goes_on(&site, "asker");
    }
    is_reached(&site);
}

#[test]
fn a_daemon_killed_in_the_middle_is_made_good_by_the_next() {
    requires!(root, criu, docker, iproute);
    let dir = TempDir::new();
    let (criu, slow) = (dir.path().join("criu"), dir.path().join("slow"));
    let real = requires::criu_path().expect("required above");
    let script = format!(
        "#!/bin/sh\nif [ -e {0} ]; then touch {0}.begun; sleep 2; fi\nexec {1} \"$@\"\n",
        slow.display(),
        real.display()
    );
    std::fs::write(&criu, script).expect("a fresh directory");
    Cmd::new("chmod").arg("755").arg(&criu).ok();
    let mut site = Site::with(&["--criu", &criu.display().to_string()]);
    fill(&site, &[], "server");
    let to = published(&site);
    let mut line = site.outside.within(|| Line::open(&to));
    std::fs::write(&slow, "").expect("a directory of ours");
    let begun = slow.with_extension("begun");
    let client = site.line("checkpoint create --leave-running web cp1").spawn();
    eventually("the dump to begin", || begun.exists());
    // Frozen or about to be: nothing gets through.
    let held = site.host.run("ip", &["-o", "link", "show", "type", "veth"]);
    assert!(held.contains("state DOWN"), "{held}");
    site.daemon.kill9();
    drop(client);
    std::fs::remove_file(&slow).expect("made above");
    site.daemon.restart();
    assert!(line.says(), "the line from outside is dead");
    goes_on(&site, "asker");
    goes_on(&site, "web");
    is_reached(&site);
    // The dump came to its end meanwhile.
    eventually("the checkpoint", || site.ok("checkpoint ls web").contains("cp1"));
    site.ok("rm -f web");
}

#[test]
fn a_daemon_killed_in_a_thaw_leaves_a_container_that_works_or_its_checkpoint() {
    requires!(root, criu, docker, iproute, nftables);
    // Later seeds find other moments.
    check("killed in a thaw", 1, |random| {
        let mut site = serving();
        let (to, before) = (published(&site), place(&site));
        site.ok("checkpoint create web cp1");
        let dir = site.daemon.dir().to_owned();
        let count = |name: &str| std::fs::read_dir(dir.join(name)).map_or(0, Iterator::count);
        let veths = |site: &Site| site.interfaces().iter().filter(|name| name.starts_with("veth")).count();
        let begun = Instant::now();
        site.ok("start --checkpoint cp1 web");
        let whole = u64::try_from(begun.elapsed().as_millis()).expect("a short while") + 50;
        site.ok("kill web");
        for round in 0..8 {
            let moment = Duration::from_millis(random.next() % whole);
            let client = site.line("start --checkpoint cp1 web").spawn();
            std::thread::sleep(moment);
            site.daemon.kill9();
            drop(client);
            site.daemon.restart();
            // A shim that is still at it is waited for in the background.
            let settled = || {
                let log = site.daemon.log();
                log.matches("its shim does not answer").count() <= log.matches("\"web\" is taken up").count()
            };
            eventually("the thaw to come to an end", settled);
            let is_running = site.daemon.state("web")["Running"] == true;
            eprintln!("round {round}, {moment:?}: {}", if is_running { "it runs" } else { "it does not" });
            assert_eq!(site.daemon.state("asker")["Running"], true);
            assert!(site.ok("checkpoint ls web").contains("cp1"));
            if is_running {
                assert_eq!((published(&site), place(&site)), (to.clone(), before.clone()));
                is_reached(&site);
                site.ok("kill web");
            }
            // Its root's unmounting waits for the disk, which other tests keep busy.
            within(Duration::from_secs(30), "the end to be over", || {
                veths(&site) == 1 && count("run/netns") == 1 && count("run/containers") == 1
            });
            let (_, port) = to.rsplit_once(':').expect("a port");
            assert!(!site.rules().iter().any(|word| word == port), "rules of {port} are left");
            let free = site.host.within(|| std::net::TcpListener::bind(format!("{HOST}:{port}")).map(drop));
            free.expect("nobody holds the port");
            // Its address is free: somebody else can have it, for a while.
            let [address, ..] = &before;
            let address = address.as_str().unwrap_or_default();
            site.ok(&format!("run --rm --network shop --ip {address} busybox true"));
        }
        site.ok("start --checkpoint cp1 web");
        assert_eq!((published(&site), place(&site)), (to, before));
        is_reached(&site);
    });
}
