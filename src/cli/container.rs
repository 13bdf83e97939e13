//! `dewar container`: the commands that name containers and do one thing to each.
//!
//! The others have files of their own: `run` (and `create`), `start`, `attach`, `exec`, `list`, `logs`,
//! `copy`, `port`, `stats`, `update`. A command that names several containers goes on after a failure, prints what worked as it works,
//! and ends with 1 if anything failed.

pub mod attach;
pub mod copy;
pub mod exec;
pub mod filesystem;
pub mod list;
pub mod logs;
pub mod mount_values;
pub mod network_values;
pub mod port;
pub mod run;
pub mod run_flags;
pub mod start;
pub mod stats;
pub mod update;
pub mod values;

use crate::http::api::container::{
    CONTAINER_DELETE, CONTAINER_KILL, CONTAINER_PAUSE, CONTAINER_RENAME, CONTAINER_RESTART, CONTAINER_STOP,
    CONTAINER_TOP, CONTAINER_UNPAUSE, CONTAINER_WAIT, ContainerTop, ContainerWait, DeleteQuery, KillQuery,
    RenameQuery, StopQuery, TopQuery, WaitQuery,
};

use super::command::{Action, Args, Command, Flag, Matches};
use super::context::{Context, each, print};
use super::error::Error;
use super::format;

static SIGNAL: Flag = Flag::value("signal", "SIGNAL", "Signal to send, by name or number").short('s');
static TIMEOUT: Flag =
    Flag::value("timeout", "SECONDS", "Time between that signal and the kill; -1 waits for ever").short('t');
static TIME: Flag = Flag::value("time", "SECONDS", "The old spelling of --timeout");
static FORCE: Flag = Flag::switch("force", "Kill it first if it runs").short('f');
static LINK: Flag = Flag::switch("link", "Remove a link instead of the container").short('l');
static VOLUMES: Flag = Flag::switch("volumes", "Remove its anonymous volumes too").short('v');

const MANY: &str = "CONTAINER [CONTAINER...]";
const MANY_WITH_FLAGS: &str = "[OPTIONS] CONTAINER [CONTAINER...]";

pub static STOP: Command = Command {
    names: &["stop", "container stop"],
    summary: "Stop running containers",
    usage: MANY_WITH_FLAGS,
    about: "Sends the container's stop signal, then kills what still runs when the time is up.",
    flags: &[&SIGNAL, &TIME, &TIMEOUT],
    args: Args::at_least(1),
    example: "dewar stop -t 5 web",
    usage_code: 1,
    plan: |matches| {
        let query = stop_request(matches)?;
        let names = matches.args.clone();
        Action::call(move |context| {
            each(&names, |name| {
                context.call(&CONTAINER_STOP, &[name], &query, &())?;
                print(&format!("{name}\n"))
            })
        })
    },
};

pub static RESTART: Command = Command {
    names: &["restart", "container restart"],
    summary: "Stop containers and start them again",
    usage: MANY_WITH_FLAGS,
    about: "",
    flags: &[&SIGNAL, &TIME, &TIMEOUT],
    args: Args::at_least(1),
    example: "dewar restart web",
    usage_code: 1,
    plan: |matches| {
        let query = stop_request(matches)?;
        let names = matches.args.clone();
        Action::call(move |context| {
            each(&names, |name| {
                context.call(&CONTAINER_RESTART, &[name], &query, &())?;
                print(&format!("{name}\n"))
            })
        })
    },
};

pub static KILL: Command = Command {
    names: &["kill", "container kill"],
    summary: "Send a signal to running containers",
    usage: MANY_WITH_FLAGS,
    about: "The signal is KILL unless another one is named.",
    flags: &[&SIGNAL],
    args: Args::at_least(1),
    example: "dewar kill -s HUP web",
    usage_code: 1,
    plan: |matches| {
        let query = KillQuery { signal: matches.text(&SIGNAL) };
        let names = matches.args.clone();
        Action::call(move |context| {
            each(&names, |name| {
                context.call(&CONTAINER_KILL, &[name], &query, &())?;
                print(&format!("{name}\n"))
            })
        })
    },
};

