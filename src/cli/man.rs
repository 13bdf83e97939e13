//! The manual pages, written from the command table: `dewar.1`, one page per noun, `dewar-daemon.8`.
//!
//! The pages are committed under `man/`. A test compares them with the table; `DEWAR_BLESS=1 cargo test`
//! writes them anew. A command is described once: with its noun, else in `dewar.1`.

use super::command::Command;
use super::commands::{COMMANDS, GLOBALS, NOUNS};
use super::help;

/// What the daemon answers to, and what is not said by a flag.
static DAEMON_SECTIONS: &[(&str, &[(&str, &str)])] = &[
    (
        "SIGNALS",
        &[
            (
                "INT, TERM",
                "Stop: accept nothing more, let requests finish for 5 seconds, stop the containers or \
              leave them (live-restore), remove sockets and pid file. The third one ends the daemon at once.",
            ),
            ("HUP", "Read the configuration file again: all of it is put in force, or nothing."),
            (
                "USR1, QUIT",
                "Write what threads and containers are doing to dump-TIME.txt below the exec root.",
            ),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "It was stopped in order."),
            ("1", "It could not start; the last line on the standard error output says why."),
            ("130, 143", "It was forced to end by the third INT or TERM."),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            (
                "HTTP_PROXY, HTTPS_PROXY, NO_PROXY",
                "Proxies, where neither flag nor file names them; also in small letters.",
            ),
            (
                "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID",
                "Where systemd is told of readiness, reloads and the end, \
              and how often that all is well.",
            ),
            ("LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID", "The sockets of socket activation, for fd:// hosts."),
            (
                "DEWAR_CERTS_DIR",
                "Where certs.d is, instead of the directories below; several are parted by colons.",
            ),
            (
                "SSL_CERT_FILE, SSL_CERT_DIR",
                "Whom to trust when registries prove who they are, instead of the system's list.",
            ),
            ("DEWAR_LOG", "Directives of env_logger, such as dewar::http=debug, where no level is given."),
        ],
    ),
    (
        "FILES",
        &[
            ("/etc/dewar/daemon.json", "The configuration file; see dewar-daemon.json(5)."),
            (
                "/etc/dewar/certs.d, /etc/docker/certs.d",
                "For a registry HOST[:PORT] a directory of CAs (*.crt) and of a client certificate with its key \
              (NAME.cert, NAME.key).",
            ),
            ("/var/lib/dewar", "Images, containers, volumes, checkpoints."),
            ("/run/dewar", "Sockets, mounts, dumps."),
            ("/run/dewar.sock", "The API."),
        ],
    ),
];

/// Every page: file name and text.
pub fn pages() -> Vec<(String, String)> {
    let mut pages = vec![("dewar.1".to_owned(), overview())];
    for noun in NOUNS {
        // One that several nouns have is on the page of the first.
        let is_first = |(command, name): &(&Command, &str)| {
            command.names.iter().find(|other| other.contains(' ')).is_none_or(|first| first == name)
        };
        let commands: Vec<(&Command, &str)> = help::in_noun(noun.name).filter(is_first).collect();
        let title = format!("dewar-{}", noun.name);
        let mut page = head(&title, 1, noun.summary);
        page += &format!(".SH SYNOPSIS\n.B dewar {}\n.I COMMAND\n", noun.name);
        page += &commands_section(&commands);
        page += &see_also(&title);
        pages.push((format!("{title}.1"), page));
    }
    let daemon = COMMANDS.iter().find(|command| command.name() == "daemon").expect("the table has a daemon");
    let mut page = head("dewar-daemon", 8, daemon.summary);
    page += &format!(".SH SYNOPSIS\n.B dewar daemon\n{}\n", escape(daemon.usage));
    page += &format!(".SH DESCRIPTION\n{}\n.SH OPTIONS\n", escape(daemon.about));
    page += &flags(daemon.flags);
    page += &example(daemon);
    for (title, entries) in DAEMON_SECTIONS {
        page += &format!(".SH {title}\n");
        for (name, text) in *entries {
            page += &format!(".TP\n.B {}\n{}\n", escape(name), escape(text));
        }
    }
    page += &see_also("dewar-daemon");
    pages.push(("dewar-daemon.8".to_owned(), page));
    pages
}

/// A key of the daemon's configuration file; its meaning is the flag's.
pub struct Key {
    pub name: &'static str,
    /// The long name of the flag that sets it too.
    pub flag: &'static str,
    /// What JSON it holds.
    pub kind: &'static str,
    pub is_reloaded: bool,
}

