//! The client's end of the wire: endpoints called by their types.
//!
//! | method | the answer | over |
//! |---|---|---|
//! | [`Client::call`] | decoded, when all of it is there | ureq, kept connections |
//! | [`Client::head`] | status and headers | ureq |
//! | [`Client::stream`] | headers now, bytes as they come | ureq, a connection of its own |
//! | [`Client::upload`] | the same, while the request's body is still being sent | own socket |
//! | [`Client::hijack`] | raw bytes both ways | own socket |
//!
//! ureq cannot hand out an upgraded connection, and reads no answer before it has sent a whole body; those
//! two speak through `raw`. No call has a time limit of its own: how long a stop or a build takes is
//! the daemon's business, and the user's, who has Ctrl-C.
//!
//! Not here: where the host comes from (`cli`), registries.

mod host;
mod raw;
mod ssh;
#[cfg(test)]
mod tests;
pub(super) mod transport;

use std::any::TypeId;
use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::value::Error as ValueError;
use serde::de::{DeserializeOwned, IntoDeserializer};

use super::api::query::{Pairs, Query};
use super::api::{self, ApiVersion, Endpoint, ErrorResponse, Method, Operation};
use super::hijack::Hijacked;
use super::message::Headers;
use super::request::percent_encode;
use super::tls;
pub use host::Host;
use transport::{ConnectFailed, SocketConnector, StaticResolver};

/// The most bytes of a refusal that are read.
const MAX_ERROR_BYTES: u64 = 1 << 20;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    // Compat: the docker client's words, which scripts and people know.
    #[error("Cannot connect to the Docker daemon at {host}. Is the docker daemon running?")]
    NoDaemon { host: Host },
    #[error(
        "permission denied while trying to connect to the Docker daemon socket at {host}: \
         it admits root and the socket's group"
    )]
    PermissionDenied { host: Host },
    #[error("Cannot connect to the Docker daemon at {host}: {cause}")]
    Unreachable { host: Host, cause: io::Error },
    /// The daemon is too old or too new for this client.
    #[error("the daemon at {host} does not speak this client's API version: {message}")]
    Version { host: Host, message: String },
    /// The daemon refused; `message` is its own.
    #[error("{message}")]
    Server { status: u16, message: String },
    /// The answer is not one the API allows: something else than a daemon answers.
    #[error("unexpected answer from {host}: {message}")]
    Protocol { host: Host, message: String },
    #[error("{operation} at {host}: {cause}")]
    Io { operation: &'static str, host: Host, cause: io::Error },
    /// A name is empty where a path needs one.
    #[error("{operation}: {variable} is empty")]
    Empty { operation: &'static str, variable: &'static str },
    /// What the caller wanted to send could not be read.
    #[error("{operation}: read what is to be sent: {cause}")]
    Source { operation: &'static str, cause: io::Error },
}

/// Status and headers of an answer.
#[derive(Clone, Debug)]
pub struct AnswerHead {
    pub status: u16,
    pub headers: Headers,
}

/// An answer whose bytes are read as they come.
///
/// A read blocks until there is something, gives it at once, and gives 0 at the end; an answer that was cut
/// off is an error.
pub struct Streaming {
    pub head: AnswerHead,
    body: Box<dyn Read + Send>,
    context: Context,
}

/// What an error message names, and what every request carries.
#[derive(Clone, Debug)]
struct Context {
    operation: &'static str,
    host: Host,
    tls: Option<tls::Connector>,
    headers: Arc<[(String, String)]>,
}

impl Context {
    fn io(&self, cause: io::Error) -> ClientError {
        ClientError::Io { operation: self.operation, host: self.host.clone(), cause }
    }

    fn protocol(&self, message: impl fmt::Display) -> ClientError {
        ClientError::Protocol { host: self.host.clone(), message: format!("{}: {message}", self.operation) }
    }

    fn unreachable(&self, cause: io::Error) -> ClientError {
        let host = self.host.clone();
        match cause.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoDaemon { host },
            io::ErrorKind::PermissionDenied => ClientError::PermissionDenied { host },
            _ => ClientError::Unreachable { host, cause },
        }
    }

    fn call_failed(&self, error: ureq::Error) -> ClientError {
        match error {
            ureq::Error::Io(cause) => self.io(cause),
            ureq::Error::Other(other) => match other.downcast::<ConnectFailed>() {
                Ok(failed) => self.unreachable(failed.0),
                Err(other) => self.protocol(other),
            },
            other => self.protocol(other),
        }
    }

    /// Turns the answer of a refused call into its error.
    fn refused(&self, status: u16, body: impl Read) -> ClientError {
        let mut bytes = Vec::new();
        if let Err(cause) = body.take(MAX_ERROR_BYTES).read_to_end(&mut bytes) {
            return self.io(cause);
        }
        let message = match serde_json::from_slice::<ErrorResponse>(&bytes) {
            Ok(error) => error.message,
            Err(_) if bytes.is_empty() => format!("the daemon answered {status} without a message"),
            Err(_) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        };
        // The one refusal whose text is the API's: see http::route.
        if status == 400 && message.starts_with("client version ") {
            return ClientError::Version { host: self.host.clone(), message };
        }
        ClientError::Server { status, message }
    }
}

