//! Which handler serves a path: patterns, the version prefix, and a table that refuses to be ambiguous.
//!
//! A pattern is a list of segments: a literal, `{name}` for one segment, or `{name...}` for one or more
//! (image names have slashes). Where several patterns match, the most special one serves; two patterns
//! that match a common path without one being a special case of the other are refused at the start, so that
//! the order of the table never matters.
//!
//! Every path may begin with `/v1.NN`.
//!
//! Not here: the table itself (`routes`), which versions there are (`middleware::version`), what a handler gets
//! (`request`).

use serde::de::DeserializeOwned;

use super::api::query::Query;
use super::api::{Class, Endpoint, Failure, Method, Operation};
use super::reply::Reply;
use super::request::{self, Call, Params, Request};

/// One line of the table: an operation and the function that serves it.
#[derive(Debug)]
pub struct Route<S> {
    pub operation: &'static Operation,
    pub handler: fn(&S, Request) -> Result<Reply, Failure>,
    /// Whether the handler reads the request's body as JSON.
    pub has_json_body: fn() -> bool,
}

/// Makes the [`Route`] of an endpoint and a handler `fn(&S, Call<Q, B>) -> Result<Reply, impl Into<Failure>>`.
///
/// The endpoint must be a `static`; its types decide what the handler gets.
#[macro_export]
macro_rules! route {
    ($endpoint:expr, $handler:expr) => {
        $crate::http::route::Route {
            operation: &$endpoint.operation,
            handler: |state, request| $crate::http::route::serve(&$endpoint, state, request, $handler),
            has_json_body: || $crate::http::request::has_json_body(&$endpoint),
        }
    };
}

