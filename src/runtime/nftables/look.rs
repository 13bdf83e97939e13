//! What is in the kernel, whoever made it, and news of it.

use std::io;

use super::{
    NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_POLICY, NFTA_CHAIN_TABLE, NFTA_CHAIN_TYPE,
    NFTA_HOOK_HOOKNUM, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_HANDLE, NFTA_RULE_USERDATA,
    SUBSYSTEM, Table, say,
};
use crate::runtime::netlink::Socket;
use crate::runtime::netlink::message::{attributes, number, text};

/// A chain of anybody's that packets enter at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    pub table: String,
    pub chain: String,
    /// `filter` or `nat`
    pub kind: String,
    pub hook: u32,
    pub drops: bool,
}

/// The base chains there are in a family.
///
/// # Errors
/// The kernel's.
pub fn chains(socket: &mut Socket, family: u8) -> io::Result<Vec<Base>> {
    let mut bases = Vec::new();
    let question = say(libc::NFT_MSG_GETCHAIN, libc::NLM_F_DUMP, family);
    socket.dump(&question, &mut |payload| {
        let mut base = Base {
            table: String::new(),
            chain: String::new(),
            kind: String::new(),
            hook: u32::MAX,
            drops: false,
        };
        for (kind, value) in attributes(payload.get(4..).unwrap_or_default()) {
            match kind {
                NFTA_CHAIN_TABLE => base.table = text(value),
                NFTA_CHAIN_NAME => base.chain = text(value),
                NFTA_CHAIN_TYPE => base.kind = text(value),
                NFTA_CHAIN_POLICY => base.drops = number(value, 0) == (libc::NF_DROP as u32).to_be(),
                NFTA_CHAIN_HOOK => {
                    let hook = attributes(value).find(|(kind, _)| *kind == NFTA_HOOK_HOOKNUM);
                    base.hook = hook.map_or(u32::MAX, |(_, value)| u32::from_be(number(value, 0)));
                }
                _ => {}
            }
        }
        if base.hook != u32::MAX {
            bases.push(base);
        }
    })?;
    Ok(bases)
}

/// The names of a family's tables.
///
/// # Errors
/// The kernel's.
pub fn tables(socket: &mut Socket, family: u8) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let question = say(libc::NFT_MSG_GETTABLE, libc::NLM_F_DUMP, family);
    socket.dump(&question, &mut |payload| {
        let name = attributes(payload.get(4..).unwrap_or_default()).find(|(kind, _)| *kind == 1);
        names.extend(name.map(|(_, value)| text(value)));
    })?;
    Ok(names)
}

/// A rule of anybody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    pub handle: u64,
    pub data: Vec<u8>,
    /// No packet gets past it: it drops or rejects, and asks nothing before.
    pub refuses_all: bool,
}

/// A chain's rules, in order.
///
/// # Errors
/// The kernel's.
pub fn rules(socket: &mut Socket, table: &Table, chain: &str) -> io::Result<Vec<Ruling>> {
    let mut found = Vec::new();
    let mut question = say(libc::NFT_MSG_GETRULE, libc::NLM_F_DUMP, table.family.number());
    question.string(1, &table.name).string(NFTA_RULE_CHAIN, chain);
    socket.dump(&question, &mut |payload| {
        let mut ruling = Ruling { handle: 0, data: Vec::new(), refuses_all: false };
        let mut is_there = false;
        for (kind, value) in attributes(payload.get(4..).unwrap_or_default()) {
            match kind {
                NFTA_RULE_CHAIN => is_there = text(value) == chain,
                NFTA_RULE_HANDLE => {
                    ruling.handle = u64::from_be_bytes(value.try_into().unwrap_or_default());
                }
                NFTA_RULE_EXPRESSIONS => ruling.refuses_all = refuses_all(value),
                NFTA_RULE_USERDATA => ruling.data = value.to_vec(),
                _ => {}
            }
        }
        if is_there {
            found.push(ruling);
        }
    })?;
    Ok(found)
}

/// Whether a rule's expressions only count before they drop or reject.
fn refuses_all(expressions: &[u8]) -> bool {
    let own = |bytes, kind| attributes(bytes).find(|(it, _)| *it == kind).map(|(_, value)| value);
    let mut all = attributes(expressions)
        .map(|(_, one)| (own(one, 1).map(text).unwrap_or_default(), own(one, 2).unwrap_or_default()));
    let decision = all.find(|(name, _)| name != "counter");
    decision.is_some_and(|(name, data)| match name.as_str() {
        "reject" => true,
        // Of iptables: the target's name.
        "target" => own(data, 1).is_some_and(|name| text(name) == "REJECT"),
        "immediate" => {
            let verdict = own(data, 2).and_then(|value| own(value, 2)).and_then(|verdict| own(verdict, 1));
            verdict.is_some_and(|code| number(code, 0) == (libc::NF_DROP as u32).to_be())
        }
        _ => false,
    })
}

/// A piece of news from [`GROUP`]: what kind it is, and the family and table it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// `NFT_MSG_…`
    pub kind: i32,
    pub family: u8,
    /// Empty for the end of a transaction.
    pub table: String,
}

impl News {
    /// Something was taken away.
    pub fn takes(&self) -> bool {
        matches!(
            self.kind,
            libc::NFT_MSG_DELTABLE
                | libc::NFT_MSG_DELCHAIN
                | libc::NFT_MSG_DELRULE
                | libc::NFT_MSG_DELSET
                | libc::NFT_MSG_DELSETELEM
        )
    }

    pub fn is_of(&self, table: &Table) -> bool {
        self.family == table.family.number() && self.table == table.name
    }
}

/// Reads a message of [`GROUP`]; `None` for other subsystems'.
pub fn news(kind: u16, payload: &[u8]) -> Option<News> {
    if kind >> 8 != SUBSYSTEM {
        return None;
    }
    let kind = i32::from(kind & 0xff);
    let name = attributes(payload.get(4..)?).find(|(kind, _)| *kind == 1);
    let table =
        name.filter(|_| kind != libc::NFT_MSG_NEWGEN).map(|(_, value)| text(value)).unwrap_or_default();
    Some(News { kind, family: payload[0], table })
}
