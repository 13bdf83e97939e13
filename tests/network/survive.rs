//! Networks outlive the daemon: what it finds when it comes back, and what it mends meanwhile.

use super::resolver::{A, Way, ask};
use super::site::{HOST, OUTSIDE, Site};
use super::traffic::{Line, Server, answers, answers_tcp, is_cut};
use crate::support::eventually;
use crate::support::requires::requires;

#[test]
fn a_killed_daemon_takes_nothing_along() {
    requires!(root, docker, iproute);
    let mut site = Site::new();
    site.ok("network create --subnet 10.80.0.0/24 net");
    let web = site.run("web", "--network net -p 8080:80 -p 8080:80/udp");
    let peer = site.run("peer", "--network net");
    let plain = site.run("plain", "-p 8081:81 -p 8082:82");
    let _servers = [&web, &peer].map(|each| Server::start(&each.inside, &each.name, 80));
    let _other = Server::start(&plain.inside, "plain", 81);
    let mut line = Line::connect(&site.outside, &plain.inside, 82, &format!("{HOST}:8082"));
    let before = site.inspect("web")["NetworkSettings"].clone();
    let at_web = format!("{}:80", site.address("web", "net"));
    site.daemon.kill9();
    answers(&site.outside, &format!("{HOST}:8080"), &format!("web {OUTSIDE}"));
    answers(&peer.inside, &at_web, "web 10.80.0.3");
    assert!(line.carries("while nobody watches"));
    site.daemon.restart();
    assert!(line.carries("and after"));
    assert_eq!(site.inspect("web")["NetworkSettings"], before);
    answers(&site.outside, &format!("{HOST}:8080"), &format!("web {OUTSIDE}"));
    answers_tcp(&site.host, "127.0.0.1:8081", &format!("plain {}", gateway(&site)));
    answers_tcp(&site.host, "[::1]:8081", &format!("plain {}", gateway(&site)));
    // Names are answered again, addresses and ports are still taken, new containers fit in.
    assert_eq!(ask(&peer.inside, "web", A, Way::Udp).answers, [site.address("web", "net")]);
    site.refuses("run --rm -p 8080:80 busybox true", "port is already allocated");
    let newcomer = site.run("newcomer", "--network net");
    let address = site.address("newcomer", "net");
    assert!(![site.address("web", "net"), site.address("peer", "net")].contains(&address));
    answers(&newcomer.inside, &at_web, &format!("web {address}"));
    assert_eq!(ask(&peer.inside, "newcomer", A, Way::Udp).answers, [address]);
    // A stop in order takes its time to end what there is.
    site.ok("rm -f web peer newcomer plain");
    site.ok("network rm net");
    is_cut(&site.outside, &format!("{HOST}:8080"));
}

fn gateway(site: &Site) -> String {
    site.network("bridge")["IPAM"]["Config"][0]["Gateway"].as_str().expect("a gateway").to_owned()
}

#[test]
fn what_somebody_flushed_is_put_back() {
    requires!(root, docker, iproute, nftables);
    let mut site = Site::new();
    let web = site.run("web", "-p 8080:80");
    let _server = Server::start(&web.inside, "web", 80);
    let at_host = format!("{HOST}:8080");
    answers_tcp(&site.outside, &at_host, &format!("web {OUTSIDE}"));
    let rules = site.rules();
    for _ in 0..3 {
        site.host.run("nft", &["flush", "ruleset"]);
        eventually("the rules are back", || site.rules() == rules);
        answers_tcp(&site.outside, &at_host, &format!("web {OUTSIDE}"));
    }
    // While nobody was there to see it.
    site.daemon.kill9();
    site.host.run("nft", &["flush", "ruleset"]);
    site.daemon.restart();
    eventually("the rules are back", || site.rules() == rules);
    answers_tcp(&site.outside, &at_host, &format!("web {OUTSIDE}"));
}

