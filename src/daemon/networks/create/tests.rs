//! Requests for networks: what becomes of them, and what is refused in which words.

use super::*;

fn request(json: serde_json::Value) -> NetworkCreate {
    crate::http::api::decode_value(json).unwrap()
}

fn asked(json: serde_json::Value) -> Result<Network, (Class, String)> {
    let made = check(request(json), &NetworkDefaults::default());
    made.and_then(|network| check_options(&network).and(check_pools(&network)).map(|()| network))
        .map_err(|error| (error.class, error.message))
}

#[test]
fn a_request_becomes_a_network() {
    let made = asked(serde_json::json!({
        "Name": "front", "Internal": true, "EnableIPv6": true, "Labels": {"a": "b"},
        "Options": {"com.docker.network.driver.mtu": "1400"},
        "IPAM": {"Driver": "default", "Options": {}, "Config": [
            {"Subnet": "10.0.0.0/16", "IPRange": "10.0.4.0/24", "Gateway": "10.0.0.9", "AuxiliaryAddresses": {"x": "10.0.0.7"}},
            {"Subnet": "fd00:1::/64"},
        ]},
    }))
    .unwrap();
    assert!(made.internal && made.ipv4 && made.ipv6 && made.driver == Driver::Bridge);
    let pool = &made.pools[0];
    assert_eq!(pool.range.unwrap().to_string(), "10.0.4.0/24");
    assert_eq!(pool.gateway.unwrap().to_string(), "10.0.0.9");
    assert_eq!(pool.auxiliary["x"].to_string(), "10.0.0.7");
    assert_eq!((made.pools.len(), made.ipam_options), (2, Some(BTreeMap::new())));
    // A family that is off has no pools.
    let made =
        asked(serde_json::json!({"Name": "a", "IPAM": {"Config": [{"Subnet": "fd00:1::/64"}]}})).unwrap();
    assert!(made.pools.is_empty() && !made.ipv6);
}

