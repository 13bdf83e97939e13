//! A resolver that asks the embedded server by hand, and a name server of the outside.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::support::Namespace;

pub const A: u16 = 1;
pub const PTR: u16 = 12;
pub const AAAA: u16 = 28;

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// 0 NOERROR, 2 SERVFAIL, 3 NXDOMAIN
    pub code: u8,
    /// Addresses and names, sorted.
    pub answers: Vec<String>,
    /// The answer was too long for its way.
    pub is_cut_off: bool,
    /// The server speaks EDNS.
    pub has_edns: bool,
}

/// How to ask.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Udp,
    /// UDP with EDNS and room for 1232 bytes.
    Edns,
    Tcp,
}

/// Asks the server at 127.0.0.11 inside.
#[track_caller]
pub fn ask(inside: &Namespace, name: &str, kind: u16, way: Way) -> Reply {
    let query = question(name, kind, way == Way::Edns);
    let server = SocketAddr::from(([127, 0, 0, 11], 53));
    let patience = Some(Duration::from_secs(5));
    let asked = inside.within(|| -> std::io::Result<Vec<u8>> {
        let mut buffer = vec![0; 65_535];
        if way == Way::Tcp {
            let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(5))?;
            stream.set_read_timeout(patience)?;
            let length = u16::try_from(query.len()).unwrap_or_default().to_be_bytes();
            stream.write_all(&[&length[..], &query].concat())?;
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            buffer.truncate(usize::from(u16::from_be_bytes(length)));
            stream.read_exact(&mut buffer)?;
        } else {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.set_read_timeout(patience)?;
            socket.connect(server)?;
            socket.send(&query)?;
            let count = socket.recv(&mut buffer)?;
            buffer.truncate(count);
        }
        Ok(buffer)
    });
    let bytes = asked.unwrap_or_else(|cause| panic!("asking for {name}: {cause}"));
    read(&bytes).unwrap_or_else(|| panic!("asking for {name}: what is this? {bytes:?}"))
}

fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}

fn question(name: &str, kind: u16, has_edns: bool) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(has_edns)];
    bytes.extend(labels(name));
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    if has_edns {
        bytes.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    }
    bytes
}

fn read(bytes: &[u8]) -> Option<Reply> {
    let number = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    if number(0)? != 0x1234 || bytes.get(2)? & 0x80 == 0 {
        return None;
    }
    let mut at = 12;
    for _ in 0..number(4)? {
        at = name_at(bytes, at)?.1 + 4;
    }
    let (mut answers, mut has_edns) = (Vec::new(), false);
    for _ in 0..number(6)? + number(8)? + number(10)? {
        at = name_at(bytes, at)?.1;
        let (kind, length) = (number(at)?, usize::from(number(at + 8)?));
        let data = bytes.get(at + 10..at + 10 + length)?;
        match kind {
            A => answers.push(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).to_string()),
            AAAA => answers.push(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).to_string()),
            PTR => answers.push(name_at(bytes, at + 10)?.0),
            41 => has_edns = true,
            _ => {}
        }
        at += 10 + length;
    }
    answers.sort();
    Some(Reply { code: bytes.get(3)? & 15, answers, is_cut_off: bytes[2] & 2 != 0, has_edns })
}

/// The name there, and where it ends.
fn name_at(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut name, mut end) = (Vec::new(), None);
    for _ in 0..128 {
        let length = usize::from(*bytes.get(at)?);
        if length & 0xc0 == 0xc0 {
            end.get_or_insert(at + 2);
            at = (length & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
            continue;
        }
        if length == 0 {
            return Some((name.join("."), end.unwrap_or(at + 1)));
        }
        name.push(String::from_utf8_lossy(bytes.get(at + 1..at + 1 + length)?).into_owned());
        at += 1 + length;
    }
    None
}

/// A name server that knows one name, at port 53 of everywhere in `place`, until the process ends.
#[track_caller]
pub fn serve(place: &Namespace, name: &str, address: Ipv4Addr) {
    let (udp, tcp) = place.within(|| {
        (
            UdpSocket::bind("0.0.0.0:53").expect("nobody serves there"),
            TcpListener::bind("0.0.0.0:53").expect("nor there"),
        )
    });
    let known = labels(name);
    let answer = move |query: &[u8]| -> Vec<u8> {
        let Some((asked, end)) = name_at(query, 12) else { return Vec::new() };
        let is_known = labels(&asked).eq_ignore_ascii_case(&known);
        let is_a = query.get(end..end + 2) == Some(&[0, 1]);
        let mut reply = query[..end + 4].to_vec();
        reply[2] = 0x81;
        reply[3] = if is_known { 0x80 } else { 0x83 };
        reply[4..12].copy_from_slice(&[0, 1, 0, u8::from(is_known && is_a), 0, 0, 0, 0]);
        if is_known && is_a {
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            reply.extend(address.octets());
        }
        reply
    };
    let over_tcp = answer.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((count, peer)) = udp.recv_from(&mut buffer) {
            drop(udp.send_to(&answer(&buffer[..count]), peer));
        }
    });
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let mut length = [0; 2];
            if stream.read_exact(&mut length).is_err() {
                continue;
            }
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            if stream.read_exact(&mut query).is_ok() {
                let reply = over_tcp(&query);
                let length = u16::try_from(reply.len()).unwrap_or_default().to_be_bytes();
                drop(stream.write_all(&[&length[..], &reply].concat()));
            }
        }
    });
}

/// An address as it stands in `in-addr.arpa` or `ip6.arpa`.
pub fn backwards(address: &str) -> String {
    match address.parse().expect("an address") {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let digits = v6.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            digits.map(|digit| format!("{digit:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}
