//! One registry: a blocking client of the OCI distribution API (Docker Registry v2).
//!
//! ```text
//!   Registry ── url ──▶ endpoint   https, then http where that is allowed; settled by the first answer to /v2/
//!       │                            certs.d, proxies: `certs`, `proxy`, `transport`
//!       ├── ask ──▶ auth           what the challenge wants: `auth`; asked once more when a token has run out
//!       └── manifests, blobs, tags here; uploads in `upload`; refusals in Docker's words in `error`
//! ```
//!
//! What comes from a registry is a stranger's: heads are limited by ureq, small answers by [`SMALL_BYTES`], and
//! whoever reads a blob limits and checks it. Digests are compared by the caller of `get_blob`, and here for manifests.
//!
//! Not here: which registries are asked for a name, and which may be insecure (`daemon::registry`); stores.
//!
//! It stays whole: requests and what they mean are one conversation, and each part of it is short.

#![expect(dead_code, unused_imports, reason = "pull and push, which use it, come with the next changes")]

mod auth;
mod certs;
mod error;
mod fetch;
mod proxy;
mod transport;
mod upload;

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use ureq::SendBody;
use ureq::http::{Method, Request, Uri};

use super::client::transport::StaticResolver;
use super::request::percent_encode;
use auth::{CLIENT_ID, Challenge, TokenAnswer, Tokens};
use transport::{Cancelled, ConnectFailed, RegistryConnector};

pub use auth::Credentials;
pub use certs::CERTS_DIRS;
pub use error::{ApiError, RegistryError};
pub use fetch::{Fetched, fetch};
pub use proxy::{Proxies, in_network, is_loopback};
pub use transport::Cancel;
pub use upload::{Mount, Upload};

/// The most bytes of a manifest, as Docker has it, and of any other answer that is read into memory.
pub const SMALL_BYTES: u64 = 4 << 20;
/// The most bytes of a refusal.
const REFUSAL_BYTES: u64 = 64 << 10;
/// The most tags of a repository.
const MAX_TAGS: usize = 100_000;
/// How often an answer may lead to another place.
const MAX_REDIRECTS: u32 = 10;

/// How one registry is spoken to.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Takes any certificate, and speaks http if https is not answered.
    pub is_insecure: bool,
    pub credentials: Credentials,
    /// Directories of certs.d; [`CERTS_DIRS`] usually.
    pub certs_dirs: Vec<PathBuf>,
    pub proxies: Proxies,
    /// Sent with every request to the registry (`X-Meta-*`).
    pub headers: Vec<(String, String)>,
    pub cancel: Cancel,
}

/// What a request needs to be allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope(Vec<String>);

impl Scope {
    fn pull(repository: &str) -> Scope {
        Scope(vec![format!("repository:{repository}:pull")])
    }

    fn push(repository: &str) -> Scope {
        Scope(vec![format!("repository:{repository}:pull,push")])
    }

    fn and_pull(mut self, repository: &str) -> Scope {
        self.0.push(format!("repository:{repository}:pull"));
        self
    }

    fn key(&self) -> String {
        self.0.join(" ")
    }
}

/// A request's body.
pub(super) enum Body<'a> {
    None,
    Bytes(&'a [u8]),
    /// Can be sent once only.
    Stream(&'a mut (dyn Read + Send)),
}

/// What was settled with the first answer.
#[derive(Clone, Debug)]
struct Settled {
    /// `https://host[:port]`
    base: String,
    challenge: Option<Challenge>,
}

/// One registry. Cheap to clone; clones share what was learned, and may be used from several threads.
#[derive(Clone, Debug)]
pub struct Registry {
    /// `host[:port]` as it is written.
    host: String,
    /// What to try, in order.
    bases: Vec<String>,
    options: Options,
    agent: ureq::Agent,
    tls: Option<crate::http::tls::Connector>,
    settled: Arc<Mutex<Option<Settled>>>,
    tokens: Arc<Tokens>,
}

/// A manifest as it came.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub media_type: String,
    /// `sha256:…`, of the bytes.
    pub digest: String,
    pub bytes: Vec<u8>,
}