/// `dewar-daemon.json.5`, from the daemon's tables: `main` has both.
pub fn configuration(
    keys: &[Key],
    ignored: &[(&'static str, &'static str)],
    refused: &[(&'static str, &'static str)],
) -> String {
    let daemon = COMMANDS.iter().find(|command| command.name() == "daemon").expect("the table has a daemon");
    let mut page = head("dewar-daemon.json", 5, "configuration of the dewar daemon");
    page += ".SH DESCRIPTION\n";
    page += &escape(
        "The daemon reads /etc/dewar/daemon.json, or the file --config-file names, when it starts and when it gets \
         SIGHUP. The file is one JSON object with dockerd's keys, so that a file written for dockerd can be named. \
         A key that is not known is an error, and all of them are named at once. A file that is wrong keeps the \
         daemon from starting, and leaves one that runs as it was; dewar daemon --validate checks it.\n",
    );
    page += "\n.PP\n";
    page += &escape(
        "A flag counts more than the file, the file more than the environment. What is given as a flag and in the \
         file is an error, but for hosts: there the flag counts, and the start says so.\n",
    );
    page += "\n.SH KEYS\n";
    for key in keys {
        let help = daemon.flags.iter().find(|flag| flag.long == key.flag).map(|flag| help::text(flag));
        let reload = if key.is_reloaded { " Read again on SIGHUP." } else { "" };
        page += &format!(
            ".TP\n\\fB{}\\fR (\\fI{}\\fR)\n{}.{reload}\n",
            escape(key.name),
            escape(key.kind),
            escape(&help.unwrap_or_else(|| "One address, as files for dockerd before 28 have it".to_owned()))
        );
        if !key.flag.is_empty() && !key.name.contains('.') && key.flag != key.name {
            page += &format!("The flag is \\-\\-{}.\n", escape(key.flag));
        }
    }
    for (title, keys) in [("IGNORED KEYS", ignored), ("REFUSED KEYS", refused)] {
        page += &format!(".SH {title}\n");
        for (name, why) in keys {
            page += &format!(".TP\n.B {}\n{}.\n", escape(name), escape(why));
        }
    }
    page += ".SH EXAMPLE\n.nf\n";
    page += "{\n  \"hosts\": [\"unix:///run/dewar.sock\"],\n  \"live-restore\": true,\n";
    page +=
        "  \"labels\": [\"site=north\"],\n  \"shutdown-timeout\": 30\n}\n.fi\n".replace('-', "\\-").as_str();
    page += &see_also("dewar-daemon.json");
    page
}

fn overview() -> String {
    let mut page = head("dewar", 1, "run containers, freeze them with their memory, thaw them");
    page += ".SH SYNOPSIS\n.B dewar\n[OPTIONS]\n.I COMMAND\n";
    page += ".SH DESCRIPTION\n";
    page += &escape(
        "dewar is a container engine in one program. As a client it turns a command line into calls of the \
         Docker Engine API; dewar daemon serves that API. Options below stand before the command.\n",
    );
    page += ".SH OPTIONS\n";
    page += &flags(GLOBALS);
    page += ".SH COMMANDS\n";
    for command in COMMANDS {
        page += &format!(".TP\n.B dewar {}\n{}", escape(command.name()), escape(command.summary));
        page += &match page_of(command) {
            Some(page) => format!(";\nsee \\fB{}\\fR.\n", escape(&page)),
            None => "\n".to_owned(),
        };
    }
    let here: Vec<(&Command, &str)> = COMMANDS
        .iter()
        .filter(|command| page_of(command).is_none())
        .map(|command| (*command, command.name()))
        .collect();
    page += &commands_section(&here);
    page += ".SH EXIT STATUS\n";
    let codes = [
        ("0", "The command did what was asked, or whoever read its output has gone."),
        ("1", "The daemon refused, could not be reached, or the words of the command line are wrong."),
        (
            "69, 76, 77",
            "With ping only: no daemon answers; client and daemon have no API version in common; the \
             daemon's socket may not be opened.",
        ),
        (
            "125, 126, 127",
            "A flag does not read (125, with every command). With run and exec: the engine failed; the command can't be executed; there is no \
                           such command. Any other code is the container's own.",
        ),
    ];
    for (code, meaning) in codes {
        page += &format!(".TP\n.B {code}\n{}\n", escape(meaning));
    }
    page += ".SH ENVIRONMENT\n";
    page += ".TP\n.B DEWAR_HOST, DOCKER_HOST\nThe daemon's address, in this order, where \\-\\-host is not given.\n";
    page += ".SH FILES\n.TP\n.I /run/dewar.sock\nThe daemon's socket.\n";
    page += &see_also("dewar");
    page
}

