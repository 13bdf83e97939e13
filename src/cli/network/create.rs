//! `network create`: which network is asked for.
//!
//! What a network may be is the daemon's to say; here only ranges, gateways and further addresses find their subnet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::cli::command::{Action, Args, Command, Flag, Matches};
use crate::cli::context::print;
use crate::cli::error::Error;
use crate::http::api::network::*;

use super::{commas, map};

static ATTACHABLE: Flag = Flag::switch("attachable", "Let containers join by hand");
static AUX_ADDRESS: Flag =
    Flag::many("aux-address", "NAME=ADDRESS", "Keep an address of a subnet for something else");
static CONFIG_FROM: Flag = Flag::value("config-from", "NETWORK", "Take the settings of this template");
static CONFIG_ONLY: Flag = Flag::switch("config-only", "Make a template for other networks only");
static DRIVER: Flag = Flag::value("driver", "DRIVER", "Driver of the network: bridge, macvlan or ipvlan")
    .short('d')
    .default("bridge");
static GATEWAY: Flag =
    Flag::many("gateway", "ADDRESS", "Address of the network's way out, in one of its subnets");
static INGRESS: Flag =
    Flag::switch("ingress", "Make the network services are published on").refused("dewar has no swarm mode");
static INTERNAL: Flag = Flag::switch("internal", "Keep the network from reaching others");
static IP_RANGE: Flag =
    Flag::many("ip-range", "SUBNET", "Give containers addresses of this part of a subnet only");
static IPAM_DRIVER: Flag =
    Flag::value("ipam-driver", "DRIVER", "Who gives out the addresses").default("default");
static IPAM_OPT: Flag = Flag::many("ipam-opt", "KEY=VALUE", "Set an option of who gives out the addresses");
static IPV4: Flag =
    Flag::switch("ipv4", "Give containers IPv4 addresses (on unless the daemon says otherwise)");
static IPV6: Flag = Flag::switch("ipv6", "Give containers IPv6 addresses");
static LABEL: Flag = Flag::many("label", "KEY[=VALUE]", "Set a label");
static OPT: Flag = Flag::many("opt", "KEY=VALUE", "Set an option of the driver").short('o');
static SCOPE: Flag = Flag::value("scope", "SCOPE", "How far the network reaches: local");
static SUBNET: Flag =
    Flag::many("subnet", "SUBNET", "Subnet of the network, in CIDR notation (one nobody uses unless given)");

pub static CREATE: Command = Command {
    names: &["network create"],
    summary: "Create a network",
    usage: "[OPTIONS] NETWORK",
    about: "Ranges, gateways and further addresses belong to the subnet that contains them. Options are named as \
            Docker names them, such as com.docker.network.driver.mtu.",
    flags: &[
        &ATTACHABLE,
        &AUX_ADDRESS,
        &CONFIG_FROM,
        &CONFIG_ONLY,
        &DRIVER,
        &GATEWAY,
        &INGRESS,
        &INTERNAL,
        &IP_RANGE,
        &IPAM_DRIVER,
        &IPAM_OPT,
        &IPV4,
        &IPV6,
        &LABEL,
        &OPT,
        &SCOPE,
        &SUBNET,
    ],
    args: Args::exactly(1),
    example: "dewar network create --subnet 10.5.0.0/16 --gateway 10.5.0.1 front",
    usage_code: 1,
    plan: |matches| {
        let request = request(matches)?;
        Action::call(move |context| {
            let created = context.call(&NETWORK_CREATE, &[], &(), &request)?;
            print(&format!("{}\n", created.id)).map(|()| 0)
        })
    },
};

fn request(matches: &Matches) -> Result<NetworkCreate, Error> {
    let switch = |flag: &'static Flag| matches.given(flag).then(|| matches.is(flag));
    let config_from = matches.text(&CONFIG_FROM);
    Ok(NetworkCreate {
        name: matches.args[0].clone(),
        driver: matches.text(&DRIVER),
        scope: matches.text(&SCOPE),
        enable_ipv4: switch(&IPV4),
        enable_ipv6: switch(&IPV6),
        ipam: Some(Ipam {
            driver: matches.text(&IPAM_DRIVER),
            options: Some(map(matches, &IPAM_OPT)),
            config: Some(subnets(matches).map_err(Error::Local)?),
        }),
        internal: matches.is(&INTERNAL),
        attachable: matches.is(&ATTACHABLE),
        ingress: false,
        config_only: matches.is(&CONFIG_ONLY),
        config_from: (!config_from.is_empty()).then_some(ConfigReference { network: config_from }),
        options: map(matches, &OPT),
        labels: matches.read_all(&LABEL, label)?.into_iter().collect(),
    })
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    match key.trim().is_empty() {
        true => Err(format!("invalid label '{text}': empty name")),
        false => Ok((key.to_owned(), value.to_owned())),
    }
}