/// What HEAD tells of a manifest. Empty where the registry does not say.
#[derive(Clone, Debug, Default)]
pub struct ManifestHead {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
}

/// A blob on its way here. Its bytes are not checked.
pub struct Blob {
    /// From the offset asked for.
    pub reader: Box<dyn Read + Send>,
    /// Bytes of the whole blob, if the registry says.
    pub total: Option<u64>,
}

/// One line of a search.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SearchHit {
    pub name: String,
    pub description: Option<String>,
    pub star_count: i64,
    pub is_official: bool,
    pub is_automated: bool,
}

/// An answer, its body unread.
pub(super) struct Answer {
    attempt: String,
    status: u16,
    headers: ureq::http::HeaderMap,
    body: Box<dyn Read + Send>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// The error that a status says which nobody expected.
    fn refusal(self) -> RegistryError {
        let mut bytes = Vec::new();
        // What can be read of it is enough.
        let _ = self.body.take(REFUSAL_BYTES).read_to_end(&mut bytes);
        RegistryError::refused(self.attempt, self.status, &bytes)
    }

    /// All of a small body.
    fn small(self, limit: u64) -> Result<(String, Vec<u8>), RegistryError> {
        let mut bytes = Vec::new();
        let attempt = self.attempt;
        if let Err(cause) = self.body.take(limit + 1).read_to_end(&mut bytes) {
            return Err(broken(attempt, cause));
        }
        if bytes.len() as u64 > limit {
            return Err(RegistryError::Protocol {
                attempt,
                message: format!("the answer is larger than {limit} bytes"),
            });
        }
        Ok((attempt, bytes))
    }
}

/// A body that broke off.
fn broken(attempt: String, cause: io::Error) -> RegistryError {
    if is_cancelled(&cause) {
        return RegistryError::Cancelled;
    }
    RegistryError::Unreachable { attempt, cause: cause.to_string(), is_tls: false }
}

/// Whether a read failed because of [`Cancel`].
pub fn is_cancelled(cause: &io::Error) -> bool {
    let Some(inner) = cause.get_ref() else { return false };
    inner.is::<Cancelled>()
        || inner.downcast_ref::<io::Error>().is_some_and(is_cancelled)
        || matches!(inner.downcast_ref::<ureq::Error>(), Some(ureq::Error::Io(cause)) if is_cancelled(cause))
}

impl Registry {
    /// The registry on `host`: a name with or without port (`docker.io` is Docker's own), or a mirror's URL, whose
    /// scheme then is the only one. Connects with the first request.
    ///
    /// # Errors
    /// Files in certs.d that cannot be used.
    pub fn new(host: &str, options: Options) -> Result<Registry, RegistryError> {
        let (host, bases) = match host.split_once("://") {
            Some((scheme, rest)) => {
                let place = rest.trim_end_matches('/').to_owned();
                let base = format!("{scheme}://{place}");
                let name = place.split('/').next().unwrap_or_default().to_owned();
                (name, vec![base])
            }
            None => {
                let place = if host == "docker.io" { "registry-1.docker.io" } else { host };
                let mut bases = vec![format!("https://{place}")];
                if options.is_insecure {
                    bases.push(format!("http://{place}"));
                }
                (place.to_owned(), bases)
            }
        };
        let tls = if bases.iter().any(|base| base.starts_with("https://")) {
            // Compat: Docker's own registry is "docker.io" in certs.d.
            let name = if host == "registry-1.docker.io" { "docker.io" } else { &host };
            let mut files = certs::files_for(&options.certs_dirs, name).map_err(RegistryError::Setup)?;
            files.trusts_anyone = options.is_insecure;
            Some(files.prepare().map_err(RegistryError::Setup)?)
        } else {
            None
        };
        let agent = agent(tls.clone(), &options);
        Ok(Registry { host, bases, options, agent, tls, settled: Arc::default(), tokens: Arc::default() })
    }

