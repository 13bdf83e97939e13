//! One piece of output as it stands in a log file, in either format.
//!
//! - `json-file`: `{"log":"…\n","stream":"stdout","attrs":{…},"time":"…"}` and a newline. Bytes that are not UTF-8
//!   become U+FFFD: JSON cannot carry them.
//! - `local`: Docker's own: a protobuf message between two copies of its length (32 bits, big endian), so that it
//!   can be read from either end. Any bytes survive.
//!
//! Writing and reading of `local` stand side by side; `json-file` is read by whoever has a JSON parser.
//!
//! Source: moby `daemon/logger/jsonfilelog/jsonlog`, `daemon/logger/local`, `internal/logdriver/entry.proto`.

use std::fmt::Write as _;

use super::Stream;
use crate::runtime::LogFormat;

/// Most bytes of a `local` message: as Docker's reader has it.
const LOCAL_MOST_BYTES: usize = 1_000_000;
/// Its length before and after it.
const LOCAL_FRAME_BYTES: usize = 8;

/// Where a piece of a longer line belongs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partial {
    /// The same for all pieces of a line: 64 hex digits.
    pub id: String,
    /// Counts from 1.
    pub ordinal: u32,
    /// The line ends with this piece.
    pub is_last: bool,
}

/// A line, or a piece of one.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    pub stream: Stream,
    /// Without the newline.
    pub text: &'a [u8],
    /// `None` for a whole line.
    pub partial: Option<&'a Partial>,
    pub time: &'a Moment,
}

impl Entry<'_> {
    /// Whether a newline followed in the output.
    pub fn ends_line(&self) -> bool {
        self.partial.is_none_or(|partial| partial.is_last)
    }
}

/// When something was read, and how that is written; formatted once for all lines of a chunk.
#[derive(Clone, Debug)]
pub struct Moment {
    pub at: jiff::Timestamp,
    /// UTC, RFC 3339 with nine fractional digits.
    pub text: String,
}

impl Moment {
    pub fn now() -> Moment {
        Moment::from(jiff::Timestamp::now())
    }
}

impl From<jiff::Timestamp> for Moment {
    fn from(at: jiff::Timestamp) -> Moment {
        Moment { at, text: format!("{at:.9}") }
    }
}

/// Writes entries of one container.
#[derive(Debug)]
pub struct Encoder {
    format: LogFormat,
    /// The attributes, as the format has them; empty for none.
    attrs: Vec<u8>,
}

impl Encoder {
    pub fn new(format: LogFormat, attrs: &[(String, String)]) -> Encoder {
        let mut encoded = Vec::new();
        match format {
            LogFormat::Json if attrs.is_empty() => {}
            LogFormat::Json => {
                encoded.extend_from_slice(b",\"attrs\":{");
                for (at, (key, value)) in attrs.iter().enumerate() {
                    let before: &[u8] = if at > 0 { b",\"" } else { b"\"" };
                    encoded.extend_from_slice(before);
                    escape(&mut encoded, key);
                    encoded.extend_from_slice(b"\":\"");
                    escape(&mut encoded, value);
                    encoded.push(b'"');
                }
                encoded.push(b'}');
            }
            LogFormat::Local => {
                for (key, value) in attrs {
                    let mut attr = Vec::new();
                    put_bytes(&mut attr, 1, key.as_bytes());
                    put_bytes(&mut attr, 2, value.as_bytes());
                    put_bytes(&mut encoded, 6, &attr);
                }
            }
        }
        Encoder { format, attrs: encoded }
    }

    /// Appends one entry.
    pub fn encode(&self, out: &mut Vec<u8>, entry: &Entry<'_>) {
        out.reserve(entry.text.len() + self.attrs.len() + 96);
        match self.format {
            LogFormat::Json => self.encode_json(out, entry),
            LogFormat::Local => self.encode_local(out, entry),
        }
    }

