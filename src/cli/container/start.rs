//! `dewar start`: start what was created or has stopped, or thaw a checkpoint.

use crate::cli::command::{Action, Args, Command, Flag, Matches};
use crate::cli::context::{Context, failing, print};
use crate::cli::error::Error;
use crate::cli::terminal::{self, Wiring, converse};
use crate::http::api::container::{
    AttachQuery, CONTAINER_ATTACH, CONTAINER_INSPECT, CONTAINER_START, InspectQuery, StartQuery,
};

use super::attach::{self, Target};
use super::{exit_code, wait};

static ATTACH: Flag =
    Flag::switch("attach", "Stay with the container: print its output, pass signals on").short('a');
static CHECKPOINT: Flag =
    Flag::value("checkpoint", "NAME", "Thaw this checkpoint instead of starting afresh");
static CHECKPOINT_DIR: Flag =
    Flag::value("checkpoint-dir", "PATH", "Directory of the host that holds the checkpoints");
static DETACH_KEYS: Flag =
    Flag::value("detach-keys", "KEYS", "Keys that detach from the container (ctrl-p,ctrl-q)");
static INTERACTIVE: Flag = Flag::switch("interactive", "Send stdin to the container").short('i');
static TCP_CLOSE: Flag = Flag::switch("tcp-close", "Let the checkpoint's TCP connections come back closed");
static KEEP_VOLUMES: Flag =
    Flag::switch("keep-volumes", "Leave the volumes as they are, whatever the checkpoint has of them");
static TRUST: Flag =
    Flag::switch("trust", "Thaw what may do more than the container may, or was not digested in time");

static LAZY: Flag = Flag::switch("lazy", "Let the checkpoint's processes run before their memory is there");

pub static START: Command = Command {
    names: &["start", "container start"],
    summary: "Start stopped containers, or thaw a checkpoint",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "A container that is thawed has its addresses again, and the ports of the host that led to it, and \
            its TCP connections go on. Where an address is another's by now it gets a new one, and the \
             connections come back closed. A checkpoint that does not fit this machine or this container, or \
             has changed since it was taken, is refused. With --lazy the processes run at once, and wait for each \
             piece of memory when they first need it.",
    flags: &[
        &ATTACH,
        &CHECKPOINT,
        &CHECKPOINT_DIR,
        &DETACH_KEYS,
        &INTERACTIVE,
        &KEEP_VOLUMES,
        &LAZY,
        &TCP_CLOSE,
        &TRUST,
    ],
    args: Args::at_least(1),
    example: "dewar start --checkpoint cp1 web",
    usage_code: 1,
    plan: |matches| {
        let mut request = request(matches)?;
        Action::call(move |context| {
            attach::settle(context, &mut request.keys_text, &mut request.keys)?;
            if request.attach || request.stdin {
                return start_attached(context, &request);
            }
            let failed = failing(&request.containers, |name| {
                context.call(&CONTAINER_START, &[name], &request.query, &())?;
                print(&format!("{name}\n"))
            })?;
            match failed.is_empty() {
                true => Ok(0),
                false => {
                    Err(Error::Local(format!("Error: failed to start containers: {}", failed.join(", "))))
                }
            }
        })
    },
};

#[derive(Debug)]
struct Request {
    containers: Vec<String>,
    query: StartQuery,
    attach: bool,
    stdin: bool,
    keys_text: Option<String>,
    keys: Vec<u8>,
}

fn request(matches: &Matches) -> Result<Request, Error> {
    let request = Request {
        containers: matches.args.clone(),
        query: StartQuery {
            checkpoint: matches.text(&CHECKPOINT),
            checkpoint_dir: matches.text(&CHECKPOINT_DIR),
            detach_keys: String::new(),
            tcp_close: matches.is(&TCP_CLOSE),
            trust: matches.is(&TRUST),
            keep_volumes: matches.is(&KEEP_VOLUMES),
            lazy: matches.is(&LAZY),
        },
        keys_text: matches.get(&DETACH_KEYS).map(str::to_owned),
        attach: matches.is(&ATTACH),
        stdin: matches.is(&INTERACTIVE),
        keys: attach::keys(matches, &DETACH_KEYS)?,
    };
    for flag in [&KEEP_VOLUMES, &LAZY, &TCP_CLOSE, &TRUST] {
        if matches.is(flag) && request.query.checkpoint.is_empty() {
            return Err(Error::Local(format!("--{} goes with --checkpoint", flag.long)));
        }
    }
    if request.containers.len() > 1 {
        if request.attach || request.stdin {
            return Err(Error::Local("you cannot start and attach multiple containers at once".to_owned()));
        }
        if !request.query.checkpoint.is_empty() {
            return Err(Error::Local("you cannot restore multiple containers at once".to_owned()));
        }
    }
    Ok(request)
}

/// Attach and wait come before start, so that neither output nor exit is missed.
fn start_attached(context: &Context, request: &Request) -> Result<u8, Error> {
    let name = &request.containers[0];
    let inspect = context.call(&CONTAINER_INSPECT, &[name], &InspectQuery::default(), &())?;
    let tty = inspect.config.tty;
    let stdin = request.stdin && inspect.config.open_stdin;
    if tty && stdin && !terminal::is_typed() {
        return Err(attach::not_a_terminal());
    }
    let query = AttachQuery {
        stream: true,
        logs: false,
        stdin,
        stdout: true,
        stderr: true,
        detach_keys: request.keys_text.clone().filter(|keys| !keys.is_empty()),
    };
    let connection = context.hijack(&CONTAINER_ATTACH, &[name], &query, &())?;
    let condition = if inspect.host_config.auto_remove { "removed" } else { "next-exit" };
    let waiting = wait(context, name, condition)?;
    attach::watch_signals(context, name, Target::Container, tty, !tty)?;
    context.call(&CONTAINER_START, &[name], &request.query, &())?;
    let conversation = converse(connection, Wiring { stdin, tty }, request.keys.clone())?;
    if tty {
        // The container may be over already; then its size does not matter.
        let _ = attach::resize(context, name, Target::Container);
    }
    match conversation.finish()? {
        true => Ok(attach::detached()),
        false => waiting.code().map(exit_code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;

    #[test]
    fn a_checkpoint_is_named_in_the_query() {
        let made = request(&matches_of("start --checkpoint cp1 --checkpoint-dir /c web")).unwrap();
        assert_eq!((made.query.checkpoint.as_str(), made.query.checkpoint_dir.as_str()), ("cp1", "/c"));
        assert!(!made.attach && !made.stdin && !made.query.tcp_close);
        let made = request(&matches_of("start --checkpoint cp1 --tcp-close web")).unwrap();
        assert!(made.query.tcp_close && !made.query.lazy);
        assert!(request(&matches_of("start --checkpoint cp1 --lazy web")).unwrap().query.lazy);
        let made = request(&matches_of("start -ai web")).unwrap();
        assert!(made.attach && made.stdin);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for line in [
            "start -a a b",
            "start -i a b",
            "start --checkpoint c a b",
            "start --tcp-close a",
            "start --lazy a",
        ] {
            assert!(request(&matches_of(line)).is_err(), "{line}");
        }
        assert_eq!(request(&matches_of("start a b")).unwrap().containers, ["a", "b"]);
    }
}
