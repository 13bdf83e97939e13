//! The kernel's own language for networks: requests and answers over netlink sockets.
//!
//! Only the framing is here; what the messages say is in the modules below and, for nf_tables, in its own. The
//! kernel works a request off while it is being sent, so that every answer is there when the call returns:
//! nothing here waits for anybody, except [`Socket::receive_others`].
//!
//! Source: netlink(7), rtnetlink(7), linux/netlink.h, linux/netfilter/nfnetlink.h.

pub mod address;
pub mod link;
pub mod message;
pub mod route;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use super::sys::net::{self, NetlinkOption};
pub use message::Message;
use message::replies;

/// More acknowledgements than this do not fit the socket's receive buffer (200 are too many).
const ACKS_PER_SEND: usize = 50;
/// The kernel makes an answer no bigger than the reader's buffer, up to this.
const BUFFER_BYTES: usize = 32 << 10;

/// Which part of the kernel a socket speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Interfaces, addresses, routes, neighbours.
    Route,
    /// nf_tables and its relatives.
    Netfilter,
    /// The sockets of a namespace.
    Diagnostics,
}

/// A conversation with the kernel about one network namespace: the one that the opening thread was in, whichever
/// thread uses it later.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    protocol: Protocol,
    /// Of the last message sent.
    sequence: u32,
    buffer: Vec<u8>,
}

/// The request of a list that the kernel refused.
#[derive(Debug)]
pub struct Failed {
    /// Which one, from zero.
    pub index: usize,
    pub errno: Errno,
    /// The kernel's own words, often empty.
    pub text: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from(self.errno))?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text) }
    }
}

impl std::error::Error for Failed {}

impl From<Failed> for io::Error {
    /// The errno stays readable where the kernel said nothing beside it.
    fn from(failed: Failed) -> io::Error {
        match failed.text.is_empty() {
            true => failed.errno.into(),
            false => io::Error::new(io::Error::from(failed.errno).kind(), failed),
        }
    }
}

