//! One stage: where it stands, and how a step takes it further.

use super::args::Args;
use super::job::Job;
use super::plan::{Base, at_line};
use super::{Failure, Outcome, step};
use crate::daemon::dockerfile::{self, Instruction};
use crate::daemon::error::{Error, Result};
use crate::daemon::images::config::Platform;
use crate::daemon::images::{Image, ImageId, Step};
use crate::http::api::image::ImageConfig;

/// What programs are looked for in, where an image says nothing. Source: Docker.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a stage came to.
#[derive(Clone, Debug)]
pub struct End {
    /// `None` when nothing was made of nothing.
    pub image: Option<ImageId>,
    pub config: ImageConfig,
    pub platform: Platform,
    pub author: String,
}

/// A stage under way.
pub struct Stage<'a> {
    pub job: &'a Job<'a>,
    /// Its place in the file.
    pub at: usize,
    pub image: Option<ImageId>,
    pub config: ImageConfig,
    pub platform: Platform,
    pub author: String,
    pub args: Args,
    /// A `CMD` of this stage's own: an `ENTRYPOINT` leaves it alone.
    pub is_command_set: bool,
    /// A step was not found: nothing that follows it can be.
    is_cache_left: bool,
}

/// Builds a stage, from its `FROM` on.
pub fn run<'a>(job: &'a Job<'a>, at: usize) -> Outcome<End> {
    let parsed = &job.plan.file.stages[at];
    let mut number = job.plan.first(at);
    let announce = |number: usize, text: &str| {
        job.output.say(format!("Step {number}/{} : {text}\n", job.plan.total));
    };
    job.cancel.check()?;
    // Before the wait for another stage, so that nothing is announced that has not begun.
    let base = begin(job, at).map_err(|error| at_line(error, parsed.line));
    announce(number, &parsed.text);
    let mut stage = base?;
    stage.tell_image();
    stage.run_triggers().map_err(|failure| failed_at(failure, parsed.line))?;
    for next in &parsed.steps {
        number += 1;
        job.cancel.check()?;
        announce(number, &next.text);
        step::run(&mut stage, &next.instruction).map_err(|failure| failed_at(failure, next.line))?;
        stage.tell_image();
    }
    Ok(End { image: stage.image, config: stage.config, platform: stage.platform, author: stage.author })
}

fn failed_at(failure: Failure, line: u32) -> Failure {
    Failure { error: at_line(failure.error, line), ..failure }
}

fn begin<'a>(job: &'a Job<'a>, at: usize) -> Result<Stage<'a>> {
    let platform = job.plan.platforms.get(&at).or(job.options.platform.as_ref());
    let mut stage = Stage {
        job,
        at,
        image: None,
        config: ImageConfig::default(),
        platform: platform.cloned().unwrap_or_else(Platform::host),
        author: String::new(),
        args: job.args.clone(),
        is_command_set: false,
        is_cache_left: !job.options.no_cache,
    };
    match job.plan.bases.get(&at) {
        None | Some(Base::Scratch) => {}
        Some(Base::Stage(other)) => {
            let End { image, config, platform, author } = (*job.end_of(*other)?).clone();
            (stage.image, stage.config, stage.platform, stage.author) = (image, config, platform, author);
        }
        Some(Base::Image(name)) => {
            let id = job.base_image(name, platform)?;
            let image = job.engine.images.get(&id)?;
            stage.config = image.config.config.clone();
            stage.platform = Platform {
                os: image.config.os.clone(),
                architecture: image.config.architecture.clone(),
                variant: image.config.variant.clone(),
            };
            stage.author.clone_from(&image.config.author);
            stage.image = Some(id);
        }
    }
    if !stage.config.env.iter().any(|entry| entry.starts_with("PATH=")) {
        stage.config.env.push(PATH.to_owned());
    }
    Ok(stage)
}