    /// The same registry with a cancel of its own, and connections of its own.
    pub fn with_cancel(&self, cancel: Cancel) -> Registry {
        let options = Options { cancel, ..self.options.clone() };
        Registry { agent: agent(self.tls.clone(), &options), options, ..self.clone() }
    }

    /// `host[:port]`, as it is connected to.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether the credentials are good: `/v2/` with them. The answer is an identity token to keep instead of the
    /// password, or empty.
    pub fn login(&self) -> Result<String, RegistryError> {
        let settled = self.settle()?;
        let mut identity = String::new();
        if let Some(Challenge::Bearer { realm, service, .. }) = &settled.challenge {
            let answer = self.fetch_token(realm, service, &Scope::default(), true)?;
            self.tokens.keep("", &answer);
            identity = answer.refresh_token;
        }
        let url = format!("{}/v2/", settled.base);
        let answer = self.ask(&Method::GET, &url, &Scope::default(), &[], Body::None)?;
        match answer.status {
            200 => Ok(identity),
            _ => Err(answer.refusal()),
        }
    }

    /// Whether somebody who speaks this protocol is there, credentials or not.
    pub fn ping(&self) -> Result<(), RegistryError> {
        self.settle().map(drop)
    }

    /// The manifest called `reference` (a tag or a digest), of one of the media types in `accept`.
    ///
    /// # Errors
    /// Also when it is larger than [`SMALL_BYTES`], or has another digest than it was asked by.
    pub fn get_manifest(
        &self,
        repository: &str,
        reference: &str,
        accept: &[&str],
    ) -> Result<Manifest, RegistryError> {
        let answer = self.ask_manifest(&Method::GET, repository, reference, accept)?;
        let said = answer.header("content-type").to_owned();
        let (attempt, bytes) = answer.small(SMALL_BYTES)?;
        let digest = digest_of(&bytes);
        if reference.starts_with("sha256:") && reference != digest {
            let message =
                format!("manifest verification failed for digest {reference}: it has digest {digest}");
            return Err(RegistryError::Protocol { attempt, message });
        }
        let media_type = media_type(&said);
        Ok(Manifest { media_type, digest, bytes })
    }

    /// What is known of a manifest without getting it.
    pub fn head_manifest(
        &self,
        repository: &str,
        reference: &str,
        accept: &[&str],
    ) -> Result<ManifestHead, RegistryError> {
        let answer = self.ask_manifest(&Method::HEAD, repository, reference, accept)?;
        Ok(ManifestHead {
            media_type: media_type(answer.header("content-type")),
            digest: answer.header("docker-content-digest").to_owned(),
            size: answer.header("content-length").parse().unwrap_or(0),
        })
    }

    fn ask_manifest(
        &self,
        method: &Method,
        repository: &str,
        reference: &str,
        accept: &[&str],
    ) -> Result<Answer, RegistryError> {
        let url = self.url(&format!("{repository}/manifests/{reference}"), &[])?;
        let headers: Vec<_> = accept.iter().map(|kind| ("Accept", (*kind).to_owned())).collect();
        let answer = self.ask(method, &url, &Scope::pull(repository), &headers, Body::None)?;
        if answer.status == 200 { Ok(answer) } else { Err(answer.refusal()) }
    }

    /// Keeps a manifest under a tag or its digest; answers the digest the registry says it has.
    pub fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<String, RegistryError> {
        let url = self.url(&format!("{repository}/manifests/{reference}"), &[])?;
        let headers = [("Content-Type", media_type.to_owned())];
        let answer = self.ask(&Method::PUT, &url, &Scope::push(repository), &headers, Body::Bytes(bytes))?;
        match answer.status {
            201 | 202 => match answer.header("docker-content-digest") {
                "" => Ok(digest_of(bytes)),
                digest => Ok(digest.to_owned()),
            },
            _ => Err(answer.refusal()),
        }
    }

