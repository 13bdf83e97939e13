//! Containers with a place in the host's own network: macvlan, and ipvlan where the kernel has it.

use super::site::{OUTSIDE, Site};
use super::traffic::{Server, answers, is_cut};
use crate::support::requires::requires;

/// What the kernel can make of a kind, in a namespace of its own.
pub fn kernel_has(kind: &str) -> bool {
    let place = crate::support::Namespace::new();
    place.run("ip", &["link", "add", "near", "type", "veth", "peer", "name", "far"]);
    place.within(|| {
        let made = std::process::Command::new("ip")
            .args(["link", "add", "made", "link", "near", "type"])
            .args(kind.split(' '))
            .output();
        made.is_ok_and(|output| output.status.success())
    })
}

#[test]
fn macvlan_is_on_the_parents_wire() {
    requires!(root, docker, iproute);
    let site = Site::new();
    let create = "network create -d macvlan --subnet 192.0.2.0/24 --ip-range 192.0.2.64/26 --gateway 192.0.2.2 -o parent=lan";
    if !kernel_has("macvlan") {
        site.refuses(&format!("{create} wire"), "macvlan");
        return;
    }
    site.ok(&format!("{create} wire"));
    let a = site.run("ann", "--network wire --ip 192.0.2.65 --mac-address 02:00:00:00:00:65");
    let b = site.run("bob", "--network wire");
    let _servers = [&a, &b].map(|each| Server::start(&each.inside, &each.name, 80));
    let _far = Server::start(&site.outside, "far", 7);
    // Seen outside with its own address, hardware address included; neighbours see each other.
    answers(&site.outside, "192.0.2.65:80", &format!("ann {OUTSIDE}"));
    assert!(site.outside.run("ip", &["neigh"]).contains("02:00:00:00:00:65"));
    answers(&a.inside, &format!("{OUTSIDE}:7"), "far 192.0.2.65");
    answers(&b.inside, "192.0.2.65:80", &format!("ann {}", site.address("bob", "wire")));
    // As Docker has it: the host itself does not reach them.
    is_cut(&site.host, "192.0.2.65:80");
    assert_eq!(
        super::resolver::ask(&b.inside, "ann", super::resolver::A, super::resolver::Way::Udp).answers,
        ["192.0.2.65"]
    );
    // Its hardware address is free again at once.
    for _ in 0..5 {
        site.ok("restart -t 0 ann");
    }
    site.refuses("network rm wire", "has active endpoints");
    site.ok("network connect bridge ann");
    assert_eq!(site.running("ann").inside.interfaces().len(), 2);
    site.ok("rm -f ann bob");
    site.ok("network rm wire");
}

#[test]
fn ipvlan_shares_the_parents_address() {
    requires!(root, docker, iproute);
    let site = Site::new();
    let create = "network create -d ipvlan --subnet 192.0.2.0/24 --ip-range 192.0.2.64/26 --gateway 192.0.2.2 -o parent=lan wire";
    if !kernel_has("ipvlan") {
        // Refused in words, at the latest where a container would need it.
        let made = site.line(create).run();
        assert!(made.code != 0, "{made}");
        made.stderr_has("ipvlan").no_panic();
        return;
    }
    site.ok(create);
    let a = site.run("ann", "--network wire");
    let _server = Server::start(&a.inside, "ann", 80);
    answers(&site.outside, &format!("{}:80", site.address("ann", "wire")), &format!("ann {OUTSIDE}"));
}

#[test]
fn a_macvlan_without_a_parent_is_its_own() {
    requires!(root, docker, iproute);
    let site = Site::new();
    if kernel_has("dummy") {
        site.ok("network create -d macvlan alone");
        assert_eq!(site.network("alone")["Internal"], true);
    }
    site.refuses("network create -d macvlan -o parent=absent0.5 x", "absent0");
    site.refuses("network create -d macvlan -o macvlan_mode=odd -o parent=lan x", "odd");
    // A VLAN is made for its network, and goes with it.
    if kernel_has("vlan id 7") {
        site.ok("network create -d macvlan --subnet 10.9.0.0/24 -o parent=lan.7 tagged");
        assert!(site.host.interfaces().contains("lan.7"));
        site.ok("network rm tagged");
        assert!(!site.host.interfaces().contains("lan.7"));
    }
}

#[test]
fn networks_share_a_parent_where_docker_has_them() {
    requires!(root, docker, iproute);
    let site = Site::new();
    if kernel_has("macvlan") {
        let create = "network create -d macvlan -o parent=lan";
        site.ok(&format!("{create} --subnet 10.9.0.0/24 one"));
        site.ok(&format!("{create} --subnet 10.9.1.0/24 two"));
        site.refuses(
            &format!("{create} -o macvlan_mode=passthru --subnet 10.9.2.0/24 three"),
            "is already using parent interface lan",
        );
        site.ok("network rm one two");
        site.ok(&format!("{create} -o macvlan_mode=passthru --subnet 10.9.2.0/24 three"));
        site.refuses(
            &format!("{create} --subnet 10.9.0.0/24 one"),
            "is already using parent interface lan in mode passthru",
        );
    }
    if kernel_has("ipvlan") {
        let create = "network create -d ipvlan -o parent=lan";
        site.ok(&format!("{create} --subnet 10.9.4.0/24 four"));
        let id = site.network("four")["Id"].as_str().expect("an id")[..12].to_owned();
        site.refuses(
            &format!("{create} --subnet 10.9.5.0/24 five"),
            &format!("network di-{id} is already using parent interface lan"),
        );
    }
}
