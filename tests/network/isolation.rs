//! Who may not reach whom, and with which address the others are seen.

use super::site::{HOST, OUTSIDE, Site};
use super::traffic::{Server, answers, answers_tcp, is_cut};
use crate::support::requires::requires;

#[test]
fn networks_are_apart() {
    requires!(root, docker, iproute);
    let site = Site::new();
    site.ok("network create one");
    site.ok("network create two");
    let (a, b) = (site.run("ann", "--network one"), site.run("bob", "--network one"));
    let c = site.run("cat", "--network two");
    let d = site.run("dan", "");
    let _servers = [&a, &b, &c, &d].map(|each| Server::start(&each.inside, &each.name, 80));
    let at = |name: &str, network: &str| format!("{}:80", site.address(name, network));
    // Neighbours see each other as they are.
    answers(&a.inside, &at("bob", "one"), &format!("bob {}", site.address("ann", "one")));
    answers(&b.inside, &at("ann", "one"), &format!("ann {}", site.address("bob", "one")));
    // The host reaches everybody.
    for (name, network) in [("ann", "one"), ("cat", "two"), ("dan", "bridge")] {
        let gateway = site.network(network)["IPAM"]["Config"][0]["Gateway"].as_str().expect("one").to_owned();
        answers(&site.host, &at(name, network), &format!("{name} {gateway}"));
    }
    // Nobody else, in either direction.
    is_cut(&a.inside, &at("cat", "two"));
    is_cut(&c.inside, &at("ann", "one"));
    is_cut(&a.inside, &at("dan", "bridge"));
    is_cut(&d.inside, &at("cat", "two"));
    // Somebody outside who knows the way is not let in.
    site.outside.run("ip", &["route", "add", "172.16.0.0/12", "via", HOST]);
    is_cut(&site.outside, &at("ann", "one"));
    is_cut(&site.outside, &at("dan", "bridge"));
    // The outside sees the host's address.
    let _far = Server::start(&site.outside, "far", 7);
    answers(&a.inside, &format!("{OUTSIDE}:7"), &format!("far {HOST}"));
    answers(&d.inside, &format!("{OUTSIDE}:7"), &format!("far {HOST}"));
    // Loopback's services of the host are the host's own, though published ports come that way.
    site.run("web", "--network one -p 8080:80");
    let _local = Server::at(&site.host, "local", ([127, 0, 0, 1], 6000).into());
    let gateway = site.network("one")["IPAM"]["Config"][0]["Gateway"].as_str().expect("one").to_owned();
    a.inside.run("ip", &["route", "add", "127.0.0.99/32", "via", &gateway]);
    is_cut(&a.inside, "127.0.0.99:6000");
}

#[test]
fn an_internal_network_has_no_way_out() {
    requires!(root, docker, iproute);
    let site = Site::new();
    site.ok("network create --internal closed");
    let (a, b) = (site.run("ann", "--network closed"), site.run("bob", "--network closed"));
    let _servers = [&a, &b].map(|each| Server::start(&each.inside, &each.name, 80));
    let _far = Server::start(&site.outside, "far", 7);
    answers(
        &a.inside,
        &format!("{}:80", site.address("bob", "closed")),
        &format!("bob {}", site.address("ann", "closed")),
    );
    is_cut(&a.inside, &format!("{OUTSIDE}:7"));
    assert!(!site.sh("ann", "ip route").contains("default"), "an internal network has no default route");
    // Even who makes a way is stopped.
    let gateway =
        site.network("closed")["IPAM"]["Config"][0]["Gateway"].as_str().unwrap_or_default().to_owned();
    if !gateway.is_empty() {
        a.inside.run("ip", &["route", "add", "default", "via", &gateway]);
        is_cut(&a.inside, &format!("{OUTSIDE}:7"));
    }
    assert_eq!(site.network("closed")["Internal"], true);
}

#[test]
fn icc_off_parts_neighbours() {
    requires!(root, docker, iproute);
    let site = Site::with(&["--icc=false"]);
    site.ok("network create -o com.docker.network.bridge.enable_icc=false apart");
    let (a, b) = (site.run("ann", "--network apart"), site.run("bob", "--network apart -p 8080:80"));
    let (c, d) = (site.run("cat", ""), site.run("dan", ""));
    let _servers = [&a, &b, &c, &d].map(|each| Server::start(&each.inside, &each.name, 80));
    is_cut(&a.inside, &format!("{}:80", site.address("bob", "apart")));
    is_cut(&c.inside, &format!("{}:80", site.address("dan", "bridge")));
    let _far = Server::start(&site.outside, "far", 7);
    answers(&a.inside, &format!("{OUTSIDE}:7"), &format!("far {HOST}"));
    answers_tcp(&site.outside, &format!("{HOST}:8080"), &format!("bob {OUTSIDE}"));
}

