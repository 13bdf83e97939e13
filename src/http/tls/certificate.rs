//! What is read off a certificate itself: its subject's common name and its dates.
//!
//! rustls verifies certificates and keeps both to itself. This is the walk to two fields of RFC 5280's structure;
//! bytes that are none of it give `None`, never a panic.

use std::ops::Range;

const INTEGER: u8 = 0x02;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// The optional version, `[0] EXPLICIT`.
const VERSION: u8 = 0xa0;
/// id-at-commonName, 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// One element: its tag, its content, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The content of the element with this tag at the front, and what follows it.
fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == tag).then_some((content, rest))
}

/// Validity and subject of a certificate.
fn fields(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (mut rest, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, after)) = expect(rest, VERSION) {
        rest = after;
    }
    let (_serial, rest) = expect(rest, INTEGER)?;
    let (_algorithm, rest) = expect(rest, SEQUENCE)?;
    let (_issuer, rest) = expect(rest, SEQUENCE)?;
    let (validity, rest) = expect(rest, SEQUENCE)?;
    let (subject, _) = expect(rest, SEQUENCE)?;
    Some((validity, subject))
}

/// The common name of a certificate's subject, the last if there are several, as Go reads it; `None` if there is
/// none that is text.
pub fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, mut names) = fields(certificate)?;
    let mut found = None;
    while !names.is_empty() {
        let (mut set, rest) = expect(names, SET)?;
        names = rest;
        while !set.is_empty() {
            let (attribute, rest) = expect(set, SEQUENCE)?;
            set = rest;
            let (kind, value) = expect(attribute, OBJECT_ID)?;
            if kind == COMMON_NAME {
                let (tag, text, _) = element(value)?;
                found = string(tag, text);
            }
        }
    }
    found
}

/// A directory string: UTF8, printable, IA5, T61 (as Latin 1) or BMP.
fn string(tag: u8, bytes: &[u8]) -> Option<String> {
    match tag {
        0x0c => String::from_utf8(bytes.to_vec()).ok(),
        0x13 | 0x16 if bytes.is_ascii() => Some(bytes.iter().map(|byte| char::from(*byte)).collect()),
        0x14 => Some(bytes.iter().map(|byte| char::from(*byte)).collect()),
        0x1e if bytes.len().is_multiple_of(2) => {
            let units: Vec<u16> =
                bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            String::from_utf16(&units).ok()
        }
        _ => None,
    }
}

/// From when until when a certificate holds, as `YYYYMMDDhhmmss` in UTC, which sorts as it reads.
pub fn validity(certificate: &[u8]) -> Option<Range<String>> {
    let (validity, _) = fields(certificate)?;
    let (tag, start, rest) = element(validity)?;
    let start = time(tag, start)?;
    let (tag, end, _) = element(rest)?;
    Some(start..time(tag, end)?)
}

fn time(tag: u8, bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match tag {
        // RFC 5280: two digits from 50 on are of the last century.
        UTC_TIME if text.len() == 12 => Some(format!("{}{text}", if text < "50" { "20" } else { "19" })),
        GENERALIZED_TIME if text.len() == 14 => Some(text.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let mut bytes = vec![tag];
        match content.len() {
            short @ ..0x80 => bytes.push(short as u8),
            long => bytes.extend_from_slice(&[0x82, (long >> 8) as u8, long as u8]),
        }
        bytes.extend_from_slice(&content);
        bytes
    }

    fn certificate(names: &[(u8, &[u8])]) -> Vec<u8> {
        let name = |tag, text: &[u8]| {
            der(SET, &[&der(SEQUENCE, &[&der(OBJECT_ID, &[COMMON_NAME]), &der(tag, &[text])])])
        };
        let organisation =
            der(SET, &[&der(SEQUENCE, &[&der(OBJECT_ID, &[&[0x55, 4, 10]]), &der(0x0c, &[b"org"])])]);
        let names: Vec<u8> = names.iter().flat_map(|(tag, text)| name(*tag, text)).collect();
        let body = [
            der(VERSION, &[&der(INTEGER, &[&[2]])]),
            der(INTEGER, &[&[1; 20]]),
            der(SEQUENCE, &[&der(OBJECT_ID, &[&[1, 2]])]),
            der(SEQUENCE, &[&der(SET, &[])]),
            der(
                SEQUENCE,
                &[&der(UTC_TIME, &[b"491231235959Z"]), &der(GENERALIZED_TIME, &[b"20991231000000Z"])],
            ),
            der(SEQUENCE, &[&organisation, &names]),
            vec![0; 300],
        ];
        der(SEQUENCE, &[&der(SEQUENCE, &[&body.concat()])])
    }

    #[test]
    fn the_common_name_is_found_in_every_kind_of_string() {
        let name = |names: &[(u8, &[u8])]| common_name(&certificate(names));
        assert_eq!(name(&[(0x0c, "Jörg".as_bytes())]).as_deref(), Some("Jörg"));
        assert_eq!(name(&[(0x13, b"client")]).as_deref(), Some("client"));
        assert_eq!(name(&[(0x14, b"J\xf6rg")]).as_deref(), Some("Jörg"));
        assert_eq!(name(&[(0x1e, b"\0J\0o")]).as_deref(), Some("Jo"));
        assert_eq!(name(&[(0x0c, b"a"), (0x0c, b"b")]).as_deref(), Some("b"));
        assert_eq!(name(&[(0x0c, b"\xff")]), None);
        assert_eq!(name(&[]), None);
    }

    #[test]
    fn dates_sort_as_they_read() {
        let dates = validity(&certificate(&[])).unwrap();
        assert_eq!(dates, "20491231235959".to_owned().."20991231000000".to_owned());
        assert_eq!(time(UTC_TIME, b"500101000000Z").as_deref(), Some("19500101000000"));
        for bad in [&b""[..], b"Z", b"4912312359Z", b"49123123595xZ", b"491231235959+0100"] {
            assert_eq!(time(UTC_TIME, bad), None);
        }
    }

    #[test]
    fn what_is_no_certificate_gives_nothing() {
        let whole = certificate(&[(0x0c, b"x")]);
        for end in 0..whole.len() {
            assert_eq!(common_name(&whole[..end]), None, "{end}");
        }
        for at in 0..whole.len() {
            for byte in [0, 0x30, 0x7f, 0x84, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                // Any outcome but a panic.
                let _ = (common_name(&bytes), validity(&bytes));
            }
        }
    }
}
