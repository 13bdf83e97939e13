//! Further processes in a running container: created, then started once, then remembered for a while.
//!
//! Each is written down under the exec root while its container lives, so that its id outlives the daemon. How
//! one ended that no daemon saw the end of is known by its shim.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::attach::{Attached, detach_keys};
use super::container::{Container, Inner, stream_pair};
use super::state::Action;
use super::{network, spec};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::names;
use crate::daemon::state_dir::{self, Durability, Found};
use crate::http::api::exec::{ExecCreate, ExecInspect, ExecStart, ProcessConfig};
use crate::runtime::{Attachment, Cause, Exec, Sandbox};

/// How long the outcome of a finished exec can be asked for. Source: Docker sweeps every five minutes.
const REMEMBERED: Duration = Duration::from_secs(300);
/// How long a resize waits for a process that is being started.
const RESIZE_WAIT: Duration = Duration::from_secs(10);

/// What is said of an exec whose end nobody saw.
const UNKNOWN_CODE: i32 = 255;

/// One exec.
#[derive(Debug)]
pub struct ExecState {
    pub request: ExecCreate,
    pub phase: Phase,
    pub pid: i32,
    /// Its client typed the detach keys.
    pub is_detached: bool,
    /// A health probe's: whoever began it is the only one to care.
    pub is_probe: bool,
}

/// Where an exec stands.
#[derive(Debug)]
pub enum Phase {
    Created,
    Running,
    Ended { code: i32, at: Instant },
}

/// `execs/<id>.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    container: String,
    request: ExecCreate,
    /// Started; it may have ended.
    is_started: bool,
    pid: i32,
    /// Once it has ended.
    code: Option<i32>,
    is_probe: bool,
}

impl ExecState {
    /// The container's end is the end of every process in it.
    pub fn end_with_container(&mut self) {
        if matches!(self.phase, Phase::Running) {
            // Source: killed by the kernel with the pid namespace.
            self.phase = Phase::Ended { code: 137, at: Instant::now() };
        }
    }

    fn is_forgettable(&self) -> bool {
        matches!(self.phase, Phase::Ended { at, .. } if at.elapsed() > REMEMBERED)
    }
}

fn attributes(container: &Container, exec_id: &str) -> std::collections::BTreeMap<String, String> {
    let mut attributes = container.record().event_attributes();
    attributes.insert("execID".to_owned(), exec_id.to_owned());
    attributes
}

/// Writes an exec down. Without it the exec is only forgotten by the next daemon: a failure is told.
fn save(engine: &Engine, container: &Container, id: &str, exec: &ExecState) {
    let record = Record {
        container: container.id.clone(),
        request: exec.request.clone(),
        is_started: !matches!(exec.phase, Phase::Created),
        pid: exec.pid,
        code: match exec.phase {
            Phase::Ended { code, .. } => Some(code),
            _ => None,
        },
        is_probe: exec.is_probe,
    };
    if let Err(error) = state_dir::save(&engine.state_dir.exec(id), &record, Durability::Renamed) {
        log::warn!("{error}");
    }
}

/// Takes an exec's file away; one that is gone is fine.
fn erase(engine: &Engine, id: &str) {
    let path = engine.state_dir.exec(id);
    match std::fs::remove_file(&path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => log::warn!("remove {path:?}: {cause}"),
        _ => {}
    }
}

/// Takes the files of a container's execs away: it has ended.
pub fn erase_all(engine: &Engine, inner: &Inner) {
    inner.execs.keys().for_each(|id| erase(engine, id));
}

/// Reads the execs of the containers that live.
pub fn restore(engine: &Engine) {
    for entry in std::fs::read_dir(engine.state_dir.exec_root.join("execs")).into_iter().flatten().flatten() {
        let path = entry.path();
        let id = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        if !names::is_id(&id) || path.extension() != Some("json".as_ref()) {
            continue;
        }
        let Found::Value(record) = state_dir::find::<Record>(&path) else { continue };
        let container = engine.containers.by_id(&record.container);
        let sandbox = container.as_ref().and_then(|container| container.lock().sandbox.clone());
        match (container, sandbox) {
            (Some(container), Some(sandbox)) => restore_one(engine, &container, &sandbox, id, record),
            // Out of reach: its execs are, too.
            (Some(container), None) if container.lock().out_of_reach.is_some() => {}
            _ => erase(engine, &id),
        }
    }
}

