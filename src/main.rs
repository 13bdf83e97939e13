//! dewar: a container engine in one static binary.
//!
//! `main` picks a mode and joins the pieces: client mode turns argv into API calls, `dewar daemon` serves
//! the API with the route table, and names in `argv[0]` that no user types enter the programs dewar starts
//! from its own file: the shim, its helper that compresses logs, CRIU's launcher and hook, the relay of a move's memory, and
//! the init of `--init`.

mod cli;
mod daemon;
mod http;
mod routes;
mod runtime;

use std::io::Write;
use std::process::ExitCode;

use daemon::config::Config;
use daemon::config::load::{Given, load};
use daemon::logger::Destination;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    if name == runtime::shim::NAME {
        return runtime::shim::main(&args.collect::<Vec<_>>());
    }
    if name == runtime::criu::LAUNCHER_NAME {
        return runtime::criu::launcher::main(&args.collect::<Vec<_>>());
    }
    if name == runtime::criu::relay::NAME {
        return runtime::criu::relay::main();
    }
    if name == runtime::shim::log::compress::NAME {
        return runtime::shim::log::compress::main(&args.collect::<Vec<_>>());
    }
    // CRIU calls it by its path.
    if std::path::Path::new(&name).file_name() == Some(runtime::criu::stream::HOOK_NAME.as_ref()) {
        return runtime::criu::stream::hook_main();
    }
    // Bound into containers at /sbin/docker-init, it is called by its path.
    if std::path::Path::new(&name).file_name() == Some(runtime::init::reaper::NAME.as_ref()) {
        return runtime::init::reaper::entry();
    }
    match cli::run(args) {
        cli::Outcome::Exit(code) => ExitCode::from(code),
        cli::Outcome::Daemon(options) => run_daemon(options),
        cli::Outcome::Doctor(options) => run_doctor(options),
    }
}

/// What the daemon serves.
const TABLES: daemon::Tables = daemon::Tables {
    routes: routes::ROUTES,
    middlewares: routes::MIDDLEWARES,
    metrics: routes::metrics::METRICS,
};

/// Becomes the daemon: options merged, its log opened, and one word about why it ended.
fn run_daemon(options: cli::daemon::Options) -> ExitCode {
    let given = Given { flags: options.given, file: options.config_file };
    match load(&given, &|name| std::env::var(name).ok()) {
        Ok(loaded) if options.validate => match daemon::validate(&loaded.config) {
            Ok(()) => {
                loaded.notes.iter().for_each(|note| say(note));
                say("configuration OK");
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error),
        },
        Ok(loaded) => {
            if let Err(error) = open_log(&loaded.config) {
                return failed(&error);
            }
            let is_log_elsewhere = loaded.config.log_to != Destination::Stderr;
            runtime::sys::memory::keep_small();
            match daemon::run(loaded, &given, TABLES) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    if is_log_elsewhere {
                        log::error!("failed to start daemon: {error}");
                    }
                    failed(&error)
                }
            }
        }
        Err(error) => failed(&error),
    }
}

/// Looks at this host with the configuration the daemon would have.
fn run_doctor(options: cli::doctor::Options) -> ExitCode {
    use daemon::doctor::{Format, run};
    let given = Given { flags: options.given, file: options.config_file };
    let format = if options.is_json { Format::Json } else { Format::Text };
    let looked =
        load(&given, &|name| std::env::var(name).ok()).and_then(|loaded| run(&loaded.config, format));
    match looked {
        Ok((text, usable)) => {
            // A reader that has seen enough is no failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            say(&format!("dewar: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Opens the log. What is said of other crates is only said when it is a warning.
///
/// `DEWAR_LOG` holds env_logger's directives, for whoever looks for a fault in one module; it leaves the level to
/// options that are given.
///
/// # Errors
/// It is to go to a file that cannot be opened.
fn open_log(config: &Config) -> daemon::error::Result<()> {
    let mut builder = env_logger::Builder::new();
    daemon::logger::prepare(&mut builder, config)?;
    builder.filter_level(log::LevelFilter::Warn).filter_module("dewar", log::LevelFilter::Trace);
    let is_level_given = config.values.contains_key("log-level") || config.debug;
    if let Some(directives) =
        std::env::var("DEWAR_LOG").ok().filter(|text| !text.is_empty() && !is_level_given)
    {
        builder.parse_filters(&directives);
        builder.init();
        return Ok(());
    }
    builder.init();
    log::set_max_level(daemon::log_level(config));
    Ok(())
}

/// Why it ended, where init scripts look.
fn failed(error: &daemon::error::Error) -> ExitCode {
    say(&format!("dewar: failed to start daemon: {error}"));
    ExitCode::FAILURE
}

/// One line on stderr.
fn say(text: &str) {
    // Nobody is left to be told when stderr is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the daemon can be told by flag has a flag, and each flag tells it something.
    #[test]
    fn the_daemons_flags_and_options_agree() {
        let mut flags: Vec<&str> = cli::daemon::flags().collect();
        let options = daemon::config::options::OPTIONS.iter();
        let mut known: Vec<&str> =
            options.map(|option| option.flag).filter(|flag| !flag.is_empty()).collect();
        flags.sort_unstable();
        known.sort_unstable();
        assert_eq!(flags, known);
    }

    #[test]
    fn the_manual_of_the_configuration_file_is_the_tables() {
        use daemon::config::ignored::{IGNORED, REFUSED};
        use daemon::config::options::{OPTIONS, Set, When};
        let kind = |set: &Set| match set {
            Set::Switch(_) => "boolean",
            Set::Number(_) => "number",
            Set::Text(_) => "string",
            Set::List(_) => "list of strings",
            Set::Map(_) => "object",
            Set::Maps(_) => "object of objects",
            Set::Objects(_) => "list of objects",
        };
        let mut keys: Vec<cli::man::Key> = OPTIONS
            .iter()
            .filter(|option| !option.key.is_empty())
            .map(|option| cli::man::Key {
                name: option.key,
                flag: option.flag,
                kind: kind(&option.set),
                is_reloaded: option.when == When::Reload,
            })
            .collect();
        keys.sort_by_key(|key| key.name);
        cli::man::assert_committed("dewar-daemon.json.5", &cli::man::configuration(&keys, IGNORED, REFUSED));
    }
}
