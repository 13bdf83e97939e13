//! `ps`: which containers, in Docker's words.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::container::{Container, Record};
use super::health::Status;
use super::inspect::size_rw;
use super::state::State;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::pattern::Pattern;
use crate::http::api::Filters;
use crate::http::api::container::{
    ContainerSummary, ListQuery, Port, SummaryHostConfig, SummaryNetworkSettings,
};

/// The filters `ps` knows.
const FILTERS: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

/// The containers `query` asks for, newest first.
///
/// # Errors
/// InvalidParameter for a filter or a value Docker does not know; NotFound for the container of `before` and
/// `since`.
pub fn list(engine: &Arc<Engine>, query: &ListQuery) -> Result<Vec<ContainerSummary>> {
    let wanted = Wanted::read(engine, &query.filters)?;
    let limit = query.limit.filter(|limit| *limit > 0);
    let is_everything = query.all || limit.is_some() || !query.filters.get("status").is_empty();
    let mut found: Vec<(Arc<Container>, Record)> = engine
        .containers
        .all()
        .into_iter()
        .map(|container| {
            let record = container.record();
            (container, record)
        })
        .filter(|(_, record)| is_everything || record.state.is_alive() || record.state == State::Restarting)
        .filter(|(_, record)| wanted.has(engine, record))
        .filter(|(container, _)| is_as_well_as(container.health(), query.filters.get("health")))
        .collect();
    found.sort_by(|(_, left), (_, right)| right.created.cmp(&left.created));
    if let Some(limit) = limit {
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    let mut references = BTreeMap::new();
    let summaries = found.into_iter().map(|(container, record)| {
        let image = shown_image(engine, &record, &mut references);
        ContainerSummary { image, ..summary(engine, &container, record, query.size) }
    });
    Ok(summaries.collect())
}

/// `none` is a container without a check.
fn is_as_well_as(health: Option<Status>, wanted: &[String]) -> bool {
    wanted.is_empty() || wanted.iter().any(|value| health.map_or("none", Status::name) == value)
}

/// The filters of one request, checked and looked up once.
struct Wanted<'a> {
    filters: &'a Filters,
    ids: Vec<Pattern>,
    names: Vec<Pattern>,
    exited: Vec<i32>,
    /// Created before this moment, and after that one.
    before: Option<String>,
    since: Option<String>,
    /// The ids of the images asked for.
    ancestors: Vec<String>,
    publish: Vec<Ports>,
    expose: Vec<Ports>,
    is_task: Option<bool>,
}

