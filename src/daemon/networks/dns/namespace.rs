//! Sockets of other network namespaces: a socket belongs to the one its thread was in when it was made.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

fn enter(namespace: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// The namespace of a thread that visits others, a system call at a time.
#[derive(Debug)]
pub struct Home(File);

impl Home {
    /// # Errors
    /// Those of opening a file in /proc.
    pub fn of_this_thread() -> io::Result<Home> {
        File::open("/proc/thread-self/ns/net").map(Home)
    }

    /// Does `work` in the namespace bound at `path`, or here for `None`. The thread must be the one whose home
    /// this is, and `work` must not block.
    ///
    /// # Errors
    /// Those of entering the namespace, and of `work`.
    pub fn visit<T>(&self, path: Option<&Path>, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some(path) = path else { return work() };
        enter(&File::open(path)?)?;
        let done = work();
        // A thread that cannot come home must make no other socket in the belief that it has.
        enter(&self.0)?;
        done
    }
}

/// A connection under way to `address`, from the thread's namespace; the socket does not block.
///
/// # Errors
/// Those that are known at once, as `ENETUNREACH`.
pub fn begin_connect(address: &SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(errno) => Err(errno.into()),
    }
}