pub static PAUSE: Command = Command {
    names: &["pause", "container pause"],
    summary: "Hold every process of containers where it is",
    usage: MANY,
    about: "",
    flags: &[],
    args: Args::at_least(1),
    example: "dewar pause web",
    usage_code: 1,
    plan: |matches| {
        let names = matches.args.clone();
        Action::call(move |context| {
            each(&names, |name| {
                context.call(&CONTAINER_PAUSE, &[name], &(), &())?;
                print(&format!("{name}\n"))
            })
        })
    },
};

pub static UNPAUSE: Command = Command {
    names: &["unpause", "container unpause"],
    summary: "Let paused containers go on",
    usage: MANY,
    about: "",
    flags: &[],
    args: Args::at_least(1),
    example: "dewar unpause web",
    usage_code: 1,
    plan: |matches| {
        let names = matches.args.clone();
        Action::call(move |context| {
            each(&names, |name| {
                context.call(&CONTAINER_UNPAUSE, &[name], &(), &())?;
                print(&format!("{name}\n"))
            })
        })
    },
};

pub static WAIT: Command = Command {
    names: &["wait", "container wait"],
    summary: "Wait until containers stop, and print their exit codes",
    usage: MANY,
    about: "",
    flags: &[],
    args: Args::at_least(1),
    example: "dewar wait web",
    usage_code: 1,
    plan: |matches| {
        let names = matches.args.clone();
        Action::call(move |context| {
            each(&names, |name| {
                let code = wait(context, name, "not-running")?.code()?;
                print(&format!("{code}\n"))
            })
        })
    },
};

pub static RENAME: Command = Command {
    names: &["rename", "container rename"],
    summary: "Give a container another name",
    usage: "CONTAINER NEW_NAME",
    about: "",
    flags: &[],
    args: Args::exactly(2),
    example: "dewar rename web old-web",
    usage_code: 1,
    plan: |matches| {
        let container = matches.args[0].clone();
        let query = RenameQuery { name: matches.args[1].clone() };
        Action::call(move |context| {
            context.call(&CONTAINER_RENAME, &[&container], &query, &()).map(|()| 0).map_err(|error| {
                super::say(&error.to_string());
                Error::Local(format!("Error: failed to rename container named {container}"))
            })
        })
    },
};

pub static RM: Command = Command {
    names: &["rm", "container rm", "container remove"],
    summary: "Remove containers",
    usage: MANY_WITH_FLAGS,
    about: "",
    flags: &[&FORCE, &LINK, &VOLUMES],
    args: Args::at_least(1),
    example: "dewar rm -f web",
    usage_code: 1,
    plan: |matches| {
        let query = remove_request(matches);
        let names = matches.args.clone();
        Action::call(move |context| {
            each(&names, |name| {
                let removed = context.call(&CONTAINER_DELETE, &[name], &query, &());
                match removed {
                    // Compat: with --force a container that is not there is as good as removed.
                    Err(error) if query.force && error.is_not_found() => {
                        super::say(&error.to_string());
                        return Ok(());
                    }
                    other => other?,
                }
                print(&format!("{name}\n"))
            })
        })
    },
};

pub static TOP: Command = Command {
    names: &["top", "container top"],
    summary: "List the processes of a container",
    usage: "CONTAINER [ps OPTIONS]",
    about: "",
    flags: &[],
    args: Args::at_least(1).greedy(),
    example: "dewar top web",
    usage_code: 1,
    plan: |matches| {
        let (container, query) = top_request(matches);
        Action::call(move |context| {
            let top = context.call(&CONTAINER_TOP, &[&container], &query, &())?;
            print(&top_table(top)).map(|()| 0)
        })
    },
};

fn stop_request(matches: &Matches) -> Result<StopQuery, Error> {
    let old = matches.integer(&TIME)?;
    let new = matches.integer(&TIMEOUT)?;
    Ok(StopQuery { timeout_secs: new.or(old), signal: matches.text(&SIGNAL) })
}

