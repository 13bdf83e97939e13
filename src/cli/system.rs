//! `dewar ping` and `events`, and what the commands that show the engine share; `version` and `info` have
//! files of their own.

pub mod dial;
pub mod info;
pub mod version;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::http::api::event::{Event, EventsQuery, SYSTEM_EVENTS};
use crate::http::api::system::{SYSTEM_PING_HEAD, SYSTEM_VERSION};

use super::command::{Action, Args, Command, Flag, Matches};
use super::container::values::duration_ns;
use super::context::{Context, filters, print};
use super::error::Error;
use super::format::serialize::value_of;
use super::format::template::Template;
use super::format::value::Value;
use super::time;

/// The longest pause between two attempts of `ping --wait`.
const MAX_PAUSE: Duration = Duration::from_millis(100);

static EVENT_FORMAT: Flag = Flag::value("format", "FORMAT", "Print as json or by a Go template");
static FILTER: Flag =
    Flag::many("filter", "KEY=VALUE", "Show only what matches, such as event=die").short('f');
static SINCE: Flag =
    Flag::value("since", "TIME", "Replay from a time (2026-01-02T15:04:05Z) or so long ago (10m)");
static UNTIL: Flag = Flag::value("until", "TIME", "End at a time, written as for --since");
static WAIT: Flag =
    Flag::value("wait", "DURATION", "Go on asking for so long, in seconds or written as 500ms or 1m30s");

pub static PING: Command = Command {
    names: &["ping", "system ping"],
    summary: "Ask the daemon whether it is there",
    usage: "[OPTIONS]",
    about: "",
    flags: &[&WAIT],
    args: Args::NONE,
    example: "dewar ping --wait 30",
    usage_code: 1,
    plan: |matches| {
        let wait = ping_request(matches)?;
        Action::call(move |context| ping(context, wait))
    },
};

pub static EVENTS: Command = Command {
    names: &["events", "system events"],
    summary: "Show what happens in the engine as it happens",
    usage: "[OPTIONS]",
    about: "",
    flags: &[&FILTER, &EVENT_FORMAT, &SINCE, &UNTIL],
    args: Args::NONE,
    example: "dewar events --since 10m --filter type=container",
    usage_code: 1,
    plan: |matches| {
        let query = events_request(matches)?;
        let template = template(matches, &EVENT_FORMAT)?;
        Action::call(move |context| {
            let reader = context.stream(&SYSTEM_EVENTS, &[], &query, &())?;
            for line in BufReader::new(reader).lines() {
                let failed = |cause: std::io::Error| Error::local("read the daemon's events", cause);
                let line = line.map_err(failed)?;
                if line.trim().is_empty() {
                    continue;
                }
                let event: Event = serde_json::from_str(&line)
                    .map_err(|cause| Error::local("read the daemon's events", cause))?;
                print(&match &template {
                    None => event_line(&event),
                    Some(template) => template_line(template, &to_value(&event)?)?,
                })?;
            }
            Ok(0)
        })
    },
};

/// `--format` of a command that prints one object; `json` is short for a template.
fn template(matches: &Matches, flag: &'static Flag) -> Result<Option<Template>, Error> {
    let text = match matches.get(flag) {
        None | Some("") => return Ok(None),
        Some("json") => "{{json .}}",
        Some(text) => text,
    };
    Template::parse(text)
        .map(Some)
        .map_err(|cause| Error::Template(format!("template parsing error: {cause}")))
}

fn template_line(template: &Template, value: &Value) -> Result<String, Error> {
    template.render(value).map(|text| text + "\n").map_err(|cause| {
        // Compat: the line is there, empty.
        match print("\n") {
            Ok(()) => Error::Local(cause),
            Err(error) => error,
        }
    })
}

fn to_value(value: &impl serde::Serialize) -> Result<Value, Error> {
    value_of(value).map_err(|cause| Error::local("print the answer", cause))
}

/// ` Name:    value`, the values of a block one below the other.
fn line(out: &mut String, blanks: usize, width: usize, name: &str, value: &str) {
    let _ = writeln!(out, "{:blanks$}{:<width$}{value}", "", format!("{name}:"));
}

fn arch() -> &'static str {
    // Go's names, which is what every client of the API compares with.
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn ping_request(matches: &Matches) -> Result<Duration, Error> {
    let duration = |text: &str| match text.trim().parse::<f64>() {
        Ok(seconds) if (0.0..=1e6).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        Ok(_) => Err("expected 0 to 1000000 seconds".to_owned()),
        Err(_) => duration_ns(text).map(|ns| Duration::from_nanos(ns.unsigned_abs())),
    };
    Ok(matches.read(&WAIT, duration)?.unwrap_or_default())
}

