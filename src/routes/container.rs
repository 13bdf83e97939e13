//! Containers.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use super::compat;
use crate::daemon::containers::logs::{self, Source};
use crate::daemon::containers::{
    Container, Outcome, WaitFor, Waiter, archive, checkpoint, create, inspect, lifecycle, list, rootfs,
    stats, top, update,
};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::http::api::ApiVersion;
use crate::http::api::container::*;
use crate::http::api::stats::{CONTAINER_STATS, StatsQuery};
use crate::http::connection::Peer;
use crate::http::reply::Reply;
use crate::http::request::Call;
use crate::http::stdcopy;

const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
const RAW: &str = "application/vnd.docker.raw-stream";
const PATH_STAT: &str = "X-Docker-Container-Path-Stat";
/// Between two samples of `stats`.
const SAMPLE: Duration = Duration::from_secs(1);

/// Compat: versions before 1.42 know only one name for both framings.
pub fn stream_type(is_terminal: bool, version: ApiVersion) -> &'static str {
    let is_told_apart = version >= ApiVersion { major: 1, minor: 42 };
    if is_terminal || !is_told_apart { RAW } else { MULTIPLEXED }
}

/// Height and width in characters.
pub fn size(query: &ResizeQuery) -> Result<(u16, u16)> {
    let side = |name: &str, value: Option<u32>| {
        value
            .and_then(|value| u16::try_from(value).ok())
            .ok_or_else(|| Error::invalid(format!("invalid resize {name}: {value:?}")))
    };
    Ok((side("height \"h\"", query.height)?, side("width \"w\"", query.width)?))
}

fn get<Q, B>(engine: &Arc<Engine>, call: &Call<Q, B>) -> Result<Arc<Container>> {
    engine.containers.get(call.param("name"))
}

pub fn list(engine: &Arc<Engine>, call: Call<ListQuery>) -> Result<Reply> {
    compat::reply(&CONTAINER_LIST, call.raw.version, &list::list(engine, &call.query)?)
}

pub fn create(engine: &Arc<Engine>, mut call: Call<CreateQuery, ContainerCreate>) -> Result<Reply> {
    compat::lift_create(call.raw.version, &mut call.body)?;
    let query = &call.query;
    Ok(CONTAINER_CREATE.reply(&create::create(engine, &query.name, &query.platform, call.body)?))
}

pub fn inspect(engine: &Arc<Engine>, call: Call<InspectQuery>) -> Result<Reply> {
    let container = get(engine, &call)?;
    compat::reply(
        &CONTAINER_INSPECT,
        call.raw.version,
        &inspect::inspect(engine, &container, call.query.size)?,
    )
}

pub fn top(engine: &Arc<Engine>, call: Call<TopQuery>) -> Result<Reply> {
    let container = get(engine, &call)?;
    let answer = top::top(&container, &call.query.ps_args, &engine.config().cgroup_parent())?;
    engine.events.publish("container", "top", &container.id, container.record().event_attributes());
    Ok(CONTAINER_TOP.reply(&answer))
}

/// Each sample is one line, flushed at once; the stream ends with the container.
pub fn stats(engine: &Arc<Engine>, mut call: Call<StatsQuery>) -> Result<Reply> {
    compat::lift_stats(call.raw.version, &mut call.query);
    let container = get(engine, &call)?;
    let engine = Arc::clone(engine);
    let is_stream = call.query.stream.unwrap_or(true);
    let is_one_shot = call.query.one_shot;
    Ok(CONTAINER_STATS.stream("application/json", move |out| {
        let peer = out.peer();
        let parent = engine.config().cgroup_parent();
        let mut before = None;
        if !is_stream && !is_one_shot && container.record().state.is_alive() {
            before = Some(stats::sample(&container, &parent, None));
            if !peer.wait(&[], Some(SAMPLE)) {
                return Ok(());
            }
        }
        loop {
            let sample = stats::sample(&container, &parent, before.as_ref());
            let mut line = serde_json::to_vec(&sample)?;
            line.push(b'\n');
            out.write_all(&line)?;
            out.flush()?;
            before = Some(sample);
            if !is_stream {
                return Ok(());
            }
            if !peer.wait(&[], Some(SAMPLE)) || engine.containers.by_id(&container.id).is_none() {
                return Ok(());
            }
        }
    }))
}

