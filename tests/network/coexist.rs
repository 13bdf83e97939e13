//! Other people's rules: kept to the byte, and no hindrance.

use super::site::{HOST, OUTSIDE, Site, wired};
use super::traffic::{Server, answers};
use crate::support::requires::requires;
use crate::support::{Daemon, Namespace, eventually};

fn saved(host: &Namespace) -> String {
    let tools = ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save"];
    let texts = tools.map(|tool| host.run(tool, &[]));
    // The tools write when they ran.
    let lines = texts.concat();
    let lines = lines.lines().filter(|line| !line.starts_with('#'));
    // And how much has met a policy: `:FORWARD DROP [3:180]`.
    lines.map(|line| format!("{}\n", line.split(" [").next().unwrap_or_default())).collect()
}

#[test]
fn rules_of_others_are_left_as_they_were() {
    requires!(root, docker, iproute, nftables);
    let (host, outside) = wired();
    for rule in [
        "-P FORWARD DROP",
        "-N DOCKER-USER",
        "-A DOCKER-USER -j RETURN",
        "-A FORWARD -j DOCKER-USER",
        "-A FORWARD -s 203.0.113.0/24 -m comment --comment mine -j REJECT",
        "-t nat -A POSTROUTING -s 203.0.113.0/24 -j MASQUERADE",
        "-A INPUT -p tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT",
    ] {
        host.run("iptables-nft", &rule.split(' ').collect::<Vec<_>>());
    }
    host.run("iptables-legacy", &["-A", "FORWARD", "-s", "203.0.113.9", "-j", "DROP"]);
    host.run("nft", &["add", "table", "inet", "firewalld"]);
    host.run(
        "nft",
        &[
            "add",
            "chain",
            "inet",
            "firewalld",
            "filter_FORWARD",
            "{ type filter hook forward priority 10 ; policy accept ; }",
        ],
    );
    host.run(
        "nft",
        &[
            "add",
            "rule",
            "inet",
            "firewalld",
            "filter_FORWARD",
            "ip",
            "saddr",
            "203.0.113.7",
            "counter",
            "drop",
        ],
    );
    let before = (saved(&host), host.run("nft", &["--stateless", "list", "ruleset"]));
    let site = Site { daemon: Daemon::start_in(&host, &[]), host, outside };
    let web = site.run("web", "-p 8080:80 -p 8080:80/udp");
    site.ok("network create net");
    let peer = site.run("peer", "--network net");
    let _server = Server::start(&web.inside, "web", 80);
    let _far = Server::start(&site.outside, "far", 7);
    // dockerd's DROP is met in the place meant for it.
    answers(&site.outside, &format!("{HOST}:8080"), &format!("web {OUTSIDE}"));
    answers(&peer.inside, &format!("{OUTSIDE}:7"), &format!("far {HOST}"));
    site.ok("rm -f web peer");
    site.ok("network rm net");
    let mut site = site;
    site.daemon.end();
    eventually("the rules are as they were", || {
        (saved(&site.host), site.host.run("nft", &["--stateless", "list", "ruleset"])) == before
    });
}

#[test]
fn a_drop_policy_of_ufws_kind_is_met_or_told() {
    requires!(root, docker, iproute, nftables);
    let (host, outside) = wired();
    host.run("iptables-nft", &["-P", "FORWARD", "DROP"]);
    host.run("ip6tables-nft", &["-P", "FORWARD", "DROP"]);
    let before = saved(&host);
    let site = Site { daemon: Daemon::start_in(&host, &[]), host, outside };
    let web = site.run("web", "-p 8080:80");
    let _server = Server::start(&web.inside, "web", 80);
    let answer =
        super::traffic::tcp(&site.outside, &format!("{HOST}:8080"), std::time::Duration::from_secs(3));
    assert_eq!(answer, Ok(format!("web {OUTSIDE}")));
    site.ok("rm -f web");
    let mut site = site;
    site.daemon.end();
    eventually("the rules are as they were", || saved(&site.host) == before);
}

#[test]
fn a_drop_nobody_can_meet_is_told() {
    requires!(root, docker, iproute, nftables);
    let (host, outside) = wired();
    host.run("nft", &["add", "table", "inet", "mine"]);
    host.run(
        "nft",
        &[
            "add",
            "chain",
            "inet",
            "mine",
            "forward",
            "{ type filter hook forward priority 0 ; policy drop ; }",
        ],
    );
    let before = host.run("nft", &["--stateless", "list", "ruleset"]);
    let site = Site { daemon: Daemon::start_in(&host, &[]), host, outside };
    site.run("web", "-p 8080:80");
    let info = site.daemon.api("GET", "/info").is(200).json();
    let warnings = info["Warnings"].to_string();
    assert!(warnings.contains("mine") && warnings.to_lowercase().contains("forward"), "{warnings}");
    site.ok("rm -f web");
    let mut site = site;
    site.daemon.end();
    eventually("the rules are as they were", || {
        site.host.run("nft", &["--stateless", "list", "ruleset"]) == before
    });
}

#[test]
fn without_iptables_there_are_no_rules() {
    requires!(root, docker, iproute, nftables);
    let site = Site::with(&["--iptables=false", "--ip6tables=false"]);
    let (a, b) = (site.run("ann", "-p 8080:80"), site.run("bob", ""));
    let _servers = [&a, &b].map(|each| Server::start(&each.inside, &each.name, 80));
    answers(
        &a.inside,
        &format!("{}:80", site.address("bob", "bridge")),
        &format!("bob {}", site.address("ann", "bridge")),
    );
    assert_eq!(site.rules(), Vec::<String>::new());
    // What needs no rule is there all the same: the relay.
    let answer = super::traffic::tcp(&site.host, "127.0.0.1:8080", std::time::Duration::from_secs(3));
    assert!(answer.as_deref().is_ok_and(|text| text.starts_with("ann ")), "{answer:?}");
}

#[test]
fn two_daemons_on_one_host_keep_apart() {
    requires!(root, docker, iproute, nftables);
    let site = Site::new();
    let second = Daemon::start_in(
        &site.host,
        &["--bip", "10.90.0.1/24", "--default-address-pool", "base=10.91.0.0/16,size=24"],
    );
    let web = site.run("web", "-p 8080:80");
    second.docker(&["run", "-d", "--name", "web", "-p", "8081:80", "busybox", "sleep", "1000"]).ok();
    let pid = second.state("web")["Pid"].as_u64().expect("it runs");
    let other = Namespace::of(u32::try_from(pid).expect("a pid"));
    let _servers = [Server::start(&web.inside, "first", 80), Server::start(&other, "second", 80)];
    let tcp = |port: u16| {
        super::traffic::tcp(&site.outside, &format!("{HOST}:{port}"), std::time::Duration::from_secs(3))
    };
    assert_eq!(tcp(8080), Ok(format!("first {OUTSIDE}")));
    assert_eq!(tcp(8081), Ok(format!("second {OUTSIDE}")));
    // A port of the other's is taken.
    let taken = second.docker(&["run", "--rm", "-p", "8080:80", "busybox", "true"]).run();
    taken.stderr_has("address already in use");
    drop(second);
    assert_eq!(tcp(8080), Ok(format!("first {OUTSIDE}")));
    assert!(tcp(8081).is_err());
}
