//! The grammar of HTTP/1.1 messages as pure functions over bytes: heads, body framing, chunks.
//!
//! In: bytes as they came from a peer that may be hostile. Out: a parsed head, a [`Framing`], decoded body
//! bytes, or a [`Refusal`] that says what to answer. Nothing here touches a socket, so everything here can
//! be fuzzed.
//!
//! Invariant: every ambiguity about where a message ends is refused, never guessed (RFC 9112 section 6.3 and
//! 11.2: two lengths, a length and a coding, a coding that is not `chunked`, bare CR or LF in chunk framing).
//!
//! Not here: buffers, timeouts and limits in time (`connection`).
//!
//! Sources: RFC 9110, RFC 9112.

/// The most headers one message may have.
const MAX_HEADERS: usize = 128;
/// The most bytes of extensions one chunk's size line may have.
const MAX_CHUNK_LINE: usize = 4096;
/// The most bytes of trailers after a chunked body.
const MAX_TRAILERS: usize = 16 * 1024;

/// A message that cannot be answered by a handler: the connection ends after this answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub message: &'static str,
}

const fn bad(message: &'static str) -> Refusal {
    Refusal { status: 400, message }
}

/// The headers of one message, in order, names compared without case.
#[derive(Clone, Debug, Default)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Every header as it was sent, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Every value of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether the comma separated list `name` has `token`, without regard to case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name).any(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(token)))
    }

    /// Adds one header.
    pub fn push(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }
}

/// The head of a request.
#[derive(Clone, Debug)]
pub struct Head {
    /// As sent; methods are case sensitive.
    pub method: String,
    /// Path and query as sent, still encoded.
    pub target: String,
    /// 0 or 1, for HTTP/1.0 and HTTP/1.1.
    pub minor: u8,
    pub headers: Headers,
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub struct StatusHead {
    pub status: u16,
    pub minor: u8,
    pub headers: Headers,
}

/// Where a message's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Exactly this many bytes, perhaps 0.
    Length(u64),
    Chunked,
    /// With the connection; only an answer can have this.
    Close,
}

/// Finds the end of a head: the index after the empty line, looking from `from` on.
///
/// A head is parsed only once its end is there, so that a peer that sends it byte by byte costs no more than
/// one that does not.
pub fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    // Empty lines before the request line are skipped by every server, and are not the end of anything.
    let start = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    // The end may straddle what was searched before.
    let mut at = from.saturating_sub(3).max(start);
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == b'\n')? + 1;
        match bytes.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
}

/// Parses the head of a request, which `bytes` must hold completely (see [`head_end`]).
pub fn parse_head(bytes: &[u8]) -> Result<Head, Refusal> {
    let mut slots = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut slots);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(bad("malformed HTTP request")),
        Err(error) => return Err(head_refusal(error)),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(bad("malformed HTTP request"));
    };
    Ok(Head { method: method.to_owned(), target: target.to_owned(), minor, headers: copy(request.headers) })
}

/// Parses the head of an answer, which `bytes` must hold completely (see [`head_end`]).
pub fn parse_status_head(bytes: &[u8]) -> Result<StatusHead, Refusal> {
    let mut slots = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut slots);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(bad("malformed HTTP response")),
        Err(error) => return Err(head_refusal(error)),
    }
    let (Some(status), Some(minor)) = (response.code, response.version) else {
        return Err(bad("malformed HTTP response"));
    };
    Ok(StatusHead { status, minor, headers: copy(response.headers) })
}

fn copy(headers: &[httparse::Header<'_>]) -> Headers {
    // Header values are bytes; the ones this API knows are ASCII, and the others only have to be survived.
    let value = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Headers(headers.iter().map(|header| (header.name.to_owned(), value(header.value))).collect())
}

fn head_refusal(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal { status: 431, message: "too many request headers" },
        httparse::Error::Version => Refusal { status: 505, message: "HTTP version not supported" },
        _ => bad("malformed HTTP request"),
    }
}

/// Where the body of a request with these headers ends.
pub fn request_framing(minor: u8, headers: &Headers) -> Result<Framing, Refusal> {
    Ok(framing(minor, headers)?.unwrap_or(Framing::Length(0)))
}

/// Where the body of an answer with these headers ends, for an answer that may have a body.
pub fn response_framing(head: &StatusHead) -> Result<Framing, Refusal> {
    Ok(framing(head.minor, &head.headers)?.unwrap_or(Framing::Close))
}

fn framing(minor: u8, headers: &Headers) -> Result<Option<Framing>, Refusal> {
    let mut lengths = headers.all("content-length");
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(bad("more than one Content-Length"));
    }
    let mut codings = headers.all("transfer-encoding");
    if let Some(coding) = codings.next() {
        if length.is_some() || codings.next().is_some() || minor == 0 {
            return Err(bad("ambiguous message length"));
        }
        if !coding.trim().eq_ignore_ascii_case("chunked") {
            return Err(Refusal { status: 501, message: "unsupported Transfer-Encoding" });
        }
        return Ok(Some(Framing::Chunked));
    }
    let Some(text) = length else { return Ok(None) };
    // u64::from_str would take a sign.
    if text.is_empty() || text.len() > 18 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad("invalid Content-Length"));
    }
    text.parse().map(|length| Some(Framing::Length(length))).map_err(|_| bad("invalid Content-Length"))
}

