//! `dewar run` and `dewar create`.
//!
//! The engine has no "run": the client composes it. Order matters twice: output must not be printed, and
//! the exit must not happen, before somebody listens.
//!
//! ```text
//!   create ──404──▶ pull, create again
//!     │
//!   attach      (answered before start: the daemon's sinks are in place)
//!     │
//!   wait        (answered before start: next-exit, or removed with --rm)
//!     │
//!   start ──refused──▶ 125, 126 or 127 by the daemon's words
//!     │
//!   resize      (terminals only; then on each SIGWINCH)
//!     │
//!   output ends ──▶ the wait's answer ──▶ exit code
//! ```
//!
//! Speed: nothing is asked that is not needed. There is no ping; a detached run is two requests.

use std::fs::File;
use std::io::Write;

use crate::cli::command::{Action, Args, Command, Matches};
use crate::cli::context::{Context, print};
use crate::cli::error::Error;
use crate::cli::progress;
use crate::cli::reference::Reference;
use crate::cli::terminal::{self, Wiring, converse};
use crate::http::api::container::{
    AttachQuery, CONTAINER_ATTACH, CONTAINER_CREATE, CONTAINER_START, ContainerCreated, StartQuery,
};
use crate::http::api::image::{self, IMAGE_CREATE};

use super::attach::{self, Target};
use super::run_flags::{self, Creation, Pull};
use super::{Waiting, exit_code, wait};

pub static RUN: Command = Command {
    names: &["run", "container run"],
    summary: "Create a container from an image and start it",
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "",
    flags: run_flags::RUN_FLAGS,
    args: Args::at_least(1).greedy(),
    example: "dewar run --rm -it alpine sh",
    usage_code: 125,
    plan: |matches| {
        let request = request(matches)?;
        Action::call(move |context| run(context, request))
    },
};

pub static CREATE: Command = Command {
    names: &["create", "container create"],
    summary: "Create a container without starting it",
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "",
    flags: run_flags::CREATE_FLAGS,
    args: Args::at_least(1).greedy(),
    example: "dewar create --name web alpine sleep 60",
    usage_code: 1,
    plan: |matches| {
        let creation = run_flags::creation(matches, false)?;
        Action::call(move |context| {
            let created = create(context, creation)?;
            print(&format!("{}\n", created.id)).map(|()| 0)
        })
    },
};

#[derive(Debug)]
struct Request {
    creation: Creation,
    detach: bool,
    keys: Vec<u8>,
    keys_text: Option<String>,
    sig_proxy: bool,
}

fn request(matches: &Matches) -> Result<Request, Error> {
    let detach = matches.is(&run_flags::DETACH);
    Ok(Request {
        creation: run_flags::creation(matches, detach)?,
        detach,
        keys: attach::keys(matches, &run_flags::DETACH_KEYS)?,
        keys_text: matches.get(&run_flags::DETACH_KEYS).map(str::to_owned),
        sig_proxy: matches.is(&run_flags::SIG_PROXY),
    })
}

/// Creates the container, pulling its image if that is what is missing and wanted.
fn create(context: &Context, mut creation: Creation) -> Result<ContainerCreated, Error> {
    // A file that is there is another container's: found out before anything is made.
    let mut cidfile = match creation.cidfile.as_str() {
        "" => None,
        path => Some(CidFile::new(path)?),
    };
    if let Some(size) = terminal::size().filter(|_| creation.body.config.tty) {
        creation.body.host_config.console_size = [size.rows, size.columns];
    }
    for proxy in context.config().proxies(&context.host()) {
        let name = proxy.split_once('=').map_or("", |(name, _)| name);
        let env = &mut creation.body.config.env;
        if !env.iter().any(|known| known.split('=').next() == Some(name)) {
            env.push(proxy);
        }
    }
    if creation.pull == Pull::Always {
        pull(context, &creation)?;
    }
    let attempt = || context.call(&CONTAINER_CREATE, &[], &creation.query, &creation.body);
    let created = match attempt() {
        Err(error) if error.is_not_found() && creation.pull == Pull::Missing => {
            super::super::say(&format!("Unable to find image '{}' locally", reference(&creation)?));
            pull(context, &creation)?;
            attempt()?
        }
        other => other?,
    };
    for warning in &created.warnings {
        super::super::say(&format!("WARNING: {warning}"));
    }
    if let Some(cidfile) = &mut cidfile {
        cidfile.write(&created.id)?;
    }
    Ok(created)
}

