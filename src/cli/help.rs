//! `--help`, written from the command table.
//!
//! The layout is Docker's: usage, summary, aliases, flags in two columns.

use super::command::{Command, Fate, Flag, Kind};
use super::commands::{COMMANDS, GLOBALS, NOUNS};
use super::parse::Topic;

/// Lines are wrapped to this many columns.
const WIDTH: usize = 100;

/// The text for a topic.
pub fn help(topic: &Topic) -> String {
    match topic {
        Topic::Everything => everything(),
        Topic::Noun(noun) => of_noun(noun),
        Topic::Command(command, typed) => of_command(command, typed),
    }
}

fn everything() -> String {
    let mut out = String::from(
        "Usage:  dewar [OPTIONS] COMMAND\n\nRuns containers, freezes them with their memory, and thaws them\n",
    );
    let nouns: Vec<(String, &str)> = NOUNS.iter().map(|noun| (noun.name.to_owned(), noun.summary)).collect();
    let plain = |command: &&&Command| !command.name().contains(' ');
    let commands: Vec<(String, &str)> =
        COMMANDS.iter().filter(plain).map(|command| (command.name().to_owned(), command.summary)).collect();
    out += &section("Commands", &commands);
    out += &section("Management Commands", &nouns);
    out += &flags("Global Options", GLOBALS);
    out += "\nRun 'dewar COMMAND --help' for more information on a command.\n";
    out
}

fn of_noun(name: &str) -> String {
    let noun = NOUNS.iter().find(|noun| noun.name == name).expect("a topic is a noun of the table");
    let mut out = format!("Usage:  dewar {name} COMMAND\n\n{}\n", noun.summary);
    let commands: Vec<(String, &str)> =
        in_noun(name).map(|(command, full)| (full[name.len() + 1..].to_owned(), command.summary)).collect();
    out += &section("Commands", &commands);
    out += &format!("\nRun 'dewar {name} COMMAND --help' for more information on a command.\n");
    out
}

/// The commands of a noun, each with its first name there.
pub fn in_noun(noun: &str) -> impl Iterator<Item = (&'static Command, &'static str)> {
    COMMANDS.iter().filter_map(move |command| {
        let inside = |name: &&&'static str| name.split_once(' ').is_some_and(|(first, _)| first == noun);
        command.names.iter().find(inside).map(|name| (*command, *name))
    })
}

fn of_command(command: &Command, typed: &str) -> String {
    let mut out = usage(command, typed);
    out += &format!("\n{}\n", command.summary);
    if !command.about.is_empty() {
        out += &format!("\n{}\n", wrap(command.about, WIDTH).join("\n"));
    }
    if command.names.len() > 1 {
        let names: Vec<String> = command.names.iter().map(|name| format!("dewar {name}")).collect();
        out += &format!("\nAliases:\n  {}\n", names.join(", "));
    }
    out += &flags("Options", command.flags);
    if !command.example.is_empty() {
        out += &format!("\nExample:\n  {}\n", command.example);
    }
    out
}

/// The usage line, or lines.
pub fn usage(command: &Command, typed: &str) -> String {
    let mut out = String::new();
    for (at, form) in command.usage.lines().enumerate() {
        let lead = if at == 0 { "Usage:  " } else { "\t" };
        out += format!("{lead}dewar {typed} {form}").trim_end();
        out.push('\n');
    }
    if command.usage.is_empty() {
        out += &format!("Usage:  dewar {typed}\n");
    }
    out
}

/// Where to read on: about a command, or about all of them.
pub fn read_on(name: &str) -> String {
    match name {
        "" => "Run 'dewar --help' for more information".to_owned(),
        _ => format!("Run 'dewar {name} --help' for more information"),
    }
}

fn section(title: &str, lines: &[(String, &str)]) -> String {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = format!("\n{title}:\n");
    for (name, summary) in lines {
        out += &format!("  {name:width$}  {summary}\n");
    }
    out
}

