//! One build from its request to its image.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::args::Args;
use super::context::Context;
use super::output::Output;
use super::plan::{Plan, at_line};
use super::stage::{self, End};
use super::{Cancel, Failure, Held, Options, Outcome, Staging, root};
use crate::daemon::dockerfile::{self, Dockerfile, Instruction};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::config::Platform;
use crate::daemon::images::{ImageId, Reference};
use crate::daemon::registry;
use crate::http::api::Class;
use crate::http::api::image::JsonMessage;

/// Stages at work at once. A stage waits for earlier ones only, and these began earlier, so that there is always
/// one that can go on.
const STAGES: usize = 8;
/// How often whoever waits for another stage looks whether the build is called off.
const GLANCE: Duration = Duration::from_millis(200);

/// A build under way, as its stages see it.
pub struct Job<'a> {
    pub engine: &'a Arc<Engine>,
    pub options: &'a Options,
    pub cancel: &'a Cancel,
    pub output: &'a Output,
    pub context: &'a Context,
    pub staging: &'a Staging,
    pub plan: &'a Plan<'a>,
    /// What every stage's arguments begin with.
    pub args: &'a Args,
    pub held: Held<'a>,
    ends: Mutex<BTreeMap<usize, Arc<End>>>,
    changed: Condvar,
    /// The file systems of images that something was read from.
    roots: Mutex<BTreeMap<ImageId, Arc<OwnedFd>>>,
}

/// Builds what `options` say of the context that comes in `body`, and tells how far it is.
///
/// `on_context` is called once nothing more is read. Blocks until all is done, or `cancel` is set: then nothing of
/// the build is left.
pub fn build(
    engine: &Arc<Engine>,
    options: &Options,
    body: impl Read + Send,
    on_context: impl FnOnce() + Send,
    cancel: &Cancel,
    tell: &mut dyn FnMut(JsonMessage),
) -> Outcome<ImageId> {
    let (output, messages) = Output::new();
    let mut untold = Vec::new();
    let outcome = std::thread::scope(|scope| {
        let work = move || work(engine, options, body, on_context, cancel, &output);
        let worker = std::thread::Builder::new().name("build".to_owned()).spawn_scoped(scope, work);
        let worker = worker.map_err(|cause| Error::system("start a thread to build", cause))?;
        for message in messages {
            match options.quiet {
                true => untold.push(message),
                false => tell(message),
            }
        }
        worker.join().unwrap_or_else(|_| Err(Error::system("build", "its thread panicked").into()))
    });
    match &outcome {
        Ok(id) if options.quiet => tell(JsonMessage::stream(format!("{id}\n"))),
        // Compat: what was kept back is told when it explains something.
        Err(_) if options.quiet => untold.into_iter().for_each(tell),
        _ => {}
    }
    outcome
}

fn work(
    engine: &Arc<Engine>,
    options: &Options,
    body: impl Read,
    on_context: impl FnOnce(),
    cancel: &Cancel,
    output: &Output,
) -> Outcome<ImageId> {
    let staging = engine.builds.staging()?;
    let context = Context::receive(engine, options, body, &staging, cancel)?;
    on_context();
    let mut file =
        dockerfile::parse(&context.dockerfile).map_err(|cause| Error::invalid(cause.to_string()))?;
    for warning in &file.warnings {
        output.say(format!("[Warning] {} (line {})\n", warning.text, warning.line));
    }
    add_labels(&mut file, options)?;
    let mut args = Args::new(options.args.clone(), platform_args(options));
    declare_globals(&file, &mut args)?;
    let plan = Plan::new(&file, &args, &options.target, 0)?;
    for (at, step) in file.args.iter().enumerate() {
        output.say(format!("Step {}/{} : {}\n", at + 1, plan.total, step.text));
    }
    let job = Job {
        engine,
        options,
        cancel,
        output,
        context: &context,
        staging: &staging,
        plan: &plan,
        args: &args,
        held: Held { builds: &engine.builds, images: Mutex::default() },
        ends: Mutex::default(),
        changed: Condvar::new(),
        roots: Mutex::default(),
    };
    job.run_stages()?;
    job.finish()
}

