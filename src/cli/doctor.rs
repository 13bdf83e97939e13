//! `dewar doctor`: its flags. `main` has the host looked at, because the client does not know it.

use super::command::{Action, Args, Command, Flag, Matches};
use super::error::Error;

static CONFIG_FILE: Flag = Flag::value(
    "config-file",
    "FILE",
    "Look with the daemon's options in this file (/etc/dewar/daemon.json where there is one)",
);
static CRIU: Flag = Flag::value("criu", "PATH", "The criu to look at (found in PATH otherwise)");
static DATA_ROOT: Flag = Flag::value("data-root", "DIRECTORY", "Where images and containers are to be");
static FORMAT: Flag = Flag::value("format", "FORMAT", "Print as text or json").short('f');

pub static DOCTOR: Command = Command {
    names: &["doctor", "system doctor"],
    summary: "Show what this host has for containers, and what it lacks",
    usage: "[OPTIONS]",
    about: "Asks the kernel, the control groups, the file system below the data root and criu, without a daemon. \
            Whatever is not as it should be says what it costs and how to get it. Leaves nothing behind. The exit \
            code is 1 when something is missing without which no container runs. Run it as root.",
    flags: &[&CONFIG_FILE, &CRIU, &DATA_ROOT, &FORMAT],
    args: Args::NONE,
    example: "dewar doctor --format json",
    usage_code: 1,
    plan: |matches| request(matches).map(Action::Doctor),
};

/// `dewar doctor`'s command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// As in [`daemon::Options`](super::daemon::Options).
    pub given: Vec<(&'static str, Vec<String>)>,
    pub config_file: Option<String>,
    pub is_json: bool,
}

fn request(matches: &Matches) -> Result<Options, Error> {
    let format = |text: &str| match text {
        "json" => Ok(true),
        "text" | "table" => Ok(false),
        _ => Err("expected text or json".to_owned()),
    };
    Ok(Options {
        given: [&CRIU, &DATA_ROOT]
            .into_iter()
            .map(|flag| (flag.long, matches.list(flag)))
            .filter(|(_, values)| !values.is_empty())
            .collect(),
        config_file: matches.get(&CONFIG_FILE).filter(|path| !path.is_empty()).map(str::to_owned),
        is_json: matches.read(&FORMAT, format)?.unwrap_or(false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::{Parsed, parse};

    #[test]
    fn flags_become_options_of_the_daemon() {
        let options = |line: &str| match parse(line.split_whitespace().map(Into::into)).unwrap() {
            Parsed::Run { matches, .. } => request(&matches),
            other => panic!("{other:?}"),
        };
        assert_eq!(options("doctor").unwrap(), Options::default());
        let all = options("doctor --data-root /d --criu /c -f json").unwrap();
        assert_eq!(all.given, [("criu", vec!["/c".to_owned()]), ("data-root", vec!["/d".to_owned()])]);
        assert!(all.is_json && options("doctor -f yaml").is_err());
    }
}
