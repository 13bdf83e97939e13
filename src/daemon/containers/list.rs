//! `ps`: which containers, in Docker's words.

use std::sync::Arc;

use super::container::{Container, Record};
use super::inspect::{networks, size_rw};
use super::state::State;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::http::api::container::{
    ContainerSummary, ListQuery, Port, SummaryHostConfig, SummaryNetworkSettings,
};

/// The filters `ps` knows.
const FILTERS: [&str; 14] = [
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
];

/// The containers `query` asks for, newest first.
pub fn list(engine: &Arc<Engine>, query: &ListQuery) -> Result<Vec<ContainerSummary>> {
    let filters = &query.filters;
    if let Some(unknown) = filters.unknown(&FILTERS).filter(|key| *key != "volume") {
        return Err(Error::invalid(format!("invalid filter '{unknown}'")));
    }
    for status in filters.get("status") {
        if !State::ALL.iter().any(|state| state.name() == status) {
            return Err(Error::invalid(format!("invalid filter 'status={status}'")));
        }
    }
    for exited in filters.get("exited") {
        exited.parse::<i32>().map_err(|_| Error::invalid(format!("invalid filter 'exited={exited}'")))?;
    }
    let created_of = |key: &str| -> Result<Option<String>> {
        filters.get(key).first().map(|name| Ok(engine.containers.get(name)?.record().created)).transpose()
    };
    let (before, since) = (created_of("before")?, created_of("since")?);
    let ancestors: Vec<String> = filters
        .get("ancestor")
        .iter()
        .filter_map(|image| engine.images.resolve(image).ok())
        .map(|image| image.id.to_string())
        .collect();
    let limit = query.limit.filter(|limit| *limit > 0);
    let is_everything = query.all || limit.is_some() || !filters.get("status").is_empty();

    let mut found: Vec<(Arc<Container>, Record)> = engine
        .containers
        .all()
        .into_iter()
        .map(|container| {
            let record = container.record();
            (container, record)
        })
        .filter(|(_, record)| is_everything || record.state.is_alive() || record.state == State::Restarting)
        .filter(|(_, record)| before.as_ref().is_none_or(|before| record.created < *before))
        .filter(|(_, record)| since.as_ref().is_none_or(|since| record.created > *since))
        .filter(|(_, record)| matches(record, query, &ancestors))
        .collect();
    found.sort_by(|(_, left), (_, right)| right.created.cmp(&left.created));
    if let Some(limit) = limit {
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    Ok(found.into_iter().map(|(container, record)| summary(&container, record, query.size)).collect())
}

fn matches(record: &Record, query: &ListQuery, ancestors: &[String]) -> bool {
    let filters = &query.filters;
    let any = |key: &str, test: &dyn Fn(&str) -> bool| {
        let values = filters.get(key);
        values.is_empty() || values.iter().any(|value| test(value))
    };
    any("id", &|value| record.id.starts_with(value))
        && any("name", &|value| {
            let value = value.trim_start_matches('^').trim_end_matches('$');
            let value = value.strip_prefix('/').unwrap_or(value);
            record.name.contains(value)
        })
        && any("status", &|value| record.state.name() == value)
        && any("exited", &|value| {
            !record.state.is_alive() && !record.started_at.is_empty() && value.parse() == Ok(record.exit_code)
        })
        && any("ancestor", &|value| value == record.config.image || ancestors.contains(&record.image_id))
        && any("network", &|value| network_name(record) == value)
        && any("health", &|value| value == "none")
        && any("is-task", &|value| matches!(value, "0" | "false" | "False"))
        && any("isolation", &|value| matches!(value, "" | "default"))
        && any("volume", &|value| {
            record.mounts.iter().any(|mount| mount.destination == value || mount.source == value)
        })
        && any("expose", &|value| {
            let wanted = if value.contains('/') { value.to_owned() } else { format!("{value}/tcp") };
            record.config.exposed_ports.contains_key(&wanted)
        })
        && any("publish", &|_| false)
        && filters.get("label").iter().all(|label| match label.split_once('=') {
            Some((key, value)) => record.config.labels.get(key).is_some_and(|actual| actual == value),
            None => record.config.labels.contains_key(label),
        })
}

/// The name under which Docker shows the network mode.
pub fn network_name(record: &Record) -> &str {
    record.host_config.network_mode.split(':').next().unwrap_or_default()
}

fn summary(container: &Container, record: Record, with_size: bool) -> ContainerSummary {
    let command = std::iter::once(&record.path)
        .chain(&record.args)
        .map(|word| if word.contains(' ') { format!("'{word}'") } else { word.clone() })
        .collect::<Vec<_>>()
        .join(" ");
    let ports = record
        .config
        .exposed_ports
        .keys()
        .filter_map(|port| {
            let (number, kind) = port.split_once('/').unwrap_or((port, "tcp"));
            Some(Port { private_port: number.parse().ok()?, kind: kind.to_owned(), ..Port::default() })
        })
        .collect();
    ContainerSummary {
        status: status(&record, jiff::Timestamp::now()),
        names: vec![format!("/{}", record.name)],
        created: record.created.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second),
        command,
        ports,
        size_rw: with_size.then(|| size_rw(container, &record)),
        size_root_fs: with_size.then(|| size_rw(container, &record)),
        state: record.state.name().to_owned(),
        host_config: SummaryHostConfig {
            network_mode: record.host_config.network_mode.clone(),
            annotations: record.host_config.annotations.clone(),
        },
        network_settings: SummaryNetworkSettings { networks: networks(&record) },
        labels: record.config.labels,
        mounts: record.mounts,
        id: record.id,
        image: record.config.image,
        image_id: record.image_id,
    }
}

/// `Up 5 minutes (Paused)` and its like.
fn status(record: &Record, now: jiff::Timestamp) -> String {
    let since = |time: &str| {
        time.parse::<jiff::Timestamp>().map_or_else(|_| "unknown".to_owned(), |time| ago(now, time))
    };
    match record.state {
        State::Created => "Created".to_owned(),
        State::Running => format!("Up {}", since(&record.started_at)),
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
