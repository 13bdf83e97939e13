//! `dewar stats`: what containers use, as a table that is drawn anew.
//!
//! ```text
//!   names given                 one thread a container: samples ──▶ shared rows ──▶ drawn twice a second
//!   none given  list + events   a container that starts gets a thread, one that goes loses its row
//! ```

mod figures;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::command::{Action, Args, Command, Flag, Matches};
use crate::cli::context::{Context, print};
use crate::cli::error::Error;
use crate::cli::format::{Column, Format, Row};
use crate::cli::terminal;
use crate::http::api::Filters;
use crate::http::api::container::{CONTAINER_LIST, ListQuery};
use crate::http::api::event::{Event, EventsQuery, SYSTEM_EVENTS};
use crate::http::api::stats::{CONTAINER_STATS, ContainerStats, StatsQuery};

use figures::Figures;

static ALL: Flag = Flag::switch("all", "Show stopped containers too").short('a');
static FORMAT: Flag = Flag::value("format", "FORMAT", "Print as table, json or by a Go template");
static NO_STREAM: Flag = Flag::switch("no-stream", "Print one sample of each container and end");
static NO_TRUNC: Flag = Flag::switch("no-trunc", "Show IDs in full");

/// How often the table is drawn.
const REDRAW: Duration = Duration::from_millis(500);
/// How long the first drawing waits for every container's first sample.
const FIRST: Duration = Duration::from_secs(2);
/// Reading JSON lines needs little.
const STACK_BYTES: usize = 256 << 10;

pub static STATS: Command = Command {
    names: &["stats", "container stats"],
    summary: "Show what containers use, again and again",
    usage: "[OPTIONS] [CONTAINER...]",
    about: "",
    flags: &[&ALL, &FORMAT, &NO_STREAM, &NO_TRUNC],
    args: Args::at_least(0),
    example: "dewar stats --no-stream",
    usage_code: 1,
    plan: |matches| {
        let request = request(matches)?;
        Action::call(move |context| stats(context, request))
    },
};

#[derive(Debug)]
struct Request {
    names: Vec<String>,
    all: bool,
    stream: bool,
    no_trunc: bool,
    format: Option<Format>,
}

fn request(matches: &Matches) -> Result<Request, Error> {
    Ok(Request {
        names: matches.args.clone(),
        all: matches.is(&ALL),
        stream: !matches.is(&NO_STREAM),
        no_trunc: matches.is(&NO_TRUNC),
        format: Format::given(matches.get(&FORMAT))?,
    })
}

/// What the threads write and the drawing reads.
#[derive(Debug, Default)]
struct Shared {
    seats: Mutex<Seats>,
    changed: Condvar,
}

/// One per container, in the order of the table.
#[derive(Debug, Default)]
struct Seats {
    seats: Vec<Seat>,
    /// Why the list of containers is no longer kept up.
    failure: Option<Error>,
}

#[derive(Debug)]
struct Seat {
    /// As it was asked for.
    name: String,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No sample yet.
    Waiting,
    Sampled(Box<Figures>),
    /// Its samples ended; shown as unknown.
    Lost,
    Failed(Error),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, name: &str, state: State) {
        let mut seats = self.lock();
        if let Some(seat) = seats.seats.iter_mut().find(|seat| seat.name == name) {
            seat.state = state;
        }
        self.changed.notify_all();
    }
}

fn stats(context: &Context, request: Request) -> Result<u8, Error> {
    let format = Format::choose(request.format, context.config().text("statsFormat"))?;
    let shared = Arc::new(Shared::default());
    let follows = request.names.is_empty();
    let mut names = request.names.clone();
    if follows {
        // Who starts while the list is read is told of by an event.
        if request.stream {
            follow(context, &shared, request.all, request.stream)?;
        }
        let query = ListQuery { all: request.all, ..ListQuery::default() };
        names = context.call(&CONTAINER_LIST, &[], &query, &())?.into_iter().map(|one| one.id).collect();
    }
    for name in &names {
        watch(context, &shared, name, request.stream)?;
    }
    first_samples(&shared, request.stream);
    let printer =
        Printer { format, no_trunc: request.no_trunc, clears: request.stream && terminal::is_watched() };
    loop {
        let (rows, failures, is_empty) = rows(&shared, &printer, !follows);
        if !follows && let Some(failure) = failures {
            return Err(failure);
        }
        if let Some(failure) = shared.lock().failure.take() {
            return Err(failure);
        }
        print(&printer.text(&rows)?)?;
        // Compat: a stream of containers that were named ends with the last of them.
        if !request.stream || (!follows && is_empty) {
            return Ok(0);
        }
        thread::sleep(REDRAW);
    }
}

/// Starts a thread that follows the samples of `name`.
fn watch(context: &Context, shared: &Arc<Shared>, name: &str, stream: bool) -> Result<(), Error> {
    {
        let mut seats = shared.lock();
        if seats.seats.iter().any(|seat| seat.name == name) {
            return Ok(());
        }
        seats.seats.push(Seat { name: name.to_owned(), state: State::Waiting });
    }
    let (context, shared, name) = (context.clone(), shared.clone(), name.to_owned());
    spawn(move || {
        if let Err(error) = samples(&context, &shared, &name, stream) {
            shared.set(&name, State::Failed(error));
        } else if stream {
            shared.set(&name, State::Lost);
        }
    })
}

