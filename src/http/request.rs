//! Requests as handlers see them: path variables, query and body decoded by their endpoint's types.
//!
//! In: a matched route and the raw request. Out: a [`Call`] for a handler, or the refusal the client gets.
//! Whatever a handler wants beyond its types (headers, the client's API version, an upload's bytes, whether
//! the client is still there) is in [`Call::raw`].
//!
//! Rules: path variables are percent-decoded once; unknown query parameters are ignored; a JSON body needs
//! its Content-Type, must be the only value, and may be absent where every field of its type has a default.
//!
//! Not here: which route (`route`), where a body ends (`connection`).

use std::any::TypeId;
use std::io::Read;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, MapDeserializer};

use super::api::query::{Pairs, Query};
use super::api::{self, ApiVersion, Class, Endpoint, Failure};
use super::connection::{Body, Peer};
use super::message::Headers;

/// The most bytes of JSON a request may carry.
const MAX_JSON_BYTES: usize = 16 << 20;
/// How long a JSON body may take to arrive.
const JSON_TIME: Duration = Duration::from_secs(30);

/// The variables of a path, decoded once.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(&'static str, String)>);

impl Params {
    /// The value of `{name}`; empty if the pattern has no such variable.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    /// The values in the order of the pattern's variables.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, value)| value.as_str())
    }

    /// Adds one variable.
    pub fn push(&mut self, name: &'static str, value: String) {
        self.0.push((name, value));
    }
}

/// Each variable with a space before it.
impl std::fmt::Display for Params {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(name, value)| write!(out, " {name}={value:?}"))
    }
}

/// A request whose route is known and whose types are not.
#[derive(Debug)]
pub struct Request {
    pub params: Params,
    /// The query string, still encoded.
    pub query: String,
    pub raw: Raw,
}

/// What a request is apart from its endpoint's types.
#[derive(Debug)]
pub struct Raw {
    /// The version in the path, or the newest when there is none.
    pub version: ApiVersion,
    pub headers: Headers,
    /// The client, to ask whether it is still there.
    pub peer: Peer,
    /// The unread body; at its end already when the endpoint has a JSON body.
    pub body: Body,
    /// The bytes of a JSON body that was looked at before the handler's turn; what it gets is read from them.
    json: Option<Vec<u8>>,
}

impl Raw {
    /// A request with its body still to be read.
    pub fn new(version: ApiVersion, headers: Headers, peer: Peer, body: Body) -> Raw {
        Raw { version, headers, peer, body, json: None }
    }

    /// The bytes that the handler's JSON body will be read from, which must be at most `most`, and at most what
    /// the handler itself takes; for an operation that has one.
    ///
    /// Blocks until they have arrived, [`JSON_TIME`] at most. Fails with `InvalidParameter` or `TooLarge`.
    pub fn json_body(&mut self, most: usize) -> Result<&[u8], Failure> {
        let most = most.min(MAX_JSON_BYTES);
        let bytes = match self.json.take() {
            Some(bytes) if bytes.len() > most => return Err(too_large(most)),
            Some(bytes) => bytes,
            None => read_json_body(&mut self.body, most)?,
        };
        Ok(self.json.insert(bytes))
    }
}

/// A request decoded by its endpoint's types.
#[derive(Debug)]
pub struct Call<Q = (), B = ()> {
    pub params: Params,
    pub query: Q,
    pub body: B,
    pub raw: Raw,
}

impl<Q, B> Call<Q, B> {
    /// The path variable `{name}`, decoded; empty if the pattern has no such variable.
    pub fn param(&self, name: &str) -> &str {
        self.params.get(name)
    }
}

/// Decodes `request` by the endpoint's types.
///
/// Blocks until a JSON body has arrived, [`JSON_TIME`] at most. Fails with `InvalidParameter` or `TooLarge`.
pub fn decode<Q: Query, B: DeserializeOwned + 'static, R>(
    endpoint: &Endpoint<Q, B, R>,
    mut request: Request,
) -> Result<Call<Q, B>, Failure> {
    let query = Q::read(&parse_query(&request.query).map_err(invalid)?).map_err(invalid)?;
    let body = if has_json_body(endpoint) {
        request.raw.json_body(MAX_JSON_BYTES)?;
        let bytes = request.raw.json.take().unwrap_or_default();
        parse_json(request.raw.headers.get("content-type"), &bytes)?
    } else {
        absent()?
    };
    Ok(Call { params: request.params, query, body, raw: request.raw })
}

/// Whether requests to an endpoint have their body read as JSON.
pub fn has_json_body<Q, B: 'static, R>(_: &Endpoint<Q, B, R>) -> bool {
    TypeId::of::<B>() != TypeId::of::<()>()
}

fn invalid(message: String) -> Failure {
    Failure { class: Class::InvalidParameter, message }
}

/// The value of an empty body: "no value" if the type knows one, else all defaults.
fn absent<B: DeserializeOwned>() -> Result<B, Failure> {
    let unit: Result<B, ValueError> = B::deserialize(().into_deserializer());
    unit.or_else(|_| {
        let nothing = std::iter::empty::<(&str, &str)>();
        B::deserialize(MapDeserializer::<_, ValueError>::new(nothing))
    })
    .map_err(|_| invalid("invalid JSON: got EOF while reading request body".to_owned()))
}

fn too_large(most: usize) -> Failure {
    Failure { class: Class::TooLarge, message: format!("request body is larger than {} MiB", most >> 20) }
}