/// The subnets with what belongs to each. Source: the docker client, for the order of the checks and the words.
fn subnets(matches: &Matches) -> Result<Vec<IpamConfig>, String> {
    let [subnets, ranges, gateways] = [&SUBNET, &IP_RANGE, &GATEWAY].map(|flag| commas(&matches.list(flag)));
    if subnets.len() < ranges.len().max(gateways.len()) {
        return Err("every ip-range or gateway must have a corresponding subnet".to_owned());
    }
    let mut configs: Vec<IpamConfig> = Vec::new();
    for subnet in subnets {
        for other in &configs {
            if holds(&subnet, &other.subnet)? || holds(&other.subnet, &subnet)? {
                return Err("multiple overlapping subnet configuration is not supported".to_owned());
            }
        }
        configs.push(IpamConfig { subnet, ..IpamConfig::default() });
    }
    for range in ranges {
        let config = holder(&mut configs, &range, "range")?;
        if !config.ip_range.is_empty() {
            let (other, subnet) = (&config.ip_range, &config.subnet);
            return Err(format!(
                "cannot configure multiple ranges ({range}, {other}) on the same subnet ({subnet})"
            ));
        }
        config.ip_range = range;
    }
    for gateway in gateways {
        let config = holder(&mut configs, &gateway, "gateway")?;
        if !config.gateway.is_empty() {
            let (other, subnet) = (&config.gateway, &config.subnet);
            return Err(format!(
                "cannot configure multiple gateways ({gateway}, {other}) for the same subnet ({subnet})"
            ));
        }
        config.gateway = gateway;
    }
    let auxiliary: BTreeMap<String, String> = map(matches, &AUX_ADDRESS);
    for (name, address) in auxiliary {
        holder(&mut configs, &address, "aux-address")?.auxiliary_addresses.insert(name, address);
    }
    Ok(configs)
}

/// The subnet that contains an address or the beginning of a range.
fn holder<'a>(configs: &'a mut [IpamConfig], text: &str, what: &str) -> Result<&'a mut IpamConfig, String> {
    let mut found = None;
    for (at, config) in configs.iter().enumerate() {
        if holds(&config.subnet, text)? {
            found = Some(at);
            break;
        }
    }
    match found {
        Some(at) => Ok(&mut configs[at]),
        None => Err(format!("no matching subnet for {what} {text}")),
    }
}

fn holds(subnet: &str, text: &str) -> Result<bool, String> {
    let (base, prefix) = cidr(subnet).map_err(|cause| format!("invalid subnet: {cause}"))?;
    let address = match text.contains('/') {
        true => Some(cidr(text)?.0),
        false => text.parse().ok(),
    };
    // The bits that differ are behind the prefix.
    Ok(match (base, address) {
        (IpAddr::V4(base), Some(IpAddr::V4(address))) => {
            (u32::from(base) ^ u32::from(address)).leading_zeros() >= prefix
        }
        (IpAddr::V6(base), Some(IpAddr::V6(address))) => {
            (u128::from(base) ^ u128::from(address)).leading_zeros() >= prefix
        }
        _ => false,
    })
}

