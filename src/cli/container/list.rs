//! `dewar ps`.

use crate::cli::command::{Action, Args, Command, Flag, Matches};
use crate::cli::context::{filters, print};
use crate::cli::error::Error;
use crate::cli::format::{self, Column, Format, Row};
use crate::http::api::container::{CONTAINER_LIST, ContainerSummary, ListQuery, Port};

static ALL: Flag = Flag::switch("all", "Show stopped containers too").short('a');
static FILTER: Flag =
    Flag::many("filter", "KEY=VALUE", "Show only what matches, such as status=exited").short('f');
static FORMAT: Flag = Flag::value("format", "FORMAT", "Print as table, json or by a Go template");
static LAST: Flag = Flag::value("last", "COUNT", "Show the newest so many, whatever their state").short('n');
static LATEST: Flag = Flag::switch("latest", "Show the newest container, whatever its state").short('l');
static NO_TRUNC: Flag = Flag::switch("no-trunc", "Show IDs and commands in full");
static QUIET: Flag = Flag::switch("quiet", "Print IDs only").short('q');
static SIZE: Flag = Flag::switch("size", "Show how much each container has written").short('s');

pub static PS: Command = Command {
    names: &["ps", "container ls", "container list", "container ps"],
    summary: "List containers",
    usage: "[OPTIONS]",
    about: "",
    flags: &[&ALL, &FILTER, &FORMAT, &LAST, &LATEST, &NO_TRUNC, &QUIET, &SIZE],
    args: Args::NONE,
    example: "dewar ps -a --filter status=exited",
    usage_code: 1,
    plan: |matches| {
        let request = request(matches)?;
        Action::call(move |context| {
            let format = Format::choose(request.format, context.config().text("psFormat"))?;
            let mut query = request.query;
            let columns = columns(query.size);
            // A template that asks for the size needs it measured.
            query.size = query.size || format.mentions(".Size") || format.mentions("json .");
            let containers = context.call(&CONTAINER_LIST, &[], &query, &())?;
            let rows: Vec<Row> = containers.iter().map(|one| row(one, request.no_trunc)).collect();
            print(&format.print(&rows, &columns, TITLES)?).map(|()| 0)
        })
    },
};

#[derive(Debug)]
struct Request {
    query: ListQuery,
    format: Option<Format>,
    no_trunc: bool,
}

fn request(matches: &Matches) -> Result<Request, Error> {
    let format = match matches.is(&QUIET) {
        true => Some("{{.ID}}"),
        false => matches.get(&FORMAT),
    };
    let last = matches.integer(&LAST)?;
    let limit = if matches.is(&LATEST) { Some(1) } else { last.filter(|count| *count > 0) };
    let query = ListQuery {
        all: matches.is(&ALL),
        limit,
        size: matches.is(&SIZE),
        filters: filters(&matches.read_all(&FILTER, |text| Ok(text.to_owned()))?, &FILTER)?,
    };
    Ok(Request { query, format: Format::given(format)?, no_trunc: matches.is(&NO_TRUNC) })
}

fn columns(size: bool) -> Vec<Column> {
    let mut columns = vec![
        ("CONTAINER ID", "ID"),
        ("IMAGE", "Image"),
        ("COMMAND", "Command"),
        ("CREATED", "RunningFor"),
        ("STATUS", "Status"),
        ("PORTS", "Ports"),
        ("NAMES", "Names"),
    ];
    if size {
        columns.push(("SIZE", "Size"));
    }
    columns
}

const TITLES: &[Column] = &[
    ("CREATED AT", "CreatedAt"),
    ("LABELS", "Labels"),
    ("LOCAL VOLUMES", "LocalVolumes"),
    ("MOUNTS", "Mounts"),
    ("NETWORKS", "Networks"),
    ("SIZE", "Size"),
    ("STATE", "State"),
];

/// The fields of one container, as Docker's templates name them.
pub fn row(container: &ContainerSummary, no_trunc: bool) -> Row {
    let cut = |text: &str, width| if no_trunc { text.to_owned() } else { format::ellipsis(text, width) };
    let id = if no_trunc { container.id.clone() } else { format::short_id(&container.id) };
    // Names with a second slash are links of other containers.
    let names = container.names.iter().map(|name| name.trim_start_matches('/'));
    let names: Vec<&str> = names.filter(|name| !name.contains('/')).collect();
    let image = match container.image.is_empty() {
        true => "<no image>".to_owned(),
        false if no_trunc => container.image.clone(),
        // An image known by its ID only is shown like an ID.
        false if container.image == container.image_id => format::short_id(&container.image),
        false => container.image.clone(),
    };
    let mounts = container.mounts.iter().map(|mount| match mount.name.is_empty() {
        true => cut(&mount.source, 15),
        false => cut(&mount.name, 15),
    });
    let labels: Vec<String> = container.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut size = format::size_decimal(container.size_rw.unwrap_or_default());
    if let Some(whole) = container.size_root_fs.filter(|whole| *whole > 0) {
        size += &format!(" (virtual {})", format::size_decimal(whole));
    }
    let local_volumes = container.mounts.iter().filter(|mount| mount.driver == "local").count();
    let networks: Vec<&str> = container.network_settings.networks.keys().map(String::as_str).collect();
    let fields = [
        ("ID", id),
        ("Names", names.join(",")),
        ("Image", image),
        ("Command", format!("\"{}\"", cut(&container.command, 20))),
        ("CreatedAt", format::moment(container.created)),
        ("RunningFor", format::ago(container.created)),
        ("State", container.state.clone()),
        ("Status", container.status.clone()),
        ("Ports", ports(&container.ports)),
        ("Size", size),
        ("Labels", labels.join(",")),
        ("Mounts", mounts.collect::<Vec<_>>().join(",")),
        ("LocalVolumes", local_volumes.to_string()),
        ("Networks", networks.join(",")),
    ];
    let mut row: Row = fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    // `{{.Label "key"}}`; a leading blank keeps it out of what is printed.
    row.insert(" Label".to_owned(), serde_json::json!(container.labels));
    row.insert(" type".to_owned(), "*formatter.ContainerContext".into());
    row.insert("Platform".to_owned(), serde_json::Value::Null);
    row
}

