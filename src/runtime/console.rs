//! A container's terminal: a pty from the container's own devpts, its master handed out to the shim.
//!
//! The container's devpts, not the host's, so that `ttyname` works inside and CRIU finds the slave in the
//! container's mounts.
//!
//! Source: pts(4), ioctl_tty(2) (`TIOCGPTPEER`), unix(7) (`SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use rustix::pty::OpenptFlags;

use super::spec::ConsoleSize;
use super::sys::terminal::{self, Size};

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// Both ends of a pty.
#[derive(Debug)]
pub struct Pty {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// Allocates a pty in the devpts mounted at `dev/pts` below `root`.
///
/// # Errors
/// `ENOENT` when there is none; `EXDEV` when `dev/pts/ptmx` is not a devpts' own: an image or a hostile
/// process could have put anything there.
pub fn allocate(root: BorrowedFd<'_>, size: Option<ConsoleSize>) -> io::Result<Pty> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let master = rustix::fs::openat2(root, "dev/pts/ptmx", flags, Mode::empty(), resolve)?;
    if rustix::fs::fstatfs(&master)?.f_type.cast_unsigned() != DEVPTS_MAGIC {
        return Err(rustix::io::Errno::XDEV.into());
    }
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    if let Some(ConsoleSize { height, width }) = size {
        terminal::set_size(&master, Size { rows: height, columns: width })?;
    }
    Ok(Pty { master, slave })
}

/// Makes `slave` the controlling terminal of this session leader.
///
/// # Errors
/// `EPERM` when the caller leads no session, or another session has it.
pub fn control(slave: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(slave)?)
}

/// Sends `byte` with a descriptor over a connected unix stream socket.
///
/// # Errors
/// `EPIPE` when the peer is gone.
pub fn send_fd(socket: impl AsFd, byte: u8, fd: BorrowedFd<'_>) -> io::Result<()> {
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = control.push(SendAncillaryMessage::ScmRights(&fds));
    debug_assert!(fits, "the space was made for one descriptor");
    rustix::net::sendmsg(socket, &[IoSlice::new(&[byte])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Reads into `buffer`; 0 bytes is the end. A descriptor that came along is returned close-on-exec.
///
/// # Errors
/// As recvmsg(2). Interruptions are retried.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let socket = socket.as_fd();
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(buffer)];
        let received = match rustix::net::recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        return Ok((received.bytes, fd));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_descriptor_travels_with_its_byte() {
        let (near, far) = UnixStream::pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        send_fd(&near, b'x', writer.as_fd()).unwrap();
        drop((near, writer));
        let mut buffer = [0; 8];
        let (count, fd) = receive(&far, &mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"x");
        rustix::io::write(fd.unwrap(), b"hello").unwrap();
        assert_eq!(io::read_to_string(reader).unwrap(), "hello");
        assert_eq!(receive(&far, &mut buffer).unwrap().0, 0);
    }

    #[test]
    fn a_root_without_devpts_has_no_console() {
        let root = rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        assert!(allocate(root.as_fd(), None).is_err());
    }
}