/// `--label`: one more instruction of the stage that is asked for.
fn add_labels(file: &mut Dockerfile, options: &Options) -> Result<()> {
    if options.labels.is_empty() {
        return Ok(());
    }
    // One that is quoted nothing happens to; a quote itself ends that, is escaped, and begins it again.
    let escaped = format!("'{}''", file.escape);
    let quoted = |text: &str| format!("'{}'", text.replace('\'', &escaped));
    let pairs: Vec<_> = options.labels.iter().map(|(key, value)| (quoted(key), quoted(value))).collect();
    let text = options.labels.iter().map(|(key, value)| format!(" {key}={value}")).collect::<String>();
    let target = match options.target.as_str() {
        "" => file.stages.len() - 1,
        _ => match Plan::new(file, &Args::default(), &options.target, 0) {
            Ok(plan) => plan.needed.last().copied().unwrap_or_default(),
            // Said again, and with the arguments known, when it is planned.
            Err(_) => return Ok(()),
        },
    };
    let stage = &mut file.stages[target];
    let line = stage.steps.last().map_or(stage.line, |step| step.last_line);
    stage.steps.push(dockerfile::Step {
        line,
        last_line: line,
        text: format!("LABEL{text}"),
        instruction: Instruction::Label(pairs),
    });
    Ok(())
}

fn declare_globals(file: &Dockerfile, args: &mut Args) -> Result<()> {
    for step in &file.args {
        let Instruction::Arg(pairs) = &step.instruction else { continue };
        for (name, default) in pairs {
            let expand = |word: &String| dockerfile::expand(word, file.escape, &|name| args.global(name));
            let default = default.as_ref().map(expand).transpose();
            let default = default.map_err(|cause| at_line(Error::invalid(cause.to_string()), step.line))?;
            args.declare_global(name, default);
        }
    }
    Ok(())
}

/// What a Dockerfile may ask for of where it is built, and for what.
fn platform_args(options: &Options) -> BTreeMap<String, Option<String>> {
    let host = Platform::host();
    let target = options.platform.as_ref().unwrap_or(&host);
    let mut args = BTreeMap::new();
    for (prefix, platform) in [("BUILD", &host), ("TARGET", target)] {
        for (name, value) in [
            ("PLATFORM", platform.to_string()),
            ("OS", platform.os.clone()),
            ("ARCH", platform.architecture.clone()),
            ("VARIANT", platform.variant.clone()),
        ] {
            args.insert(format!("{prefix}{name}"), Some(value));
        }
    }
    args
}

