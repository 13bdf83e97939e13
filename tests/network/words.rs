//! `network create`, `ls`, `inspect`, `rm` and `prune` in the stock client's words.

use serde_json::json;

use super::site::Site;
use crate::support::requires::requires;

#[test]
fn a_network_is_what_was_asked_for() {
    requires!(root, docker, iproute);
    let site = Site::new();
    let id = site.ok(
        "network create --driver bridge --subnet 10.31.0.0/16 --ip-range 10.31.5.0/24 --gateway 10.31.0.254 \
         --aux-address a=10.31.5.7 --label tier=back --attachable -o com.docker.network.bridge.name=br-named \
         -o com.docker.network.driver.mtu=1400 net",
    );
    assert_eq!(id.len(), 64);
    let network = site.network("net");
    assert_eq!(
        network["IPAM"]["Config"],
        json!([{"Subnet": "10.31.0.0/16", "IPRange": "10.31.5.0/24",
        "Gateway": "10.31.0.254", "AuxiliaryAddresses": {"a": "10.31.5.7"}}])
    );
    assert_eq!(
        (&network["Id"], &network["Driver"], &network["Scope"]),
        (&json!(id), &json!("bridge"), &json!("local"))
    );
    assert_eq!(
        (&network["Attachable"], &network["Internal"], &network["EnableIPv6"]),
        (&json!(true), &json!(false), &json!(false))
    );
    assert_eq!(network["Labels"], json!({"tier": "back"}));
    assert_eq!(network["Options"]["com.docker.network.bridge.name"], "br-named");
    site.run("web", "--network net");
    assert!(site.host.interfaces().contains("br-named"));
    assert_eq!(site.ok("network ls --filter label=tier --format {{.Name}}"), "net");
    assert_eq!(site.ok("network ls --filter dangling=true -q"), "");
    assert_eq!(site.ok("network inspect -f {{range.Containers}}{{.Name}}{{end}} net"), "web");
    for (line, text) in [
        ("network create net", "network with name net already exists"),
        ("network create bridge", "bridge"),
        ("network create --subnet 10.31.9.0/24 x", "Pool overlaps with other one on this address space"),
        ("network create --subnet 10.32.0.0/33 x", "10.32.0.0/33"),
        ("network create --subnet 10.32.0.0/24 --gateway 10.33.0.1 x", "10.33.0.1"),
        ("network create --subnet 10.32.0.0/24 --ip-range 10.33.0.0/24 x", "10.33.0.0"),
        ("network create --gateway 10.32.0.1 x", "subnet"),
        ("network create -d nope x", "nope"),
        ("network create -o com.docker.network.bridge.enable_icc=perhaps x", "perhaps"),
        ("network create -o com.docker.network.bridge.name=br-named x", "br-named"),
        ("network rm net", "has active endpoints"),
        ("network rm bridge", "bridge is a pre-defined network and cannot be removed"),
        ("network rm nope", "network nope not found"),
        ("network inspect nope", "network nope not found"),
    ] {
        site.refuses(line, text);
    }
    site.ok("rm -f web");
    site.ok("network rm net");
    assert!(!site.host.interfaces().contains("br-named"));
    site.ok("network create --label keep=1 kept");
    site.ok("network create gone");
    let pruned = site.ok("network prune -f --filter label!=keep");
    assert_eq!(pruned, "Deleted Networks:\ngone");
    assert_eq!(site.ok("network ls --filter type=custom --format {{.Name}}"), "kept");
    // A template, and what is made of it.
    site.ok("network create --config-only --subnet 10.34.0.0/24 template");
    site.ok("network create --config-from template made");
    assert_eq!(site.network("made")["IPAM"]["Config"][0]["Subnet"], "10.34.0.0/24");
    site.refuses("run --rm --network template busybox true", "");
}

#[test]
fn networks_are_there_after_a_restart() {
    requires!(root, docker, iproute);
    let mut site = Site::new();
    site.ok("network create --subnet 10.35.0.0/24 --label a=b net");
    site.ok("create --name web --network net --ip 10.35.0.9 busybox sleep 1000");
    let before = site.network("net");
    assert_eq!(site.daemon.stop(), 0);
    site.daemon.restart();
    assert_eq!(site.network("net"), before);
    site.ok("start web");
    assert_eq!(site.address("web", "net"), "10.35.0.9");
    site.refuses("network rm net", "has active endpoints");
    site.ok("stop -t 0 web");
    // As Docker: a network that only stopped containers name can be removed, and they cannot start then.
    site.ok("network rm net");
    site.refuses("start web", "not found");
}