#[test]
fn what_is_missing_is_mended_and_what_is_left_is_removed() {
    requires!(root, docker, iproute);
    let mut site = Site::new();
    site.ok("network create --subnet 10.81.0.0/24 net");
    let web = site.run("web", "--network net -p 8080:80");
    let dead = site.run("dead", "--network net -p 8090:80");
    let _server = Server::start(&web.inside, "web", 80);
    drop(dead);
    let bridge = site.interfaces().into_iter().find(|name| name.starts_with("br-")).expect("a bridge");
    let pid = site.daemon.state("dead")["Pid"].as_u64().expect("a pid").to_string();
    site.daemon.kill9();
    // One container dies unseen, the bridge is gone, and a foreign interface is there.
    site.host.run("kill", &["-9", &pid]);
    site.host.run("ip", &["link", "del", &bridge]);
    site.host.run("ip", &["link", "add", "vethmine", "type", "veth", "peer", "name", "vethours"]);
    site.host.run("ip", &["link", "add", "br-mine", "type", "bridge"]);
    site.daemon.restart();
    answers_tcp(&site.host, "127.0.0.1:8080", "web 10.81.0.1");
    let answer =
        super::traffic::tcp(&site.outside, &format!("{HOST}:8080"), std::time::Duration::from_secs(3));
    assert_eq!(answer, Ok(format!("web {OUTSIDE}")));
    site.run("heir", "--network net -p 8090:80");
    // What is not the daemon's is left alone.
    let interfaces = site.host.interfaces();
    assert!(interfaces.contains("vethmine") && interfaces.contains("br-mine"), "{interfaces:?}");
    site.host.run("ip", &["link", "del", "vethmine"]);
    site.host.run("ip", &["link", "del", "br-mine"]);
    let ends = site.interfaces().iter().filter(|name| name.starts_with("veth")).count();
    assert_eq!(ends, 2, "{:?}", site.interfaces());
}

#[test]
fn live_restore_and_an_orderly_stop() {
    requires!(root, docker, iproute, nftables);
    let mut site = Site::with(&["--live-restore"]);
    let web = site.run("web", "-p 8080:80");
    let _server = Server::start(&web.inside, "web", 80);
    assert_eq!(site.daemon.stop(), 0);
    answers_tcp(&site.outside, &format!("{HOST}:8080"), &format!("web {OUTSIDE}"));
    site.daemon.restart();
    answers_tcp(&site.outside, &format!("{HOST}:8080"), &format!("web {OUTSIDE}"));
    site.ok("rm -f web");
    assert_eq!(site.daemon.stop(), 0);
    // Nothing lives: nothing of ours stays in the host's rules.
    assert_eq!(site.rules(), Vec::<String>::new());
    site.daemon.restart();
    // Policies bring their networks along.
    site.run("again", "--restart always -p 8080:80");
    site.daemon.kill9();
    site.daemon.restart();
    let again = site.running("again");
    let _server = Server::start(&again.inside, "web", 80);
    answers_tcp(&site.outside, &format!("{HOST}:8080"), &format!("web {OUTSIDE}"));
}

#[test]
fn a_container_that_is_left_out_keeps_its_addresses_and_ports() {
    requires!(root, docker, iproute);
    let mut site = Site::new();
    site.ok("network create --subnet 10.82.0.0/24 net");
    let web = site.run("web", "--network net -p 8080:80");
    let _server = Server::start(&web.inside, "web", 80);
    let at = format!("{}:80", site.address("web", "net"));
    let id = site.inspect("web")["Id"].as_str().expect("an id").to_owned();
    site.daemon.kill9();
    let record = site.daemon.dir().join("data/containers").join(id).join("container.json");
    let before = std::fs::read_to_string(&record).expect("a record");
    // As a later dewar might have written it.
    std::fs::write(&record, before.replacen("\"format\":1", "\"format\":2", 1)).expect("ours");
    site.daemon.restart();
    site.daemon.api("GET", "/containers/web/json").is(404);
    let peer = site.run("peer", "--network net");
    assert_eq!(site.address("peer", "net"), "10.82.0.3");
    answers(&peer.inside, &at, "web 10.82.0.3");
    site.refuses("run --rm --network net --ip 10.82.0.2 busybox true", "Address already in use");
    // From outside, too.
    answers_tcp(&site.outside, &format!("{HOST}:8080"), &format!("web {OUTSIDE}"));
    site.refuses("run --rm -p 8080:80 busybox true", "port is already allocated");
    site.ok("rm -f peer");
    site.daemon.kill9();
    std::fs::write(&record, before).expect("ours");
    site.daemon.restart();
    assert_eq!(site.address("web", "net"), "10.82.0.2");
}
