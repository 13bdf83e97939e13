//! Networks as clients see them: Docker's own, those somebody makes, and who is in them.

use serde_json::{Value, json};

use crate::support::Daemon;
use crate::support::requires::requires;

#[test]
fn the_predefined_networks_can_be_looked_at() {
    requires!(root, docker);
    let mut daemon = Daemon::start();
    let list = daemon.api("GET", "/networks").is(200).json();
    let named = |name: &str| -> Value {
        let list = list.as_array().expect("a list");
        list.iter().find(|network| network["Name"] == name).cloned().expect("a predefined network")
    };
    for (name, driver) in [("bridge", "bridge"), ("host", "host"), ("none", "null")] {
        let network = named(name);
        assert_eq!(
            (&network["Driver"], &network["Scope"], &network["Containers"]),
            (&json!(driver), &json!("local"), &json!({})),
            "{network}"
        );
        let id = network["Id"].as_str().expect("an id").to_owned();
        assert_eq!(id.len(), 64, "{id}");
        // By name, by id and by prefix, the same.
        for reference in [name, &id, &id[..12]] {
            let found = daemon.api("GET", &format!("/v1.51/networks/{reference}")).is(200).json();
            assert_eq!(found["Id"], json!(id), "{reference}");
        }
        daemon
            .api("DELETE", &format!("/networks/{name}"))
            .refuses(403, "is a pre-defined network and cannot be removed");
    }
    let bridge = &named("bridge")["IPAM"]["Config"][0];
    let subnet = bridge["Subnet"].as_str().expect("a subnet");
    assert!(subnet.ends_with(".0.0/16") && bridge["Gateway"] == subnet.replace(".0/16", ".1"), "{bridge}");
    assert!(named("host")["IPAM"]["Config"].is_null());
    daemon.api("GET", "/networks/nope").refuses(404, "network nope not found");
    daemon.api("DELETE", "/networks/nope").refuses(404, "network nope not found");
    assert_eq!(daemon.api("POST", "/networks/prune").is(200).json(), json!({"NetworksDeleted": null}));
    daemon
        .api_json("POST", "/networks/none/connect", &json!({"Container": "x"}))
        .refuses(404, "No such container: x");
    // The ids outlive the daemon.
    assert_eq!(daemon.stop(), 0);
    daemon.restart();
    assert_eq!(daemon.api("GET", "/networks").is(200).json(), list);
}

