//! Several networks on one container: at its start, while it runs, in which order, with which addresses.

use serde_json::json;

use super::site::{HOST, OUTSIDE, Site};
use super::traffic::{Server, answers, answers_tcp, is_cut};
use crate::support::requires::requires;

#[test]
fn a_running_container_joins_and_leaves() {
    requires!(root, docker, iproute);
    let site = Site::new();
    site.ok("network create --subnet 10.60.0.0/24 one");
    site.ok("network create --subnet 10.61.0.0/24 two");
    let web = site.run("web", "--network one");
    let far = site.run("far", "--network two");
    let _servers = [&web, &far].map(|each| Server::start(&each.inside, &each.name, 80));
    let at_far = format!("{}:80", site.address("far", "two"));
    is_cut(&web.inside, &at_far);
    site.ok("network connect --alias www --ip 10.61.0.77 --driver-opt com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1 two web");
    assert_eq!(site.address("web", "two"), "10.61.0.77");
    answers(&web.inside, &at_far, "far 10.61.0.77");
    answers(&far.inside, "10.61.0.77:80", &format!("web {}", site.address("far", "two")));
    assert_eq!(
        super::resolver::ask(&far.inside, "www", super::resolver::A, super::resolver::Way::Udp).answers,
        ["10.61.0.77"]
    );
    assert_eq!(web.inside.interfaces().len(), 2);
    assert_eq!(site.sh("web", "cat /proc/sys/net/ipv4/conf/eth1/log_martians"), "1\n");
    let members = site.network("two")["Containers"].as_object().map(serde_json::Map::len);
    assert_eq!(members, Some(2));
    site.refuses("network connect two web", "endpoint with name web already exists in network two");
    site.refuses("network rm two", "has active endpoints");
    // The network it came with is no more special than the other.
    site.ok("network disconnect one web");
    answers(&web.inside, &at_far, "far 10.61.0.77");
    let _outside = Server::start(&site.outside, "outside", 7);
    answers(&web.inside, &format!("{OUTSIDE}:7"), &format!("outside {HOST}"));
    site.ok("network disconnect two web");
    is_cut(&web.inside, &at_far);
    assert!(web.inside.interfaces().is_empty());
    assert_ne!(
        super::resolver::ask(&far.inside, "www", super::resolver::A, super::resolver::Way::Udp).code,
        0
    );
    site.refuses("network disconnect two web", "is not connected to network two");
    site.refuses("network connect nowhere web", "network nowhere not found");
    site.refuses("network connect two nobody", "No such container: nobody");
    // What it joins while it does not run, it has when it does.
    site.ok("network connect two web");
    site.ok("restart -t 0 web");
    let web = site.running("web");
    let _server = Server::start(&web.inside, "web", 80);
    answers(
        &far.inside,
        &format!("{}:80", site.address("web", "two")),
        &format!("web {}", site.address("far", "two")),
    );
    site.ok("create --name idle --network one busybox sleep 1000");
    site.ok("network connect --ip 10.61.0.99 two idle");
    site.ok("start idle");
    assert_eq!(site.address("idle", "two"), "10.61.0.99");
    assert_eq!(site.running("idle").inside.interfaces().len(), 2);
    site.ok("network disconnect -f two idle");
    let told = ["network connect", "network disconnect", "network create"];
    site.daemon.has_told(&told);
}

#[test]
fn addresses_are_as_asked() {
    requires!(root, docker, iproute);
    let site = Site::new();
    site.ok("network create --subnet 10.62.0.0/24 --ip-range 10.62.0.128/25 --gateway 10.62.0.254 --aux-address printer=10.62.0.129 net");
    let first = site.run("first", "--network net");
    let address = site.address("first", "net");
    let last: u8 = address.rsplit('.').next().and_then(|part| part.parse().ok()).expect("an address");
    assert!(last >= 128 && ![129, 254, 255].contains(&last), "{address}");
    assert!(site.sh("first", "ip route").contains("default via 10.62.0.254"));
    drop(first);
    site.run("fixed", "--network net --ip 10.62.0.9 --mac-address 02:00:00:00:00:09");
    let shown = site.sh("fixed", "ip addr show eth0");
    assert!(shown.contains("inet 10.62.0.9/24") && shown.contains("link/ether 02:00:00:00:00:09"), "{shown}");
    let settings = &site.inspect("fixed")["NetworkSettings"]["Networks"]["net"];
    assert_eq!(settings["IPAMConfig"]["IPv4Address"], "10.62.0.9");
    assert_eq!(settings["MacAddress"], "02:00:00:00:00:09");
    assert_eq!((&settings["Gateway"], &settings["IPPrefixLen"]), (&json!("10.62.0.254"), &json!(24)));
    site.refuses("run --rm --network net --ip 10.62.0.9 busybox true", "Address already in use");
    site.refuses("run --rm --network net --ip 10.63.0.9 busybox true", "10.63.0.9");
    site.refuses(
        "run --rm --ip 172.17.0.99 busybox true",
        "user specified IP address is supported on user defined networks only",
    );
    site.ok("network create plain");
    site.refuses(
        "run --rm --network plain --ip 10.62.0.9 busybox true",
        "user specified IP address is supported only when connecting to networks with user configured subnets",
    );
    // A place is kept over a restart, and free after the end.
    site.ok("restart -t 0 fixed");
    assert_eq!(site.address("fixed", "net"), "10.62.0.9");
    site.ok("rm -f fixed");
    site.run("heir", "--network net --ip 10.62.0.9");
}

#[test]
fn the_way_out_is_where_it_was_asked_for() {
    requires!(root, docker, iproute);
    let site = Site::new();
    site.ok("network create --subnet 10.64.0.0/24 a");
    site.ok("network create --subnet 10.65.0.0/24 b");
    site.ok("network create --internal --subnet 10.66.0.0/24 closed");
    site.run("plain", "--network a --network b");
    assert!(site.sh("plain", "ip route").contains("default via 10.64.0.1"));
    site.run("chosen", "--network name=a --network name=b,gw-priority=1,alias=x,ip=10.65.0.33");
    let routes = site.sh("chosen", "ip route");
    assert!(routes.contains("default via 10.65.0.1"), "{routes}");
    assert_eq!(site.address("chosen", "b"), "10.65.0.33");
    assert_eq!(site.inspect("chosen")["NetworkSettings"]["Networks"]["b"]["GwPriority"], 1);
    // An internal one is no way out; the route moves when its network is left.
    site.run("inner", "--network closed --network b");
    assert!(site.sh("inner", "ip route").contains("default via 10.65.0.1"));
    site.ok("network disconnect b chosen");
    assert!(site.sh("chosen", "ip route").contains("default via 10.64.0.1"));
    site.ok("network connect --gw-priority 5 b chosen");
    assert!(site.sh("chosen", "ip route").contains("default via 10.65.0.1"));
    // Interfaces are named in the order the networks were joined, or as asked.
    site.run("named", "--network name=a,driver-opt=com.docker.network.endpoint.ifname=wan0 --network b");
    let mut names: Vec<String> = site.running("named").inside.interfaces().into_iter().collect();
    names.sort();
    assert!(names.contains(&"wan0".to_owned()) && names.len() == 2, "{names:?}");
    // Ports go where the way out is.
    let web = site.run("web", "--network a --network b -p 8080:80");
    let _server = Server::start(&web.inside, "web", 80);
    answers_tcp(&site.outside, &format!("{HOST}:8080"), &format!("web {OUTSIDE}"));
    site.ok("network disconnect a web");
    answers_tcp(&site.outside, &format!("{HOST}:8080"), &format!("web {OUTSIDE}"));
}
