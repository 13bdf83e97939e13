//! `dewar volume`: make, list, show and remove volumes.

use std::collections::BTreeMap;

use crate::http::api::volume::{
    DeleteQuery, ListQuery, VOLUME_CREATE, VOLUME_DELETE, VOLUME_LIST, VOLUME_PRUNE, Volume, VolumeCreate,
};

use super::command::{Action, Args, Command, Flag, Matches};
use super::container::values;
use super::context::{confirm, each, filters, print};
use super::error::Error;
use super::format::{self, Column, Format, Row};

static ALL: Flag = Flag::switch("all", "Remove those with a name of their own too").short('a');
static DRIVER: Flag = Flag::value("driver", "DRIVER", "Driver of the volume").short('d').default("local");
static FILTER: Flag =
    Flag::many("filter", "KEY=VALUE", "Show only what matches, such as dangling=true").short('f');
static FORCE: Flag = Flag::switch("force", "Say nothing of volumes that are not there").short('f');
static FORMAT: Flag = Flag::value("format", "FORMAT", "Print as table, json or by a Go template");
static LABEL: Flag = Flag::many("label", "KEY[=VALUE]", "Set a label");
static OPT: Flag =
    Flag::many("opt", "KEY=VALUE", "Set an option of the driver: type, device or o").short('o');
static PRUNE_FILTER: Flag = Flag::many("filter", "KEY=VALUE", "Remove only what matches, such as label=a");
static QUIET: Flag = Flag::switch("quiet", "Print names only").short('q');
static YES: Flag = Flag::switch("force", "Do not ask").short('f');
/// Docker's flags for what only a swarm has.
static CLUSTER: Flag =
    Flag::switch("cluster", "List the volumes of a swarm").refused("dewar has no swarm mode");

pub static CREATE: Command = Command {
    names: &["volume create"],
    summary: "Make a volume",
    usage: "[OPTIONS] [VOLUME]",
    about: "Without a name it gets one of 64 digits. The options type, device and o are those of mount(8): \
            the device is mounted when the first container with the volume starts.",
    flags: &[&DRIVER, &LABEL, &OPT],
    args: Args::between(0, 1),
    example: "dewar volume create --label team=a data",
    usage_code: 1,
    plan: |matches| {
        let request = create_request(matches)?;
        Action::call(move |context| {
            let volume = context.call(&VOLUME_CREATE, &[], &(), &request)?;
            print(&format!("{}\n", volume.name)).map(|()| 0)
        })
    },
};

pub static LS: Command = Command {
    names: &["volume ls", "volume list"],
    summary: "List volumes",
    usage: "[OPTIONS]",
    about: "",
    flags: &[&CLUSTER, &FILTER, &FORMAT, &QUIET],
    args: Args::NONE,
    example: "dewar volume ls -f dangling=true",
    usage_code: 1,
    plan: |matches| {
        let query = ListQuery { filters: filters(&matches.list(&FILTER), &FILTER)? };
        let format = Format::given(match matches.is(&QUIET) {
            true => Some("{{.Name}}"),
            false => matches.get(&FORMAT),
        })?;
        Action::call(move |context| {
            let format = Format::choose(format, context.config().text("volumesFormat"))?;
            let list = context.call(&VOLUME_LIST, &[], &query, &())?;
            for warning in list.warnings.iter().flatten() {
                super::say(&format!("WARNING: {warning}"));
            }
            let mut volumes = list.volumes;
            volumes.sort_by(|one, other| natural(&one.name, &other.name));
            let rows: Vec<Row> = volumes.iter().map(row).collect();
            print(&format.print(&rows, COLUMNS, TITLES)?).map(|()| 0)
        })
    },
};

pub static RM: Command = Command {
    names: &["volume rm", "volume remove"],
    summary: "Remove volumes",
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "A volume that a container has, running or not, stays.",
    flags: &[&FORCE],
    args: Args::at_least(1),
    example: "dewar volume rm data",
    usage_code: 1,
    plan: |matches| {
        let query = DeleteQuery { force: matches.is(&FORCE) };
        let names = matches.args.clone();
        Action::call(move |context| {
            each(&names, |name| {
                context.call(&VOLUME_DELETE, &[name], &query, &())?;
                print(&format!("{name}\n"))
            })
        })
    },
};

pub static PRUNE: Command = Command {
    names: &["volume prune"],
    summary: "Remove the volumes that no container has",
    usage: "[OPTIONS]",
    about: "",
    flags: &[&ALL, &PRUNE_FILTER, &YES],
    args: Args::NONE,
    example: "dewar volume prune -f",
    usage_code: 1,
    plan: |matches| {
        let (query, warning) = prune_request(matches)?;
        let is_sure = matches.is(&YES);
        Action::call(move |context| {
            if !is_sure && !confirm(warning)? {
                return Ok(0);
            }
            let pruned = context.call(&VOLUME_PRUNE, &[], &query, &())?;
            let mut out = String::new();
            if !pruned.volumes_deleted.is_empty() {
                out = format!("Deleted Volumes:\n{}\n\n", pruned.volumes_deleted.join("\n"));
            }
            let bytes = i64::try_from(pruned.space_reclaimed).unwrap_or(i64::MAX);
            out += &format!("Total reclaimed space: {}\n", format::size_total(bytes));
            print(&out).map(|()| 0)
        })
    },
};

