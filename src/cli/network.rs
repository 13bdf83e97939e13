//! `dewar network`: the networks there are, and who is in them.

mod create;

use std::collections::BTreeMap;

use crate::http::api::container::{EndpointIpam, EndpointSettings};
use crate::http::api::network::*;

use super::command::{Action, Args, Command, Flag, Matches};
use super::container::network_values;
use super::context::{confirm, each, filters, print};
use super::error::Error;
use super::format::{self, Column, Format, Row};
pub use create::CREATE;

static FILTER: Flag =
    Flag::many("filter", "KEY=VALUE", "Show only what matches, such as driver=bridge").short('f');
static FORMAT: Flag = Flag::value("format", "FORMAT", "Print as table, json or by a Go template");
static NO_TRUNC: Flag = Flag::switch("no-trunc", "Show IDs in full");
static QUIET: Flag = Flag::switch("quiet", "Print IDs only").short('q');
static PRUNE_FILTER: Flag = Flag::many("filter", "KEY=VALUE", "Remove only what matches, such as until=24h");
static YES: Flag = Flag::switch("force", "Do not ask").short('f');
static RM_FORCE: Flag = Flag::switch("force", "Say nothing of networks that are not there").short('f');
static DISCONNECT_FORCE: Flag = Flag::switch("force", "Disconnect a running container too").short('f');
static ALIAS: Flag = Flag::many("alias", "NAME", "Further name of the container on the network");
static DRIVER_OPT: Flag = Flag::many("driver-opt", "KEY=VALUE", "Option of the container's place");
static GW_PRIORITY: Flag =
    Flag::value("gw-priority", "NUMBER", "The network with the highest is the way out (0 unless given)");
static IP: Flag = Flag::value("ip", "ADDRESS", "IPv4 address on the network");
static IP6: Flag = Flag::value("ip6", "ADDRESS", "IPv6 address on the network");
static LINK: Flag = Flag::many("link", "CONTAINER[:ALIAS]", "Reach another container by name");
static LINK_LOCAL_IP: Flag = Flag::many("link-local-ip", "ADDRESS", "Link-local address of the container");

pub static LS: Command = Command {
    names: &["network ls", "network list"],
    summary: "List networks",
    usage: "[OPTIONS]",
    about: "",
    flags: &[&FILTER, &FORMAT, &NO_TRUNC, &QUIET],
    args: Args::NONE,
    example: "dewar network ls --filter driver=bridge",
    usage_code: 1,
    plan: |matches| {
        let query = ListQuery { filters: filters(&matches.list(&FILTER), &FILTER)? };
        let no_trunc = matches.is(&NO_TRUNC);
        let format = Format::given(match matches.is(&QUIET) {
            true => Some("{{.ID}}"),
            false => matches.get(&FORMAT),
        })?;
        Action::call(move |context| {
            let format = Format::choose(format, context.config().text("networksFormat"))?;
            let mut networks = context.call(&NETWORK_LIST, &[], &query, &())?;
            networks.sort_by(|one, other| one.name.cmp(&other.name));
            let rows: Vec<Row> = networks.iter().map(|network| row(network, no_trunc)).collect();
            print(&format.print(&rows, COLUMNS, TITLES)?).map(|()| 0)
        })
    },
};

/// The values of flags that may be given several times, or several at once with commas.
fn commas(values: &[String]) -> Vec<String> {
    let parts = values.iter().filter(|value| !value.is_empty()).flat_map(|value| value.split(','));
    parts.map(str::to_owned).collect()
}

/// `KEY=VALUE`s; of one key the last counts, and a value that is not there is empty.
fn map(matches: &Matches, flag: &'static Flag) -> BTreeMap<String, String> {
    let pair = |text: &str| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        (key.to_owned(), value.to_owned())
    };
    matches.all(flag).into_iter().map(pair).collect()
}

const COLUMNS: &[Column] =
    &[("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope")];
const TITLES: &[Column] = &[
    ("CREATED AT", "CreatedAt"),
    ("INTERNAL", "Internal"),
    ("IPV4", "IPv4"),
    ("IPV6", "IPv6"),
    ("LABELS", "Labels"),
];