impl Streaming {}

impl fmt::Debug for Streaming {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Streaming").field("head", &self.head).finish_non_exhaustive()
    }
}

impl Read for Streaming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.read(buffer)
    }
}

/// A connection the daemon has handed over.
#[derive(Debug)]
pub struct Upgraded {
    pub stream: Hijacked,
}

/// Calls endpoints on one daemon. Cheap to clone; may be used from several threads.
#[derive(Clone, Debug)]
pub struct Client {
    host: Host,
    tls: Option<tls::Connector>,
    version: Arc<Negotiated>,
    headers: Arc<[(String, String)]>,
    agent: ureq::Agent,
}

/// The API version asked for. It starts with our own and is lowered, once, when an older daemon says which
/// one it speaks: a ping before every command would cost more than it saves.
#[derive(Debug)]
struct Negotiated {
    version: Mutex<ApiVersion>,
    /// Whether the user chose it: then it stays.
    is_fixed: bool,
}

impl Client {
    /// A client that speaks [`api::API_VERSION`], over TCP with TLS if that is given. Connects with the first call.
    pub fn new(host: Host, tls: Option<tls::Connector>) -> Client {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(user_agent())
            .accept("")
            .input_buffer_size(32 * 1024)
            .output_buffer_size(32 * 1024)
            .build();
        let connector = SocketConnector { host: host.clone(), tls: tls.clone() };
        let agent = ureq::Agent::with_parts(config, connector, StaticResolver);
        let version = Negotiated { version: Mutex::new(api::API_VERSION), is_fixed: false };
        Client { host, tls, version: Arc::new(version), headers: Arc::new([]), agent }
    }

    /// The same client, asking for another API version (`DOCKER_API_VERSION`) and no other.
    pub fn with_version(mut self, version: ApiVersion) -> Client {
        self.version = Arc::new(Negotiated { version: Mutex::new(version), is_fixed: true });
        self
    }

    /// The same client, sending these headers with each request.
    pub fn with_headers(mut self, headers: Vec<(String, String)>) -> Client {
        self.headers = headers.into();
        self
    }

    /// The same client, sending one header more.
    pub fn with_header(mut self, name: &str, value: String) -> Client {
        let more = std::iter::once((name.to_owned(), value));
        self.headers = self.headers.iter().cloned().chain(more).collect();
        self
    }

