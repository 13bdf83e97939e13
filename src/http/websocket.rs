//! WebSocket, the server's end: the handshake, and frames as pure functions over bytes.
//!
//! In: the headers of an upgrade, then bytes from a peer that may be hostile. Out: the key that accepts it,
//! payload, and what has to be answered. Nothing here touches a socket or holds a payload: a frame's bytes are
//! unmasked and passed on as they come, so a hostile length costs nothing.
//!
//! ```text
//!   0 1 2 3 4..7   8   9..15   then 2 or 8 bytes of a longer length, then 4 of mask, from a client
//!  +-+-----+------+---+-------+
//!  |F| RSV |opcode| M | length|   opcodes: 0 goes on, 1 text, 2 binary, 8 close, 9 ping, 10 pong
//!  +-+-----+------+---+-------+
//! ```
//!
//! Text is taken as bytes: what a terminal sends may be cut anywhere.
//!
//! Source: RFC 6455.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::message::Headers;

/// RFC 6455 section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The most bytes of a control frame's payload.
const MAX_CONTROL: u64 = 125;

const CLOSE_NORMAL: u16 = 1000;
const CLOSE_PROTOCOL: u16 = 1002;

/// Why an upgrade is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No WebSocket handshake, or a broken one.
    Malformed(&'static str),
    /// A page of another site: a browser would let it talk to a daemon on the loopback interface.
    Foreign,
}

/// Checks a handshake; gives the value of `Sec-WebSocket-Accept`.
pub fn accept(headers: &Headers) -> Result<String, Refused> {
    if !headers.has_token("upgrade", "websocket") || !headers.has_token("connection", "upgrade") {
        return Err(Refused::Malformed(
            "not a WebSocket handshake: the headers Upgrade and Connection are missing",
        ));
    }
    if headers.get("sec-websocket-version").map(str::trim) != Some("13") {
        return Err(Refused::Malformed("not a WebSocket handshake: Sec-WebSocket-Version must be 13"));
    }
    let key = headers.get("sec-websocket-key").map_or("", str::trim);
    // Sixteen bytes in base64.
    if key.len() != 24 || !key.ends_with("==") {
        return Err(Refused::Malformed(
            "not a WebSocket handshake: Sec-WebSocket-Key is not 16 bytes of base64",
        ));
    }
    if let Some(origin) = headers.get("origin")
        && !is_own(origin, headers.get("host").unwrap_or_default())
    {
        return Err(Refused::Foreign);
    }
    Ok(STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes())))
}

/// Whether a page of `origin` may talk to `host`: the same name, or this machine. Ports say nothing, because
/// clients that are no browsers make the header up.
fn is_own(origin: &str, host: &str) -> bool {
    let name = |authority: &str| {
        let authority = authority.trim().split('/').next().unwrap_or_default();
        let end = match authority.strip_prefix('[') {
            Some(rest) => rest.find(']').map_or(authority.len(), |at| at + 2),
            None => authority.find(':').unwrap_or(authority.len()),
        };
        authority[..end].to_ascii_lowercase()
    };
    let Some((_, authority)) = origin.split_once("://") else { return false };
    let from = name(authority);
    from == name(host) || matches!(from.as_str(), "localhost" | "127.0.0.1" | "[::1]")
}

/// What a message is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text = 1,
    Binary = 2,
}

/// Appends `payload` as one frame, which is a whole message.
pub fn encode(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    frame(kind as u8, payload, out);
}

/// Appends the frame that ends the conversation in peace.
pub fn close(out: &mut Vec<u8>) {
    frame(8, &CLOSE_NORMAL.to_be_bytes(), out);
}

