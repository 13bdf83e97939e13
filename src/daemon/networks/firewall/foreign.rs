//! Other people's rules that would drop what ours accept.
//!
//! A packet is forwarded only if every chain that sees it agrees, so that another engine's `FORWARD` with policy
//! DROP (dockerd's, ufw's) cuts containers off. Where it is iptables' on nf_tables, two rules per bridge are
//! added to it: behind all of the host's own, so that these still decide first, and before the policy or the rule
//! that refuses whatever is left. They carry a comment by which they are found again, and go with the bridge.
//! Everything else is only told.

use crate::runtime::netlink::Socket;
use crate::runtime::nftables::look::{self, Base, News};
use crate::runtime::nftables::rule::Part;
use crate::runtime::nftables::{Batch, Family, Table, legacy};

/// iptables' own names.
const TABLE: &str = "filter";
const CHAIN: &str = "FORWARD";

/// What was seen of others, for `info`.
#[derive(Debug, Default)]
pub struct Foreign {
    pub warnings: Vec<String>,
}

/// Whether a piece of news can change what is to be done.
pub fn concerns(news: &News) -> bool {
    match news.kind {
        libc::NFT_MSG_NEWCHAIN | libc::NFT_MSG_DELCHAIN | libc::NFT_MSG_DELTABLE => true,
        libc::NFT_MSG_NEWRULE | libc::NFT_MSG_DELRULE => news.table == TABLE,
        _ => false,
    }
}

/// Accepts in one family's `FORWARD` what has to do with the bridges, if it drops; gives what cannot be helped.
/// `own` is the table that says whose rules these are.
pub fn meet(socket: &mut Socket, own: &Table, bridges: &[&str]) -> Vec<String> {
    let Ok(bases) = look::chains(socket, own.family.number()) else { return Vec::new() };
    let is_forward = |base: &&Base| base.hook == libc::NF_INET_FORWARD as u32 && base.kind == "filter";
    let is_theirs = |base: &Base| base.table == TABLE && base.chain == CHAIN;
    let mut warnings = Vec::new();
    if let Some(base) = bases.iter().filter(is_forward).find(|base| is_theirs(base))
        && let Err(problem) = accept(socket, own, bridges, base.drops)
    {
        warnings.push(format!(
            "the policy of iptables' chain {CHAIN} is to drop, and accepting failed: {problem}"
        ));
    }
    if bridges.is_empty() {
        return warnings;
    }
    let name = |family: &str, base: &Base| format!("{family} {} {}", base.table, base.chain);
    let shown = if own.family == Family::Ip6 { "ip6" } else { "ip" };
    let mut dropping: Vec<String> = bases
        .iter()
        .filter(is_forward)
        .filter(|base| base.drops && !is_theirs(base))
        .map(|base| name(shown, base))
        .collect();
    // What is for both families is told once.
    if own.family == Family::Ip {
        let inet = libc::NFPROTO_INET as u8;
        let bases = look::chains(socket, inet).unwrap_or_default();
        dropping
            .extend(bases.iter().filter(is_forward).filter(|base| base.drops).map(|base| name("inet", base)));
        if bases.iter().any(|base| base.table == "firewalld") {
            warnings.push(format!(
                "firewalld is active and keeps what it forwards to its zones: firewall-cmd --permanent --zone=trusted {}",
                bridges.iter().map(|bridge| format!("--add-interface={bridge}")).collect::<Vec<_>>().join(" ")
            ));
        }
    }
    if legacy::drops_forwarded(own.family) {
        let program = if own.family == Family::Ip6 { "ip6tables-legacy" } else { "iptables-legacy" };
        warnings.push(format!(
            "the policy of {program} for FORWARD is DROP: containers are cut off from other hosts until it accepts their bridges ({})",
            bridges.join(", ")
        ));
    }
    for chain in dropping {
        warnings.push(format!(
            "the nftables chain \"{chain}\" drops what it does not accept: containers are cut off from other hosts until it accepts their bridges ({})",
            bridges.join(", ")
        ));
    }
    warnings
}

/// Makes our rules in `FORWARD` those of the bridges if it refuses what it does not know, and none otherwise.
fn accept(socket: &mut Socket, own: &Table, bridges: &[&str], is_dropping: bool) -> std::io::Result<()> {
    let theirs = Table { family: own.family, name: TABLE.to_owned() };
    let mark = comment(&format!("{} ", own.name));
    // Without the length and the NUL.
    let is_ours = |data: &[u8]| data.get(2..).is_some_and(|text| text.starts_with(&mark[2..mark.len() - 1]));
    let there = look::rules(socket, &theirs, CHAIN)?;
    let end = there.iter().position(|ruling| ruling.refuses_all);
    let bridges = if is_dropping || end.is_some() { bridges } else { &[] };
    let wanted: Vec<(Part, &str, Vec<u8>)> = bridges
        .iter()
        .flat_map(|bridge| {
            let comment = |way: &str| comment(&format!("{} {way} {bridge}", own.name));
            [(Part::OutInterface, *bridge, comment("to")), (Part::InInterface, *bridge, comment("from"))]
        })
        .collect();
    let is_reached = |at: usize| end.is_none_or(|end| at < end);
    let is_right =
        |at: usize, data: &[u8]| is_reached(at) && wanted.iter().any(|(.., comment)| comment == data);
    let mut batch = Batch::new();
    for (at, ruling) in there.iter().enumerate() {
        if is_ours(&ruling.data) && !is_right(at, &ruling.data) {
            batch.delete_rule(&theirs, CHAIN, ruling.handle);
        }
    }
    let before = end.map(|end| there[end].handle);
    for (part, bridge, comment) in &wanted {
        if !there.iter().enumerate().any(|(at, ruling)| ruling.data == *comment && is_reached(at)) {
            // As iptables writes it: the name with its NUL, and a counter.
            let name = [bridge.as_bytes(), &[0]].concat();
            batch.place_rule(&theirs, CHAIN, before, comment, &mut |rule| {
                rule.equals(*part, &name).count().accept();
            });
        }
    }
    Ok(batch.run(socket)?)
}

/// A comment as nft(8) keeps it with a rule: kind, length, text with NUL.
fn comment(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    [&[0, length], text.as_bytes(), &[0]].concat()
}