fn row(network: &Network, no_trunc: bool) -> Row {
    let created = network
        .created
        .parse::<jiff::Timestamp>()
        .map(|time| time.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string())
        .unwrap_or_default();
    let labels: Vec<String> = network.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let fields = [
        ("ID", if no_trunc { network.id.clone() } else { format::short_id(&network.id) }),
        ("Name", network.name.clone()),
        ("Driver", network.driver.clone()),
        ("Scope", network.scope.clone()),
        ("CreatedAt", created),
        ("Internal", network.internal.to_string()),
        ("IPv4", network.enable_ipv4.to_string()),
        ("IPv6", network.enable_ipv6.to_string()),
        ("Labels", labels.join(",")),
    ];
    let mut row: Row = fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    // `{{.Label "key"}}`; a leading blank keeps it out of what is printed.
    row.insert(" Label".to_owned(), serde_json::json!(network.labels));
    row
}

pub static RM: Command = Command {
    names: &["network rm", "network remove"],
    summary: "Remove networks",
    usage: "NETWORK [NETWORK...]",
    about: "",
    flags: &[&RM_FORCE],
    args: Args::at_least(1),
    example: "dewar network rm front",
    usage_code: 1,
    plan: |matches| {
        let (names, force) = (matches.args.clone(), matches.is(&RM_FORCE));
        Action::call(move |context| {
            each(&names, |name| {
                nameable("network", name)?;
                match context.call(&NETWORK_DELETE, &[name], &(), &()) {
                    Ok(()) => print(&format!("{name}\n")),
                    Err(error) if force && error.is_not_found() => Ok(()),
                    Err(error) => Err(error),
                }
            })
        })
    },
};

pub static CONNECT: Command = Command {
    names: &["network connect"],
    summary: "Connect a container to a network",
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "",
    flags: &[&ALIAS, &DRIVER_OPT, &GW_PRIORITY, &IP, &IP6, &LINK, &LINK_LOCAL_IP],
    args: Args::exactly(2),
    example: "dewar network connect --alias db back postgres",
    usage_code: 1,
    plan: |matches| {
        let request =
            NetworkConnect { container: matches.args[1].clone(), endpoint_config: Some(place(matches)?) };
        let network = named(matches)?;
        Action::call(move |context| context.call(&NETWORK_CONNECT, &[&network], &(), &request).map(|()| 0))
    },
};

/// The place in a network that connect's flags ask for.
fn place(matches: &Matches) -> Result<EndpointSettings, Error> {
    let mut options = BTreeMap::new();
    for text in commas(&matches.list(&DRIVER_OPT)) {
        let pair = network_values::driver_opt(&text);
        options.extend([
            pair.ok_or_else(|| Error::Local("invalid key/value pair format in driver options".to_owned()))?
        ]);
    }
    let links = matches.read_all(&LINK, network_values::link)?;
    Ok(EndpointSettings {
        ipam_config: Some(EndpointIpam {
            ipv4_address: matches.text(&IP),
            ipv6_address: matches.text(&IP6),
            link_local_ips: commas(&matches.list(&LINK_LOCAL_IP)),
        }),
        links: (!links.is_empty()).then_some(links),
        aliases: Some(commas(&matches.list(&ALIAS))),
        driver_opts: Some(options),
        gw_priority: matches.integer(&GW_PRIORITY)?.unwrap_or_default(),
        ..EndpointSettings::default()
    })
}

/// The network of a line that names a network and a container.
fn named(matches: &Matches) -> Result<String, Error> {
    for (what, text) in ["network", "container"].iter().zip(&matches.args) {
        nameable(what, text)?;
    }
    Ok(matches.args[0].clone())
}

fn nameable(what: &str, text: &str) -> Result<(), Error> {
    match text {
        "" => Err(Error::Local(format!("invalid {what} name or ID: value is empty"))),
        _ => Ok(()),
    }
}

