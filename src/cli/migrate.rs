//! `dewar migrate`: a running container goes on at another daemon.
//!
//! ```text
//!  daemon that has it ══ frames ══▶ us ══ the same frames ══▶ daemon that gets it
//!                          progress └─▶ standard output
//! ```
//!
//! The two daemons need not know each other: who may use both can move containers between them, with the contexts,
//! certificates and keys that reach them anyway. When a connection breaks, both are asked again until it is known whose
//! the container is.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::http::api::image::JsonMessage;
use crate::http::api::migrate::{
    CONTAINER_MIGRATE, Counted, FRAME_BYTES, HEADER_BYTES, MIGRATION_RECEIVE, MigrateRequest, Migrated,
    Moving, PROGRESS, PreCopy, parse,
};
use crate::http::hijack::{Closer, ReadHalf, WriteHalf};

use super::command::{Action, Args, Command, Flag};
use super::context::{Context, print};
use super::error::Error;
use super::{format, progress};

static JSON: Flag = Flag::switch("json", "As --progress json");
static KEEP: Flag = Flag::switch("keep", "Keep the container here, stopped, with its volumes");
static KEEP_VOLUMES: Flag =
    Flag::switch("keep-volumes", "Take volumes over there as they are, and send none");
static LAZY: Flag =
    Flag::switch("lazy", "Let it run over there before its memory has been sent, and send that afterwards");
static PROGRESS_AS: Flag =
    Flag::value("progress", "KIND", "Way of showing progress (auto, plain, json, none)").default("auto");
static PRE_COPY: Flag =
    Flag::value("pre-copy", "WHEN", "Send memory while it runs, too (auto, always, never)").default("auto");
static QUIET: Flag = Flag::switch("quiet", "As --progress none").short('q');
static RESOLVE: Flag = Flag::switch("resolve", "Begin nothing: finish what was cut off, or undo it");
static TCP_CLOSE: Flag = Flag::switch("tcp-close", "Let TCP connections come back closed");
static TRUST: Flag =
    Flag::switch("trust", "Thaw processes that have more than the container's configuration gives them");

/// How long both daemons are asked again after a connection has broken.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);
/// How often the progress is told in numbers, where nobody watches it.
const PACE: Duration = Duration::from_secs(1);

