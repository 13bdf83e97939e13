//! The access log: one line for each request, whatever became of it.
//!
//! The lines have a target of their own, `dewar::access`, and are of level debug, or of level info once somebody has
//! asked for them. A request that nobody wants to read of costs two comparisons.

use std::cell::Cell;
use std::fmt;
use std::time::Instant;

use crate::http::socket::Socket;

const TARGET: &str = "dewar::access";

/// A line in the making.
pub(super) struct Line {
    level: log::Level,
    method: String,
    /// With the version, without the query: that may hold what no log should.
    path: String,
    peer: Who,
    started: Instant,
    /// Of the answer's body, as far as it was sent; `None` when the connection was taken over.
    pub(super) sent: Cell<Option<u64>>,
    pub(super) status: Cell<u16>,
}

impl Line {
    /// Begins the line of a request; `None` if nobody will read it.
    pub(super) fn begin(is_asked_for: bool, method: &str, path: &str, socket: &Socket) -> Option<Line> {
        let level = if is_asked_for { log::Level::Info } else { log::Level::Debug };
        log::log_enabled!(target: TARGET, level).then(|| Line {
            level,
            method: method.to_owned(),
            path: path.to_owned(),
            // Later the peer may be gone, and with it its address.
            peer: Who::of(socket),
            started: Instant::now(),
            sent: Cell::new(Some(0)),
            status: Cell::new(0),
        })
    }
}

impl Drop for Line {
    /// However the request ended, it is told.
    fn drop(&mut self) {
        log::log!(target: TARGET, self.level, "{self}");
    }
}

impl fmt::Display for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (version, path) = crate::http::route::split_version(&self.path);
        let version = version.unwrap_or("-");
        write!(out, "access: method={} path={path} version={version}", self.method)?;
        write!(out, " status={}", self.status.get())?;
        match self.sent.get() {
            Some(bytes) => write!(out, " bytes={bytes}")?,
            None => write!(out, " bytes=-")?,
        }
        write!(out, " seconds={:.6} {}", self.started.elapsed().as_secs_f64(), self.peer)
    }
}

/// Who is at the other end, as far as the kernel knows.
enum Who {
    /// Of the process that connected.
    Process {
        uid: u32,
        pid: i32,
    },
    Address(std::net::SocketAddr),
    /// Of the certificate it has proven to be its own, if it was asked for one.
    Certified {
        name: Option<String>,
        address: std::net::SocketAddr,
    },
    Unknown,
}

impl Who {
    fn of(socket: &Socket) -> Who {
        match socket {
            Socket::Unix(stream) => match rustix::net::sockopt::socket_peercred(stream) {
                Ok(peer) => {
                    Who::Process { uid: peer.uid.as_raw(), pid: rustix::process::Pid::as_raw(Some(peer.pid)) }
                }
                Err(_) => Who::Unknown,
            },
            Socket::Tcp(stream) => stream.peer_addr().map_or(Who::Unknown, Who::Address),
            Socket::Tls(stream) => match stream.peer_addr() {
                Ok(address) => Who::Certified { name: stream.common_name(), address },
                Err(_) => Who::Unknown,
            },
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Process { uid, pid } => write!(out, "uid={uid} pid={pid}"),
            Who::Address(address) | Who::Certified { name: None, address } => {
                write!(out, "address={address}")
            }
            Who::Certified { name: Some(name), address } => write!(out, "user={name:?} address={address}"),
            Who::Unknown => out.write_str("peer=-"),
        }
    }
}
