//! Client mode: understand argv, do what the command says, print the outcome.
//!
//! ```text
//! argv ──parse──▶ command + matches ──plan──▶ action ──▶ calls to the daemon ──▶ exit code
//! ```
//!
//! Everything a command is lies in one table (`commands.rs`); help, manual pages and completions are read
//! off it. The client knows the wire and the terminal, nothing of the engine.
//!
//! Not here: the daemon. `dewar daemon` is parsed here and run by `main`.

mod age;
mod build;
mod checkpoint;
mod clone;
mod command;
mod commands;
mod complete;
mod config;
mod container;
mod context;
mod contexts;
mod credentials;
pub mod daemon;
mod disk_usage;
pub mod doctor;
mod error;
mod format;
mod help;
mod image;
mod inspect;
mod login;
mod manifest;
mod migrate;
mod network;
// The pages are committed; a test writes and compares them, the program never does.
#[cfg(test)]
pub mod man;
mod parse;
mod progress;
mod prune;
mod reference;
mod registry;
mod restore;
mod system;
mod terminal;
mod time;
mod volume;

use std::ffi::OsString;
use std::io::Write;

use command::{Action, Command, Fate, Matches};
use context::{Context, print};
use error::Error;
use parse::Parsed;

/// What is left to do when the command line has been dealt with.
#[derive(Debug)]
pub enum Outcome {
    /// End with this code.
    Exit(u8),
    /// Become the daemon.
    Daemon(daemon::Options),
    /// Look at this host.
    Doctor(doctor::Options),
}

/// Runs the command line, without the program's own name.
pub fn run(argv: impl IntoIterator<Item = OsString>) -> Outcome {
    match attempt(argv) {
        Ok(outcome) => outcome,
        Err((error, code)) => {
            report(&error);
            Outcome::Exit(code)
        }
    }
}

fn attempt(argv: impl IntoIterator<Item = OsString>) -> Result<Outcome, (Error, u8)> {
    let plainly = |error: Error| {
        let code = error.code();
        (error, code)
    };
    let (command, matches, globals) = match parse::parse(argv).map_err(plainly)? {
        Parsed::Help(topic) => {
            let text = help::help(&topic);
            return print(&text).map(|()| Outcome::Exit(0)).map_err(plainly);
        }
        Parsed::Question(topic) => {
            say(help::help(&topic).trim_end());
            return Ok(Outcome::Exit(0));
        }
        Parsed::Version => {
            let text = format!("dewar version {}\n", env!("CARGO_PKG_VERSION"));
            return print(&text).map(|()| Outcome::Exit(0)).map_err(plainly);
        }
        Parsed::Run { command, matches, globals, .. } => (command, matches, globals),
    };
    warn(&matches);
    warn(&globals);
    let mine = |error: Error| {
        let error = match error {
            Error::Usage { message, command: None } => Error::Usage { message, command: Some(command) },
            other => other,
        };
        // Compat: where the exit code belongs to the container, ours say whose they are and where to read on.
        let code = code_of(command, &error);
        let error = match error {
            Error::Usage { .. }
            | Error::Words { .. }
            | Error::Refused(_)
            | Error::BrokenPipe
            | Error::Reported => error,
            other if command.usage_code == 125 => {
                Error::Words { message: other.to_string(), hint: help::read_on("run") }
            }
            other => other,
        };
        (error, code)
    };
    match (command.plan)(&matches).map_err(mine)? {
        Action::Daemon(options) => Ok(Outcome::Daemon(options)),
        Action::Doctor(options) => Ok(Outcome::Doctor(options)),
        Action::Call(act) => {
            let context = Context::new(&globals).map_err(mine)?;
            act(&context).map(Outcome::Exit).map_err(mine)
        }
    }
}

/// Where a command's exit code belongs to a container, every failure of ours is 125 or its like.
fn code_of(command: &'static Command, error: &Error) -> u8 {
    match error {
        Error::BrokenPipe => 0,
        _ if command.usage_code == 125 => error::container_code(error),
        _ if std::ptr::eq(command, &system::PING) => error.ping_code(),
        _ => error.code(),
    }
}

/// Flags that are accepted and do nothing say so.
fn warn(matches: &Matches) {
    for flag in matches.unhonoured() {
        if let Fate::Ignored(reason) = flag.fate {
            say(&format!("dewar: warning: --{} is ignored: {reason}", flag.long));
        }
    }
}

fn report(error: &Error) {
    match error {
        Error::BrokenPipe | Error::Reported => {}
        Error::Usage { message, command } => say(&match command {
            Some(command) => format!(
                "{message}\n\n{}\n{}",
                help::usage(command, command.name()),
                help::read_on(command.name())
            ),
            None => format!("{message}\n\nUsage:  dewar [OPTIONS] COMMAND [ARG...]\n\n{}", help::read_on("")),
        }),
        Error::Words { message, hint } => say(&format!("dewar: {message}\n\n{hint}")),
        other => say(&other.to_string()),
    }
}

/// One line on stderr; nobody is left to tell when that fails.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