pub static MIGRATE: Command = Command {
    names: &["migrate", "container migrate"],
    summary: "Move a running container to another daemon",
    usage: "[OPTIONS] CONTAINER HOST",
    about: "The container goes on at HOST, a context's name or an address as --host takes it, with its ID, name, memory, \
            files, volumes and logs; what is missing of its image is sent first, then its files while it runs, again and \
            again until little changes between two times. It stands still while the rest of them and its memory are \
            sent, which is told; with --lazy it runs over there as soon as all but its memory has come, and gets that \
            afterwards, first what it touches: it stands still for a moment only, and until this command has ended its \
            memory comes through both daemons. Where the kernel notes which pages are dirty (CONFIG_MEM_SOFT_DIRTY; \
            \"dewar doctor\" knows), memory is sent while it runs, too, if there are 16 MiB of it or more: \
            --pre-copy=always does so in any case or refuses, and never does without. In networks \
            that HOST has under the same names it keeps its address, if nobody else has that there, and its TCP \
            connections go on where both sides share the network; otherwise it gets a new one and \
            they come back closed. Directories of the host that are mounted must be there, too. Both daemons are \
            reached from here, as their users: they need not reach each other. Whatever breaks, exactly one of them has \
            the container: before the other daemon was ready it runs on here, and after that it is found out whose it \
            is, by this command or by --resolve later. When it breaks while memory is sent, or one of the daemons \
            ends, what lacks memory waits over there until this command or --resolve sends the rest; if it is lost \
            there, the checkpoint that is here brings it back as it was when it was frozen. If one of the two never comes back, the other has the checkpoint \
            \"migration-...\", which \"dewar start --checkpoint\" brings to life and \"dewar rm\" removes with the \
            container. With --progress=plain numbers are told once a second, and with json each line is an object with \
            Phase, Bytes, Total, BytesPerSecond and Milliseconds; in the last one the Phase is done, kept or failed, and \
            StoppedMilliseconds is how long it stood still, PreCopiedBytes the memory that was sent before.",
    flags: &[
        &JSON,
        &KEEP,
        &KEEP_VOLUMES,
        &LAZY,
        &PRE_COPY,
        &PROGRESS_AS,
        &QUIET,
        &RESOLVE,
        &TCP_CLOSE,
        &TRUST,
    ],
    args: Args::exactly(2),
    example: "dewar migrate web ssh://root@other",
    usage_code: 1,
    plan: |matches| {
        let (container, host) = (matches.args[0].clone(), matches.args[1].clone());
        let pre_copy = match matches.get(&PRE_COPY).unwrap_or_default() {
            "auto" => PreCopy::Auto,
            "always" => PreCopy::Always,
            "never" => PreCopy::Never,
            other => {
                let text = format!("--pre-copy={other}: it is one of auto, always, never");
                return Err(Error::Local(text));
            }
        };
        if pre_copy == PreCopy::Always && matches.is(&LAZY) {
            let text =
                "--pre-copy=always and --lazy do not go together: one sends memory before, one afterwards";
            return Err(Error::Local(text.to_owned()));
        }
        let request = MigrateRequest {
            host: host.clone(),
            pre_copy,
            keep: matches.is(&KEEP),
            keep_volumes: matches.is(&KEEP_VOLUMES),
            lazy: matches.is(&LAZY),
            tcp_close: matches.is(&TCP_CLOSE),
            trust: matches.is(&TRUST),
            resolve: matches.is(&RESOLVE),
        };
        let has_choice = request.keep
            || request.keep_volumes
            || request.lazy
            || request.tcp_close
            || request.trust
            || pre_copy != PreCopy::Auto;
        if request.resolve && has_choice {
            return Err(Error::Local("--resolve begins nothing: it goes with no other choice".to_owned()));
        }
        let shown =
            match (matches.is(&JSON), matches.is(&QUIET), matches.get(&PROGRESS_AS).unwrap_or_default()) {
                (true, true, _) => {
                    return Err(Error::Local("--json and --quiet do not go together".to_owned()));
                }
                (true, false, "auto" | "json") => Shown::Json,
                (false, true, "auto" | "none") => Shown::Nothing,
                (true, false, _) => {
                    return Err(Error::Local("--json and --progress do not go together".to_owned()));
                }
                (false, true, _) => {
                    return Err(Error::Local("--quiet and --progress do not go together".to_owned()));
                }
                (false, false, "auto") => Shown::Bars,
                (false, false, "plain") => Shown::Lines,
                (false, false, "json") => Shown::Json,
                (false, false, "none") => Shown::Nothing,
                (false, false, other) => {
                    let text = format!("--progress={other}: it is one of auto, plain, json, none");
                    return Err(Error::Local(text));
                }
            };
        Action::call(move |context| {
            let there = context.at(&host)?;
            run(context, &there, &container, &request, shown)
        })
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// As other progress: bars on a terminal, elsewhere what it is at.
    Bars,
    /// What it is at, and numbers now and then.
    Lines,
    /// [`Counted`], and at the end [`Migrated`], each as an object with a `Phase`.
    Json,
    Nothing,
}

/// How an attempt ended.
enum End {
    Told(Migrated),
    /// The daemon says why, and whether the other one is to be asked.
    Failed(String, bool),
    /// A connection broke: whose it is is not known here.
    Unknown,
}

fn run(
    here: &Context,
    there: &Context,
    container: &str,
    request: &MigrateRequest,
    shown: Shown,
) -> Result<u8, Error> {
    let outcome = run_to_end(here, there, container, request, shown);
    if shown == Shown::Json {
        let last = match &outcome {
            Ok(migrated) if migrated.is_moved => last("done", migrated),
            Ok(migrated) => last("kept", migrated),
            Err(error) => last("failed", &Failed { error: error.to_string() }),
        };
        print(&format!("{}\n", last.map_err(|cause| Error::local("print the outcome", cause))?))?;
    }
    let migrated = outcome?;
    match shown {
        Shown::Json | Shown::Nothing => {}
        Shown::Bars | Shown::Lines => print(&format!("{}\n", told(container, request, &migrated)))?,
    }
    for warning in &migrated.warnings {
        super::say(&format!("dewar: warning: {warning}"));
    }
    if migrated.is_moved || request.resolve {
        return Ok(0);
    }
    let text = "the connection broke before the container was given away: it runs on where it was";
    Err(Error::Local(text.to_owned()))
}

fn run_to_end(
    here: &Context,
    there: &Context,
    container: &str,
    request: &MigrateRequest,
    shown: Shown,
) -> Result<Migrated, Error> {
    match attempt(here, there, container, request, shown)? {
        End::Told(migrated) => Ok(migrated),
        End::Failed(message, false) => Err(Error::Daemon { status: 200, message }),
        End::Failed(message, true) => match find_out(here, there, container, request, shown)? {
            migrated if migrated.is_moved => Ok(migrated),
            _ => Err(Error::Daemon { status: 200, message }),
        },
        End::Unknown => find_out(here, there, container, request, shown),
    }
}

/// An object of the JSON progress.
#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct Last<'a, T> {
    phase: &'static str,
    #[serde(flatten)]
    content: &'a T,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct Failed {
    error: String,
}