/// `0.0.0.0:80-81->80-81/tcp, 53/udp`: published ports with neighbours joined, then exposed ones.
fn ports(ports: &[Port]) -> String {
    let mut sorted: Vec<&Port> = ports.iter().collect();
    sorted.sort_by_key(|port| {
        (port.ip.clone(), port.public_port.is_none(), port.kind.clone(), port.private_port)
    });
    let mut spans: Vec<(&Port, u16)> = Vec::new();
    for port in sorted {
        if let Some((first, count)) = spans.last_mut() {
            let follows = first.ip == port.ip
                && first.kind == port.kind
                && first.private_port.checked_add(*count) == Some(port.private_port)
                && first.public_port.and_then(|public| public.checked_add(*count)) == port.public_port;
            if follows {
                *count += 1;
                continue;
            }
        }
        spans.push((port, 1));
    }
    let range = |first: u16, count: u16| match count {
        1 => first.to_string(),
        _ => format!("{first}-{}", first.saturating_add(count - 1)),
    };
    let shown: Vec<String> = spans
        .into_iter()
        .map(|(first, count)| {
            let inside = format!("{}/{}", range(first.private_port, count), first.kind);
            match first.public_port {
                Some(public) if first.ip.contains(':') => {
                    format!("[{}]:{}->{inside}", first.ip, range(public, count))
                }
                Some(public) => format!("{}:{}->{inside}", first.ip, range(public, count)),
                None => inside,
            }
        })
        .collect();
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;

    #[test]
    fn the_request_says_what_to_list() {
        let made = request(&matches_of("ps -a -f status=exited -f label=a=b --size")).unwrap();
        assert!(made.query.all && made.query.size);
        assert_eq!(made.query.filters.get("status"), ["exited"]);
        assert_eq!(made.query.filters.get("label"), ["a=b"]);
        assert_eq!(request(&matches_of("ps -l")).unwrap().query.limit, Some(1));
        assert_eq!(request(&matches_of("ps -n 3")).unwrap().query.limit, Some(3));
        assert_eq!(request(&matches_of("ps -n -1")).unwrap().query.limit, None);
        let made = request(&matches_of("ps --format {{.Size}}")).unwrap();
        assert!(made.format.unwrap().mentions(".Size"));
        assert!(request(&matches_of("ps -f nonsense")).is_err());
        assert!(request(&matches_of("ps --format {{.ID")).is_err());
    }

    #[test]
    fn the_table_is_dockers_to_the_blank() {
        let container = ContainerSummary {
            id: "0123456789abcdef".into(),
            names: vec!["/web".into(), "/other/link".into()],
            image: "alpine".into(),
            command: "sh -c 'while true; do :; done'".into(),
            created: jiff::Timestamp::now().as_second() - 120,
            state: "running".into(),
            status: "Up 2 minutes".into(),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            ..ContainerSummary::default()
        };
        let rows = [row(&container, false)];
        let table = Format::parse("").unwrap().print(&rows, &columns(false), TITLES).unwrap();
        assert_eq!(
            table,
            "CONTAINER ID   IMAGE     COMMAND                  CREATED         STATUS         PORTS     NAMES\n\
             0123456789ab   alpine    \"sh -c 'while true; …\"   2 minutes ago   Up 2 minutes             web\n"
        );
        let format = |text: &str| Format::parse(text).unwrap().print(&rows, &columns(false), TITLES).unwrap();
        assert_eq!(format("{{.Names}} {{.Label \"k\"}} {{.State}}"), "web v running\n");
        assert_eq!(format("table {{.Names}}\t{{.State}}"), "NAMES     STATE\nweb       running\n");
        assert!(!format("json").contains(" Label"));
        assert!(row(&container, true)["Command"].as_str().unwrap().ends_with("done'\""));
    }

    #[test]
    fn neighbouring_ports_are_joined() {
        let port = |ip: &str, private_port, public_port, kind: &str| Port {
            ip: ip.into(),
            private_port,
            public_port,
            kind: kind.into(),
        };
        let list = [
            port("0.0.0.0", 81, Some(8081), "tcp"),
            port("0.0.0.0", 80, Some(8080), "tcp"),
            port("", 53, None, "udp"),
            port("::", 80, Some(8080), "tcp"),
        ];
        assert_eq!(ports(&list), "53/udp, 0.0.0.0:8080-8081->80-81/tcp, [::]:8080->80/tcp");
        assert_eq!(ports(&[]), "");
    }
}
