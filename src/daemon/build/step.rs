//! Instructions that only change the config, and which module does the others.
//!
//! The texts are what Docker's builder writes in the history: they are what a step is found by.

use super::stage::Stage;
use super::{Outcome, copy, root, run};
use crate::daemon::containers::lifecycle;
use crate::daemon::dockerfile::{Command, Instruction};
use crate::daemon::error::{Error, Result};
use crate::http::api::container::{Empty, Healthcheck};

/// Carries out one instruction.
pub fn run(stage: &mut Stage<'_>, instruction: &Instruction) -> Outcome<()> {
    let text = match instruction {
        Instruction::Run(run) => return run::run(stage, run),
        Instruction::Copy(copy) => return copy::run(stage, copy, "COPY"),
        Instruction::Add(copy) => return copy::run(stage, copy, "ADD"),
        Instruction::Workdir(path) => return Ok(workdir(stage, path)?),
        Instruction::Arg(pairs) => arg(stage, pairs)?,
        Instruction::Env(pairs) => env(stage, pairs)?,
        Instruction::Label(pairs) => label(stage, pairs)?,
        Instruction::User(user) => {
            stage.config.user = stage.expand(user)?;
            format!("USER {}", stage.config.user)
        }
        Instruction::Expose(words) => expose(stage, words)?,
        Instruction::Volume(paths) => volume(stage, paths)?,
        Instruction::Cmd(command) => {
            let words = words(stage, command);
            let text = format!("CMD {}", quoted_list(&words));
            stage.config.cmd = Some(words);
            stage.is_command_set = true;
            text
        }
        Instruction::Entrypoint(command) => {
            let words = words(stage, command);
            let text = format!("ENTRYPOINT {}", quoted_list(&words));
            stage.config.entrypoint = (!words.is_empty()).then_some(words);
            // What an image below has for its own entry point means nothing to this one.
            if !stage.is_command_set {
                stage.config.cmd = None;
            }
            text
        }
        Instruction::Shell(words) => {
            stage.config.shell = Some(words.clone());
            format!("SHELL [{}]", words.join(" "))
        }
        Instruction::Healthcheck(check) => {
            stage.config.healthcheck = Some(check.clone());
            format!("HEALTHCHECK {}", quoted_check(check))
        }
        Instruction::Stopsignal(signal) => {
            let signal = stage.expand(signal)?;
            lifecycle::parse_signal(&signal)?;
            stage.config.stop_signal = Some(signal.clone());
            format!("STOPSIGNAL {signal}")
        }
        Instruction::Onbuild(trigger) => {
            stage.config.on_build.push(trigger.clone());
            format!("ONBUILD {trigger}")
        }
        Instruction::Maintainer(name) => {
            stage.author.clone_from(name);
            format!("MAINTAINER {name}")
        }
    };
    let created_by = stage.comment(&format!(" {text}"));
    let step = stage.step(created_by);
    if !stage.find(&step)? {
        let image = stage.job.engine.images.derive(&step)?;
        stage.advance(image);
    }
    Ok(())
}

fn words(stage: &Stage<'_>, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(text) => [stage.shell(), vec![text.clone()]].concat(),
    }
}

fn arg(stage: &mut Stage<'_>, pairs: &[(String, Option<String>)]) -> Result<String> {
    let mut text = "ARG".to_owned();
    let mut expanded = Vec::new();
    for (name, default) in pairs {
        let default = default.as_ref().map(|word| stage.expand(word)).transpose()?;
        text.push_str(&format!(" {name}"));
        if let Some(default) = &default {
            text.push_str(&format!("={default}"));
        }
        expanded.push((name, default));
    }
    expanded.into_iter().for_each(|(name, default)| stage.args.declare(name, default));
    Ok(text)
}

fn env(stage: &mut Stage<'_>, pairs: &[(String, String)]) -> Result<String> {
    let mut text = "ENV".to_owned();
    // All see what was before the instruction.
    let mut expanded = Vec::new();
    for (name, value) in pairs {
        let (name, value) = (stage.expand(name)?, stage.expand(value)?);
        if name.is_empty() {
            return Err(Error::invalid("ENV names can not be blank"));
        }
        expanded.push((format!("{name}="), format!("{name}={value}")));
    }
    for (prefix, entry) in expanded {
        text.push_str(&format!(" {entry}"));
        match stage.config.env.iter_mut().find(|present| present.starts_with(&prefix)) {
            Some(present) => *present = entry,
            None => stage.config.env.push(entry),
        }
    }
    Ok(text)
}

fn label(stage: &mut Stage<'_>, pairs: &[(String, String)]) -> Result<String> {
    let mut text = "LABEL".to_owned();
    for (name, value) in pairs {
        let (name, value) = (stage.expand(name)?, stage.expand(value)?);
        if name.is_empty() {
            return Err(Error::invalid("LABEL names can not be blank"));
        }
        text.push_str(&format!(" {name}={value}"));
        stage.config.labels.insert(name, value);
    }
    Ok(text)
}

