//! What happens below the engine reaches the container it happened to.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::containers::{self, lifecycle};
use super::engine::Engine;
use super::spawn;
use crate::runtime::SandboxEvent;

/// What happened below goes to the container it happened to; an exit gets a thread of its own, because its
/// aftermath waits for the kernel.
pub fn dispatch(engine: &Arc<Engine>, events: &Receiver<SandboxEvent>) {
    while let Ok(event) = events.recv() {
        let id = match &event {
            SandboxEvent::Exited { id, .. }
            | SandboxEvent::ExecExited { id, .. }
            | SandboxEvent::Oom { id }
            | SandboxEvent::Detached { id, .. }
            | SandboxEvent::Lost { id } => id.clone(),
        };
        let Some(container) = engine.containers.by_id(&id) else {
            log::warn!("an event of container {id}, which is not known: {event:?}");
            continue;
        };
        match event {
            SandboxEvent::Exited { exit, .. } => {
                let engine = Arc::clone(engine);
                aftermath(move || lifecycle::exited(&engine, &container, &exit));
            }
            SandboxEvent::Lost { .. } => {
                let engine = Arc::clone(engine);
                aftermath(move || lifecycle::lost(&engine, &container));
            }
            SandboxEvent::ExecExited { exec_id, code, .. } => {
                containers::exec::ended(engine, &container, &exec_id, code);
            }
            SandboxEvent::Oom { .. } => {
                let mut inner = container.lock();
                // On disk at once: the next daemon must not tell it again.
                if !std::mem::replace(&mut inner.record.oom_killed, true)
                    && let Err(error) = container.save(&inner)
                {
                    log::error!("{error}");
                }
                engine.events.publish("container", "oom", &id, inner.record.event_attributes());
            }
            SandboxEvent::Detached { exec_id: Some(exec_id), .. } => {
                containers::exec::detached(engine, &container, &exec_id);
            }
            SandboxEvent::Detached { exec_id: None, .. } => {
                engine.events.publish("container", "detach", &id, container.record().event_attributes());
            }
        }
    }
}

fn aftermath(run: impl FnOnce() + Send + 'static) {
    if let Err(error) = spawn("exit", run) {
        // The container stays "running" until the daemon restarts, which reads its exit from disk.
        log::error!("follow up on an exit: {error}");
    }
}
