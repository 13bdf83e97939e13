//! nf_tables: transactions on tables, chains, rules, sets and maps, by netlink alone.
//!
//! A [`Batch`] is written message by message and takes effect as a whole or not at all. What rules say is in
//! [`rule`], what is there already in [`look`]. Nothing here knows what the tables are for.
//!
//! Source: linux/netfilter/nf_tables.h, nft(8), libnftnl (the user data that `nft list` reads).

pub mod legacy;
pub mod look;
pub mod rule;

use std::io;

use rustix::io::Errno;

use super::netlink::{Failed, Message, Protocol, Socket};
use rule::Rule;

/// linux/netfilter/nfnetlink.h: news of nf_tables.
pub const GROUP: u32 = 7;
const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;
/// Elements of one message: an attribute ends at 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// The packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    Ip,
    Ip6,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::Ip, Family::Ip6];

    pub fn number(self) -> u8 {
        match self {
            Family::Ip => libc::NFPROTO_IPV4 as u8,
            Family::Ip6 => libc::NFPROTO_IPV6 as u8,
        }
    }
}

/// Where a chain is entered by packets, and when among others: lower is earlier.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    pub number: u32,
    pub priority: i32,
}

impl Hook {
    pub const fn new(kind: &'static str, number: i32, priority: i32) -> Hook {
        Hook { kind, number: number as u32, priority }
    }
}

/// Types of keys and values, for `nft list`: the kernel compares bytes.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    Ipv4,
    Ipv6,
    Protocol,
    Port,
    Interface,
}

impl Type {
    /// nft's number.
    fn number(self) -> u32 {
        match self {
            Type::Ipv4 => 7,
            Type::Ipv6 => 8,
            Type::Protocol => 12,
            Type::Port => 13,
            Type::Interface => 41,
        }
    }

    /// In a key of several parts, where each fills whole registers.
    pub fn bytes(self) -> u32 {
        match self {
            Type::Ipv4 | Type::Protocol | Type::Port => 4,
            Type::Ipv6 => 16,
            Type::Interface => libc::IFNAMSIZ as u32,
        }
    }
}

/// What a set's elements lead to.
#[derive(Clone, Copy, Debug)]
pub enum Leads<'a> {
    Nowhere,
    To(&'a [Type]),
    /// To chains.
    Verdict,
}

/// One element: a key as [`Key`] writes it, and what it leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    pub key: Vec<u8>,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Nothing,
    Bytes(Vec<u8>),
    Jump(String),
}

/// The bytes of a key or value, part by part, each padded to whole registers.
#[derive(Clone, Debug, Default)]
pub struct Key(Vec<u8>);

impl Key {
    pub fn new() -> Key {
        Key::default()
    }

    pub fn protocol(self, number: u8) -> Key {
        self.part(&[number], 4)
    }

    pub fn port(self, port: u16) -> Key {
        self.part(&port.to_be_bytes(), 4)
    }

    pub fn address(self, address: std::net::IpAddr) -> Key {
        match address {
            std::net::IpAddr::V4(v4) => self.part(&v4.octets(), 4),
            std::net::IpAddr::V6(v6) => self.part(&v6.octets(), 16),
        }
    }

    /// Padded with zeroes, as the kernel compares names.
    pub fn interface(self, name: &str) -> Key {
        self.part(name.as_bytes(), libc::IFNAMSIZ)
    }

    fn part(mut self, bytes: &[u8], width: usize) -> Key {
        let end = self.0.len() + width;
        self.0.extend_from_slice(bytes);
        self.0.resize(end, 0);
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0
    }

    pub fn element(self) -> Element {
        Element { key: self.0, value: Value::Nothing }
    }

    pub fn leads(self, value: Value) -> Element {
        Element { key: self.0, value }
    }
}

/// A table's name and family, for the messages about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub family: Family,
    pub name: String,
}

/// Changes that take effect together.
#[derive(Debug)]
pub struct Batch {
    messages: Vec<Message>,
}

fn mark(kind: i32) -> Message {
    let mut message = Message::new(kind as u16, 0);
    message.put(&[0, 0]).put(&SUBSYSTEM.to_be_bytes());
    message
}

/// A message to nf_tables about a family.
fn say(kind: i32, flags: i32, family: u8) -> Message {
    let mut message = Message::new(SUBSYSTEM << 8 | kind as u16, flags as u16);
    message.put(&[family, 0, 0, 0]);
    message
}