    /// A blob from its byte `from` on. A registry that sends all of it all the same is read until there.
    pub fn get_blob(&self, repository: &str, digest: &str, from: u64) -> Result<Blob, RegistryError> {
        let url = self.url(&format!("{repository}/blobs/{digest}"), &[])?;
        let range = (from > 0).then(|| ("Range", format!("bytes={from}-")));
        let headers: Vec<_> = range.into_iter().collect();
        let mut answer = self.ask(&Method::GET, &url, &Scope::pull(repository), &headers, Body::None)?;
        let length: Option<u64> = answer.header("content-length").parse().ok();
        match answer.status {
            200 => {
                let mut skipped = (&mut answer.body).take(from);
                match io::copy(&mut skipped, &mut io::sink()) {
                    Ok(count) if count == from => Ok(Blob { reader: answer.body, total: length }),
                    Ok(count) => Err(RegistryError::Protocol {
                        attempt: answer.attempt,
                        message: format!("the blob ends after {count} bytes"),
                    }),
                    Err(cause) => Err(broken(answer.attempt, cause)),
                }
            }
            206 => {
                // "bytes 5-9/10"
                let range = answer.header("content-range").to_owned();
                let parts = range.strip_prefix("bytes ").and_then(|range| range.split_once('-'));
                let start = parts.and_then(|(start, _)| start.trim().parse::<u64>().ok());
                if start != Some(from) {
                    return Err(RegistryError::Protocol {
                        attempt: answer.attempt,
                        message: format!("asked for bytes from {from}, got {range:?}"),
                    });
                }
                let total = range.rsplit_once('/').and_then(|(_, total)| total.parse().ok());
                let total = total.or(length.map(|length| from + length));
                Ok(Blob { reader: answer.body, total })
            }
            _ => Err(answer.refusal()),
        }
    }

    /// The size of a blob that is there; `None` if it is not.
    pub fn head_blob(&self, repository: &str, digest: &str) -> Result<Option<u64>, RegistryError> {
        let url = self.url(&format!("{repository}/blobs/{digest}"), &[])?;
        let answer = self.ask(&Method::HEAD, &url, &Scope::pull(repository), &[], Body::None)?;
        match answer.status {
            200 => Ok(Some(answer.header("content-length").parse().unwrap_or(0))),
            404 => Ok(None),
            _ => Err(answer.refusal()),
        }
    }