/// An incremental decoder of the chunked coding.
///
/// ```text
/// Size -> (Extension) -> SizeEnd -> Data -> DataCr -> DataLf -> Size ...
///                          | size 0
///                          `-> LineStart -> (Trailer -> LineStart)* -> End -> Done
/// ```
#[derive(Debug, Default)]
pub struct Chunks {
    state: ChunkState,
    /// Digits of the size read so far, or bytes of the line or of the trailers.
    seen: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    Size(u64),
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    LineStart,
    Trailer,
    TrailerEnd,
    End,
    Done,
}

impl Default for ChunkState {
    fn default() -> ChunkState {
        ChunkState::Size(0)
    }
}

impl Chunks {
    /// Whether the last chunk and the trailers have been read.
    pub fn is_done(&self) -> bool {
        self.state == ChunkState::Done
    }

    /// Tells that `count` bytes of the current run were taken past the decoder.
    pub fn skip(&mut self, count: u64) {
        if let ChunkState::Data(left) = self.state {
            let left = left.saturating_sub(count);
            self.state = if left == 0 { ChunkState::DataCr } else { ChunkState::Data(left) };
        }
    }

    /// Decodes from `input` into `output`; returns how many bytes were consumed and produced.
    ///
    /// Stops when either is used up or the body has ended; what follows the body is not consumed.
    pub fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), Refusal> {
        const MALFORMED: Refusal = bad("malformed chunked encoding");
        let (mut consumed, mut produced) = (0, 0);
        while consumed < input.len() && self.state != ChunkState::Done {
            if let ChunkState::Data(left) = self.state {
                let rest = &input[consumed..];
                let count =
                    rest.len().min(output.len() - produced).min(usize::try_from(left).unwrap_or(usize::MAX));
                if count == 0 {
                    break;
                }
                output[produced..produced + count].copy_from_slice(&rest[..count]);
                produced += count;
                consumed += count;
                self.skip(count as u64);
                continue;
            }
            let byte = input[consumed];
            consumed += 1;
            self.state = match (self.state, byte) {
                (ChunkState::Size(size), _) if byte.is_ascii_hexdigit() => {
                    self.seen += 1;
                    // Sixteen digits would let the size wrap; fifteen are a petabyte and more.
                    if self.seen > 15 {
                        return Err(MALFORMED);
                    }
                    let digit = (byte as char).to_digit(16).unwrap_or(0);
                    ChunkState::Size(size << 4 | u64::from(digit))
                }
                (ChunkState::Size(_), _) if self.seen == 0 => return Err(MALFORMED),
                (ChunkState::Size(size), b'\r') => ChunkState::SizeEnd(size),
                (ChunkState::Size(size), b';' | b' ' | b'\t') => {
                    self.seen = 0;
                    ChunkState::Extension(size)
                }
                (ChunkState::Extension(size), b'\r') => ChunkState::SizeEnd(size),
                (ChunkState::Extension(size), byte) if byte != b'\n' => {
                    self.seen += 1;
                    if self.seen > MAX_CHUNK_LINE {
                        return Err(MALFORMED);
                    }
                    ChunkState::Extension(size)
                }
                (ChunkState::SizeEnd(size), b'\n') => {
                    self.seen = 0;
                    if size == 0 { ChunkState::LineStart } else { ChunkState::Data(size) }
                }
                (ChunkState::DataCr, b'\r') => ChunkState::DataLf,
                (ChunkState::DataLf, b'\n') => ChunkState::Size(0),
                (ChunkState::LineStart, b'\r') => ChunkState::End,
                (ChunkState::Trailer, b'\r') => ChunkState::TrailerEnd,
                (ChunkState::LineStart | ChunkState::Trailer, byte) if byte != b'\n' => {
                    self.seen += 1;
                    if self.seen > MAX_TRAILERS {
                        return Err(MALFORMED);
                    }
                    ChunkState::Trailer
                }
                (ChunkState::TrailerEnd, b'\n') => ChunkState::LineStart,
                (ChunkState::End, b'\n') => ChunkState::Done,
                _ => return Err(MALFORMED),
            };
        }
        Ok((consumed, produced))
    }
}