fn restore_one(engine: &Engine, container: &Container, sandbox: &Sandbox, id: String, record: Record) {
    let code = record.code.or_else(|| {
        let ended = sandbox.had_ended().filter(|(exec, _)| *exec == id).map(|(_, code)| code).last();
        ended.or_else(|| (record.is_started && !sandbox.runs(&id)).then_some(UNKNOWN_CODE))
    });
    if record.is_probe {
        if record.is_started && code.is_none() {
            // Nobody is left to end it when its time is over.
            let _ = sandbox.signal(9, Some(&id));
        }
        return erase(engine, &id);
    }
    let phase = match code {
        Some(code) => Phase::Ended { code, at: Instant::now() },
        None if record.is_started => Phase::Running,
        None => Phase::Created,
    };
    let exec =
        ExecState { request: record.request, phase, pid: record.pid, is_detached: false, is_probe: false };
    save(engine, container, &id, &exec);
    container.lock().execs.insert(id.clone(), exec);
    engine.containers.insert_exec(&id, &container.id);
}

/// Writes down what is to be run; nothing runs yet.
pub fn create(engine: &Engine, container: &Arc<Container>, request: ExecCreate) -> Result<String> {
    create_as(engine, container, request, false)
}

/// As [`create`], for a health probe.
pub fn create_probe(engine: &Engine, container: &Arc<Container>, request: ExecCreate) -> Result<String> {
    create_as(engine, container, request, true)
}

fn create_as(
    engine: &Engine,
    container: &Arc<Container>,
    request: ExecCreate,
    is_probe: bool,
) -> Result<String> {
    if request.cmd.is_empty() {
        return Err(Error::invalid("No exec command specified"));
    }
    if request.attach_stdin && request.tty {
        detach_keys(Some(&request.detach_keys))?;
    }
    let id = names::new_id()?;
    let action = format!("exec_create: {}", request.cmd.join(" "));
    let mut inner = container.lock();
    inner.check(Action::Exec)?;
    inner.living()?;
    spec::exec_process(&inner.record, &request, &[])?;
    let mut forgotten = Vec::new();
    inner.execs.retain(|exec_id, exec| {
        let keep = !exec.is_forgettable();
        if !keep {
            forgotten.push(exec_id.clone());
        }
        keep
    });
    let exec = ExecState { request, phase: Phase::Created, pid: 0, is_detached: false, is_probe };
    save(engine, container, &id, &exec);
    inner.execs.insert(id.clone(), exec);
    drop(inner);
    for exec_id in &forgotten {
        engine.containers.forget_exec(exec_id);
        erase(engine, exec_id);
    }
    engine.containers.insert_exec(&id, &container.id);
    engine.events.publish("container", &action, &container.id, attributes(container, &id));
    Ok(id)
}

/// The container an exec belongs to.
pub fn container_of(engine: &Engine, exec_id: &str) -> Result<Arc<Container>> {
    engine
        .containers
        .of_exec(exec_id)
        .ok_or_else(|| Error::not_found(format!("No such exec instance: {exec_id}")))
}

/// An exec that may be started, and the client's end of its streams.
pub struct Ready {
    pub container: Arc<Container>,
    exec: Exec,
    /// `None` for a detached one.
    pub attached: Option<Attached>,
}

/// Claims an exec for its one start. What can be refused is refused here, before the connection is taken
/// over; [`Ready::run`] starts it.
pub fn prepare(engine: &Engine, exec_id: &str, start: &ExecStart) -> Result<Ready> {
    let container = container_of(engine, exec_id)?;
    // Before the lock: a link asks for the other container's, and names may have moved until it is this one's.
    let links = network::link_environment(engine, &container.record());
    let mut inner = container.lock();
    inner.check(Action::Exec)?;
    inner.living()?;
    let record = inner.record.clone();
    let exec = inner
        .execs
        .get_mut(exec_id)
        .ok_or_else(|| Error::not_found(format!("No such exec instance: {exec_id}")))?;
    match exec.phase {
        Phase::Created => {}
        Phase::Running => return Err(Error::conflict(format!("exec {exec_id} is already running"))),
        Phase::Ended { .. } => return Err(Error::conflict(format!("exec {exec_id} has already run"))),
    }
    if start.console_size.is_some() {
        exec.request.console_size = start.console_size;
    }
    let request = exec.request.clone();
    let process = spec::exec_process(&record, &request, &links)?;
    let (attached, attachment) = if start.detach {
        (None, None)
    } else {
        let (stream, theirs) = stream_pair()?;
        let attachment = Attachment {
            stream: theirs,
            stdin: request.attach_stdin,
            stdout: request.attach_stdout,
            stderr: request.attach_stderr,
            detach_keys: if request.tty { detach_keys(Some(&request.detach_keys))? } else { Vec::new() },
            reads_log: false,
        };
        (Some(Attached { stream, is_terminal: request.tty, log: None }), Some(attachment))
    };
    exec.phase = Phase::Running;
    save(engine, &container, exec_id, exec);
    drop(inner);
    let exec = Exec { id: exec_id.to_owned(), process, privileged: request.privileged, attachment };
    Ok(Ready { container, exec, attached })
}