impl<'a> Wanted<'a> {
    fn read(engine: &Engine, filters: &'a Filters) -> Result<Wanted<'a>> {
        if let Some(unknown) = filters.unknown(&FILTERS) {
            return Err(Error::invalid(format!("invalid filter '{unknown}'")));
        }
        let invalid = |key: &str, value: &str| Error::invalid(format!("invalid filter '{key}={value}'"));
        let known = |key: &str, known: &[&str]| match filters
            .get(key)
            .iter()
            .find(|one| !known.contains(&one.as_str()))
        {
            Some(other) => Err(invalid(key, other)),
            None => Ok(()),
        };
        known("status", &State::ALL.map(State::name))?;
        known("health", &["starting", "healthy", "unhealthy", "none"])?;
        let patterns = |key: &str| filters.get(key).iter().map(|text| Pattern::new(text)).collect();
        let ports = |key: &str| -> Result<Vec<Ports>> {
            filters.get(key).iter().map(|text| Ports::parse(key, text)).collect()
        };
        let created_of = |key: &str| -> Result<Option<String>> {
            let names = filters.get(key).iter();
            let created = names.map(|name| Ok(engine.containers.get(name)?.record().created));
            Ok(created.collect::<Result<Vec<_>>>()?.pop())
        };
        let exited = filters.get("exited").iter();
        let images = filters.get("ancestor").iter().filter_map(|image| engine.images.resolve(image).ok());
        Ok(Wanted {
            filters,
            ids: patterns("id"),
            names: patterns("name"),
            exited: exited
                .map(|code| code.parse().map_err(|_| invalid("exited", code)))
                .collect::<Result<_>>()?,
            before: created_of("before")?,
            since: created_of("since")?,
            ancestors: images.map(|image| image.id.to_string()).collect(),
            publish: ports("publish")?,
            expose: ports("expose")?,
            is_task: filters.boolean("is-task").map_err(Error::invalid)?,
        })
    }

    fn has(&self, engine: &Engine, record: &Record) -> bool {
        let any = |key: &str, test: &dyn Fn(&str) -> bool| {
            let values = self.filters.get(key);
            values.is_empty() || values.iter().any(|value| test(value))
        };
        let fits = |patterns: &[Pattern], texts: &[&str]| {
            patterns.is_empty() || patterns.iter().any(|one| texts.iter().any(|text| one.matches(text)))
        };
        let has_port = |wanted: &[Ports], mut keys: &mut dyn Iterator<Item = &String>| {
            wanted.is_empty() || (&mut keys).any(|key| wanted.iter().any(|ports| ports.has(key)))
        };
        let host = &record.host_config;
        fits(&self.ids, &[&record.id])
            && fits(&self.names, &[&record.name, &format!("/{}", record.name)])
            && any("status", &|value| record.state.name() == value)
            && (self.exited.is_empty()
                || (!record.state.is_alive()
                    && !record.started_at.is_empty()
                    && self.exited.contains(&record.exit_code)))
            && self.before.as_ref().is_none_or(|before| record.created < *before)
            && self.since.as_ref().is_none_or(|since| record.created > *since)
            && any("ancestor", &|_| self.descends(engine, record))
            && any("network", &|value| {
                record.networks.iter().any(|(name, place)| {
                    let id =
                        engine.networks.find(name).map_or(place.network_id.clone(), |one| one.id.clone());
                    name == value || id.starts_with(value)
                })
            })
            && self.is_task != Some(true)
            && any("volume", &|value| {
                record.mounts.iter().any(|mount| {
                    let source = if mount.name.is_empty() { &mount.source } else { &mount.name };
                    mount.destination == value || source == value
                })
            })
            && has_port(&self.publish, &mut host.port_bindings.keys())
            && has_port(
                &self.expose,
                &mut record.config.exposed_ports.keys().chain(host.port_bindings.keys()),
            )
            && self.filters.get("label").iter().all(|label| match label.split_once('=') {
                Some((key, value)) => record.config.labels.get(key).is_some_and(|actual| actual == value),
                None => record.config.labels.contains_key(label),
            })
    }

    /// Whether the container's image is one of those asked for, or made from one.
    fn descends(&self, engine: &Engine, record: &Record) -> bool {
        let mut image = engine.images.resolve(&record.image_id).ok();
        while let Some(one) = image {
            if self.ancestors.contains(&one.id.to_string()) {
                return true;
            }
            image = one.parent.and_then(|parent| engine.images.get(&parent).ok());
        }
        // An image that was removed by force is still known by its id.
        self.ancestors.contains(&record.image_id)
    }
}

/// `80`, `80-90`, `53/udp`: what `publish` and `expose` ask for.
struct Ports {
    range: RangeInclusive<u16>,
    protocol: String,
}

impl Ports {
    fn parse(key: &str, text: &str) -> Result<Ports> {
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last => {
                Ok(Ports { range: first..=last, protocol: protocol.to_ascii_lowercase() })
            }
            _ => {
                Err(Error::invalid(format!("invalid filter '{key}={text}': not a port or a range of ports")))
            }
        }
    }

    /// `port` as in `80/tcp`.
    fn has(&self, port: &str) -> bool {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        protocol == self.protocol && number.parse().is_ok_and(|number| self.range.contains(&number))
    }
}

/// The reference the container was made from, or the image's id once that means another image.
fn shown_image(engine: &Engine, record: &Record, references: &mut BTreeMap<String, String>) -> String {
    let reference = &record.config.image;
    if *reference == record.image_id {
        return record.image_id.clone();
    }
    let now = references.entry(reference.clone()).or_insert_with(|| {
        engine.images.resolve(reference).map(|image| image.id.to_string()).unwrap_or_default()
    });
    if *now == record.image_id { reference.clone() } else { record.image_id.clone() }
}

/// The command on one line. Compat: Docker quotes arguments with blanks in them, and not the program.
fn command(record: &Record) -> String {
    let mut line = record.path.clone();
    for word in &record.args {
        line += &if word.contains(' ') { format!(" '{word}'") } else { format!(" {word}") };
    }
    line
}