pub fn update(engine: &Arc<Engine>, mut call: Call<(), ContainerUpdate>) -> Result<Reply> {
    compat::lift_update(call.raw.version, &mut call.body);
    let container = get(engine, &call)?;
    Ok(CONTAINER_UPDATE.reply(&update::update(engine, &container, &call.body)?))
}

pub fn start(engine: &Arc<Engine>, call: Call<StartQuery>) -> Result<Reply> {
    // Compat: Docker's bound; clients send nothing, `{}` or `null`.
    if call.raw.body.length().is_none_or(|length| length > 7) {
        return Err(Error::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    let container = get(engine, &call)?;
    if call.query.checkpoint.is_empty() {
        lifecycle::start(engine, &container)?;
    } else {
        let StartQuery { checkpoint, checkpoint_dir, tcp_close, trust, keep_volumes, lazy, .. } = &call.query;
        let how = checkpoint::How {
            tcp_close: *tcp_close,
            lazy: *lazy,
            trust: *trust,
            keep_volumes: *keep_volumes,
            asks: None,
        };
        checkpoint::restore(engine, &container, checkpoint, checkpoint_dir, how)?;
    }
    Ok(CONTAINER_START.reply(&()))
}

pub fn stop(engine: &Arc<Engine>, call: Call<StopQuery>) -> Result<Reply> {
    let container = get(engine, &call)?;
    let signal = compat::stop_signal(call.raw.version, &call.query.signal);
    lifecycle::stop(engine, &container, signal, call.query.timeout_secs)?;
    Ok(CONTAINER_STOP.reply(&()))
}

pub fn restart(engine: &Arc<Engine>, call: Call<StopQuery>) -> Result<Reply> {
    let container = get(engine, &call)?;
    let signal = compat::stop_signal(call.raw.version, &call.query.signal);
    lifecycle::restart(engine, &container, signal, call.query.timeout_secs)?;
    Ok(CONTAINER_RESTART.reply(&()))
}

pub fn kill(engine: &Arc<Engine>, call: Call<KillQuery>) -> Result<Reply> {
    lifecycle::kill(engine, &get(engine, &call)?, &call.query.signal)?;
    Ok(CONTAINER_KILL.reply(&()))
}

pub fn rename(engine: &Arc<Engine>, call: Call<RenameQuery>) -> Result<Reply> {
    lifecycle::rename(engine, &get(engine, &call)?, &call.query.name)?;
    Ok(CONTAINER_RENAME.reply(&()))
}

pub fn pause(engine: &Arc<Engine>, call: Call) -> Result<Reply> {
    lifecycle::pause(engine, &get(engine, &call)?)?;
    Ok(CONTAINER_PAUSE.reply(&()))
}

pub fn unpause(engine: &Arc<Engine>, call: Call) -> Result<Reply> {
    lifecycle::unpause(engine, &get(engine, &call)?)?;
    Ok(CONTAINER_UNPAUSE.reply(&()))
}

pub fn delete(engine: &Arc<Engine>, call: Call<DeleteQuery>) -> Result<Reply> {
    if call.query.link {
        return Err(Error::invalid("remove a legacy link: this version of dewar has none"));
    }
    let remove = if call.query.volumes { lifecycle::remove_with_volumes } else { lifecycle::remove };
    remove(engine, &get(engine, &call)?, call.query.force)?;
    Ok(CONTAINER_DELETE.reply(&()))
}

pub fn resize(engine: &Arc<Engine>, call: Call<ResizeQuery>) -> Result<Reply> {
    let (height, width) = size(&call.query)?;
    let container = get(engine, &call)?;
    lifecycle::resize(engine, &container, height, width)?;
    Ok(CONTAINER_RESIZE.reply(&()))
}

/// The head is flushed at once: clients start the container only when they have seen it.
pub fn wait(engine: &Arc<Engine>, call: Call<WaitQuery>) -> Result<Reply> {
    let container = get(engine, &call)?;
    // Compat: conditions and the early head came with 1.30.
    let is_old = compat::before(call.raw.version, 30);
    let condition = if is_old { "" } else { call.query.condition.as_str() };
    let waiter = {
        let mut inner = container.lock();
        match condition {
            "" | "not-running" if inner.is_at_rest() => {
                let outcome = Outcome { exit_code: inner.record.exit_code, error: None };
                return Ok(CONTAINER_WAIT.reply(&answer(&outcome)));
            }
            "" | "not-running" | "next-exit" => inner.wait_for(WaitFor::NextExit)?,
            "removed" => inner.wait_for(WaitFor::Removed)?,
            other => return Err(Error::invalid(format!("invalid condition: \"{other}\""))),
        }
    };
    if is_old {
        return match outcome(&waiter, &call.raw.peer) {
            Some(outcome) => Ok(CONTAINER_WAIT.reply(&answer(&outcome))),
            // Nobody is there to read why.
            None => Err(Error::invalid("wait for the container: the client has gone")),
        };
    }
    Ok(Reply::stream("application/json", move |out| {
        let Some(outcome) = outcome(&waiter, &out.peer()) else { return Ok(()) };
        let mut line = serde_json::to_vec(&answer(&outcome))?;
        line.push(b'\n');
        out.write_all(&line)?;
        out.flush()
    }))
}

/// Blocks until the outcome is known; `None` when the client left before.
fn outcome(waiter: &Waiter, peer: &Peer) -> Option<Outcome> {
    loop {
        if let Some(outcome) = waiter.outcome() {
            return Some(outcome.clone());
        }
        if !peer.wait(&[waiter.bell.as_fd()], None) {
            return None;
        }
    }
}

fn answer(outcome: &Outcome) -> ContainerWait {
    ContainerWait {
        status_code: i64::from(outcome.exit_code),
        error: outcome.error.clone().map(|message| WaitError { message }),
    }
}

/// Lines that are there are sent together, and none waits for one that is not.
pub fn logs(engine: &Arc<Engine>, mut call: Call<LogsQuery>) -> Result<Reply> {
    compat::lift_logs(call.raw.version, &mut call.query);
    let container = get(engine, &call)?;
    let request = logs::request(&container, &call.query)?;
    let is_terminal = container.record().config.tty;
    Ok(Reply::stream(stream_type(is_terminal, call.raw.version), move |out| {
        let peer = out.peer();
        let wait = |sources: &[BorrowedFd<'_>], time| peer.wait(sources, time);
        logs::read(&container, &request, &wait, &mut |piece| match piece {
            None => out.flush(),
            Some((_, text)) if is_terminal => out.write_all(text),
            Some((source, text)) => stdcopy::write_frame(out, stream_of(source), text),
        })
    }))
}

pub fn stream_of(source: Source) -> stdcopy::Stream {
    match source {
        Source::Stdout => stdcopy::Stream::Stdout,
        Source::Stderr => stdcopy::Stream::Stderr,
    }
}

pub fn archive_info(engine: &Arc<Engine>, call: Call<ArchiveQuery>) -> Result<Reply> {
    let container = get(engine, &call)?;
    let view = rootfs::view(engine, &container)?;
    let stat = archive::stat(view.root(), &call.query.path, &container.id)?;
    Ok(Reply::empty(200).header(PATH_STAT, stat.to_header()))
}

pub fn archive(engine: &Arc<Engine>, call: Call<ArchiveQuery>) -> Result<Reply> {
    let container = get(engine, &call)?;
    let path = call.query.path;
    let record = container.record();
    let view = rootfs::view(engine, &container)?;
    let stat = archive::stat(view.root(), &path, &container.id)?;
    engine.events.publish("container", "archive-path", &container.id, record.event_attributes());
    Ok(Reply::stream("application/x-tar", move |out| {
        let out = archive::WhileThere { inner: out, container: &container, layer: record.layer };
        archive::get(view.root(), &path, &container.id, out)
            .map_err(|error| std::io::Error::other(error.message))
    })
    .header(PATH_STAT, stat.to_header()))
}

pub fn put_archive(engine: &Arc<Engine>, mut call: Call<ArchiveQuery>) -> Result<Reply> {
    let container = get(engine, &call)?;
    let record = container.record();
    let view = rootfs::view(engine, &container)?;
    let query = &call.query;
    let user = if query.copy_uid_gid { Some(record.config.user.as_str()) } else { None };
    let owner = user.map(|user| rootfs::owner(view.root(), user)).transpose()?;
    archive::check_writable(view.root(), &query.path, &container.id, record.host_config.readonly_rootfs)?;
    let inner = &mut call.raw.body;
    let body = archive::WhileThere { inner, container: &container, layer: record.layer };
    archive::put(view.root(), &query.path, &container.id, body, query.no_overwrite_dir_non_dir, owner)?;
    engine.events.publish("container", "extract-to-dir", &container.id, record.event_attributes());
    Ok(PUT_CONTAINER_ARCHIVE.reply(&()))
}
