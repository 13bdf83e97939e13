//! dewar: a container engine in one static binary.
//!
//! `main` picks a mode and joins the pieces: client mode turns argv into API calls, `dewar daemon` serves
//! the API, and a name in `argv[0]` that no user types enters the shim, or a container's minimal init.

mod cli;
mod daemon;
mod http;
mod runtime;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

use runtime::init::reaper;

fn main() -> ExitCode {
    let program = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    if program.file_name() == Some(OsStr::new(reaper::NAME)) {
        return reaper::entry();
    }
    match cli::run(std::env::args_os().skip(1)) {
        cli::Outcome::Exit(code) => ExitCode::from(code),
        cli::Outcome::Daemon(options) => {
            log::error!("this build serves nothing yet: {options:?}");
            ExitCode::FAILURE
        }
    }
}
