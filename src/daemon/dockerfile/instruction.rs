//! One line of a Dockerfile as an instruction.

use super::lines::{Line, here_doc};
use super::words::{Json, NOT_STRINGS, Split, json_words, pairs, plain_words, split_command, words};
use super::{Command, Copy, Instruction, Run, Source, Stage, Step, expand, mount};
use crate::http::api::container::Healthcheck;

/// What a line may be.
#[derive(Debug)]
pub enum Read {
    From(Stage),
    Step(Step),
}

/// Reads a line. The error lacks the line's number.
pub fn read(line: &Line, escape: char) -> Result<Read, String> {
    let split = split_command(&line.text);
    let name = split.name.to_ascii_uppercase();
    let flags = Flags::new(&split.flags);
    let text = line.text.trim().to_owned();
    if name == "FROM" {
        let mut stage = from(split.rest, flags)?;
        (stage.line, stage.text) = (line.first, text);
        return Ok(Read::From(stage));
    }
    let instruction = match name.as_str() {
        "ARG" => Instruction::Arg(args(split.rest, escape, flags)?),
        "ENV" => Instruction::Env(without_flags(flags, || pairs(split.rest, escape, "ENV"))?),
        "LABEL" => Instruction::Label(without_flags(flags, || pairs(split.rest, escape, "LABEL"))?),
        "RUN" => Instruction::Run(run(line, &split, flags, escape)?),
        "COPY" => Instruction::Copy(copy(line, &split, flags, "COPY")?),
        "ADD" => Instruction::Add(copy(line, &split, flags, "ADD")?),
        "WORKDIR" => Instruction::Workdir(one("WORKDIR", split.rest, flags)?),
        "USER" => Instruction::User(one("USER", split.rest, flags)?),
        "STOPSIGNAL" => Instruction::Stopsignal(one("STOPSIGNAL", split.rest, flags)?),
        "MAINTAINER" => Instruction::Maintainer(one("MAINTAINER", split.rest, flags)?),
        "EXPOSE" => {
            let mut ports = without_flags(flags, || some("EXPOSE", plain_words(split.rest)))?;
            ports.sort();
            Instruction::Expose(ports)
        }
        "VOLUME" => Instruction::Volume(without_flags(flags, || volumes(split.rest))?),
        "CMD" => Instruction::Cmd(without_flags(flags, || command(split.rest))?),
        "ENTRYPOINT" => Instruction::Entrypoint(without_flags(flags, || command(split.rest))?),
        "SHELL" => Instruction::Shell(without_flags(flags, || shell(split.rest))?),
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck(split.rest, flags)?),
        "ONBUILD" => Instruction::Onbuild(trigger(line, &split, flags)?),
        _ => return Err(format!("unknown instruction: {name}")),
    };
    Ok(Read::Step(Step { line: line.first, last_line: line.last, text, instruction }))
}

/// An instruction's flags, taken one by one; what is left at the end is unknown.
struct Flags<'a> {
    /// Name, and what follows the equals sign.
    given: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Flags<'a> {
    fn new(flags: &'a [String]) -> Flags<'a> {
        let given = flags.iter().map(|flag| {
            let flag = flag.strip_prefix("--").unwrap_or(flag);
            flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)))
        });
        Flags { given: given.collect() }
    }

    fn take_all(&mut self, name: &str) -> Result<Vec<String>, String> {
        let mut values = Vec::new();
        for (given, value) in &self.given {
            if *given == name {
                values.push(value.ok_or_else(|| format!("Missing a value on flag: {name}"))?.to_owned());
            }
        }
        self.given.retain(|(given, _)| *given != name);
        Ok(values)
    }

    /// An empty value is as good as none.
    fn take(&mut self, name: &str) -> Result<Option<String>, String> {
        let mut values = self.take_all(name)?;
        match values.len() {
            0 | 1 => Ok(values.pop().filter(|value| !value.is_empty())),
            _ => Err(format!("Duplicate flag specified: {name}")),
        }
    }

    fn take_switch(&mut self, name: &str) -> Result<bool, String> {
        let values: Vec<_> = self.given.iter().filter(|(given, _)| *given == name).collect();
        let on = match values[..] {
            [] => false,
            [(_, None)] => true,
            [(_, Some(value))] => match value.to_ascii_lowercase().as_str() {
                "true" => true,
                "false" => false,
                "" => return Err(format!("Missing a value on flag: {name}")),
                _ => return Err(format!("Expecting boolean value for flag {name}, not: {value}")),
            },
            _ => return Err(format!("Duplicate flag specified: {name}")),
        };
        self.given.retain(|(given, _)| *given != name);
        Ok(on)
    }

    fn end(self) -> Result<(), String> {
        match self.given.first() {
            Some((name, _)) => Err(format!("unknown flag: --{name}")),
            None => Ok(()),
        }
    }
}