    /// The API version asked for.
    pub fn version(&self) -> ApiVersion {
        *self.version.version.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a refusal names an older version to ask again with; it is then asked for from now on.
    fn lowers(&self, error: &ClientError) -> bool {
        let ClientError::Version { message, .. } = error else { return false };
        let newest = message
            .split_once("Maximum supported API version is ")
            .and_then(|(_, rest)| ApiVersion::parse(rest.split_whitespace().next()?.trim_end_matches('.')));
        match newest {
            Some(newest)
                if !self.version.is_fixed && newest < self.version() && newest >= api::MIN_API_VERSION =>
            {
                *self.version.version.lock().unwrap_or_else(PoisonError::into_inner) = newest;
                true
            }
            _ => false,
        }
    }

    /// Calls an endpoint and waits for its whole answer. `vars` fill the path's variables in order.
    pub fn call<Q: Query, B: Serialize + 'static, R: DeserializeOwned + 'static>(
        &self,
        endpoint: &Endpoint<Q, B, R>,
        vars: &[&str],
        query: &Q,
        body: &B,
    ) -> Result<R, ClientError> {
        let mut streaming = self.stream(endpoint, vars, query, body)?;
        let context = streaming.context.clone();
        let mut bytes = Vec::new();
        streaming.read_to_end(&mut bytes).map_err(|cause| context.io(cause))?;
        if TypeId::of::<R>() == TypeId::of::<()>() {
            let unit: Result<R, ValueError> = R::deserialize(().into_deserializer());
            return unit.map_err(|cause| context.protocol(cause));
        }
        api::decode(&bytes).map_err(|cause| context.protocol(cause))
    }

    /// Calls an endpoint and returns once the head of its answer is there.
    pub fn stream<Q: Query, B: Serialize + 'static, R>(
        &self,
        endpoint: &Endpoint<Q, B, R>,
        vars: &[&str],
        query: &Q,
        body: &B,
    ) -> Result<Streaming, ClientError> {
        let json = encode(body).map_err(|cause| self.context(&endpoint.operation).protocol(cause))?;
        let mut pairs = Pairs::new();
        query.write(&mut pairs);
        match self.send(&endpoint.operation, vars, &pairs, json.clone()) {
            Err(error) if self.lowers(&error) => self.send(&endpoint.operation, vars, &pairs, json),
            result => result,
        }
    }

    /// One request as it is, whatever its types were.
    fn send(
        &self,
        operation: &Operation,
        vars: &[&str],
        pairs: &Pairs,
        json: Option<Vec<u8>>,
    ) -> Result<Streaming, ClientError> {
        let context = self.context(operation);
        let target = self.target(operation, vars, pairs)?;
        let uri = format!("http://localhost{target}");
        let mut request = ureq::http::Request::builder().method(operation.method.name()).uri(uri);
        for (name, value) in context.headers.iter() {
            request = request.header(name, value);
        }
        let answer = match (json, operation.method) {
            (Some(json), _) => {
                request = request.header("Content-Type", "application/json");
                self.agent.run(request.body(json).map_err(|cause| context.protocol(cause))?)
            }
            // A POST without a body says so.
            (None, Method::Post | Method::Put) => {
                self.agent.run(request.body(Vec::new()).map_err(|cause| context.protocol(cause))?)
            }
            (None, _) => self.agent.run(request.body(()).map_err(|cause| context.protocol(cause))?),
        };
        let (parts, answer) = answer.map_err(|error| context.call_failed(error))?.into_parts();
        let mut headers = Headers::default();
        for (name, value) in &parts.headers {
            headers.push(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
        }
        let head = AnswerHead { status: parts.status.as_u16(), headers };
        let body = Box::new(answer.into_reader());
        check(Streaming { head, body, context })
    }

    /// Calls an endpoint of method HEAD: all it answers is in the headers.
    pub fn head<Q: Query, R>(
        &self,
        endpoint: &Endpoint<Q, (), R>,
        vars: &[&str],
        query: &Q,
    ) -> Result<AnswerHead, ClientError> {
        self.stream(endpoint, vars, query, &()).map(|streaming| streaming.head)
    }

    /// Calls an endpoint with a body read from `source` while it is sent, chunk by chunk.
    ///
    /// Returns once the head of the answer is there, which may be before everything is sent; the rest is
    /// sent from a thread of its own. A failing `source` cuts the request.
    pub fn upload<Q: Query, R>(
        &self,
        endpoint: &Endpoint<Q, (), R>,
        vars: &[&str],
        query: &Q,
        content_type: &str,
        source: impl Read + Send + 'static,
    ) -> Result<Streaming, ClientError> {
        // What has been sent cannot be sent again: the version is settled before.
        if !self.version.is_fixed && self.version() == api::API_VERSION {
            // What goes wrong here goes wrong below too, where it is told.
            let _ = self.call(&api::system::SYSTEM_VERSION, &[], &(), &());
        }
        let context = self.context(&endpoint.operation);
        let mut pairs = Pairs::new();
        query.write(&mut pairs);
        let target = self.target(&endpoint.operation, vars, &pairs)?;
        let (head, body) =
            raw::upload(&context, endpoint.operation.method, &target, content_type, Box::new(source))?;
        check(Streaming { head, body: Box::new(body), context })
    }

    /// Calls an endpoint that takes over its connection.
    pub fn hijack<Q: Query, B: Serialize + 'static, R>(
        &self,
        endpoint: &Endpoint<Q, B, R>,
        vars: &[&str],
        query: &Q,
        body: &B,
    ) -> Result<Upgraded, ClientError> {
        let context = self.context(&endpoint.operation);
        let json = encode(body).map_err(|cause| context.protocol(cause))?;
        let mut pairs = Pairs::new();
        query.write(&mut pairs);
        let attempt = || {
            let target = self.target(&endpoint.operation, vars, &pairs)?;
            raw::upgrade(&context, endpoint.operation.method, &target, json.clone())
        };
        match attempt() {
            Err(error) if self.lowers(&error) => attempt(),
            result => result,
        }
    }

