//! The other direction: the daemon asks a plugin.
//!
//! Docker's plugin protocol is a POST of JSON to `/NAME.METHOD` on a socket the plugin listens on. A plugin is
//! another program of the administrator's, and yet its answers have bounds in size and time: whoever waits for it
//! must be able to give up. Each call has a connection of its own, so that a plugin that was started again is
//! no special case.
//!
//! Not here: where plugins are found, what they are asked (`daemon::authorization`).
//!
//! Source: Docker's plugin API; the daemon names the version of the protocol in `Accept`.

use std::time::Duration;

use serde::Deserialize;

pub use super::client::Host as Address;
use super::client::transport::{ConnectFailed, SocketConnector, StaticResolver};

/// The protocol's version, and what both ends call their JSON.
const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.1+json";
/// How much of a plugin's own words about a failure is passed on.
const MESSAGE_BYTES: usize = 1024;

/// Bounds on what a plugin can cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a whole call, from the first attempt to connect to the last byte of the answer.
    pub time: Duration,
    /// The most bytes of an answer.
    pub answer_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { time: Duration::from_secs(10), answer_bytes: 64 * 1024 }
    }
}

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("connect: {0}")]
    Unreachable(std::io::Error),
    /// The plugin's own words.
    #[error("{0}")]
    Failed(String),
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("the answer is larger than {0} bytes")]
    TooLarge(u64),
    #[error("{0}")]
    Broken(ureq::Error),
}

/// Speaks to one plugin.
#[derive(Clone, Debug)]
pub struct Caller {
    agent: ureq::Agent,
    limits: Limits,
}

impl Caller {
    /// Connects with each call.
    pub fn new(address: Address, limits: Limits) -> Caller {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_connections(0)
            .proxy(None)
            .user_agent(concat!("dewar/", env!("CARGO_PKG_VERSION")))
            .accept(MEDIA_TYPE)
            .timeout_global(Some(limits.time))
            .build();
        let agent =
            ureq::Agent::with_parts(config, SocketConnector { host: address, tls: None }, StaticResolver);
        Caller { agent, limits }
    }

    /// Calls `method`, for example `Plugin.Activate`, with a JSON body or none. Blocks for [`Limits::time`] at most
    /// (and for the look-up of a host's name, which has limits of its own).
    ///
    /// # Errors
    /// Everything but an answer of status 200 that is there in time and in full.
    pub fn call(&self, method: &str, body: &[u8]) -> Result<Vec<u8>, CallError> {
        let request = self
            .agent
            .post(format!("http://plugin/{method}"))
            .header("Content-Type", MEDIA_TYPE)
            .header("Connection", "close");
        let mut answer = request.send(body).map_err(|error| self.failed(error))?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(self.limits.answer_bytes).read_to_vec();
        let body = body.map_err(|error| self.failed(error))?;
        match status {
            200 => Ok(body),
            _ => Err(CallError::Failed(words(status, &body))),
        }
    }

    fn failed(&self, error: ureq::Error) -> CallError {
        match error {
            ureq::Error::Timeout(_) => CallError::Late(self.limits.time),
            ureq::Error::BodyExceedsLimit(limit) => CallError::TooLarge(limit),
            ureq::Error::Other(cause) => match cause.downcast::<ConnectFailed>() {
                Ok(failed) => CallError::Unreachable(failed.0),
                Err(cause) => CallError::Broken(ureq::Error::Other(cause)),
            },
            // The body's reader wraps its own errors once more.
            ureq::Error::Io(cause) => match cause.downcast::<ureq::Error>() {
                Ok(inner) => self.failed(inner),
                Err(cause) if cause.kind() == std::io::ErrorKind::WouldBlock => {
                    CallError::Late(self.limits.time)
                }
                Err(cause) => CallError::Broken(ureq::Error::Io(cause)),
            },
            error => CallError::Broken(error),
        }
    }
}