impl Stage<'_> {
    fn tell_image(&self) {
        let short = self.image.as_ref().map(|id| id.short()).unwrap_or_default();
        self.job.output.say(format!(" ---> {short}\n"));
    }

    /// `ONBUILD` of the image it stands on: carried out once, here.
    fn run_triggers(&mut self) -> Outcome<()> {
        let triggers = std::mem::take(&mut self.config.on_build);
        if triggers.is_empty() {
            return Ok(());
        }
        let plural = if triggers.len() == 1 { "" } else { "s" };
        self.job.output.say(format!("# Executing {} build trigger{plural}\n", triggers.len()));
        for trigger in triggers {
            self.job.cancel.check()?;
            let failed = |cause: String| Error::invalid(format!("ONBUILD {trigger}: {cause}"));
            let parsed = dockerfile::parse_step(&trigger).map_err(|cause| failed(cause.to_string()))?;
            if matches!(parsed.instruction, Instruction::Onbuild(_) | Instruction::Maintainer(_)) {
                return Err(failed("not allowed as a trigger".to_owned()).into());
            }
            step::run(self, &parsed.instruction)?;
            self.tell_image();
        }
        Ok(())
    }

    /// What a variable is worth here.
    pub fn variable(&self, name: &str) -> Option<String> {
        let of_env = |entry: &String| entry.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        self.config.env.iter().find_map(of_env).or_else(|| self.args.get(name))
    }

    /// A word of the Dockerfile with its variables replaced and its quotes taken away.
    pub fn expand(&self, word: &str) -> Result<String> {
        dockerfile::expand(word, self.job.plan.file.escape, &|name| self.variable(name))
            .map_err(|cause| Error::invalid(cause.to_string()))
    }

    /// As [`expand`](Stage::expand), for what may become several words.
    pub fn expand_words(&self, word: &str) -> Result<Vec<String>> {
        dockerfile::expand_words(word, self.job.plan.file.escape, &|name| self.variable(name))
            .map_err(|cause| Error::invalid(cause.to_string()))
    }

    /// As [`expand`](Stage::expand), for whole texts, whose quotes are their own.
    pub fn expand_text(&self, text: &str) -> Result<String> {
        dockerfile::expand_text(text, &|name| self.variable(name))
            .map_err(|cause| Error::invalid(cause.to_string()))
    }

    /// What commands in shell form are handed to.
    pub fn shell(&self) -> Vec<String> {
        let given = self.config.shell.clone().filter(|shell| !shell.is_empty());
        given.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()])
    }

    /// What the history says of a step that runs nothing.
    pub fn comment(&self, text: &str) -> String {
        format!("{} #(nop) {text}", self.shell().join(" "))
    }

    /// The step that the config as it is now and `created_by` make.
    pub fn step(&self, created_by: String) -> Step {
        Step {
            parent: self.image.clone(),
            platform: self.platform.clone(),
            config: self.config.clone(),
            author: self.author.clone(),
            created_by,
        }
    }

    /// Goes on from `image`.
    pub fn advance(&mut self, image: Image) {
        self.job.held.add(&image.id);
        self.image = Some(image.id);
    }

    /// Takes the step from the cache; false when it has to be made.
    pub fn find(&mut self, step: &Step) -> Result<bool> {
        if !self.is_cache_left {
            return Ok(false);
        }
        let Some(image) = self.look_up(step)? else {
            self.is_cache_left = false;
            return Ok(false);
        };
        self.advance(image);
        self.job.output.say(" ---> Using cache\n");
        Ok(true)
    }

    fn look_up(&self, step: &Step) -> Result<Option<Image>> {
        let images = &self.job.engine.images;
        let here = images.find_step(step);
        if self.job.options.cache_from.is_empty() {
            return Ok(here);
        }
        // A source that is not here has nothing to offer.
        let sources: Vec<ImageId> = self
            .job
            .options
            .cache_from
            .iter()
            .filter_map(|name| images.resolve(name).ok())
            .map(|image| image.id)
            .collect();
        if let Some(here) = here
            && sources.iter().any(|source| images.descends(source, &here.id))
        {
            return Ok(Some(here));
        }
        for source in &sources {
            if let Some(found) = images.borrow_step(step, source)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}