    /// Connects and says nothing: the connection is the caller's.
    pub fn dial(&self) -> Result<Hijacked, ClientError> {
        let context = Context {
            operation: "dial",
            host: self.host.clone(),
            tls: self.tls.clone(),
            headers: Arc::clone(&self.headers),
        };
        let socket =
            transport::dial(&self.host, self.tls.as_ref()).map_err(|cause| context.unreachable(cause))?;
        Hijacked::client(Arc::new(socket), Vec::new()).map_err(|cause| context.io(cause))
    }

    fn context(&self, operation: &Operation) -> Context {
        Context {
            operation: operation.id,
            host: self.host.clone(),
            tls: self.tls.clone(),
            headers: self.headers.clone(),
        }
    }

    /// The path and query of a call, encoded.
    fn target(&self, operation: &Operation, vars: &[&str], pairs: &Pairs) -> Result<String, ClientError> {
        let mut target = format!("/v{}", self.version());
        let mut vars = vars.iter();
        for segment in operation.path.split('/').skip(1) {
            target.push('/');
            let Some(name) = segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) else {
                target.push_str(segment);
                continue;
            };
            let (variable, is_many) = name.strip_suffix("...").map_or((name, false), |name| (name, true));
            match vars.next() {
                None | Some(&"") => return Err(ClientError::Empty { operation: operation.id, variable }),
                // Slashes stay: the pattern takes several segments.
                Some(value) if is_many => target.push_str(&percent_encode(value).replace("%2F", "/")),
                Some(value) => target.push_str(&percent_encode(value)),
            }
        }
        for (index, (name, value)) in pairs.iter().enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            target.push_str(&format!("{}={}", percent_encode(name), percent_encode(value)));
        }
        Ok(target)
    }
}

fn user_agent() -> &'static str {
    concat!("dewar-client/", env!("CARGO_PKG_VERSION"), " (linux)")
}

/// The JSON of a body; `None` for `()` and for a value that says nothing.
fn encode<B: Serialize + 'static>(body: &B) -> Result<Option<Vec<u8>>, serde_json::Error> {
    let json = serde_json::to_vec(body)?;
    Ok((json != b"null").then_some(json))
}

/// Passes on success (304 included: the object already is as asked), and turns the rest into errors.
fn check(streaming: Streaming) -> Result<Streaming, ClientError> {
    match streaming.head.status {
        200..=299 | 304 => Ok(streaming),
        status => Err(streaming.context.refused(status, streaming.body)),
    }
}
