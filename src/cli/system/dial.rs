//! `dewar system dial-stdio`: standard input and output joined to the daemon's socket.
//!
//! It is what an `ssh://` host runs on the far side, ours and the docker client's.

use std::io::{self, Read, Write};

use crate::cli::command::{Action, Args, Command};
use crate::cli::context::Context;
use crate::cli::error::Error;
use crate::http::hijack::WriteHalf;

pub static DIAL_STDIO: Command = Command {
    names: &["system dial-stdio"],
    summary: "Join standard input and output to the daemon's socket",
    usage: "",
    about: "Clients on other machines run it by ssh when their host is ssh://…; nobody has to type it.",
    flags: &[],
    args: Args::NONE,
    example: "dewar system dial-stdio",
    usage_code: 1,
    plan: |_| Action::call(join),
};

/// Carries bytes both ways until the daemon has said its last; our end of input is passed on before that.
fn join(context: &Context) -> Result<u8, Error> {
    let (mut daemon, to_daemon) = context.dial()?.split();
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || pass_input(to_daemon))
        .map_err(|cause| Error::local("start a thread", cause))?;
    let mut stdout = io::stdout().lock();
    let mut block = vec![0; 32 * 1024];
    loop {
        let count = match daemon.read(&mut block) {
            // Input that still comes is for nobody.
            Ok(0) => return Ok(0),
            Ok(count) => count,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            Err(cause) => return Err(Error::local("read from the daemon", cause)),
        };
        let written = stdout.write_all(&block[..count]).and_then(|()| stdout.flush());
        written.map_err(|cause| match cause.kind() {
            io::ErrorKind::BrokenPipe => Error::BrokenPipe,
            _ => Error::local("write the output", cause),
        })?;
    }
}

fn pass_input(mut to_daemon: WriteHalf) {
    let mut stdin = io::stdin().lock();
    let mut block = vec![0; 32 * 1024];
    loop {
        match stdin.read(&mut block) {
            Ok(0) => break,
            // A daemon that takes no more may still have something to say.
            Ok(count) if to_daemon.write_all(&block[..count]).is_err() => return,
            Ok(_) => {}
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    to_daemon.shutdown_write();
}