impl Default for Batch {
    fn default() -> Batch {
        Batch { messages: vec![mark(libc::NFNL_MSG_BATCH_BEGIN)] }
    }
}

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    pub fn is_empty(&self) -> bool {
        self.messages.len() == 1
    }

    /// Carries the changes out.
    ///
    /// # Errors
    /// What the kernel says of the first change it refuses; then none is made. `EPERM` without CAP_NET_ADMIN.
    pub fn run(mut self, socket: &mut Socket) -> Result<(), Failed> {
        if self.is_empty() {
            return Ok(());
        }
        self.messages.push(mark(libc::NFNL_MSG_BATCH_END));
        loop {
            match socket.run(&self.messages) {
                // Somebody else's change came between: the kernel asks for another try.
                Err(failed) if failed.errno == Errno::INTR => {}
                other => return other,
            }
        }
    }

    fn add(&mut self, kind: i32, flags: i32, table: &Table) -> &mut Message {
        let mut message = say(kind, flags, table.family.number());
        message.string(1, &table.name);
        self.messages.push(message);
        self.messages.last_mut().expect("one was just pushed")
    }

    /// Makes a table unless there is one.
    pub fn add_table(&mut self, table: &Table) {
        self.add(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, table);
    }

    /// Takes a table away with all that is in it, whether there is one or not.
    pub fn delete_table(&mut self, table: &Table) {
        // Removing what is not there would be an error, and the message that forgives it is Linux 6.3's.
        self.add_table(table);
        self.add(libc::NFT_MSG_DELTABLE, 0, table);
    }

    /// Makes a chain, which packets enter at `hook` if it has one, and leave accepted.
    pub fn add_chain(&mut self, table: &Table, name: &str, hook: Option<Hook>) {
        let message = self.add(libc::NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE, table);
        message.string(NFTA_CHAIN_NAME, name);
        if let Some(hook) = hook {
            message.nested(NFTA_CHAIN_HOOK, |inner| {
                inner.be32(NFTA_HOOK_HOOKNUM, hook.number);
                inner.be32(NFTA_HOOK_PRIORITY, hook.priority.cast_unsigned());
            });
            message.be32(NFTA_CHAIN_POLICY, libc::NF_ACCEPT as u32).string(NFTA_CHAIN_TYPE, hook.kind);
        }
    }

    /// Takes a chain and its rules away. Nothing may jump to it any more.
    pub fn delete_chain(&mut self, table: &Table, name: &str) {
        self.add(libc::NFT_MSG_DELRULE, 0, table).string(NFTA_RULE_CHAIN, name);
        self.add(libc::NFT_MSG_DELCHAIN, 0, table).string(NFTA_CHAIN_NAME, name);
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, table: &Table, chain: &str, rule: &mut dyn FnMut(&mut Rule<'_>)) {
        self.place_rule(table, chain, None, &[], rule);
    }

    /// Adds a rule before the one with a certain handle, or at the end. It carries data for whoever lists it.
    pub fn place_rule(
        &mut self,
        table: &Table,
        chain: &str,
        before: Option<u64>,
        data: &[u8],
        rule: &mut dyn FnMut(&mut Rule<'_>),
    ) {
        let append = if before.is_none() { libc::NLM_F_APPEND } else { 0 };
        let message = self.add(libc::NFT_MSG_NEWRULE, libc::NLM_F_CREATE | append, table);
        message.string(NFTA_RULE_CHAIN, chain);
        if let Some(handle) = before {
            message.be64(NFTA_RULE_POSITION, handle);
        }
        message.nested(NFTA_RULE_EXPRESSIONS, |inner| rule(&mut Rule::new(inner)));
        if !data.is_empty() {
            message.attribute(NFTA_RULE_USERDATA, data);
        }
    }

    /// Takes one rule away by its handle.
    pub fn delete_rule(&mut self, table: &Table, chain: &str, handle: u64) {
        let message = self.add(libc::NFT_MSG_DELRULE, 0, table);
        message.string(NFTA_RULE_CHAIN, chain).be64(NFTA_RULE_HANDLE, handle);
    }

    /// Makes a set, or a map if its elements lead somewhere.
    pub fn add_set(&mut self, table: &Table, name: &str, key: &[Type], leads: Leads<'_>) {
        let id = self.messages.len() as u32;
        let message = self.add(libc::NFT_MSG_NEWSET, libc::NLM_F_CREATE, table);
        let joined = |types: &[Type]| types.iter().fold(0, |sum, one| sum << 6 | one.number());
        let length = |types: &[Type]| match types {
            // Alone, a part has its own length; elements are padded all the same, which only names notice.
            [Type::Protocol] => 1,
            [Type::Port] => 2,
            parts => parts.iter().map(|one| one.bytes()).sum(),
        };
        let flags = if matches!(leads, Leads::Nowhere) { 0 } else { libc::NFT_SET_MAP as u32 };
        message.string(NFTA_SET_NAME, name).be32(NFTA_SET_FLAGS, flags);
        message.be32(NFTA_SET_KEY_TYPE, joined(key)).be32(NFTA_SET_KEY_LEN, length(key));
        match leads {
            Leads::Nowhere => {}
            Leads::To(types) => {
                message.be32(NFTA_SET_DATA_TYPE, joined(types)).be32(NFTA_SET_DATA_LEN, length(types));
            }
            Leads::Verdict => {
                message.be32(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT).be32(NFTA_SET_DATA_LEN, 0);
            }
        }
        message.be32(NFTA_SET_ID, id);
        // Without this `nft list` shows names as empty: names are in the host's byte order, 1.
        if matches!(key, [Type::Interface]) {
            let order = 1_u32.to_ne_bytes();
            message.attribute(NFTA_SET_USERDATA, &[0, 4, order[0], order[1], order[2], order[3]]);
        }
    }

    /// Adds elements; one that is there already with another value is an error.
    pub fn add_elements(&mut self, table: &Table, set: &str, elements: &[Element]) {
        self.elements(libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE, table, set, elements);
    }

    /// Takes elements away, all of which must be there.
    pub fn delete_elements(&mut self, table: &Table, set: &str, elements: &[Element]) {
        self.elements(libc::NFT_MSG_DELSETELEM, 0, table, set, elements);
    }

    fn elements(&mut self, kind: i32, flags: i32, table: &Table, set: &str, elements: &[Element]) {
        for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let message = self.add(kind, flags, table);
            message.string(NFTA_SET_ELEM_LIST_SET, set);
            message.nested(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
                for element in chunk {
                    list.nested(NFTA_LIST_ELEM, |one| {
                        one.nested(NFTA_SET_ELEM_KEY, |key| {
                            key.attribute(NFTA_DATA_VALUE, &element.key);
                        });
                        match &element.value {
                            Value::Nothing => {}
                            Value::Bytes(bytes) => {
                                one.nested(NFTA_SET_ELEM_DATA, |data| {
                                    data.attribute(NFTA_DATA_VALUE, bytes);
                                });
                            }
                            Value::Jump(chain) => {
                                one.nested(NFTA_SET_ELEM_DATA, |data| {
                                    rule::verdict(data, Some(chain), libc::NFT_JUMP)
                                });
                            }
                        }
                    });
                }
            });
        }
    }
}