#[test]
fn what_is_wrong_is_said_as_docker_says_it() {
    let ipam = |config: serde_json::Value| serde_json::json!({"Name": "a", "EnableIPv6": true, "IPAM": {"Config": config}});
    let option = |key: &str, value: &str| serde_json::json!({"Name": "a", "Options": {key: value}});
    let (bad, no) = (Class::InvalidParameter, Class::Forbidden);
    for (body, class, words) in [
        (serde_json::json!({"Name": "host"}), no, "operation is not permitted on predefined host network "),
        (serde_json::json!({"Name": " "}), bad, "invalid name: name is empty"),
        (
            serde_json::json!({"Name": "a", "Driver": "host"}),
            no,
            "only one instance of \"host\" network is allowed",
        ),
        (serde_json::json!({"Name": "a", "Driver": "x"}), Class::NotFound, "plugin \"x\" not found"),
        (
            serde_json::json!({"Name": "a", "IPAM": {"Driver": "x"}}),
            Class::NotFound,
            "plugin \"x\" not found",
        ),
        (serde_json::json!({"Name": "a", "IPAM": {"Driver": "null"}}), bad, "ipv4 pool is empty"),
        (
            serde_json::json!({"Name": "a", "Ingress": true}),
            no,
            "Ingress network can only be global scope network",
        ),
        (
            serde_json::json!({"Name": "a", "Scope": "swarm"}),
            no,
            "cannot create a swarm scoped network when swarm is not active",
        ),
        (serde_json::json!({"Name": "a", "EnableIPv4": false}), bad, "IPv4 or IPv6 must be enabled"),
        (
            ipam(serde_json::json!([{"Subnet": "x"}])),
            bad,
            "invalid network config:\ninvalid subnet x: invalid CIDR block notation",
        ),
        (
            ipam(serde_json::json!([{"Subnet": "10.0.0.1/8"}])),
            bad,
            "invalid network config:\ninvalid subnet 10.0.0.1/8: it should be 10.0.0.0/8",
        ),
        (
            ipam(
                serde_json::json!([{"Subnet": "10.0.0.0/8", "Gateway": "11.0.0.1", "IPRange": "fd00::/64"}]),
            ),
            bad,
            "invalid network config:\n* invalid ip-range fd00::/64: parent subnet is an IPv4 block\n\
             * invalid gateway 11.0.0.1: parent subnet 10.0.0.0/8 doesn't contain this address",
        ),
        (
            ipam(serde_json::json!([{"Subnet": "10.0.0.0/24", "IPRange": "10.0.0.0/8"}])),
            bad,
            "invalid network config:\ninvalid ip-range 10.0.0.0/8: CIDR block is bigger than its parent subnet 10.0.0.0/24",
        ),
        (
            ipam(serde_json::json!([{"Subnet": "10.0.0.0/24", "AuxiliaryAddresses": {"x": "y"}}])),
            bad,
            "invalid network config:\ninvalid auxiliary address x: invalid address",
        ),
        (
            ipam(serde_json::json!([{"Subnet": "10.0.0.0/24"}, {"Subnet": "10.1.0.0/24"}])),
            no,
            "bridge driver doesn't support multiple subnets",
        ),
        (ipam(serde_json::json!([{"Subnet": "0.0.0.0/0"}])), bad, "ipv4 pool is empty"),
        (
            ipam(serde_json::json!([{"Subnet": "fe80::/48"}])),
            bad,
            "'fe80::/48' clashes with the Link-Local prefix 'fe80::/64'",
        ),
        (
            ipam(serde_json::json!([{"Subnet": "ff02::/64"}])),
            bad,
            "multicast subnet 'ff02::/64' is not allowed",
        ),
        (
            option(option::MTU, "x"),
            bad,
            "failed to parse com.docker.network.driver.mtu value: x (strconv.Atoi: parsing \"x\": invalid syntax)",
        ),
        (
            option(option::ICC, "x"),
            bad,
            "failed to parse com.docker.network.bridge.enable_icc value: x (strconv.ParseBool: parsing \"x\": invalid syntax)",
        ),
        (
            option(option::GATEWAY_MODE_IPV4, "x"),
            bad,
            "failed to parse com.docker.network.bridge.gateway_mode_ipv4 value: x (unknown gateway mode x)",
        ),
        (
            option(option::GATEWAY_MODE_IPV4, "isolated"),
            Class::System,
            "gateway mode 'isolated' can only be used for an internal network",
        ),
        (
            serde_json::json!({"Name": "a", "Driver": "macvlan", "Options": {"macvlan_mode": "x"}}),
            Class::System,
            "requested macvlan mode 'x' is not valid, 'bridge' mode is the macvlan driver default",
        ),
        (
            serde_json::json!({"Name": "a", "Driver": "ipvlan", "Options": {"parent": "lo"}}),
            Class::System,
            "loopback interface is not a valid ipvlan parent link",
        ),
        (
            serde_json::json!({"Name": "a", "ConfigOnly": true, "Internal": true}),
            no,
            "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.",
        ),
        (
            serde_json::json!({"Name": "a", "ConfigFrom": {"Network": "b"}, "ConfigOnly": true}),
            no,
            "a configuration network cannot depend on another configuration network",
        ),
        (
            serde_json::json!({"Name": "a", "ConfigFrom": {"Network": "b"}, "Labels": {"a": ""}}),
            no,
            "user-specified configurations are not supported if the network depends on a configuration network",
        ),
        (
            serde_json::json!({"Name": "a", "ConfigFrom": {"Network": "b"}, "Options": {"a": ""}}),
            no,
            "network driver options are not supported if the network depends on a configuration network",
        ),
    ] {
        assert_eq!(asked(body.clone()).map(|network| network.name), Err((class, words.to_owned())), "{body}");
    }
}

#[test]
fn options_of_the_daemon_stand_for_what_was_not_said() {
    let options = [(option::MTU, "1400"), (option::ENABLE_IPV6, "true"), (option::ENABLE_IPV4, "false")];
    let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let defaults = NetworkDefaults {
        default_opts: BTreeMap::from([("bridge".to_owned(), options.into())]),
        ..NetworkDefaults::default()
    };
    let made = check(request(serde_json::json!({"Name": "a"})), &defaults).unwrap();
    assert!(made.ipv6 && !made.ipv4 && made.options[option::MTU] == "1400");
    let said = serde_json::json!({"Name": "a", "EnableIPv6": false, "EnableIPv4": true, "Options": {option::MTU: "9000"}});
    let made = check(request(said), &defaults).unwrap();
    assert!(!made.ipv6 && made.ipv4 && made.options.len() == 1 && made.options[option::MTU] == "9000");
    let made = check(request(serde_json::json!({"Name": "a", "Driver": "macvlan"})), &defaults).unwrap();
    assert!(made.options.is_empty());
}