fn expose(stage: &mut Stage<'_>, words: &[String]) -> Result<String> {
    let mut ports = Vec::new();
    for word in words {
        for word in stage.expand_words(word)? {
            ports.extend(ports_of(&word)?);
        }
    }
    ports.sort();
    for port in &ports {
        stage.config.exposed_ports.insert(port.clone(), Empty {});
    }
    Ok(format!("EXPOSE {}", ports.join(" ")))
}

/// `80`, `80/udp`, `80-90/tcp`, each possibly behind addresses and ports of the host, which count for nothing.
fn ports_of(word: &str) -> Result<Vec<String>> {
    let invalid = || Error::invalid(format!("invalid containerPort: {word}"));
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let ports = ports.rsplit(':').next().unwrap_or_default();
    let protocol = protocol.to_ascii_lowercase();
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if first <= last && matches!(protocol.as_str(), "tcp" | "udp" | "sctp") => {
            Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
        }
        _ => Err(invalid()),
    }
}

fn volume(stage: &mut Stage<'_>, paths: &[String]) -> Result<String> {
    let paths = paths.iter().map(|path| stage.expand(path)).collect::<Result<Vec<_>>>()?;
    for path in &paths {
        if path.trim().is_empty() {
            return Err(Error::invalid("VOLUME specified can not be an empty string"));
        }
        stage.config.volumes.insert(path.trim().to_owned(), Empty {});
    }
    Ok(format!("VOLUME [{}]", paths.join(" ")))
}

fn workdir(stage: &mut Stage<'_>, path: &str) -> Result<()> {
    let path = stage.expand(path)?;
    if path.is_empty() {
        return Err(Error::invalid("cannot normalize nothing"));
    }
    stage.config.working_dir = root::absolute(&stage.config.working_dir, &path);
    let created_by = stage.comment(&format!("WORKDIR {}", stage.config.working_dir));
    let step = stage.step(created_by);
    if stage.find(&step)? {
        return Ok(());
    }
    let image = copy::make_directory(stage, &step)?;
    stage.advance(image);
    Ok(())
}

/// A list as Go writes it with `%q`.
fn quoted_list(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
}

/// A text as Go quotes it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            letter if (letter as u32) < 0x20 || letter as u32 == 0x7f => {
                out.push_str(&format!("\\x{:02x}", letter as u32));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

/// A check as Go writes a pointer to its struct with `%q`.
fn quoted_check(check: &Healthcheck) -> String {
    let durations = [check.interval, check.timeout, check.start_period, check.start_interval];
    let durations = durations.map(|nanos| format!("\"{}\"", go_duration(nanos))).join(" ");
    let retries = u32::try_from(check.retries).ok().and_then(char::from_u32);
    let retries = match retries {
        Some(letter) if (' '..='~').contains(&letter) && !matches!(letter, '\'' | '\\') => {
            format!("'{letter}'")
        }
        _ => format!("'\\x{:02x}'", check.retries),
    };
    format!("&{{{} {durations} {retries}}}", quoted_list(&check.test))
}

/// Nanoseconds as Go writes a duration.
fn go_duration(nanos: i64) -> String {
    let part = |value: f64, unit: &str| format!("{value}{unit}");
    match nanos {
        0 => "0s".to_owned(),
        1..=999 => format!("{nanos}ns"),
        1_000..=999_999 => part(nanos as f64 / 1e3, "\u{b5}s"),
        1_000_000..=999_999_999 => part(nanos as f64 / 1e6, "ms"),
        _ => {
            let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
            let tail = part((seconds % 60) as f64 + rest as f64 / 1e9, "s");
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => tail,
                (0, minutes) => format!("{minutes}m{tail}"),
                (hours, minutes) => format!("{hours}h{minutes}m{tail}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_are_written_as_go_does() {
        assert_eq!(
            quoted_list(&["a b".to_owned(), "\"\\\n\u{1}\u{e9}".to_owned()]),
            "[\"a b\" \"\\\"\\\\\\n\\x01\u{e9}\"]"
        );
        let check = Healthcheck {
            test: vec!["CMD-SHELL".to_owned(), "true".to_owned()],
            interval: 90_000_000_000,
            timeout: 1_500_000_000,
            start_period: 3_600_000_000_000,
            start_interval: 100_000_000,
            retries: 3,
        };
        let text = "&{[\"CMD-SHELL\" \"true\"] \"1m30s\" \"1.5s\" \"1h0m0s\" \"100ms\" '\\x03'}";
        assert_eq!(quoted_check(&check), text);
    }

    #[test]
    fn ports_come_in_ranges_and_behind_addresses() {
        assert_eq!(ports_of("80").unwrap(), ["80/tcp"]);
        assert_eq!(ports_of("127.0.0.1:8080:80-81/UDP").unwrap(), ["80/udp", "81/udp"]);
        for bad in ["x", "9-8", "80/icmp", ""] {
            assert!(ports_of(bad).is_err(), "{bad}");
        }
    }
}