impl Ready {
    /// Starts the process. On failure the exec has ended with 126 or 127, and the error's text is what the
    /// client is shown in the stream.
    pub fn run(self, engine: &Engine) -> Result<()> {
        let Ready { container, exec, .. } = self;
        let (id, command) = (exec.id.clone(), exec.process.args.join(" "));
        let sandbox = super::lifecycle::sandbox(&container, Action::Exec)?;
        // Before it runs, as Docker says it: after, the end of a quick one can be told first.
        engine.events.publish(
            "container",
            &format!("exec_start: {command}"),
            &container.id,
            attributes(&container, &id),
        );
        match sandbox.exec(exec) {
            Ok(pid) => {
                let mut inner = container.lock();
                // After the container's end its files are gone.
                let is_alive = inner.record.state.is_alive();
                if let Some(exec) = inner.execs.get_mut(&id) {
                    exec.pid = pid;
                    if is_alive {
                        save(engine, &container, &id, exec);
                    }
                }
                drop(inner);
                container.notify();
                Ok(())
            }
            Err(error) => {
                let (code, cause) = match &error.cause {
                    Cause::Command(command) => (i32::from(command.exit_code), command.to_string()),
                    _ => (126, error.to_string()),
                };
                ended(engine, &container, &id, code);
                Err(Error::invalid(format!(
                    "OCI runtime exec failed: exec failed: unable to start container process: {cause}"
                )))
            }
        }
    }
}

/// An exec's process ended.
pub fn ended(engine: &Engine, container: &Container, exec_id: &str, code: i32) {
    {
        let mut inner = container.lock();
        let is_alive = inner.record.state.is_alive();
        let Some(exec) = inner.execs.get_mut(exec_id) else { return };
        exec.phase = Phase::Ended { code, at: Instant::now() };
        if is_alive {
            save(engine, container, exec_id, exec);
        }
    }
    container.notify();
    let mut attributes = attributes(container, exec_id);
    attributes.insert("exitCode".to_owned(), code.to_string());
    engine.events.publish("container", "exec_die", &container.id, attributes);
}

/// Forgets an exec before its time.
pub fn forget(engine: &Engine, container: &Container, exec_id: &str) {
    container.lock().execs.remove(exec_id);
    engine.containers.forget_exec(exec_id);
    erase(engine, exec_id);
}

/// The client of an exec left it to itself.
pub fn detached(engine: &Engine, container: &Container, exec_id: &str) {
    if let Some(exec) = container.lock().execs.get_mut(exec_id) {
        exec.is_detached = true;
    }
    container.notify();
    engine.events.publish("container", "exec_detach", &container.id, attributes(container, exec_id));
}

/// How an exec fares.
pub fn inspect(engine: &Engine, exec_id: &str) -> Result<ExecInspect> {
    let container = container_of(engine, exec_id)?;
    let inner = container.lock();
    let exec = inner
        .execs
        .get(exec_id)
        .ok_or_else(|| Error::not_found(format!("No such exec instance: {exec_id}")))?;
    let mut command = exec.request.cmd.iter().cloned();
    Ok(ExecInspect {
        id: exec_id.to_owned(),
        running: matches!(exec.phase, Phase::Running),
        exit_code: match exec.phase {
            Phase::Ended { code, .. } => Some(code),
            _ => None,
        },
        process_config: ProcessConfig {
            tty: exec.request.tty,
            entrypoint: command.next().unwrap_or_default(),
            arguments: command.collect(),
            privileged: exec.request.privileged,
            user: exec.request.user.clone(),
        },
        open_stdin: exec.request.attach_stdin,
        open_stderr: exec.request.attach_stderr,
        open_stdout: exec.request.attach_stdout,
        can_remove: false,
        container_id: container.id.clone(),
        detach_keys: exec.request.detach_keys.clone(),
        pid: exec.pid,
    })
}

/// Sets the size of an exec's terminal, waiting for its process where it is being started.
pub fn resize(engine: &Engine, exec_id: &str, height: u16, width: u16) -> Result<()> {
    let container = container_of(engine, exec_id)?;
    container.wait_until(Some(RESIZE_WAIT), |inner| {
        inner.execs.get(exec_id).is_none_or(|exec| exec.pid != 0 || matches!(exec.phase, Phase::Ended { .. }))
    });
    let sandbox = super::lifecycle::sandbox(&container, Action::Exec)?;
    let has_terminal = container.lock().execs.get(exec_id).is_some_and(|exec| exec.request.tty);
    if has_terminal {
        sandbox.resize(Some(exec_id), height, width)?;
    }
    Ok(())
}
