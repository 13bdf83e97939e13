//! The pid file of hosts whose init scripts want one.

use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::state_dir::{self, Durability};

/// A pid file of ours, removed when dropped.
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes our pid. One that names no process, or a process that is no dewar daemon (pids are given out again,
    /// above all after a power cut with the file on a disk), is stale and overwritten.
    ///
    /// # Errors
    /// Conflict, with dockerd's words, while the daemon it names lives.
    pub fn write(path: &Path) -> Result<PidFile> {
        let attempt = || format!("write pid file {path:?}");
        match std::fs::read_to_string(path) {
            Ok(text) => match text.trim().parse::<u32>() {
                Ok(pid) if pid == std::process::id() => {}
                Ok(pid) if is_daemon(pid) => {
                    return Err(Error::conflict(format!(
                        "{}: process with PID {pid} is still running",
                        attempt()
                    )));
                }
                Ok(pid) if Path::new(&format!("/proc/{pid}")).exists() => {
                    log::warn!(
                        "pid file {path:?} names process {pid}, which is no dewar daemon: overwritten"
                    );
                }
                Ok(_) => {}
                Err(_) => log::warn!("pid file {path:?} holds no process ID: overwritten"),
            },
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
            Err(cause) => return Err(Error::system(attempt(), cause)),
        }
        if let Some(parent) = path.parent() {
            state_dir::make_dir(parent, 0o755)?;
        }
        let text = format!("{}\n", std::process::id());
        state_dir::replace(path, text.as_bytes(), 0o644, Durability::Renamed)?;
        Ok(PidFile(path.to_owned()))
    }
}

/// Whether a process runs this program as a daemon, under whatever name the file has.
fn is_daemon(pid: u32) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let Ok(name) = std::fs::read_to_string(format!("/proc/{pid}/comm")) else { return false };
    let ours = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    let is_named = name == ours || name.trim_end() == "dewar";
    is_named && line.split(|byte| *byte == 0).any(|word| word == b"daemon")
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Somebody may have put another daemon's in its place.
        let is_ours =
            std::fs::read_to_string(&self.0).is_ok_and(|text| text.trim().parse() == Ok(std::process::id()));
        if is_ours && let Err(cause) = std::fs::remove_file(&self.0) {
            log::warn!("remove pid file {:?}: {cause}", self.0);
        }
    }
}
