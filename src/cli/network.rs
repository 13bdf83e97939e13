//! `dewar network`: look at the networks there are. Changing them is the daemon's to refuse.

use crate::http::api::network::*;

use super::command::{Action, Args, Command, Flag, Matches};
use super::context::{confirm, each, filters, print};
use super::error::Error;
use super::format::{self, Column, Format, Row};

static FILTER: Flag =
    Flag::many("filter", "KEY=VALUE", "Show only what matches, such as driver=bridge").short('f');
static FORMAT: Flag = Flag::value("format", "FORMAT", "Print as table, json or by a Go template");
static NO_TRUNC: Flag = Flag::switch("no-trunc", "Show IDs in full");
static QUIET: Flag = Flag::switch("quiet", "Print IDs only").short('q');
static PRUNE_FILTER: Flag = Flag::many("filter", "KEY=VALUE", "Remove only what matches, such as until=24h");
static YES: Flag = Flag::switch("force", "Do not ask").short('f');
static RM_FORCE: Flag = Flag::switch("force", "Say nothing of networks that are not there").short('f');
static DISCONNECT_FORCE: Flag = Flag::switch("force", "Disconnect a running container too").short('f');
static ATTACHABLE: Flag = Flag::switch("attachable", "Let containers join by hand");
static DRIVER: Flag =
    Flag::value("driver", "DRIVER", "Driver of the network (bridge unless given)").short('d');
static INTERNAL: Flag = Flag::switch("internal", "Keep the network from reaching others");
static LABEL: Flag = Flag::many("label", "KEY[=VALUE]", "Set a label");
static OPT: Flag = Flag::many("opt", "KEY=VALUE", "Set an option of the driver").short('o');

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

pub static CREATE: Command = Command {
    names: &["network create"],
    summary: "Create a network",
    usage: "[OPTIONS] NETWORK",
    about: "This version's daemon has the networks bridge, host and none, and refuses to make others.",
    flags: &[&ATTACHABLE, &DRIVER, &INTERNAL, &LABEL, &OPT],
    args: Args::exactly(1),
    example: "dewar network create --driver bridge front",
    usage_code: 1,
    plan: |matches| {
        let request = create_request(matches);
        Action::call(move |context| {
            let created = context.call(&NETWORK_CREATE, &[], &(), &request)?;
            print(&format!("{}\n", created.id)).map(|()| 0)
        })
    },
};

fn create_request(matches: &Matches) -> NetworkCreate {
    let pairs = |flag| {
        let texts = matches.list(flag).into_iter();
        texts
            .map(|text| match text.split_once('=') {
                Some((key, value)) => (key.to_owned(), value.to_owned()),
                None => (text, String::new()),
            })
            .collect()
    };
    NetworkCreate {
        name: matches.args[0].clone(),
        driver: matches.get(&DRIVER).unwrap_or("bridge").to_owned(),
        internal: matches.is(&INTERNAL),
        attachable: matches.is(&ATTACHABLE),
        options: pairs(&OPT),
        labels: pairs(&LABEL),
        ..NetworkCreate::default()
    }
}

pub static RM: Command = Command {
    names: &["network rm", "network remove"],
    summary: "Remove networks",
    usage: "[OPTIONS] NETWORK [NETWORK...]",
    about: "",
    flags: &[&RM_FORCE],
    args: Args::at_least(1),
    example: "dewar network rm front",
    usage_code: 1,
    plan: |matches| {
        let (names, force) = (matches.args.clone(), matches.is(&RM_FORCE));
        Action::call(move |context| {
            each(&names, |name| match context.call(&NETWORK_DELETE, &[name], &(), &()) {
                Ok(()) => print(&format!("{name}\n")),
                Err(error) if force && error.is_not_found() => Ok(()),
                Err(error) => Err(error),
            })
        })
    },
};

pub static CONNECT: Command = Command {
    names: &["network connect"],
    summary: "Connect a container to a network",
    usage: "NETWORK CONTAINER",
    about: "",
    flags: &[],
    args: Args::exactly(2),
    example: "dewar network connect front web",
    usage_code: 1,
    plan: |matches| {
        let network = matches.args[0].clone();
        let request = NetworkConnect { container: matches.args[1].clone(), endpoint_config: None };
        Action::call(move |context| context.call(&NETWORK_CONNECT, &[&network], &(), &request).map(|()| 0))
    },
};

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
        let network = matches.args[0].clone();
        let container = matches.args[1].clone();
        let request = NetworkDisconnect { container, force: matches.is(&DISCONNECT_FORCE) };
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

    #[test]
    fn a_network_is_asked_for_with_all_that_was_said() {
        let line = "network create -d macvlan --internal --label a=b --label c -o x=y front";
        let request = create_request(&matches_of(line));
        assert_eq!((request.name.as_str(), request.driver.as_str()), ("front", "macvlan"));
        assert!(request.internal && !request.attachable);
        assert_eq!((request.labels["a"].as_str(), request.labels["c"].as_str()), ("b", ""));
        assert_eq!(request.options["x"], "y");
        assert_eq!(create_request(&matches_of("network create front")).driver, "bridge");
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
