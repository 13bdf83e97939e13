//! `dewar version`, `info`, `ping` and `events`: the engine itself.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::api::API_VERSION;
use crate::http::api::event::{Event, EventsQuery, SYSTEM_EVENTS};
use crate::http::api::system::{SYSTEM_INFO, SYSTEM_PING_HEAD, SYSTEM_VERSION, SystemInfo, SystemVersion};

use super::command::{Action, Args, Command, Flag, Matches};
use super::context::{Context, filters, print};
use super::error::Error;
use super::format;
use super::format::template::Template;
use super::time;

static FORMAT: Flag = Flag::value("format", "FORMAT", "Print as json or by a Go template").short('f');
static EVENT_FORMAT: Flag = Flag::value("format", "FORMAT", "Print as json or by a Go template");
static FILTER: Flag =
    Flag::many("filter", "KEY=VALUE", "Show only what matches, such as event=die").short('f');
static SINCE: Flag =
    Flag::value("since", "TIME", "Replay from a time (2026-01-02T15:04:05Z) or so long ago (10m)");
static UNTIL: Flag = Flag::value("until", "TIME", "End at a time, written as for --since");
static WAIT: Flag = Flag::value("wait", "SECONDS", "Go on asking for so long");

pub static VERSION: Command = Command {
    names: &["version"],
    summary: "Show the versions of client and daemon",
    usage: "[OPTIONS]",
    about: "",
    flags: &[&FORMAT],
    args: Args::NONE,
    example: "dewar version",
    usage_code: 1,
    plan: |matches| {
        let template = template(matches, &FORMAT)?;
        Action::call(move |context| {
            let server = context.call(&SYSTEM_VERSION, &[], &(), &());
            // What is known of the client is printed whether or not a daemon answers.
            let known = server.as_ref().ok();
            print(&match &template {
                None => version_text(known),
                Some(template) => template_line(template, &version_value(known)?)?,
            })?;
            server.map(|_| 0)
        })
    },
};

pub static INFO: Command = Command {
    names: &["info", "system info"],
    summary: "Show the state of the engine and its machine",
    usage: "[OPTIONS]",
    about: "",
    flags: &[&FORMAT],
    args: Args::NONE,
    example: "dewar info",
    usage_code: 1,
    plan: |matches| {
        let template = template(matches, &FORMAT)?;
        Action::call(move |context| {
            let info = context.call(&SYSTEM_INFO, &[], &(), &())?;
            print(&match &template {
                None => info_text(&info),
                Some(template) => template_line(template, &to_value(&info)?)?,
            })?;
            for warning in &info.warnings {
                super::say(warning);
            }
            Ok(0)
        })
    },
};

pub static PING: Command = Command {
    names: &["ping", "system ping"],
    summary: "Ask the daemon whether it is there",
    usage: "[OPTIONS]",
    about: "",
    flags: &[&WAIT],
    args: Args::NONE,
    example: "dewar ping --wait 5",
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
    Template::parse(text).map(Some).map_err(|cause| Error::local("read --format", cause))
}

fn template_line(template: &Template, value: &Value) -> Result<String, Error> {
    template.render(value).map(|text| text + "\n").map_err(|cause| Error::local("apply --format", cause))
}

fn to_value(value: &impl serde::Serialize) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|cause| Error::local("print the answer", cause))
}

fn arch() -> &'static str {
    // Go's names, which is what every client of the API compares with.
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn version_value(server: Option<&SystemVersion>) -> Result<Value, Error> {
    Ok(json!({
        "Client": {
            "Version": env!("CARGO_PKG_VERSION"),
            "ApiVersion": API_VERSION.to_string(),
            "Os": std::env::consts::OS,
            "Arch": arch(),
        },
        "Server": server.map(to_value).transpose()?,
    }))
}

fn version_text(server: Option<&SystemVersion>) -> String {
    let line = |out: &mut String, name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, " {:<18}{value}", format!("{name}:"));
        }
    };
    let mut out = String::from("Client: dewar\n");
    line(&mut out, "Version", env!("CARGO_PKG_VERSION"));
    line(&mut out, "API version", &API_VERSION.to_string());
    line(&mut out, "OS/Arch", &format!("{}/{}", std::env::consts::OS, arch()));
    let Some(server) = server else { return out };
    let _ = writeln!(out, "\nServer: {}", server.platform.name);
    line(&mut out, "Version", &server.version);
    line(
        &mut out,
        "API version",
        &format!("{} (minimum version {})", server.api_version, server.min_api_version),
    );
    line(&mut out, "Git commit", &server.git_commit);
    line(&mut out, "Built", &server.build_time);
    line(&mut out, "OS/Arch", &format!("{}/{}", server.os, server.arch));
    line(&mut out, "Kernel version", &server.kernel_version);
    out
}

