//! Dockerfile instructions that change an image's defaults: of a build, and `--change` of import and commit.

use crate::daemon::dockerfile::{self, Command, Instruction};
use crate::daemon::error::{Error, Result};
use crate::http::api::container::Empty;
use crate::http::api::image::ImageConfig;

/// Applies instructions one after the other, each a line of its own.
///
/// A new entry point has no use for the old one's arguments: it drops a command that none of the lines set.
pub fn apply_all(config: &mut ImageConfig, lines: &[String]) -> Result<()> {
    let mut is_command_set = false;
    for line in lines {
        let invalid = |cause: &dyn std::fmt::Display| Error::invalid(format!("change {line:?}: {cause}"));
        let step = dockerfile::parse_step(line).map_err(|error| invalid(&error.cause))?;
        let env = config.env.clone();
        apply(config, &step.instruction, '\\', &|name| variable(&env, name))
            .map_err(|cause| invalid(&cause))?;
        is_command_set |= matches!(step.instruction, Instruction::Cmd(_));
        if matches!(step.instruction, Instruction::Entrypoint(_)) && !is_command_set {
            config.cmd = None;
        }
    }
    Ok(())
}

/// The value of `name` in `NAME=value` lines.
pub fn variable(env: &[String], name: &str) -> Option<String> {
    env.iter().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// Applies `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `HEALTHCHECK`, `LABEL`, `ONBUILD`, `SHELL`, `STOPSIGNAL`,
/// `USER`, `VOLUME` or `WORKDIR`, with variables expanded by `lookup` where Docker expands them. Refuses every
/// other instruction, and values that make no sense.
pub fn apply(
    config: &mut ImageConfig,
    instruction: &Instruction,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<(), String> {
    let expand = |word: &str| dockerfile::expand(word, escape, lookup).map_err(|cause| cause.to_string());
    let refuse = |name: &str| Err(format!("{name} is not a valid change command"));
    match instruction {
        Instruction::Cmd(command) => config.cmd = Some(words_of(config, command)),
        Instruction::Entrypoint(command) => config.entrypoint = Some(words_of(config, command)),
        Instruction::Env(pairs) => {
            for (key, value) in pairs {
                let (key, value) = (expand(key)?, expand(value)?);
                let prefix = format!("{key}=");
                let entry = format!("{prefix}{value}");
                match config.env.iter_mut().find(|present| present.starts_with(&prefix)) {
                    Some(present) => *present = entry,
                    None => config.env.push(entry),
                }
            }
        }
        Instruction::Label(pairs) => {
            for (key, value) in pairs {
                config.labels.insert(expand(key)?, expand(value)?);
            }
        }
        Instruction::Expose(words) => {
            for word in words {
                let words =
                    dockerfile::expand_words(word, escape, lookup).map_err(|cause| cause.to_string())?;
                for word in words {
                    expose(config, &word)?;
                }
            }
        }
        Instruction::Healthcheck(check) => config.healthcheck = Some(check.clone()),
        Instruction::Onbuild(text) => config.on_build.push(text.clone()),
        Instruction::Shell(words) => config.shell = Some(words.clone()),
        Instruction::Stopsignal(signal) => config.stop_signal = Some(expand(signal)?),
        Instruction::User(user) => config.user = expand(user)?,
        Instruction::Volume(paths) => {
            for path in paths {
                let path = expand(path)?;
                if path.is_empty() {
                    return Err("VOLUME specified can not be an empty string".to_owned());
                }
                config.volumes.insert(path, Empty {});
            }
        }
        Instruction::Workdir(path) => {
            let path = std::path::Path::new("/").join(&config.working_dir).join(expand(path)?);
            config.working_dir = path.display().to_string();
        }
        Instruction::Arg(_) => return refuse("ARG"),
        Instruction::Run(_) => return refuse("RUN"),
        Instruction::Copy(_) => return refuse("COPY"),
        Instruction::Add(_) => return refuse("ADD"),
        Instruction::Maintainer(_) => return refuse("MAINTAINER"),
    }
    Ok(())
}

/// What is executed for a command: its shell form is an argument of the shell.
pub fn words_of(config: &ImageConfig, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(text) => {
            let mut words =
                config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
            words.push(text.clone());
            words
        }
    }
}

fn expose(config: &mut ImageConfig, word: &str) -> Result<(), String> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if first <= last && matches!(protocol.as_str(), "tcp" | "udp" | "sctp") => {
            for port in first..=last {
                config.exposed_ports.insert(format!("{port}/{protocol}"), Empty {});
            }
            Ok(())
        }
        _ => Err(format!("invalid port {word:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(lines: &[&str]) -> ImageConfig {
        let mut config = ImageConfig::default();
        apply_all(&mut config, &lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()).unwrap();
        config
    }

    #[test]
    fn each_instruction_changes_its_field() {
        let config = changed(&[
            "CMD [\"a\", \"b c\"]",
            "entrypoint run me",
            "ENV A=1 B=\"two words\" C=x\\ y",
            "ENV A again and again",
            "ENV PATH=/x:$C D=${none:-dflt}",
            "LABEL l=m \"n o\"=p",
            "EXPOSE 80 90-91/udp",
            "USER 1:2",
            "VOLUME /a /b",
            "VOLUME [\"/c d\"]",
            "WORKDIR /w",
            "WORKDIR x",
            "STOPSIGNAL SIGINT",
            "HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f localhost",
        ]);
        assert_eq!(config.cmd.unwrap(), ["a", "b c"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "run me"]);
        assert_eq!(config.env, ["A=again and again", "B=two words", "C=x y", "PATH=/x:x y", "D=dflt"]);
        assert_eq!(
            config.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
            ["l=m", "n o=p"]
        );
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["80/tcp", "90/udp", "91/udp"]);
        assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/a", "/b", "/c d"]);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("1:2", "/w/x"));
        assert_eq!(config.stop_signal.unwrap(), "SIGINT");
        let check = config.healthcheck.unwrap();
        assert_eq!((check.interval, check.retries), (90_000_000_000, 3));
        assert_eq!(check.test, ["CMD-SHELL", "curl -f localhost"]);
    }

    #[test]
    fn an_entry_point_drops_the_command_it_did_not_come_with() {
        let command = |lines: &[&str]| {
            let mut config = ImageConfig { cmd: Some(vec!["old".to_owned()]), ..ImageConfig::default() };
            apply_all(&mut config, &lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()).unwrap();
            config.cmd
        };
        assert_eq!(command(&["ENTRYPOINT [\"e\"]"]), None);
        let new = Some(vec!["new".to_owned()]);
        assert_eq!(command(&["ENTRYPOINT [\"e\"]", "CMD [\"new\"]"]), new);
        assert_eq!(command(&["cmd [\"new\"]", "entrypoint [\"e\"]"]), new);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "",
            "# nothing",
            "CMD a\nCMD b",
            "CMD [1]",
            "ENV a='",
            "RUN x",
            "FROM x",
            "EXPOSE x",
            "EXPOSE 9-8",
            "EXPOSE 1/icmp",
            "ENV a",
            "ENV =b x=1",
            "HEALTHCHECK --interval=x CMD a",
            "HEALTHCHECK --nope=1s CMD a",
            "HEALTHCHECK maybe",
            "SHELL sh",
            "VOLUME [\"\"]",
        ] {
            assert!(apply_all(&mut ImageConfig::default(), &[line.to_owned()]).is_err(), "{line:?}");
        }
    }
}