/// What a plugin says of its failure: the protocol's `Err`, else the body as it is.
fn words(status: u16, body: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Failure {
        err: String,
    }
    let text = match serde_json::from_slice::<Failure>(body) {
        Ok(failure) => failure.err,
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    let text: String = text.chars().filter(|c| !c.is_control()).take(MESSAGE_BYTES).collect();
    if text.is_empty() { format!("status {status}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::PathBuf;
    use std::time::Instant;

    /// Serves one connection with `serve` on a socket of its own.
    fn plugin(name: &str, serve: impl FnOnce(UnixStream) + Send + 'static) -> PathBuf {
        let path = std::env::temp_dir().join(format!("dewar-plugin-{}-{name}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"{}") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            assert!(head.starts_with("POST /A.B HTTP/1.1\r\n"), "{head}");
            assert!(head.to_ascii_lowercase().contains("\r\ncontent-length: 2\r\n"), "{head}");
            assert!(head.contains(&format!(": {MEDIA_TYPE}\r\n")), "{head}");
            serve(stream);
        });
        path
    }

    fn call(path: &PathBuf) -> Result<Vec<u8>, CallError> {
        let limits = Limits { time: Duration::from_millis(300), answer_bytes: 100 };
        let result = Caller::new(Address::Unix(path.clone()), limits).call("A.B", b"{}");
        let _ = std::fs::remove_file(path);
        result
    }

    fn says(text: &'static str) -> impl FnOnce(UnixStream) {
        move |mut stream| drop(stream.write_all(text.as_bytes()))
    }

    #[test]
    fn an_answer_is_the_whole_body_of_a_200() {
        let path = plugin("ok", says("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue"));
        assert_eq!(call(&path).unwrap(), b"true");
        let path = plugin(
            "chunked",
            says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntrue\r\n0\r\n\r\n"),
        );
        assert_eq!(call(&path).unwrap(), b"true");
    }

    #[test]
    fn everything_else_is_an_error_that_says_why() {
        for (name, answer, part) in [
            ("err", "HTTP/1.1 500 No\r\nContent-Length: 14\r\n\r\n{\"Err\":\"oops\"}", "oops"),
            ("text", "HTTP/1.1 404 No\r\nContent-Length: 5\r\n\r\ngone\n", "gone"),
            ("bare", "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "status 404"),
            ("moved", "HTTP/1.1 302 x\r\nLocation: http://other/\r\nContent-Length: 0\r\n\r\n", "status 302"),
            ("short", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", ""),
            ("none", "", ""),
            ("noise", "SSH-2.0-OpenSSH\r\n\r\n", ""),
        ] {
            let error = call(&plugin(name, says(answer))).unwrap_err();
            assert!(error.to_string().contains(part), "{name}: {error}");
            assert!(!matches!(error, CallError::Late(_)), "{name}: {error}");
        }
    }

    #[test]
    fn an_answer_has_bounds_in_size_and_time() {
        let path = plugin("large", |mut stream| {
            drop(stream.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1000)).as_bytes()));
        });
        assert!(matches!(call(&path), Err(CallError::TooLarge(100))));
        let start = Instant::now();
        let path = plugin("silent", |mut stream| drop(stream.read(&mut [0])));
        assert!(matches!(call(&path), Err(CallError::Late(_))));
        // Bytes that keep coming are no excuse.
        let path = plugin("drips", |mut stream| {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n"));
            while stream.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let error = call(&path).unwrap_err();
        assert!(matches!(error, CallError::Late(_)), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_plugin_that_accepts_nobody_is_given_up() {
        let path = std::env::temp_dir().join(format!("dewar-plugin-{}-full.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let mut waiting = Vec::new();
        // The kernel lets one more than the backlog wait; a few more attempts must not hang.
        for _ in 0..3 {
            let fd =
                rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None);
            let fd = fd.unwrap();
            rustix::io::ioctl_fionbio(&fd, true).unwrap();
            let _ = rustix::net::connect(&fd, &rustix::net::SocketAddrUnix::new(&path).unwrap());
            waiting.push(fd);
        }
        let error = call(&path).unwrap_err();
        assert!(matches!(error, CallError::Unreachable(_) | CallError::Late(_)), "{error:?}");
    }

    #[test]
    fn a_plugin_that_is_not_there_is_unreachable() {
        let error = call(&"/nonexistent/plugin.sock".into()).unwrap_err();
        assert!(matches!(error, CallError::Unreachable(_)), "{error:?}");
    }
}
