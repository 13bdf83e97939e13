//! The words the command table is written in.
//!
//! A [`Command`] names itself, its flags and its arguments once; the parser, `--help`, the manual pages and
//! the shell completions read it. Parsing gives [`Matches`], a command's `plan` turns them into an
//! [`Action`] without touching anything, and only then is something done.
//!
//! ```text
//! argv ──parse──▶ Matches ──plan (pure)──▶ Action ──▶ requests ──▶ exit code
//! ```
//!
//! Flags are `static`, never `const`: a flag is looked up by its address, so that reading one a command did
//! not declare is a bug a test finds.

use std::str::FromStr;

use super::context::Context;
use super::error::Error;
use super::{daemon, doctor};

/// One command, under all its names.
#[derive(Debug)]
pub struct Command {
    /// Every way to type it, the preferred one first: `["ps", "container ls"]`.
    pub names: &'static [&'static str],
    /// One line for lists, at most 60 characters, no full stop.
    pub summary: &'static str,
    /// What follows the name in the usage line; several lines for several forms.
    pub usage: &'static str,
    /// Further paragraphs for `--help` and the manual; may be empty.
    pub about: &'static str,
    pub flags: &'static [&'static Flag],
    pub args: Args,
    /// A line that works, for the manual; the tests parse it.
    pub example: &'static str,
    /// 125 marks `run`, whose codes belong to the container, so that every failure of ours is 125 or its
    /// like; everything else has 1 here.
    pub usage_code: u8,
    /// Understands the command line. Touches nothing but files the flags name.
    pub plan: fn(&Matches) -> Result<Action, Error>,
}

impl Command {
    /// The preferred name.
    pub fn name(&self) -> &'static str {
        self.names[0]
    }
}

/// How many positional arguments a command takes.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    pub min: usize,
    /// `usize::MAX` for no bound.
    pub max: usize,
    /// Whether everything after the first positional argument is positional too, so that
    /// `dewar run IMAGE ls -l` hands `-l` to `ls`.
    pub greedy: bool,
}

impl Args {
    pub const NONE: Args = Args::exactly(0);

    pub const fn exactly(count: usize) -> Args {
        Args { min: count, max: count, greedy: false }
    }

    pub const fn at_least(min: usize) -> Args {
        Args { min, max: usize::MAX, greedy: false }
    }

    pub const fn between(min: usize, max: usize) -> Args {
        Args { min, max, greedy: false }
    }

    pub const fn greedy(mut self) -> Args {
        self.greedy = true;
        self
    }
}

/// A noun that groups commands: `dewar container`.
#[derive(Debug)]
pub struct Noun {
    pub name: &'static str,
    pub summary: &'static str,
}

/// How a flag takes values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On or off; `--flag` and `--flag=true|false`.
    Switch,
    /// The last value given counts.
    Value,
    /// Every value given counts, in order.
    Many,
}