fn frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..=125), _) => out.push(length),
        (_, Ok(length)) => {
            out.push(126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// An incremental decoder of a client's frames.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Of a frame's head: at most 2 + 8 + 4 bytes.
    head: Vec<u8>,
    /// The frame being read; `None` between frames.
    now: Option<Frame>,
    /// A message of several frames is under way.
    is_fragmented: bool,
    control: Vec<u8>,
    is_over: bool,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: u8,
    left: u64,
    mask: [u8; 4],
    /// Where in the mask the next byte falls.
    at: usize,
}

impl Decoder {
    /// Takes `bytes`: payload goes to `payload`, what has to be answered to `answer`. False once the
    /// conversation is over, by the peer's wish or because it broke the rules (the answer says which).
    pub fn feed(&mut self, mut bytes: &[u8], payload: &mut Vec<u8>, answer: &mut Vec<u8>) -> bool {
        while !self.is_over {
            let Some(mut frame) = self.now else {
                let Some((&byte, rest)) = bytes.split_first() else { break };
                bytes = rest;
                self.head.push(byte);
                match self.begin() {
                    Ok(frame) => self.now = frame,
                    Err(_) => self.break_off(CLOSE_PROTOCOL, answer),
                }
                continue;
            };
            let count = bytes.len().min(usize::try_from(frame.left).unwrap_or(usize::MAX));
            if count == 0 && frame.left > 0 {
                self.now = Some(frame);
                break;
            }
            let into = if frame.opcode < 8 { &mut *payload } else { &mut self.control };
            into.extend(
                bytes[..count].iter().enumerate().map(|(at, byte)| byte ^ frame.mask[(frame.at + at) % 4]),
            );
            bytes = &bytes[count..];
            frame.at = (frame.at + count) % 4;
            frame.left -= count as u64;
            self.now = (frame.left > 0).then_some(frame);
            if frame.left == 0 && frame.opcode >= 8 {
                self.control_frame(frame.opcode, answer);
            }
        }
        !self.is_over
    }

    fn control_frame(&mut self, opcode: u8, answer: &mut Vec<u8>) {
        let control = std::mem::take(&mut self.control);
        match opcode {
            8 => match control[..] {
                [] => self.break_off(CLOSE_NORMAL, answer),
                [_] => self.break_off(CLOSE_PROTOCOL, answer),
                [high, low, ..] => self.break_off(u16::from_be_bytes([high, low]), answer),
            },
            9 => frame(10, &control, answer),
            // A pong nobody asked for is allowed and means nothing.
            _ => {}
        }
    }

    fn break_off(&mut self, code: u16, answer: &mut Vec<u8>) {
        frame(8, &code.to_be_bytes(), answer);
        self.is_over = true;
    }

    /// The frame whose head is there, `None` while it is not; an error for one that no client may send.
    fn begin(&mut self) -> io::Result<Option<Frame>> {
        let refuse = || Err(io::ErrorKind::InvalidData.into());
        let [first, second, rest @ ..] = &self.head[..] else { return Ok(None) };
        let (opcode, is_last) = (first & 15, first & 0x80 != 0);
        let (is_masked, short) = (second & 0x80 != 0, second & 0x7f);
        let is_known = match opcode {
            0 => self.is_fragmented,
            1 | 2 => !self.is_fragmented,
            8..=10 => is_last && u64::from(short) <= MAX_CONTROL,
            _ => false,
        };
        if first & 0x70 != 0 || !is_masked || !is_known {
            return refuse();
        }
        let (length, mask) = match (short, rest) {
            (126, [a, b, mask @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), mask),
            (127, [a, b, c, d, e, f, g, h, mask @ ..]) => {
                (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), mask)
            }
            (126 | 127, _) => return Ok(None),
            (length, mask) => (u64::from(length), mask),
        };
        if length >> 63 != 0 {
            return refuse();
        }
        let Ok(mask) = <[u8; 4]>::try_from(mask) else { return Ok(None) };
        if opcode < 8 {
            self.is_fragmented = !is_last;
        }
        self.head.clear();
        Ok(Some(Frame { opcode, left: length, mask, at: 0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(change: Option<(&str, &str)>) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in [
            ("Host", "localhost:2375"),
            ("Upgrade", "websocket"),
            ("Connection", "keep-alive, Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Origin", "http://localhost:2375"),
        ] {
            let value = change.filter(|(changed, _)| *changed == name).map_or(value, |(_, value)| value);
            if !value.is_empty() {
                headers.push(name, value);
            }
        }
        headers
    }

    #[test]
    fn a_handshake_is_accepted_with_the_key_of_the_rfc() {
        assert_eq!(accept(&handshake(None)).as_deref(), Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(accept(&handshake(Some(("Origin", "")))).is_ok());
        assert!(accept(&handshake(Some(("Origin", "http://127.0.0.1/")))).is_ok());
        for origin in ["http://evil.example", "null", "http://localhost.evil.example:2375", "file://"] {
            assert_eq!(accept(&handshake(Some(("Origin", origin)))), Err(Refused::Foreign), "{origin}");
        }
        for (name, value) in [
            ("Upgrade", "tcp"),
            ("Upgrade", ""),
            ("Connection", "close"),
            ("Sec-WebSocket-Version", "8"),
            ("Sec-WebSocket-Key", "short"),
            ("Sec-WebSocket-Key", ""),
        ] {
            let refused = accept(&handshake(Some((name, value))));
            assert!(matches!(refused, Err(Refused::Malformed(_))), "{name}: {value}");
        }
    }

    /// A client's frame.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            length @ ..126 => out.push(0x80 | length as u8),
            length @ ..65536 => {
                out.push(0xfe);
                out.extend((length as u16).to_be_bytes());
            }
            length => {
                out.push(0xff);
                out.extend((length as u64).to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 250];
        out.extend(mask);
        out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        out
    }

    fn feed(wire: &[u8], step: usize) -> (Vec<u8>, Vec<u8>, bool) {
        let (mut decoder, mut payload, mut answer) = (Decoder::default(), Vec::new(), Vec::new());
        let goes_on = wire.chunks(step).fold(true, |_, piece| decoder.feed(piece, &mut payload, &mut answer));
        (payload, answer, goes_on)
    }

    #[test]
    fn payload_survives_every_cut() {
        let long: Vec<u8> = (0..70_000_u32).map(|at| at as u8).collect();
        let mut wire = masked(0x82, b"one ");
        wire.extend(masked(0x01, b"two "));
        wire.extend(masked(0x89, b"hey"));
        wire.extend(masked(0x00, b""));
        wire.extend(masked(0x80, b"three "));
        wire.extend(masked(0x8a, b""));
        wire.extend(masked(0x82, &long[..300]));
        wire.extend(masked(0x82, &long));
        let expected = [b"one two three ", &long[..300], &long[..]].concat();
        for step in [1, 2, 3, 5, 7, 64, 1000, wire.len()] {
            let (payload, answer, goes_on) = feed(&wire, step);
            assert!(goes_on && payload == expected, "{step}");
            assert_eq!(answer, b"\x8a\x03hey");
        }
    }

    #[test]
    fn a_close_is_answered_and_ends_it() {
        let mut wire = masked(0x82, b"last");
        wire.extend(masked(0x88, b"\x03\xe8bye"));
        wire.extend(masked(0x82, b"too late"));
        assert_eq!(feed(&wire, 3), (b"last".to_vec(), b"\x88\x02\x03\xe8".to_vec(), false));
        assert_eq!(feed(&masked(0x88, b""), 9).1, b"\x88\x02\x03\xe8");
    }

    #[test]
    fn frames_that_no_client_may_send_end_it() {
        let mut huge = vec![0x82, 0xff, 0x80];
        huge.extend([0; 11]);
        for (what, wire) in [
            ("not masked", vec![0x82, 1, b'x']),
            ("reserved bits", masked(0xc2, b"x")),
            ("unknown opcode", masked(0x83, b"x")),
            ("control in pieces", masked(0x09, b"x")),
            ("long control", masked(0x89, &[0; 126])),
            ("going on from nothing", masked(0x80, b"x")),
            ("a message within a message", [masked(0x02, b"x"), masked(0x82, b"y")].concat()),
            ("half a close code", masked(0x88, b"x")),
            ("a length with its highest bit", huge),
        ] {
            for step in [1, wire.len()] {
                let (_, answer, goes_on) = feed(&wire, step);
                assert!(!goes_on, "{what}");
                assert_eq!(answer, b"\x88\x02\x03\xea", "{what}");
            }
        }
    }

    #[test]
    fn a_length_that_never_comes_costs_nothing() {
        let mut wire = vec![0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        wire.extend(b"abc");
        assert_eq!(feed(&wire, 1), (b"abc".to_vec(), Vec::new(), true));
    }

    #[test]
    fn server_frames_are_not_masked_and_their_lengths_are_shortest() {
        for (length, head) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65535, &[0x82, 126, 0xff, 0xff]),
            (65536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            encode(Kind::Binary, &vec![7; length], &mut out);
            assert_eq!((&out[..head.len()], out.len() - head.len()), (head, length));
        }
        let mut out = Vec::new();
        encode(Kind::Text, b"x", &mut out);
        close(&mut out);
        assert_eq!(out, b"\x81\x01x\x88\x02\x03\xe8");
    }
}