    fn encode_json(&self, out: &mut Vec<u8>, entry: &Entry<'_>) {
        out.extend_from_slice(b"{\"log\":\"");
        for chunk in entry.text.utf8_chunks() {
            escape(out, chunk.valid());
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
        if entry.ends_line() {
            out.extend_from_slice(b"\\n");
        }
        out.extend_from_slice(b"\",\"stream\":\"");
        out.extend_from_slice(entry.stream.name().as_bytes());
        out.push(b'"');
        out.extend_from_slice(&self.attrs);
        out.extend_from_slice(b",\"time\":\"");
        out.extend_from_slice(entry.time.text.as_bytes());
        out.extend_from_slice(b"\"}\n");
    }

    fn encode_local(&self, out: &mut Vec<u8>, entry: &Entry<'_>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        put_bytes(out, 1, entry.stream.name().as_bytes());
        let nanos = i64::try_from(entry.time.at.as_nanosecond()).unwrap_or(i64::MAX);
        put_number(out, 2, nanos.cast_unsigned());
        put_bytes(out, 3, entry.text);
        if let Some(partial) = entry.partial {
            put_number(out, 4, 1);
            let mut data = Vec::new();
            put_number(&mut data, 1, u64::from(partial.is_last));
            put_bytes(&mut data, 2, partial.id.as_bytes());
            put_number(&mut data, 3, u64::from(partial.ordinal));
            put_bytes(out, 5, &data);
        }
        out.extend_from_slice(&self.attrs);
        // Far below four gigabytes: a piece is 16 KiB, and attributes fit a request.
        let length = ((out.len() - start - 4) as u32).to_be_bytes();
        out[start..start + 4].copy_from_slice(&length);
        out.extend_from_slice(&length);
    }
}

/// JSON's string escapes, as short as they come.
fn escape(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..=0x1f => 0,
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain..at]);
        plain = at + 1;
        if short == 0 {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        } else {
            out.extend_from_slice(&[b'\\', short]);
        }
    }
    out.extend_from_slice(&bytes[plain..]);
}

/// A protobuf field of wire type 0.
fn put_number(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        out.push(field << 3);
        put_varint(out, value);
    }
}

/// A protobuf field of wire type 2; proto3 leaves an empty one out.
fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(field << 3 | 2);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What stands at the beginning of some bytes of a `local` file.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message of so many bytes; with its two lengths it takes eight more.
    Whole(usize),
    /// At least so many bytes more are needed to tell.
    Short(usize),
    /// No message begins here.
    Broken,
}

impl Frame {
    /// Looks at the beginning of `bytes`. A length alone is easily met by chance, so the first field, which is the
    /// stream's name, must be there as well.
    pub fn at(bytes: &[u8]) -> Frame {
        const FIRST: [u8; 2] = [1 << 3 | 2, 6];
        let head = 4 + FIRST.len();
        let [a, b, c, d, ..] = *bytes else { return Frame::Short(head - bytes.len()) };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length < FIRST.len() || length > LOCAL_MOST_BYTES {
            return Frame::Broken;
        }
        if !FIRST.starts_with(&bytes[4..bytes.len().min(head)]) {
            return Frame::Broken;
        }
        match bytes.get(length + 4..length + LOCAL_FRAME_BYTES) {
            None => Frame::Short(length + LOCAL_FRAME_BYTES - bytes.len()),
            Some(after) if *after == bytes[..4] => Frame::Whole(length),
            Some(_) => Frame::Broken,
        }
    }
}

/// A message of a `local` file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decoded<'a> {
    pub is_stderr: bool,
    /// Since the epoch.
    pub nanos: i64,
    /// Without the newline.
    pub text: &'a [u8],
    pub ends_line: bool,
    pub attrs: Vec<(&'a str, &'a str)>,
}

/// Reads the message inside a frame; `None` when it makes no sense.
pub fn decode_local(message: &[u8]) -> Option<Decoded<'_>> {
    let mut entry = Decoded { ends_line: true, ..Decoded::default() };
    let (mut is_partial, mut is_last) = (false, false);
    let mut fields = Fields(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(name)) => entry.is_stderr = name == b"stderr",
            (2, Value::Number(nanos)) => entry.nanos = nanos.cast_signed(),
            (3, Value::Bytes(text)) => entry.text = text,
            (4, Value::Number(flag)) => is_partial = flag != 0,
            (5, Value::Bytes(data)) => {
                let mut data = Fields(data);
                while let Some(field) = data.next()? {
                    if let (1, Value::Number(flag)) = field {
                        is_last = flag != 0;
                    }
                }
            }
            (6, Value::Bytes(attr)) => {
                let (mut key, mut value) = ("", "");
                let mut attr = Fields(attr);
                while let Some(field) = attr.next()? {
                    match field {
                        (1, Value::Bytes(text)) => key = std::str::from_utf8(text).ok()?,
                        (2, Value::Bytes(text)) => value = std::str::from_utf8(text).ok()?,
                        _ => {}
                    }
                }
                entry.attrs.push((key, value));
            }
            // A later version's.
            _ => {}
        }
    }
    entry.ends_line = !is_partial || is_last;
    Some(entry)
}

