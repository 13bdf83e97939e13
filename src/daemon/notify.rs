//! Telling the supervisor: systemd's notification socket, and a descriptor for those that wait on one.
//!
//! Sources: sd_notify(3), sd_watchdog_enabled(3); s6's and dinit's readiness descriptor. The variables stay in the
//! environment, which no process of a container gets to see: shims start with one of their own.

use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Where the supervisor listens, if it does.
pub struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that the daemon is well.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// What NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID say. What cannot be reached is logged once.
    pub fn from_environment() -> Notifier {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let to = variable("NOTIFY_SOCKET").and_then(|name| match address(&name) {
            Ok(to) => Some(to),
            Err(cause) => {
                log::warn!("notify the supervisor at {name:?}: {cause}");
                None
            }
        });
        let is_ours = variable("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let watchdog = variable("WATCHDOG_USEC")
            .filter(|_| is_ours && to.is_some())
            .and_then(|usec| usec.parse().ok())
            .filter(|usec| *usec > 0)
            // Source: sd_watchdog_enabled(3): half of it is recommended.
            .map(|usec| Duration::from_micros(usec) / 2);
        Notifier { to, watchdog }
    }

    /// How long to wait at most until `WATCHDOG=1` is due.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends lines of sd_notify(3).
    pub fn tell(&self, lines: &str) {
        if let Some((socket, address)) = &self.to
            && let Err(cause) = socket.send_to_addr(lines.as_bytes(), address)
        {
            log::warn!("notify the supervisor of {lines:?}: {cause}");
        }
    }

    /// Tells both kinds of supervisors that requests are answered.
    pub fn ready(&self, ready_fd: Option<i32>) {
        self.tell("READY=1\nSTATUS=serving");
        let Some(number) = ready_fd else { return };
        // Through /proc, so that a wrong number is an error and not a surprise.
        let written = std::fs::File::options()
            .write(true)
            .open(format!("/proc/self/fd/{number}"))
            .and_then(|mut file| file.write_all(b"\n"));
        if let Err(cause) = written {
            log::warn!("tell readiness on descriptor {number}: {cause}");
        }
    }

    /// Reloads between the two messages `Type=notify-reload` waits for.
    pub fn reloading(&self, reload: impl FnOnce()) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1000));
        reload();
        self.tell("READY=1");
    }
}

/// `@name` is in the abstract namespace, `/path` in the file system.
fn address(name: &str) -> std::io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None if name.starts_with('/') => SocketAddr::from_pathname(name)?,
        None => return Err(std::io::Error::other("expected an absolute path or @name")),
    };
    let socket = UnixDatagram::unbound()?;
    // A supervisor that reads nothing must not hold the daemon up.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}
