//! `docker-init`: the smallest pid 1. Runs one command, forwards signals to it, reaps orphans, and ends with
//! the command's code.
//!
//! The dewar binary bound read-only at /sbin/docker-init and executed there, as Docker does with its own, so
//! that everything the process maps is found inside the container when it is checkpointed. It holds no
//! descriptor but the three streams.
//!
//! ```text
//!   fork ─► command, in a process group of its own, in the foreground of the terminal if there is one
//!   loop: take a signal ─ CHLD ► reap all; the command's end is ours
//!                       └ else ► forward
//! ```

use std::env;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::process::ExitCode;

use rustix::process::Pid;

use super::command;
use crate::runtime::sys::process::{self, Side};
use crate::runtime::sys::signal;

/// The name in `argv[0]` that selects this mode.
pub const NAME: &str = "docker-init";

/// Runs the command of our own argv: `docker-init [--] COMMAND [ARG...]`.
pub fn entry() -> ExitCode {
    let mut args: Vec<OsString> = env::args_os().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "--") {
        args.remove(0);
    }
    let code = run(&args);
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Runs `args` to its end and returns its exit code; 126 or 127 when it cannot be run. The process must have
/// one thread.
pub fn run(args: &[OsString]) -> i32 {
    signal::block_all();
    // The pidfd goes at once: CRIU cannot save one.
    let child = match process::fork() {
        Ok(Side::Child) => become_command(args),
        Ok(Side::Parent { pid, .. }) => pid,
        Err(error) => {
            log(&format!("cannot fork: {error}"));
            return 125;
        }
    };
    loop {
        match signal::wait() {
            libc::SIGCHLD => {
                while let Some(ended) = process::reap() {
                    if ended.pid == child {
                        return ended.code;
                    }
                }
            }
            // Raised by the terminal at our own doing; forwarding it would stop or confuse the command.
            libc::SIGTTIN | libc::SIGTTOU => {}
            // ESRCH: it has ended, and its SIGCHLD is on the way.
            number => drop(signal::kill(child, number)),
        }
    }
}

fn become_command(args: &[OsString]) -> ! {
    // Still blocked: SIGTTOU must not stop us while we are no foreground process. Without a terminal, or one
    // that is not ours, there is no foreground to take.
    let own = rustix::process::getpid();
    if rustix::process::setpgid(Some(own), Some(own)).is_ok() {
        take_foreground(own);
    }
    signal::reset();
    let path = env::var("PATH").unwrap_or_default();
    let name = args.first().map_or_else(Default::default, |arg| arg.to_string_lossy());
    let env: Vec<OsString> = env::vars_os()
        .map(|(key, value)| {
            let mut entry = key;
            entry.push("=");
            entry.push(value);
            entry
        })
        .collect();
    let error = match (command::find(&name, &path), command::c_strings(args), command::c_strings(&env)) {
        (Ok(file), Ok(args), Ok(env)) => command::execute(&file, &args, &env),
        (Err(error), ..) => error,
        (_, Err(message), _) | (.., Err(message)) => crate::runtime::CommandError { exit_code: 126, message },
    };
    log(&error.message);
    process::exit(i32::from(error.exit_code))
}

fn take_foreground(group: Pid) {
    let stdin = rustix::stdio::stdin();
    if rustix::termios::isatty(stdin.as_fd()) {
        let _ = rustix::termios::tcsetpgrp(stdin, group);
    }
}

fn log(message: &str) {
    // Nobody is left to tell if stderr is closed.
    let _ = rustix::io::write(rustix::stdio::stderr(), format!("{NAME}: {message}\n").as_bytes());
}
