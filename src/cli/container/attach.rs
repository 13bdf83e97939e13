//! `dewar attach`, and what every command that stays with a container shares: resizing and signals.

use std::thread;

use signal_hook::consts::signal;
use signal_hook::iterator::Signals;

use crate::cli::command::{Action, Args, Command, Flag, Matches};
use crate::cli::context::Context;
use crate::cli::error::Error;
use crate::cli::terminal::{self, Wiring, converse, detach_keys};
use crate::http::api::container::{
    AttachQuery, CONTAINER_ATTACH, CONTAINER_INSPECT, CONTAINER_KILL, CONTAINER_RESIZE, InspectQuery,
    KillQuery, ResizeQuery,
};
use crate::http::api::exec::EXEC_RESIZE;

use super::{exit_code, wait};

static DETACH_KEYS: Flag =
    Flag::value("detach-keys", "KEYS", "Keys that detach from the container (ctrl-p,ctrl-q)");
static NO_STDIN: Flag = Flag::switch("no-stdin", "Do not send stdin");
static SIG_PROXY: Flag =
    Flag::switch("sig-proxy", "Pass signals on to the container's process").default("true");

pub static ATTACH: Command = Command {
    names: &["attach", "container attach"],
    summary: "Join the stdin and output of a running container",
    usage: "[OPTIONS] CONTAINER",
    about: "",
    flags: &[&DETACH_KEYS, &NO_STDIN, &SIG_PROXY],
    args: Args::exactly(1),
    example: "dewar attach web",
    usage_code: 1,
    plan: |matches| {
        let request = request(matches)?;
        Action::call(move |context| attach(context, request))
    },
};

#[derive(Debug)]
struct Request {
    container: String,
    keys: Vec<u8>,
    keys_text: Option<String>,
    stdin: bool,
    sig_proxy: bool,
}

fn request(matches: &Matches) -> Result<Request, Error> {
    Ok(Request {
        container: matches.args[0].clone(),
        keys: keys(matches, &DETACH_KEYS)?,
        keys_text: matches.get(&DETACH_KEYS).map(str::to_owned),
        stdin: !matches.is(&NO_STDIN),
        sig_proxy: matches.is(&SIG_PROXY),
    })
}

/// The detach keys a flag names, else the usual ones.
pub fn keys(matches: &Matches, flag: &'static Flag) -> Result<Vec<u8>, Error> {
    let text = matches.text(flag);
    detach_keys(&text).map_err(|cause| Error::value(flag, &text, &cause))
}

/// The keys the settings name, where no flag does: their text for the daemon, their bytes for us.
pub fn settle(context: &Context, text: &mut Option<String>, keys: &mut Vec<u8>) -> Result<(), Error> {
    if text.as_deref().unwrap_or_default().is_empty()
        && let Some(chosen) = context.config().text("detachKeys")
    {
        *keys = detach_keys(chosen).map_err(|cause| {
            Error::Local(format!("invalid detachKeys {chosen:?} in the settings: {cause}"))
        })?;
        *text = Some(chosen.to_owned());
    }
    Ok(())
}

fn attach(context: &Context, mut request: Request) -> Result<u8, Error> {
    settle(context, &mut request.keys_text, &mut request.keys)?;
    let name = &request.container;
    let inspect = context.call(&CONTAINER_INSPECT, &[name], &InspectQuery::default(), &())?;
    let refusal = if !inspect.state.running {
        Some("You cannot attach to a stopped container, start it first")
    } else if inspect.state.paused {
        Some("You cannot attach to a paused container, unpause it first")
    } else if inspect.state.restarting {
        Some("You cannot attach to a restarting container, wait until it is running")
    } else {
        None
    };
    if let Some(refusal) = refusal {
        return Err(Error::Local(refusal.to_owned()));
    }
    let tty = inspect.config.tty;
    let stdin = request.stdin && inspect.config.open_stdin;
    if tty && stdin && !terminal::is_typed() {
        return Err(not_a_terminal());
    }
    let waiting = wait(context, name, "not-running")?;
    let query = AttachQuery {
        stream: true,
        logs: false,
        stdin,
        stdout: true,
        stderr: true,
        detach_keys: request.keys_text,
    };
    let connection = context.hijack(&CONTAINER_ATTACH, &[name], &query, &())?;
    watch_signals(context, name, Target::Container, tty, request.sig_proxy && !tty)?;
    let conversation = converse(connection, Wiring { stdin, tty }, request.keys)?;
    if tty {
        redraw(context, name);
    }
    match conversation.finish()? {
        true => Ok(detached()),
        false => waiting.code().map(exit_code),
    }
}