fn samples(context: &Context, shared: &Shared, name: &str, stream: bool) -> Result<(), Error> {
    let query = StatsQuery { stream: Some(stream), one_shot: false };
    let reader = context.stream(&CONTAINER_STATS, &[name], &query, &())?;
    for line in BufReader::new(reader).lines() {
        let failed = |cause: &dyn std::fmt::Display| Error::local("read the container's figures", cause);
        let line = line.map_err(|cause| failed(&cause))?;
        if line.trim().is_empty() {
            continue;
        }
        let sample: ContainerStats = serde_json::from_str(&line).map_err(|cause| failed(&cause))?;
        shared.set(name, State::Sampled(Box::new(Figures::new(&sample))));
    }
    Ok(())
}

/// Follows the containers that come and go.
fn follow(context: &Context, shared: &Arc<Shared>, all: bool, stream: bool) -> Result<(), Error> {
    let mut filters = Filters::default();
    filters.add("type", "container");
    let query = EventsQuery { filters, ..EventsQuery::default() };
    let reader = context.stream(&SYSTEM_EVENTS, &[], &query, &())?;
    let (context, shared) = (context.clone(), shared.clone());
    spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            let Ok(event) = serde_json::from_str::<Event>(&line) else { continue };
            let id = event.actor.id;
            let comes = event.action == "start" || (all && event.action == "create");
            let goes = event.action == "destroy" || (!all && event.action == "die");
            if comes {
                // A thread that cannot be had now may be had when it starts again.
                let _ = watch(&context, &shared, &id, stream);
            } else if goes {
                shared.lock().seats.retain(|seat| seat.name != id);
            }
        }
        let cause = "the daemon ended the stream of events";
        shared.lock().failure = Some(Error::local("follow the containers", cause));
    })
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    thread::Builder::new()
        .name("stats".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(work)
        .map(drop)
        .map_err(|cause| Error::local("start a thread for the figures", cause))
}

/// Waits until every container has said something; a stream waits no longer than it must.
fn first_samples(shared: &Shared, stream: bool) {
    let start = Instant::now();
    let mut seats = shared.lock();
    while seats.seats.iter().any(|seat| matches!(seat.state, State::Waiting)) {
        let left = if stream { FIRST.saturating_sub(start.elapsed()) } else { REDRAW };
        if left.is_zero() {
            return;
        }
        seats = shared.changed.wait_timeout(seats, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// The rows, the failures taken out, and whether nothing is left that will give another sample.
fn rows(shared: &Shared, printer: &Printer, keeps_lost: bool) -> (Vec<Row>, Option<Error>, bool) {
    let mut seats = shared.lock();
    let mut failures = Vec::new();
    let mut gone = BTreeSet::new();
    let mut rows = Vec::new();
    let mut is_empty = true;
    for seat in &mut seats.seats {
        match std::mem::replace(&mut seat.state, State::Lost) {
            State::Failed(error) => {
                gone.insert(seat.name.clone());
                failures.push(error);
                continue;
            }
            State::Lost => {
                if keeps_lost {
                    rows.push(figures::unknown(&seat.name, printer.no_trunc));
                }
                continue;
            }
            State::Waiting => {
                seat.state = State::Waiting;
                rows.push(figures::unknown(&seat.name, printer.no_trunc));
            }
            State::Sampled(figures) => {
                rows.push(figures.row(&seat.name, printer.no_trunc));
                seat.state = State::Sampled(figures);
            }
        }
        is_empty = false;
    }
    seats.seats.retain(|seat| !gone.contains(&seat.name));
    let failure = match failures.len() {
        0 => None,
        1 => failures.pop(),
        _ => {
            let texts: Vec<String> = failures.iter().map(ToString::to_string).collect();
            Some(Error::Local(texts.join("\n")))
        }
    };
    (rows, failure, is_empty)
}

/// How a table gets onto the screen.
struct Printer {
    format: Format,
    no_trunc: bool,
    /// Whether the last table is drawn over.
    clears: bool,
}

impl Printer {
    fn text(&self, rows: &[Row]) -> Result<String, Error> {
        let text = self.format.print(rows, COLUMNS, TITLES)?;
        if !self.clears {
            return Ok(text);
        }
        // Home; each line clears its rest; the rows of a longer table before are cleared below. Nothing
        // flickers, because nothing is empty in between.
        let lines: String = text.lines().map(|line| format!("{line}\u{1b}[K\n")).collect();
        Ok(format!("\u{1b}[H{lines}\u{1b}[J"))
    }
}

const COLUMNS: &[Column] = &[
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
];

const TITLES: &[Column] = &[("CONTAINER", "Container")];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;

    #[test]
    fn the_request_reads_every_flag() {
        let made = request(&matches_of("stats -a --no-stream --no-trunc --format {{.Name}} a b")).unwrap();
        assert!(made.all && !made.stream && made.no_trunc && made.format.is_some());
        assert_eq!(made.names, ["a", "b"]);
        assert!(request(&matches_of("stats")).unwrap().stream);
    }

    #[test]
    fn a_container_that_ends_keeps_its_row_only_if_it_was_named() {
        let shared = Shared::default();
        let seat = |name: &str, state| Seat { name: name.to_owned(), state };
        shared.lock().seats = vec![seat("a", State::Lost), seat("b", State::Waiting)];
        let printer =
            Printer { format: Format::parse("{{.Container}}").unwrap(), no_trunc: false, clears: false };
        let text = |keeps| {
            let (rows, _, is_empty) = rows(&shared, &printer, keeps);
            (printer.text(&rows).unwrap(), is_empty)
        };
        assert_eq!(text(true), ("a\nb\n".to_owned(), false));
        assert_eq!(text(false), ("b\n".to_owned(), false));
        shared.set("b", State::Failed(Error::Local("no".into())));
        let (_, failure, is_empty) = rows(&shared, &printer, true);
        assert!(is_empty && failure.unwrap().to_string() == "no");
    }
}