fn last<T: serde::Serialize>(phase: &'static str, content: &T) -> serde_json::Result<String> {
    serde_json::to_string(&Last { phase, content })
}

/// What there is to say of the outcome.
fn told(container: &str, request: &MigrateRequest, migrated: &Migrated) -> String {
    let host = &request.host;
    if !migrated.is_moved {
        return format!("{container} is where it was");
    }
    if migrated.milliseconds == 0 {
        return format!("{container} runs at {host}");
    }
    let rate = migrated.bytes.saturating_mul(1000) / migrated.milliseconds.max(1);
    let number = |bytes: u64| format::size_decimal(i64::try_from(bytes).unwrap_or(i64::MAX));
    format!(
        "{container} runs at {host}: {} in {}.{:03} s, {}/s; it stood still for {} ms",
        number(migrated.bytes),
        migrated.milliseconds / 1000,
        migrated.milliseconds % 1000,
        number(rate),
        migrated.stopped_milliseconds
    )
}

/// Asks both daemons until it is known whose the container is.
fn find_out(
    here: &Context,
    there: &Context,
    container: &str,
    request: &MigrateRequest,
    shown: Shown,
) -> Result<Migrated, Error> {
    super::say("dewar: a connection broke: finding out whose the container is");
    let began = Instant::now();
    let resolve = MigrateRequest { host: request.host.clone(), resolve: true, ..MigrateRequest::default() };
    loop {
        std::thread::sleep(PAUSE);
        let failed = match attempt(here, there, container, &resolve, shown) {
            Ok(End::Told(migrated)) => return Ok(migrated),
            Ok(End::Failed(message, _)) => message,
            Ok(End::Unknown) => "the connection breaks again and again".to_owned(),
            // It was removed because it runs over there.
            Err(Error::Daemon { status: 404, .. }) => {
                return Ok(Migrated { is_moved: true, ..Migrated::default() });
            }
            Err(error) => error.to_string(),
        };
        if began.elapsed() > PATIENCE {
            return Err(Error::Local(format!(
                "whose container {container} is is not known: {failed}; \"dewar migrate --resolve {container} {}\" \
                 asks again",
                request.host
            )));
        }
    }
}

/// Joins the two daemons until the one that has the container has told how it ended.
fn attempt(
    here: &Context,
    there: &Context,
    container: &str,
    request: &MigrateRequest,
    shown: Shown,
) -> Result<End, Error> {
    // First: a daemon that is not there is no reason to begin.
    let far = there.hijack(&MIGRATION_RECEIVE, &[], &(), &())?;
    let near = here.hijack(&CONTAINER_MIGRATE, &[container], &(), request)?;
    let [far_closer, near_end, far_end] = [far.closer(), near.closer(), far.closer()];
    let (from_near, to_near) = near.split();
    let (from_far, to_far) = far.split();
    let (tell, told) = channel();
    let start = |name: &str, run: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map_err(|cause| Error::local("start a thread", cause))
    };
    start("there", Box::new(move || forward(from_near, to_far, &tell, &far_closer)))?;
    start("back", Box::new(move || back(from_far, to_near)))?;
    let end = show(Lines { told, line: Vec::new(), at: 0 }, shown);
    near_end.close();
    far_end.close();
    end
}