fn read_json_body(body: &mut Body, most: usize) -> Result<Vec<u8>, Failure> {
    if body.length().is_some_and(|length| length > most as u64) {
        return Err(too_large(most));
    }
    let mut bytes = Vec::new();
    if body.is_empty() {
        return Ok(bytes);
    }
    body.set_deadline(Some(Instant::now() + JSON_TIME));
    body.by_ref()
        .take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|cause| invalid(format!("read request body: {cause}")))?;
    body.set_deadline(None);
    if bytes.len() > most { Err(too_large(most)) } else { Ok(bytes) }
}

/// Parses a JSON body. `bytes` may be anything.
pub fn parse_json<B: DeserializeOwned>(content_type: Option<&str>, bytes: &[u8]) -> Result<B, Failure> {
    if bytes.is_empty() {
        return absent();
    }
    let content_type = content_type.unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(invalid(format!(
            "unsupported Content-Type header ({content_type}): must be 'application/json'"
        )));
    }
    // No kernel call takes it, and no name, path or variable may have it.
    if has_nul(bytes) {
        return Err(invalid("invalid JSON: a string contains a NUL character".to_owned()));
    }
    // Compat: Go reads `null` into any type as nothing said.
    if bytes.trim_ascii() == b"null" {
        return absent();
    }
    api::decode(bytes).map_err(|error| invalid(format!("invalid JSON: {error}")))
}

/// Whether `text`, JSON, has an escaped NUL; a plain one is no JSON anyway.
fn has_nul(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        // What follows a backslash is taken by it, another backslash too.
        if rest[at + 1..].starts_with(b"u0000") {
            return true;
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    false
}

/// Splits and decodes a query string.
pub fn parse_query(text: &str) -> Result<Pairs, String> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode_form(name)?, decode_form(value)?))
        })
        .collect()
}

fn decode_form(text: &str) -> Result<String, String> {
    let decoded =
        if text.contains('+') { percent_decode(&text.replace('+', " ")) } else { percent_decode(text) };
    decoded.ok_or_else(|| format!("invalid URL escape in query {text:?}"))
}

/// Decodes `%41` to `A`; `None` for a broken escape or bytes that are not UTF-8.
pub fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return None };
        let digit = |byte: &u8| (*byte as char).to_digit(16);
        bytes.push((digit(high)? << 4 | digit(low)?) as u8);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

/// Encodes everything but RFC 3986's unreserved characters, so that the result fits a path segment and a
/// query value alike.
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte as char);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, rename_all = "PascalCase")]
    struct Loose {
        detach: bool,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "PascalCase")]
    struct Strict {
        image: String,
    }

    const JSON: Option<&str> = Some("application/json; charset=utf-8");

    #[test]
    fn an_empty_body_is_the_default_where_there_is_one() {
        assert_eq!(parse_json::<Loose>(None, b"").unwrap(), Loose::default());
        assert_eq!(parse_json::<Loose>(JSON, b" null ").unwrap(), Loose::default());
        assert_eq!(parse_json::<Option<Strict>>(None, b"").unwrap(), None);
        let failure = parse_json::<Strict>(None, b"").unwrap_err();
        assert_eq!(failure.message, "invalid JSON: got EOF while reading request body");
    }

    #[test]
    fn json_needs_its_content_type_and_nothing_after_it() {
        assert!(parse_json::<Loose>(JSON, b"{\"Detach\":true}\n").unwrap().detach);
        for (content_type, body, part) in [
            (None, "{}", "unsupported Content-Type header (): must be 'application/json'"),
            (Some("text/plain"), "{}", "unsupported Content-Type header (text/plain)"),
            (JSON, "{} {}", "trailing characters"),
            (JSON, "{}x", "trailing characters"),
            (JSON, "{\"Detach\":3}", "invalid JSON"),
            (JSON, "{", "invalid JSON"),
            (JSON, "[]", "invalid JSON"),
            (JSON, r#"{"x":"a\u0000b"}"#, "NUL"),
            (JSON, r#"{"x":"\\\u0000"}"#, "NUL"),
        ] {
            let failure = parse_json::<Loose>(content_type, body.as_bytes()).unwrap_err();
            assert!(failure.message.contains(part), "{body}: {}", failure.message);
            assert_eq!(failure.class, Class::InvalidParameter);
        }
    }

    #[test]
    fn a_backslash_before_the_letters_of_a_nul_is_none() {
        assert!(!has_nul(br#"{"a":"\\u0000","b":"\u0001\\"}"#) && !has_nul(b"\\"));
        assert!(has_nul(br#"["\n\u0000"]"#));
    }

    #[test]
    fn queries_are_decoded_and_broken_escapes_refused() {
        let pairs = parse_query("a=1&&b=x+y%20z&c&d=%3D%26&=e").unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(pairs, [("a", "1"), ("b", "x y z"), ("c", ""), ("d", "=&"), ("", "e")]);
        for text in ["a=%", "a=%1", "a=%zz", "%ff=1"] {
            assert!(parse_query(text).is_err(), "{text}");
        }
    }

    #[test]
    fn percent_coding_round_trips() {
        for text in ["", "web", "a/b:c@d", "ü %&=?#", "100%"] {
            assert_eq!(percent_decode(&percent_encode(text)).as_deref(), Some(text));
        }
        assert_eq!(percent_encode("a/ü"), "a%2F%C3%BC");
    }
}
