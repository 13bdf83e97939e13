//! The sockets of a tree of processes: kinds that CRIU does not know, peers outside of the tree, data that would be
//! lost.
//!
//! What kind a socket is says the name of its protocol, an extended attribute that the kernel gives every socket; the
//! peers of unix sockets say the kernel's socket diagnostics, asked for in the network namespace they are in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::{Obstacle, Task, read};
use crate::runtime::netlink::message::{attributes, number};
use crate::runtime::netlink::{Message, Protocol, Socket};
use crate::runtime::netns;

/// Names of the protocols CRIU dumps.
const KNOWN: [&str; 15] = [
    "UNIX",
    "UNIX-STREAM",
    "TCP",
    "TCPv6",
    "UDP",
    "UDPv6",
    "UDP-Lite",
    "UDPLITEv6",
    "UDPLITE",
    "RAW",
    "RAWv6",
    "PING",
    "PINGv6",
    "NETLINK",
    "PACKET",
];
const INET: [&str; 11] =
    ["TCP", "TCPv6", "UDP", "UDPv6", "UDP-Lite", "UDPLITEv6", "UDPLITE", "RAW", "RAWv6", "PING", "PINGv6"];

/// linux/sock_diag.h, linux/unix_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SHOW_PEER: u32 = 4;
const ATTRIBUTE_PEER: u16 = 2;
const ESTABLISHED: u8 = 1;
const DATAGRAM: u8 = 2;

/// One descriptor that is a socket.
#[derive(Clone, Debug)]
struct Held {
    task: Task,
    fd: String,
    inode: u64,
}

/// All sockets of a tree.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    unix: Vec<Held>,
    netlink: Vec<Held>,
    refused: Vec<Obstacle>,
    has_inet: bool,
    /// Of unix sockets.
    inodes: BTreeSet<u64>,
    /// A process in each network namespace, by its identity.
    namespaces: BTreeMap<PathBuf, i32>,
}

/// A unix socket as the kernel sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Diagnosis {
    kind: u8,
    state: u8,
    /// Zero for one without a number; `None` for no peer.
    peer: Option<u64>,
}

impl Sockets {
    /// Takes note of descriptor `fd` of a process, a socket with this number.
    pub(super) fn add(&mut self, task: &Task, fd: &str, inode: u64) {
        let path = task.path(&format!("fd/{fd}"));
        let mut name = [0; 64];
        // Without a name it is gone already.
        let Ok(length) = rustix::fs::getxattr(&path, "system.sockprotoname", &mut name) else { return };
        let name = String::from_utf8_lossy(&name[..length]).trim_end_matches('\0').to_owned();
        if let Ok(namespace) = std::fs::read_link(task.path("ns/net")) {
            self.namespaces.entry(namespace).or_insert(task.pid);
        }
        let held = Held { task: task.clone(), fd: fd.to_owned(), inode };
        self.has_inet |= INET.contains(&name.as_str());
        match name.as_str() {
            "UNIX" | "UNIX-STREAM" => {
                self.inodes.insert(inode);
                self.unix.push(held);
            }
            "NETLINK" => self.netlink.push(held),
            known if KNOWN.contains(&known) => {}
            "MPTCP" => self.refused.push(held.obstacle(
                "criu does not save multipath TCP (MPTCP)",
                "leave net.mptcp.enabled at 0, dewar's default, or run Go programs with GODEBUG=multipathtcp=0",
            )),
            other => self.refused.push(held.obstacle(
                &format!("criu does not save sockets of protocol {other}"),
                "close it before the checkpoint, or run that program elsewhere",
            )),
        }
    }

    pub(super) fn has_inet(&self) -> bool {
        self.has_inet
    }

    /// Judges them, now that all are known.
    pub(super) fn examine(&mut self, found: &mut Vec<Obstacle>) {
        found.append(&mut self.refused);
        let unread: BTreeSet<u64> = self
            .namespaces
            .values()
            .flat_map(|pid| unread(&read(format!("/proc/{pid}/net/netlink"))))
            .collect();
        found.extend(self.netlink.iter().filter(|held| unread.contains(&held.inode)).map(|held| {
            held.obstacle(
                "the kernel has said something on this netlink socket that was not read yet, and would be lost",
                "try again: programs read it soon, as a rule",
            )
        }));
        if self.unix.is_empty() {
            return;
        }
        let mut known = BTreeMap::new();
        for pid in self.namespaces.values() {
            // One that cannot be asked is left to CRIU.
            known.extend(diagnose(*pid).unwrap_or_default());
        }
        found.extend(self.unix.iter().filter_map(|held| self.judge(held, &known)));
    }