/// The reason phrase of a status this API answers with.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "UPGRADED",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Request Entity Too Large",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::default();
        list.iter().for_each(|(name, value)| headers.push(name, value));
        headers
    }

    #[test]
    fn head_end_is_found_wherever_the_input_is_cut() {
        let head = b"\r\nGET / HTTP/1.1\r\nA: b\r\n\r\nrest";
        let end = head.len() - 4;
        for cut in 0..=head.len() {
            assert_eq!(head_end(&head[..cut], 0), (cut >= end).then_some(end), "{cut}");
            if cut < end {
                assert_eq!(head_end(head, cut), Some(end), "resumed at {cut}");
            }
        }
        assert_eq!(head_end(b"GET / HTTP/1.1\n\n", 0), Some(16));
        assert_eq!(head_end(b"\r\n\r\n\r\n", 0), None);
        assert_eq!(head_end(b"", 5), None);
    }

    #[test]
    fn ambiguous_lengths_are_refused() {
        let framed = |list: &[(&str, &str)]| request_framing(1, &headers(list)).map_err(|r| r.status);
        assert_eq!(framed(&[]), Ok(Framing::Length(0)));
        assert_eq!(framed(&[("Content-Length", "12")]), Ok(Framing::Length(12)));
        assert_eq!(framed(&[("transfer-encoding", "Chunked")]), Ok(Framing::Chunked));
        for text in ["", "+1", "-1", "1 ", "0x1", "1,1", "99999999999999999999", "abc"] {
            assert_eq!(framed(&[("Content-Length", text)]), Err(400), "{text:?}");
        }
        assert_eq!(framed(&[("Content-Length", "1"), ("content-length", "1")]), Err(400));
        assert_eq!(framed(&[("Content-Length", "1"), ("Transfer-Encoding", "chunked")]), Err(400));
        assert_eq!(framed(&[("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")]), Err(400));
        assert_eq!(framed(&[("Transfer-Encoding", "gzip, chunked")]), Err(501));
        assert!(request_framing(0, &headers(&[("Transfer-Encoding", "chunked")])).is_err());
    }

    fn decode(input: &[u8], step: usize, room: usize) -> Result<(Vec<u8>, usize), Refusal> {
        let (mut chunks, mut body, mut at) = (Chunks::default(), Vec::new(), 0);
        let mut output = vec![0; room];
        while at < input.len() && !chunks.is_done() {
            let end = (at + step).min(input.len());
            let (consumed, produced) = chunks.decode(&input[at..end], &mut output)?;
            body.extend_from_slice(&output[..produced]);
            at += consumed;
        }
        if chunks.is_done() { Ok((body, at)) } else { Err(bad("unfinished")) }
    }

    #[test]
    fn chunks_decode_the_same_at_every_step() {
        let input = b"5;name=\"v\"\r\nhello\r\n00A \r\n, world...\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\nnext";
        for step in 1..input.len() {
            for room in [1, 3, 64] {
                let (body, at) = decode(input, step, room).unwrap();
                assert_eq!(body, b"hello, world...");
                assert_eq!(&input[at..], b"next");
            }
        }
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for input in [
            &b"\r\n"[..],
            b"g\r\n",
            b"-1\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\nhelloo\r\n0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"0\r\n\n",
            b"0\r\nA: b\n\r\n",
            b"5;a\nhello\r\n",
            b"ffffffffffffffff\r\n",
            b"0000000000000000001\r\n",
            b"5\rhello",
        ] {
            assert!(decode(input, input.len(), 64).is_err(), "{:?}", String::from_utf8_lossy(input));
        }
        let mut endless = b"5;".to_vec();
        endless.resize(5000, b'a');
        assert!(decode(&endless, 100, 64).is_err());
        let mut trailers = b"0\r\n".to_vec();
        (0..2000).for_each(|_| trailers.extend_from_slice(b"A: bbbbbbbb\r\n"));
        assert!(decode(&trailers, 100, 64).is_err());
    }

    #[test]
    fn hostile_heads_never_panic() {
        // A small generator, so that the same inputs are replayed on every run.
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let seeds: [&[u8]; 4] = [
            b"GET /v1.51/containers/json?all=1 HTTP/1.1\r\nHost: docker\r\nContent-Length: 5\r\n\r\nhello",
            b"POST /build HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ];
        for round in 0..20_000_usize {
            let mut bytes = seeds[round % seeds.len()].to_vec();
            for _ in 0..1 + round % 5 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (seed >> 33) as usize % bytes.len();
                match seed >> 62 {
                    0 => bytes[at] = (seed >> 20) as u8,
                    1 => bytes.truncate(at.max(1)),
                    2 => bytes.insert(at, (seed >> 20) as u8),
                    _ => drop(bytes.remove(at)),
                }
                if bytes.is_empty() {
                    bytes.push(b'\n');
                }
            }
            if let Some(end) = head_end(&bytes, 0) {
                if let Ok(head) = parse_head(&bytes[..end]) {
                    let _ = request_framing(head.minor, &head.headers);
                }
                let _ = parse_status_head(&bytes[..end]);
                let _ = decode(&bytes[end..], 7, 5);
            }
            let _ = decode(&bytes, 3, 2);
        }
    }
}