/// One line per published port, and one for each that is exposed only.
fn ports(engine: &Engine, record: &Record) -> Vec<Port> {
    let mut list = Vec::new();
    for (port, bindings) in super::network::shown_ports(engine, record) {
        let (number, kind) = port.split_once('/').unwrap_or((&port, "tcp"));
        let Ok(private_port) = number.parse() else { continue };
        let exposed = Port { private_port, kind: kind.to_owned(), ..Port::default() };
        match bindings {
            None => list.push(exposed),
            Some(bindings) => list.extend(bindings.into_iter().map(|binding| Port {
                ip: binding.host_ip,
                public_port: binding.host_port.parse().ok(),
                ..exposed.clone()
            })),
        }
    }
    list
}

/// Without the image's name.
fn summary(engine: &Engine, container: &Container, record: Record, with_size: bool) -> ContainerSummary {
    let ports = ports(engine, &record);
    let size = with_size.then(|| size_rw(container, &record));
    ContainerSummary {
        status: status(&record, container.health(), jiff::Timestamp::now()),
        names: vec![format!("/{}", record.name)],
        created: record.created.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second),
        command: command(&record),
        ports,
        size_root_fs: size.map(|size| size.saturating_add(image_size(engine, &record))),
        size_rw: size,
        state: record.state.name().to_owned(),
        network_settings: SummaryNetworkSettings { networks: super::network::shown(engine, &record) },
        host_config: SummaryHostConfig {
            network_mode: record.host_config.network_mode,
            annotations: record.host_config.annotations,
        },
        labels: record.config.labels,
        mounts: record.mounts.iter().map(super::mounts::Mount::shown).collect(),
        id: record.id,
        image: String::new(),
        image_id: record.image_id,
    }
}

/// Bytes in the layers below the container's own.
pub fn image_size(engine: &Engine, record: &Record) -> i64 {
    engine.images.resolve(&record.image_id).map_or(0, |image| image.size.cast_signed())
}

/// `Up 5 minutes (Paused)` and its like.
fn status(record: &Record, health: Option<Status>, now: jiff::Timestamp) -> String {
    let since = |time: &str| {
        time.parse::<jiff::Timestamp>().map_or_else(|_| "unknown".to_owned(), |time| ago(now, time))
    };
    match record.state {
        State::Created => "Created".to_owned(),
        State::Running => {
            let health = health.map(|health| format!(" ({})", health.label())).unwrap_or_default();
            format!("Up {}{health}", since(&record.started_at))
        }
        State::Paused => format!("Up {} (Paused)", since(&record.started_at)),
        State::Restarting => format!("Restarting ({}) {} ago", record.exit_code, since(&record.finished_at)),
        State::Removing => "Removal In Progress".to_owned(),
        State::Dead => "Dead".to_owned(),
        State::Exited => format!("Exited ({}) {} ago", record.exit_code, since(&record.finished_at)),
    }
}

/// A duration in Docker's words. Source: go-units `HumanDuration`.
fn ago(now: jiff::Timestamp, then: jiff::Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_quoted_as_docker_quotes_it() {
        let record = Record {
            path: "/my sh".to_owned(),
            args: ["-c", "echo a", "b"].map(str::to_owned).to_vec(),
            ..Record::default()
        };
        assert_eq!(command(&record), "/my sh -c 'echo a' b");
    }

    #[test]
    fn ports_are_one_or_a_range_of_one_protocol() {
        let has = |text: &str, port: &str| Ports::parse("expose", text).unwrap().has(port);
        assert!(has("80", "80/tcp") && has("79-81/udp", "80/udp") && has("80/TCP", "80/tcp"));
        assert!(!has("80", "80/udp") && !has("81-90", "80/tcp"));
        for bad in ["", "x", "80-", "90-80", "70000", "80:80", "-1"] {
            assert!(Ports::parse("expose", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_dockers_words() {
        let now = jiff::Timestamp::from_second(1_000_000_000).unwrap();
        let words = |seconds: i64| ago(now, jiff::Timestamp::from_second(1_000_000_000 - seconds).unwrap());
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3600, "About an hour"),
            (86_400, "24 hours"),
            (86_400 * 3, "3 days"),
            (86_400 * 20, "2 weeks"),
            (86_400 * 90, "3 months"),
            (86_400 * 800, "2 years"),
            (-5, "Less than a second"),
        ] {
            assert_eq!(words(seconds), text, "{seconds}");
        }
    }
}
