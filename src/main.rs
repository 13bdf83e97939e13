//! dewar: a container engine in one static binary.
//!
//! `main` picks a mode and joins the pieces: client mode turns argv into API calls, `dewar daemon` serves
//! the API with the route table, and names in `argv[0]` that no user types enter the programs dewar starts
//! from its own file: the shim, CRIU's launcher, and the init of `--init`.

mod cli;
mod daemon;
mod http;
mod routes;
mod runtime;

use std::io::Write;
use std::process::ExitCode;

use daemon::config::Config;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    if name == runtime::shim::NAME {
        return runtime::shim::main(&args.collect::<Vec<_>>());
    }
    if name == runtime::criu::LAUNCHER_NAME {
        return runtime::criu::launcher_main(&args.collect::<Vec<_>>());
    }
    // Bound into containers at /sbin/docker-init, it is called by its path.
    if std::path::Path::new(&name).file_name() == Some(runtime::init::reaper::NAME.as_ref()) {
        return runtime::init::reaper::entry();
    }
    match cli::run(args) {
        cli::Outcome::Exit(code) => ExitCode::from(code),
        cli::Outcome::Daemon(options) => run_daemon(options),
    }
}

/// Becomes the daemon: flags over defaults, a log on stderr, and one word about why it ended.
fn run_daemon(options: cli::daemon::Options) -> ExitCode {
    let validate = options.validate;
    let level = match (&options.log_level, options.debug) {
        (Some(level), _) => level.as_str(),
        (None, true) => "debug",
        (None, false) => "info",
    };
    let environment = env_logger::Env::default().filter_or("DEWAR_LOG", level);
    env_logger::Builder::from_env(environment).format_target(false).init();
    let result = match validate {
        true => daemon::validate(&config(options)),
        false => {
            runtime::sys::memory::keep_small();
            daemon::run(config(options), routes::ROUTES, routes::MIDDLEWARES)
        }
    };
    match result {
        Ok(()) if validate => say("configuration OK"),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("dewar: failed to start daemon: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// One line on stderr, where init scripts look.
fn say(text: &str) -> ExitCode {
    // Nobody is left to be told when stderr is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::SUCCESS
}

fn config(options: cli::daemon::Options) -> Config {
    let default = Config::default();
    Config {
        hosts: if options.hosts.is_empty() { default.hosts } else { options.hosts },
        data_root: options.data_root.map_or(default.data_root, Into::into),
        exec_root: options.exec_root.map_or(default.exec_root, Into::into),
        pidfile: options.pidfile.map(Into::into),
        group: options.group,
        criu: options.criu.map(Into::into),
        insecure_tcp: options.insecure_tcp,
        ready_fd: options.ready_fd,
        shutdown_timeout_secs: options.shutdown_timeout_secs.unwrap_or(default.shutdown_timeout_secs),
        live_restore: options.live_restore.unwrap_or(default.live_restore),
        debug: options.debug,
        cgroup_parent: None,
    }
}
