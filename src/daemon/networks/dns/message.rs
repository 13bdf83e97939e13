//! DNS messages: as much of the wire format as a server of names and addresses needs.
//!
//! A query comes from whoever runs in a container, and an answer from whoever is on the network: both are
//! hostile until proven otherwise. Names are walked without following pointers, so that nothing loops, and every
//! read is within the message or refused.
//!
//! Source: RFC 1035 (format), RFC 6891 (EDNS), RFC 3596 (AAAA, ip6.arpa), RFC 9619 (one question).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Record types.
pub const A: u16 = 1;
pub const PTR: u16 = 12;
pub const AAAA: u16 = 28;
const OPT: u16 = 41;
pub const ANY: u16 = 255;

/// Response codes. [`BAD_VERSION`] is an extended one, whose upper bits are in the OPT record.
pub const NO_ERROR: u16 = 0;
const FORMAT_ERROR: u16 = 1;
pub const SERVER_FAILURE: u16 = 2;
const NOT_IMPLEMENTED: u16 = 4;
pub const REFUSED: u16 = 5;
const BAD_VERSION: u16 = 16;

/// Bytes of a header.
const HEADER: usize = 12;
/// Bytes of a name at most, the length bytes and the end included.
const LONGEST_NAME: usize = 255;
/// What every client takes by UDP, in bytes, and the most we send to one that takes more.
const SMALLEST_LIMIT: usize = 512;
const LARGEST_LIMIT: usize = 4096;
/// By TCP a message's length has two bytes.
pub const STREAM_LIMIT: usize = 65_535;
/// Seconds. Docker says 600, and with it keeps whoever believes it at an address that its container has left.
const TIME_TO_LIVE: u32 = 60;

/// A question that can be answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    /// Lower case, without the dot at the end; `None` for what cannot be a name of ours.
    pub name: Option<String>,
    pub kind: u16,
    /// Of the Internet's class, or any.
    pub is_internet: bool,
    /// The largest answer by UDP, in bytes.
    pub limit: usize,
    has_edns: bool,
    /// Where the question ends in the message.
    end: usize,
}

/// Why a query gets no answer from names.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no query: whoever answers it begins a quarrel of machines.
    Silence,
    /// The reply that says so.
    Reply(Vec<u8>),
}

/// What an answer is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    Address(IpAddr),
    /// Of a PTR record: dotted.
    Name(String),
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// Where the name that begins at `at` ends. A pointer ends it, and is not followed.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            192..=255 => return message.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

/// Where the one question ends. Its name has no pointers: there is nothing before it to point to.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match usize::from(*message.get(at)?) {
            0 => break,
            length @ 1..=63 => at += 1 + length,
            _ => return None,
        }
    }
    (at + 1 - HEADER <= LONGEST_NAME && message.len() >= at + 5).then_some(at + 5)
}

