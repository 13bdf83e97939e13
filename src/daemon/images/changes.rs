//! Dockerfile instructions that change an image's defaults, one per line: `--change` of import and commit.

use crate::daemon::error::{Error, Result};
use crate::http::api::container::{Empty, Healthcheck};
use crate::http::api::image::ImageConfig;

/// Applies instructions one after the other.
///
/// A new entry point has no use for the old one's arguments: it drops a command that none of the lines set.
pub fn apply_all(config: &mut ImageConfig, lines: &[String]) -> Result<()> {
    let is = |line: &str, name: &str| {
        line.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case(name))
    };
    let mut is_command_set = false;
    for line in lines {
        apply(config, line)?;
        is_command_set |= is(line, "CMD");
        if is(line, "ENTRYPOINT") && !is_command_set {
            config.cmd = None;
        }
    }
    Ok(())
}

/// Applies `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `HEALTHCHECK`, `LABEL`, `ONBUILD`, `SHELL`, `STOPSIGNAL`,
/// `USER`, `VOLUME` or `WORKDIR`. Refuses (400) every other instruction, and words that make no sense.
pub fn apply(config: &mut ImageConfig, line: &str) -> Result<()> {
    let line = line.trim();
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let name = name.to_ascii_uppercase();
    let refuse = |cause: &str| Err(Error::invalid(format!("change {line:?}: {cause}")));
    if rest.is_empty() {
        return refuse(&format!("{name} requires at least one argument"));
    }
    let command = |text: &str| {
        json_words(text).unwrap_or_else(|| {
            let mut words =
                config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
            words.push(text.to_owned());
            words
        })
    };
    match name.as_str() {
        "CMD" => config.cmd = Some(command(rest)),
        "ENTRYPOINT" => {
            config.entrypoint = Some(command(rest));
        }
        "ENV" => {
            let Some(pairs) = pairs(rest) else { return refuse("ENV must have the form key=value") };
            for (key, value) in pairs {
                let prefix = format!("{key}=");
                let entry = format!("{prefix}{value}");
                match config.env.iter_mut().find(|present| present.starts_with(&prefix)) {
                    Some(present) => *present = entry,
                    None => config.env.push(entry),
                }
            }
        }
        "LABEL" => {
            let Some(pairs) = pairs(rest) else { return refuse("LABEL must have the form key=value") };
            config.labels.extend(pairs);
        }
        "EXPOSE" => {
            for word in words(rest) {
                let (ports, protocol) = word.split_once('/').unwrap_or((&word, "tcp"));
                let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
                match (first.parse::<u16>(), last.parse::<u16>()) {
                    (Ok(first), Ok(last)) if first <= last && matches!(protocol, "tcp" | "udp" | "sctp") => {
                        for port in first..=last {
                            config.exposed_ports.insert(format!("{port}/{protocol}"), Empty {});
                        }
                    }
                    _ => return refuse(&format!("invalid port {word:?}")),
                }
            }
        }
        "HEALTHCHECK" => match healthcheck(rest, command) {
            Ok(check) => config.healthcheck = Some(check),
            Err(cause) => return refuse(&cause),
        },
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        "SHELL" => match json_words(rest) {
            Some(words) => config.shell = Some(words),
            None => return refuse("SHELL requires the arguments to be in JSON form"),
        },
        "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
        "USER" => config.user = rest.to_owned(),
        "VOLUME" => {
            for path in json_words(rest).unwrap_or_else(|| words(rest)) {
                if path.is_empty() {
                    return refuse("VOLUME specified can not be an empty string");
                }
                config.volumes.insert(path, Empty {});
            }
        }
        "WORKDIR" => {
            let path = std::path::Path::new("/").join(&config.working_dir).join(rest);
            config.working_dir = path.display().to_string();
        }
        _ => return refuse(&format!("{name} is not a valid change command")),
    }
    Ok(())
}

/// `["a", "b"]`; `None` when it is not that, and so is meant for the shell.
fn json_words(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// Words parted by blanks, with quotes and backslashes taken away as a shell would.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(letter) = chars.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(chars.next()),
            (letter, Some(open)) if letter == open => quote = None,
            (letter, Some(_)) => word.get_or_insert_default().push(letter),
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, None) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// `a=b "c d"=e`, or the old form `a b c` that sets one key.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let words = words(text);
    if !words.first()?.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    words
        .iter()
        .map(|word| {
            let (key, value) = word.split_once('=')?;
            (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
        })
        .collect()
}

fn healthcheck(text: &str, command: impl Fn(&str) -> Vec<String>) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    let mut rest = text;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        rest = after.trim_start();
        let (name, value) = flag.split_once('=').ok_or_else(|| format!("--{flag} has no value"))?;
        let invalid = || format!("invalid value {value:?} of --{name}");
        if name == "retries" {
            check.retries = value.parse().ok().filter(|count| *count >= 0).ok_or_else(invalid)?;
            continue;
        }
        let nanos = duration(value).ok_or_else(invalid)?;
        match name {
            "interval" => check.interval = nanos,
            "timeout" => check.timeout = nanos,
            "start-period" => check.start_period = nanos,
            "start-interval" => check.start_interval = nanos,
            _ => return Err(format!("unknown flag: --{name}")),
        }
    }
    let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    check.test = match kind.to_ascii_uppercase().as_str() {
        "NONE" => vec!["NONE".to_owned()],
        "CMD" => match json_words(rest.trim()) {
            Some(words) => [vec!["CMD".to_owned()], words].concat(),
            None => vec!["CMD-SHELL".to_owned(), command(rest.trim()).pop().unwrap_or_default()],
        },
        other => return Err(format!("unknown type {other:?} in HEALTHCHECK (try CMD)")),
    };
    Ok(check)
}

/// A duration as Go writes it (`1m30s`, `1.5h`), in nanoseconds.
pub(super) fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len());
        total += value
            * match &rest[..end] {
                "ns" => 1.0,
                "us" | "\u{b5}s" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    (!text.is_empty() && total <= 9e18).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(lines: &[&str]) -> ImageConfig {
        let mut config = ImageConfig::default();
        for line in lines {
            apply(&mut config, line).unwrap();
        }
        config
    }

    #[test]
    fn each_instruction_changes_its_field() {
        let config = changed(&[
            "CMD [\"a\", \"b c\"]",
            "entrypoint run me",
            "ENV A=1 B=\"two words\" C=x\\ y",
            "ENV A again and again",
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
        assert_eq!(config.env, ["A=again and again", "B=two words", "C=x y"]);
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
            "CMD",
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
            assert!(apply(&mut ImageConfig::default(), line).is_err(), "{line:?}");
        }
    }
}
