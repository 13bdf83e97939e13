//! Where the daemon is, how it is asked, and how what it says is printed.
//!
//! The address comes from `--host`, `DEWAR_HOST`, `DOCKER_HOST`, or is `unix:///run/dewar.sock`. Nothing is
//! connected before the first call, and nothing is asked that a command does not need: there is no ping.

use std::io::{Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::http::api::{Endpoint, Filters, Query};
use crate::http::client::{AnswerHead, Client, ClientError, Host};
use crate::http::hijack::Hijacked;

use super::command::{Flag, Matches};
use super::commands;
use super::error::Error;
use super::terminal::output_error;

const DEFAULT_HOST: &str = "unix:///run/dewar.sock";

/// One daemon to talk to. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Context {
    client: Client,
    debug: bool,
}

impl Context {
    /// Reads the global flags and the environment.
    pub fn new(globals: &Matches) -> Result<Context, Error> {
        let environment = |name: &str| std::env::var(name).ok();
        let hosts = globals.all(&commands::HOST);
        let host = host(&hosts, environment)?;
        Ok(Context { client: Client::new(host), debug: globals.is(&commands::DEBUG) })
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
        Ok(self.client.call(endpoint, vars, query, body)?)
    }

    /// Calls an endpoint whose answer is all in its headers.
    pub fn head<Q: Query, R>(
        &self,
        endpoint: &Endpoint<Q, (), R>,
        vars: &[&str],
        query: &Q,
    ) -> Result<AnswerHead, Error> {
        self.trace(endpoint, vars, query);
        Ok(self.client.head(endpoint, vars, query)?)
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
        Ok(Box::new(self.client.stream(endpoint, vars, query, body)?))
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
        Ok(Box::new(self.client.upload(endpoint, vars, query, "application/x-tar", source)?))
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
        Ok(self.client.hijack(endpoint, vars, query, body)?.stream)
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

/// The address the user means: the flag before the environment before the default.
fn host(flags: &[&str], environment: impl Fn(&str) -> Option<String>) -> Result<Host, Error> {
    if flags.len() > 1 {
        return Err(Error::usage("specify only one -H"));
    }
    let flag = flags.first().map(|text| (*text).to_owned());
    let named = flag
        .or_else(|| environment("DEWAR_HOST").filter(|text| !text.is_empty()))
        .or_else(|| environment("DOCKER_HOST").filter(|text| !text.is_empty()));
    Host::parse(named.as_deref().unwrap_or(DEFAULT_HOST)).map_err(Error::Local)
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

    fn chosen(flags: &[&str], variables: &[(&str, &str)]) -> Result<String, Error> {
        let environment = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        host(flags, environment).map(|host| host.to_string())
    }

    #[test]
    fn the_flag_comes_before_the_environment_before_the_default() {
        let both = [("DEWAR_HOST", "unix:///dewar"), ("DOCKER_HOST", "unix:///docker")];
        assert_eq!(chosen(&["unix:///flag"], &both).unwrap(), "unix:///flag");
        assert_eq!(chosen(&[], &both).unwrap(), "unix:///dewar");
        assert_eq!(chosen(&[], &both[1..]).unwrap(), "unix:///docker");
        assert_eq!(chosen(&[], &[("DEWAR_HOST", "")]).unwrap(), DEFAULT_HOST);
        assert!(chosen(&["a", "b"], &[]).is_err());
        assert!(chosen(&["nonsense"], &[]).is_err());
    }

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
        let missing =
            Context { client: Client::new(Host::Unix("/does/not/exist.sock".into())), debug: false };
        let error = missing.call(&crate::http::api::system::SYSTEM_VERSION, &[], &(), &()).unwrap_err();
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
