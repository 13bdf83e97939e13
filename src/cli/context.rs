//! Where the daemon is, how it is asked, and how what it says is printed.
//!
//! Where it is follows from `--host`, `--context`, the environment and the settings: `contexts.rs`. Nothing
//! is connected before the first call, and nothing is asked that a command does not need: there is no ping.

use std::io::{Read, Write};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::http::api::auth::AUTH_HEADER;
use crate::http::api::{API_VERSION, ApiVersion, Endpoint, Filters, Query};
use crate::http::client::{AnswerHead, Client, ClientError, Host};
use crate::http::hijack::Hijacked;
use crate::http::tls::ClientFiles;

use super::command::{Flag, Matches};
use super::commands;
use super::config::Config;
use super::contexts::{self, Wish};
use super::credentials;
use super::error::Error;
use super::terminal::output_error;

/// One daemon to talk to, and the settings of whoever talks. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Context {
    client: Result<Client, String>,
    name: String,
    host: String,
    config: Arc<Config>,
    tls: Arc<TlsFlags>,
    debug: bool,
}

/// What the flags say of TLS.
#[derive(Clone, Debug, Default)]
struct TlsFlags {
    tls: bool,
    verifies: Option<bool>,
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
}

impl TlsFlags {
    fn wish<'a>(&'a self, hosts: &'a [&'a str], context: Option<&'a str>) -> Wish<'a> {
        Wish {
            hosts,
            context,
            tls: self.tls,
            verifies: self.verifies,
            ca: self.ca.as_deref(),
            cert: self.cert.as_deref(),
            key: self.key.as_deref(),
        }
    }
}

impl Context {
    /// Reads the global flags, the environment and the settings.
    pub fn new(globals: &Matches) -> Result<Context, Error> {
        let environment = |name: &str| std::env::var(name).ok();
        let config = Config::load(Config::dir(globals.get(&commands::CONFIG), environment));
        let hosts = globals.all(&commands::HOST);
        let path = |flag: &'static Flag| globals.get(flag).filter(|path| !path.is_empty()).map(str::to_owned);
        let tls = TlsFlags {
            tls: globals.is(&commands::TLS),
            verifies: globals.given(&commands::TLS_VERIFY).then(|| globals.is(&commands::TLS_VERIFY)),
            ca: path(&commands::TLS_CA),
            cert: path(&commands::TLS_CERT),
            key: path(&commands::TLS_KEY),
        };
        let debug = globals.is(&commands::DEBUG);
        Context::of(&hosts, globals.get(&commands::CONTEXT), Arc::new(tls), Arc::new(config), debug)
    }

    fn of(
        hosts: &[&str],
        context: Option<&str>,
        tls: Arc<TlsFlags>,
        config: Arc<Config>,
        debug: bool,
    ) -> Result<Context, Error> {
        let environment = |name: &str| std::env::var(name).ok();
        let wish = tls.wish(hosts, context);
        let name = contexts::name(&wish, environment, &config)?;
        let (client, host) = match contexts::host(&name, &wish, environment, &config) {
            Ok(host) => {
                let tls = contexts::tls(&name, &wish, environment, &config);
                let client = tls
                    .map_err(|error| error.to_string())
                    .and_then(|tls| client(&host, tls.as_ref(), &config, environment));
                (client, host)
            }
            Err(error) => (Err(error.to_string()), String::new()),
        };
        Ok(Context { client, name, host, config, tls, debug })
    }

    /// Another daemon: a context's name, or an address as `--host` takes it.
    ///
    /// # Errors
    /// The address is none.
    pub fn at(&self, place: &str) -> Result<Context, Error> {
        let (tls, config) = (Arc::clone(&self.tls), Arc::clone(&self.config));
        let is_name = place == contexts::DEFAULT || contexts::find(&self.config, place).is_ok();
        let other = match is_name {
            true => Context::of(&[], Some(place), tls, config, self.debug),
            false => Context::of(&[place], None, tls, config, self.debug),
        }?;
        other.client().map(|_| ())?;
        Ok(other)
    }

    /// The client; a place that is not known is an error only for who needs it.
    fn client(&self) -> Result<&Client, Error> {
        self.client.as_ref().map_err(|cause| Error::Refused(cause.clone()))
    }

    /// The name of the context in use.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The daemon's address, as it was written.
    pub fn host(&self) -> String {
        self.host.clone()
    }