    fn judge(&self, held: &Held, known: &BTreeMap<u64, Diagnosis>) -> Option<Obstacle> {
        let own = known.get(&held.inode)?;
        let peer = own.peer?;
        // Zero stands for an end that is closed, or that nobody has accepted yet: CRIU judges those.
        if peer == 0 || self.inodes.contains(&peer) {
            return None;
        }
        if own.kind == DATAGRAM {
            // One in the same network namespace is found again by its name.
            return (!known.contains_key(&peer)).then(|| {
                held.obstacle(
                    "it sends to a unix socket outside of the container, such as a log's",
                    "do not mount the host's socket into the container, or have the program close it first",
                )
            });
        }
        (own.state == ESTABLISHED).then(|| {
            held.obstacle(
                "it is connected to a unix socket outside of the container, such as a host's daemon's",
                "have the program close the connection before the checkpoint, or use TCP",
            )
        })
    }
}

impl Held {
    fn obstacle(&self, reason: &str, remedy: &str) -> Obstacle {
        self.task.obstacle("socket", &format!("fd {}: socket:[{}]", self.fd, self.inode), reason, remedy)
    }
}

/// The numbers of the netlink sockets with something in their receive buffers, of the kernel's table.
fn unread(table: &str) -> Vec<u64> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_unread = *fields.get(4)? != "0";
        let inode = fields.get(9)?.parse().ok()?;
        is_unread.then_some(inode)
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// The unix sockets of a process's network namespace, by number.
fn diagnose(pid: i32) -> std::io::Result<BTreeMap<u64, Diagnosis>> {
    netns::within(std::path::Path::new(&format!("/proc/{pid}/ns/net")), || {
        let mut socket = Socket::open(Protocol::Diagnostics)?;
        let mut request = Message::new(SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP as u16);
        request
            .put(&[libc::AF_UNIX as u8, 0, 0, 0])
            .put(&u32::MAX.to_ne_bytes())
            .put(&[0; 4])
            .put(&SHOW_PEER.to_ne_bytes())
            .put(&[0xff; 8]);
        let mut found = BTreeMap::new();
        socket.dump(&request, &mut |payload| {
            if let Some((inode, diagnosis)) = diagnosis(payload) {
                found.insert(inode, diagnosis);
            }
        })?;
        Ok(found)
    })
}

/// `struct unix_diag_msg` and its attributes.
fn diagnosis(payload: &[u8]) -> Option<(u64, Diagnosis)> {
    let rest = payload.get(16..)?;
    let mut found = Diagnosis { kind: payload[1], state: payload[2], ..Diagnosis::default() };
    for (kind, value) in attributes(rest) {
        if kind == ATTRIBUTE_PEER {
            found.peer = Some(number(value, 0).into());
        }
    }
    Some((number(payload, 4).into(), found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_with_something_unread_are_found() {
        let table = "\
sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
000000001e8f5d9b 0   1          00000000 0        0        0     2        0        77
000000005d2ce1f2 0   4242       00000000 768      0        0     2        0        78
";
        assert_eq!(unread(table), [78]);
        assert!(unread("").is_empty());
    }

    #[test]
    fn peers_are_read_from_what_the_kernel_says() {
        let mut payload = vec![1, 1, ESTABLISHED, 0];
        payload.extend(7u32.to_ne_bytes());
        payload.extend([0; 8]);
        payload.extend([8, 0, 2, 0]);
        payload.extend(9u32.to_ne_bytes());
        payload.extend([12, 0, 3, 0]);
        payload.extend(11u32.to_ne_bytes());
        payload.extend(12u32.to_ne_bytes());
        let expected = Diagnosis { kind: 1, state: ESTABLISHED, peer: Some(9) };
        assert_eq!(diagnosis(&payload), Some((7, expected)));
        assert_eq!(diagnosis(&payload[..15]), None);
    }

    #[test]
    fn the_kernel_tells_both_ends_of_a_pair() {
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let inode = |stream: &std::os::unix::net::UnixStream| rustix::fs::fstat(stream).unwrap().st_ino;
        let own = i32::try_from(std::process::id()).unwrap();
        // Joining a namespace, even one's own, is root's.
        if rustix::process::geteuid().is_root() {
            let known = diagnose(own).unwrap();
            assert_eq!(known[&inode(&one)].peer, Some(inode(&other)));
        }
    }
}