fn flags(title: &str, flags: &[&'static Flag]) -> String {
    if flags.is_empty() {
        return String::new();
    }
    let lines: Vec<(String, String)> =
        sorted(flags).iter().map(|flag| (spelling(flag), text(flag))).collect();
    let width = lines.iter().map(|(spelling, _)| spelling.len()).max().unwrap_or(0);
    let mut out = format!("\n{title}:\n");
    for (spelling, text) in lines {
        for (at, part) in wrap(&text, WIDTH.saturating_sub(width + 5)).into_iter().enumerate() {
            let left = if at == 0 { spelling.as_str() } else { "" };
            out += format!("  {left:width$}   {part}").trim_end();
            out.push('\n');
        }
    }
    out
}

/// Flags by name, as readers look for them.
pub fn sorted(flags: &[&'static Flag]) -> Vec<&'static Flag> {
    let mut flags = flags.to_vec();
    flags.sort_by_key(|flag| flag.long);
    flags
}

/// `-m, --memory SIZE`
fn spelling(flag: &Flag) -> String {
    let short = flag.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
    format!("{short}--{} {}", flag.long, flag.value).trim_end().to_owned()
}

/// The help text with everything the table knows about the flag.
pub fn text(flag: &Flag) -> String {
    let mut text = flag.help.to_owned();
    match flag.default {
        Some(default) if flag.kind == Kind::Switch => text += &format!(" (default {default})"),
        Some(default) => text += &format!(" (default {default:?})"),
        None => {}
    }
    match flag.fate {
        Fate::Honoured => {}
        Fate::Ignored(reason) => text += &format!(" (accepted and ignored: {reason})"),
        Fate::Refused(reason) => text += &format!(" (not supported: {reason})"),
    }
    text
}

/// Words filled into lines; lines of their own stay so.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line += word;
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse;

    #[test]
    fn the_overview_names_every_top_level_command_and_every_noun() {
        let text = help(&Topic::Everything);
        for command in COMMANDS.iter().filter(|command| !command.name().contains(' ')) {
            assert!(text.contains(&format!("\n  {} ", command.name())), "{}", command.name());
        }
        for noun in NOUNS {
            assert!(text.contains(&format!("\n  {} ", noun.name)), "{}", noun.name);
            assert!(in_noun(noun.name).count() > 0, "{} has no command", noun.name);
        }
    }

    #[test]
    fn a_command_explains_each_flag_in_lines_that_fit() {
        for command in COMMANDS {
            let text = help(&Topic::Command(command, command.name().to_owned()));
            assert!(text.starts_with(&format!("Usage:  dewar {}", command.name())));
            for flag in command.flags {
                assert!(text.contains(&format!("--{}", flag.long)), "{} --{}", command.name(), flag.long);
            }
            for line in text.lines() {
                assert!(line.chars().count() <= WIDTH + 20, "{}: {line}", command.name());
            }
        }
    }

    #[test]
    fn help_reads_like_dockers() {
        let command = parse::find("checkpoint create").unwrap();
        assert_eq!(
            help(&Topic::Command(command, "checkpoint create".to_owned())),
            "Usage:  dewar checkpoint create [OPTIONS] CONTAINER CHECKPOINT\n\
             \n\
             Freeze a running container to disk\n\
             \n\
             The container's processes, its terminal, its files and what is in its volumes are saved under the\n\
             checkpoint's name, all as they were at one moment; the container then stops unless --leave-running\n\
             is given. dewar start --checkpoint thaws it. Left out are directories of the host, volumes that are\n\
             mounted read-only or are another device, and volumes with the label dewar.checkpoint=skip. With -o\n\
             the checkpoint becomes a file here, or goes to standard output, while it is made, compressed and,\n\
             with recipients or a passphrase, encrypted as checkpoint export does it; checkpoint import makes a\n\
             container of it. No memory is written to the daemon's disk then. The container ends when all of it\n\
             is here, and runs on if anything breaks before. One with a terminal cannot be streamed. Digests of\n\
             large files are taken after the answer, in the background; if the machine goes down before that,\n\
             only start --trust thaws the checkpoint.\n\
             \n\
             Options:\n\
             \x20     --checkpoint-dir PATH    Directory of the host that holds the checkpoints\n\
             \x20     --compress               Keep the memory compressed, with zstd\n\
             \x20     --file-locks             Save file locks; they always are\n\
             \x20     --leave-running          Let the container run on after the checkpoint\n\
             \x20     --no-volumes             Leave the content of the volumes out\n\
             \x20 -o, --output FILE|-          Write the checkpoint into this file here, and none at the daemon's\n\
             \x20     --output-compress HOW    Compress what -o writes with zstd, gzip or none (zstd)\n\
             \x20     --passphrase             Encrypt or decrypt with a passphrase, which is asked for\n\
             \x20     --passphrase-file FILE   Encrypt or decrypt with the passphrase in the first line of this file\n\
             \x20     --pre-check              Look for what stands in the way first, and try nothing if there is\n\
             \x20                              something\n\
             \x20     --recipient KEY          Encrypt for this public key of age (repeatable)\n\
             \x20     --recipients-file FILE   Encrypt for the public keys in this file, one a line (repeatable)\n\
             \x20     --skip-volume NAME       Leave this volume out, named by name or destination (repeatable)\n\
             \x20     --tcp-close              Do not save open TCP connections: they come back closed\n\
             \x20     --tcp-established        Save open TCP connections; they always are, unless --tcp-close\n\
             \n\
             Example:\n\
             \x20 dewar checkpoint create web cp1\n"
        );
    }
}
