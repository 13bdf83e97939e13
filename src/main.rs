//! dewar: a container engine in one static binary.
//!
//! `main` picks a mode and joins the pieces: client mode turns argv into API calls, `dewar daemon` serves
//! the API, and a name in `argv[0]` that no user types enters the shim.

mod cli;
mod daemon;
mod http;
mod runtime;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(std::env::args_os().skip(1)) {
        cli::Outcome::Exit(code) => ExitCode::from(code),
        cli::Outcome::Daemon(options) => {
            log::error!("this build serves nothing yet: {options:?}");
            ExitCode::FAILURE
        }
    }
}
