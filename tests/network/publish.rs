//! Published ports: every form, from everywhere, and what a taken one leaves.

use std::net::TcpListener;

use serde_json::json;

use super::site::{HOST, HOST6, OUTSIDE, Site};
use super::traffic::{Server, answers, answers_tcp, is_cut};
use crate::support::requires::requires;

#[test]
fn a_port_is_reached_from_everywhere() {
    requires!(root, docker, iproute);
    let site = Site::new();
    let web = site.run("web", "-p 8080:80 -p 8080:80/udp");
    let peer = site.run("peer", "");
    site.ok("network create other");
    let stranger = site.run("stranger", "--network other");
    let _server = Server::start(&web.inside, "web", 80);
    let at_host = format!("{HOST}:8080");
    // Others are seen with their own addresses.
    answers(&site.outside, &at_host, &format!("web {OUTSIDE}"));
    let gateway =
        site.network("bridge")["IPAM"]["Config"][0]["Gateway"].as_str().expect("a gateway").to_owned();
    // The host itself, by its address and through loopback.
    answers(&site.host, "127.0.0.1:8080", &format!("web {gateway}"));
    answers(&site.host, "127.1.2.3:8080", &format!("web {gateway}"));
    answers(&site.host, &format!("{gateway}:8080"), &format!("web {gateway}"));
    let from_host = super::traffic::tcp(&site.host, &at_host, std::time::Duration::from_secs(3));
    assert!(from_host.as_deref().is_ok_and(|text| text.starts_with("web ")), "{from_host:?}");
    // The publisher itself, a neighbour, and a container of another network.
    answers(&web.inside, &at_host, &format!("web {gateway}"));
    let from_peer = super::traffic::tcp(&peer.inside, &at_host, std::time::Duration::from_secs(3));
    assert!(from_peer.as_deref().is_ok_and(|text| text.starts_with("web ")), "{from_peer:?}");
    let from_other = super::traffic::tcp(&stranger.inside, &at_host, std::time::Duration::from_secs(3));
    assert!(from_other.as_deref().is_ok_and(|text| text.starts_with("web ")), "{from_other:?}");
    // What rules cannot carry: IPv6 to a container that has none.
    answers(&site.host, "[::1]:8080", &format!("web {gateway}"));
    answers(&site.outside, &format!("[{HOST6}]:8080"), &format!("web {gateway}"));
    // Only while it runs.
    site.ok("kill web");
    site.ok("wait web");
    is_cut(&site.outside, &at_host);
    is_cut(&site.host, "[::1]:8080");
}

#[test]
fn every_form_of_publishing_is_understood() {
    requires!(root, docker, iproute);
    let site = Site::new();
    let flags = "-p 80 -p 127.0.0.1:8081:81 -p 127.0.0.1::82 -p 7000-7002:7000-7002 -p 8100-8110:83 -p 84:84/sctp \
                 -p 53:53/udp -p 192.0.2.1:8085:85 --expose 90";
    let web = site.run("web", flags);
    let ports = |port: &str| site.ok(&format!("port web {port}"));
    assert_eq!(ports("81"), "127.0.0.1:8081");
    let free = ports("82").strip_prefix("127.0.0.1:").and_then(|port| port.parse::<u16>().ok());
    assert!(free.is_some_and(|port| port > 1024), "{free:?}");
    for port in 7000..7003 {
        assert_eq!(ports(&port.to_string()), format!("0.0.0.0:{port}\n[::]:{port}"));
    }
    assert_eq!(ports("83"), "0.0.0.0:8100\n[::]:8100");
    assert_eq!(ports("84/sctp"), "0.0.0.0:84\n[::]:84");
    assert_eq!(ports("53/udp"), "0.0.0.0:53\n[::]:53");
    assert_eq!(ports("85"), "192.0.2.1:8085");
    let inspect = site.inspect("web");
    let map = &inspect["NetworkSettings"]["Ports"];
    assert_eq!(map["90/tcp"], json!(null), "{map}");
    assert_eq!(map["81/tcp"], json!([{"HostIp": "127.0.0.1", "HostPort": "8081"}]));
    let listed = site.ok("ps --format {{.Ports}}");
    for part in
        ["127.0.0.1:8081->81/tcp", "0.0.0.0:7000-7002->7000-7002/tcp", "90/tcp", "0.0.0.0:84->84/sctp"]
    {
        assert!(listed.contains(part), "{part} in {listed}");
    }
    let _servers =
        [(81, "a"), (85, "b"), (7002, "c")].map(|(port, name)| Server::start(&web.inside, name, port));
    let gateway =
        site.network("bridge")["IPAM"]["Config"][0]["Gateway"].as_str().expect("a gateway").to_owned();
    assert_eq!(tcp(&site.host, "127.0.0.1:8081"), format!("a {gateway}"));
    assert_eq!(tcp(&site.outside, &format!("{HOST}:8085")), format!("b {OUTSIDE}"));
    assert_eq!(tcp(&site.outside, &format!("{HOST}:7002")), format!("c {OUTSIDE}"));
    // Loopback's ports are nobody else's.
    is_cut(&site.outside, &format!("{HOST}:8081"));
    // The next one of a range; all exposed ports; what a second family has.
    site.run("next", "-p 8100-8110:83");
    assert_eq!(site.ok("port next 83"), "0.0.0.0:8101\n[::]:8101");
    site.run("all", "-P --expose 90-91");
    let listed = site.ok("port all");
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert!(listed.contains("90/tcp -> 0.0.0.0:") && listed.contains("91/tcp -> [::]:"), "{listed}");
}

