//! `dewar daemon`: its flags, read into plain options for `main` to hand to the daemon.
//!
//! The client does not know the daemon; what a flag that is not given means is decided there.

use super::command::{Action, Args, Command, Flag, Matches};
use super::error::Error;

static HOST: Flag =
    Flag::many("host", "URL", "Address to serve: unix://PATH, or tcp://127.0.0.1:PORT with --insecure-tcp")
        .short('H');
static DATA_ROOT: Flag =
    Flag::value("data-root", "DIRECTORY", "What must survive a reboot: images, containers, checkpoints");
static EXEC_ROOT: Flag =
    Flag::value("exec-root", "DIRECTORY", "What need not survive a reboot: sockets, mounts, pids");
static PIDFILE: Flag =
    Flag::value("pidfile", "FILE", "Write the daemon's process ID to this file").short('p');
static GROUP: Flag = Flag::value("group", "GROUP", "Group that may use the unix socket").short('G');
static CRIU: Flag = Flag::value("criu", "PATH", "The criu that freezes and thaws (found in PATH otherwise)");
static DEBUG: Flag = Flag::switch("debug", "Log at level debug").short('D');
static LOG_LEVEL: Flag =
    Flag::value("log-level", "LEVEL", "Log at level error, warn, info, debug or trace").short('l');
static INSECURE_TCP: Flag =
    Flag::switch("insecure-tcp", "Allow tcp on a loopback address: everyone on this machine becomes root");
static READY_FD: Flag =
    Flag::value("ready-fd", "NUMBER", "Write a line to this descriptor once requests are answered");
static SHUTDOWN_TIMEOUT: Flag =
    Flag::value("shutdown-timeout", "SECONDS", "Time containers get to stop when the daemon ends");
static LIVE_RESTORE: Flag =
    Flag::switch("live-restore", "Leave containers running when the daemon ends, and take them up again");
static VALIDATE: Flag = Flag::switch("validate", "Check flags and configuration, then exit");

pub static DAEMON: Command = Command {
    names: &["daemon"],
    summary: "Serve the Engine API and look after the containers",
    usage: "[OPTIONS]",
    about: "Runs in the foreground until it gets SIGTERM or SIGINT. Containers belong to processes of \
            their own, so even a daemon that is killed loses none of them.",
    flags: &[
        &CRIU,
        &DATA_ROOT,
        &DEBUG,
        &EXEC_ROOT,
        &GROUP,
        &HOST,
        &INSECURE_TCP,
        &LIVE_RESTORE,
        &LOG_LEVEL,
        &PIDFILE,
        &READY_FD,
        &SHUTDOWN_TIMEOUT,
        &VALIDATE,
    ],
    args: Args::NONE,
    example: "dewar daemon --data-root /var/lib/dewar -H unix:///run/dewar.sock",
    usage_code: 1,
    plan: |matches| request(matches).map(Action::Daemon),
};

/// `dewar daemon`'s flags. `None` and empty mean that the flag was not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub hosts: Vec<String>,
    pub data_root: Option<String>,
    pub exec_root: Option<String>,
    pub pidfile: Option<String>,
    /// By name or number.
    pub group: Option<String>,
    pub criu: Option<String>,
    pub debug: bool,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: Option<String>,
    /// Serving tcp without TLS was asked for in so many words.
    pub insecure_tcp: bool,
    /// An inherited descriptor, at least 3.
    pub ready_fd: Option<i32>,
    pub shutdown_timeout_secs: Option<u64>,
    pub live_restore: Option<bool>,
    pub validate: bool,
}

fn request(matches: &Matches) -> Result<Options, Error> {
    let level = |text: &str| match text.to_ascii_lowercase().as_str() {
        level @ ("error" | "warn" | "info" | "debug" | "trace") => Ok(level.to_owned()),
        // Compat: dockerd's name for what ends the program.
        "fatal" => Ok("error".to_owned()),
        _ => Err("expected error, warn, info, debug or trace".to_owned()),
    };
    let fd = |text: &str| match text.parse() {
        Ok(fd) if fd >= 3 => Ok(fd),
        _ => Err("expected the number of an inherited descriptor, 3 or above".to_owned()),
    };
    let path = |flag: &'static Flag| matches.get(flag).filter(|path| !path.is_empty()).map(str::to_owned);
    Ok(Options {
        hosts: matches.list(&HOST),
        data_root: path(&DATA_ROOT),
        exec_root: path(&EXEC_ROOT),
        pidfile: path(&PIDFILE),
        group: path(&GROUP),
        criu: path(&CRIU),
        debug: matches.is(&DEBUG),
        log_level: matches.read(&LOG_LEVEL, level)?,
        insecure_tcp: matches.is(&INSECURE_TCP),
        ready_fd: matches.read(&READY_FD, fd)?,
        shutdown_timeout_secs: matches.parse(&SHUTDOWN_TIMEOUT, "a number of seconds")?,
        live_restore: matches.given(&LIVE_RESTORE).then(|| matches.is(&LIVE_RESTORE)),
        validate: matches.is(&VALIDATE),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::{Parsed, parse};

    fn options(line: &str) -> Result<Options, Error> {
        match parse(line.split_whitespace().map(Into::into))? {
            Parsed::Run { matches, .. } => request(&matches),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_become_options() {
        assert_eq!(options("daemon").unwrap(), Options::default());
        let all = options(
            "daemon -H unix:///a -H tcp://127.0.0.1:2375 --data-root /d --exec-root /e -p /p -G adm \
             --criu /c -D -l DEBUG --insecure-tcp --ready-fd 3 --shutdown-timeout 5 --live-restore=false --validate",
        );
        assert_eq!(
            all.unwrap(),
            Options {
                hosts: vec!["unix:///a".into(), "tcp://127.0.0.1:2375".into()],
                data_root: Some("/d".into()),
                exec_root: Some("/e".into()),
                pidfile: Some("/p".into()),
                group: Some("adm".into()),
                criu: Some("/c".into()),
                debug: true,
                log_level: Some("debug".into()),
                insecure_tcp: true,
                ready_fd: Some(3),
                shutdown_timeout_secs: Some(5),
                live_restore: Some(false),
                validate: true,
            }
        );
        assert!(options("daemon -l loud").is_err() && options("daemon --ready-fd 1").is_err());
    }
}