/// What becomes of a flag that is accepted for compatibility.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Honoured,
    /// Accepted with a warning that gives this reason.
    Ignored(&'static str),
    /// An error that gives this reason.
    Refused(&'static str),
}

/// One flag.
#[derive(Debug)]
pub struct Flag {
    /// Without dashes.
    pub long: &'static str,
    pub short: Option<char>,
    pub kind: Kind,
    /// What stands for the value in help; empty for a switch.
    pub value: &'static str,
    pub help: &'static str,
    /// The value when the flag is not given; shown in help.
    pub default: Option<&'static str>,
    pub fate: Fate,
}

impl Flag {
    const fn new(long: &'static str, kind: Kind, value: &'static str, help: &'static str) -> Flag {
        Flag { long, short: None, kind, value, help, default: None, fate: Fate::Honoured }
    }

    pub const fn switch(long: &'static str, help: &'static str) -> Flag {
        Flag::new(long, Kind::Switch, "", help)
    }

    pub const fn value(long: &'static str, value: &'static str, help: &'static str) -> Flag {
        Flag::new(long, Kind::Value, value, help)
    }

    pub const fn many(long: &'static str, value: &'static str, help: &'static str) -> Flag {
        Flag::new(long, Kind::Many, value, help)
    }

    pub const fn short(mut self, short: char) -> Flag {
        self.short = Some(short);
        self
    }

    pub const fn default(mut self, value: &'static str) -> Flag {
        self.default = Some(value);
        self
    }

    pub const fn ignored(mut self, reason: &'static str) -> Flag {
        self.fate = Fate::Ignored(reason);
        self
    }

    pub const fn refused(mut self, reason: &'static str) -> Flag {
        self.fate = Fate::Refused(reason);
        self
    }

    /// `-m, --memory`, as messages name it.
    pub fn spelling(&self) -> String {
        match self.short {
            Some(short) => format!("-{short}, --{}", self.long),
            None => format!("--{}", self.long),
        }
    }
}

/// Talks to the daemon and gives the exit code.
pub type Act = Box<dyn FnOnce(&Context) -> Result<u8, Error>>;

/// What a command does once its command line is understood.
pub enum Action {
    /// Talks to the daemon; the result is the exit code.
    Call(Act),
    /// `dewar daemon`: `main` runs it, because the client must not know the daemon.
    Daemon(daemon::Options),
    /// `dewar doctor`: the same.
    Doctor(doctor::Options),
}

impl Action {
    /// An action that talks to the daemon.
    pub fn call(act: impl FnOnce(&Context) -> Result<u8, Error> + 'static) -> Result<Action, Error> {
        Ok(Action::Call(Box::new(act)))
    }
}

/// A command line, taken apart: flags with their values, and positional arguments.
#[derive(Debug, Default)]
pub struct Matches {
    /// The flags the command declares.
    declared: &'static [&'static Flag],
    values: Vec<(&'static Flag, String)>,
    pub args: Vec<String>,
    #[cfg(test)]
    read: std::cell::RefCell<Vec<&'static str>>,
}

impl Matches {
    pub fn new(declared: &'static [&'static Flag]) -> Matches {
        Matches { declared, ..Matches::default() }
    }

    /// Adds one value; switches carry `true` or `false`.
    pub fn push(&mut self, flag: &'static Flag, value: String) {
        self.values.push((flag, value));
    }

    /// Every value given for `flag`, in order.
    pub fn all(&self, flag: &'static Flag) -> Vec<&str> {
        self.note(flag);
        self.values
            .iter()
            .filter(|(given, _)| std::ptr::eq(*given, flag))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The last value given, else the flag's default.
    pub fn get(&self, flag: &'static Flag) -> Option<&str> {
        self.all(flag).pop().or(flag.default)
    }

    /// [`get`](Matches::get), as an owned string that is empty when nothing was given.
    pub fn text(&self, flag: &'static Flag) -> String {
        self.get(flag).unwrap_or_default().to_owned()
    }

    /// Whether a switch is on.
    pub fn is(&self, flag: &'static Flag) -> bool {
        self.get(flag) == Some("true")
    }

    /// Whether the flag was given at all.
    pub fn given(&self, flag: &'static Flag) -> bool {
        !self.all(flag).is_empty()
    }

    /// The value as a whole number; the error is worded as Go words it.
    pub fn integer(&self, flag: &'static Flag) -> Result<Option<i64>, Error> {
        self.read(flag, |text| {
            text.trim().parse().map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
        })
    }

    /// The value read by `FromStr`; the error names flag and value.
    pub fn parse<T: FromStr>(&self, flag: &'static Flag, expected: &str) -> Result<Option<T>, Error> {
        self.read(flag, |text| text.trim().parse().map_err(|_| format!("expected {expected}")))
    }

    /// The value read by `read`; the error names flag and value. An empty value counts as not given.
    pub fn read<T>(
        &self,
        flag: &'static Flag,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        match self.get(flag) {
            None | Some("") => Ok(None),
            Some(text) => read(text).map(Some).map_err(|cause| Error::value(flag, text, &cause)),
        }
    }

    /// Every value read by `read`; the error names flag and value.
    pub fn read_all<T>(
        &self,
        flag: &'static Flag,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Error> {
        self.all(flag)
            .into_iter()
            .map(|text| read(text).map_err(|cause| Error::value(flag, text, &cause)))
            .collect()
    }

    /// Every value, owned.
    pub fn list(&self, flag: &'static Flag) -> Vec<String> {
        self.all(flag).into_iter().map(str::to_owned).collect()
    }

    /// The flags given whose fate is not to be honoured.
    pub fn unhonoured(&self) -> impl Iterator<Item = &'static Flag> {
        self.values.iter().map(|(flag, _)| *flag).filter(|flag| flag.fate != Fate::Honoured)
    }

    fn note(&self, flag: &'static Flag) {
        debug_assert!(
            self.declared.iter().any(|declared| std::ptr::eq(*declared, flag)),
            "--{} is read by a command that does not declare it",
            flag.long
        );
        #[cfg(test)]
        self.read.borrow_mut().push(flag.long);
    }

    /// The flags read so far, by long name.
    #[cfg(test)]
    pub fn flags_read(&self) -> Vec<&'static str> {
        self.read.borrow().clone()
    }
}
