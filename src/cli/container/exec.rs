//! `dewar exec`: a further process in a running container.

use crate::cli::command::{Action, Args, Command, Flag, Matches};
use crate::cli::context::Context;
use crate::cli::error::Error;
use crate::cli::terminal::{self, Wiring, converse};
use crate::http::api::exec::{CONTAINER_EXEC, EXEC_INSPECT, EXEC_START, ExecCreate, ExecStart};

use super::attach::{self, Target};
use super::exit_code;
use super::values;

static DETACH: Flag = Flag::switch("detach", "Leave the process in the background").short('d');
static DETACH_KEYS: Flag =
    Flag::value("detach-keys", "KEYS", "Keys that detach from the process (ctrl-p,ctrl-q)");
static ENV: Flag =
    Flag::many("env", "NAME[=VALUE]", "Set an environment variable, or pass one on").short('e');
static ENV_FILE: Flag = Flag::many("env-file", "FILE", "Set the environment variables a file lists");
static INTERACTIVE: Flag = Flag::switch("interactive", "Send stdin to the process").short('i');
static PRIVILEGED: Flag = Flag::switch("privileged", "Give the process nearly all the rights of the host");
static TTY: Flag = Flag::switch("tty", "Give the process a terminal").short('t');
static USER: Flag = Flag::value("user", "USER[:GROUP]", "User to run as, by name or number").short('u');
static WORKDIR: Flag = Flag::value("workdir", "PATH", "Working directory of the process").short('w');

pub static EXEC: Command = Command {
    names: &["exec", "container exec"],
    summary: "Run a further command in a running container",
    usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
    about: "",
    flags: &[&DETACH, &DETACH_KEYS, &ENV, &ENV_FILE, &INTERACTIVE, &PRIVILEGED, &TTY, &USER, &WORKDIR],
    args: Args::at_least(2).greedy(),
    example: "dewar exec -it web sh",
    usage_code: 1,
    plan: |matches| {
        let request = request(matches)?;
        Action::call(move |context| exec(context, request))
    },
};

#[derive(Debug)]
struct Request {
    container: String,
    create: ExecCreate,
    detach: bool,
    keys: Vec<u8>,
}

fn request(matches: &Matches) -> Result<Request, Error> {
    let detach = matches.is(&DETACH);
    let mut env: Vec<String> = Vec::new();
    for path in matches.all(&ENV_FILE) {
        // Compat: a file that is not there is 1 here, in the words docker has for it.
        std::fs::metadata(path).map_err(|cause| Error::open(path, &cause))?;
    }
    for lines in matches.read_all(&ENV_FILE, values::lines_of)? {
        // A bare name the client has no value for is passed over here, unlike with --env.
        env.extend(
            lines.iter().filter_map(|line| values::env(line).ok()).filter(|entry| entry.contains('=')),
        );
    }
    env.extend(matches.read_all(&ENV, values::env)?);
    let create = ExecCreate {
        user: matches.text(&USER),
        privileged: matches.is(&PRIVILEGED),
        tty: matches.is(&TTY),
        console_size: None,
        attach_stdin: !detach && matches.is(&INTERACTIVE),
        attach_stdout: !detach,
        attach_stderr: !detach,
        detach_keys: matches.text(&DETACH_KEYS),
        env,
        working_dir: matches.text(&WORKDIR),
        cmd: matches.args[1..].to_vec(),
    };
    Ok(Request {
        container: matches.args[0].clone(),
        create,
        detach,
        keys: attach::keys(matches, &DETACH_KEYS)?,
    })
}

fn exec(context: &Context, mut request: Request) -> Result<u8, Error> {
    let mut keys = Some(std::mem::take(&mut request.create.detach_keys));
    attach::settle(context, &mut keys, &mut request.keys)?;
    request.create.detach_keys = keys.unwrap_or_default();
    let tty = request.create.tty;
    if tty && request.create.attach_stdin && !terminal::is_typed() {
        return Err(attach::not_a_terminal());
    }
    let console_size = terminal::size().filter(|_| tty).map(|size| [size.rows, size.columns]);
    request.create.console_size = console_size;
    let id = context.call(&CONTAINER_EXEC, &[&request.container], &(), &request.create)?.id;
    let start = ExecStart { detach: request.detach, tty, console_size };
    if request.detach {
        return context.call(&EXEC_START, &[&id], &(), &start).map(|()| 0);
    }
    let connection = context.hijack(&EXEC_START, &[&id], &(), &start)?;
    attach::watch_signals(context, &id, Target::Exec, tty, false)?;
    let wiring = Wiring { stdin: request.create.attach_stdin, tty };
    let conversation = converse(connection, wiring, request.keys)?;
    if tty {
        // The process may be over already; then its size does not matter.
        let _ = attach::resize(context, &id, Target::Exec);
    }
    if conversation.finish()? {
        return Ok(attach::detached());
    }
    // The code is there when the stream ends; none means that the process left its output to another.
    let inspect = context.call(&EXEC_INSPECT, &[&id], &(), &())?;
    Ok(inspect.exit_code.map_or(0, |code| exit_code(code.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;

    #[test]
    fn the_request_carries_every_flag() {
        let line = "exec -it -e A=1 -u 1:2 -w /srv --privileged web ls -l";
        let made = request(&matches_of(line)).unwrap();
        assert_eq!(made.container, "web");
        let create = made.create;
        assert_eq!(create.cmd, ["ls", "-l"]);
        assert!(create.tty && create.privileged && create.attach_stdin && create.attach_stdout);
        assert_eq!((create.user.as_str(), create.working_dir.as_str()), ("1:2", "/srv"));
        assert_eq!(create.env, ["A=1"]);
    }

    #[test]
    fn a_detached_process_is_attached_to_nothing() {
        let made = request(&matches_of("exec -di web sleep 1")).unwrap();
        let create = made.create;
        assert!(made.detach && !create.attach_stdin && !create.attach_stdout && !create.attach_stderr);
    }
}
