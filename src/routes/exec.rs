//! Further processes in running containers.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::compat;
use super::container::{size, stream_type};
use super::pump::{End, Joint, Plain, pump};
use crate::daemon::containers::Container;
use crate::daemon::containers::backlog::{self, Backlog};
use crate::daemon::containers::exec::{self, ExecState, Phase};
use crate::daemon::engine::Engine;
use crate::daemon::error::Result;
use crate::http::api::container::ResizeQuery;
use crate::http::api::exec::{CONTAINER_EXEC, EXEC_INSPECT, EXEC_RESIZE, ExecCreate, ExecCreated, ExecStart};
use crate::http::hijack::Hijacked;
use crate::http::reply::Reply;
use crate::http::request::Call;
use crate::http::stdcopy;

/// How long the end of a process may lag behind the end of its output.
const END_LAG: Duration = Duration::from_secs(1);

pub fn create(engine: &Arc<Engine>, mut call: Call<(), ExecCreate>) -> Result<Reply> {
    compat::lift_exec(call.raw.version, &mut call.body);
    let container = engine.containers.get(call.param("name"))?;
    let id = exec::create(engine, &container, call.body)?;
    Ok(CONTAINER_EXEC.reply(&ExecCreated { id }))
}

pub fn start(engine: &Arc<Engine>, call: Call<(), ExecStart>) -> Result<Reply> {
    let id = call.param("id").to_owned();
    let mut ready = exec::prepare(engine, &id, &call.body)?;
    let Some(attached) = ready.attached.take() else {
        ready.run(engine)?;
        return Ok(Reply::empty(200));
    };
    let content_type = stream_type(attached.is_terminal, call.raw.version);
    let engine = Arc::clone(engine);
    let container = Arc::clone(&ready.container);
    // The head goes out before the process starts, so that no output can come with it.
    Ok(Reply::hijack(content_type, move |client| match ready.run(&engine) {
        Ok(()) => talk(&engine, &container, &id, client, &attached.stream),
        Err(error) => {
            let (_, mut out) = client.split();
            let text = format!("{}\r\n", error.message);
            // Compat: Docker says it on the stream; a client that is gone cannot be told.
            let _ = if attached.is_terminal {
                out.write_all(text.as_bytes())
            } else {
                stdcopy::write_frame(&mut out, stdcopy::Stream::Stdout, text.as_bytes())
            };
        }
    }))
}

/// The exit code must be there to be asked for when the client sees the stream end.
fn talk(engine: &Engine, container: &Arc<Container>, id: &str, client: Hijacked, stream: &UnixStream) {
    let backlog = Backlog::new(container.dir.clone(), backlog::Limits::default());
    let joint = Joint { process: Some(stream), wire: &mut Plain, replay: None, backlog };
    let end = pump(client, joint, || {
        container.wait_until(Some(END_LAG), |inner| {
            let is_over = |exec: &ExecState| exec.is_detached || matches!(exec.phase, Phase::Ended { .. });
            inner.execs.get(id).is_none_or(is_over)
        });
    });
    if end == End::Client {
        exec::detached(engine, container, id);
    }
}

pub fn resize(engine: &Arc<Engine>, call: Call<ResizeQuery>) -> Result<Reply> {
    let (height, width) = size(&call.query)?;
    exec::resize(engine, call.param("id"), height, width)?;
    Ok(EXEC_RESIZE.reply(&()))
}

pub fn inspect(engine: &Arc<Engine>, call: Call) -> Result<Reply> {
    Ok(EXEC_INSPECT.reply(&exec::inspect(engine, call.param("id"))?))
}
