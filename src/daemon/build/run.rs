//! `RUN`: a container of the image so far, and an image of what it wrote.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};

use super::mounts::{self, Prepared};
use super::output::Stream;
use super::stage::Stage;
use super::{Failure, Outcome, STEP, root};
use crate::daemon::containers::container::WaitFor;
use crate::daemon::containers::{Container, Waiter, attach, create, lifecycle, rootfs};
use crate::daemon::dockerfile::{Run, Script};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::{Commit, Image};
use crate::http::api::Class;
use crate::http::api::container::{
    AttachQuery, ContainerConfig, ContainerCreate, Healthcheck, HostConfig, LogConfig, NetworkingConfig,
};

/// Carries out a `RUN`.
pub fn run(stage: &mut Stage<'_>, run: &Run) -> Outcome<()> {
    if let Some(security) = run.security.as_deref().filter(|security| *security != "sandbox") {
        return Err(Error::forbidden(format!("--security={security}: only \"sandbox\" is allowed")).into());
    }
    if stage.image.is_none() {
        return Err(
            Error::invalid("RUN on scratch: there is nothing in it to run: COPY a program first").into()
        );
    }
    let (words, script) = match run.script() {
        Script::Exec(words) => (words, None),
        Script::Shell(text) => ([stage.shell(), vec![text]].concat(), None),
        Script::File { name, content } => (vec![format!("{}/{name}", mounts::PIPES)], Some((name, content))),
    };
    if words.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("RUN requires at least one argument").into());
    }
    let mounts = mounts::read(stage, run)?;
    let args = stage.args.beside(&stage.config.env);
    let created_by = [
        mounts::key(stage, &mounts)?,
        said_args(stage, &args),
        words.join(" "),
        script.as_ref().map(|(_, content)| format!("\n{content}")).unwrap_or_default(),
    ]
    .concat();
    let step = stage.step(created_by.clone());
    if stage.find(&step)? {
        return Ok(());
    }
    let prepared = Prepared::new(stage, &mounts, script.as_ref())?;
    let network = run.network.as_deref().filter(|network| *network != "default");
    let request = request(stage, &words, args, network, &prepared);
    let image = execute(stage, request, &words, &created_by, &prepared)?;
    stage.advance(image);
    Ok(())
}

/// What Docker writes before the command: how many arguments there are, and which.
fn said_args(stage: &Stage<'_>, args: &[String]) -> String {
    if args.is_empty() {
        return String::new();
    }
    let counted: Vec<&str> = args.iter().map(String::as_str).filter(|arg| stage.args.counts(arg)).collect();
    let said: String = counted.iter().map(|arg| format!("{arg} ")).collect();
    format!("|{} {said}", counted.len())
}

fn request(
    stage: &Stage<'_>,
    words: &[String],
    args: Vec<String>,
    network: Option<&str>,
    prepared: &Prepared<'_>,
) -> ContainerCreate {
    let (config, options) = (&stage.config, stage.job.options);
    let network = network.unwrap_or(&options.network);
    ContainerCreate {
        config: ContainerConfig {
            image: stage.image.as_ref().map(|id| id.to_string()).unwrap_or_default(),
            user: config.user.clone(),
            env: [config.env.clone(), args].concat(),
            cmd: Some(words.to_vec()),
            // None at all, whatever the image has.
            entrypoint: Some(vec![String::new()]),
            working_dir: config.working_dir.clone(),
            attach_stdout: true,
            attach_stderr: true,
            healthcheck: Some(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() }),
            ..ContainerConfig::default()
        },
        host_config: HostConfig {
            network_mode: if network.is_empty() { "default".to_owned() } else { network.to_owned() },
            // What it says goes to whoever builds, and nowhere else.
            log_config: LogConfig { kind: "none".to_owned(), ..LogConfig::default() },
            annotations: [(STEP.to_owned(), "1".to_owned())].into(),
            extra_hosts: (!options.extra_hosts.is_empty()).then(|| options.extra_hosts.clone()),
            security_opt: (!options.security_opt.is_empty()).then(|| options.security_opt.clone()),
            shm_size: options.shm_size,
            resources: options.resources.clone(),
            mounts: prepared.mounts.clone(),
            ..HostConfig::default()
        },
        networking_config: NetworkingConfig::default(),
    }
}

/// A step's container, removed when dropped.
struct Temporary<'a> {
    engine: &'a Arc<Engine>,
    container: Arc<Container>,
}

impl Temporary<'_> {
    /// Lets it stay: the build has no more to do with it.
    fn keep(self) {
        let mut inner = self.container.lock();
        inner.record.host_config.annotations.remove(STEP);
        if let Err(error) = self.container.save(&inner) {
            log::warn!("{error}");
        }
        drop(inner);
        std::mem::forget(self);
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        match lifecycle::remove_with_volumes(self.engine, &self.container, true) {
            Err(error) if error.class != Class::NotFound => log::warn!("{error}"),
            _ => {}
        }
    }
}