fn without_flags<T>(flags: Flags<'_>, read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    flags.end()?;
    read()
}

fn one(name: &str, rest: &str, flags: Flags<'_>) -> Result<String, String> {
    match rest.is_empty() {
        true => Err(format!("{name} requires exactly one argument")),
        false => flags.end().map(|()| rest.to_owned()),
    }
}

fn some(name: &str, words: Vec<String>) -> Result<Vec<String>, String> {
    match words.is_empty() {
        true => Err(format!("{name} requires at least one argument")),
        false => Ok(words),
    }
}

fn from(rest: &str, mut flags: Flags<'_>) -> Result<Stage, String> {
    let words = plain_words(rest);
    let (from, name) = match &words[..] {
        [from] => (from, None),
        [from, middle, name] if middle.eq_ignore_ascii_case("as") => (from, Some(name)),
        _ => return Err("FROM requires either one or three arguments".to_owned()),
    };
    let name = match name {
        None => None,
        Some(given) => {
            let name = given.to_ascii_lowercase();
            let fine = |(index, letter): (usize, char)| {
                letter.is_ascii_lowercase()
                    || index > 0 && (letter.is_ascii_digit() || "-_.".contains(letter))
            };
            if !name.chars().enumerate().all(fine) {
                return Err(format!(
                    "invalid name for build stage: {given:?}, name can't start with a number or contain symbols"
                ));
            }
            Some(name)
        }
    };
    let platform = flags.take("platform")?;
    flags.end()?;
    Ok(Stage { line: 0, text: String::new(), from: from.clone(), platform, name, steps: Vec::new() })
}

fn args(rest: &str, escape: char, flags: Flags<'_>) -> Result<Vec<(String, Option<String>)>, String> {
    flags.end()?;
    let mut args = Vec::new();
    for word in some("ARG", words(rest, escape))? {
        args.push(match word.split_once('=') {
            Some(("", _)) => return Err("ARG names can not be blank".to_owned()),
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word, None),
        });
    }
    Ok(args)
}

/// Nothing at all is an empty command, as `[]` is.
fn command(rest: &str) -> Result<Command, String> {
    match json_words(rest) {
        Json::Words(words) => Ok(Command::Exec(words)),
        Json::NotStrings => Err(NOT_STRINGS.to_owned()),
        Json::No if rest.is_empty() => Ok(Command::Exec(Vec::new())),
        Json::No => Ok(Command::Shell(rest.to_owned())),
    }
}

fn run(line: &Line, split: &Split<'_>, mut flags: Flags<'_>, escape: char) -> Result<Run, String> {
    let mounts = flags.take_all("mount")?;
    let network = flags.take("network")?;
    let security = flags.take("security")?;
    flags.end()?;
    if let Some(mode) = network.as_ref().filter(|mode| !["default", "none", "host"].contains(&mode.as_str()))
    {
        return Err(format!("invalid network mode: {mode}"));
    }
    if let Some(mode) = security.as_ref().filter(|mode| !["sandbox", "insecure"].contains(&mode.as_str())) {
        return Err(format!("security {mode:?} is not valid"));
    }
    for text in mounts.iter().filter(|text| !text.contains('$')) {
        // What has no variables can be judged before the build begins.
        mount::parse(text, &|word| expand(word, escape, &|_| None))?;
    }
    let command = match command(split.rest)? {
        Command::Exec(words) => Command::Exec(some("RUN", words)?),
        shell => shell,
    };
    Ok(Run { command, mounts, network, security, files: line.files.clone() })
}

