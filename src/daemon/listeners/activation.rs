//! Socket activation: sockets that whoever started the daemon has bound for it.
//!
//! The protocol is sd_listen_fds(3)'s: `LISTEN_PID` says for whom, `LISTEN_FDS` how many descriptors from 3 on,
//! `LISTEN_FDNAMES` their names, separated by colons. It is spoken by systemd, and by supervisors that have nothing
//! else of it.

use std::ffi::OsString;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketType, sockopt};

use super::host::Which;
use crate::daemon::error::{Error, Result};
use crate::http::server::Listener;
use crate::runtime::sys::{fd, process};

/// The first descriptor that is passed. Source: sd-daemon.h, SD_LISTEN_FDS_START.
const FIRST: i32 = 3;
/// More than anybody passes; a number from the environment must not become a long loop.
const MOST: i32 = 256;
/// sd_listen_fds_with_names(3): what has no name is called so.
const NAMELESS: &str = "unknown";
const VARIABLES: [&str; 4] = ["LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The sockets passed by socket activation that no host has taken yet; the rest is closed with it.
#[derive(Debug, Default)]
pub struct Activated(Vec<Passed>);

#[derive(Debug)]
struct Passed {
    number: i32,
    name: String,
    fd: OwnedFd,
}

impl Activated {
    /// Takes over what was passed to this process, and forgets the variables, so that no other process takes it for
    /// its own. Called once, before the first thread is started.
    pub fn take() -> Activated {
        let count = count(|name| std::env::var_os(name), std::process::id());
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        for variable in VARIABLES {
            if let Err(cause) = process::forget_variable(variable) {
                log::warn!("forget {variable}: {cause}");
            }
        }
        let passed = (FIRST..FIRST + count).zip(named(&names)).filter_map(|(number, name)| {
            let fd = fd::inherit(number);
            let fd =
                fd.inspect_err(|cause| log::warn!("take descriptor {number} of socket activation: {cause}"));
            Some(Passed { number, name, fd: fd.ok()? })
        });
        Activated(passed.collect())
    }

    /// The sockets that are meant, ready to be served, each with its number.
    ///
    /// # Errors
    /// NotFound when there is none, InvalidParameter for a descriptor nobody can connect to.
    pub fn claim(&mut self, which: &Which) -> Result<Vec<(i32, Listener)>> {
        let is_meant = |passed: &mut Passed| match which {
            Which::All => true,
            Which::Number(number) => passed.number == *number,
            Which::Name(name) => passed.name == *name,
        };
        let nothing = self.0.is_empty();
        let meant: Vec<Passed> = self.0.extract_if(.., is_meant).collect();
        if meant.is_empty() {
            return Err(Error::not_found(match which {
                Which::Number(number) if !nothing => {
                    format!("too few socket activated files passed in: no descriptor {number}")
                }
                Which::Name(name) if !nothing => format!("no socket activated file is called {name:?}"),
                // Compat: dockerd's words, which people look up.
                _ => "no sockets found via socket activation: make sure the service was started by systemd"
                    .to_owned(),
            }));
        }
        meant.into_iter().map(|passed| Ok((passed.number, listener(passed)?))).collect()
    }

    /// Closes what no host has taken.
    pub fn close_rest(self) {
        for passed in self.0 {
            log::warn!(
                "descriptor {} ({:?}) of socket activation is served by no host: closed",
                passed.number,
                passed.name
            );
        }
    }
}

/// How many descriptors were passed to the process `pid`.
fn count(environment: impl Fn(&str) -> Option<OsString>, pid: u32) -> i32 {
    let number = |name: &str| environment(name)?.to_str()?.trim().parse::<u32>().ok();
    if number("LISTEN_PID") != Some(pid) {
        return 0;
    }
    number("LISTEN_FDS").and_then(|count| i32::try_from(count).ok()).unwrap_or(0).min(MOST)
}

/// The names in order, and then the name of what has none.
fn named(names: &str) -> impl Iterator<Item = String> {
    let named = |name: &str| if name.is_empty() { NAMELESS.to_owned() } else { name.to_owned() };
    names.split(':').map(named).chain(std::iter::repeat_with(|| NAMELESS.to_owned()))
}

fn listener(passed: Passed) -> Result<Listener> {
    let invalid =
        |why: &str| Error::invalid(format!("descriptor {} of socket activation: {why}", passed.number));
    let kind = sockopt::socket_type(&passed.fd).map_err(|_| invalid("not a socket"))?;
    if kind != SocketType::STREAM || !sockopt::socket_acceptconn(&passed.fd).unwrap_or(false) {
        return Err(invalid("it takes no connections (a socket unit needs ListenStream= and Accept=no)"));
    }
    match sockopt::socket_domain(&passed.fd) {
        Ok(AddressFamily::UNIX) => Ok(Listener::Unix(passed.fd.into())),
        Ok(AddressFamily::INET | AddressFamily::INET6) => Ok(Listener::Tcp(passed.fd.into())),
        _ => Err(invalid("neither a unix nor a TCP socket")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_passed_to_this_process_counts() {
        let variables = |pid: &'static str, fds: &'static str| {
            move |name: &str| match name {
                "LISTEN_PID" => Some(OsString::from(pid)),
                "LISTEN_FDS" => Some(OsString::from(fds)),
                _ => None,
            }
        };
        assert_eq!(count(variables("7", "2"), 7), 2);
        assert_eq!(count(variables("8", "2"), 7), 0);
        assert_eq!(count(variables("7", "-1"), 7), 0);
        assert_eq!(count(variables("7", "x"), 7), 0);
        assert_eq!(count(variables("7", "4000000000"), 7), 0);
        assert_eq!(count(variables("7", "2000000"), 7), MOST);
        assert_eq!(count(|_| None, 7), 0);
    }

    #[test]
    fn names_are_given_in_order() {
        let names = |text: &str| named(text).take(3).collect::<Vec<_>>();
        assert_eq!(names("api::x:y"), ["api", "unknown", "x"]);
        assert_eq!(names(""), ["unknown", "unknown", "unknown"]);
        assert_eq!(names("a"), ["a", "unknown", "unknown"]);
    }

    #[test]
    fn sockets_are_claimed_once_and_others_refused() {
        let passed = |number, name: &str, fd: OwnedFd| Passed { number, name: name.to_owned(), fd };
        let tcp = || std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut activated = Activated(vec![
            passed(3, "api", tcp().into()),
            passed(4, "api", tcp().into()),
            passed(5, "pair", std::os::unix::net::UnixStream::pair().unwrap().0.into()),
            passed(6, "file", std::fs::File::open("/dev/null").unwrap().into()),
        ]);
        let text = |result: Result<Vec<(i32, Listener)>>| result.unwrap_err().message;
        assert!(text(activated.claim(&Which::Number(9))).contains("no descriptor 9"));
        assert!(text(activated.claim(&Which::Name("web".to_owned()))).contains("\"web\""));
        let found = activated.claim(&Which::Name("api".to_owned())).unwrap();
        assert_eq!(found.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3, 4]);
        assert!(text(activated.claim(&Which::Number(3))).contains("no descriptor 3"));
        assert!(text(activated.claim(&Which::Number(5))).contains("takes no connections"));
        assert!(text(activated.claim(&Which::All)).contains("not a socket"));
        assert!(text(activated.claim(&Which::All)).contains("no sockets found via socket activation"));
    }
}