fn info_text(info: &SystemInfo) -> String {
    let mut out = String::from("Server:\n");
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(out, " {name}: {value}");
        }
    };
    line("Containers", info.containers.to_string());
    line(" Running", info.containers_running.to_string());
    line(" Paused", info.containers_paused.to_string());
    line(" Stopped", info.containers_stopped.to_string());
    line("Images", info.images.to_string());
    line("Server Version", info.server_version.clone());
    line("Storage Driver", info.driver.clone());
    for [name, value] in &info.driver_status {
        line(&format!(" {name}"), value.clone());
    }
    line("Logging Driver", info.logging_driver.clone());
    line("Cgroup Driver", info.cgroup_driver.clone());
    line("Cgroup Version", info.cgroup_version.clone());
    line("Checkpoints", info.criu.clone());
    line("Swarm", info.swarm.local_node_state.clone());
    line("Default Runtime", info.default_runtime.clone());
    line("Security Options", info.security_options.join(" "));
    line("Kernel Version", info.kernel_version.clone());
    line("Operating System", info.operating_system.clone());
    line("OSType", info.os_type.clone());
    line("Architecture", info.architecture.clone());
    line("CPUs", info.ncpu.to_string());
    line("Total Memory", format::size_binary(i64::try_from(info.mem_total).unwrap_or(i64::MAX)));
    line("Name", info.name.clone());
    line("ID", info.id.clone());
    line("Docker Root Dir", info.docker_root_dir.clone());
    line("Debug Mode", info.debug.to_string());
    line("Live Restore Enabled", info.live_restore_enabled.to_string());
    out
}

fn ping_request(matches: &Matches) -> Result<Duration, Error> {
    let seconds = |text: &str| match text.trim().parse::<f64>() {
        Ok(seconds) if (0.0..=1e6).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected a number of seconds".to_owned()),
    };
    Ok(matches.read(&WAIT, seconds)?.unwrap_or_default())
}

/// Asks until there is an answer; only a daemon that is not there yet is worth asking again.
fn ping(context: &Context, wait: Duration) -> Result<u8, Error> {
    let deadline = Instant::now() + wait;
    loop {
        match context.head(&SYSTEM_PING_HEAD, &[], &()) {
            Ok(_) => return print("OK\n").map(|()| 0),
            Err(Error::Missing(_)) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            // An answer to HEAD has no words; the same refusal of a GET has.
            Err(Error::Daemon { status: 400, .. }) => {
                return context.call(&SYSTEM_VERSION, &[], &(), &()).map(|_| 0);
            }
            Err(error) => return Err(error),
        }
    }
}

fn events_request(matches: &Matches) -> Result<EventsQuery, Error> {
    Ok(EventsQuery {
        since: matches.read(&SINCE, time::point_now)?.unwrap_or_default(),
        until: matches.read(&UNTIL, time::point_now)?.unwrap_or_default(),
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
        assert_eq!(ping_request(&matches_of("ping")).unwrap(), Duration::ZERO);
        assert!(ping_request(&matches_of("ping --wait never")).is_err());
    }

    #[test]
    fn versions_are_shown_with_and_without_a_daemon() {
        let alone = version_text(None);
        assert!(alone.contains("Client: dewar") && !alone.contains("Server"));
        let server =
            SystemVersion { version: "1.2".into(), api_version: "1.51".into(), ..SystemVersion::default() };
        assert!(version_text(Some(&server)).contains(" Version:          1.2\n"));
        let value = version_value(Some(&server)).unwrap();
        let template = Template::parse("{{.Server.Version}} {{.Client.ApiVersion}}").unwrap();
        assert_eq!(template_line(&template, &value).unwrap(), format!("1.2 {API_VERSION}\n"));
    }

    #[test]
    fn info_shows_what_is_known() {
        let info =
            SystemInfo { containers: 3, mem_total: 2 << 30, criu: "4.2".into(), ..SystemInfo::default() };
        let text = info_text(&info);
        assert!(text.contains(" Containers: 3\n") && text.contains(" Total Memory: 2GiB\n"));
        assert!(text.contains(" Checkpoints: 4.2\n") && !text.contains(" Name:"));
    }
}