    /// The address of the context `default`.
    pub fn default_host(&self) -> String {
        if self.name == contexts::DEFAULT {
            return self.host();
        }
        let environment = |name: &str| std::env::var(name).ok();
        contexts::host(contexts::DEFAULT, &Wish::default(), environment, &self.config).unwrap_or_default()
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn is_debugging(&self) -> bool {
        self.debug
    }

    /// The API version the client speaks by now.
    pub fn api_version(&self) -> String {
        self.client.as_ref().map_or(API_VERSION, Client::version).to_string()
    }

    /// The same daemon, told who the user is at the registry of the repository `name` (in full).
    pub fn as_known_at(&self, name: &str) -> Context {
        let header = credentials::header_for(&self.config, name);
        let client = self.client.clone().map(|client| client.with_header(AUTH_HEADER, header));
        Context { client, ..self.clone() }
    }

    /// The same daemon, told one header more with each request.
    pub fn with_header(&self, name: &str, value: String) -> Context {
        let client = self.client.clone().map(|client| client.with_header(name, value));
        Context { client, ..self.clone() }
    }

    /// A context whose daemon is not there, for tests.
    #[cfg(test)]
    pub fn nowhere() -> Context {
        let host = Host::Unix("/does/not/exist.sock".into());
        Context {
            client: Ok(Client::new(host, None)),
            name: contexts::DEFAULT.to_owned(),
            host: String::new(),
            config: Arc::default(),
            tls: Arc::default(),
            debug: false,
        }
    }

    /// Calls an endpoint and waits for the whole answer; `vars` fill the path's variables in order.
    pub fn call<Q: Query, B: Serialize + 'static, R: DeserializeOwned + 'static>(
        &self,
        endpoint: &Endpoint<Q, B, R>,
        vars: &[&str],
        query: &Q,
        body: &B,
    ) -> Result<R, Error> {
        self.trace(endpoint, vars, query);
        Ok(self.client()?.call(endpoint, vars, query, body)?)
    }

    /// Calls an endpoint whose answer is all in its headers.
    pub fn head<Q: Query, R>(
        &self,
        endpoint: &Endpoint<Q, (), R>,
        vars: &[&str],
        query: &Q,
    ) -> Result<AnswerHead, Error> {
        self.trace(endpoint, vars, query);
        Ok(self.client()?.head(endpoint, vars, query)?)
    }

    /// Calls an endpoint and returns once the head of the answer is there; the rest is read as it comes.
    pub fn stream<Q: Query, B: Serialize + 'static, R>(
        &self,
        endpoint: &Endpoint<Q, B, R>,
        vars: &[&str],
        query: &Q,
        body: &B,
    ) -> Result<Box<dyn Read + Send>, Error> {
        self.trace(endpoint, vars, query);
        Ok(Box::new(self.client()?.stream(endpoint, vars, query, body)?))
    }

    /// Calls an endpoint with a body that is read from `source` as it is sent.
    pub fn upload<Q: Query, R>(
        &self,
        endpoint: &Endpoint<Q, (), R>,
        vars: &[&str],
        query: &Q,
        source: impl Read + Send + 'static,
    ) -> Result<Box<dyn Read + Send>, Error> {
        self.trace(endpoint, vars, query);
        Ok(Box::new(self.client()?.upload(endpoint, vars, query, "application/x-tar", source)?))
    }

    /// Calls an endpoint that turns its connection into raw bytes both ways.
    pub fn hijack<Q: Query, B: Serialize + 'static, R>(
        &self,
        endpoint: &Endpoint<Q, B, R>,
        vars: &[&str],
        query: &Q,
        body: &B,
    ) -> Result<Hijacked, Error> {
        self.trace(endpoint, vars, query);
        Ok(self.client()?.hijack(endpoint, vars, query, body)?.stream)
    }

    /// Connects to the daemon and says nothing.
    pub fn dial(&self) -> Result<Hijacked, Error> {
        Ok(self.client()?.dial()?)
    }

    fn trace<Q: Query, B, R>(&self, endpoint: &Endpoint<Q, B, R>, vars: &[&str], query: &Q) {
        if !self.debug {
            return;
        }
        let mut pairs = Vec::new();
        query.write(&mut pairs);
        let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let operation = &endpoint.operation;
        let line = format!("debug: {} {} {}", operation.id, vars.join(" "), pairs.join(" "));
        super::say(line.trim_end());
    }
}

