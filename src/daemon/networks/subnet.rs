//! A range of addresses: an address and a prefix length, as CIDR writes them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `10.0.0.0/8`, or an interface's address with its prefix, `10.0.0.1/8`: host bits are kept as given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    pub address: IpAddr,
    /// 0 to 32, or to 128.
    pub prefix: u8,
}

impl Subnet {
    /// The bits of an address in the family's own width, as one number.
    pub fn number(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(v4) => u128::from(u32::from(v4)),
            IpAddr::V6(v6) => u128::from(v6),
        }
    }

    /// The address of a family with these bits; what does not fit is cut off.
    pub fn numbered(is_ipv6: bool, number: u128) -> IpAddr {
        match is_ipv6 {
            true => IpAddr::V6(Ipv6Addr::from(number)),
            false => IpAddr::V4(Ipv4Addr::from((number & u128::from(u32::MAX)) as u32)),
        }
    }

    pub fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// 32 or 128.
    pub fn width(&self) -> u8 {
        if self.is_ipv6() { 128 } else { 32 }
    }

    /// Ones where hosts differ.
    fn host_mask(&self) -> u128 {
        let bits = u32::from(self.width() - self.prefix.min(self.width()));
        u128::MAX.checked_shr(128 - bits).unwrap_or(0)
    }

    /// Without host bits.
    pub fn network(&self) -> Subnet {
        Subnet { address: self.first(), prefix: self.prefix }
    }

    /// The lowest address, which names the range.
    pub fn first(&self) -> IpAddr {
        Subnet::numbered(self.is_ipv6(), Subnet::number(self.address) & !self.host_mask())
    }

    /// The highest address; IPv4's broadcast.
    pub fn last(&self) -> IpAddr {
        Subnet::numbered(self.is_ipv6(), Subnet::number(self.address) | self.host_mask())
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.is_ipv6() == address.is_ipv6()
            && Subnet::number(self.address) & !self.host_mask() == Subnet::number(address) & !self.host_mask()
    }

    pub fn overlaps(&self, other: &Subnet) -> bool {
        self.contains(other.first()) || other.contains(self.first())
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = String;

    /// Source: Go's `ParseCIDR`, whose words clients know.
    fn from_str(text: &str) -> Result<Subnet, String> {
        let invalid = || format!("invalid CIDR address: {text}");
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let is_plain = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u8 = prefix.parse().ok().filter(|_| is_plain).ok_or_else(invalid)?;
        let subnet = Subnet { address, prefix };
        if prefix > subnet.width() { Err(invalid()) } else { Ok(subnet) }
    }
}

impl Serialize for Subnet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Subnet, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_know_their_ends() {
        let subnet: Subnet = "172.18.3.4/16".parse().unwrap();
        assert_eq!(subnet.network().to_string(), "172.18.0.0/16");
        assert_eq!(subnet.last().to_string(), "172.18.255.255");
        let all: Subnet = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("255.1.2.3".parse().unwrap()));
        assert_eq!(all.last().to_string(), "255.255.255.255");
        let one: Subnet = "fd00::1/128".parse().unwrap();
        assert_eq!((one.first(), one.last()), (one.address, one.address));
        let six: Subnet = "::/0".parse().unwrap();
        assert!(six.contains("ffff::".parse().unwrap()) && !six.contains("1.2.3.4".parse().unwrap()));
        assert!(subnet.overlaps(&"172.0.0.0/8".parse().unwrap()) && !subnet.overlaps(&six));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "1.2.3.4", "1.2.3.4/33", "1.2.3.4/+8", "1.2.3/8", "fd00::/129", "/8", "1.2.3.4/"] {
            assert_eq!(text.parse::<Subnet>().unwrap_err(), format!("invalid CIDR address: {text}"));
        }
    }
}