/// The question's name in words. A label with a dot or anything unprintable in it is no name of ours.
fn text(message: &[u8]) -> Option<String> {
    let mut name = String::new();
    let mut at = HEADER;
    while let Some(length) = message.get(at).map(|&byte| usize::from(byte)).filter(|&length| length > 0) {
        let label = message.get(at + 1..=at + length)?;
        if label.iter().any(|byte| !byte.is_ascii_graphic() || *byte == b'.') {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        at += 1 + length;
    }
    Some(name)
}

/// The OPT record after the question: payload size and version; `Err` when the message is broken.
fn edns(message: &[u8], mut at: usize) -> Result<Option<(u16, u8)>, ()> {
    let mut found = None;
    let counts = [6, 8, 10].map(|at| u16_at(message, at).unwrap_or(0));
    for (section, count) in counts.into_iter().enumerate() {
        for _ in 0..count {
            let fixed = skip_name(message, at).ok_or(())?;
            let kind = u16_at(message, fixed).ok_or(())?;
            let size = u16_at(message, fixed + 2).ok_or(())?;
            let version = *message.get(fixed + 5).ok_or(())?;
            let length = u16_at(message, fixed + 8).ok_or(())?;
            let is_root = message.get(at) == Some(&0);
            at = fixed + 10 + usize::from(length);
            if at > message.len() {
                return Err(());
            }
            if kind == OPT && section == 2 {
                if !is_root || found.is_some() {
                    return Err(());
                }
                found = Some((size, version));
            }
        }
    }
    Ok(found)
}

/// Understands a query.
///
/// # Errors
/// Whatever is no query of one question, with the reply it deserves.
pub fn parse(message: &[u8]) -> Result<Question, Refusal> {
    let (Some(flags), true) = (u16_at(message, 2), message.len() >= HEADER) else {
        return Err(Refusal::Silence);
    };
    if flags & 0x8000 != 0 {
        return Err(Refusal::Silence);
    }
    let refuse = |code, end| Err(Refusal::Reply(bare_reply(message, end, code)));
    if flags >> 11 & 0xf != 0 {
        return refuse(NOT_IMPLEMENTED, HEADER);
    }
    if u16_at(message, 4) != Some(1) {
        return refuse(FORMAT_ERROR, HEADER);
    }
    let Some(end) = question_end(message) else { return refuse(FORMAT_ERROR, HEADER) };
    let Ok(edns) = edns(message, end) else { return refuse(FORMAT_ERROR, end) };
    let mut question = Question {
        name: text(message),
        kind: u16_at(message, end - 4).unwrap_or(0),
        is_internet: matches!(u16_at(message, end - 2), Some(1 | ANY)),
        limit: SMALLEST_LIMIT,
        has_edns: edns.is_some(),
        end,
    };
    if let Some((size, version)) = edns {
        question.limit = usize::from(size).clamp(SMALLEST_LIMIT, LARGEST_LIMIT);
        if version != 0 {
            return Err(Refusal::Reply(reply(message, &question, BAD_VERSION, &[], SMALLEST_LIMIT)));
        }
    }
    Ok(question)
}

/// A reply of header and, when `end` is behind it, the question.
fn bare_reply(message: &[u8], end: usize, code: u16) -> Vec<u8> {
    let mut reply = message.get(..end).unwrap_or_default().to_vec();
    if reply.len() < HEADER {
        return reply;
    }
    let flags = u16_at(message, 2).unwrap_or(0);
    // A response; opcode, "recursion desired" and "checking disabled" as asked; recursion is available.
    let flags = 0x8080 | flags & 0x7910 | code & 0xf;
    reply[2..4].copy_from_slice(&flags.to_be_bytes());
    reply[4..HEADER].fill(0);
    reply[5] = u8::from(end > HEADER);
    reply
}

/// The answer to `question`, which was parsed from `message`: as many of the records as fit into `limit` bytes,
/// and a word about it when not all do.
pub fn reply(message: &[u8], question: &Question, code: u16, records: &[Data], limit: usize) -> Vec<u8> {
    let mut reply = bare_reply(message, question.end, code);
    let edns_length = if question.has_edns { 11 } else { 0 };
    let mut count: u16 = 0;
    for data in records {
        let before = reply.len();
        // The name asked for, by a pointer to it.
        reply.extend([0xc0, HEADER as u8]);
        let kind = match data {
            Data::Address(IpAddr::V4(_)) => A,
            Data::Address(IpAddr::V6(_)) => AAAA,
            Data::Name(_) => PTR,
        };
        reply.extend(kind.to_be_bytes());
        reply.extend(1_u16.to_be_bytes());
        reply.extend(TIME_TO_LIVE.to_be_bytes());
        let content = match data {
            Data::Address(IpAddr::V4(address)) => address.octets().to_vec(),
            Data::Address(IpAddr::V6(address)) => address.octets().to_vec(),
            Data::Name(name) => encode_name(name),
        };
        reply.extend((content.len() as u16).to_be_bytes());
        reply.extend(content);
        if reply.len() + edns_length > limit {
            reply.truncate(before);
            reply[2] |= 2;
            break;
        }
        count += 1;
    }
    reply[6..8].copy_from_slice(&count.to_be_bytes());
    if question.has_edns {
        // Root, OPT, our payload size, the code's upper bits, version 0, no flags, no options.
        reply.push(0);
        reply.extend(OPT.to_be_bytes());
        reply.extend((LARGEST_LIMIT as u16).to_be_bytes());
        reply.extend([(code >> 4) as u8, 0, 0, 0, 0, 0]);
        reply[11] = 1;
    }
    reply
}

/// A dotted name for the wire; labels that are too long are cut, and those too many left out.
fn encode_name(name: &str) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        if encoded.len() + label.len() + 2 > LONGEST_NAME {
            break;
        }
        encoded.push(label.len() as u8);
        encoded.extend(label);
    }
    encoded.push(0);
    encoded
}

/// Whether `answer` is one to the `query` we sent: a response with its id and its question.
pub fn answers(answer: &[u8], query: &[u8]) -> bool {
    let Some(end) = question_end(query) else { return false };
    let is_response = answer.len() >= HEADER && answer[..2] == query[..2] && answer[2] & 0x80 != 0;
    // A server that cannot read the question need not repeat it.
    let has_question = match u16_at(answer, 4) {
        Some(1) => {
            answer.get(HEADER..end).is_some_and(|asked| asked.eq_ignore_ascii_case(&query[HEADER..end]))
        }
        Some(0) => is_response && code(answer) != NO_ERROR,
        _ => false,
    };
    is_response && has_question
}

