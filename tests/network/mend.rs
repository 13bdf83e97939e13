//! What a daemon finds broken when it comes back is mended, what nobody has any more is gone, and what is the host's
//! is as it was.

use super::site::{HOST, OUTSIDE, Site};
use super::traffic::{Server, answers, is_cut};
use crate::checkpoint::peers::{self, Line, PORT};
use crate::support::eventually;
use crate::support::requires::requires;

/// A published server in a network of its own, and somebody beside it.
#[track_caller]
fn serving() -> Site {
    let site = Site::new();
    site.ok("network create --subnet 10.9.0.0/24 --ipv6 --subnet fd00:9::/64 shop");
    peers::run(&site.daemon, "web", &["--network", "shop", "-p", &format!("80:{PORT}")], "server");
    site.run("asker", "--network shop");
    eventually("the server", || site.daemon.logs("web").contains("said "));
    site
}

/// The server is reached from outside, from the host by both addresses, and from beside it by name.
#[track_caller]
fn is_reached(site: &Site) {
    for to in [format!("{HOST}:80"), "127.0.0.1:80".to_owned()] {
        let from = if to.starts_with(HOST) { &site.outside } else { &site.host };
        assert!(from.within(|| Line::open(&to)).says(), "{to}");
    }
    let address = site.address("web", "shop");
    assert!(site.sh("asker", "nslookup web").contains(&address));
    let beside = site.running("asker").inside;
    assert!(beside.within(|| Line::open(&format!("{address}:{PORT}"))).says());
}

#[test]
fn what_was_broken_meanwhile_is_mended() {
    requires!(root, docker, iproute, nftables);
    let mut site = serving();
    let rules = site.rules();
    let bridge =
        site.interfaces().into_iter().find(|name| name.starts_with("br-")).expect("the network's bridge");
    let breakages: [&[&[&str]]; 4] = [
        &[&["nft", "flush", "ruleset"]],
        &[&["ip", "addr", "flush", "dev", &bridge]],
        &[&["ip", "link", "del", &bridge]],
        &[&["nft", "flush", "ruleset"], &["ip", "link", "set", &bridge, "down"]],
    ];
    for breakage in breakages {
        site.daemon.kill9();
        for words in breakage {
            site.host.run(words[0], &words[1..]);
        }
        site.daemon.restart();
        is_reached(&site);
        assert_eq!(site.rules(), rules, "after {breakage:?}");
    }
}

#[test]
fn what_dead_containers_had_is_gone() {
    requires!(root, docker, iproute, nftables);
    let mut site = serving();
    let before = (site.interfaces(), site.rules());
    let pids: Vec<u32> = ["one", "two"]
        .into_iter()
        .map(|name| {
            site.run(name, &format!("--network shop -p {}:80", if name == "one" { 81 } else { 82 }));
            u32::try_from(site.daemon.state(name)["Pid"].as_u64().expect("it runs")).expect("a pid")
        })
        .collect();
    site.daemon.kill9();
    // One dies alone, of the other the shim dies too.
    let kill = |pid: u32| {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("not 0");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    };
    kill(pids[0]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", pids[1])).expect("it runs");
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("it has a parent");
    kill(shim.trim().parse().expect("a pid"));
    kill(pids[1]);
    site.daemon.restart();
    for name in ["one", "two"] {
        assert_eq!(site.daemon.state(name)["Running"], false);
        assert!(!site.docker(&["exec", "asker", "nslookup", name]).run().stdout.contains("10.9.0."));
    }
    is_reached(&site);
    eventually("nothing of them to be there", || (site.interfaces(), site.rules()) == before);
    // Their ports and addresses are free.
    site.ok("run -d --name three --network shop -p 81:80 -p 82:80 busybox sleep 1000");
    site.refuses("start one", "port is already allocated");
}

#[test]
fn what_is_the_hosts_stays_as_it_is() {
    requires!(root, docker, iproute, nftables);
    let mut site = serving();
    site.host.run("nft", &["add", "table", "inet", "theirs"]);
    let chain = "{ type filter hook input priority 0; policy accept; }";
    site.host.run("nft", &["add", "chain", "inet", "theirs", "input", chain]);
    site.host.run("nft", &["add", "rule", "inet", "theirs", "input", "tcp", "dport", "22", "accept"]);
    site.host.run("ip", &["link", "add", "theirs", "type", "bridge"]);
    site.host.run("ip", &["addr", "add", "198.51.100.1/24", "dev", "theirs"]);
    let theirs = |site: &Site| {
        let table = site.host.run("nft", &["list", "table", "inet", "theirs"]);
        (table, site.host.run("ip", &["addr", "show", "dev", "theirs"]))
    };
    let before = theirs(&site);
    site.daemon.kill9();
    site.daemon.restart();
    is_reached(&site);
    assert_eq!(theirs(&site), before);
    site.ok("rm -f web asker");
    site.ok("network rm shop");
    assert_eq!(theirs(&site), before);
    let host = &site.host;
    answers_nobody(&site, host);
}

/// Nothing is published any more.
#[track_caller]
fn answers_nobody(site: &Site, host: &crate::support::Namespace) {
    is_cut(&site.outside, &format!("{HOST}:80"));
    let _server = Server::start(host, "host", 80);
    answers(&site.outside, &format!("{HOST}:80"), &format!("host {OUTSIDE}"));
}