fn tcp(from: &crate::support::Namespace, to: &str) -> String {
    super::traffic::tcp(from, to, std::time::Duration::from_secs(3)).unwrap_or_else(|cause| cause)
}

#[test]
fn a_taken_port_is_a_clear_error_and_leaves_nothing() {
    requires!(root, docker, iproute);
    let site = Site::new();
    let taken = site.host.within(|| TcpListener::bind("0.0.0.0:9000")).expect("a free port");
    site.refuses("run -d --name web -p 9001:80 -p 9000:81 busybox sleep 1000", "address already in use");
    let interfaces = site.interfaces();
    assert!(!interfaces.iter().any(|name| name.starts_with("veth")), "{interfaces:?}");
    assert_eq!(site.daemon.state("web")["Status"], "created");
    // The other port was given back, the container can be started once its port is free.
    drop(site.host.within(|| TcpListener::bind("0.0.0.0:9001")).expect("given back"));
    drop(taken);
    site.ok("start web");
    // A container's port is as taken, for containers and for the host.
    site.refuses("run -d --name two -p 9000:80 busybox sleep 1000", "port is already allocated");
    site.refuses("run -d --name three -p 127.0.0.1:9000:80 busybox sleep 1000", "port is already allocated");
    site.host.within(|| TcpListener::bind("0.0.0.0:9000")).expect_err("held for the container");
    site.run("udp", "-p 9000:80/udp");
    site.ok("rm -f web");
    drop(site.host.within(|| TcpListener::bind("0.0.0.0:9000")).expect("free again"));
    site.ok("start two");
    for (line, text) in [
        ("create -p 99999:80 busybox", "99999"),
        ("create -p 1-3:80-81 busybox", "invalid ranges specified for container and host Ports"),
        ("create -p 80:80/icmp busybox", "invalid proto: icmp"),
        ("create -p 1.2.3:80:80 busybox", "invalid IP address: 1.2.3"),
    ] {
        site.refuses(line, text);
    }
    // What no client of Docker's would send.
    let body = json!({"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "x"}]}}});
    let reply = site.daemon.api_json("POST", "/containers/create", &body);
    assert!(reply.status == 400 || reply.status == 500, "{}", reply.status);
}

#[test]
fn ports_follow_the_containers_life() {
    requires!(root, docker, iproute);
    let site = Site::new();
    let at_host = format!("{HOST}:8080");
    let box_ = site.run("web", "-p 8080:80 --restart no");
    drop(Server::start(&box_.inside, "web", 80));
    for _ in 0..2 {
        site.ok("restart -t 0 web");
        let web = site.running("web");
        let _server = Server::start(&web.inside, "web", 80);
        answers_tcp(&site.outside, &at_host, &format!("web {OUTSIDE}"));
    }
    // A paused container holds its ports, a dead one does not.
    site.ok("pause web");
    site.refuses("run --rm -p 8080:80 busybox true", "port is already allocated");
    site.ok("unpause web");
    site.ok("kill web");
    site.ok("wait web");
    let heir = site.run("heir", "-p 8080:80");
    let _server = Server::start(&heir.inside, "heir", 80);
    answers_tcp(&site.outside, &at_host, &format!("heir {OUTSIDE}"));
    site.refuses("start web", "port is already allocated");
    // Two hundred ports are two hundred elements, not two hundred programs.
    site.run("many", "-p 20000-20199:20000-20199");
    let many = site.running("many");
    let _server = Server::start(&many.inside, "many", 20_150);
    answers_tcp(&site.host, "127.0.0.1:20150", &format!("many {}", gateway(&site)));
}

fn gateway(site: &Site) -> String {
    site.network("bridge")["IPAM"]["Config"][0]["Gateway"].as_str().expect("a gateway").to_owned()
}

#[test]
fn a_real_server_is_reached_by_a_real_client() {
    requires!(root, docker, iproute, curl);
    let site = Site::new();
    let script = "mkdir /www; echo a page > /www/index.html; exec httpd -f -p 80 -h /www";
    site.docker(&["run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", script]).ok();
    crate::support::eventually("the page", || {
        let page = std::panic::catch_unwind(|| {
            site.outside.run("curl", &["-sS", "--max-time", "2", "http://192.0.2.1:8080/"])
        });
        page.is_ok_and(|page| page == "a page\n")
    });
}