impl Job<'_> {
    /// Whether several stages tell at once.
    pub fn is_shared(&self) -> bool {
        self.plan.needed.len() > 1
    }

    fn run_stages(&self) -> Outcome<()> {
        let next = AtomicUsize::new(0);
        let failure: Mutex<Option<Failure>> = Mutex::new(None);
        let run = || {
            while let Some(at) = self.plan.needed.get(next.fetch_add(1, Ordering::Relaxed)) {
                match stage::run(self, *at) {
                    Ok(end) => drop(self.lock().insert(*at, Arc::new(end))),
                    Err(cause) => {
                        // The first is why: the others end because it did.
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(cause);
                        self.cancel.set();
                    }
                }
                self.changed.notify_all();
                if self.cancel.is_set() {
                    return;
                }
            }
        };
        std::thread::scope(|scope| -> Result<()> {
            for _ in 1..STAGES.min(self.plan.needed.len()) {
                let builder = std::thread::Builder::new().name("build stage".to_owned());
                builder
                    .spawn_scoped(scope, run)
                    .map_err(|cause| Error::system("start a thread for a stage", cause))?;
            }
            run();
            Ok(())
        })?;
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(failure) => Err(failure),
            None => Ok(self.cancel.check()?),
        }
    }

    /// What a stage came to; waits for it.
    pub fn end_of(&self, stage: usize) -> Result<Arc<End>> {
        let mut ends = self.lock();
        loop {
            if let Some(end) = ends.get(&stage) {
                return Ok(Arc::clone(end));
            }
            self.cancel.check()?;
            let waited = self.changed.wait_timeout(ends, GLANCE);
            ends = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Arc<End>>> {
        // Every change is one insertion.
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file system of an image, to read; an empty one for none.
    pub fn root_of(&self, image: Option<&ImageId>) -> Result<Arc<OwnedFd>> {
        let Some(id) = image else { return root::empty(self.staging).map(Arc::new) };
        let find = || self.roots.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if let Some(known) = find() {
            return Ok(known);
        }
        let made = Arc::new(root::of_image(self.engine, self.staging, id)?);
        self.roots.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), Arc::clone(&made));
        Ok(made)
    }

    /// The image of a stage or an image's name, as `--from` says it.
    pub fn image_from(&self, name: &str, stage: usize) -> Result<Option<ImageId>> {
        match self.plan.find(name, stage) {
            Some(other) => Ok(self.end_of(other)?.image.clone()),
            None if name == "scratch" => Ok(None),
            None => {
                let image = self.base_image(name, None)?;
                Ok(Some(image))
            }
        }
    }

    /// An image by its name, fetched if it is not here.
    ///
    /// Until it is held, it may be removed like any other: then it is as if it had not been there.
    pub fn base_image(&self, name: &str, platform: Option<&Platform>) -> Result<ImageId> {
        // An id is no name that a registry knows.
        let reference = Reference::parse(name).ok().filter(|_| !name.starts_with("sha256:"));
        let found = match &reference {
            Some(_) if self.options.pull => None,
            _ => match self.local_image(name, platform) {
                Err(error) if error.class == Class::NotFound && reference.is_some() => None,
                found => Some(found?),
            },
        };
        let id = match (found, reference) {
            (Some(id), _) => id,
            (None, Some(reference)) => {
                self.pull(reference, platform)?;
                self.local_image(name, platform)?
            }
            (None, None) => return Err(Error::not_found(format!("No such image: {name}"))),
        };
        self.held.add(&id);
        Ok(id)
    }

    fn local_image(&self, name: &str, platform: Option<&Platform>) -> Result<ImageId> {
        let image = self.engine.images.resolve(name)?;
        let offered = Platform {
            os: image.config.os.clone(),
            architecture: image.config.architecture.clone(),
            variant: image.config.variant.clone(),
        };
        match platform.filter(|wanted| !wanted.accepts(&offered)) {
            None => Ok(image.id),
            Some(wanted) => Err(Error::not_found(format!(
                "image with reference {name} was found but its platform ({offered}) does not match the specified \
                 platform ({wanted})"
            ))),
        }
    }

    fn pull(&self, reference: Reference, platform: Option<&Platform>) -> Result<()> {
        let reference = reference.with_default_tag();
        let client = registry::Client {
            credentials: registry::credentials_for(reference.domain(), &self.options.credentials),
            cancel: self.cancel.requests.clone(),
            ..registry::Client::default()
        };
        let tell = &mut |message| self.output.tell(message);
        self.engine.pull(reference, platform.cloned(), &client, tell).map(drop)
    }

    fn finish(&self) -> Outcome<ImageId> {
        let target = self.plan.needed.last().copied().unwrap_or_default();
        let end = self.end_of(target)?;
        let Some(id) = end.image.clone() else {
            return Err(Error::invalid("No image was generated. Is your Dockerfile empty?").into());
        };
        let unused = self.unused_args();
        if !unused.is_empty() {
            let names = unused.join(" ");
            self.output.say(format!("[Warning] One or more build-args [{names}] were not consumed\n"));
        }
        let aux = serde_json::json!({ "ID": id.to_string() });
        self.output.tell(JsonMessage { aux: Some(aux), ..JsonMessage::default() });
        self.output.say(format!("Successfully built {}\n", id.short()));
        for name in &self.options.names {
            self.engine.images.give_name(&id, name)?;
            let mut attributes = end.config.labels.clone();
            attributes.insert("name".to_owned(), name.familiar());
            self.engine.events.publish("image", "tag", &id.to_string(), attributes);
            self.output.say(format!("Successfully tagged {}\n", name.familiar()));
        }
        Ok(id)
    }

    fn unused_args(&self) -> Vec<&str> {
        let stages = self.plan.needed.iter().flat_map(|at| &self.plan.file.stages[*at].steps);
        let declared: BTreeSet<&str> = stages
            .chain(&self.plan.file.args)
            .filter_map(|step| match &step.instruction {
                Instruction::Arg(pairs) => Some(pairs.iter().map(|(name, _)| name.as_str())),
                _ => None,
            })
            .flatten()
            .collect();
        let is_unused = |name: &&str| !declared.contains(name) && self.args.counts(name);
        self.options.args.keys().map(String::as_str).filter(is_unused).collect()
    }
}