/// The client for an address; the error is the whole message.
fn client(
    host: &str,
    tls: Option<&ClientFiles>,
    config: &Config,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Client, String> {
    let failed = |cause: String| contexts::unresolved(&cause).to_string();
    let parse = if tls.is_some() { Host::parse_tls } else { Host::parse };
    let host = parse(host).map_err(failed)?;
    // Compat: where nothing is carried by tcp, what was said of TLS does not matter.
    let tls = match (&host, tls) {
        (Host::Tcp(..), Some(files)) => Some(files.prepare().map_err(failed)?),
        _ => None,
    };
    let client = Client::new(host, tls).with_headers(config.headers());
    match environment("DOCKER_API_VERSION").filter(|version| !version.is_empty()) {
        None => Ok(client),
        Some(text) => match ApiVersion::parse(text.trim_start_matches('v')) {
            Some(version) => Ok(client.with_version(version)),
            None => {
                Err(format!("invalid DOCKER_API_VERSION {text:?}: expected a version such as {API_VERSION}"))
            }
        },
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Error {
        let message = error.to_string();
        match error {
            ClientError::NoDaemon { .. } | ClientError::Unreachable { .. } => Error::Missing(message),
            ClientError::PermissionDenied { .. } => Error::Permission(message),
            ClientError::Version { .. } | ClientError::Protocol { .. } => Error::Version(message),
            ClientError::Server { status, message } => Error::Daemon { status, message },
            ClientError::Empty { variable, .. } => Error::Local(format!("the {variable} is empty")),
            ClientError::Io { .. } | ClientError::Source { .. } => Error::Local(message),
        }
    }
}

/// Writes to stdout at once; a reader that has left is told apart from a failure.
pub fn print(text: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(output_error)
}

/// Asks whether to go on. Only "y" is yes; the end of the input is no.
pub fn confirm(warning: &str) -> Result<bool, Error> {
    print(&format!("{warning}\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|cause| Error::local("read the answer from standard input", cause))?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

/// Does `act` to each name in turn. A failure is printed and does not keep the others from their turn.
pub fn each(names: &[String], act: impl Fn(&str) -> Result<(), Error>) -> Result<u8, Error> {
    match failing(names, act)?.is_empty() {
        true => Ok(0),
        false => Err(Error::Reported),
    }
}

/// [`each`], for who wants to know the names that failed.
pub fn failing(names: &[String], act: impl Fn(&str) -> Result<(), Error>) -> Result<Vec<&str>, Error> {
    let mut failed = Vec::new();
    for name in names {
        match act(name) {
            Ok(()) => {}
            Err(Error::BrokenPipe) => return Err(Error::BrokenPipe),
            Err(error) => {
                if !matches!(error, Error::Reported) {
                    super::say(&error.to_string());
                }
                failed.push(name.as_str());
            }
        }
    }
    Ok(failed)
}

/// Filters from `--filter KEY=VALUE`.
pub fn filters(texts: &[String], flag: &'static Flag) -> Result<Filters, Error> {
    let mut filters = Filters::default();
    for text in texts {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                filters.add(&key.trim().to_ascii_lowercase(), value.trim());
            }
            _ => return Err(Error::value(flag, text, "bad format of filter (expected name=value)")),
        }
    }
    Ok(filters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_goes_on_after_a_failure() {
        let tried = std::cell::RefCell::new(Vec::new());
        let names = ["a", "b", "c"].map(str::to_owned);
        let refuse = |name: &str| {
            tried.borrow_mut().push(name.to_owned());
            match name {
                "a" => Err(Error::Daemon { status: 404, message: "No such container: a".into() }),
                _ => Ok(()),
            }
        };
        assert_eq!(each(&names, refuse).unwrap_err().code(), 1);
        assert_eq!(*tried.borrow(), ["a", "b", "c"]);
        assert_eq!(each(&names, |_| Err(Error::Missing("gone".into()))).unwrap_err().code(), 1);
        assert_eq!(each(&names, |_| Ok(())).unwrap(), 0);
    }

    #[test]
    fn a_missing_daemon_is_told_from_a_refused_permission() {
        let error =
            Context::nowhere().call(&crate::http::api::system::SYSTEM_VERSION, &[], &(), &()).unwrap_err();
        assert_eq!(error.ping_code(), 69);
        assert!(error.to_string().contains("unix:///does/not/exist.sock"), "{error}");
        let host = || Host::Unix("/x".into());
        assert_eq!(Error::from(ClientError::PermissionDenied { host: host() }).ping_code(), 77);
        let old = ClientError::Version { host: host(), message: "client version 9 is too new".into() };
        assert_eq!(Error::from(old).ping_code(), 76);
        let refused = Error::from(ClientError::Server { status: 409, message: "Conflict".into() });
        assert_eq!(refused.to_string(), "Error response from daemon: Conflict");
    }

    #[test]
    fn filters_need_a_key_and_a_value() {
        static FILTER: Flag = Flag::many("filter", "KEY=VALUE", "Filter");
        let made =
            filters(&["status=exited".into(), "label=a=b".into(), "status=dead".into()], &FILTER).unwrap();
        assert_eq!(made.get("status"), ["exited", "dead"]);
        assert_eq!(made.get("label"), ["a=b"]);
        assert!(filters(&["status".into()], &FILTER).is_err());
    }
}
