//! Daemons on other machines, by ssh: the far side's own client joins its streams to its daemon's socket.
//!
//! ```text
//!   us <══ socket pair ══> ssh <~~~ network ~~~> sshd <══> dewar system dial-stdio <══> daemon
//! ```
//!
//! Each connection is an ssh of its own; `ControlMaster` in ssh's configuration makes them cheap. Who may log in,
//! and as whom, is ssh's business; it has no terminal to ask on, as with the docker client, but may use
//! `SSH_ASKPASS`. What it has to say goes to our standard error.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::http::socket::Socket;

/// `ssh://[user@]host[:port][/path/of/the/daemons.sock]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    /// The daemon's socket over there; `None` is what the client there takes.
    path: Option<String>,
}

impl Ssh {
    /// Parses what follows `ssh://`; the error is the cause alone.
    pub(super) fn parse(rest: &str) -> Result<Ssh, &'static str> {
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if rest.contains(['?', '#']) {
            return Err("ssh takes neither a query nor a fragment");
        }
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => return Err("plain-text password is not supported"),
            Some((user, address)) => (Some(user.to_owned()), address),
            None => (None, authority),
        };
        let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((v6, "")) => (v6, None),
            Some((v6, port)) => (v6, Some(port.strip_prefix(':').ok_or("invalid port")?)),
            None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map(|port| port.parse().map_err(|_| "invalid port")).transpose()?;
        // What begins with a dash would be an option of ssh's.
        let is_word =
            |word: &str| !word.is_empty() && !word.starts_with('-') && !word.contains(char::is_whitespace);
        if !is_word(host) {
            return Err("invalid host name");
        }
        if user.as_deref().is_some_and(|user| !is_word(user)) {
            return Err("invalid user name");
        }
        let path = Some(path).filter(|path| !matches!(*path, "" | "/")).map(str::to_owned);
        Ok(Ssh { user, host: host.to_owned(), port, path })
    }

    /// Arguments of ssh.
    fn args(&self) -> Vec<String> {
        let mut args: Vec<String> = ["-o", "ConnectTimeout=30", "-T"].map(str::to_owned).to_vec();
        if let Some(user) = &self.user {
            args.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = self.port {
            args.extend(["-p".to_owned(), port.to_string()]);
        }
        args.extend(["--", &self.host, "dewar"].map(str::to_owned));
        if let Some(path) = &self.path {
            args.extend(["--host".to_owned(), quoted(&format!("unix://{path}"))]);
        }
        args.extend(["system", "dial-stdio"].map(str::to_owned));
        args
    }

    /// Starts an ssh whose standard input and output are the connection.
    pub(super) fn dial(&self) -> io::Result<Socket> {
        let (ours, theirs) = UnixStream::pair()?;
        let theirs = OwnedFd::from(theirs);
        let mut command = Command::new("ssh");
        // It must not be reached by the Ctrl-C that is for the container, nor stop over a question on the terminal.
        command.process_group(0);
        match std::env::var_os("SSH_ASKPASS") {
            Some(_) => command.env("SSH_ASKPASS_REQUIRE", "force"),
            None => command.args(["-o", "BatchMode=yes"]),
        };
        let child = command
            .args(self.args())
            .stdin(Stdio::from(theirs.try_clone()?))
            .stdout(Stdio::from(theirs))
            .spawn();
        let mut child = child
            .map_err(|cause| io::Error::other(format!("start ssh: {}", io::Error::from(cause.kind()))))?;
        std::thread::Builder::new().name("ssh".to_owned()).spawn(move || child.wait())?;
        Ok(Socket::Unix(ours))
    }
}

impl fmt::Display for Ssh {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(out, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(out, "[{}]", self.host)?,
            false => out.write_str(&self.host)?,
        }
        if let Some(port) = self.port {
            write!(out, ":{port}")?;
        }
        out.write_str(self.path.as_deref().unwrap_or_default())
    }
}

/// A word for the shell over there.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/:._-+@,".contains(&byte);
    match word.bytes().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_arguments() {
        for (rest, args) in [
            ("far", "-- far dewar system dial-stdio"),
            ("me@far:22/", "-l me -p 22 -- far dewar system dial-stdio"),
            ("[fe80::1]:2200", "-p 2200 -- fe80::1 dewar system dial-stdio"),
            ("far/run/x.sock", "-- far dewar --host unix:///run/x.sock system dial-stdio"),
            ("far/a b'c", r"-- far dewar --host 'unix:///a b'\''c' system dial-stdio"),
        ] {
            let ssh = Ssh::parse(rest).unwrap();
            assert_eq!(ssh.args()[3..].join(" "), args);
            assert_eq!(
                ssh.to_string().trim_end_matches('/'),
                format!("ssh://{}", rest.trim_end_matches('/'))
            );
        }
    }

    #[test]
    fn what_would_be_an_option_or_a_secret_is_refused() {
        for rest in
            ["", "me@", "-oProxyCommand=x", "-l@far", "me:secret@far", "far:x", "far?x", "a b", "[::1]x"]
        {
            assert!(Ssh::parse(rest).is_err(), "{rest}");
        }
    }
}
