//! The loop over argv: global flags, the command's name, its flags, its arguments.
//!
//! ```text
//! dewar [GLOBAL FLAGS] NAME [NAME] [FLAGS] [--] [ARGS]
//! ```
//!
//! Global flags stand before the name, so that `dewar exec web ps -H` keeps its `-H`. A command that is
//! greedy takes everything after its first positional argument as it stands.

use std::ffi::OsString;

use lexopt::{Arg, Parser};

use super::command::{Command, Fate, Flag, Kind, Matches};
use super::commands::{COMMANDS, GLOBALS, NOUNS};
use super::error::Error;

/// What argv asks for.
#[derive(Debug)]
pub enum Parsed {
    /// Run a command.
    Run { command: &'static Command, matches: Matches, globals: Matches },
    /// `--help`, on nothing, a noun or a command.
    Help(Topic),
    /// A noun without a verb.
    Question(Topic),
    /// `--version`.
    Version,
}

/// What help is about.
#[derive(Clone, Debug)]
pub enum Topic {
    Everything,
    Noun(&'static str),
    Command(&'static Command, String),
}

/// Reads argv, without the program's own name.
pub fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Parsed, Error> {
    let mut parser = Parser::from_args(argv);
    let mut globals = Matches::new(GLOBALS);
    let mut noun: Option<&'static str> = None;
    while let Some(arg) = parser.next().map_err(|error| Error::usage(error.to_string()))? {
        match arg {
            Arg::Long("help") => return Ok(Parsed::Help(topic(noun))),
            Arg::Short('h') => return Ok(Parsed::Help(topic(noun))),
            Arg::Long("version") if noun.is_none() => return Ok(Parsed::Version),
            Arg::Short('v') if noun.is_none() => return Ok(Parsed::Version),
            Arg::Long(long) => {
                let flag = by_long(GLOBALS, long).ok_or_else(|| unknown_flag(long, GLOBALS))?;
                take(&mut parser, flag, false, &mut globals)?;
            }
            Arg::Short(short) => {
                let flag = by_short(GLOBALS, short)
                    .ok_or_else(|| Error::usage(format!("unknown shorthand flag: '{short}' in -{short}")))?;
                take(&mut parser, flag, true, &mut globals)?;
            }
            Arg::Value(word) => {
                let word = text(word)?;
                let typed = noun.map_or_else(|| word.clone(), |noun| format!("{noun} {word}"));
                if word == "help" && noun.is_none() {
                    return help_about(&mut parser);
                }
                if let Some(command) = find(&typed) {
                    return read_command(parser, command, typed, globals);
                }
                match NOUNS.iter().find(|known| noun.is_none() && known.name == word) {
                    Some(found) => noun = Some(found.name),
                    None => return Err(unknown_command(&typed)),
                }
            }
        }
    }
    // A noun alone is a question, not a mistake; so is nothing at all.
    match noun {
        Some(_) => Ok(Parsed::Question(topic(noun))),
        None => Ok(Parsed::Help(Topic::Everything)),
    }
}

fn topic(noun: Option<&'static str>) -> Topic {
    noun.map_or(Topic::Everything, Topic::Noun)
}

/// The command with exactly this name.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().copied().find(|command| command.names.contains(&name))
}

/// `dewar help [NAME [NAME]]`.
fn help_about(parser: &mut Parser) -> Result<Parsed, Error> {
    let mut words = Vec::new();
    while let Some(arg) = parser.next().map_err(|error| Error::usage(error.to_string()))? {
        match arg {
            Arg::Value(word) => words.push(text(word)?),
            other => return Err(Error::usage(other.unexpected().to_string())),
        }
    }
    let name = words.join(" ");
    if let Some(command) = find(&name) {
        return Ok(Parsed::Help(Topic::Command(command, name)));
    }
    match NOUNS.iter().find(|noun| noun.name == name) {
        Some(noun) => Ok(Parsed::Help(Topic::Noun(noun.name))),
        None if name.is_empty() => Ok(Parsed::Help(Topic::Everything)),
        None => Err(unknown_command(&name)),
    }
}

fn read_command(
    mut parser: Parser,
    command: &'static Command,
    typed: String,
    globals: Matches,
) -> Result<Parsed, Error> {
    let mut matches = Matches::new(command.flags);
    let asks_help = read_flags(&mut parser, command, &mut matches).map_err(|error| of(command, error))?;
    if asks_help {
        return Ok(Parsed::Help(Topic::Command(command, typed)));
    }
    check_count(command, &typed, matches.args.len())?;
    for flag in matches.unhonoured().chain(globals.unhonoured()) {
        if let Fate::Refused(reason) = flag.fate {
            return Err(of(command, Error::usage(format!("--{} is not supported: {reason}", flag.long))));
        }
    }
    Ok(Parsed::Run { command, matches, globals })
}

/// Reads flags and arguments into `matches`; true when help is asked for.
fn read_flags(parser: &mut Parser, command: &Command, matches: &mut Matches) -> Result<bool, Error> {
    // `-i=false`: lexopt reports the value when asked for the next flag, so the switch is remembered.
    let mut last_switch: Option<&'static Flag> = None;
    loop {
        let arg = match parser.next() {
            Ok(Some(arg)) => arg,
            Ok(None) => return Ok(false),
            Err(lexopt::Error::UnexpectedValue { option, value }) => match last_switch.take() {
                Some(flag) => {
                    matches.push(flag, switch(flag, &text(value)?)?);
                    continue;
                }
                None => return Err(Error::usage(format!("{option} takes no value"))),
            },
            Err(error) => return Err(Error::usage(error.to_string())),
        };
        match arg {
            Arg::Long(long) => match by_long(command.flags, long) {
                Some(flag) => take(parser, flag, false, matches)?,
                None if long == "help" => return Ok(true),
                None => return Err(unknown_flag(long, command.flags)),
            },
            Arg::Short(short) => match by_short(command.flags, short) {
                Some(flag) => {
                    last_switch = (flag.kind == Kind::Switch).then_some(flag);
                    take(parser, flag, true, matches)?;
                }
                None if short == 'h' => return Ok(true),
                None => return Err(Error::usage(format!("unknown shorthand flag: '{short}' in -{short}"))),
            },
            Arg::Value(word) => {
                matches.args.push(text(word)?);
                if command.args.greedy {
                    let rest = parser.raw_args().expect("a positional argument leaves no value behind");
                    for word in rest {
                        matches.args.push(text(word)?);
                    }
                    return Ok(false);
                }
            }
        }
    }
}

/// Reads a flag's value, if it takes one.
fn take(parser: &mut Parser, flag: &'static Flag, short: bool, matches: &mut Matches) -> Result<(), Error> {
    let value = match (flag.kind, short) {
        (Kind::Switch, true) => "true".to_owned(),
        (Kind::Switch, false) => match parser.optional_value() {
            Some(value) => switch(flag, &text(value)?)?,
            None => "true".to_owned(),
        },
        (Kind::Value | Kind::Many, _) => {
            let missing = |_| {
                Error::usage(match flag.short.filter(|_| short) {
                    Some(letter) => format!("flag needs an argument: '{letter}' in -{letter}"),
                    None => format!("flag needs an argument: --{}", flag.long),
                })
            };
            text(parser.value().map_err(missing)?)?
        }
    };
    matches.push(flag, value);
    Ok(())
}

/// A switch's explicit value, in Go's spellings.
fn switch(flag: &'static Flag, value: &str) -> Result<String, Error> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok("true".to_owned()),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok("false".to_owned()),
        _ => Err(Error::value(flag, value, &format!("strconv.ParseBool: parsing {value:?}: invalid syntax"))),
    }
}

/// The API is JSON, so an argument that is not UTF-8 could not be sent.
fn text(word: OsString) -> Result<String, Error> {
    word.into_string()
        .map_err(|word| Error::usage(format!("argument {:?} is not valid UTF-8", word.to_string_lossy())))
}

fn by_long(flags: &[&'static Flag], long: &str) -> Option<&'static Flag> {
    flags.iter().copied().find(|flag| flag.long == long)
}

fn by_short(flags: &[&'static Flag], short: char) -> Option<&'static Flag> {
    flags.iter().copied().find(|flag| flag.short == Some(short))
}

fn of(command: &'static Command, error: Error) -> Error {
    match error {
        Error::Usage { message, .. } => Error::Usage { message, command: Some(command) },
        other => other,
    }
}

fn check_count(command: &Command, typed: &str, count: usize) -> Result<(), Error> {
    let (min, max) = (command.args.min, command.args.max);
    if (min..=max).contains(&count) {
        return Ok(());
    }
    let arguments =
        |count: usize| if count == 1 { "1 argument".into() } else { format!("{count} arguments") };
    let wanted = match (min, max) {
        (_, 0) => "accepts no arguments".to_owned(),
        (min, max) if min == max => format!("requires {}", arguments(min)),
        (0, max) => format!("requires at most {}", arguments(max)),
        (min, usize::MAX) => format!("requires at least {}", arguments(min)),
        (min, max) => format!("requires at least {min} and at most {}", arguments(max)),
    };
    // Compat: docker sends the reader to the help in two ways.
    let verb = if max == usize::MAX { "See" } else { "Run" };
    Err(Error::Words {
        message: format!("'dewar {typed}' {wanted}"),
        hint: format!(
            "{}\n{verb} 'dewar {typed} --help' for more information",
            super::help::usage(command, typed)
        ),
    })
}

fn unknown_flag(long: &str, flags: &[&'static Flag]) -> Error {
    let near = nearest(long, flags.iter().map(|flag| flag.long));
    let hint = near.map(|near| format!(" (did you mean --{near}?)")).unwrap_or_default();
    Error::usage(format!("unknown flag: --{long}{hint}"))
}

fn unknown_command(typed: &str) -> Error {
    let names = COMMANDS.iter().flat_map(|command| command.names).copied();
    let near = nearest(typed, names.chain(NOUNS.iter().map(|noun| noun.name)));
    let hint = near.map(|near| format!(" (did you mean 'dewar {near}'?)")).unwrap_or_default();
    let message = format!("unknown command: dewar {typed}{hint}");
    let read_on =
        match typed.split_once(' ').filter(|(noun, _)| NOUNS.iter().any(|known| known.name == *noun)) {
            Some((noun, _)) => format!("Usage:  dewar {noun}\n\n{}", super::help::read_on(noun)),
            None => super::help::read_on(""),
        };
    Error::Words { message, hint: read_on }
}

/// The candidate a slip of the fingers away from `typed`, if any.
fn nearest<'a>(typed: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (typed.chars().count() / 3).clamp(1, 3);
    candidates
        .map(|candidate| (distance(typed, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between two words: insertions, deletions, replacements, and swaps of neighbours.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, a) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in right.iter().enumerate() {
            let mut best = (above[column] + usize::from(a != b)).min(above[column + 1] + 1);
            best = best.min(current[column] + 1);
            let swapped = row > 0 && column > 0 && *a == right[column - 1] && *b == left[row - 1];
            if swapped {
                best = best.min(before[column - 1] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut above, current);
    }
    above[right.len()]
}

/// The matches of a line that parses; for the tests of commands.
#[cfg(test)]
pub fn matches_of(line: &str) -> Matches {
    match parse(line.split_whitespace().map(OsString::from)) {
        Ok(Parsed::Run { matches, .. }) => matches,
        other => panic!("{line}: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn run(line: &str) -> (Matches, &'static Command) {
        match parse(words(line)) {
            Ok(Parsed::Run { matches, command, .. }) => (matches, command),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn refused(line: &str) -> (String, u8) {
        let error = parse(words(line)).unwrap_err();
        (error.to_string(), error.code())
    }

    fn values<'a>(matches: &'a Matches, command: &Command, long: &str) -> Vec<&'a str> {
        matches.all(by_long(command.flags, long).unwrap())
    }

    #[test]
    fn flags_stop_at_the_image() {
        let (matches, command) = run("run -it --name web -e A=1 -eB=2 --env=C=3 alpine ls -l --name no");
        assert_eq!(matches.args, ["alpine", "ls", "-l", "--name", "no"]);
        assert_eq!(values(&matches, command, "interactive"), ["true"]);
        assert_eq!(values(&matches, command, "tty"), ["true"]);
        assert_eq!(values(&matches, command, "name"), ["web"]);
        assert_eq!(values(&matches, command, "env"), ["A=1", "B=2", "C=3"]);
    }

    #[test]
    fn flags_may_follow_arguments_where_no_command_line_follows() {
        let (matches, command) = run("rm one -f two");
        assert_eq!(matches.args, ["one", "two"]);
        assert_eq!(values(&matches, command, "force"), ["true"]);
    }

    #[test]
    fn two_dashes_end_the_flags() {
        assert_eq!(run("rm -- -f").0.args, ["-f"]);
        assert_eq!(run("run -- alpine -- ls").0.args, ["alpine", "--", "ls"]);
    }

    #[test]
    fn switches_take_explicit_values_in_both_spellings() {
        for line in ["run -i=false alpine", "run --interactive=false alpine"] {
            let (matches, command) = run(line);
            assert_eq!(values(&matches, command, "interactive").last(), Some(&"false"), "{line}");
        }
        assert!(refused("run --tty=perhaps alpine").0.contains("invalid syntax"));
    }

    #[test]
    fn a_value_may_look_like_a_flag() {
        let (matches, command) = run("run --memory-swap -1 alpine");
        assert_eq!(values(&matches, command, "memory-swap"), ["-1"]);
    }

    #[test]
    fn globals_stand_before_the_command() {
        let Ok(Parsed::Run { globals, command, .. }) = parse(words("-D -H unix:///x container ls -a")) else {
            panic!("did not parse")
        };
        assert_eq!(command.name(), "ps");
        assert_eq!(globals.all(by_long(GLOBALS, "host").unwrap()), ["unix:///x"]);
    }

    #[test]
    fn usage_errors_name_the_mistake_and_a_way_out() {
        assert_eq!(
            refused("chekpoint create a b").0,
            "unknown command: dewar chekpoint (did you mean 'dewar checkpoint'?)"
        );
        assert_eq!(
            refused("checkpoint crate a b").0,
            "unknown command: dewar checkpoint crate (did you mean 'dewar checkpoint create'?)"
        );
        assert_eq!(refused("run --nmae x y").0, "unknown flag: --nmae (did you mean --name?)");
        assert_eq!(refused("zzzzzz").0, "unknown command: dewar zzzzzz");
        assert_eq!(refused("rm").0, "'dewar rm' requires at least 1 argument");
        assert_eq!(refused("images a b").0, "'dewar images' requires at most 1 argument");
        assert_eq!(refused("import a b c").0, "'dewar import' requires at least 1 and at most 2 arguments");
        assert_eq!(refused("ps -Z").0, "unknown shorthand flag: 'Z' in -Z");
        assert_eq!(refused("stop -t").0, "flag needs an argument: 't' in -t");
        assert_eq!(refused("ps a").0, "'dewar ps' accepts no arguments");
        assert_eq!(refused("checkpoint create a").0, "'dewar checkpoint create' requires 2 arguments");
        assert_eq!(refused("run --name").0, "flag needs an argument: --name");
        assert!(refused("images --tree").0.starts_with("--tree is not supported"));
    }

    #[test]
    fn a_wrong_flag_is_125_and_a_wrong_word_1() {
        assert_eq!(refused("run --bogus x").1, 125);
        assert_eq!(refused("ps --bogus").1, 125);
        assert_eq!(refused("run").1, 1);
        assert_eq!(refused("bogus").1, 1);
    }

    #[test]
    fn bytes_that_are_not_text_are_refused() {
        use std::os::unix::ffi::OsStringExt;
        let argv = vec![OsString::from("rm"), OsString::from_vec(vec![0x66, 0xff])];
        assert!(parse(argv).unwrap_err().to_string().contains("not valid UTF-8"));
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!(distance("nmae", "name"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