fn cidr(text: &str) -> Result<(IpAddr, u32), String> {
    let read = || {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let prefix: u32 = prefix.parse().ok()?;
        (prefix <= if address.is_ipv6() { 128 } else { 32 }).then_some((address, prefix))
    };
    read().ok_or_else(|| format!("invalid CIDR address: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;
    use serde_json::json;

    fn body(line: &str) -> serde_json::Value {
        serde_json::to_value(request(&matches_of(&format!("network create {line} front"))).unwrap()).unwrap()
    }

    /// What the docker client 28.2 was seen to send.
    #[test]
    fn the_request_is_dockers() {
        let plain = json!({
            "Name": "front", "Driver": "bridge", "Scope": "", "IPAM": {"Driver": "default", "Options": {}, "Config": []},
            "Internal": false, "Attachable": false, "Ingress": false, "ConfigOnly": false, "ConfigFrom": null,
            "Options": {}, "Labels": {},
        });
        assert_eq!(body(""), plain);
        let with = |fields: serde_json::Value| {
            let mut body = plain.clone();
            fields.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
            body
        };
        assert_eq!(body("--ipv4=false --ipv6"), with(json!({"EnableIPv4": false, "EnableIPv6": true})));
        assert_eq!(
            body(
                "--config-from b -d macvlan --internal --attachable --scope local --ipam-driver foo --ipam-opt a=b \
                 --ipam-opt c -o x=y -o z --label l=m --label n"
            ),
            with(json!({
                "Driver": "macvlan", "Scope": "local", "Internal": true, "Attachable": true,
                "IPAM": {"Driver": "foo", "Options": {"a": "b", "c": ""}, "Config": []},
                "ConfigFrom": {"Network": "b"}, "Options": {"x": "y", "z": ""}, "Labels": {"l": "m", "n": ""},
            }))
        );
        let config = |line: &str| body(line)["IPAM"]["Config"].clone();
        assert_eq!(
            config(
                "--subnet 10.0.0.0/16 --gateway 10.0.0.1 --ip-range 10.0.1.0/24 --aux-address x=10.0.0.7 \
                 --subnet fd00::/64 --aux-address y=fd00::3"
            ),
            json!([
                {"Subnet": "10.0.0.0/16", "IPRange": "10.0.1.0/24", "Gateway": "10.0.0.1", "AuxiliaryAddresses": {"x": "10.0.0.7"}},
                {"Subnet": "fd00::/64", "AuxiliaryAddresses": {"y": "fd00::3"}},
            ])
        );
        assert_eq!(
            config("--subnet 10.0.0.0/16,10.1.0.0/16 --gateway 10.1.0.1"),
            json!([{"Subnet": "10.0.0.0/16"}, {"Subnet": "10.1.0.0/16", "Gateway": "10.1.0.1"}])
        );
        assert_eq!(config("--subnet x"), json!([{"Subnet": "x"}]));
        assert_eq!(config("--subnet= --gateway="), json!([]));
    }

    #[test]
    fn what_has_no_subnet_is_refused_in_dockers_words() {
        for (line, words) in [
            ("--gateway 10.0.0.1", "every ip-range or gateway must have a corresponding subnet"),
            ("--ip-range 10.0.0.0/8", "every ip-range or gateway must have a corresponding subnet"),
            ("--subnet 10.0.0.0/16 --gateway 11.0.0.1", "no matching subnet for gateway 11.0.0.1"),
            ("--subnet 10.0.0.0/16 --gateway x", "no matching subnet for gateway x"),
            ("--subnet 10.0.0.0/16 --ip-range fd00::/64", "no matching subnet for range fd00::/64"),
            ("--subnet 10.0.0.0/16 --ip-range 10.0.0.0/33", "invalid CIDR address: 10.0.0.0/33"),
            ("--aux-address a=1.2.3.4", "no matching subnet for aux-address 1.2.3.4"),
            ("--subnet 10.0.0.0/16 --aux-address x", "no matching subnet for aux-address "),
            ("--subnet x --gateway 1.2.3.4", "invalid subnet: invalid CIDR address: x"),
            (
                "--subnet 10.0.0.0/16 --subnet 10.0.0.0/24",
                "multiple overlapping subnet configuration is not supported",
            ),
            (
                "--subnet 10.0.0.0/16 --ip-range 10.0.1.0/24 --ip-range 10.0.2.0/24 --subnet 10.1.0.0/16",
                "cannot configure multiple ranges (10.0.2.0/24, 10.0.1.0/24) on the same subnet (10.0.0.0/16)",
            ),
            (
                "--subnet 10.0.0.0/16 --gateway 10.0.0.1 --gateway 10.0.0.2 --subnet 10.1.0.0/16",
                "cannot configure multiple gateways (10.0.0.2, 10.0.0.1) for the same subnet (10.0.0.0/16)",
            ),
            ("--label =x", "invalid argument \"=x\" for \"--label\" flag: invalid label '=x': empty name"),
        ] {
            let refused = request(&matches_of(&format!("network create {line} front"))).unwrap_err();
            assert_eq!(refused.to_string(), words, "{line}");
        }
    }
}