    /// All tags of a repository, page by page.
    pub fn list_tags(&self, repository: &str) -> Result<Vec<String>, RegistryError> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut url = self.url(&format!("{repository}/tags/list"), &[])?;
        let mut all = Vec::new();
        loop {
            let answer = self.ask(&Method::GET, &url, &Scope::pull(repository), &[], Body::None)?;
            if answer.status != 200 {
                return Err(answer.refusal());
            }
            let next = next_page(answer.header("link"));
            let (attempt, bytes) = answer.small(SMALL_BYTES)?;
            let page: Page = serde_json::from_slice(&bytes).map_err(|cause| RegistryError::Protocol {
                attempt: attempt.clone(),
                message: cause.to_string(),
            })?;
            let tags = page.tags.unwrap_or_default();
            let is_empty = tags.is_empty();
            all.extend(tags);
            match next {
                Some(next) if !is_empty && all.len() < MAX_TAGS => url = join(&url, &next),
                Some(_) if !is_empty => {
                    let message = format!("the repository has more than {MAX_TAGS} tags");
                    return Err(RegistryError::Protocol { attempt, message });
                }
                _ => return Ok(all),
            }
        }
    }

    /// Searches an index (`/v1/search`), as Docker's does.
    pub fn search(&self, term: &str, limit: i64) -> Result<Vec<SearchHit>, RegistryError> {
        #[derive(Deserialize)]
        struct Found {
            #[serde(default)]
            results: Vec<SearchHit>,
        }
        let settled = self.settle()?;
        let (term, limit) = (percent_encode(term), limit);
        let url = format!("{}/v1/search?q={term}&n={limit}", settled.base);
        let mut headers = Vec::new();
        headers.extend(self.options.credentials.basic().map(|value| ("Authorization", value)));
        let answer = self.send(&Method::GET, &url, &headers, Body::None)?;
        if answer.status != 200 {
            return Err(answer.refusal());
        }
        let (attempt, bytes) = answer.small(SMALL_BYTES)?;
        let found: Found = serde_json::from_slice(&bytes)
            .map_err(|cause| RegistryError::Protocol { attempt, message: cause.to_string() })?;
        Ok(found.results)
    }

    /// The URL of something below `/v2/`.
    fn url(&self, path: &str, query: &[(&str, &str)]) -> Result<String, RegistryError> {
        let mut url = format!("{}/v2/{path}", self.settle()?.base);
        for (number, (name, value)) in query.iter().enumerate() {
            let separator = if number == 0 { '?' } else { '&' };
            url.push_str(&format!("{separator}{name}={}", percent_encode(value)));
        }
        Ok(url)
    }

    /// Where an answer says to go on.
    fn location(&self, answer: &Answer, url: &str) -> Result<String, RegistryError> {
        match answer.header("location") {
            "" => Err(RegistryError::Protocol {
                attempt: answer.attempt.clone(),
                message: "the answer has no Location".to_owned(),
            }),
            location => Ok(join(url, location)),
        }
    }

    /// Which scheme the registry speaks and what it asks for; found out once.
    fn settle(&self) -> Result<Settled, RegistryError> {
        // Held while it is asked: who comes second would only ask the same.
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(settled) = &*settled {
            return Ok(settled.clone());
        }
        let mut failure = None;
        for base in &self.bases {
            match self.send(&Method::GET, &format!("{base}/v2/"), &[], Body::None) {
                Ok(answer) => {
                    let challenge = challenge(&answer).filter(|_| answer.status == 401);
                    let found = Settled { base: base.clone(), challenge };
                    *settled = Some(found.clone());
                    return Ok(found);
                }
                Err(RegistryError::Cancelled) => return Err(RegistryError::Cancelled),
                // Compat: of two schemes that fail Docker tells the last.
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| RegistryError::Setup(format!("{} has no address", self.host))))
    }

    /// One request with what the registry wants to see, and once more if it wants to see something else.
    fn ask(
        &self,
        method: &Method,
        url: &str,
        scope: &Scope,
        headers: &[(&str, String)],
        body: Body<'_>,
    ) -> Result<Answer, RegistryError> {
        let settled = self.settle()?;
        // A registry may send uploads to another host, which our secrets are no business of.
        let is_ours = authority(url) == authority(&settled.base);
        let authorization = match &settled.challenge {
            Some(challenge) if is_ours => self.authorize(challenge, scope, &attempt(method, url))?,
            _ => None,
        };
        let mut all: Vec<(&str, String)> = headers.to_vec();
        all.extend(authorization.map(|value| ("Authorization", value)));
        all.extend(self.options.headers.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let again = match &body {
            Body::None => Some(Body::None),
            Body::Bytes(bytes) => Some(Body::Bytes(bytes)),
            Body::Stream(_) => None,
        };
        let answer = self.send(method, url, &all, body)?;
        if answer.status != 401 || !is_ours {
            return Ok(answer);
        }
        let Some(again) = again else { return Ok(answer) };
        // A token that has run out, or a registry that lets everybody see /v2/ and not the rest.
        let Some(challenge) = challenge(&answer) else { return Ok(answer) };
        if challenge == Challenge::Basic && settled.challenge == Some(Challenge::Basic) {
            return Ok(answer);
        }
        self.tokens.forget(&scope.key());
        if settled.challenge.is_none() {
            let mut known = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
            *known = Some(Settled { challenge: Some(challenge.clone()), ..settled });
        }
        let authorization = self.authorize(&challenge, scope, &attempt(method, url))?;
        all.retain(|(name, _)| *name != "Authorization");
        all.extend(authorization.map(|value| ("Authorization", value)));
        self.send(method, url, &all, again)
    }

    /// The value of `Authorization` that answers a challenge.
    fn authorize(
        &self,
        challenge: &Challenge,
        scope: &Scope,
        attempt: &str,
    ) -> Result<Option<String>, RegistryError> {
        let credentials = &self.options.credentials;
        match challenge {
            Challenge::Basic => match credentials.basic() {
                Some(basic) => Ok(Some(basic)),
                None => Err(RegistryError::NoCredentials { attempt: attempt.to_owned() }),
            },
            Challenge::Bearer { .. } if !credentials.registry_token.is_empty() => {
                Ok(Some(format!("Bearer {}", credentials.registry_token)))
            }
            Challenge::Bearer { realm, service, scope: wanted } => {
                // A challenge of a request names the scope itself; what we need is at least as much.
                let scope = match (scope.0.is_empty(), wanted.is_empty()) {
                    (true, false) => Scope(vec![wanted.clone()]),
                    _ => scope.clone(),
                };
                if let Some(token) = self.tokens.get(&scope.key()) {
                    return Ok(Some(format!("Bearer {token}")));
                }
                let answer = self.fetch_token(realm, service, &scope, false)?;
                self.tokens.keep(&scope.key(), &answer);
                Ok(answer.token().map(|token| format!("Bearer {token}")))
            }
        }
    }

    /// Asks a token server; `is_login` asks for an identity token beside.
    fn fetch_token(
        &self,
        realm: &str,
        service: &str,
        scope: &Scope,
        is_login: bool,
    ) -> Result<TokenAnswer, RegistryError> {
        let credentials = &self.options.credentials;
        let mut form: Vec<(&str, &str)> = Vec::new();
        if !service.is_empty() {
            form.push(("service", service));
        }
        let scopes = scope.key();
        let answer = if credentials.identity_token.is_empty() {
            form.extend(scope.0.iter().map(|scope| ("scope", scope.as_str())));
            if is_login {
                form.extend([("offline_token", "true"), ("client_id", CLIENT_ID)]);
            }
            let basic = credentials.basic();
            if basic.is_some() {
                form.push(("account", &credentials.username));
            }
            let separator = if realm.contains('?') { '&' } else { '?' };
            let url = format!("{realm}{separator}{}", encode(&form));
            let headers: Vec<_> = basic.map(|value| ("Authorization", value)).into_iter().collect();
            self.send(&Method::GET, &url, &headers, Body::None)?
        } else {
            if !scopes.is_empty() {
                form.push(("scope", &scopes));
            }
            form.extend([("client_id", CLIENT_ID), ("grant_type", "refresh_token")]);
            form.push(("refresh_token", &credentials.identity_token));
            let headers = [("Content-Type", "application/x-www-form-urlencoded".to_owned())];
            self.send(&Method::POST, realm, &headers, Body::Bytes(encode(&form).as_bytes()))?
        };
        if !(200..300).contains(&answer.status) {
            return Err(answer.refusal());
        }
        let (attempt, bytes) = answer.small(REFUSAL_BYTES)?;
        let answer: TokenAnswer = serde_json::from_slice(&bytes).map_err(|cause| {
            let message = format!("unable to decode token response: {cause}");
            RegistryError::Protocol { attempt: attempt.clone(), message }
        })?;
        if answer.token().is_none() {
            let message = "authorization server did not include a token in the response".to_owned();
            return Err(RegistryError::Protocol { attempt, message });
        }
        Ok(answer)
    }

    /// One request as it is, redirects followed (without our secrets, to another host).
    fn send(
        &self,
        method: &Method,
        url: &str,
        headers: &[(&str, String)],
        body: Body<'_>,
    ) -> Result<Answer, RegistryError> {
        let attempt = attempt(method, url);
        if self.options.cancel.is_cancelled() {
            return Err(RegistryError::Cancelled);
        }
        let protocol = |message: &dyn std::fmt::Display| RegistryError::Protocol {
            attempt: attempt.clone(),
            message: message.to_string(),
        };
        let uri: Uri = url.parse().map_err(|cause| protocol(&cause))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.authority().is_none() {
            return Err(protocol(&"not an http address"));
        }
        let mut request = Request::builder().method(method.clone()).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let result = match body {
            Body::None => request.body(()).map(|request| self.agent.run(request)),
            Body::Bytes(bytes) => request.body(bytes).map(|request| self.agent.run(request)),
            Body::Stream(mut stream) => {
                request.body(SendBody::from_reader(&mut stream)).map(|request| self.agent.run(request))
            }
        };
        let answer = result.map_err(|cause| protocol(&cause))?.map_err(|error| failed(&attempt, error))?;
        let (parts, body) = answer.into_parts();
        Ok(Answer {
            attempt,
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: Box::new(body.into_reader()),
        })
    }
}