/// Prints the progress, and takes the outcome out of it.
fn show(lines: Lines, shown: Shown) -> Result<End, Error> {
    let (mut failure, mut result, mut told) = (None, None, Instant::now());
    let mut look = |message: &JsonMessage| -> Result<(), Error> {
        if let Some(text) = &message.error {
            failure = Some(text.clone());
        }
        if let (Shown::Lines, None, Some(status)) = (shown, &message.progress_detail, &message.status) {
            print(&format!("{status}\n"))?;
        }
        let Some(aux) = &message.aux else { return Ok(()) };
        match serde_json::from_value::<Moving>(aux.clone()) {
            Err(_) => result = serde_json::from_value::<Migrated>(aux.clone()).ok(),
            Ok(Moving { moving }) if shown == Shown::Json => {
                let text = serde_json::to_string(&moving)
                    .map_err(|cause| Error::local("print the progress", cause))?;
                print(&format!("{text}\n"))?;
            }
            Ok(Moving { moving }) if shown == Shown::Lines && told.elapsed() >= PACE => {
                told = Instant::now();
                print(&format!("{}\n", counted(&moving)))?;
            }
            Ok(_) => {}
        }
        Ok(())
    };
    let out = io::stdout();
    progress::follow(lines, shown != Shown::Bars, out, &mut look)?;
    Ok(match (failure, result) {
        (Some(message), result) => End::Failed(message, result.is_some_and(|result| result.is_in_doubt)),
        (None, Some(migrated)) => End::Told(migrated),
        (None, None) => End::Unknown,
    })
}

/// How far it has come, in a line.
fn counted(moving: &Counted) -> String {
    let number = |bytes: u64| format::size_decimal(i64::try_from(bytes).unwrap_or(i64::MAX));
    let total = if moving.total > 0 { format!(" of {}", number(moving.total)) } else { String::new() };
    format!("{}{total} sent, {}/s", number(moving.bytes), number(moving.bytes_per_second))
}

/// Carries frames to the other daemon, and the progress among them to ourselves.
fn forward(mut from: ReadHalf, mut to: WriteHalf, tell: &Sender<Vec<u8>>, closer: &Closer) {
    let mut carry = || -> io::Result<()> {
        let mut content = Vec::new();
        loop {
            let mut header = [0; HEADER_BYTES];
            from.read_exact(&mut header)?;
            let (kind, length) =
                parse(header).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no frame"))?;
            content.resize(HEADER_BYTES + length.min(FRAME_BYTES), 0);
            content[..HEADER_BYTES].copy_from_slice(&header);
            from.read_exact(&mut content[HEADER_BYTES..])?;
            if kind == PROGRESS {
                let _ = tell.send(content[HEADER_BYTES..].to_vec());
            } else if to.write_all(&content).is_err() {
                // The daemon that has the container learns it from the other direction.
                closer.close();
            }
        }
    };
    // Either way it is over.
    let _ = carry();
    closer.close();
}

fn back(mut from: ReadHalf, mut to: WriteHalf) {
    let mut block = vec![0; 64 * 1024];
    loop {
        match from.read(&mut block) {
            Ok(count) if count > 0 => {
                if to.write_all(&block[..count]).is_err() {
                    return;
                }
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            // What it has to say still comes: only its hearing ends.
            _ => return to.shutdown_write(),
        }
    }
}

/// The messages of the progress as a stream.
struct Lines {
    told: Receiver<Vec<u8>>,
    line: Vec<u8>,
    at: usize,
}

impl Read for Lines {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.line.len() {
            let Ok(line) = self.told.recv() else { return Ok(0) };
            (self.line, self.at) = (line, 0);
        }
        let count = into.len().min(self.line.len() - self.at);
        into[..count].copy_from_slice(&self.line[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_is_told_in_numbers() {
        let request = MigrateRequest { host: "other".into(), ..MigrateRequest::default() };
        let migrated = Migrated {
            is_moved: true,
            bytes: 5_000_000,
            milliseconds: 2005,
            stopped_milliseconds: 312,
            ..Migrated::default()
        };
        let text = told("web", &request, &migrated);
        assert_eq!(text, "web runs at other: 5MB in 2.005 s, 2.49MB/s; it stood still for 312 ms");
        assert_eq!(told("web", &request, &Migrated::default()), "web is where it was");
        let mut moving =
            Counted { bytes: 5_000_000, total: 8_000_000, bytes_per_second: 900, ..Counted::default() };
        assert_eq!(counted(&moving), "5MB of 8MB sent, 900B/s");
        moving.total = 0;
        assert_eq!(counted(&moving), "5MB sent, 900B/s");
        let text = last("done", &migrated).unwrap();
        assert!(text.starts_with(r#"{"Phase":"done","Id":"","IsMoved":true,"#), "{text}");
    }
}