#[test]
fn addresses_are_hidden_or_shown_as_asked() {
    requires!(root, docker, iproute);
    let site = Site::new();
    site.ok(
        "network create --subnet 10.55.0.0/24 -o com.docker.network.bridge.enable_ip_masquerade=false shown",
    );
    site.ok(
        "network create --subnet 10.56.0.0/24 -o com.docker.network.bridge.gateway_mode_ipv4=routed routed",
    );
    site.ok("network create --subnet 10.57.0.0/24 -o com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected open");
    for subnet in ["10.55.0.0/24", "10.56.0.0/24", "10.57.0.0/24"] {
        site.outside.run("ip", &["route", "add", subnet, "via", HOST]);
    }
    let _far = Server::start(&site.outside, "far", 7);
    let shown = site.run("ann", "--network shown --ip 10.55.0.9");
    answers(&shown.inside, &format!("{OUTSIDE}:7"), "far 10.55.0.9");
    // Routed: reached at its own address, on the published ports only.
    let routed = site.run("bob", "--network routed --ip 10.56.0.9 -p 80 -p 80/udp");
    let _servers = [80, 81].map(|port| Server::start(&routed.inside, "bob", port));
    answers(&routed.inside, &format!("{OUTSIDE}:7"), "far 10.56.0.9");
    answers(&site.outside, "10.56.0.9:80", &format!("bob {OUTSIDE}"));
    is_cut(&site.outside, "10.56.0.9:81");
    // Unprotected: every port.
    let open = site.run("cat", "--network open --ip 10.57.0.9");
    let _server = Server::start(&open.inside, "cat", 81);
    answers(&site.outside, "10.57.0.9:81", &format!("cat {OUTSIDE}"));
    answers(&open.inside, &format!("{OUTSIDE}:7"), &format!("far {HOST}"));
}

/// A network whose containers are seen with an address of the host's that is not its first.
#[test]
fn a_network_has_a_source_address_of_its_own() {
    requires!(root, docker, iproute);
    let site = Site::new();
    let link = site.host.run("ip", &["-o", "route", "get", OUTSIDE]);
    let link =
        link.split(" dev ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a way there").to_owned();
    site.host.run("ip", &["addr", "add", "192.0.2.9/24", "dev", &link]);
    site.ok("network create -o com.docker.network.host_ipv4=192.0.2.9 chosen");
    let (chosen, other) = (site.run("ann", "--network chosen -p 8080:80"), site.run("bob", ""));
    let _far = Server::start(&site.outside, "far", 7);
    answers(&chosen.inside, &format!("{OUTSIDE}:7"), "far 192.0.2.9");
    answers(&other.inside, &format!("{OUTSIDE}:7"), &format!("far {HOST}"));
    // What comes in is answered as ever, and the host is met with its own address.
    let _server = Server::start(&chosen.inside, "ann", 80);
    answers_tcp(&site.outside, &format!("{HOST}:8080"), &format!("ann {OUTSIDE}"));
}

#[test]
fn none_host_and_anothers_network() {
    requires!(root, docker, iproute);
    let site = Site::new();
    let donor = site.run("donor", "--network none");
    assert!(donor.inside.interfaces().is_empty(), "{:?}", donor.inside.interfaces());
    let web = site.run("web", "-p 8080:80");
    let guest = site.run("guest", "--network container:web");
    assert_eq!(guest.inside, web.inside);
    assert_eq!(site.run("big", "--network host").inside, site.host);
    let _server = Server::start(&guest.inside, "guest", 80);
    answers_tcp(&site.outside, &format!("{HOST}:8080"), &format!("guest {OUTSIDE}"));
    let settings = site.inspect("guest");
    assert_eq!(settings["NetworkSettings"]["Networks"], serde_json::json!({}), "{settings}");
    site.refuses("run --network container:web -p 80:80 busybox", "conflicting options: port publishing");
    site.refuses("run --network nowhere busybox true", "network nowhere not found");
    // Out of one it cannot have: what lives without a network cannot be put into one.
    site.ok("network create more");
    site.refuses(
        "network connect more big",
        "container cannot be disconnected from host network or connected to host network",
    );
    site.refuses("network connect more guest", "");
}

#[test]
fn a_link_opens_the_exposed_ports_of_the_other() {
    requires!(root, docker, iproute);
    // The host's rules see what crosses a bridge only where br_netfilter shows it to them.
    for shown in ["1", "0"] {
        let mut site = Site::with(&["--icc=false"]);
        for file in ["iptables", "ip6tables"] {
            let set = site
                .host
                .within(|| std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{file}"), shown));
            // Without br_netfilter nothing is shown.
            assert!(set.is_ok() || !std::path::Path::new("/proc/sys/net/bridge").exists(), "{set:?}");
        }
        let db = site.run("db", "--expose 80/tcp --expose 80/udp");
        let (app, other) = (site.run("app", "--link db:database"), site.run("other", ""));
        let server = Server::start(&db.inside, "db", 80);
        let _servers =
            [(&db, 81), (&app, 80)].map(|(each, port)| Server::start(&each.inside, &each.name, port));
        let at = |site: &Site, name: &str, port: u16| format!("{}:{port}", site.address(name, "bridge"));
        let seen = format!("db {}", site.address("app", "bridge"));
        answers(&app.inside, &at(&site, "db", 80), &seen);
        is_cut(&app.inside, &at(&site, "db", 81));
        is_cut(&db.inside, &at(&site, "app", 80));
        is_cut(&other.inside, &at(&site, "db", 80));
        // The next daemon knows.
        site.daemon.kill9();
        site.daemon.restart();
        answers(&app.inside, &at(&site, "db", 80), &seen);
        is_cut(&other.inside, &at(&site, "db", 80));
        // It goes where the other goes, and nobody inherits it.
        let old = at(&site, "db", 80);
        drop(server);
        drop(_servers);
        site.ok("stop -t 0 db");
        let heir = site.run("heir", "--expose 80/tcp --expose 80/udp");
        assert_eq!(at(&site, "heir", 80), old);
        let _heirs = Server::start(&heir.inside, "heir", 80);
        is_cut(&app.inside, &old);
        site.ok("start db");
        let _server = Server::start(&site.running("db").inside, "db", 80);
        answers(&app.inside, &at(&site, "db", 80), &seen);
        let app_at = site.address("app", "bridge");
        site.ok("rm -f app");
        let late = site.run("late", "");
        assert_eq!(site.address("late", "bridge"), app_at);
        is_cut(&late.inside, &at(&site, "db", 80));
    }
}
