//! `dewar login` and `logout`: who the user is at a registry, asked, checked by the daemon, and kept.
//!
//! Compat: words, order and what goes to stderr are the docker client's.

use std::io::{self, Read, Write};

use crate::http::api::auth::{AuthConfig, SYSTEM_AUTH};
use crate::runtime::sys::terminal::{self, RawMode};

use super::command::{Action, Args, Command, Flag};
use super::context::{Context, print};
use super::credentials::{self, INDEX_SERVER, hostname};
use super::error::Error;
use super::say;

static PASSWORD: Flag =
    Flag::value("password", "PASSWORD", "Password or access token; better read from stdin").short('p');
static PASSWORD_STDIN: Flag = Flag::switch("password-stdin", "Read the password from stdin");
static USERNAME: Flag = Flag::value("username", "NAME", "Name at the registry").short('u');

/// The exit code of what Ctrl-C ended.
const INTERRUPTED: u8 = 130;

pub static LOGIN: Command = Command {
    names: &["login"],
    summary: "Log in to a registry",
    usage: "[OPTIONS] [SERVER]",
    about: "Without SERVER it is Docker Hub. The daemon checks name and password at the registry; they are then kept in \
            config.json, or by the helper program that its credsStore or credHelpers names, and sent with pulls and \
            pushes.",
    flags: &[&PASSWORD, &PASSWORD_STDIN, &USERNAME],
    args: Args::between(0, 1),
    example: "dewar login --username me --password-stdin registry.example.com",
    usage_code: 1,
    plan: |matches| {
        let wish = Wish {
            server: matches.args.first().cloned().unwrap_or_default(),
            username: matches.text(&USERNAME),
            password: matches.text(&PASSWORD),
            reads_password: matches.is(&PASSWORD_STDIN),
        };
        Action::call(move |context| login(context, wish))
    },
};

pub static LOGOUT: Command = Command {
    names: &["logout"],
    summary: "Log out from a registry",
    usage: "[SERVER]",
    about: "",
    flags: &[],
    args: Args::between(0, 1),
    example: "dewar logout registry.example.com",
    usage_code: 1,
    plan: |matches| {
        let server = matches.args.first().cloned().unwrap_or_default();
        Action::call(move |context| logout(context, &server).map(|()| 0))
    },
};

/// What was asked for on the command line.
struct Wish {
    server: String,
    username: String,
    password: String,
    reads_password: bool,
}

fn login(context: &Context, mut wish: Wish) -> Result<u8, Error> {
    let refused = |words: &str| Err(Error::Local(words.to_owned()));
    if !wish.password.is_empty() {
        if wish.reads_password {
            return refused("conflicting options: cannot specify both --password and --password-stdin");
        }
        say("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    if wish.reads_password {
        if wish.username.is_empty() {
            return refused("the --password-stdin option requires --username to be set");
        }
        let mut text = String::new();
        io::stdin()
            .read_to_string(&mut text)
            .map_err(|cause| Error::local("read the password from standard input", cause))?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        wish.password = line.strip_suffix('\r').unwrap_or(line).to_owned();
    }
    let server = match wish.server.as_str() {
        "" | "docker.io" | INDEX_SERVER => INDEX_SERVER.to_owned(),
        server => hostname(server).to_owned(),
    };
    let mut known = String::new();
    if wish.username.is_empty() && wish.password.is_empty() {
        let kept = credentials::get(context.config(), &server).unwrap_or_default();
        if !kept.username.is_empty() && !kept.password.is_empty() {
            let kept = AuthConfig { server_address: server.clone(), identity_token: String::new(), ..kept };
            say(&format!("Authenticating with existing credentials... [Username: {}]\n", kept.username));
            // Compat: with its sign where somebody sees it.
            let note = if terminal::is_terminal(io::stderr()) { "i Info →" } else { " Info ->" };
            say(&format!(
                "{note} To login with a different account, run 'dewar logout' followed by 'dewar login'\n\n"
            ));
            known.clone_from(&kept.username);
            match enter(context, kept) {
                Ok(()) => return Ok(0),
                Err(Error::Daemon { status: 401, .. }) => say("Stored credentials invalid or expired"),
                Err(error) => say(&format!("Login did not succeed, error: {error}")),
            }
        }
    }
    let (username, password) = (wish.username.trim(), wish.password.trim());
    if (username.is_empty() || password.is_empty()) && !terminal::is_terminal(io::stdin()) {
        let message = "Error: Cannot perform an interactive login from a non TTY device";
        return Err(Error::Local(message.to_owned()));
    }
    let username = match username {
        "" => ask_name(&server, &known)?,
        given => given.to_owned(),
    };
    let password = match password {
        "" => match ask_password()? {
            Some(password) if password.is_empty() => {
                return Err(Error::Local("Error: Password Required".to_owned()));
            }
            Some(password) => password,
            None => return Ok(INTERRUPTED),
        },
        given => given.to_owned(),
    };
    let credentials = AuthConfig { username, password, server_address: server, ..AuthConfig::default() };
    enter(context, credentials).map(|()| 0)
}

/// Has the credentials checked and keeps them, or the token the registry gave in their place.
fn enter(context: &Context, mut credentials: AuthConfig) -> Result<(), Error> {
    let answer = context.call(&SYSTEM_AUTH, &[], &(), &credentials)?;
    if !answer.identity_token.is_empty() {
        credentials.password.clear();
        credentials.identity_token = answer.identity_token;
    }
    let is_plain = credentials::store(context.config(), &credentials)
        .map_err(|error| Error::Local(format!("Error saving credentials: {error}")))?;
    if is_plain {
        say(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\n\
             Configure a credential helper to remove this warning. See\n\
             https://docs.docker.com/go/credential-store/\n",
            context.config().path().display()
        ));
    }
    print(&format!("{}\n", answer.status))
}