fn remove_request(matches: &Matches) -> DeleteQuery {
    DeleteQuery { volumes: matches.is(&VOLUMES), force: matches.is(&FORCE), link: matches.is(&LINK) }
}

fn top_request(matches: &Matches) -> (String, TopQuery) {
    (matches.args[0].clone(), TopQuery { ps_args: matches.args[1..].join(" ") })
}

fn top_table(top: ContainerTop) -> String {
    format::wide_table(&top.titles, top.processes.into_iter())
}

/// A wait that the daemon has accepted: the exit cannot be missed any more.
pub struct Waiting {
    reader: Box<dyn std::io::Read + Send>,
}

/// Asks for the exit code of `name` and returns once the daemon listens for it.
///
/// `condition` is `not-running`, `next-exit` or `removed`.
pub fn wait(context: &Context, name: &str, condition: &str) -> Result<Waiting, Error> {
    let query = WaitQuery { condition: condition.to_owned() };
    Ok(Waiting { reader: context.stream(&CONTAINER_WAIT, &[name], &query, &())? })
}

impl Waiting {
    /// The exit code. Blocks until the container exits.
    pub fn code(mut self) -> Result<i64, Error> {
        let mut answer = Vec::new();
        self.reader
            .read_to_end(&mut answer)
            .map_err(|cause| Error::local("wait for the container", cause))?;
        let answer: ContainerWait =
            serde_json::from_slice(&answer).map_err(|cause| Error::local("wait for the container", cause))?;
        match answer.error {
            Some(error) if !error.message.is_empty() => {
                Err(Error::Daemon { status: 200, message: error.message })
            }
            _ => Ok(answer.status_code),
        }
    }
}

/// A container's exit code as this process's own.
pub fn exit_code(code: i64) -> u8 {
    // Like the shell, which sees the low byte only.
    (code & 0xff) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;

    #[test]
    fn stop_takes_a_signal_and_a_time_in_two_spellings() {
        let query = stop_request(&matches_of("stop -t 5 -s INT a b")).unwrap();
        assert_eq!((query.timeout_secs, query.signal.as_str()), (Some(5), "INT"));
        assert_eq!(stop_request(&matches_of("stop --time=-1 a")).unwrap().timeout_secs, Some(-1));
        assert_eq!(stop_request(&matches_of("restart a")).unwrap().timeout_secs, None);
        let error = stop_request(&matches_of("stop -t soon a")).unwrap_err().to_string();
        assert_eq!(
            error,
            "invalid argument \"soon\" for \"-t, --timeout\" flag: strconv.ParseInt: parsing \"soon\": invalid syntax"
        );
    }

    #[test]
    fn removal_passes_its_switches_on() {
        let query = remove_request(&matches_of("rm -fv a"));
        assert!(query.force && query.volumes && !query.link);
    }

    #[test]
    fn top_hands_on_the_options_of_ps() {
        let (container, query) = top_request(&matches_of("top web -o pid,cmd"));
        assert_eq!((container.as_str(), query.ps_args.as_str()), ("web", "-o pid,cmd"));
        let top = ContainerTop {
            titles: vec!["PID".into(), "CMD".into()],
            processes: vec![vec!["1".into(), "sleep 9".into()]],
        };
        assert_eq!(top_table(top), "PID                 CMD\n1                   sleep 9\n");
    }

    #[test]
    fn a_wait_gives_the_code_or_the_daemons_reason() {
        let waiting = |text: &'static str| Waiting { reader: Box::new(text.as_bytes()) };
        assert_eq!(waiting("{\"StatusCode\":3}\n").code().unwrap(), 3);
        let error = waiting("{\"StatusCode\":0,\"Error\":{\"Message\":\"lost\"}}").code().unwrap_err();
        assert_eq!(error.to_string(), "Error response from daemon: lost");
        assert!(waiting("").code().is_err());
        assert_eq!(exit_code(256 + 7), 7);
    }
}
