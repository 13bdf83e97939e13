//! What can go wrong on the client's side, its words and its exit codes.
//!
//! | what | words | exit code |
//! |---|---|---|
//! | a flag that does not read | what is wrong, the usage line, where to read on | 125 |
//! | too few or too many words, or an unknown one | the same, with the program's name before it | 1 |
//! | no daemon there | `Cannot connect to the Docker daemon at …` | 1 |
//! | versions do not meet | the daemon's words, or `… does not speak the Engine API` | 1 |
//! | socket refused | `permission denied …` | 1 |
//! | the daemon said no | `Error response from daemon: …` | 1 |
//! | a build failed | the daemon's words | the failed step's, else 1 |
//!
//! `run`, whose exit code belongs to the container, uses 125, 126 and 127 instead; `exec` gets 126 and 127 from
//! the daemon, which tried. `ping` alone tells the ways not to reach a daemon apart: 69 (`EX_UNAVAILABLE`),
//! 76 (`EX_PROTOCOL`) and 77 (`EX_NOPERM`).
//!
//! Compat: words and codes are the docker client's, so that scripts can put one in the other's place.

use std::fmt;

use super::command::{Command, Flag};

/// A failure that ends the command.
#[derive(Debug)]
pub enum Error {
    /// A flag is wrong. `command` is the one it was meant for, once known.
    Usage { message: String, command: Option<&'static Command> },
    /// The words are wrong: how many there are, or that one is no command. `hint` says where to read on.
    Words { message: String, hint: String },
    /// Nothing answers at the daemon's address.
    Missing(String),
    /// The daemon's socket may not be opened.
    Permission(String),
    /// Client and daemon have no API version in common, or the peer speaks something else.
    Version(String),
    /// The daemon's own refusal: its words, and the status they came with.
    Daemon { status: u16, message: String },
    /// What the daemon had begun has failed: its words, and the exit code of a build's step that did.
    Stream { message: String, code: u8 },
    /// A failure on this side.
    Local(String),
    /// A failure on this side that is 1 with every command, `run` not excepted.
    Refused(String),
    /// A `--format` of `inspect` that does not parse. 64, docker's code for it.
    Template(String),
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
        Error::usage(format!("invalid argument {value:?} for \"{}\" flag: {cause}", flag.spelling()))
    }

    /// An attempt on this side and its cause.
    pub fn local(attempt: impl fmt::Display, cause: impl fmt::Display) -> Error {
        Error::Local(format!("{attempt}: {cause}"))
    }

    /// A file that does not open, in the words every Go program has for it.
    pub fn open(path: &str, cause: &std::io::Error) -> Error {
        Error::Local(format!("open {path}: {}", go_cause(cause)))
    }

    /// Whether the daemon says the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Daemon { status: 404, .. })
    }

    /// The exit code outside `run`.
    pub fn code(&self) -> u8 {
        match self {
            Error::Usage { .. } => 125,
            Error::Template(_) => 64,
            Error::Stream { code, .. } => *code,
            Error::BrokenPipe => 0,
            _ => 1,
        }
    }

    /// The exit code of `ping`, which is asked why there is no daemon.
    pub fn ping_code(&self) -> u8 {
        match self {
            Error::Missing(_) => 69,
            Error::Version(_) => 76,
            Error::Permission(_) => 77,
            other => other.code(),
        }
    }
}

/// A cause as Go's `os` package words it: no number, no capital.
pub fn go_cause(cause: &std::io::Error) -> String {
    let text = cause.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().into_iter().flat_map(char::to_lowercase).chain(chars).collect()
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage { message, .. }
            | Error::Words { message, .. }
            | Error::Missing(message)
            | Error::Permission(message)
            | Error::Version(message)
            | Error::Local(message)
            | Error::Refused(message)
            | Error::Template(message)
            | Error::Stream { message, .. } => out.write_str(message),
            // Compat: Docker's client takes off the blanks that some of its daemon's words end in.
            Error::Daemon { message, .. } => write!(out, "Error response from daemon: {}", message.trim()),
            Error::Reported => out.write_str("some of the objects named failed"),
            Error::BrokenPipe => out.write_str("the reader of the output has gone"),
        }
    }
}

/// The exit code of a container command that failed before the container ran, from the daemon's words.
///
/// Compat: Docker's client decides by these texts, so scripts rely on 126 and 127.
pub fn container_code(error: &Error) -> u8 {
    let message = match error {
        Error::Daemon { message, .. } => message,
        Error::Words { .. } | Error::Refused(_) => return 1,
        _ => return 125,
    };
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
    fn ping_tells_the_failures_to_reach_a_daemon_apart_and_nothing_else_does() {
        let errors = [
            Error::Missing(String::new()),
            Error::Permission(String::new()),
            Error::Version(String::new()),
            daemon("x"),
        ];
        assert!(errors.iter().all(|error| error.code() == 1));
        let mut codes: Vec<u8> = errors.iter().map(Error::ping_code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), errors.len());
    }

    #[test]
    fn causes_are_worded_as_go_words_them() {
        let cause = std::fs::File::open("/does/not/exist").unwrap_err();
        assert_eq!(
            Error::open("/does/not/exist", &cause).to_string(),
            "open /does/not/exist: no such file or directory"
        );
    }
}
