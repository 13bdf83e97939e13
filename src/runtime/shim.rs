//! The shim: one small process per container that holds its stdio, reaps it, and outlives the daemon.
//!
//! Here are its parts that stand alone: what is said on its socket ([`protocol`]), the streams of a process
//! ([`stdio`]), the json-file log ([`log`]), detach keys ([`detach`]).

pub mod detach;
pub mod log;
pub mod protocol;
pub mod stdio;

use std::os::fd::BorrowedFd;

use rustix::net::SocketAddrUnix;

/// `argv[0]` of a shim.
pub const NAME: &str = "dewar-shim";
/// The socket in the run directory on which a later daemon finds the shim.
pub const SOCKET: &str = "shim.sock";
/// The [`Launch`](super::Launch) in the run directory.
pub const LAUNCH: &str = "launch.json";
/// The mount point of the root filesystem in the run directory.
pub const ROOTFS: &str = "rootfs";

/// The address of the shim whose run directory is `dir`, which is open for as long as the address is used.
pub fn socket_address(dir: BorrowedFd<'_>) -> rustix::io::Result<SocketAddrUnix> {
    use std::os::fd::AsRawFd;
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}