fn execute(
    stage: &Stage<'_>,
    request: ContainerCreate,
    words: &[String],
    created_by: &str,
    prepared: &Prepared<'_>,
) -> Outcome<Image> {
    let (job, engine) = (stage.job, stage.job.engine);
    let created = create::create(engine, "", "", request)?;
    let container = engine.containers.get(&created.id)?;
    let temporary = Temporary { engine, container: Arc::clone(&container) };
    let short = &created.id[..12];
    job.output.say(format!(" ---> Running in {short}\n"));
    let query = AttachQuery { stream: true, stdout: true, stderr: true, ..AttachQuery::default() };
    let attached = attach::attach(&container, &query)?;
    let waiter = container.lock().wait_for(WaitFor::NextExit)?;
    lifecycle::start(engine, &container)?;
    let code = follow(stage, &container, attached.stream, &waiter)?;
    job.cancel.check()?;
    if code != 0 {
        if !job.options.force_remove {
            temporary.keep();
        }
        let command = words.join(" ");
        return Err(Failure {
            error: Error::invalid(format!("The command '{command}' returned a non-zero code: {code}")),
            code: i64::from(code),
        });
    }
    let image = commit(stage, &container, created_by, prepared)?;
    if job.options.remove {
        drop(temporary);
        job.output.say(format!(" ---> Removed intermediate container {short}\n"));
    } else {
        temporary.keep();
    }
    Ok(image)
}

/// Tells what the container writes until it has ended; what it exited with. A build that is called off ends it.
fn follow(
    stage: &Stage<'_>,
    container: &Arc<Container>,
    mut stream: UnixStream,
    waiter: &Waiter,
) -> Result<i32> {
    let job = stage.job;
    let by_lines = job.is_shared();
    let mut streams = [Stream::new(job.output, false, by_lines), Stream::new(job.output, true, by_lines)];
    let (mut frames, mut piece) = (Frames::default(), vec![0; 32 << 10]);
    let mut is_killed = false;
    loop {
        let mut fds = vec![PollFd::new(&stream, PollFlags::IN)];
        if !is_killed {
            fds.push(PollFd::from_borrowed_fd(job.cancel.as_fd(), PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::system("wait for a command", errno)),
        }
        if job.cancel.is_set() && !is_killed {
            is_killed = true;
            // It may have ended at this moment.
            if let Err(error) = lifecycle::kill(job.engine, container, "KILL") {
                log::debug!("{error}");
            }
        }
        if fds[0].revents().is_empty() {
            continue;
        }
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => frames.write(&piece[..count], &mut |is_error, bytes| {
                streams[usize::from(is_error)].write(bytes);
            }),
            Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => {}
            // The shim is gone; how the container ended is told all the same.
            Err(_) => break,
        }
    }
    streams.into_iter().for_each(Stream::finish);
    loop {
        if let Some(outcome) = waiter.outcome() {
            return match &outcome.error {
                Some(error) => Err(Error::system("run a command", error)),
                None => Ok(outcome.exit_code),
            };
        }
        let mut fds = [PollFd::from_borrowed_fd(waiter.bell.as_fd(), PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::system("wait for a command", errno)),
        }
    }
}

/// Takes a container's output apart: each piece has a head of eight bytes, the first of which says which stream it
/// is of, and the last four how long it is. Source: Docker's attach.
#[derive(Default)]
struct Frames {
    head: Vec<u8>,
    left: usize,
}

impl Frames {
    /// Gives what there is of each frame to `take`, with whether it is of standard error.
    fn write(&mut self, mut bytes: &[u8], take: &mut dyn FnMut(bool, &[u8])) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let wanted = (8 - self.head.len()).min(bytes.len());
                self.head.extend_from_slice(&bytes[..wanted]);
                bytes = &bytes[wanted..];
                let Ok(head) = <[u8; 8]>::try_from(self.head.as_slice()) else { return };
                let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
                self.left = usize::try_from(length).unwrap_or(usize::MAX);
            }
            let count = self.left.min(bytes.len());
            if count > 0 {
                take(self.head.first() == Some(&2), &bytes[..count]);
            }
            self.left -= count;
            bytes = &bytes[count..];
            if self.left == 0 {
                self.head.clear();
            }
        }
    }
}

fn commit(
    stage: &Stage<'_>,
    container: &Arc<Container>,
    created_by: &str,
    prepared: &Prepared<'_>,
) -> Result<Image> {
    let engine = stage.job.engine;
    let record = container.record();
    let upper = container.layer_dir(record.layer).join("upper");
    let root = root::open_directory(&upper)?;
    prepared.stubs.iter().rev().for_each(|path| root::remove_stub(root.as_fd(), path));
    let parent = stage.image.clone().ok_or_else(|| Error::system("commit a step", "it has no image"))?;
    let commit = Commit {
        parent,
        config: stage.config.clone(),
        author: stage.author.clone(),
        comment: String::new(),
        created_by: created_by.to_owned(),
        reference: None,
        is_step: true,
    };
    let below = rootfs::below(engine, container, &record)?;
    engine.images.commit(&commit, &upper, below.as_fd(), &|| container.check_there(record.layer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_apart_wherever_they_are_cut() {
        let bytes = [
            &[1, 0, 0, 0, 0, 0, 0, 3][..],
            b"out",
            &[2, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 0, 0, 0, 2],
            b"er",
        ]
        .concat();
        for size in 1..=bytes.len() {
            let (mut frames, mut told) = (Frames::default(), [Vec::new(), Vec::new()]);
            for piece in bytes.chunks(size) {
                frames.write(piece, &mut |is_error, bytes| {
                    told[usize::from(is_error)].extend_from_slice(bytes)
                });
            }
            assert_eq!(told, [b"out".to_vec(), b"er".to_vec()], "{size}");
        }
    }
}
