//! What can go wrong on the client's side, its words and its exit codes.
//!
//! | what | words | exit code |
//! |---|---|---|
//! | wrong command line | what is wrong, the usage line, where to read on | the command's (1, or 125 for `run`) |
//! | no daemon there | `cannot connect to the dewar daemon at …` | 69 (`EX_UNAVAILABLE`) |
//! | versions do not meet | the daemon's words, or `… does not speak the Engine API` | 76 (`EX_PROTOCOL`) |
//! | socket refused | `permission denied …: join the group …` | 77 (`EX_NOPERM`) |
//! | the daemon said no | `Error response from daemon: …` | 1 |
//!
//! `run`, whose exit code belongs to the container, uses 125, 126 and 127 instead; `exec` gets 126 and 127 from
//! the daemon, which tried.

use std::fmt;

use super::command::{Command, Flag};

/// A failure that ends the command.
#[derive(Debug)]
pub enum Error {
    /// The command line is wrong. `command` is the one it was meant for, once known.
    Usage { message: String, command: Option<&'static Command> },
    /// Nothing answers at the daemon's address.
    Missing(String),
    /// The daemon's socket may not be opened.
    Permission(String),
    /// Client and daemon have no API version in common, or the peer speaks something else.
    Version(String),
    /// The daemon's own refusal: its words, and the status they came with.
    Daemon { status: u16, message: String },
    /// A failure on this side.
    Local(String),
    /// Several objects were named and some failed; the messages are already printed.
    Reported,
    /// Whoever reads our output has gone.
    BrokenPipe,
}

impl Error {
    pub fn usage(message: impl Into<String>) -> Error {
        Error::Usage { message: message.into(), command: None }
    }

    /// A flag's value that does not read.
    pub fn value(flag: &'static Flag, value: &str, cause: &str) -> Error {
        Error::usage(format!("invalid argument {value:?} for \"{}\": {cause}", flag.spelling()))
    }

    /// An attempt on this side and its cause.
    pub fn local(attempt: impl fmt::Display, cause: impl fmt::Display) -> Error {
        Error::Local(format!("{attempt}: {cause}"))
    }

    /// Whether the daemon says the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Daemon { status: 404, .. })
    }

    /// The exit code outside `run`.
    pub fn code(&self) -> u8 {
        match self {
            Error::Usage { command: Some(command), .. } => command.usage_code,
            Error::Usage { command: None, .. } | Error::Daemon { .. } | Error::Local(_) | Error::Reported => {
                1
            }
            Error::Missing(_) => 69,
            Error::Version(_) => 76,
            Error::Permission(_) => 77,
            Error::BrokenPipe => 0,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage { message, .. }
            | Error::Missing(message)
            | Error::Permission(message)
            | Error::Version(message)
            | Error::Local(message) => out.write_str(message),
            Error::Daemon { message, .. } => write!(out, "Error response from daemon: {message}"),
            Error::Reported => out.write_str("some of the objects named failed"),
            Error::BrokenPipe => out.write_str("the reader of the output has gone"),
        }
    }
}

/// The exit code of a container command that failed before the container ran, from the daemon's words.
///
/// Compat: Docker's client decides by these texts, so scripts rely on 126 and 127.
pub fn container_code(error: &Error) -> u8 {
    let Error::Daemon { message, .. } = error else { return 125 };
    let says = |text: &str| message.contains(text);
    if says("executable file not found") || says("no such file or directory") {
        127
    } else if says("permission denied") || says("is a directory") {
        126
    } else {
        125
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(message: &str) -> Error {
        Error::Daemon { status: 400, message: message.to_owned() }
    }

    #[test]
    fn the_daemons_words_choose_125_126_or_127() {
        let code = |message| container_code(&daemon(message));
        assert_eq!(code("exec: \"nope\": executable file not found in $PATH"), 127);
        assert_eq!(code("stat /nope: no such file or directory"), 127);
        assert_eq!(code("exec /etc/passwd: permission denied"), 126);
        assert_eq!(code("exec /etc: is a directory"), 126);
        assert_eq!(code("No such image: x"), 125);
        assert_eq!(container_code(&Error::Missing(String::new())), 125);
    }

    #[test]
    fn the_four_failures_to_reach_a_daemon_have_codes_of_their_own() {
        let errors = [
            Error::Missing(String::new()),
            Error::Permission(String::new()),
            Error::Version(String::new()),
            daemon("x"),
        ];
        let mut codes: Vec<u8> = errors.iter().map(Error::code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), errors.len());
    }
}