fn agent(tls: Option<crate::http::tls::Connector>, options: &Options) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(MAX_REDIRECTS)
        .redirect_auth_headers(ureq::config::RedirectAuthHeaders::SameHost)
        .proxy(None)
        .user_agent(user_agent())
        .accept("")
        .input_buffer_size(64 * 1024)
        .output_buffer_size(64 * 1024)
        .build();
    let connector =
        RegistryConnector { tls, proxies: options.proxies.clone(), cancel: options.cancel.clone() };
    ureq::Agent::with_parts(config, connector, StaticResolver)
}

/// Compat: registries that count clients know Docker's form, `name/version os/… arch/…`.
fn user_agent() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("dewar/{} os/{} arch/{arch}", env!("CARGO_PKG_VERSION"), std::env::consts::OS)
}

/// Go's way to name a request: `Get "https://host/v2/"`.
fn attempt(method: &Method, url: &str) -> String {
    let name = method.as_str();
    // A token request's query names the user's account.
    let url = url.split_once("&account=").map_or(url, |(url, _)| url);
    format!("{}{} {url:?}", &name[..1], name[1..].to_ascii_lowercase())
}

fn failed(attempt: &str, error: ureq::Error) -> RegistryError {
    let attempt = attempt.to_owned();
    let unreachable =
        |cause: String, is_tls| RegistryError::Unreachable { attempt: attempt.clone(), cause, is_tls };
    match error {
        ureq::Error::Other(other) => match other.downcast::<ConnectFailed>() {
            Ok(failed) => unreachable(failed.message, failed.is_tls),
            Err(other) => unreachable(other.to_string(), false),
        },
        ureq::Error::Io(cause) => broken(attempt, cause),
        ureq::Error::TooManyRedirects => {
            unreachable(format!("stopped after {MAX_REDIRECTS} redirects"), false)
        }
        other => unreachable(other.to_string(), false),
    }
}