#[test]
fn networks_are_filtered_as_docker_filters_them() {
    requires!(root);
    let daemon = Daemon::empty();
    let names = |filters: Value| -> Vec<String> {
        let query = filters.to_string().replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
        let list = daemon.api("GET", &format!("/networks?filters={query}")).is(200).json();
        let list = list.as_array().expect("a list").clone();
        list.iter().map(|network| network["Name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(names(json!({"name": ["o"]})), ["host", "none"]);
    assert_eq!(names(json!({"name": ["^host$"]})), ["host"]);
    assert_eq!(names(json!({"driver": {"null": true}})), ["none"]);
    assert_eq!(names(json!({"type": ["custom"]})).len(), 0);
    assert_eq!(names(json!({"type": ["builtin"], "scope": ["local"]})).len(), 3);
    assert_eq!(names(json!({"dangling": ["true"]})).len(), 0);
    assert_eq!(names(json!({"label": ["a"]})).len(), 0);
    for (bad, words) in [
        (r#"{"bogus":["x"]}"#, "invalid filter 'bogus'"),
        (r#"{"type":["x"]}"#, "invalid filter: 'type'='x'"),
        (r#"{"dangling":["maybe"]}"#, "invalid value for filter 'dangling'"),
        ("[]", "invalid filter"),
    ] {
        let query = bad.replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
        daemon.api("GET", &format!("/networks?filters={query}")).refuses(400, words);
    }
}

#[test]
fn a_running_container_is_in_its_network() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let id = daemon.run_detached("web", &[], "exec sleep 1000");
    let none = daemon.docker(&["network", "inspect", "none"]).ok();
    let none: Value = serde_json::from_str(&none.stdout).expect("JSON");
    let network = &none[0];
    let member = &network["Containers"][&id];
    assert_eq!(member["Name"], "web", "{network}");
    let inspect = daemon.api("GET", "/containers/web/json").is(200).json();
    let endpoint = &inspect["NetworkSettings"]["Networks"]["none"];
    assert_eq!((&endpoint["NetworkID"], &endpoint["EndpointID"]), (&network["Id"], &member["EndpointID"]));
    let prefix = &network["Id"].as_str().expect("an id")[..10];
    for filter in ["network=none", &format!("network={prefix}")] {
        daemon
            .docker(&["ps", "--format", "{{.Names}} {{.Networks}}", "--filter", filter])
            .ok()
            .stdout_is("web none\n");
        daemon
            .dewar(&["ps", "--format", "{{.Names}} {{.Networks}}", "--filter", filter])
            .ok()
            .stdout_is("web none\n");
    }
    daemon.docker(&["ps", "-q", "--filter", "network=host"]).ok().stdout_is("");
    daemon.docker(&["kill", "web"]).ok();
    daemon.docker(&["wait", "web"]).ok();
    daemon.docker(&["network", "inspect", "-f", "{{len .Containers}}", "none"]).ok().stdout_is("0\n");
    daemon
        .docker(&["inspect", "-f", "{{.NetworkSettings.Networks.none.EndpointID}}", "web"])
        .ok()
        .stdout_is("\n");
}

#[test]
fn both_clients_show_networks_alike() {
    requires!(root, docker);
    let daemon = Daemon::empty();
    for args in [
        &["network", "ls"][..],
        &["network", "ls", "-q", "--no-trunc"],
        &[
            "network",
            "ls",
            "--filter",
            "driver=host",
            "--format",
            "{{.ID}} {{.Name}} {{.Driver}} {{.Scope}} {{.IPv6}}",
        ],
        &["network", "ls", "--format", "json"],
        &["network", "inspect", "bridge"],
        &["network", "inspect", "-f", "{{.Name}}", "host", "none"],
        &["inspect", "--type", "network", "-f", "{{.Id}}", "bridge"],
        &["inspect", "-f", "{{.Driver}}", "bridge"],
        &["network", "prune", "-f"],
    ] {
        let docker = daemon.docker(args).ok();
        daemon.dewar(args).ok().stdout_is(&docker.stdout);
    }
    for args in
        [&["network", "rm", "bridge"][..], &["network", "create", "host"], &["network", "inspect", "nope"]]
    {
        let docker = daemon.docker(args).fails(1);
        // The stock client adds a line of its own to some.
        let text = docker.stderr.lines().next().unwrap_or_default().to_owned();
        daemon.dewar(args).fails(1).stderr_has(text.trim_start_matches("Error response from daemon: "));
    }
    // Nobody said yes.
    daemon
        .dewar(&["network", "prune"])
        .fails(1)
        .stdout_has("[y/N]")
        .stderr_has("network prune has been cancelled");
}

#[test]
fn a_network_of_ones_own_is_made_kept_and_removed() {
    requires!(root, docker);
    let mut daemon = Daemon::empty();
    let made = daemon
        .docker(&[
            "network",
            "create",
            "--subnet",
            "198.19.0.0/16",
            "--ip-range",
            "198.19.4.0/24",
            "--gateway",
            "198.19.0.9",
            "--aux-address",
            "router=198.19.0.7",
            "--ipv6",
            "--subnet",
            "fd00:19::/64",
            "--label",
            "a=b",
            "--opt",
            "com.docker.network.driver.mtu=1400",
            "--internal",
            "--attachable",
            "front",
        ])
        .ok();
    let id = made.stdout.trim().to_owned();
    let shown = daemon.api("GET", "/networks/front").is(200).json();
    assert_eq!(shown["Id"], json!(id));
    assert_eq!(
        shown["IPAM"],
        json!({"Driver": "default", "Options": {}, "Config": [
            {"Subnet": "198.19.0.0/16", "IPRange": "198.19.4.0/24", "Gateway": "198.19.0.9", "AuxiliaryAddresses": {"router": "198.19.0.7"}},
            {"Subnet": "fd00:19::/64", "Gateway": "fd00:19::1"},
        ]})
    );
    for (key, value) in [
        ("Driver", json!("bridge")),
        ("Internal", json!(true)),
        ("Attachable", json!(true)),
        ("EnableIPv6", json!(true)),
        ("Labels", json!({"a": "b"})),
        ("Containers", json!({})),
    ] {
        assert_eq!(shown[key], value, "{key}");
    }
    daemon
        .docker(&["network", "create", "front"])
        .fails(1)
        .stderr_has("network with name front already exists");
    // One that nobody chose keeps clear of it and of the host's.
    daemon.docker(&["network", "create", "back"]).ok();
    assert_eq!(daemon.stop(), 0);
    daemon.restart();
    assert_eq!(daemon.api("GET", "/networks/front").is(200).json(), shown);
    daemon
        .docker(&["network", "prune", "-f", "--filter", "label=a"])
        .ok()
        .stdout_is("Deleted Networks:\nfront\n\n");
    daemon.docker(&["network", "rm", "back"]).ok().stdout_is("back\n");
    daemon.docker(&["network", "rm", "back"]).fails(1).stderr_has("network back not found");
    let told = daemon
        .docker(&[
            "events",
            "--since",
            "0",
            "--until",
            // Compat: the client cuts to seconds.
            "-1s",
            "--filter",
            "type=network",
            "--format",
            "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}}",
        ])
        .ok();
    assert_eq!(told.stdout, "destroy front bridge\nprune <no value> <no value>\ndestroy back bridge\n");
}

#[test]
fn older_clients_see_networks_as_they_were() {
    requires!(root);
    let daemon = Daemon::empty();
    // Nobody could turn IPv4 off before 1.48; IPv6 was a plain switch.
    let body = json!({"Name": "old", "EnableIPv4": false, "EnableIPv6": false, "CheckDuplicate": true});
    daemon.api_json("POST", "/v1.47/networks/create", &body).is(201);
    let shown = daemon.api("GET", "/networks/old").is(200).json();
    assert_eq!((&shown["EnableIPv4"], &shown["EnableIPv6"]), (&json!(true), &json!(false)));
    daemon
        .api_json("POST", "/v1.48/networks/create", &json!({"Name": "new", "EnableIPv4": false}))
        .refuses(400, "IPv4 or IPv6 must be enabled");
    daemon
        .api_json("POST", "/v1.24/networks/create", &body)
        .refuses(409, "network with name old already exists");
    for version in ["1.24", "1.27", "1.28", "1.51"] {
        let list = daemon.api("GET", &format!("/v{version}/networks")).is(200).json();
        let old = list.as_array().expect("a list").iter().find(|network| network["Name"] == "old");
        assert_eq!(old.expect("it is there")["Containers"], json!({}), "{version}");
    }
    daemon.api("DELETE", "/v1.24/networks/old").is(204);
}