fn ask_name(server: &str, known: &str) -> Result<String, Error> {
    if server == INDEX_SERVER {
        print(
            "Log in with your Docker ID or email address to push and pull images from Docker Hub. If you don't \
             have a Docker ID, head over to https://hub.docker.com/ to create one.\n",
        )?;
    }
    print(&if known.is_empty() { "Username: ".to_owned() } else { format!("Username ({known}): ") })?;
    let mut line = String::new();
    io::stdin()
        .read_line(&mut line)
        .map_err(|cause| Error::local("read the name from standard input", cause))?;
    match line.trim() {
        "" if known.is_empty() => Err(Error::Local("Error: Non-null Username Required".to_owned())),
        "" => Ok(known.to_owned()),
        name => Ok(name.to_owned()),
    }
}

/// Asks for a password; `None` if that was broken off.
fn ask_password() -> Result<Option<String>, Error> {
    let show = |text: &str| {
        let mut out = io::stdout();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    };
    let typed = ask_hidden("Password: ", show)?;
    Ok(typed.map(|text| text.trim().to_owned()))
}

/// Asks for a line without showing it, in words that `show` writes; `None` if that was broken off.
///
/// In raw mode, so that no way out leaves a terminal that shows nothing: Ctrl-C comes as a character.
pub fn ask_hidden(prompt: &str, show: impl Fn(&str) -> io::Result<()>) -> Result<Option<String>, Error> {
    let failed = |cause| Error::local("read the password from the terminal", cause);
    // Before it is asked for: whoever types at once is not shown either.
    let raw = RawMode::enter(io::stdin()).map_err(failed)?;
    show(prompt).map_err(super::terminal::output_error)?;
    let typed = line_of(io::stdin().lock()).map_err(failed);
    drop(raw);
    // The end of the line that was not shown either.
    show("\n").map_err(super::terminal::output_error)?;
    let Some(bytes) = typed? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|_| Error::local("read the password", "it is no UTF-8"))
}

/// One line as a terminal in raw mode gives it, with what is taken back left out; `None` if it was broken off.
fn line_of(mut input: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut line: Vec<u8> = Vec::new();
    let mut byte = [0];
    while input.read(&mut byte)? == 1 {
        match byte[0] {
            b'\r' | b'\n' => break,
            0x03 => return Ok(None),
            // The end of the input counts on an empty line only.
            0x04 if line.is_empty() => break,
            0x04 => {}
            0x08 | 0x7f => {
                // A character may be several bytes: all that continue one, and the one they continue.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            0x15 => line.clear(),
            other => line.push(other),
        }
    }
    Ok(Some(line))
}

fn logout(context: &Context, server: &str) -> Result<(), Error> {
    let (shown, spellings) = match server {
        "" => (INDEX_SERVER.to_owned(), vec![INDEX_SERVER.to_owned()]),
        server => {
            let host = hostname(server);
            // Compat: a registry may have been kept in any of these spellings.
            let spellings =
                vec![server.to_owned(), host.to_owned(), format!("http://{host}"), format!("https://{host}")];
            (host.to_owned(), spellings)
        }
    };
    print(&format!("Removing login credentials for {shown}\n"))?;
    let failures: Vec<_> = spellings
        .iter()
        .filter_map(|server| {
            let error = credentials::erase(context.config(), server).err()?;
            Some(format!("{server}: {error}"))
        })
        .collect();
    // One that could be forgotten is what was meant.
    if failures.len() == spellings.len() {
        say(&format!("WARNING: could not erase credentials:\n{}", failures.join("\n")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_edited_as_it_is_typed() {
        let typed = |bytes: &[u8]| line_of(bytes).unwrap().map(|line| String::from_utf8(line).unwrap());
        assert_eq!(typed(b"secret\rrest").as_deref(), Some("secret"));
        assert_eq!(typed("sé\u{7f}ecx\u{8}ret\n".as_bytes()).as_deref(), Some("secret"));
        assert_eq!(typed(b"wrong\x15right\r").as_deref(), Some("right"));
        assert_eq!(typed(b"half\x03").as_deref(), None);
        assert_eq!(typed(b"\x04more").as_deref(), Some(""));
        assert_eq!(typed(b"a\x04b").as_deref(), Some("ab"));
        assert_eq!(typed(b"\x7f\x7fa").as_deref(), Some("a"));
    }
}
