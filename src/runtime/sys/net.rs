//! Interface flags by ioctl: enough to bring `lo` up without a netlink conversation. Options of netlink sockets.
//!
//! Source: netdevice(7), netlink(7).
#![allow(unsafe_code, reason = "ioctls on a C union, and socket options that rustix lacks")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Sets an interface of the calling thread's network namespace up.
///
/// # Errors
/// `ENODEV` when there is none of that name, `EINVAL` when the name has no room in an `ifreq`.
pub fn set_up(interface: &str) -> io::Result<()> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    if interface.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: ifreq is integers and unions of them; all zeroes is a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: the descriptor is open and `request` is a live ifreq with a NUL-terminated name; the kernel
    // writes the flags member only.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: SIOCGIFFLAGS filled `ifru_flags`, and every bit pattern is a c_short.
    unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
    // SAFETY: as above; the kernel only reads it.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A netlink socket's options, all of them numbers.
#[derive(Clone, Copy, Debug)]
pub enum NetlinkOption {
    /// Acknowledgements do not repeat the request.
    CapAck,
    /// Acknowledgements have the kernel's words.
    ExtAck,
    /// News of the group with this number are received.
    AddMembership,
}

/// Sets an option of a netlink socket.
///
/// # Errors
/// `ENOPROTOOPT` from a kernel that does not know it, `EINVAL` for a group that does not exist.
pub fn set_netlink(socket: BorrowedFd<'_>, option: NetlinkOption, value: u32) -> io::Result<()> {
    let option = match option {
        NetlinkOption::CapAck => libc::NETLINK_CAP_ACK,
        NetlinkOption::ExtAck => libc::NETLINK_EXT_ACK,
        NetlinkOption::AddMembership => libc::NETLINK_ADD_MEMBERSHIP,
    };
    let length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the value is a live integer of the length passed; the kernel reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const value).cast::<libc::c_void>(),
            length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Reads an option of a socket as the bytes the kernel has for it, some of which it may want filled in before. Gives
/// how many there are.
///
/// # Errors
/// `ENOPROTOOPT` for an option the kernel does not know, `EINVAL` for a buffer that is not as it wants it.
pub fn get_option(socket: BorrowedFd<'_>, level: i32, name: i32, bytes: &mut [u8]) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open; the kernel reads and writes at most `length` bytes of the live buffer, and the
    // length itself.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            bytes.as_mut_ptr().cast::<libc::c_void>(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(length as usize) }
}