/// The page that describes a command, other than `dewar.1`.
fn page_of(command: &Command) -> Option<String> {
    if command.name() == "daemon" {
        return Some("dewar-daemon(8)".to_owned());
    }
    let name = command.names.iter().find_map(|name| name.split_once(' '));
    name.map(|(noun, _)| format!("dewar-{noun}(1)"))
}

fn head(title: &str, section: u8, summary: &str) -> String {
    format!(
        ".\\\" Written from the command table; change that, then run DEWAR_BLESS=1 cargo test.\n\
         .TH {} {section} \"\" \"dewar {}\" \"\"\n.SH NAME\n{} \\- {}\n",
        title.to_uppercase(),
        env!("CARGO_PKG_VERSION"),
        escape(title),
        escape(summary)
    )
}

fn commands_section(commands: &[(&Command, &str)]) -> String {
    let mut out = String::from(".SH USAGE\n");
    for (command, name) in commands {
        out += &format!(".SS dewar {}\n", escape(name));
        for form in command.usage.lines() {
            out += &format!(".B dewar {}\n{}\n.br\n", escape(name), escape(form));
        }
        out += &format!(".PP\n{}.\n", escape(command.summary));
        for paragraph in command.about.lines().filter(|line| !line.is_empty()) {
            out += &format!(".PP\n{}\n", escape(paragraph));
        }
        let others: Vec<String> = command
            .names
            .iter()
            .filter(|other| *other != name)
            .map(|other| format!("dewar {other}"))
            .collect();
        if !others.is_empty() {
            out += &format!(".PP\nAlso: {}.\n", escape(&others.join(", ")));
        }
        out += &flags(command.flags);
        out += &example(command);
    }
    out
}

fn flags(flags: &[&'static super::command::Flag]) -> String {
    let mut out = String::new();
    for flag in help::sorted(flags) {
        let spelling = escape(&flag.spelling());
        let value =
            if flag.value.is_empty() { String::new() } else { format!(" \\fI{}\\fR", escape(flag.value)) };
        out += &format!(".TP\n\\fB{spelling}\\fR{value}\n{}.\n", escape(&help::text(flag)));
    }
    out
}

fn example(command: &Command) -> String {
    match command.example {
        "" => String::new(),
        example => format!(".PP\nExample:\n.PP\n.RS\n.nf\n{}\n.fi\n.RE\n", escape(example)),
    }
}

fn see_also(own: &str) -> String {
    let mut pages = vec![("dewar".to_owned(), 1)];
    pages.extend(NOUNS.iter().map(|noun| (format!("dewar-{}", noun.name), 1)));
    pages.push(("dewar-daemon.json".to_owned(), 5));
    pages.push(("dewar-daemon".to_owned(), 8));
    let others: Vec<String> = pages
        .iter()
        .filter(|(name, _)| name != own)
        .map(|(name, section)| format!(".BR {} ({section})", escape(name)))
        .collect();
    format!(".SH SEE ALSO\n{}\n", others.join(",\n"))
}

/// Text made safe for roff: no accidental requests, hyphens that can be searched for.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    text.lines()
        .map(|line| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() })
        .collect::<Vec<_>>()
        .join("\n")
}

/// Holds a committed page against the tables, or writes it where DEWAR_BLESS is set.
pub fn assert_committed(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("man").join(name);
    if std::env::var_os("DEWAR_BLESS").is_some() {
        std::fs::write(&path, text).expect("man/ can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "man/{name} is not what the table says: run DEWAR_BLESS=1 cargo test");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_pages_are_the_tables() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
        let mut expected: Vec<String> = Vec::new();
        for (name, text) in pages() {
            assert_committed(&name, &text);
            expected.push(name);
        }
        // Pages of other hands (5 and 7) may stand beside ours.
        let stray = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name());
        for name in stray.map(|name| name.into_string().unwrap()) {
            let ours = name.starts_with("dewar") && (name.ends_with(".1") || name.ends_with(".8"));
            assert!(!ours || expected.contains(&name), "man/{name} has no command any more");
        }
    }

    #[test]
    fn every_command_is_described_on_exactly_one_page() {
        let pages = pages();
        for command in COMMANDS.iter().filter(|command| command.name() != "daemon") {
            let headings = command.names.iter().map(|name| format!("\n.SS dewar {}\n", escape(name)));
            let count: usize = headings
                .map(|heading| pages.iter().filter(|(_, text)| text.contains(&heading)).count())
                .sum();
            assert_eq!(count, 1, "{}", command.name());
        }
    }

    #[test]
    fn roff_is_not_fooled() {
        assert_eq!(escape(".SH x\n'y \\n -d"), "\\&.SH x\n\\&'y \\en \\-d");
    }
}
