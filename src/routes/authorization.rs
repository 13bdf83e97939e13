//! The middleware that asks authorization plugins, and what it tells them of a request and its answer.
//!
//! A plugin must see what will be done, not what the client says it sends:
//!
//! - The body is that of every operation whose handler reads JSON, whatever the request's headers say, and the
//!   handler reads the very bytes the plugin saw. What is too large to be shown is refused. Uploads of archives are
//!   not shown, as with Docker; credentials (`/auth`) neither.
//! - The URI is put together from the route that was found, its variables and the query as they were understood:
//!   no host, no double slashes, one spelling of each character. Without a version in the request it has none.
//! - A variable with a segment that is empty, `.` or `..` names nothing, and is refused: whoever cleans the path would
//!   see another operation in it.
//!
//! Streams and upgraded connections are asked about once, before their first byte, with status and headers.
//!
//! Not here: the chain of plugins, what their answers mean (`daemon::authorization`).

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::daemon::authorization::Question;
use crate::daemon::engine::Engine;
use crate::daemon::error::Error;
use crate::http::api::{Failure, Operation};
use crate::http::message::Headers;
use crate::http::middleware::{Leave, Passing};
use crate::http::reply::Reply;
use crate::http::request::{Params, parse_query, percent_encode};

/// The most bytes of a request's body. Source: dockerd's bound since CVE-2026-34040.
const MOST_ASKED: usize = 4 << 20;
/// The most bytes of an answer's body: a list of ten thousand containers.
const MOST_ANSWERED: usize = 16 << 20;
/// No plugin has to know them. Source: dockerd.
const SECRETS: [&str; 3] = ["authorization", "x-registry-auth", "x-registry-config"];

/// Plugins answer when they like.
pub fn may_last(engine: &Arc<Engine>) -> bool {
    engine.authorization.is_on()
}

/// Asks about a request, and makes sure that its answer is asked about.
pub fn enter(engine: &Arc<Engine>, passing: &mut Passing<'_>) -> Result<Option<Leave>, Failure> {
    if !engine.authorization.is_on() {
        return Ok(None);
    }
    let chain = engine.authorization.chain();
    let mut question = question(passing)?;
    chain.ask_request(&question)?;
    Ok(Some(Box::new(move |reply| {
        add_answer(&mut question, reply)?;
        chain.ask_answer(&question).map_err(Failure::from)
    })))
}

fn question(passing: &mut Passing<'_>) -> Result<Question, Failure> {
    let operation = passing.operation;
    let request = &mut *passing.request;
    // As it was understood, `1.44` for `01.044`.
    let version = passing.version.map(|_| request.raw.version.to_string());
    let mut question = Question {
        request_method: operation.method.name().to_owned(),
        request_uri: uri(operation, version.as_deref(), &request.params, &request.query)?,
        request_headers: headers(&request.raw.headers),
        ..Question::default()
    };
    let peer = &request.raw.peer;
    question.request_peer_certificates = peer.certificates().iter().map(|der| certificate(der)).collect();
    if let Some(name) = peer.common_name().filter(|name| !name.is_empty()) {
        question.user = name;
        question.user_authn_method = "TLS".to_owned();
    }
    if passing.has_json_body && operation.path != "/auth" {
        question.request_body = BASE64.encode(request.raw.json_body(MOST_ASKED)?);
    }
    Ok(question)
}

/// A certificate as the protocol has it: its PEM text in base64.
fn certificate(der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    BASE64.encode(pem)
}

/// The request's target in its one spelling.
fn uri(operation: &Operation, version: Option<&str>, params: &Params, query: &str) -> Result<String, Error> {
    let mut uri = version.map_or_else(String::new, |version| format!("/v{version}"));
    let mut values = params.values();
    for segment in operation.path.split('/').skip(1) {
        uri.push('/');
        if !segment.starts_with('{') {
            uri.push_str(segment);
            continue;
        }
        let value = values.next().unwrap_or_default();
        if value.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(Error::invalid(format!("invalid path: nothing is named {value:?}")));
        }
        let takes_many = segment.ends_with("...}");
        for character in value.chars() {
            match character {
                '/' if takes_many => uri.push('/'),
                // What RFC 3986 lets stand in a segment stays as clients write it: `alpine:3.20`.
                ':' | '@' | '!' | '$' | '&' | '\'' | '(' | ')' | '*' | '+' | ',' | ';' | '=' => {
                    uri.push(character);
                }
                _ => uri.push_str(&percent_encode(character.encode_utf8(&mut [0; 4]))),
            }
        }
    }
    let pairs = parse_query(query).map_err(Error::invalid)?;
    for (index, (name, value)) in pairs.iter().enumerate() {
        uri.push(if index == 0 { '?' } else { '&' });
        uri.push_str(&format!("{}={}", percent_encode(name), percent_encode(value)));
    }
    Ok(uri)
}

/// Names as Go writes them, for plugins that look for one; of one that comes twice, both values.
fn headers(headers: &Headers) -> BTreeMap<String, String> {
    let mut map = BTreeMap::<String, String>::new();
    for (name, value) in headers.iter() {
        let name = name.to_ascii_lowercase();
        // Compat: Go keeps the host apart.
        if SECRETS.contains(&name.as_str()) || name == "host" {
            continue;
        }
        let values = map.entry(as_go(&name)).or_default();
        if !values.is_empty() {
            values.push_str(", ");
        }
        values.push_str(value);
    }
    map
}

/// `content-type` as `Content-Type`.
fn as_go(name: &str) -> String {
    let mut is_first = true;
    let upper = |character: char| {
        let is_upper = std::mem::replace(&mut is_first, character == '-');
        if is_upper { character.to_ascii_uppercase() } else { character }
    };
    name.chars().map(upper).collect()
}

