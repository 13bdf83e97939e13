//! Hardware addresses: read, written, and made of an address.

use std::fmt::Write;
use std::net::Ipv4Addr;

/// Six bytes.
pub type Mac = [u8; 6];

/// Reads `02:42:ac:11:00:02`, `02-42-ac-11-00-02` or `0242.ac11.0002`, as Go does; `None` for everything else.
pub fn parse(text: &str) -> Option<Mac> {
    // Where the first separator stands says which it is, and how long the parts are.
    let at = text.find([':', '-', '.'])?;
    let separator = text.get(at..=at)?;
    let digits = match (at, separator) {
        (2, ":" | "-") => 2,
        (4, ".") => 4,
        _ => return None,
    };
    let mut mac = Mac::default();
    let mut bytes = mac.iter_mut();
    for part in text.split(separator) {
        if part.len() != digits || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        for start in (0..digits).step_by(2) {
            *bytes.next()? = u8::from_str_radix(part.get(start..start + 2)?, 16).ok()?;
        }
    }
    bytes.next().is_none().then_some(mac)
}

/// `02:42:ac:11:00:02`
pub fn text(mac: Mac) -> String {
    let mut text = String::with_capacity(17);
    for (at, byte) in mac.iter().enumerate() {
        let separator = if at == 0 { "" } else { ":" };
        write!(text, "{separator}{byte:02x}").expect("a string takes everything");
    }
    text
}

/// The one that belongs to an IPv4 address unless another is asked for, as Docker's was: who has the address next has
/// this one, too, and nobody has to be told.
pub fn of(address: Ipv4Addr) -> Mac {
    with(address.octets())
}

/// One of our own with these four bytes.
pub fn with(last: [u8; 4]) -> Mac {
    let [a, b, c, d] = last;
    [0x02, 0x42, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [0x02, 0x42, 0xac, 0x11, 0x00, 0xff];

    #[test]
    fn they_are_read_as_go_reads_them() {
        for text in ["02:42:AC:11:00:ff", "02-42-ac-11-00-FF", "0242.ac11.00ff"] {
            assert_eq!(parse(text), Some(MAC), "{text}");
        }
        for text in [
            "",
            "x",
            ":",
            "02:42",
            "02:42:ac:11:00",
            "02:42:ac:11:00:02:03",
            "02:42:ac:11:00:zz",
            "2:42:ac:11:00:002",
            "+2:42:ac:11:00:02",
            "02:+2:ac:11:00:02",
            "02.42.ac.11.00.02",
            "0242:ac11:0002",
            "0242.ac11.0002.0003",
            "0242.ac11",
            "02:42-ac:11:00:02",
            "024é.ac11.000",
            "02:é:ac:11:00:02",
            "02:42:ac:11:00:02:",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn they_are_written_as_docker_writes_them() {
        assert_eq!(text(MAC), "02:42:ac:11:00:ff");
        assert_eq!(text(of(Ipv4Addr::new(172, 17, 0, 2))), "02:42:ac:11:00:02");
        assert_eq!(parse(&text(MAC)), Some(MAC));
    }
}
