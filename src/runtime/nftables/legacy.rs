//! What the older iptables, which has its rules beside nf_tables, does with packets that are forwarded.
//!
//! Source: linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h, linux/netfilter/x_tables.h.

use std::fs;
use std::io;
use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};

use super::Family;
use crate::runtime::netlink::message::{number, short};
use crate::runtime::sys::net;

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`
const GET_INFO: i32 = 64;
/// `IPT_SO_GET_ENTRIES` and `IP6T_SO_GET_ENTRIES`
const GET_ENTRIES: i32 = 65;
/// `XT_TABLE_MAXNAMELEN`
const NAME_BYTES: usize = 32;
/// `struct ipt_getinfo`: name, hooks there are, 5 beginnings, 5 policies, number of entries, their size.
const INFO_BYTES: usize = 84;
/// Of the policies, as offsets of their entries.
const UNDERFLOWS: usize = NAME_BYTES + 4 + 20;
const SIZE: usize = INFO_BYTES - 4;
/// `struct ipt_get_entries`: name, size, padding.
const ENTRIES: usize = 40;
/// `struct xt_entry_target`, behind which a policy has its verdict.
const TARGET_BYTES: usize = 32;

/// Whether the policy of its chain `FORWARD` is to drop. Nothing is loaded for the question.
pub fn drops_forwarded(family: Family) -> bool {
    let file = match family {
        Family::Ip => "/proc/thread-self/net/ip_tables_names",
        Family::Ip6 => "/proc/thread-self/net/ip6_tables_names",
    };
    // Asking for a table would make it.
    let is_there = fs::read_to_string(file).unwrap_or_default().lines().any(|table| table == "filter");
    is_there && policy(family).is_ok_and(|verdict| verdict == -libc::NF_DROP - 1)
}

fn policy(family: Family) -> io::Result<i32> {
    // Where an entry says how far behind its beginning the target is: `struct ipt_ip` or `struct ip6t_ip6`, and 4.
    let (domain, level, target_offset) = match family {
        Family::Ip => (AddressFamily::INET, libc::IPPROTO_IP, 84 + 4),
        Family::Ip6 => (AddressFamily::INET6, libc::IPPROTO_IPV6, 136 + 4),
    };
    let socket = rustix::net::socket_with(domain, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))?;
    let mut info = vec![0; INFO_BYTES];
    info[.."filter".len()].copy_from_slice(b"filter");
    net::get_option(socket.as_fd(), level, GET_INFO, &mut info)?;
    let size = number(&info, SIZE);
    let mut table = vec![0; ENTRIES + size as usize];
    table[.."filter".len()].copy_from_slice(b"filter");
    table[NAME_BYTES..NAME_BYTES + 4].copy_from_slice(&size.to_ne_bytes());
    net::get_option(socket.as_fd(), level, GET_ENTRIES, &mut table)?;
    let entry = ENTRIES + number(&info, UNDERFLOWS + 4 * libc::NF_INET_FORWARD as usize) as usize;
    let target = entry + usize::from(short(&table, entry + target_offset));
    Ok(number(&table, target + TARGET_BYTES).cast_signed())
}