fn pull(context: &Context, creation: &Creation) -> Result<(), Error> {
    let reference = reference(creation)?;
    let query = image::CreateQuery {
        from_image: reference.name.clone(),
        tag: reference.version().to_owned(),
        platform: creation.query.platform.clone(),
        ..image::CreateQuery::default()
    };
    let reader = context.as_known_at(&reference.name).stream(&IMAGE_CREATE, &[], &query, &())?;
    // Standard output belongs to the container.
    progress::show(reader, creation.quiet, std::io::stderr())
}

fn reference(creation: &Creation) -> Result<Reference, Error> {
    Reference::parse(&creation.body.config.image).map(Reference::or_latest).map_err(Error::Local)
}

/// The file for the ID, made before the container and taken away if no container comes of it.
struct CidFile {
    path: String,
    file: File,
    written: bool,
}

impl CidFile {
    fn new(path: &str) -> Result<CidFile, Error> {
        let file = File::create_new(path).map_err(|cause| match cause.kind() {
            std::io::ErrorKind::AlreadyExists => Error::Local(format!(
                "container ID file found, make sure the other container isn't running or delete {path}"
            )),
            _ => Error::local(format!("create the container ID file {path:?}"), cause),
        })?;
        Ok(CidFile { path: path.to_owned(), file, written: false })
    }

    fn write(&mut self, id: &str) -> Result<(), Error> {
        self.file
            .write_all(id.as_bytes())
            .map_err(|cause| Error::local(format!("write the container ID file {:?}", self.path), cause))?;
        self.written = true;
        Ok(())
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if !self.written {
            // Nothing can be done about a file that will not go.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn run(context: &Context, mut request: Request) -> Result<u8, Error> {
    attach::settle(context, &mut request.keys_text, &mut request.keys)?;
    let config = &request.creation.body.config;
    let (tty, open_stdin) = (config.tty, config.attach_stdin);
    let (stdout, stderr) = (config.attach_stdout, config.attach_stderr);
    let auto_remove = request.creation.body.host_config.auto_remove;
    if tty && open_stdin && !terminal::is_typed() {
        return Err(attach::not_a_terminal());
    }
    let id = create(context, request.creation)?.id;
    let start = |waiting: Option<Waiting>| -> Result<Option<Waiting>, Error> {
        match context.call(&CONTAINER_START, &[&id], &StartQuery::default(), &()) {
            Ok(()) => Ok(waiting),
            Err(error) => {
                // With --rm the name must be free again when we end: scripts reuse it at once.
                if auto_remove && let Some(waiting) = waiting {
                    let _ = waiting.code();
                }
                Err(error)
            }
        }
    };
    if request.detach {
        start(None)?;
        return print(&format!("{id}\n")).map(|()| 0);
    }
    let attached = open_stdin || stdout || stderr;
    let connection = match attached {
        true => {
            let query = AttachQuery {
                stream: true,
                logs: false,
                stdin: open_stdin,
                stdout,
                stderr,
                detach_keys: request.keys_text,
            };
            Some(context.hijack(&CONTAINER_ATTACH, &[&id], &query, &())?)
        }
        false => None,
    };
    let waiting = wait(context, &id, if auto_remove { "removed" } else { "next-exit" })?;
    attach::watch_signals(context, &id, Target::Container, tty, request.sig_proxy)?;
    let waiting = start(Some(waiting))?.expect("a wait that was given comes back");
    if let Some(connection) = connection {
        let conversation = converse(connection, Wiring { stdin: open_stdin, tty }, request.keys)?;
        if tty {
            // The container may be over already; then its size does not matter.
            let _ = attach::resize(context, &id, Target::Container);
        }
        if conversation.finish()? {
            return Ok(attach::detached());
        }
    }
    waiting.code().map(exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;

    #[test]
    fn what_is_the_clients_own_stays_with_the_client() {
        let made = request(&matches_of("run -d --detach-keys ctrl-a --sig-proxy=false alpine")).unwrap();
        assert!(made.detach && !made.sig_proxy);
        assert_eq!((made.keys, made.keys_text.as_deref()), (vec![1], Some("ctrl-a")));
    }

    #[test]
    fn a_cidfile_is_new_and_goes_away_when_nothing_was_created() {
        let path = std::env::temp_dir().join(format!("dewar-cid-{}", std::process::id()));
        let text = path.to_str().unwrap();
        drop(CidFile::new(text).unwrap());
        assert!(!path.exists());
        let mut kept = CidFile::new(text).unwrap();
        kept.write("abc").unwrap();
        drop(kept);
        let refused = CidFile::new(text).err().map(|error| error.to_string());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "abc");
        std::fs::remove_file(&path).unwrap();
        assert!(refused.unwrap().contains("container ID file found"));
    }
}
