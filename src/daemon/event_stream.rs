//! What a client of `/events` gets: which events, from when to when, past and future.
//!
//! ```text
//!   since / until given ──► the past between them ──► until is over? ──yes──► end
//!   neither ──────────────────────────────────────────────┐  no
//!                                                         ▼
//!                                          the future, to `until` or for ever
//! ```
//!
//! Source: Docker's event filter. A container, network, volume and so on is meant by the beginning of its
//! id or name, an image by its name with or without the tag, an action exactly, except that `exec_create`,
//! `exec_start` and `health_status` stand for all that begin so.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use super::containers::logs::timestamp;
use super::error::{Error, Result};
use super::events::{Bus, Subscription};
use super::images::Reference;
use crate::http::api::Filters;
use crate::http::api::event::{Event, EventsQuery};

/// Kinds of objects that can be filtered by name.
const OBJECTS: [&str; 9] =
    ["config", "container", "daemon", "network", "node", "plugin", "secret", "service", "volume"];
const OTHERS: [&str; 5] = ["event", "image", "label", "scope", "type"];
/// Actions that go on after a colon.
const FAMILIES: [&str; 3] = ["exec_create", "exec_start", "health_status"];

/// What is asked for, checked.
#[derive(Debug)]
pub struct Request {
    filters: Filters,
    /// Nanoseconds since the epoch, as is `until`.
    since: Option<i64>,
    until: Option<i64>,
}

/// Checks a query before the answer begins.
///
/// # Errors
/// InvalidParameter for an unknown filter, a time that does not parse, or an end before the beginning.
pub fn request(query: EventsQuery) -> Result<Request> {
    let EventsQuery { since: since_text, until: until_text, filters } = query;
    if let Some(unknown) =
        filters.0.keys().find(|key| !OBJECTS.contains(&key.as_str()) && !OTHERS.contains(&key.as_str()))
    {
        return Err(Error::invalid(format!("invalid filter '{unknown}'")));
    }
    let nanos = |time: jiff::Timestamp| i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX);
    let since = timestamp("since", &since_text)?.map(nanos);
    let until = timestamp("until", &until_text)?.map(nanos);
    if let (Some(since), Some(until)) = (since, until)
        && until < since
    {
        return Err(Error::invalid(format!(
            "`since` time ({since_text}) cannot be after `until` time ({until_text})"
        )));
    }
    Ok(Request { filters, since, until })
}

/// Blocks until the descriptor is readable or the time is up; false when the client is gone.
pub type Wait<'a> = dyn Fn(BorrowedFd<'_>, Option<Duration>) -> bool + 'a;

/// An answer about to begin.
pub struct Stream {
    request: Request,
    past: Vec<Arc<Event>>,
    future: Arc<Subscription>,
}

impl Request {
    /// Subscribes: what happens from now on will not be missed.
    ///
    /// # Errors
    /// System, when there are no descriptors left.
    pub fn open(self, bus: &Bus) -> Result<Stream> {
        let (past, future) = bus.subscribe()?;
        Ok(Stream { request: self, past, future })
    }

    fn follow(
        &self,
        past: Vec<Arc<Event>>,
        future: &Subscription,
        wait: &Wait,
        sink: &mut dyn FnMut(&Event) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.since.is_some() || self.until.is_some() {
            let since = self.since.unwrap_or(i64::MIN);
            past.iter()
                .filter(|event| event.time_nano >= since && self.is_wanted(event))
                .try_for_each(|event| sink(event))?;
        }
        drop(past);
        loop {
            while let Some(event) = future.take() {
                if self.is_wanted(&event) {
                    sink(&event)?;
                }
            }
            let mut left = None;
            if let Some(until) = self.until {
                let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
                match u64::try_from(until.saturating_sub(now)) {
                    Ok(nanos) if nanos > 0 => left = Some(Duration::from_nanos(nanos)),
                    _ => return Ok(()),
                }
            }
            if !wait(future.bell.as_fd(), left) {
                return Ok(());
            }
        }
    }

    fn is_wanted(&self, event: &Event) -> bool {
        self.until.is_none_or(|until| event.time_nano <= until) && matches(&self.filters, event)
    }
}

impl Stream {
    /// Sends what is asked for to `sink`; blocks until the asked end, until `wait` says that the client is
    /// gone, or until the sink fails.
    pub fn follow(self, wait: &Wait, sink: &mut dyn FnMut(&Event) -> io::Result<()>) -> io::Result<()> {
        self.request.follow(self.past, &self.future, wait, sink)
    }
}

fn matches(filters: &Filters, event: &Event) -> bool {
    let any = |key: &str, test: &dyn Fn(&str) -> bool| {
        let values = filters.get(key);
        values.is_empty() || values.iter().any(|value| test(value))
    };
    let attribute = |key: &str| event.actor.attributes.get(key).map_or("", String::as_str);
    let is_family = filters.get("event").iter().any(|value| FAMILIES.contains(&value.as_str()));
    any("event", &|value| event.action == value || (is_family && event.action.starts_with(value)))
        && any("type", &|value| event.kind == value)
        && any("scope", &|value| event.scope == value)
        && OBJECTS.iter().all(|kind| {
            any(kind, &|value| {
                event.kind == *kind
                    && (event.actor.id.starts_with(value) || attribute("name").starts_with(value))
            })
        })
        && any("image", &|value| {
            let name = attribute(if event.kind == "image" { "name" } else { "image" });
            [event.actor.id.as_str(), name].iter().any(|text| *text == value || is_without_tag(text, value))
        })
        && filters.get("label").iter().all(|label| match label.split_once('=') {
            Some((key, value)) => event.actor.attributes.get(key).is_some_and(|actual| actual == value),
            None => event.actor.attributes.contains_key(label),
        })
}