/// The response code in a message's header.
pub fn code(message: &[u8]) -> u16 {
    u16_at(message, 2).unwrap_or(SERVER_FAILURE) & 0xf
}

/// Gives a message another id.
pub fn set_id(message: &mut [u8], id: [u8; 2]) {
    if let Some(place) = message.get_mut(..2) {
        place.copy_from_slice(&id);
    }
}

/// The address a PTR question asks about; `None` for any other name.
pub fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0_u8; 4];
        let mut labels = labels.split('.').rev();
        for octet in &mut octets {
            *octet = labels.next()?.parse().ok()?;
        }
        return labels.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let mut number: u128 = 0;
    let mut labels = name.strip_suffix(".ip6.arpa")?.split('.').rev();
    for _ in 0..32 {
        let digit = labels.next().filter(|label| label.len() == 1)?;
        number = number << 4 | u128::from(u8::from_str_radix(digit, 16).ok()?);
    }
    labels.next().is_none().then(|| Ipv6Addr::from(number).into())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A query as a resolver writes it.
    pub fn query(name: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
        message.extend(encode_name(name));
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        if let Some(size) = edns {
            message.push(0);
            message.extend(OPT.to_be_bytes());
            message.extend(size.to_be_bytes());
            message.extend([0; 6]);
        }
        message
    }

    fn address(text: &str) -> Data {
        Data::Address(text.parse().unwrap())
    }

    #[test]
    fn a_question_is_understood_and_answered() {
        let message = query("Web.Front", A, Some(1232));
        let question = parse(&message).unwrap();
        assert_eq!(question.name.as_deref(), Some("web.front"));
        assert_eq!((question.kind, question.limit, question.is_internet), (A, 1232, true));
        let answer = reply(&message, &question, NO_ERROR, &[address("10.0.0.2"), address("10.0.0.3")], 512);
        assert_eq!(answer[..2], message[..2]);
        assert_eq!(answer[2..12], [0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 1]);
        assert_eq!(answer[12..question.end], message[12..question.end], "the question as it was written");
        let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 2];
        assert_eq!(answer[question.end..question.end + 16], record);
        assert_eq!(answer.len(), question.end + 32 + 11);
        assert!(answers(&answer, &message));
        let plain = query("web", AAAA, None);
        let answer = reply(&plain, &parse(&plain).unwrap(), NO_ERROR, &[address("fd00::2")], 512);
        assert_eq!(answer.len(), plain.len() + 12 + 16);
        assert_eq!(answer[answer.len() - 16..], [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn an_answer_too_long_says_so() {
        let many: Vec<Data> = (0..100).map(|last| address(&format!("10.0.0.{last}"))).collect();
        for (edns, wanted) in [(None, 30), (Some(100), 30), (Some(1232), 75), (Some(65535), 100)] {
            let message = query("web", A, edns);
            let question = parse(&message).unwrap();
            let answer = reply(&message, &question, NO_ERROR, &many, question.limit);
            assert!(answer.len() <= question.limit);
            assert_eq!(u16_at(&answer, 6), Some(wanted), "{edns:?}");
            assert_eq!(answer[2] & 2 != 0, wanted < 100, "{edns:?}");
        }
    }

    #[test]
    fn what_is_no_question_is_refused() {
        let good = query("web", A, None);
        let changed = |at: usize, byte: u8| {
            let mut message = good.clone();
            message[at] = byte;
            parse(&message)
        };
        assert_eq!(parse(&[]), Err(Refusal::Silence));
        assert_eq!(parse(&good[..11]), Err(Refusal::Silence));
        assert_eq!(changed(2, 0x81), Err(Refusal::Silence), "a response");
        let code_of = |parsed: Result<Question, Refusal>| match parsed {
            Err(Refusal::Reply(reply)) => code(&reply),
            other => panic!("{other:?}"),
        };
        assert_eq!(code_of(changed(2, 0x28)), NOT_IMPLEMENTED, "an update");
        assert_eq!(code_of(changed(5, 0)), FORMAT_ERROR, "no question");
        assert_eq!(code_of(changed(5, 2)), FORMAT_ERROR, "two questions");
        assert_eq!(code_of(changed(11, 1)), FORMAT_ERROR, "a record that is not there");
        assert_eq!(code_of(changed(12, 0xc0)), FORMAT_ERROR, "a pointer");
        assert_eq!(code_of(changed(12, 0x41)), FORMAT_ERROR, "a label of no known kind");
        assert_eq!(code_of(changed(12, 63)), FORMAT_ERROR, "a label beyond the end");
        assert_eq!(code_of(parse(&good[..good.len() - 1])), FORMAT_ERROR);
        let mut long = good[..12].to_vec();
        long.extend([1, b'a'].repeat(127));
        long.extend([0, 0, 1, 0, 1]);
        assert!(parse(&long).is_ok(), "255 bytes are a name");
        long.splice(12..12, [1, b'a']);
        assert_eq!(code_of(parse(&long)), FORMAT_ERROR, "257 bytes are not");
        let mut version = query("web", A, Some(1232));
        let at = version.len() - 5;
        version[at] = 1;
        let Err(Refusal::Reply(refusal)) = parse(&version) else { panic!("a later EDNS was understood") };
        assert_eq!((code(&refusal), refusal[refusal.len() - 6]), (0, 1), "BADVERS");
        let mut two = query("web", A, Some(1232));
        two.extend_from_within(two.len() - 11..);
        two[11] = 2;
        assert_eq!(code_of(parse(&two)), FORMAT_ERROR, "two OPT records");
        for odd in ["we\0b", "we b", "w\u{e9}b"] {
            assert_eq!(parse(&query(odd, A, None)).unwrap().name, None);
        }
        let mut dotted = good.clone();
        dotted[14] = b'.';
        assert_eq!(parse(&dotted).unwrap().name, None);
        let root = query("", A, None);
        assert_eq!(parse(&root).unwrap().name.as_deref(), Some(""));
    }

    #[test]
    fn pointers_that_run_in_circles_end() {
        let mut message = query("web", A, None);
        let at = message.len() as u8;
        // An additional record whose name points to itself.
        message[11] = 1;
        message.extend([0xc0, at, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(parse(&message).unwrap().name.as_deref(), Some("web"));
        assert!(matches!(parse(&message[..message.len() - 11]), Err(Refusal::Reply(_))));
    }

    #[test]
    fn noise_never_panics() {
        let mut seed = std::env::var("DEWAR_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(42_u64);
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as usize
        };
        let seeds =
            [query("web.front", A, Some(1232)), query("2.0.0.10.in-addr.arpa", PTR, None), vec![0; 40]];
        let mut understood = 0;
        for round in 0..100_000 {
            let mut message = seeds[round % seeds.len()].clone();
            for _ in 0..1 + random() % 4 {
                let at = random() % message.len();
                match random() % 4 {
                    0 => message[at] = random() as u8,
                    1 => message.truncate(at.max(1)),
                    2 => message.insert(at, random() as u8),
                    _ => message.extend_from_within(at..),
                }
            }
            let _ = answers(&message, &seeds[0]);
            let _ = answers(&seeds[0], &message);
            match parse(&message) {
                Ok(question) => {
                    let limit = question.limit;
                    let made = reply(&message, &question, NO_ERROR, &[address("1.2.3.4")], limit);
                    assert!(answers(&made, &message) && made.len() <= limit);
                    understood += 1;
                }
                Err(Refusal::Reply(reply)) => assert!(reply.len() >= HEADER && reply[2] & 0x80 != 0),
                Err(Refusal::Silence) => {}
            }
        }
        assert!(understood > 1000, "{understood}");
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let asked = query("web", A, None);
        let answer_to = |name: &str, kind| {
            let message = query(name, kind, None);
            reply(&message, &parse(&message).unwrap(), NO_ERROR, &[], 512)
        };
        assert!(answers(&answer_to("WEB", A), &asked));
        assert!(!answers(&answer_to("wec", A), &asked));
        assert!(!answers(&answer_to("web", AAAA), &asked));
        assert!(!answers(&asked, &asked), "a query is no answer");
        let mut other = answer_to("web", A);
        set_id(&mut other, [9, 9]);
        assert!(!answers(&other, &asked));
        let mut bare = answer_to("web", A)[..12].to_vec();
        bare[5] = 0;
        assert!(!answers(&bare, &asked), "success repeats the question");
        bare[3] |= 2;
        assert!(answers(&bare, &asked));
    }

    #[test]
    fn reversed_names_are_addresses() {
        assert_eq!(reversed("2.0.18.172.in-addr.arpa"), Some("172.18.0.2".parse().unwrap()));
        let six = format!("2{}.0.0.d.f.ip6.arpa", ".0".repeat(27));
        assert_eq!(reversed(&six), Some("fd00::2".parse().unwrap()));
        for name in
            ["1.2.3.in-addr.arpa", "1.2.3.4.5.in-addr.arpa", "256.1.1.1.in-addr.arpa", "in-addr.arpa", "a.b"]
        {
            assert_eq!(reversed(name), None, "{name}");
        }
        assert_eq!(reversed(&six[2..]), None);
        assert_eq!(reversed(&format!("0.{six}")), None);
    }
}