/// Asks until there is an answer. A daemon that is not there yet is worth asking again, and so is one that hung
/// up: it may have been on its way out. Any answer is final.
///
/// With a time to wait an attempt is given up when that is over: a daemon that starts has its socket before it
/// serves, and one that hangs takes connections for ever.
fn ping(context: &Context, wait: Duration) -> Result<u8, Error> {
    if wait.is_zero() {
        let code = answer(context)?;
        return print("OK\n").map(|()| code);
    }
    let deadline = Instant::now() + wait;
    let mut pause = Duration::from_millis(5);
    loop {
        let (sender, receiver) = mpsc::channel();
        let asking = context.clone();
        thread::spawn(move || {
            // Nobody listens any more once the time is over.
            let _ = sender.send(answer(&asking));
        });
        let left = deadline.saturating_duration_since(Instant::now());
        match receiver.recv_timeout(left) {
            Ok(Err(Error::Missing(_) | Error::Local(_))) if Instant::now() + pause < deadline => {
                thread::sleep(pause);
                pause = (pause * 2).min(MAX_PAUSE);
            }
            Ok(Ok(code)) => return print("OK\n").map(|()| code),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                let host = context.host();
                return Err(Error::Missing(format!("the daemon at {host} does not answer within {wait:?}")));
            }
        }
    }
}

/// One attempt.
fn answer(context: &Context) -> Result<u8, Error> {
    match context.head(&SYSTEM_PING_HEAD, &[], &()) {
        Ok(_) => Ok(0),
        // An answer to HEAD has no words; the same refusal of a GET has.
        Err(Error::Daemon { status: 400, .. }) => context.call(&SYSTEM_VERSION, &[], &(), &()).map(|_| 0),
        Err(error) => Err(error),
    }
}

fn events_request(matches: &Matches) -> Result<EventsQuery, Error> {
    Ok(EventsQuery {
        since: time::given(matches, &SINCE)?,
        until: time::given(matches, &UNTIL)?,
        filters: filters(&matches.list(&FILTER), &FILTER)?,
    })
}

/// `2026-01-02T15:04:05.000000006Z container start 0123… (image=alpine, name=web)`
fn event_line(event: &Event) -> String {
    let moment = match event.time_nano {
        0 => jiff::Timestamp::from_second(event.time),
        nanos => jiff::Timestamp::from_nanosecond(nanos.into()),
    };
    let moment = moment.map(|moment| format!("{moment:.9}")).unwrap_or_default();
    let mut line = format!("{moment} {} {} {}", event.kind, event.action, event.actor.id);
    if !event.actor.attributes.is_empty() {
        let attributes: Vec<String> =
            event.actor.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let _ = write!(line, " ({})", attributes.join(", "));
    }
    // What a label says must not move the cursor of whoever looks.
    line = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;
    use crate::http::api::event::Actor;

    #[test]
    fn an_event_is_one_line() {
        let event = Event {
            kind: "container".into(),
            action: "start".into(),
            actor: Actor {
                id: "abc".into(),
                attributes: [("name".to_owned(), "web".to_owned()), ("image".to_owned(), "a\nb".to_owned())]
                    .into(),
            },
            time: 1,
            time_nano: 1_000_000_002,
            ..Event::default()
        };
        assert_eq!(
            event_line(&event),
            "1970-01-01T00:00:01.000000002Z container start abc (image=a b, name=web)\n"
        );
    }

    #[test]
    fn requests_are_read_from_flags() {
        let query =
            events_request(&matches_of("events --since 5 --until 9 -f type=container -f event=die")).unwrap();
        assert_eq!((query.since.as_str(), query.until.as_str()), ("5", "9"));
        assert_eq!(query.filters.get("event"), ["die"]);
        assert_eq!(ping_request(&matches_of("ping --wait 1.5")).unwrap(), Duration::from_millis(1500));
        assert_eq!(ping_request(&matches_of("ping --wait=1m30s")).unwrap(), Duration::from_secs(90));
        assert_eq!(ping_request(&matches_of("ping")).unwrap(), Duration::ZERO);
        assert!(ping_request(&matches_of("ping --wait -1")).is_err());
        assert!(ping_request(&matches_of("ping --wait never")).is_err());
    }
}