/// What the user sees on detaching, and the exit code of it.
pub fn detached() -> u8 {
    super::super::say("read escape sequence");
    0
}

pub fn not_a_terminal() -> Error {
    Error::Refused("the input device is not a TTY".to_owned())
}

/// What the terminal's size belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Container,
    Exec,
}

/// Tells the other side the size of our terminal, if we have one.
pub fn resize(context: &Context, id: &str, target: Target) -> Result<(), Error> {
    let Some(size) = terminal::size() else { return Ok(()) };
    resize_to(context, id, target, size.rows, size.columns)
}

fn resize_to(context: &Context, id: &str, target: Target, rows: u16, columns: u16) -> Result<(), Error> {
    let query = ResizeQuery { height: Some(rows.into()), width: Some(columns.into()) };
    match target {
        Target::Container => context.call(&CONTAINER_RESIZE, &[id], &query, &()),
        Target::Exec => context.call(&EXEC_RESIZE, &[id], &query, &()),
    }
}

/// A program that joins late draws nothing until its terminal changes: make it change.
fn redraw(context: &Context, id: &str) {
    let Some(size) = terminal::size() else { return };
    // A container that ends meanwhile has nothing to draw.
    let _ = resize_to(context, id, Target::Container, size.rows.saturating_add(1), size.columns);
    let _ = resize_to(context, id, Target::Container, size.rows, size.columns);
}

/// Signals that are passed on. Not: what cannot be caught, CHLD and PIPE (ours), WINCH (a new size).
const PASSED_ON: &[(i32, &str)] = &[
    (signal::SIGHUP, "HUP"),
    (signal::SIGINT, "INT"),
    (signal::SIGQUIT, "QUIT"),
    (signal::SIGUSR1, "USR1"),
    (signal::SIGUSR2, "USR2"),
    (signal::SIGALRM, "ALRM"),
    (signal::SIGTERM, "TERM"),
    (signal::SIGCONT, "CONT"),
    (signal::SIGTSTP, "TSTP"),
    (signal::SIGTTIN, "TTIN"),
    (signal::SIGTTOU, "TTOU"),
];

/// Passes signals on to the container (`proxy`) and follows the size of the terminal (`tty`), on a thread
/// that lives as long as the process.
pub fn watch_signals(
    context: &Context,
    id: &str,
    target: Target,
    tty: bool,
    proxy: bool,
) -> Result<(), Error> {
    let mut wanted: Vec<i32> = Vec::new();
    if tty && terminal::is_watched() {
        wanted.push(signal::SIGWINCH);
    }
    if proxy {
        wanted.extend(PASSED_ON.iter().map(|(number, _)| *number));
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let failed = |cause| Error::local("watch for signals", cause);
    let mut signals = Signals::new(&wanted).map_err(failed)?;
    let (context, id) = (context.clone(), id.to_owned());
    let watch = move || {
        for number in signals.forever() {
            // Failures have nobody to go to: the container may have ended a moment ago.
            if number == signal::SIGWINCH {
                let _ = resize(&context, &id, target);
            } else if let Some((_, name)) = PASSED_ON.iter().find(|(known, _)| *known == number) {
                let query = KillQuery { signal: (*name).to_owned() };
                let _ = context.call(&CONTAINER_KILL, &[&id], &query, &());
            }
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .stack_size(256 << 10)
        .spawn(watch)
        .map_err(failed)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;

    #[test]
    fn the_request_reads_keys_and_switches() {
        let plain = request(&matches_of("attach web")).unwrap();
        assert_eq!(
            (plain.keys, plain.keys_text, plain.stdin, plain.sig_proxy),
            (vec![16, 17], None, true, true)
        );
        let other =
            request(&matches_of("attach --detach-keys ctrl-a --no-stdin --sig-proxy=false web")).unwrap();
        assert_eq!((other.keys, other.stdin, other.sig_proxy), (vec![1], false, false));
        assert!(request(&matches_of("attach --detach-keys nonsense web")).is_err());
    }
}