const COLUMNS: &[Column] = &[("DRIVER", "Driver"), ("VOLUME NAME", "Name")];
const TITLES: &[Column] = &[
    ("AVAILABILITY", "Availability"),
    ("GROUP", "Group"),
    ("LABELS", "Labels"),
    ("LINKS", "Links"),
    ("MOUNTPOINT", "Mountpoint"),
    ("SCOPE", "Scope"),
    ("SIZE", "Size"),
    ("STATUS", "Status"),
];

/// The fields of one volume, as Docker's templates name them.
pub fn row(volume: &Volume) -> Row {
    let none = || "N/A".to_owned();
    let labels = volume.labels.clone().unwrap_or_default();
    let joined: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let usage = volume.usage_data.as_ref();
    let fields = [
        ("Availability", none()),
        ("Driver", volume.driver.clone()),
        ("Group", none()),
        ("Labels", joined.join(",")),
        ("Links", usage.map_or_else(none, |usage| usage.ref_count.to_string())),
        ("Mountpoint", volume.mountpoint.clone()),
        ("Name", volume.name.clone()),
        ("Scope", volume.scope.clone()),
        ("Size", usage.map_or_else(none, |usage| format::size_decimal(usage.size))),
        ("Status", none()),
    ];
    let mut row: Row = fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    // `{{.Label "key"}}`; a leading blank keeps it out of what is printed.
    row.insert(" Label".to_owned(), serde_json::json!(labels));
    row
}

/// `v2` before `v10`, as Docker sorts.
fn natural(one: &str, other: &str) -> std::cmp::Ordering {
    let (mut one, mut other) = (one, other);
    while let (Some(left), Some(right)) = (one.chars().next(), other.chars().next()) {
        let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (lefts, rights) = (digits(one), digits(other));
        let order = if lefts > 0 && rights > 0 {
            let (left, rest) = one.split_at(lefts);
            one = rest;
            let (right, rest) = other.split_at(rights);
            other = rest;
            let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
            left.len().cmp(&right.len()).then_with(|| left.cmp(right)).then(lefts.cmp(&rights))
        } else {
            one = &one[left.len_utf8()..];
            other = &other[right.len_utf8()..];
            left.cmp(&right)
        };
        if order.is_ne() {
            return order;
        }
    }
    one.len().cmp(&other.len())
}

fn create_request(matches: &Matches) -> Result<VolumeCreate, Error> {
    let pairs = |flag: &'static Flag| -> Result<BTreeMap<String, String>, Error> {
        Ok(matches.read_all(flag, values::pair)?.into_iter().collect())
    };
    Ok(VolumeCreate {
        name: matches.args.first().cloned().unwrap_or_default(),
        driver: matches.text(&DRIVER),
        driver_opts: Some(pairs(&OPT)?),
        labels: Some(pairs(&LABEL)?),
    })
}

fn prune_request(matches: &Matches) -> Result<(ListQuery, &'static str), Error> {
    let mut filters = filters(&matches.list(&PRUNE_FILTER), &PRUNE_FILTER)?;
    if !matches.is(&ALL) {
        return Ok((
            ListQuery { filters },
            "WARNING! This will remove anonymous local volumes not used by at least one container.",
        ));
    }
    if !filters.get("all").is_empty() {
        let text = "conflicting options: cannot specify both --all and --filter all=1";
        return Err(Error::Local(text.to_owned()));
    }
    filters.add("all", "true");
    Ok((
        ListQuery { filters },
        "WARNING! This will remove all local volumes not used by at least one container.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;

    #[test]
    fn create_takes_a_name_or_none_with_options_and_labels() {
        let request =
            create_request(&matches_of("volume create -o type=tmpfs -o o=size=1m --label a v")).unwrap();
        assert_eq!((request.name.as_str(), request.driver.as_str()), ("v", "local"));
        assert_eq!(request.driver_opts.unwrap()["o"], "size=1m");
        assert_eq!(request.labels.unwrap()["a"], "");
        assert_eq!(create_request(&matches_of("volume create")).unwrap().name, "");
    }

    #[test]
    fn prune_says_what_it_will_remove() {
        let (query, warning) = prune_request(&matches_of("volume prune --filter label=a")).unwrap();
        assert!(query.filters.get("all").is_empty() && warning.contains("anonymous"));
        let (query, warning) = prune_request(&matches_of("volume prune -a")).unwrap();
        assert_eq!(query.filters.get("all"), ["true"]);
        assert!(warning.contains("all local volumes"));
        assert!(prune_request(&matches_of("volume prune -a --filter all=1")).is_err());
    }

    #[test]
    fn names_sort_by_their_numbers() {
        let mut names = ["v10", "v2", "w", "v02", "v", "v2a"];
        names.sort_by(|one, other| natural(one, other));
        assert_eq!(names, ["v", "v2", "v2a", "v02", "v10", "w"]);
    }
}