impl AsFd for Socket {
    /// Readable when something subscribed to has happened.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` from a kernel without this part; `EMFILE`.
    pub fn open(protocol: Protocol) -> io::Result<Socket> {
        let number = match protocol {
            // NETLINK_ROUTE is zero, which is no protocol to rustix.
            Protocol::Route => None,
            Protocol::Netfilter => Some(netlink::NETFILTER),
            Protocol::Diagnostics => Some(netlink::SOCK_DIAG),
        };
        let fd =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, number)?;
        // Acknowledgements without a copy of the request, but with the kernel's words. Both are Linux 4.12's.
        net::set_netlink(fd.as_fd(), NetlinkOption::CapAck, 1)?;
        net::set_netlink(fd.as_fd(), NetlinkOption::ExtAck, 1)?;
        Ok(Socket { fd, protocol, sequence: 0, buffer: Vec::new() })
    }

    /// Sends requests and reads what the kernel says to each.
    ///
    /// [`Protocol::Route`]: each stands for itself; those behind a refused one in the same send (of up to 50) have
    /// been tried as well. [`Protocol::Netfilter`]: all go in one send, and are one transaction when the list
    /// begins and ends with the messages that make it one; flags are the caller's except for the acknowledgement.
    ///
    /// # Errors
    /// The first request that was refused, with the errno it got.
    pub fn run(&mut self, requests: &[Message]) -> Result<(), Failed> {
        let per_send = match self.protocol {
            Protocol::Route | Protocol::Diagnostics => ACKS_PER_SEND,
            Protocol::Netfilter => requests.len().max(1),
        };
        for (number, chunk) in requests.chunks(per_send).enumerate() {
            self.run_once(chunk)
                .map_err(|failed| Failed { index: number * per_send + failed.index, ..failed })?;
        }
        Ok(())
    }

    fn run_once(&mut self, requests: &[Message]) -> Result<(), Failed> {
        let at = |index: usize| move |errno: Errno| Failed { index, errno, text: String::new() };
        // Refusals come unasked; of a transaction only the end has to be known, and a hundred acknowledgements would
        // not fit the buffer.
        let is_netfilter = self.protocol == Protocol::Netfilter;
        let last = requests.iter().rposition(|request| !(is_netfilter && request.is_batch_end()));
        let Some(last) = last else { return Ok(()) };
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(requests.iter().map(Message::len).sum());
        for (index, request) in requests.iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let is_acked = index == last || !is_netfilter;
            request.write(&mut bytes, self.sequence, if is_acked { libc::NLM_F_ACK as u16 } else { 0 });
        }
        rustix::net::send(&self.fd, &bytes, SendFlags::empty()).map_err(at(0))?;
        let mut failed: Option<Failed> = None;
        loop {
            let received = match self.read(RecvFlags::DONTWAIT) {
                Ok(received) => received,
                // The kernel has answered everything by the time `send` returns: there is no more to come, as after
                // a transaction that was given up as a whole.
                Err(Errno::AGAIN) => return Err(failed.unwrap_or_else(|| at(last)(Errno::PROTO))),
                Err(errno) => return Err(failed.unwrap_or_else(|| at(last)(errno))),
            };
            for reply in replies(&self.buffer[..received]) {
                let index = reply.sequence.wrapping_sub(first) as usize;
                if index >= requests.len() || reply.kind != libc::NLMSG_ERROR as u16 {
                    continue;
                }
                if let Some(errno) = reply.errno()
                    && failed.as_ref().is_none_or(|failed| failed.index > index)
                {
                    failed = Some(Failed { index, errno, text: reply.explanation() });
                }
                if index == last {
                    return failed.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Sends one question and hands what the kernel answers to `each`, message by message without its header: all
    /// there is for a question with `NLM_F_DUMP`, one otherwise.
    ///
    /// # Errors
    /// The kernel's; `EINTR` when a list changed while it was read, so that something may be missing in it.
    pub fn dump(&mut self, request: &Message, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(request.len());
        request.write(&mut bytes, self.sequence, 0);
        rustix::net::send(&self.fd, &bytes, SendFlags::empty())?;
        let mut is_torn = false;
        loop {
            let received = self.read(RecvFlags::DONTWAIT)?;
            for reply in replies(&self.buffer[..received]).filter(|reply| reply.sequence == self.sequence) {
                is_torn |= reply.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
                let is_end = matches!(i32::from(reply.kind), libc::NLMSG_DONE | libc::NLMSG_ERROR);
                if is_end && let Some(errno) = reply.errno() {
                    return Err(Failed { index: 0, errno, text: reply.explanation() }.into());
                }
                if !is_end {
                    each(reply.payload);
                }
                if is_end || reply.flags & libc::NLM_F_MULTI as u16 == 0 {
                    return if is_torn { Err(Errno::INTR.into()) } else { Ok(()) };
                }
            }
        }
    }

    /// Asks to be told what happens: `group` is a number of the protocol's, like `RTNLGRP_LINK`.
    ///
    /// # Errors
    /// `EINVAL` for a group the kernel does not have; `EPERM`.
    pub fn subscribe(&self, group: u32) -> io::Result<()> {
        // A socket without a number of its own, as before its first request, is told nothing of what the kernel does by
        // itself.
        match rustix::net::bind(&self.fd, &netlink::SocketAddrNetlink::new(0, 0)) {
            // It has one.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
        net::set_netlink(self.fd.as_fd(), NetlinkOption::AddMembership, group)
    }

    /// The number by which the kernel knows this socket, and names it in news of what it did.
    pub fn port(&self) -> u32 {
        let address = rustix::net::getsockname(&self.fd).ok();
        address.and_then(|any| netlink::SocketAddrNetlink::try_from(any).ok()).map_or(0, |own| own.pid())
    }

    /// Waits for news that were subscribed to and hands them to `each`, type and what follows the header, without
    /// what the socket with a certain [`Socket::port`] did.
    ///
    /// # Errors
    /// `ENOBUFS` when news were lost because they were not read fast enough.
    pub fn receive_others(&mut self, port: u32, each: &mut dyn FnMut(u16, &[u8])) -> io::Result<()> {
        let received = self.read(RecvFlags::empty())?;
        for reply in replies(&self.buffer[..received]).filter(|reply| reply.port != port) {
            each(reply.kind, reply.payload);
        }
        Ok(())
    }

    /// One datagram into the buffer.
    fn read(&mut self, flags: RecvFlags) -> Result<usize, Errno> {
        self.buffer.resize(BUFFER_BYTES, 0);
        let (_, length) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.fd, &mut self.buffer[..], flags | RecvFlags::TRUNC)
        })?;
        if length > self.buffer.len() { Err(Errno::MSGSIZE) } else { Ok(length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK_GET: u16 = libc::RTM_GETLINK;

    fn link(kind: u16, flags: i32, index: i32) -> Message {
        let mut message = Message::new(kind, flags as u16);
        message.put(&[0; 4]).put(&index.to_ne_bytes()).put(&[0; 8]);
        message
    }

    #[test]
    fn the_kernel_is_asked_and_answers() {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let mut indexes = Vec::new();
        let mut take = |payload: &[u8]| {
            let name = message::attributes(&payload[16..]).find(|(kind, _)| *kind == libc::IFLA_IFNAME);
            indexes.push((i32::from_ne_bytes(payload[4..8].try_into().unwrap()), name.unwrap().1.to_vec()));
        };
        socket.dump(&link(LINK_GET, libc::NLM_F_DUMP, 0), &mut take).unwrap();
        socket.dump(&link(LINK_GET, 0, 1), &mut take).unwrap();
        assert!(indexes.contains(&(1, b"lo\0".to_vec())));
        assert_eq!(indexes.last(), Some(&(1, b"lo\0".to_vec())));
        let nobody = socket.dump(&link(LINK_GET, 0, i32::MAX), &mut |_| panic!("there is none")).unwrap_err();
        assert_eq!(nobody.raw_os_error(), Some(libc::ENODEV), "{nobody}");
    }

    #[test]
    fn the_first_refusal_of_many_is_told() {
        alone(tell_first);
    }

    /// Runs a test in a network namespace of its own.
    fn alone(test: fn()) {
        std::thread::spawn(move || {
            super::super::sys::process::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
            test();
        })
        .join()
        .unwrap();
    }

    fn tell_first() {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let request = |index| link(libc::RTM_DELLINK, 0, index);
        // Nobody has these; the lists are longer than one send.
        let list: Vec<Message> = (0..120).map(|nth| request(i32::MAX - nth)).collect();
        let failed = socket.run(&list).unwrap_err();
        assert_eq!((failed.index, failed.errno), (0, Errno::NODEV));
        // The same socket is as good as new.
        let mut fine: Vec<Message> = (0..60).map(|_| link(LINK_GET, 0, 1)).collect();
        socket.run(&fine).unwrap();
        fine.push(request(i32::MAX));
        assert_eq!(socket.run(&fine).unwrap_err().index, 60);
        socket.run(&[]).unwrap();
    }

    #[test]
    fn a_transaction_of_netfilter_stands_or_falls_as_one() {
        alone(transact);
    }

    fn transact() {
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        const TABLES: u16 = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8;
        let mark = |kind: i32| {
            let mut message = Message::new(kind as u16, libc::NLM_F_REQUEST as u16);
            message.put(&[0, 0]).put(&(libc::NFNL_SUBSYS_NFTABLES as u16).to_be_bytes());
            message
        };
        let table = |name: &str, kind: i32, flags: i32| {
            let mut message = Message::new(TABLES | kind as u16, flags as u16);
            message.put(&[libc::NFPROTO_IPV4 as u8, 0, 0, 0]).string(1, name);
            message
        };
        let begin = || mark(libc::NFNL_MSG_BATCH_BEGIN);
        let end = || mark(libc::NFNL_MSG_BATCH_END);
        let mut list = vec![begin()];
        list.extend(
            (0..300).map(|nth| table(&format!("t{nth}"), libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE)),
        );
        list.push(end());
        socket.run(&list).unwrap();
        let failed = socket
            .run(&[
                begin(),
                table("new", libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE),
                table("nobody", libc::NFT_MSG_DELTABLE, 0),
                table("t1", libc::NFT_MSG_DELTABLE, 0),
                end(),
            ])
            .unwrap_err();
        assert_eq!((failed.index, failed.errno), (2, Errno::NOENT));
        let mut count = 0;
        let list = table("", libc::NFT_MSG_GETTABLE, libc::NLM_F_DUMP);
        socket.dump(&list, &mut |_| count += 1).unwrap();
        assert_eq!(count, 300, "neither the new table nor the removal came to be");
    }
}