/// The fields of a protobuf message.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    /// The next one; the outer `None` is nonsense, the inner the end.
    #[allow(clippy::option_option, reason = "nonsense is not the end")]
    fn next(&mut self) -> Option<Option<(u64, Value<'a>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Bytes(self.take(4)?),
            _ => return None,
        };
        Some(Some((tag >> 3, value)))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

/// A name that no other line has.
pub fn line_id() -> String {
    let mut bytes = [0_u8; 32];
    let mut filled = 0;
    while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
        // Fails only on kernels older than the ones that run containers; the name then is all zeroes.
        match rustix::rand::getrandom(room, rustix::rand::GetRandomFlags::empty()) {
            Ok(more) => filled += more,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment() -> Moment {
        Moment::from("2026-11-23T19:00:00.000000001Z".parse::<jiff::Timestamp>().unwrap())
    }

    fn encoded(format: LogFormat, attrs: &[(&str, &str)], entry: &Entry<'_>) -> Vec<u8> {
        let attrs: Vec<_> =
            attrs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let mut out = Vec::new();
        Encoder::new(format, &attrs).encode(&mut out, entry);
        out
    }

    #[test]
    fn attributes_stand_in_each_json_line() {
        let time = moment();
        let entry = Entry { stream: Stream::Stdout, text: b"x", partial: None, time: &time };
        let line = encoded(LogFormat::Json, &[("a", "1"), ("b\"", "\n")], &entry);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"log\":\"x\\n\",\"stream\":\"stdout\",\"attrs\":{\"a\":\"1\",\"b\\\"\":\"\\n\"},\
             \"time\":\"2026-11-23T19:00:00.000000001Z\"}\n"
        );
    }

    /// The bytes that Docker's protobuf library makes of the same message, made by hand from the wire format.
    #[test]
    fn local_messages_are_dockers() {
        let time = Moment::from(jiff::Timestamp::from_nanosecond(300).unwrap());
        let partial = Partial { id: "ab".to_owned(), ordinal: 2, is_last: false };
        let entry = Entry { stream: Stream::Stderr, text: b"\xff\n", partial: Some(&partial), time: &time };
        let got = encoded(LogFormat::Local, &[("k", "v")], &entry);
        let body = [
            &b"\x0a\x06stderr"[..],
            b"\x10\xac\x02",
            b"\x1a\x02\xff\n",
            b"\x20\x01",
            b"\x2a\x06\x12\x02ab\x18\x02",
            b"\x32\x06\x0a\x01k\x12\x01v",
        ]
        .concat();
        let length = (body.len() as u32).to_be_bytes();
        assert_eq!(got, [&length[..], &body, &length].concat());
        assert_eq!(Frame::at(&got), Frame::Whole(body.len()));
        let back = decode_local(&body).unwrap();
        let attrs = vec![("k", "v")];
        assert_eq!(back, Decoded { is_stderr: true, nanos: 300, text: b"\xff\n", ends_line: false, attrs });
        let last = Partial { is_last: true, ..partial.clone() };
        let got = encoded(LogFormat::Local, &[], &Entry { partial: Some(&last), ..entry });
        assert!(decode_local(&got[4..got.len() - 4]).unwrap().ends_line);
    }

    #[test]
    fn frames_are_told_from_nonsense() {
        let time = moment();
        let entry = Entry { stream: Stream::Stdout, text: b"hello", partial: None, time: &time };
        let whole = encoded(LogFormat::Local, &[], &entry);
        for cut in 0..whole.len() {
            assert!(
                matches!(Frame::at(&whole[..cut]), Frame::Short(more) if more <= whole.len() - cut),
                "{cut}"
            );
        }
        for nonsense in [&[0; 8][..], b"\0\0\0\x20\x0a\x07", b"{\"log\":", b"\0\0\0\x02\x0a\x06\0\0\0\x03"] {
            assert_eq!(Frame::at(nonsense), Frame::Broken, "{nonsense:?}");
        }
        // Whatever a disk returns: no panic, and nothing without end.
        for seed in 0..2000_u32 {
            let bytes: Vec<u8> =
                (0..seed % 40).map(|at| (seed.wrapping_mul(2_654_435_761 + at) >> 13) as u8).collect();
            let _ = (Frame::at(&bytes), decode_local(&bytes));
        }
        assert_eq!(line_id().len(), 64);
        assert_ne!(line_id(), line_id());
    }
}
