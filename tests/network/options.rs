//! The daemon's own options of the default bridge and of networks to come.

use super::site::{HOST, OUTSIDE, Site};
use super::traffic::{Server, answers, is_cut};
use crate::support::requires::requires;

#[test]
fn the_default_bridge_is_as_asked() {
    requires!(root, docker, iproute);
    let site = Site::with(&[
        "--bip=10.97.0.1/16",
        "--fixed-cidr=10.97.5.0/24",
        "--default-gateway=10.97.0.7",
        "--mtu=1390",
        "--ip=192.0.2.1",
        "--default-address-pool=base=10.98.0.0/16,size=26",
        "--default-network-opt=bridge=com.docker.network.driver.mtu=1380",
        "--host-gateway-ip=192.0.2.77",
    ]);
    let web = site.run("web", "-p 8080:80 -p 8080:80/udp --add-host gw:host-gateway");
    assert!(site.address("web", "bridge").starts_with("10.97.5."), "{}", site.address("web", "bridge"));
    assert!(site.sh("web", "ip route").contains("default via 10.97.0.7"));
    assert_eq!(site.sh("web", "cat /sys/class/net/eth0/mtu"), "1390\n");
    assert!(site.sh("web", "cat /etc/hosts").contains("192.0.2.77\tgw\n"));
    assert_eq!(site.ok("port web 80/tcp"), "192.0.2.1:8080");
    let bridge = site.interfaces().into_iter().find(|name| !name.starts_with("veth")).expect("a bridge");
    let shown = site.host.run("ip", &["addr", "show", &bridge]);
    assert!(shown.contains("inet 10.97.0.1/16") && shown.contains("mtu 1390"), "{shown}");
    let _server = Server::start(&web.inside, "web", 80);
    is_cut(&site.host, "127.0.0.1:8080");
    for subnet in ["10.98.0.0/26", "10.98.0.64/26"] {
        let name = subnet.replace(['.', '/'], "-");
        site.ok(&format!("network create n{name}"));
        assert_eq!(site.network(&format!("n{name}"))["IPAM"]["Config"][0]["Subnet"], subnet);
    }
    site.run("small", "--network n10-98-0-0-26");
    assert_eq!(site.sh("small", "cat /sys/class/net/eth0/mtu"), "1380\n");
}

#[test]
fn pools_end_and_stay_off_what_the_host_has() {
    requires!(root, docker, iproute);
    // The first half is the outside's network.
    let site = Site::with(&["--bip=10.97.0.1/24", "--default-address-pool=base=192.0.2.0/23,size=24"]);
    site.ok("network create one");
    assert_eq!(site.network("one")["IPAM"]["Config"][0]["Subnet"], "192.0.3.0/24");
    site.refuses("network create two", "all predefined address pools have been fully subnetted");
    site.refuses(
        "network create --subnet 192.0.3.128/25 three",
        "Pool overlaps with other one on this address space",
    );
    site.ok("network rm one");
    site.ok("network create two");
    // As many containers as there are addresses, and not one more.
    site.ok("network create --subnet 10.99.0.0/29 tiny");
    for number in 0..5 {
        site.run(&format!("t{number}"), "--network tiny");
    }
    site.refuses(
        "run --rm --network tiny busybox true",
        "no available IPv4 addresses on this network's address pools: tiny",
    );
    site.ok("rm -f t2");
    site.run("last", "--network tiny");
}

#[test]
fn a_bridge_of_the_hosts_own_or_none() {
    requires!(root, docker, iproute);
    let (host, outside) = super::site::wired();
    host.run("ip", &["link", "add", "mybr", "type", "bridge"]);
    host.run("ip", &["addr", "add", "10.44.0.1/24", "dev", "mybr"]);
    host.run("ip", &["link", "set", "mybr", "up"]);
    let site = Site { daemon: crate::support::Daemon::start_in(&host, &["-b", "mybr"]), host, outside };
    let web = site.run("web", "-p 8080:80 -p 8080:80/udp");
    assert!(site.address("web", "bridge").starts_with("10.44.0."));
    let _server = Server::start(&web.inside, "web", 80);
    answers(&site.outside, &format!("{HOST}:8080"), &format!("web {OUTSIDE}"));
    drop(site);
    let none = Site::with(&["-b", "none"]);
    assert_eq!(none.ok("network ls --format {{.Name}}"), "host\nnone");
    for (name, flags) in [("alone", ""), ("asked", "--network bridge -p 8080:80")] {
        assert!(none.run(name, flags).inside.interfaces().is_empty());
    }
    assert!(none.interfaces().is_empty());
}

#[test]
fn direct_routing_and_forwarding_are_chosen() {
    requires!(root, docker, iproute);
    let site = Site::with(&["--allow-direct-routing", "--ip-masq=false", "--bip=10.97.0.1/24"]);
    let web = site.run("web", "");
    site.outside.run("ip", &["route", "add", "10.97.0.0/24", "via", HOST]);
    let _far = Server::start(&site.outside, "far", 7);
    answers(&web.inside, &format!("{OUTSIDE}:7"), &format!("far {}", site.address("web", "bridge")));
    let web = site.run("shown", "-p 80");
    let _server = Server::start(&web.inside, "shown", 80);
    let to = format!("{}:80", site.address("shown", "bridge"));
    let answer = super::traffic::tcp(&site.outside, &to, std::time::Duration::from_secs(3));
    assert_eq!(answer, Ok(format!("shown {OUTSIDE}")));
    assert_eq!(
        site.host.within(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default()),
        "1\n"
    );
    let still = Site::with(&["--ip-forward=false"]);
    still.run("web", "");
    assert_eq!(
        still.host.within(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default()),
        "0\n"
    );
    // Without relays the port is held all the same, and what rules carry is carried.
    let bare = Site::with(&["--userland-proxy=false"]);
    let web = bare.run("web", "-p 8080:80 -p 8080:80/udp");
    let _server = Server::start(&web.inside, "web", 80);
    answers(&bare.outside, &format!("{HOST}:8080"), &format!("web {OUTSIDE}"));
    is_cut(&bare.host, "[::1]:8080");
}