fn add_answer(question: &mut Question, reply: &Reply) -> Result<(), Error> {
    question.response_status_code = Some(reply.status());
    let own = reply.headers().map(|(name, value)| (as_go(&name.to_ascii_lowercase()), value.to_owned()));
    question.response_headers = own.collect();
    if let Some(content_type) = reply.content_type() {
        question.response_headers.insert("Content-Type".to_owned(), content_type.to_owned());
    }
    if reply.content_type() == Some("application/json")
        && let Some(body) = reply.body()
    {
        if body.len() > MOST_ANSWERED {
            let attempt = format!("show an answer of {} bytes to authorization plugins", body.len());
            return Err(Error::system(attempt, format!("more than {} MiB", MOST_ANSWERED >> 20)));
        }
        question.response_body = BASE64.encode(body);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::route::RouteTable;
    use crate::routes::ROUTES;

    fn uri_of(method: &str, target: &str) -> Result<String, String> {
        let table = RouteTable::new(ROUTES).unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let found = table.find(method, path).map_err(|failure| failure.message)?;
        uri(found.route.operation, found.version, &found.params, query).map_err(|error| error.message)
    }

    #[test]
    fn the_uri_names_what_is_routed_in_one_spelling() {
        for (method, target, wanted) in [
            ("GET", "/_ping", "/_ping"),
            ("HEAD", "/v1.51/_ping", "/v1.51/_ping"),
            ("POST", "/containers/web/start", "/containers/web/start"),
            ("POST", "/v1.51/containers/w%65b/start", "/v1.51/containers/web/start"),
            ("GET", "/v1.51/images/alpine:3.20/json", "/v1.51/images/alpine:3.20/json"),
            ("GET", "/v1.51/images/a%2Fb%40x/json", "/v1.51/images/a/b@x/json"),
            ("POST", "/containers/a%2Fb/start", "/containers/a%2Fb/start"),
            ("POST", "/containers/a%3Fb/start", "/containers/a%3Fb/start"),
            ("POST", "/containers/create?n%61me=a+b&x", "/containers/create?name=a%20b&x="),
            ("POST", "/containers/create?name=a;force=1", "/containers/create?name=a%3Bforce%3D1"),
        ] {
            assert_eq!(uri_of(method, target).as_deref(), Ok(wanted), "{method} {target}");
        }
    }

    /// Each would be another operation to a plugin that cleans paths.
    #[test]
    fn a_path_that_can_be_cleaned_leads_nowhere() {
        for (method, target) in [
            ("GET", "/v1.51/../containers/json"),
            ("GET", "//containers/json"),
            ("GET", "/v1.51//containers/json"),
            ("GET", "/containers//json"),
            ("GET", "/containers/../json"),
            ("GET", "/containers/%2e%2E/json"),
            ("GET", "/images/../containers/json"),
            ("GET", "/images/..%2Fcontainers/json"),
            ("GET", "/images/x%2F%2Fy/json"),
            ("GET", "/images/./x/json"),
            ("POST", "/containers/%2Fweb/start"),
            ("DELETE", "/containers/x/checkpoints/..%2F..%2Fy"),
            ("POST", "/containers/create?%"),
            ("POST", "/containers/create/"),
            ("POST", "/containers%2Fcreate"),
            ("POST", "/%63ontainers/create"),
            ("post", "/containers/create"),
        ] {
            assert!(uri_of(method, target).is_err(), "{method} {target}: {:?}", uri_of(method, target));
        }
    }

    #[test]
    fn headers_are_named_as_in_go_and_lack_secrets() {
        let mut sent = Headers::default();
        for (name, value) in [
            ("content-TYPE", "text/plain"),
            ("X-Twice", "a"),
            ("x-twice", "b"),
            ("Host", "docker"),
            ("AUTHORIZATION", "hidden"),
            ("X-Registry-Auth", "hidden"),
            ("X-Registry-Config", "hidden"),
        ] {
            sent.push(name, value);
        }
        let seen = headers(&sent);
        let seen: Vec<_> = seen.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(seen, [("Content-Type", "text/plain"), ("X-Twice", "a, b")]);
    }

    #[test]
    fn an_answer_too_large_to_be_shown_is_refused() {
        let mut question = Question::default();
        let small = Reply::json(201, &"x").header("x-custom", "1");
        add_answer(&mut question, &small).unwrap();
        assert_eq!(question.response_body, BASE64.encode("\"x\"\n"));
        assert_eq!(question.response_headers["X-Custom"], "1");
        assert_eq!(question.response_status_code, Some(201));
        let large = Reply::json(200, &"x".repeat(MOST_ANSWERED));
        assert!(add_answer(&mut question, &large).unwrap_err().message.contains("16 MiB"));
        // Nothing but JSON is shown, so nothing else has to fit.
        let text = Reply::bytes("text/plain", vec![b'x'; MOST_ANSWERED + 1]);
        let mut question = Question::default();
        add_answer(&mut question, &text).unwrap();
        assert!(question.response_body.is_empty());
    }

    /// A body that is parsed is shown: the same function of the handler's types decides both.
    #[test]
    fn operations_with_a_json_body_are_known_by_their_types() {
        let has = |id: &str| {
            let route = ROUTES.iter().find(|route| route.operation.id == id);
            (route.unwrap_or_else(|| panic!("no operation {id}")).has_json_body)()
        };
        for id in [
            "ContainerCreate",
            "ContainerExec",
            "ExecStart",
            "ContainerUpdate",
            "VolumeCreate",
            "ImageCommit",
        ] {
            assert!(has(id), "{id}");
        }
        for id in ["PutContainerArchive", "ImageLoad", "ImageCreate", "SystemPing", "ContainerAttach"] {
            assert!(!has(id), "{id}");
        }
    }
}
