//! What a rule says: expressions in the order they are evaluated, each loading a register, comparing one, or
//! deciding. The first comparison that fails ends the rule.

use super::{Family, Type};
use crate::runtime::netlink::Message;

/// The first of the 16 registers of 4 bytes. Keys of several parts are loaded side by side from here.
const FIRST: u32 = 8;
const VERDICT: u32 = 0;

/// A rule being written.
pub struct Rule<'a> {
    list: &'a mut Message,
}

/// Which end of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Source,
    Destination,
}

/// What a key is made of.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    InInterface,
    OutInterface,
    L4Protocol,
    Address(Family, End),
    /// Of TCP, UDP and SCTP alike.
    Port(End),
}

impl Part {
    fn kind(self) -> Type {
        match self {
            Part::InInterface | Part::OutInterface => Type::Interface,
            Part::L4Protocol => Type::Protocol,
            Part::Address(Family::Ip, _) => Type::Ipv4,
            Part::Address(Family::Ip6, _) => Type::Ipv6,
            Part::Port(_) => Type::Port,
        }
    }
}

impl<'a> Rule<'a> {
    pub(super) fn new(list: &'a mut Message) -> Rule<'a> {
        Rule { list }
    }

    fn expression(&mut self, name: &str, fill: &mut dyn FnMut(&mut Message)) -> &mut Self {
        self.list.nested(super::NFTA_LIST_ELEM, |one| {
            one.string(1, name).nested(2, |data| fill(data));
        });
        self
    }

    /// Loads a part of a key into a register.
    fn load(&mut self, part: Part, register: u32) {
        match part {
            Part::InInterface => self.meta(libc::NFT_META_IIFNAME, register),
            Part::OutInterface => self.meta(libc::NFT_META_OIFNAME, register),
            Part::L4Protocol => self.meta(libc::NFT_META_L4PROTO, register),
            Part::Address(Family::Ip, end) => self.payload(
                libc::NFT_PAYLOAD_NETWORK_HEADER,
                if end == End::Source { 12 } else { 16 },
                4,
                register,
            ),
            Part::Address(Family::Ip6, end) => self.payload(
                libc::NFT_PAYLOAD_NETWORK_HEADER,
                if end == End::Source { 8 } else { 24 },
                16,
                register,
            ),
            Part::Port(end) => self.payload(
                libc::NFT_PAYLOAD_TRANSPORT_HEADER,
                if end == End::Source { 0 } else { 2 },
                2,
                register,
            ),
        };
    }

    fn meta(&mut self, key: i32, register: u32) -> &mut Self {
        self.expression("meta", &mut |data| {
            data.be32(1, register).be32(2, key as u32);
        })
    }

    fn payload(&mut self, base: i32, offset: u32, length: u32, register: u32) -> &mut Self {
        self.expression("payload", &mut |data| {
            data.be32(1, register).be32(2, base as u32).be32(3, offset).be32(4, length);
        })
    }

    fn compare(&mut self, operator: i32, bytes: &[u8]) -> &mut Self {
        self.expression("cmp", &mut |data| {
            data.be32(1, FIRST).be32(2, operator as u32).nested(3, |value| {
                value.attribute(super::NFTA_DATA_VALUE, bytes);
            });
        })
    }

    fn mask(&mut self, mask: &[u8]) -> &mut Self {
        self.expression("bitwise", &mut |data| {
            data.be32(1, FIRST).be32(2, FIRST).be32(3, mask.len() as u32);
            data.nested(4, |value| {
                value.attribute(super::NFTA_DATA_VALUE, mask);
            });
            data.nested(5, |value| {
                value.attribute(super::NFTA_DATA_VALUE, &vec![0; mask.len()]);
            });
        })
    }

    fn load_all(&mut self, parts: &[Part]) -> u32 {
        parts.iter().fold(FIRST, |register, part| {
            self.load(*part, register);
            register + part.kind().bytes() / 4
        })
    }

    fn lookup(&mut self, set: &str, leads_to: Option<u32>, is_inverse: bool) -> &mut Self {
        self.expression("lookup", &mut |data| {
            data.string(1, set).be32(2, FIRST);
            if let Some(register) = leads_to {
                data.be32(3, register);
            }
            if is_inverse {
                data.be32(5, libc::NFT_LOOKUP_F_INV as u32);
            }
        })
    }

    /// Goes on if the set has the key.
    pub fn within(&mut self, parts: &[Part], set: &str) -> &mut Self {
        self.load_all(parts);
        self.lookup(set, None, false)
    }

    /// Goes on unless the set has the key.
    pub fn not_within(&mut self, parts: &[Part], set: &str) -> &mut Self {
        self.load_all(parts);
        self.lookup(set, None, true)
    }

    /// Does what the map has for the key, if anything.
    pub fn decide_by(&mut self, part: Part, map: &str) -> &mut Self {
        self.load(part, FIRST);
        self.lookup(map, Some(VERDICT), false)
    }

    /// Goes on if the part is these bytes.
    pub fn equals(&mut self, part: Part, bytes: &[u8]) -> &mut Self {
        self.load(part, FIRST);
        self.compare(libc::NFT_CMP_EQ, bytes)
    }

    /// Goes on if an address is in a range.
    pub fn in_range(&mut self, family: Family, end: End, first: std::net::IpAddr, prefix: u8) -> &mut Self {
        let bytes = super::Key::new().address(first).bytes();
        let mask: Vec<u8> = (0..bytes.len())
            .map(|at| match usize::from(prefix).saturating_sub(at * 8).min(8) {
                0 => 0,
                bits => u8::MAX << (8 - bits),
            })
            .collect();
        let network: Vec<u8> = bytes.iter().zip(&mask).map(|(byte, mask)| byte & mask).collect();
        self.load(Part::Address(family, end), FIRST);
        self.mask(&mask).compare(libc::NFT_CMP_EQ, &network)
    }

    /// Goes on if the destination is one of the host's addresses.
    pub fn is_to_the_host(&mut self) -> &mut Self {
        self.expression("fib", &mut |data| {
            // Destination; type of address.
            data.be32(1, FIRST).be32(3, 1 << 1).be32(2, 3);
        });
        self.compare(libc::NFT_CMP_EQ, &u32::from(libc::RTN_LOCAL).to_ne_bytes())
    }

    /// Goes on for packets of a known connection, and what answers it.
    pub fn established(&mut self) -> &mut Self {
        // IP_CT_ESTABLISHED and IP_CT_RELATED, as nft numbers states: 1 << (state + 1).
        self.connection(libc::NFT_CT_STATE, 1 << 1 | 1 << 2)
    }

    /// Goes on for packets of a connection whose destination was translated.
    pub fn led(&mut self) -> &mut Self {
        // IPS_DST_NAT
        self.connection(libc::NFT_CT_STATUS, 1 << 5)
    }

    fn connection(&mut self, key: i32, bits: u32) -> &mut Self {
        self.expression("ct", &mut |data| {
            data.be32(1, FIRST).be32(2, key as u32);
        });
        self.mask(&bits.to_ne_bytes()).compare(libc::NFT_CMP_NEQ, &[0; 4])
    }

    /// Leads to the address and port that the map has for the key, if it has one.
    pub fn lead_by(&mut self, family: Family, parts: &[Part], map: &str) -> &mut Self {
        self.load_all(parts);
        self.lookup(map, Some(FIRST), false);
        let port = FIRST + Part::Address(family, End::Source).kind().bytes() / 4;
        self.expression("nat", &mut |data| {
            // To a destination.
            data.be32(1, libc::NFT_NAT_DNAT as u32).be32(2, u32::from(family.number()));
            data.be32(3, FIRST).be32(5, port);
        })
    }

    /// Gives the packet the source address that the map has for the key, if it has one.
    pub fn source_by(&mut self, family: Family, part: Part, map: &str) -> &mut Self {
        self.load(part, FIRST);
        self.lookup(map, Some(FIRST), false);
        self.expression("nat", &mut |data| {
            data.be32(1, libc::NFT_NAT_SNAT as u32).be32(2, u32::from(family.number())).be32(3, FIRST);
        })
    }

    /// Gives the packet the address of the interface it leaves by.
    pub fn masquerade(&mut self) -> &mut Self {
        self.expression("masq", &mut |_| {})
    }

    /// Counts, as rules of iptables do.
    pub fn count(&mut self) -> &mut Self {
        self.expression("counter", &mut |data| {
            data.be64(1, 0).be64(2, 0);
        })
    }

    pub fn accept(&mut self) -> &mut Self {
        self.decide(None, libc::NF_ACCEPT)
    }

    pub fn drop(&mut self) -> &mut Self {
        self.decide(None, libc::NF_DROP)
    }

    /// Ends this chain.
    pub fn leave(&mut self) -> &mut Self {
        self.decide(None, libc::NFT_RETURN)
    }

    pub fn jump(&mut self, chain: &str) -> &mut Self {
        self.decide(Some(chain), libc::NFT_JUMP)
    }

    fn decide(&mut self, chain: Option<&str>, code: i32) -> &mut Self {
        self.expression("immediate", &mut |data| {
            data.be32(1, VERDICT).nested(2, |value| verdict(value, chain, code));
        })
    }
}

/// A verdict as data.
pub(super) fn verdict(data: &mut Message, chain: Option<&str>, code: i32) {
    data.nested(2, |verdict| {
        verdict.be32(1, code.cast_unsigned());
        if let Some(chain) = chain {
            verdict.string(2, chain);
        }
    });
}
