//! Which stages there are to build, on what, and how their steps are numbered.

use std::collections::{BTreeMap, BTreeSet};

use super::args::Args;
use crate::daemon::dockerfile::{self, Dockerfile, Instruction, Stage, mount};
use crate::daemon::error::{Error, Result};
use crate::daemon::images::config::Platform;

/// What a stage begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    Scratch,
    /// By its place in the file.
    Stage(usize),
    Image(String),
}

/// What is to be done.
#[derive(Debug)]
pub struct Plan<'a> {
    pub file: &'a Dockerfile,
    /// The stages the target needs, in the order of the file; the target is the last.
    pub needed: Vec<usize>,
    pub bases: BTreeMap<usize, Base>,
    pub platforms: BTreeMap<usize, Platform>,
    /// The number of each needed stage's `FROM`.
    first: BTreeMap<usize, usize>,
    /// Steps in all.
    pub total: usize,
}

impl<'a> Plan<'a> {
    /// `more` is how many steps the target has besides those in the file.
    ///
    /// # Errors
    /// InvalidParameter for a target or a base that is none, with the line.
    pub fn new(file: &'a Dockerfile, args: &Args, target: &str, more: usize) -> Result<Plan<'a>> {
        let target = match target {
            "" => file.stages.len() - 1,
            name => find(&file.stages, name)
                .ok_or_else(|| Error::invalid(format!("target stage {name:?} could not be found")))?,
        };
        let mut plan = Plan {
            file,
            needed: Vec::new(),
            bases: BTreeMap::new(),
            platforms: BTreeMap::new(),
            first: BTreeMap::new(),
            total: 0,
        };
        let (mut pending, mut seen) = (vec![target], BTreeSet::new());
        while let Some(at) = pending.pop() {
            if seen.insert(at) {
                let stage = &file.stages[at];
                let base = plan.base(at, args).map_err(|error| at_line(error, stage.line))?;
                pending.extend(match base {
                    Base::Stage(other) => Some(other),
                    _ => None,
                });
                plan.bases.insert(at, base);
                pending.extend(stage.steps.iter().flat_map(|step| plan.wants(at, &step.instruction)));
            }
        }
        plan.needed = seen.into_iter().collect();
        plan.total = file.args.len();
        for at in &plan.needed {
            plan.first.insert(*at, plan.total + 1);
            plan.total += 1 + file.stages[*at].steps.len();
        }
        plan.total += more;
        Ok(plan)
    }

    /// The number of a needed stage's `FROM`.
    pub fn first(&self, stage: usize) -> usize {
        self.first.get(&stage).copied().unwrap_or_default()
    }

    /// The stage called `name`, among those before `stage`.
    pub fn find(&self, name: &str, stage: usize) -> Option<usize> {
        find(&self.file.stages[..stage], name)
    }

    fn base(&mut self, at: usize, args: &Args) -> Result<Base> {
        let stage = &self.file.stages[at];
        let expand = |word: &str| {
            dockerfile::expand(word, self.file.escape, &|name| args.global(name))
                .map_err(|cause| Error::invalid(cause.to_string()))
        };
        let from = expand(&stage.from)?;
        if from.is_empty() {
            return Err(Error::invalid(format!("base name ({}) should not be blank", stage.from)));
        }
        if let Some(platform) = &stage.platform {
            let platform = expand(platform)?;
            if !platform.is_empty() {
                self.platforms.insert(at, Platform::parse(&platform)?);
            }
        }
        Ok(match self.find(&from, at) {
            Some(other) => Base::Stage(other),
            None if from == "scratch" => Base::Scratch,
            None => Base::Image(from),
        })
    }

    /// The stages an instruction takes something from.
    fn wants(&self, at: usize, instruction: &Instruction) -> Vec<usize> {
        match instruction {
            Instruction::Copy(copy) | Instruction::Add(copy) => {
                copy.from.iter().filter_map(|name| self.find(name, at)).collect()
            }
            Instruction::Run(run) => {
                let mut wanted = Vec::new();
                for text in &run.mounts {
                    // What makes no sense is said when its turn comes.
                    let Ok(mount) = mount::parse(text, &|word| Ok(word.to_owned())) else { continue };
                    match mount.from.contains('$') {
                        // It may turn out to be any.
                        true => wanted.extend(0..at),
                        false => wanted.extend(self.find(&mount.from, at)),
                    }
                }
                wanted
            }
            _ => Vec::new(),
        }
    }
}

fn find(stages: &[Stage], name: &str) -> Option<usize> {
    let lower = name.to_lowercase();
    let by_name = stages.iter().position(|stage| stage.name.as_deref() == Some(&lower));
    by_name.or_else(|| name.parse().ok().filter(|at| *at < stages.len()))
}

/// The same failure, said to be of this line of the Dockerfile.
pub fn at_line(mut error: Error, line: u32) -> Error {
    error.message = format!("{} (Dockerfile:{line})", error.message);
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "ARG BASE=busybox\nFROM $BASE AS one\nRUN a\nFROM scratch AS unused\nFROM one\nCOPY --from=three x y\n\
        FROM busybox AS three\nRUN --mount=from=0,target=/x y\n";

    fn plan<'a>(file: &'a Dockerfile, target: &str) -> Result<Plan<'a>> {
        let mut args = Args::default();
        args.declare_global("BASE", Some("debian".to_owned()));
        Plan::new(file, &args, target, 0)
    }

    #[test]
    fn only_what_the_target_needs_is_planned_and_numbered() {
        let file = dockerfile::parse(FILE.as_bytes()).unwrap();
        let whole = plan(&file, "").unwrap();
        assert_eq!((whole.needed.as_slice(), whole.total), (&[0, 3][..], 5));
        assert_eq!((whole.first(0), whole.first(3)), (2, 4));
        assert_eq!(whole.bases[&0], Base::Image("debian".to_owned()));
        // A later stage is no stage yet.
        let part = plan(&file, "2").unwrap();
        assert_eq!((part.needed.as_slice(), &part.bases[&2]), (&[0, 2][..], &Base::Stage(0)));
        assert_eq!(plan(&file, "Unused").unwrap().bases[&1], Base::Scratch);
        assert_eq!(plan(&file, "x").unwrap_err().message, "target stage \"x\" could not be found");
    }

    #[test]
    fn a_base_that_is_nothing_is_refused_with_its_line() {
        let file = dockerfile::parse(b"FROM busybox\n\nFROM $NOPE\n").unwrap();
        assert_eq!(
            plan(&file, "").unwrap_err().message,
            "base name ($NOPE) should not be blank (Dockerfile:3)"
        );
    }
}