pub static DISCONNECT: Command = Command {
    names: &["network disconnect"],
    summary: "Disconnect a container from a network",
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "",
    flags: &[&DISCONNECT_FORCE],
    args: Args::exactly(2),
    example: "dewar network disconnect front web",
    usage_code: 1,
    plan: |matches| {
        let force = matches.is(&DISCONNECT_FORCE);
        let request = NetworkDisconnect { container: matches.args[1].clone(), force };
        let network = named(matches)?;
        Action::call(move |context| context.call(&NETWORK_DISCONNECT, &[&network], &(), &request).map(|()| 0))
    },
};

pub static PRUNE: Command = Command {
    names: &["network prune"],
    summary: "Remove the networks nobody uses",
    usage: "[OPTIONS]",
    about: "",
    flags: &[&PRUNE_FILTER, &YES],
    args: Args::NONE,
    example: "dewar network prune -f",
    usage_code: 1,
    plan: |matches| {
        let query = PruneQuery { filters: filters(&matches.list(&PRUNE_FILTER), &PRUNE_FILTER)? };
        let is_sure = matches.is(&YES);
        Action::call(move |context| {
            let warning = "WARNING! This will remove all custom networks not used by at least one container.";
            if !is_sure && !confirm(warning)? {
                return Err(Error::Local("network prune has been cancelled".to_owned()));
            }
            let removed =
                context.call(&NETWORK_PRUNE, &[], &query, &())?.networks_deleted.unwrap_or_default();
            if removed.is_empty() {
                return Ok(0);
            }
            print(&format!("Deleted Networks:\n{}\n\n", removed.join("\n"))).map(|()| 0)
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;

    /// What the docker client 28.2 was seen to send.
    #[test]
    fn a_place_is_asked_for_as_docker_asks() {
        let place = |line: &str| {
            let place = place(&matches_of(&format!("network connect {line} n c")));
            place.map(|place| serde_json::to_value(place).unwrap()).map_err(|error| error.to_string())
        };
        let with = |fields: serde_json::Value| {
            let mut place = serde_json::to_value(EndpointSettings::default()).unwrap();
            place["IPAMConfig"] = serde_json::json!({});
            place["Aliases"] = serde_json::json!([]);
            place["DriverOpts"] = serde_json::json!({});
            fields.as_object().unwrap().iter().for_each(|(name, value)| place[name] = value.clone());
            Ok(place)
        };
        assert_eq!(place(""), with(serde_json::json!({})));
        assert_eq!(
            place(
                "--ip 10.0.0.5 --ip6 fd00::5 --alias x --alias y,z --link a:b --link c --link-local-ip 169.254.1.1 \
                 --driver-opt a=b --driver-opt c=d,e=f --gw-priority -3"
            ),
            with(serde_json::json!({
                "IPAMConfig": {"IPv4Address": "10.0.0.5", "IPv6Address": "fd00::5", "LinkLocalIPs": ["169.254.1.1"]},
                "Links": ["a:b", "c"], "Aliases": ["x", "y", "z"], "DriverOpts": {"a": "b", "c": "d", "e": "f"},
                "GwPriority": -3,
            }))
        );
        assert_eq!(
            place("--driver-opt a"),
            Err("invalid key/value pair format in driver options".to_owned())
        );
        assert!(place("--gw-priority x").unwrap_err().contains("strconv.ParseInt: parsing \"x\""));
        let mut matches = Matches::new(&[]);
        matches.args = vec!["n".into(), String::new()];
        let unnamed = named(&matches);
        assert_eq!(unnamed.unwrap_err().to_string(), "invalid container name or ID: value is empty");
    }

    #[test]
    fn the_table_is_dockers() {
        let network = Network {
            name: "bridge".into(),
            id: "0123456789abcdef".into(),
            driver: "bridge".into(),
            scope: "local".into(),
            ..Network::default()
        };
        let table = Format::parse("").unwrap().print(&[row(&network, false)], COLUMNS, TITLES).unwrap();
        assert_eq!(
            table,
            "NETWORK ID     NAME      DRIVER    SCOPE\n0123456789ab   bridge    bridge    local\n"
        );
    }
}
