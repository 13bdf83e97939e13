//! USR1 and QUIT: what the daemon is doing, into a file for whoever looks for the reason it does not go on.
//!
//! Threads are told as the kernel sees them: where each waits, and in which system call. Locks of containers are
//! tried and never waited for, because a dump is most wanted when one is held for ever.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::config::load::as_go;
use super::engine::Engine;
use super::error::Result;
use super::info::masked;
use super::state_dir::{self, Durability};

/// Writes `dump-<time>.txt` into the exec root and logs its path.
pub fn dump(engine: &Arc<Engine>) {
    match write(engine) {
        Ok(path) => log::info!("what the daemon is doing is written to {}", path.display()),
        Err(error) => log::error!("write what the daemon is doing: {error}"),
    }
}

fn write(engine: &Arc<Engine>) -> Result<PathBuf> {
    let time = super::containers::create::now();
    let path = engine.state_dir.exec_root.join(format!("dump-{}.txt", time.replace(':', "")));
    let mut text = format!("dewar {} at {time}, process {}\n", env!("CARGO_PKG_VERSION"), std::process::id());
    memory(&mut text);
    threads(&mut text);
    containers(engine, &mut text);
    let _ = writeln!(text, "\nconfiguration");
    for (key, value) in &engine.config().values {
        let shown = if key.starts_with("proxies.") { masked(&as_go(value)) } else { value.to_string() };
        let _ = writeln!(text, "  {key} = {shown}");
    }
    let _ = writeln!(text, "\n{} subscribers of events", engine.events.subscribers());
    state_dir::replace(&path, text.as_bytes(), 0o600, Durability::Renamed)?;
    Ok(path)
}

/// A file of /proc without its last line end; a reason in brackets when it cannot be read.
fn proc(path: &str) -> String {
    match std::fs::read_to_string(format!("/proc/self/{path}")) {
        Ok(text) => text.trim_end().replace('\0', " "),
        Err(cause) => format!("[{cause}]"),
    }
}

fn memory(text: &mut String) {
    let status = proc("status");
    let wanted = ["VmRSS:", "RssAnon:", "Threads:", "FDSize:"];
    for line in status.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name))) {
        let _ = writeln!(text, "  {line}");
    }
    let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count());
    let _ = writeln!(text, "  Descriptors: {descriptors}");
}

/// Source: proc_pid_task(5), proc_pid_syscall(5), proc_pid_stack(5).
fn threads(text: &mut String) {
    let _ = writeln!(text, "\nthreads");
    let entries = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    for id in entries.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        let of = |file: &str| proc(&format!("task/{id}/{file}"));
        let status = of("status");
        let state = status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or("?").trim();
        let _ = writeln!(text, "  {id} {} {state} in {} ({})", of("comm"), of("wchan"), of("syscall"));
        for frame in of("stack").lines() {
            let _ = writeln!(text, "      {frame}");
        }
    }
}

fn containers(engine: &Engine, text: &mut String) {
    let _ = writeln!(text, "\ncontainers");
    for container in engine.containers.all() {
        let busy = match container.action.try_lock() {
            Ok(_) => "",
            Err(_) => ", an action is under way",
        };
        let _ = match container.try_lock() {
            Some(inner) => writeln!(
                text,
                "  {} {:?} {}, shim {}{busy}",
                container.id,
                inner.record.name,
                inner.record.state.name(),
                inner.sandbox.as_ref().map_or("none".to_owned(), |sandbox| sandbox.pid().to_string()),
            ),
            None => writeln!(text, "  {}: locked{busy}", container.id),
        };
    }
}
