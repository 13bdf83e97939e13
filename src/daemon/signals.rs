//! Signals become orders on the channel the main thread waits at.
//!
//! | signal | what it does |
//! |---|---|
//! | INT, TERM | stop in order; the third ends the daemon at once, with 128 + its number |
//! | HUP | read the configuration again |
//! | USR1, QUIT | write what the daemon is doing into a file |
//! | PIPE | nothing: Rust's start-up ignores it, writers see EPIPE |

use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use signal_hook::iterator::{Handle, Signals};

use super::engine::Engine;
use super::error::{Error, Result};
use super::{dump, spawn};

/// How many INT and TERM it takes to end without order.
const FORCED: u32 = 3;

/// What the main thread is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Stop in order; why.
    Stop(&'static str),
    Reload,
}

/// The trap; signals are ours until [`close`](Trap::close).
pub struct Trap {
    handle: Handle,
    shared: Arc<Shared>,
}

/// What the thread that waits for signals acts on by itself, however stuck the main thread is.
#[derive(Default)]
struct Shared {
    engine: OnceLock<Arc<Engine>>,
    files: Mutex<Vec<PathBuf>>,
}

impl Trap {
    /// What a dump tells of; until it is known there is nothing to tell.
    pub fn dump_of(&self, engine: &Arc<Engine>) {
        // It is set once, by the one start of this process.
        let _ = self.shared.engine.set(Arc::clone(engine));
    }

    /// What a forced end still takes away: the socket files and the pid file.
    pub fn remove_when_forced(&self, files: impl Iterator<Item = PathBuf>) {
        self.shared.files.lock().unwrap_or_else(PoisonError::into_inner).extend(files);
    }

    /// Ends the thread that waits for signals.
    pub fn close(self) {
        self.handle.close();
    }
}

/// Starts to listen for signals; orders go to `sender`.
///
/// # Errors
/// System when the kernel refuses the handlers or the thread.
pub fn trap(sender: Sender<Order>) -> Result<Trap> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGQUIT])
        .map_err(|cause| Error::system("trap signals", cause))?;
    let handle = signals.handle();
    let shared = Arc::new(Shared::default());
    spawn("signals", {
        let shared = Arc::clone(&shared);
        move || {
            let mut stops = 0;
            for signal in &mut signals {
                let order = match signal {
                    SIGHUP => Order::Reload,
                    SIGUSR1 | SIGQUIT => {
                        match shared.engine.get() {
                            Some(engine) => dump::dump(engine),
                            None => log::info!("nothing to dump: the daemon is still starting"),
                        }
                        continue;
                    }
                    _ => {
                        stops += 1;
                        let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
                        match stops {
                            1 => Order::Stop(name),
                            FORCED => force(signal, name, &shared.files),
                            _ => {
                                log::warn!("{name}: already stopping; one more ends the daemon at once");
                                continue;
                            }
                        }
                    }
                };
                if sender.send(order).is_err() {
                    return;
                }
            }
        }
    })?;
    Ok(Trap { handle, shared })
}

/// Ends the process. Containers go on under their shims, and the next daemon finds them.
fn force(signal: i32, name: &str, files: &Mutex<Vec<PathBuf>>) -> ! {
    log::warn!("{name}: forced to end; containers that still run are left to their shims");
    for file in files.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        // Nothing can be done about one that stays: the next start takes it for stale.
        let _ = std::fs::remove_file(file);
    }
    std::process::exit(128 + signal)
}