/// Whether `wanted` is the name `image` without tag or digest.
fn is_without_tag(image: &str, wanted: &str) -> bool {
    // Most names are not even similar: they need no parser.
    image.contains(wanted)
        && Reference::parse(image).is_ok_and(|reference| reference.familiar_name() == wanted)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::http::api::event::Actor;

    fn event(kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) -> Event {
        let attributes =
            attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Event {
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor { id: id.to_owned(), attributes },
            scope: "local".to_owned(),
            ..Event::default()
        }
    }

    fn filters(pairs: &[(&str, &str)]) -> Filters {
        let mut filters = Filters::default();
        for (key, value) in pairs {
            filters.add(key, value);
        }
        filters
    }

    #[test]
    fn every_filter_lets_through_what_dockers_does() {
        let start = event(
            "container",
            "start",
            "abc123",
            &[("name", "web1"), ("image", "box:v1"), ("tier", "front")],
        );
        let exec =
            event("container", "exec_create: sh -c x", "abc123", &[("name", "web1"), ("image", "box")]);
        let tag = event("image", "tag", "sha256:12", &[("name", "reg:5000/box:v1")]);
        let mount = event("volume", "mount", "data", &[("driver", "local")]);
        for (event, pairs, wanted) in [
            (&start, &[("container", "web1")] as &[(&str, &str)], true),
            (&start, &[("container", "web")], true),
            (&start, &[("container", "abc")], true),
            (&start, &[("container", "c123")], false),
            (&start, &[("container", "x"), ("container", "web1")], true),
            (&tag, &[("container", "sha256")], false),
            (&start, &[("event", "start")], true),
            (&start, &[("event", "star")], false),
            (&start, &[("event", "die"), ("event", "start")], true),
            (&exec, &[("event", "exec_create")], true),
            (&exec, &[("event", "exec_create: sh -c x")], true),
            (&exec, &[("event", "exec_start")], false),
            (&exec, &[("event", "exec_start"), ("event", "exec")], true),
            (&start, &[("image", "box:v1")], true),
            (&start, &[("image", "box")], true),
            (&start, &[("image", "bo")], false),
            (&start, &[("image", "box:v2")], false),
            (&tag, &[("image", "reg:5000/box")], true),
            (&tag, &[("image", "sha256:12")], true),
            (&tag, &[("image", "box")], false),
            (&start, &[("label", "tier")], true),
            (&start, &[("label", "tier=front")], true),
            (&start, &[("label", "tier=back")], false),
            (&start, &[("label", "tier"), ("label", "none")], false),
            (&start, &[("type", "container"), ("event", "start"), ("container", "web1")], true),
            (&start, &[("type", "image")], false),
            (&start, &[("type", "image"), ("type", "container")], true),
            (&mount, &[("volume", "da")], true),
            (&start, &[("volume", "web1")], false),
            (&start, &[("scope", "local")], true),
            (&start, &[("scope", "swarm")], false),
            (&start, &[("daemon", "x")], false),
            (&start, &[("config", "x")], false),
        ] {
            assert_eq!(
                matches(&filters(pairs), event),
                wanted,
                "{pairs:?} on {} {}",
                event.kind,
                event.action
            );
        }
    }

    #[test]
    fn nonsense_is_refused_before_the_answer_begins() {
        let refused = |since: &str, until: &str, pairs: &[(&str, &str)]| {
            let query =
                EventsQuery { since: since.to_owned(), until: until.to_owned(), filters: filters(pairs) };
            request(query).unwrap_err().message
        };
        assert_eq!(refused("", "", &[("nope", "x")]), "invalid filter 'nope'");
        assert_eq!(refused("9", "5", &[]), "`since` time (9) cannot be after `until` time (5)");
        assert!(refused("yesterday", "", &[]).contains("since"));
    }

    /// Both bounds select from the past alone; a client that only names an end gets the past up to it.
    #[test]
    fn the_past_ends_at_until() {
        let bus = Bus::default();
        for number in 0..3 {
            bus.publish("image", "tag", &number.to_string(), BTreeMap::new());
        }
        let (past, _) = bus.subscribe().unwrap();
        let times: Vec<i64> = past.iter().map(|event| event.time_nano).collect();
        let seen = |since: Option<i64>, until: i64| {
            let mut ids = String::new();
            let request = Request { filters: Filters::default(), since, until: Some(until) };
            let mut sink = |event: &Event| {
                ids.push_str(&event.actor.id);
                Ok(())
            };
            request.open(&bus).unwrap().follow(&|_, _| false, &mut sink).unwrap();
            ids
        };
        assert_eq!(seen(None, times[1]), "01");
        assert_eq!(seen(Some(times[1]), times[2]), "12");
        assert_eq!(seen(Some(times[2] + 1), times[2] + 2), "");
        assert_eq!(bus.subscribers(), 0);
    }
}