fn challenge(answer: &Answer) -> Option<Challenge> {
    let values = answer.headers.get_all("www-authenticate").iter();
    let values: Vec<String> =
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
    Challenge::parse(&values)
}

fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or("")
}

/// `reference` as seen from `url`.
fn join(url: &str, reference: &str) -> String {
    if reference.contains("://") {
        return reference.to_owned();
    }
    let scheme = url.split_once("://").map_or("https", |(scheme, _)| scheme);
    if let Some(rest) = reference.strip_prefix("//") {
        return format!("{scheme}://{rest}");
    }
    let authority = authority(url);
    if reference.starts_with('/') {
        return format!("{scheme}://{authority}{reference}");
    }
    let path = url.split(['?', '#']).next().unwrap_or(url);
    if reference.starts_with('?') {
        return format!("{path}{reference}");
    }
    let directory = path.rfind('/').map_or(path, |at| &path[..=at]);
    format!("{directory}{reference}")
}

/// The target of `<…>; rel="next"`.
fn next_page(link: &str) -> Option<String> {
    link.split(',').find_map(|part| {
        let (target, parameters) = part.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.replace(['"', ' '], "").to_ascii_lowercase().contains("rel=next");
        is_next.then(|| target.to_owned())
    })
}

fn encode(form: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        form.iter().map(|(name, value)| format!("{name}={}", percent_encode(value))).collect();
    pairs.join("&")
}

fn media_type(header: &str) -> String {
    header.split(';').next().unwrap_or("").trim().to_owned()
}

fn digest_of(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests;