fn copy(line: &Line, split: &Split<'_>, mut flags: Flags<'_>, name: &str) -> Result<Copy, String> {
    let mut words = match json_words(split.rest) {
        Json::Words(words) => words,
        Json::NotStrings => return Err(NOT_STRINGS.to_owned()),
        Json::No => plain_words(split.rest),
    };
    let Some(target) = words.pop().filter(|_| !words.is_empty()) else {
        return Err(format!(
            "{name} requires at least two arguments, but only one was provided. \
             Destination could not be determined"
        ));
    };
    let mut copy = Copy {
        chown: flags.take("chown")?,
        chmod: flags.take("chmod")?,
        link: flags.take_switch("link")?,
        exclude: flags.take_all("exclude")?,
        target,
        ..Copy::default()
    };
    if name == "COPY" {
        copy.from = flags.take("from")?;
        copy.parents = flags.take_switch("parents")?;
    } else {
        copy.checksum = flags.take("checksum")?;
        copy.keep_git_dir = flags.take_switch("keep-git-dir")?;
    }
    flags.end()?;
    if !line.files.is_empty() && here_doc(&copy.target).is_some() {
        return Err(format!("{name} cannot accept a heredoc as a destination"));
    }
    for word in words {
        let here = here_doc(&word).and_then(|here| line.files.iter().find(|file| file.name == here.name));
        copy.sources.push(match here {
            Some(file) => Source::Here(file.clone()),
            None => Source::Path(word),
        });
    }
    Ok(copy)
}

fn volumes(rest: &str) -> Result<Vec<String>, String> {
    let words = match json_words(rest) {
        Json::Words(words) => words,
        Json::NotStrings => return Err(NOT_STRINGS.to_owned()),
        Json::No => plain_words(rest),
    };
    let paths: Vec<String> = some("VOLUME", words)?.iter().map(|path| path.trim().to_owned()).collect();
    match paths.iter().any(String::is_empty) {
        true => Err("VOLUME specified can not be an empty string".to_owned()),
        false => Ok(paths),
    }
}

fn shell(rest: &str) -> Result<Vec<String>, String> {
    match json_words(rest) {
        Json::Words(words) => some("SHELL", words),
        Json::NotStrings => Err(NOT_STRINGS.to_owned()),
        Json::No if rest.is_empty() => some("SHELL", Vec::new()),
        Json::No => Err("SHELL requires the arguments to be in JSON form".to_owned()),
    }
}

fn healthcheck(rest: &str, mut flags: Flags<'_>) -> Result<Healthcheck, String> {
    let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let rest = rest.trim_start();
    let mut check = Healthcheck::default();
    match kind.to_ascii_uppercase().as_str() {
        "" => return Err("HEALTHCHECK requires at least one argument".to_owned()),
        "NONE" if rest.is_empty() => {
            flags.end()?;
            check.test = vec!["NONE".to_owned()];
            return Ok(check);
        }
        "NONE" => return Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        "CMD" => {
            check.test = match command(rest)? {
                Command::Exec(words) if words.is_empty() => {
                    return Err("Missing command after HEALTHCHECK CMD".to_owned());
                }
                Command::Exec(words) => [vec!["CMD".to_owned()], words].concat(),
                Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text],
            };
        }
        other => return Err(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)")),
    }
    for (name, field) in [
        ("interval", &mut check.interval),
        ("timeout", &mut check.timeout),
        ("start-period", &mut check.start_period),
        ("start-interval", &mut check.start_interval),
    ] {
        if let Some(value) = flags.take(name)? {
            *field = duration(&value).ok_or_else(|| format!("time: invalid duration {value:?}"))?;
            if (1..1_000_000).contains(field) {
                return Err(format!("Interval {name:?} cannot be less than 1ms"));
            }
        }
    }
    if let Some(value) = flags.take("retries")? {
        let retries: i32 =
            value.parse().map_err(|_| format!("strconv.ParseInt: parsing {value:?}: invalid syntax"))?;
        if retries < 0 {
            return Err(format!("--retries cannot be negative ({retries})"));
        }
        check.retries = retries.into();
    }
    flags.end()?;
    Ok(check)
}

/// `ONBUILD`'s instruction, with its here-documents: it becomes a line of its own in another build.
fn trigger(line: &Line, split: &Split<'_>, flags: Flags<'_>) -> Result<String, String> {
    flags.end()?;
    let inner = split_command(split.rest);
    match inner.name.to_ascii_uppercase().as_str() {
        "" => return Err("ONBUILD requires at least one argument".to_owned()),
        "ONBUILD" => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()),
        name @ ("FROM" | "MAINTAINER") => return Err(format!("{name} isn't allowed as an ONBUILD trigger")),
        _ => {}
    }
    let mut text = split.rest.to_owned();
    for file in &line.files {
        text = format!("{text}\n{}{}", file.content, file.name);
    }
    Ok(text)
}

/// A duration as Go writes it (`1m30s`, `1.5h`), in nanoseconds; `None` for others, and for those before now.
pub fn duration(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
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
                "us" | "\u{b5}s" | "\u{3bc}s" => 1e3,
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