/// Opens a conversation about the calling thread's network namespace.
///
/// # Errors
/// `EPROTONOSUPPORT` from a kernel without netfilter.
pub fn open() -> io::Result<Socket> {
    Socket::open(Protocol::Netfilter)
}

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;
const NFT_DATA_VERDICT: u32 = 0xffff_ff00;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_POSITION: u16 = 6;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DATA_LEN: u16 = 7;
const NFTA_SET_ID: u16 = 10;
const NFTA_SET_USERDATA: u16 = 13;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a test in a network namespace of its own.
    fn alone(test: fn(&mut Socket, &Table)) {
        std::thread::spawn(move || {
            crate::runtime::sys::process::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
            test(&mut open().unwrap(), &Table { family: Family::Ip, name: "t".to_owned() });
        })
        .join()
        .unwrap();
    }

    fn run(socket: &mut Socket, write: impl FnOnce(&mut Batch)) -> Result<(), Errno> {
        let mut batch = Batch::new();
        write(&mut batch);
        batch.run(socket).map_err(|failed| failed.errno)
    }

    #[test]
    fn keys_are_whole_registers() {
        let key = Key::new().protocol(6).address([1, 2, 3, 4].into()).port(0x1234);
        assert_eq!(key.bytes(), [6, 0, 0, 0, 1, 2, 3, 4, 0x12, 0x34, 0, 0]);
        assert_eq!(Key::new().interface("lo").bytes(), *b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn sets_hold_more_than_a_message_does() {
        alone(|socket, table| {
            let elements = |value: u16| -> Vec<Element> {
                let to = |port| Value::Bytes(Key::new().address([9, 9, 9, 9].into()).port(port).bytes());
                (0..1000).map(|port| Key::new().protocol(6).port(port).leads(to(port + value))).collect()
            };
            run(socket, |batch| {
                batch.delete_table(table);
                batch.add_table(table);
                batch.add_set(
                    table,
                    "m",
                    &[Type::Protocol, Type::Port],
                    Leads::To(&[Type::Ipv4, Type::Port]),
                );
                batch.add_elements(table, "m", &elements(0));
            })
            .unwrap();
            run(socket, |batch| batch.add_elements(table, "m", &elements(0))).unwrap();
            // All or nothing: the element is there with another value.
            let changed = run(socket, |batch| {
                batch.add_chain(table, "c", Some(Hook::new("filter", libc::NF_INET_FORWARD, 0)));
                batch.add_elements(table, "m", &elements(1)[999..]);
            });
            assert!(changed.is_err());
            assert_eq!(look::chains(socket, 2).unwrap(), []);
            run(socket, |batch| batch.delete_elements(table, "m", &elements(0))).unwrap();
            let again = run(socket, |batch| batch.delete_elements(table, "m", &elements(0)[..1]));
            assert_eq!(again, Err(Errno::NOENT));
        });
    }

    #[test]
    fn news_say_whose_table_changed_and_by_whom() {
        alone(|socket, table| {
            let mut listener = open().unwrap();
            listener.subscribe(GROUP).unwrap();
            run(socket, |batch| batch.add_table(table)).unwrap();
            let mut other = open().unwrap();
            run(&mut other, |batch| batch.delete_table(table)).unwrap();
            let mut heard = Vec::new();
            while !heard.iter().any(look::News::takes) {
                let own = socket.port();
                listener
                    .receive_others(own, &mut |kind, payload| heard.extend(look::news(kind, payload)))
                    .unwrap();
            }
            assert!(heard.iter().all(|one| one.kind != libc::NFT_MSG_NEWTABLE), "{heard:?}");
            assert!(heard.iter().any(|one| one.takes() && one.is_of(table)), "{heard:?}");
        });
    }
}
