//! Dockerfiles: what a text says, before anything is done about it.
//!
//! Pure: bytes in, values out. Words are kept unexpanded, because what a variable is worth depends on where the
//! build stands; [`expand`] is applied to them then. No input panics, and nothing grows without a limit.

mod expand;
mod instruction;
mod lines;
pub mod mount;
mod words;

use std::fmt;

use crate::http::api::container::Healthcheck;

pub use expand::{ExpandError, expand, expand_text, expand_words};
pub use instruction::duration;

/// A whole file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dockerfile {
    /// `\` or, by a directive, a backtick.
    pub escape: char,
    /// `ARG`s before the first `FROM`.
    pub args: Vec<Step>,
    /// At least one.
    pub stages: Vec<Stage>,
    pub warnings: Vec<Warning>,
}

/// Something that works and should be changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Warning {
    pub line: u32,
    pub text: String,
}

/// `FROM` and what follows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Counted from 1.
    pub line: u32,
    /// As shown after `Step 1/5 : `.
    pub text: String,
    /// Unexpanded.
    pub from: String,
    /// Unexpanded.
    pub platform: Option<String>,
    /// Lower case; no other stage has it.
    pub name: Option<String>,
    pub steps: Vec<Step>,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Counted from 1.
    pub line: u32,
    /// Of the same instruction, here-documents with it.
    pub last_line: u32,
    /// On one line, as shown after `Step 2/5 : `; without the text of here-documents.
    pub text: String,
    pub instruction: Instruction,
}

/// What one instruction says. Words are unexpanded and, but for JSON, still quoted.
#[derive(Clone, Debug, PartialEq)]
pub enum Instruction {
    Arg(Vec<(String, Option<String>)>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Run(Run),
    Copy(Copy),
    Add(Copy),
    Workdir(String),
    User(String),
    Expose(Vec<String>),
    Volume(Vec<String>),
    Cmd(Command),
    Entrypoint(Command),
    Shell(Vec<String>),
    Healthcheck(Healthcheck),
    Stopsignal(String),
    /// The instruction to be carried out later, for [`parse_step`].
    Onbuild(String),
    Maintainer(String),
}

/// A command in one of its two forms. Nothing in it is expanded: shells do that.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// For `/bin/sh -c`, or what `SHELL` said.
    Shell(String),
    Exec(Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub command: Command,
    /// Unexpanded, for [`mount::parse`].
    pub mounts: Vec<String>,
    /// `default`, `none` or `host`.
    pub network: Option<String>,
    /// `sandbox` or `insecure`.
    pub security: Option<String>,
    /// Here-documents in the order they stand in.
    pub files: Vec<HereDoc>,
}

/// What a `RUN` executes.
#[derive(Clone, Debug, PartialEq)]
pub enum Script {
    /// For the shell.
    Shell(String),
    Exec(Vec<String>),
    /// A here-document that begins with `#!`: to be executed as a file of this name and content.
    File {
        name: String,
        content: String,
    },
}

impl Run {
    /// The command with its here-documents where they belong.
    ///
    /// One that is the whole command is the script itself; others are handed to the shell as they were written.
    pub fn script(&self) -> Script {
        let text = match &self.command {
            Command::Exec(words) => return Script::Exec(words.clone()),
            Command::Shell(text) => text,
        };
        let Some(first) = self.files.first() else { return Script::Shell(text.clone()) };
        if lines::here_doc(text).is_some() {
            let content = first.text();
            return match content.starts_with("#!") {
                true => Script::File { name: first.name.clone(), content },
                false => Script::Shell(content),
            };
        }
        let mut full = text.clone();
        for file in &self.files {
            full = format!("{full}\n{}{}", file.content, file.name);
        }
        Script::Shell(full)
    }
}

/// `COPY` or `ADD`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Copy {
    pub from: Option<String>,
    pub chown: Option<String>,
    pub chmod: Option<String>,
    pub link: bool,
    pub parents: bool,
    pub exclude: Vec<String>,
    pub checksum: Option<String>,
    pub keep_git_dir: bool,
    /// At least one.
    pub sources: Vec<Source>,
    pub target: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    Path(String),
    Here(HereDoc),
}

/// A file written in the Dockerfile itself.
#[derive(Clone, Debug, PartialEq)]
pub struct HereDoc {
    pub name: String,
    /// As it stands there, with its last line feed.
    pub content: String,
    /// Whether variables in it are meant: the word was not quoted.
    pub expand: bool,
    /// `<<-`: tabs at the start of lines are not meant.
    pub chomp: bool,
}

impl HereDoc {
    /// What the file is to hold, before expansion.
    pub fn text(&self) -> String {
        match self.chomp {
            true => self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect(),
            false => self.content.clone(),
        }
    }
}

/// Why a text is no Dockerfile. Displayed with its line, in Docker's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Counted from 1; 0 when it is about the file as a whole.
    pub line: u32,
    pub cause: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => formatter.write_str(&self.cause),
            line => write!(formatter, "dockerfile parse error on line {line}: {}", self.cause),
        }
    }
}

/// Reads a Dockerfile.
pub fn parse(text: &[u8]) -> Result<Dockerfile, ParseError> {
    let lines = lines::read(text)?;
    let mut file = Dockerfile { escape: lines.escape, warnings: lines.warnings, ..Dockerfile::default() };
    for line in lines.lines {
        let number = line.first;
        let fail = |cause: String| ParseError { line: number, cause };
        match instruction::read(&line, lines.escape).map_err(fail)? {
            instruction::Read::From(stage) => {
                if let Some(name) = &stage.name
                    && file.stages.iter().any(|other| other.name.as_ref() == Some(name))
                {
                    return Err(fail(format!("{name} stage name already used")));
                }
                file.stages.push(stage);
            }
            instruction::Read::Step(step) => match file.stages.last_mut() {
                Some(stage) => stage.steps.push(step),
                None if matches!(step.instruction, Instruction::Arg(_)) => file.args.push(step),
                None => return Err(fail("no build stage in current context".to_owned())),
            },
        }
    }
    match file.stages.is_empty() {
        true if file.args.is_empty() => {
            Err(ParseError { line: 0, cause: "file with no instructions".to_owned() })
        }
        true => Err(ParseError { line: 0, cause: "dockerfile contains no stages to build".to_owned() }),
        false => Ok(file),
    }
}

/// Reads one instruction that stands outside a Dockerfile: an `ONBUILD` trigger, or a `--change`.
pub fn parse_step(text: &str) -> Result<Step, ParseError> {
    let lines = lines::read(text.as_bytes())?;
    let fail = |line, cause: &str| Err(ParseError { line, cause: cause.to_owned() });
    match &lines.lines[..] {
        [] => fail(0, "file with no instructions"),
        [line] => match instruction::read(line, lines.escape) {
            Ok(instruction::Read::Step(step)) => Ok(step),
            Ok(instruction::Read::From(_)) => fail(line.first, "FROM is not allowed here"),
            Err(cause) => Err(ParseError { line: line.first, cause }),
        },
        [_, second, ..] => fail(second.first, "one instruction is expected"),
    }
}

#[cfg(test)]
mod tests;