/// Decodes a request by its endpoint's types and calls the handler; what [`route!`](crate::route) expands to.
pub fn serve<S, Q: Query, B: DeserializeOwned + 'static, R, E: Into<Failure>>(
    endpoint: &Endpoint<Q, B, R>,
    state: &S,
    request: Request,
    handler: impl FnOnce(&S, Call<Q, B>) -> Result<Reply, E>,
) -> Result<Reply, Failure> {
    handler(state, request::decode(endpoint, request)?).map_err(Into::into)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment {
    Literal(&'static str),
    One(&'static str),
    Many(&'static str),
}

impl Segment {
    fn parse(text: &'static str) -> Segment {
        match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
            Some(name) => name.strip_suffix("...").map_or(Segment::One(name), Segment::Many),
            None => Segment::Literal(text),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern(Vec<Segment>);

impl Pattern {
    fn parse(path: &'static str) -> Result<Pattern, TableError> {
        let malformed = || TableError::Malformed { path };
        let segments: Vec<_> =
            path.strip_prefix('/').ok_or_else(malformed)?.split('/').map(Segment::parse).collect();
        let many = segments.iter().filter(|segment| matches!(segment, Segment::Many(_))).count();
        let is_empty = |segment: &Segment| {
            matches!(segment, Segment::Literal("") | Segment::One("") | Segment::Many(""))
        };
        // Only the root path is one empty literal.
        if many > 1 || (segments.iter().any(is_empty) && path != "/") {
            return Err(malformed());
        }
        Ok(Pattern(segments))
    }

    /// The pattern for paths of exactly `length` segments: a literal or `None` for any text.
    fn expand(&self, length: usize) -> Option<Vec<Option<&'static str>>> {
        let many = self.0.iter().any(|segment| matches!(segment, Segment::Many(_)));
        if length < self.0.len() || (!many && length > self.0.len()) {
            return None;
        }
        let repeat = length - self.0.len() + 1;
        Some(
            self.0
                .iter()
                .flat_map(|segment| match segment {
                    Segment::Literal(text) => vec![Some(*text)],
                    Segment::One(_) => vec![None],
                    Segment::Many(_) => vec![None; repeat],
                })
                .collect(),
        )
    }

    /// Whether every path that matches `self` also matches `other`, and whether any path matches both.
    fn compare(&self, other: &Pattern) -> (bool, bool) {
        let (mut inside, mut overlap) = (true, false);
        // Past the longer pattern by one, a longer path only repeats what was seen.
        for length in 1..=self.0.len().max(other.0.len()) + 1 {
            let Some(mine) = self.expand(length) else { continue };
            let Some(theirs) = other.expand(length) else {
                inside = false;
                continue;
            };
            let pairs = || mine.iter().zip(&theirs);
            inside &= pairs().all(|(mine, theirs)| theirs.is_none() || mine == theirs);
            overlap |= pairs().all(|(mine, theirs)| mine.is_none() || theirs.is_none() || mine == theirs);
        }
        (inside && overlap, overlap)
    }

    /// Orders special cases before the general ones they are part of.
    fn rank(&self) -> (std::cmp::Reverse<usize>, bool, std::cmp::Reverse<usize>) {
        let literals = self.0.iter().filter(|segment| matches!(segment, Segment::Literal(_))).count();
        let many = self.0.iter().any(|segment| matches!(segment, Segment::Many(_)));
        (std::cmp::Reverse(literals), many, std::cmp::Reverse(self.0.len()))
    }

    /// Where the segments of a path fall: for each variable its name and the range of segments.
    fn matches(&self, path: &[&str]) -> Option<Vec<(&'static str, std::ops::Range<usize>)>> {
        let surplus = path.len().checked_sub(self.0.len())?;
        let (mut at, mut found, mut many) = (0, Vec::new(), false);
        for segment in &self.0 {
            let mut take = 1;
            match segment {
                Segment::Literal(text) if path[at] == *text => {}
                Segment::Literal(_) => return None,
                Segment::One(name) => found.push((*name, at..at + 1)),
                Segment::Many(name) => {
                    take += surplus;
                    many = true;
                    found.push((*name, at..at + take));
                }
            }
            if !matches!(segment, Segment::Literal(_)) && path[at..at + take].contains(&"") {
                return None;
            }
            at += take;
        }
        (many || surplus == 0).then_some(found)
    }
}

/// A table that cannot be served from.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("route {path:?}: not a path pattern")]
    Malformed { path: &'static str },
    #[error("routes {one} and {other}: some path matches both and neither is the special case")]
    Ambiguous { one: &'static str, other: &'static str },
}

/// Every route, ready to be looked up.
#[derive(Debug)]
pub struct RouteTable<S: 'static> {
    /// Special cases first.
    routes: Vec<(Pattern, &'static Route<S>)>,
}

/// A request line that leads to a handler.
#[derive(Debug)]
pub struct Match<'a, S: 'static> {
    pub route: &'static Route<S>,
    pub params: Params,
    /// What stands before the path; whether there is such a version is not looked at.
    pub version: Option<&'a str>,
}

impl<S> RouteTable<S> {
    /// Takes in `routes`; fails at a malformed pattern and at two routes one path could mean.
    pub fn new(routes: &'static [Route<S>]) -> Result<RouteTable<S>, TableError> {
        let mut table = Vec::<(Pattern, &'static Route<S>)>::new();
        for route in routes {
            let pattern = Pattern::parse(route.operation.path)?;
            for (known, other) in &table {
                let same_method = other.operation.method == route.operation.method;
                let ((inside, overlap), (around, _)) = (pattern.compare(known), known.compare(&pattern));
                if same_method && overlap && inside == around {
                    return Err(TableError::Ambiguous { one: other.operation.id, other: route.operation.id });
                }
            }
            table.push((pattern, route));
        }
        table.sort_by_key(|(pattern, _)| pattern.rank());
        Ok(RouteTable { routes: table })
    }

    /// Finds who serves `method` on `path` (encoded, without the query).
    ///
    /// Fails with `NotFound` when nobody does, and with `InvalidParameter` for a broken escape.
    pub fn find<'a>(&self, method: &str, path: &'a str) -> Result<Match<'a, S>, Failure> {
        let not_found = || Failure { class: Class::NotFound, message: "page not found".to_owned() };
        let (version, path) = split_version(path);
        let segments: Vec<&str> = path.strip_prefix('/').ok_or_else(not_found)?.split('/').collect();
        let method = Method::parse(method).ok_or_else(not_found)?;
        let (route, found) = self
            .routes
            .iter()
            .filter(|(_, route)| route.operation.method == method)
            .find_map(|(pattern, route)| Some((*route, pattern.matches(&segments)?)))
            .ok_or_else(not_found)?;
        let mut params = Params::default();
        for (name, range) in found {
            let text = segments[range].join("/");
            let value = request::percent_decode(&text).ok_or_else(|| Failure {
                class: Class::InvalidParameter,
                message: format!("invalid URL escape in path {text:?}"),
            })?;
            params.push(name, value);
        }
        Ok(Match { route, params, version })
    }
}

/// Splits `/v1.43/info` into `1.43` and `/info`.
pub(super) fn split_version(path: &str) -> (Option<&str>, &str) {
    let split = path.strip_prefix("/v").and_then(|rest| {
        let end = rest.find('/')?;
        let (version, path) = rest.split_at(end);
        let is_version = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        is_version.then_some((version, path))
    });
    split.map_or((None, path), |(version, path)| (Some(version), path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api::Shape;

    const fn operation(id: &'static str, method: Method, path: &'static str) -> Operation {
        Operation { id, method, path, shape: Shape::Json, status: 200, slow: false }
    }

    fn table(list: &[(&'static str, Method, &'static str)]) -> Result<RouteTable<()>, TableError> {
        let routes: Vec<Route<()>> = list
            .iter()
            .map(|(id, method, path)| Route {
                operation: Box::leak(Box::new(operation(id, *method, path))),
                handler: |_, _| Ok(Reply::empty(204)),
                has_json_body: || false,
            })
            .collect();
        RouteTable::new(routes.leak())
    }

    const LIST: &[(&str, Method, &str)] = &[
        ("Inspect", Method::Get, "/containers/{id}/json"),
        ("List", Method::Get, "/containers/json"),
        ("Remove", Method::Delete, "/containers/{id}"),
        ("ImageInspect", Method::Get, "/images/{name...}/json"),
        ("ImageHistory", Method::Get, "/images/{name...}/history"),
        ("ImageList", Method::Get, "/images/json"),
        ("ImageSearch", Method::Get, "/images/search"),
        ("ImageRemove", Method::Delete, "/images/{name...}"),
        ("Ping", Method::Get, "/_ping"),
        ("PingHead", Method::Head, "/_ping"),
        ("Version", Method::Get, "/version"),
        ("Checkpoint", Method::Delete, "/containers/{id}/checkpoints/{checkpoint}"),
    ];

    fn found(method: &str, path: &str) -> Result<(&'static str, String), u16> {
        let table = table(LIST).unwrap();
        match table.find(method, path) {
            Ok(found) => Ok((
                found.route.operation.id,
                format!("{}{}", found.params.get("id"), found.params.get("name")),
            )),
            Err(failure) => Err(crate::http::reply::status(failure.class)),
        }
    }

    #[test]
    fn paths_lead_to_the_most_special_route() {
        for (method, path, id, param) in [
            ("GET", "/containers/json", "List", ""),
            ("GET", "/v1.24/containers/json", "List", ""),
            ("GET", "/containers/web/json", "Inspect", "web"),
            ("GET", "/containers/json/json", "Inspect", "json"),
            ("GET", "/images/json", "ImageList", ""),
            ("GET", "/images/json/json", "ImageInspect", "json"),
            ("GET", "/images/a/b/c:1/json", "ImageInspect", "a/b/c:1"),
            ("GET", "/images/a%2Fb/json", "ImageInspect", "a/b"),
            ("GET", "/images/a%252Fb/history", "ImageHistory", "a%2Fb"),
            ("DELETE", "/images/a/json", "ImageRemove", "a/json"),
            ("HEAD", "/_ping", "PingHead", ""),
            ("GET", "/version", "Version", ""),
            ("GET", "/v1.51/version", "Version", ""),
        ] {
            assert_eq!(found(method, path), Ok((id, param.to_owned())), "{method} {path}");
        }
    }

    #[test]
    fn everything_else_is_not_found_or_refused() {
        for (method, path, status) in [
            ("GET", "/", 404),
            ("GET", "", 404),
            ("GET", "*", 404),
            ("GET", "/containers//json", 404),
            ("GET", "/images//json", 404),
            ("GET", "/containers/json/", 404),
            ("POST", "/containers/json", 404),
            ("get", "/containers/json", 404),
            ("PATCH", "/containers/json", 404),
            ("HEAD", "/containers/json", 404),
            ("GET", "/v1.51", 404),
            ("GET", "/v1.99/nothing", 404),
            ("GET", "/vx/version", 404),
            ("GET", "/containers/%zz/json", 400),
            ("GET", "/containers/%ff/json", 400),
        ] {
            assert_eq!(found(method, path), Err(status), "{method} {path}");
        }
        for (path, version) in
            [("/v1.51/version", Some("1.51")), ("/version", None), ("/v./version", Some("."))]
        {
            assert_eq!(table(LIST).unwrap().find("GET", path).unwrap().version, version, "{path}");
        }
    }

    #[test]
    fn ambiguous_tables_are_refused() {
        let get = |one, other| table(&[("One", Method::Get, one), ("Other", Method::Get, other)]);
        for (one, other) in [
            ("/a/{x}", "/a/{y}"),
            ("/a", "/a"),
            ("/a/{x}/c", "/a/b/{y}"),
            ("/a/{x...}", "/a/{y...}"),
            ("/a/{x...}/b", "/a/c/{y...}"),
        ] {
            assert!(matches!(get(one, other), Err(TableError::Ambiguous { .. })), "{one} {other}");
        }
        for (one, other) in [
            ("/a/{x}", "/a/b"),
            ("/a/{x...}", "/a/{y}"),
            ("/a/{x...}/b", "/a/{y...}"),
            ("/a/{x}/c", "/a/{y}/d"),
            ("/a/{x}", "/a/{x}/b"),
        ] {
            assert!(get(one, other).is_ok(), "{one} {other}");
        }
        for path in ["a", "", "/a//b", "/{}", "/{...}", "/{a...}/{b...}"] {
            assert!(matches!(get(path, "/ok"), Err(TableError::Malformed { .. })), "{path}");
        }
    }
}
