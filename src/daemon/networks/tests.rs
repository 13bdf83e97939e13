//! The store: what it finds, keeps, refuses and reads again.

use super::*;
use crate::http::api::{Class, Filters};

/// Directories that go with the test.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn scratch(name: &str) -> Scratch {
    let dir = std::env::temp_dir().join(format!("dewar-networks-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    Scratch(dir)
}

/// With subnets that no host has.
fn defaults() -> NetworkDefaults {
    NetworkDefaults {
        address_pools: vec![("198.18.0.0/16".parse().unwrap(), 24)],
        ipv6: true,
        ..NetworkDefaults::default()
    }
}

fn open(scratch: &Scratch, defaults: &NetworkDefaults) -> Networks {
    let state_dir = StateDir::open(&scratch.0.join("data"), &scratch.0.join("run")).unwrap();
    Networks::open(&state_dir, defaults, "dewar0").unwrap()
}

fn create(networks: &Networks, json: serde_json::Value) -> Result<Arc<Network>, (Class, String)> {
    let request = crate::http::api::decode_value(json).unwrap();
    networks.create(request, &defaults()).map(|made| made.0).map_err(|error| (error.class, error.message))
}

fn remove(networks: &Networks, id: &str) -> Result<(), (Class, String)> {
    networks.remove(id, &|id| format!("the-{id}")).map_err(|error| (error.class, error.message))
}

#[test]
fn networks_are_found_by_id_name_and_prefix() {
    let scratch = scratch("find");
    let networks = open(&scratch, &defaults());
    let mut ids = Vec::new();
    // Of so many, two begin alike.
    for number in 0..17 {
        let made = create(&networks, serde_json::json!({"Name": format!("n{number}")})).unwrap();
        ids.push(made.id.clone());
    }
    let named = |reference: &str| networks.find(reference).map(|network| network.name.clone());
    assert_eq!(named("host").unwrap(), "host");
    assert_eq!(named(&ids[0]).unwrap(), "n0");
    assert_eq!(named(&ids[3][..20]).unwrap(), "n3");
    let first = |id: &String| id[..1].to_owned();
    let twice =
        ids.iter().find(|id| ids.iter().filter(|other| first(other) == first(id)).count() > 1).unwrap();
    let refused = networks.find(&first(twice)).unwrap_err();
    assert!(refused.message.contains("matches found based on ID prefix"), "{refused}");
    assert_eq!(refused.class, Class::InvalidParameter);
    assert_eq!(networks.find("nope").unwrap_err().message, "network nope not found");
    assert!(networks.find("").is_err());
    let again = create(&networks, serde_json::json!({"Name": "n3"})).unwrap_err();
    assert_eq!(again, (Class::Conflict, "network with name n3 already exists".into()));
}

#[test]
fn a_network_outlives_the_daemon() {
    let scratch = scratch("again");
    let networks = open(&scratch, &defaults());
    let bridge = networks.find("bridge").unwrap();
    assert_eq!(bridge.pools[0].subnet.to_string(), "198.18.0.0/24");
    assert_eq!(bridge.pools[0].gateway.unwrap().to_string(), "198.18.0.1");
    assert_eq!(bridge.pools[1].subnet.prefix, 64);
    let front = create(&networks, serde_json::json!({"Name": "front", "EnableIPv6": true})).unwrap();
    assert_eq!(front.pools[0].subnet.to_string(), "198.18.1.0/24");
    assert_eq!(front.pools[1].gateway.unwrap().to_string(), format!("{}1", front.pools[1].subnet.first()));
    let given = networks.allocate(&front, "c1", &Wanted::default()).unwrap();
    let (before, dir) = (networks.all(), scratch.0.join("data/networks"));
    drop(networks);
    // One that is none, one of another name, one that another has, one of Docker's own.
    let text = std::fs::read_to_string(dir.join(format!("{}.json", front.id))).unwrap();
    let other = "e".repeat(64);
    std::fs::write(dir.join(format!("{other}.json")), text.replace("front", "back")).unwrap();
    std::fs::write(dir.join("x.json"), "{").unwrap();
    std::fs::write(
        dir.join(format!("f{}.json", &other[1..])),
        text.replace(&front.id, &format!("f{}", &other[1..])),
    )
    .unwrap();
    let late = text.replace(r#""format":1"#, r#""format":9"#);
    std::fs::write(dir.join("late.json"), &late).unwrap();
    let networks = open(&scratch, &defaults());
    let kept: Vec<_> = networks.all();
    let is_front = |network: &Arc<Network>| network.name == "front";
    assert_eq!(kept.len(), before.len());
    assert_eq!(
        kept.iter().filter(|one| !is_front(one)).collect::<Vec<_>>(),
        before.iter().filter(|one| !is_front(one)).collect::<Vec<_>>()
    );
    assert_eq!(std::fs::read_to_string(dir.join("late.json")).unwrap(), late);
    assert!(dir.join("x.json.broken").exists());
    let front = networks.find("front").unwrap();
    networks.adopt(&front.id, "c1", &given).unwrap();
    assert_eq!(networks.members(&front.id), [("c1".to_owned(), given)]);
    let next = networks.allocate(&front, "c2", &Wanted::default()).unwrap();
    assert_eq!(next.ipv4.unwrap().to_string(), "198.18.1.3/24");
    assert!(networks.adopt("nope", "c1", &Given::default()).is_err());
}

#[test]
fn a_network_goes_when_nobody_is_in_it() {
    let scratch = scratch("remove");
    let networks = open(&scratch, &defaults());
    let refused = remove(&networks, &networks.find("bridge").unwrap().id.clone()).unwrap_err();
    assert_eq!(refused, (Class::Forbidden, "bridge is a pre-defined network and cannot be removed".into()));
    let net = create(&networks, serde_json::json!({"Name": "net"})).unwrap();
    let given = networks.allocate(&net, "c1", &Wanted::default()).unwrap();
    let words = format!(
        "error while removing network: network net has active endpoints (name:\"the-c1\" id:{:?})",
        &given.endpoint_id[..12]
    );
    assert_eq!(remove(&networks, &net.id), Err((Class::Forbidden, words)));
    networks.release(&net.id, "c1");
    remove(&networks, &net.id).unwrap();
    assert_eq!(remove(&networks, &net.id).unwrap_err().0, Class::NotFound);
    assert!(networks.allocate(&net, "c2", &Wanted::default()).is_err());
    assert_eq!(std::fs::read_dir(scratch.0.join("data/networks")).unwrap().count(), 0);
    // Its subnet is free again.
    let again = create(&networks, serde_json::json!({"Name": "net"})).unwrap();
    assert_eq!(again.pools, net.pools);
}

#[test]
fn two_networks_share_no_subnet_and_no_bridge() {
    let scratch = scratch("overlap");
    let networks = open(&scratch, &defaults());
    let of = |name: &str, config: serde_json::Value| serde_json::json!({"Name": name, "IPAM": {"Config": [config]}});
    let one = create(&networks, of("one", serde_json::json!({"Subnet": "198.19.0.0/24"}))).unwrap();
    assert!(one.pools[0].is_chosen);
    let (class, words) =
        create(&networks, of("two", serde_json::json!({"Subnet": "198.19.0.128/25"}))).unwrap_err();
    assert_eq!(words, "invalid pool request: Pool overlaps with other one on this address space");
    assert_eq!(class, Class::Forbidden);
    let ranged = serde_json::json!({"Subnet": "198.19.0.0/16", "IPRange": "198.19.1.0/24"});
    let (class, words) = create(&networks, of("two", ranged)).unwrap_err();
    assert!(class == Class::Forbidden && words.ends_with("): networks have overlapping IPv4"), "{words}");
    let named =
        |name: &str| serde_json::json!({"Name": name, "Options": {"com.docker.network.bridge.name": "br9"}});
    create(&networks, named("two")).unwrap();
    let (class, words) = create(&networks, named("three")).unwrap_err();
    assert!(
        class == Class::Forbidden && words.ends_with(" (br9): networks have same bridge name"),
        "{words}"
    );
    let taken = serde_json::json!({"Subnet": "198.19.9.0/24", "Gateway": "198.19.9.0"});
    let (class, words) = create(&networks, of("four", taken)).unwrap_err();
    assert_eq!(
        (class, words.as_str()),
        (Class::System, "failed to allocate gateway (198.19.9.0): Address already in use")
    );
}

#[test]
fn a_template_is_taken_over() {
    let scratch = scratch("template");
    let networks = open(&scratch, &defaults());
    let template = create(
        &networks,
        serde_json::json!({
            "Name": "t", "Driver": "anything", "ConfigOnly": true, "Labels": {"a": "b"}, "Options": {"com.docker.network.driver.mtu": "1400"},
            "IPAM": {"Config": [{"Subnet": "198.19.0.0/24"}]},
        }),
    )
    .unwrap();
    assert_eq!((template.driver, template.pools[0].gateway), (Driver::Null, None));
    let from =
        |name: &str, template: &str| serde_json::json!({"Name": name, "ConfigFrom": {"Network": template}});
    let made = create(&networks, from("one", "t")).unwrap();
    assert_eq!((made.driver, made.config_from.as_str()), (Driver::Bridge, "t"));
    assert_eq!((&made.labels, &made.options), (&template.labels, &template.options));
    assert_eq!(made.pools[0].gateway.unwrap().to_string(), "198.19.0.1");
    assert!(create(&networks, from("two", "t")).unwrap_err().1.contains("Pool overlaps"));
    let missing = create(&networks, from("two", "one")).unwrap_err();
    assert_eq!(missing, (Class::NotFound, "configuration network \"one\" does not exist".into()));
    assert!(networks.allocate(&template, "c", &Wanted::default()).is_err());
    let used = remove(&networks, &template.id).unwrap_err();
    assert_eq!(used.1, "error while removing network: configuration network \"t\" is in use");
    remove(&networks, &made.id).unwrap();
    remove(&networks, &template.id).unwrap();
}

#[test]
fn the_daemons_options_make_the_default_bridge() {
    let scratch = scratch("default");
    let shown = |defaults: &NetworkDefaults| {
        let networks = open(&scratch, defaults);
        let bridge = list::describe(&networks.find("bridge").unwrap());
        (serde_json::to_value(&bridge.ipam.config).unwrap(), bridge.options)
    };
    let first = shown(&defaults()).0;
    let bip = NetworkDefaults {
        bip: Some("198.51.100.5/24".parse().unwrap()),
        fixed_cidr: Some("198.51.100.64/26".parse().unwrap()),
        default_gateway: Some("198.51.100.9".parse().unwrap()),
        icc: false,
        bridge: "mine".to_owned(),
        ..NetworkDefaults::default()
    };
    let (config, options) = shown(&bip);
    assert_eq!(
        config,
        serde_json::json!([{
            "Subnet": "198.51.100.0/24", "IPRange": "198.51.100.64/26", "Gateway": "198.51.100.5",
            "AuxiliaryAddresses": {"DefaultGatewayIPv4": "198.51.100.9"},
        }])
    );
    assert_eq!((options[option::ICC].as_str(), options[option::BRIDGE_NAME].as_str()), ("false", "dewar0"));
    let only_range = NetworkDefaults { fixed_cidr: bip.fixed_cidr, ..NetworkDefaults::default() };
    assert_eq!(
        shown(&only_range).0,
        serde_json::json!([{"Subnet": "198.51.100.64/26", "IPRange": "198.51.100.64/26", "Gateway": "198.51.100.65"}])
    );
    // What nobody says is as it was.
    assert_eq!(shown(&defaults()).0, first);
    let none = NetworkDefaults { bridge: "none".to_owned(), ..NetworkDefaults::default() };
    assert!(open(&scratch, &none).find("bridge").is_err());
}

#[test]
fn filters_and_prune_go_by_who_is_in() {
    let scratch = scratch("filters");
    let networks = open(&scratch, &defaults());
    let used = create(&networks, serde_json::json!({"Name": "used", "Labels": {"a": "b"}})).unwrap();
    create(&networks, serde_json::json!({"Name": "idle", "Labels": {"a": "c"}})).unwrap();
    create(&networks, serde_json::json!({"Name": "plan", "ConfigOnly": true})).unwrap();
    networks.allocate(&used, "c", &Wanted::default()).unwrap();
    let names = |pairs: &[(&str, &str)]| -> Vec<String> {
        let mut filters = Filters::default();
        pairs.iter().for_each(|(key, value)| filters.add(key, value));
        list(&networks, &filters).unwrap().into_iter().map(|network| network.name).collect()
    };
    assert_eq!(names(&[("dangling", "true")]), ["idle", "plan"]);
    assert_eq!(names(&[("dangling", "0")]), ["bridge", "host", "none", "used"]);
    assert_eq!(names(&[("type", "custom"), ("label", "a")]), ["idle", "used"]);
    assert_eq!(names(&[("label", "a=b")]), ["used"]);
    assert_eq!(names(&[("driver", "null")]), ["none", "plan"]);
    let due = |key: &str, value: &str| -> Vec<String> {
        let mut filters = Filters::default();
        filters.add(key, value);
        prune(&networks, &filters).unwrap().iter().map(|network| network.name.clone()).collect()
    };
    assert_eq!(due("label!", "x"), ["idle"]);
    assert_eq!(due("label!", "a").len(), 0);
    assert_eq!(due("until", "24h").len(), 0);
    assert!(prune(&networks, &Filters([("x".to_owned(), Vec::new())].into())).is_err());
    let shown = inspect(&networks, "used", "", &|_| "web".to_owned()).unwrap();
    assert_eq!(shown.containers["c"].name, "web");
    assert_eq!(shown.containers["c"].ipv4_address, "198.18.1.2/24");
    assert!(inspect(&networks, "used", "swarm", &|_| String::new()).is_err());
}

#[test]
fn networks_share_a_parent_where_docker_has_them() {
    let scratch = scratch("parent");
    let networks = open(&scratch, &defaults());
    let on = |name: &str, driver: &str, mode: &str| {
        let options = match mode {
            "" => serde_json::json!({"parent": "eth7"}),
            mode => serde_json::json!({"parent": "eth7", "macvlan_mode": mode}),
        };
        create(&networks, serde_json::json!({"Name": name, "Driver": driver, "Options": options}))
    };
    let system = |message: String| Err((Class::System, message));
    let first = on("one", "macvlan", "").unwrap();
    let second = on("two", "macvlan", "bridge").unwrap();
    let user = first.id.as_str().min(second.id.as_str());
    assert_eq!(
        on("three", "macvlan", "passthru"),
        system(format!(
            "cannot use mode passthru, macvlan network {user} is already using parent interface eth7"
        ))
    );
    remove(&networks, &first.id).unwrap();
    remove(&networks, &second.id).unwrap();
    let whole = on("three", "macvlan", "passthru").unwrap();
    assert_eq!(
        on("one", "macvlan", ""),
        system(format!(
            "macvlan network {} is already using parent interface eth7 in mode passthru",
            whole.id
        ))
    );
    let other = on("four", "ipvlan", "").unwrap();
    assert_eq!(
        on("five", "ipvlan", ""),
        system(format!("network di-{} is already using parent interface eth7", &other.id[..12]))
    );
    // A refused one has taken nothing along.
    remove(&networks, &other.id).unwrap();
    on("five", "ipvlan", "").unwrap();
}

#[test]
fn an_address_that_is_kept_is_not_given() {
    let scratch = scratch("kept");
    let networks = open(&scratch, &defaults());
    let front = create(&networks, serde_json::json!({"Name": "front"})).unwrap();
    networks.keep(&["198.18.1.2".parse().unwrap(), "198.18.1.3".parse().unwrap()]);
    let given = networks.allocate(&front, "c1", &Wanted::default()).unwrap();
    assert_eq!(given.ipv4.unwrap().to_string(), "198.18.1.4/24");
}
