//! The way from 127.0.0.11:53 to the sockets that really serve it, inside a container's namespace.
//!
//! The answers' way back is the kernel's affair: connection tracking gives them the address that was asked.
//!
//! Source: nft(8); Docker has the same as rules of iptables.

use std::io;
use std::thread;

use super::ADDRESS;
use crate::runtime::nftables::rule::{End, Part};
use crate::runtime::nftables::{self, Batch, Family, Hook, Key, Leads, Table, Type, Value};

const CHAIN: &str = "output";
const MAP: &str = "servers";
/// Where clients look.
pub const PORT: u16 = 53;
/// linux/netfilter_ipv4.h: where destinations are translated.
const PRIORITY: i32 = -100;

/// Leads port 53 to these ports, for UDP and TCP, in the calling thread's namespace, instead of where it led.
///
/// # Errors
/// `EPROTONOSUPPORT`, `EOPNOTSUPP` or `ENOENT` from a kernel without nf_tables or address translation.
pub fn lead(udp: u16, tcp: u16) -> io::Result<()> {
    let mut socket = nftables::open()?;
    let table = Table { family: Family::Ip, name: "dewar-dns".to_owned() };
    let to = |protocol: i32, port: u16| {
        let value = Value::Bytes(Key::new().address(ADDRESS.into()).port(port).bytes());
        Key::new().protocol(protocol as u8).port(PORT).leads(value)
    };
    let is_there = nftables::look::tables(&mut socket, table.family.number())?.contains(&table.name);
    let mut batch = Batch::new();
    if is_there {
        batch.delete_table(&table);
    }
    batch.add_table(&table);
    batch.add_chain(&table, CHAIN, Some(Hook::new("nat", libc::NF_INET_LOCAL_OUT, PRIORITY)));
    batch.add_set(&table, MAP, &[Type::Protocol, Type::Port], Leads::To(&[Type::Ipv4, Type::Port]));
    batch.add_elements(&table, MAP, &[to(libc::IPPROTO_UDP, udp), to(libc::IPPROTO_TCP, tcp)]);
    batch.add_rule(&table, CHAIN, &mut |rule| {
        rule.equals(Part::Address(Family::Ip, End::Destination), &ADDRESS.octets());
        rule.lead_by(Family::Ip, &[Part::L4Protocol, Part::Port(End::Destination)], MAP);
    });
    let done = batch.run(&mut socket);
    if is_there {
        // When something was taken away, closing the socket waits until no packet is looked at by the old rules,
        // for tens of milliseconds on a busy host: nobody else has to.
        let _ = thread::Builder::new().name("dns-close".to_owned()).spawn(move || drop(socket));
    }
    Ok(done?)
}
