//! The sending side of a migration: offers the container, sends what can be sent while it runs, freezes it up to its
//! gate, sends the rest, decides, and lets go of it when the receiver has it.
//!
//! Stays whole: the order of these steps is the promise that one side has the container.

mod ahead;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use self::ahead::{Ahead, check_pre_copy, pre_copies};
use super::account::Account;
use super::growing;
use super::logs::LogSender;
use super::wire::{self, Connection, Item, Message, Offer, OfferedVolume, Sender, Standing};
use super::{Leaving, Phase, checkpoint, checkpoint_dir, tidy, verdict};
use crate::daemon::containers::checkpoint::manifest::{MANIFEST, Manifest, Options, Purpose};
use crate::daemon::containers::checkpoint::passes::Passes;
use crate::daemon::containers::checkpoint::seal::{self, Sealed};
use crate::daemon::containers::checkpoint::{self as checkpoints, UnderWay, logs, volumes};
use crate::daemon::containers::container::{Container, Record};
use crate::daemon::containers::lifecycle;
use crate::daemon::containers::network;
use crate::daemon::containers::state::Action;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::ImageId;
use crate::daemon::names;
use crate::daemon::state_dir::{self, Durability};
use crate::http::api::checkpoint::CheckpointCreate;
use crate::http::api::image::JsonMessage;
use crate::http::api::migrate::{Doing, MigrateRequest, Migrated, PreCopy};
use crate::http::api::volume::VolumeCreate;
use crate::runtime::criu::DUMP_LOG;
use crate::runtime::criu::memory::{Memory, is_whole};
use crate::runtime::shim::gate::{self, Decision, Keeper, MOVED};
use crate::runtime::{Dump, Sandbox};

/// That there is nothing to send.
const NOT_FROZEN: &str = "it could not be frozen";
/// How long the frozen container's end may take once it is decided.
const END_WAIT: Duration = Duration::from_secs(10);
/// The most memory that is given at once.
const MOST_ASKED_BYTES: u64 = 64 << 20;

/// Refuses what cannot be moved, while that is an answer's status.
///
/// # Errors
/// Conflict when it does not run, or has checkpoints that would go with it; InvalidParameter, NotImplemented.
pub fn check(engine: &Engine, container: &Container, request: &MigrateRequest) -> Result<()> {
    if request.host.is_empty() {
        return Err(Error::invalid("migrate: the other host has no name"));
    }
    let record = container.record();
    let is_given = record.leaving.as_ref().is_some_and(|leaving| leaving.phase != Phase::Begun);
    if request.resolve || is_given {
        return Ok(());
    }
    let attempt = || format!("Cannot migrate container {}", record.name);
    checkpoints::check_runtime(engine, &record).map_err(|error| error.during(attempt()))?;
    if request.pre_copy == PreCopy::Always {
        check_pre_copy(engine, request.lazy).map_err(|error| error.during(attempt()))?;
    }
    lifecycle::sandbox(container, Action::Checkpoint)?;
    let kept = checkpoints::list(container, "")?;
    if !request.keep
        && let Some(first) = kept.first()
    {
        return Err(Error::conflict(format!(
            "{}: its checkpoints stay here and would be removed with it, {} and others: remove them, or let it stay \
             here stopped with --keep",
            attempt(),
            first.name
        )));
    }
    Ok(())
}

/// Moves a container over a connection that the client has joined to the receiving daemon. Blocks until it is decided
/// whose it is; what it comes to is the last message of the progress.
pub fn serve(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    request: &MigrateRequest,
    connection: Connection,
) {
    let (sender, mut receiver) = match wire::begin(connection) {
        Ok(line) => line,
        Err(error) => return log::error!("{error}"),
    };
    // Whoever sends must hear, too: that the other side is there, and what it refuses.
    let (words, heard) = mpsc::channel();
    let listen = move || {
        while let Ok(message) = receiver.message() {
            if words.send(message).is_err() {
                return;
            }
        }
    };
    let line = Line { sender, heard, is_broken: Cell::new(false), memory_bytes: Cell::new(0) };
    let result = crate::daemon::spawn("migration-ear", listen).and_then(|()| {
        let action = container.begin();
        container.lock().is_kept = true;
        let moved = by_phase(engine, container, request, &line);
        container.lock().is_kept = false;
        drop(action);
        if moved.as_ref().is_ok_and(|moved| moved.is_moved) && !request.keep {
            remove(engine, container);
        }
        moved
    });
    let last = match result {
        Ok(moved) => JsonMessage { aux: serde_json::to_value(&moved).ok(), ..JsonMessage::default() },
        Err(error) => {
            let error = error.during(format!("Cannot migrate container {}", container.name()));
            log::warn!("{error}");
            let told = Migrated {
                id: container.id.clone(),
                is_in_doubt: line.is_broken.get(),
                ..Migrated::default()
            };
            JsonMessage { aux: serde_json::to_value(&told).ok(), ..JsonMessage::failure(error.message) }
        }
    };
    line.sender.progress(&last);
    line.sender.hang_up();
}

/// The way to the receiver.
pub(super) struct Line {
    pub sender: Sender,
    heard: mpsc::Receiver<Message>,
    /// It has ended without the receiver's last word.
    is_broken: Cell<bool>,
    /// Memory that was asked for, and sent.
    memory_bytes: Cell<u64>,
}

impl Line {
    /// The receiver's next word.
    fn hear(&self) -> Result<Message> {
        match self.heard.recv() {
            Ok(Message::Failed { message }) => Err(Error::conflict(message)),
            Ok(message) => Ok(message),
            Err(_) => Err(self.lost()),
        }
    }

    /// As [`hear`](Line::hear), and gives the memory that is asked for meanwhile.
    fn hear_while_giving(&self, memory: Option<&Memory>, account: &mut Account<'_>) -> Result<Message> {
        let total = memory.map(Memory::bytes);
        loop {
            let (process, address, bytes) = match (self.hear()?, memory) {
                (Message::Pages { process, address, bytes }, Some(_)) => (process, address, bytes),
                (message, _) => return Ok(message),
            };
            let Some(memory) = memory.filter(|_| bytes <= MOST_ASKED_BYTES) else {
                return Err(wire::strange("a question for too much memory"));
            };
            let mut pages = vec![0; usize::try_from(bytes).unwrap_or_default()];
            memory.read(process, address, &mut pages)?;
            self.sender.pages(&pages).map_err(|error| self.unsent(error))?;
            let mut so_far = self.memory_bytes.get();
            account.sent(bytes, "memory", total, &mut so_far);
            self.memory_bytes.set(so_far);
        }
    }

    fn lost(&self) -> Error {
        self.is_broken.set(true);
        Error::conflict("the connection to the other daemon broke")
    }

    /// What there is to say of a failure to send: where it is the connection's, the receiver may have said why.
    fn unsent(&self, error: Error) -> Error {
        if !self.sender.is_broken() {
            return error;
        }
        match self.heard.recv() {
            Ok(Message::Failed { message }) => Error::conflict(message),
            _ => {
                self.is_broken.set(true);
                error
            }
        }
    }

    /// An error if the receiver has given up by now.
    fn look_up(&self) -> Result<()> {
        match self.heard.try_recv() {
            Ok(Message::Failed { message }) => Err(Error::conflict(message)),
            Ok(_) => Err(wire::strange("a message out of turn")),
            Err(mpsc::TryRecvError::Empty) => Ok(()),
            Err(mpsc::TryRecvError::Disconnected) => Err(self.lost()),
        }
    }
}

fn by_phase(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    request: &MigrateRequest,
    line: &Line,
) -> Result<Migrated> {
    let leaving = container.lock().record.leaving.clone();
    match leaving {
        Some(leaving) if leaving.phase == Phase::Given => resolve(container, &leaving, line),
        Some(leaving) if leaving.phase == Phase::Done => {
            Ok(Migrated { id: container.id.clone(), is_moved: true, ..Migrated::default() })
        }
        _ if request.resolve => {
            line.sender.tell(&Message::Withdraw { container: container.id.clone() })?;
            match line.hear()? {
                Message::Done {} => Ok(Migrated { id: container.id.clone(), ..Migrated::default() }),
                _ => Err(wire::strange("no answer")),
            }
        }
        _ => migrate(engine, container, request, line),
    }
}

/// Finds out what became of a container that was given away.
fn resolve(container: &Arc<Container>, leaving: &Leaving, line: &Line) -> Result<Migrated> {
    let ticket = leaving.ticket.clone();
    let began = Instant::now();
    let mut account = Account::begin(&line.sender);
    let images = checkpoint_dir(container, &ticket).join("images");
    let written = || match leaving.is_lazy {
        true => Memory::of_images(&images).map(Some).map_err(|error| {
            Error::conflict(format!(
                "{error}: perhaps it is being written just now, and can be sent in a moment"
            ))
        }),
        false => Ok(None),
    };
    line.sender.tell(&Message::Resolve { container: container.id.clone(), ticket })?;
    match line.hear()? {
        Message::Standing(Standing::Taken) => {}
        Message::Standing(Standing::Ready) => {
            let memory = written()?;
            line.sender.tell(&Message::Commit {})?;
            match line.hear_while_giving(memory.as_ref(), &mut account)? {
                Message::Done {} => {}
                _ => return Err(wire::strange("no answer")),
            }
            if memory.is_some() {
                send_memory(line, memory.as_ref(), &mut account)?;
            }
        }
        Message::Standing(Standing::Fetching) => {
            let memory = written()?;
            line.sender.tell(&Message::Commit {})?;
            send_memory(line, memory.as_ref(), &mut account)?;
        }
        Message::Standing(Standing::Lost) => {
            return Err(Error::conflict(format!(
                "{} had not all of its memory when what asks for it there ended or hung, and had to end it: \"dewar rm\" it there; \
                 \"dewar start --checkpoint {} {}\" brings it back here as it was when it was frozen",
                leaving.host,
                checkpoint(&leaving.ticket),
                container.name()
            )));
        }
        Message::Standing(Standing::Unknown) => {
            return Err(Error::conflict(format!(
                "{} does not know it: if it was removed there, remove it here, too; otherwise \"dewar start --checkpoint \
                 {} {}\" brings it back here",
                leaving.host,
                checkpoint(&leaving.ticket),
                container.name()
            )));
        }
        _ => return Err(wire::strange("no answer")),
    }
    let kept = leaving.is_kept;
    settle_given(container, kept)?;
    let (id, bytes) = (container.id.clone(), account.bytes);
    let milliseconds = if bytes > 0 { millis(began.elapsed()) } else { 0 };
    Ok(Migrated { id, is_moved: true, bytes, milliseconds, ..Migrated::default() })
}

/// Gives the memory that is asked for, until all of it is there.
fn send_memory(line: &Line, memory: Option<&Memory>, account: &mut Account<'_>) -> Result<()> {
    account.enter(Doing::Memory, "Running there; sending its memory");
    match line.hear_while_giving(memory, account)? {
        Message::Fetched {} => Ok(()),
        Message::Lost {} => {
            Err(Error::conflict("it was ended over there, as the rest of its memory could not come"))
        }
        _ => Err(wire::strange("no word of having its memory")),
    }
}

/// Writes down that the receiver has it.
fn settle_given(container: &Arc<Container>, is_kept: bool) -> Result<()> {
    let ticket = {
        let mut inner = container.lock();
        let ticket = inner.record.leaving.as_ref().map(|leaving| leaving.ticket.clone()).unwrap_or_default();
        match &mut inner.record.leaving {
            Some(leaving) if !is_kept => leaving.phase = Phase::Done,
            leaving => *leaving = None,
        }
        inner.record.error.clear();
        save(container, &inner.record)?;
        ticket
    };
    if is_kept {
        tidy(container, &ticket);
    }
    Ok(())
}

fn save(container: &Container, record: &Record) -> Result<()> {
    state_dir::save(&container.dir.join("container.json"), record, Durability::Synced)
}

fn migrate(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    request: &MigrateRequest,
    line: &Line,
) -> Result<Migrated> {
    let sandbox = lifecycle::sandbox(container, Action::Checkpoint)?;
    let record = container.record();
    let ticket = names::new_id()?;
    let mut account = Account::begin(&line.sender);
    let (saved, trees) = saved_volumes(engine, &record, request)?;
    let under_way = UnderWay {
        dir: container.dir.join("checkpoints"),
        name: checkpoint(&ticket),
        options: Options { tcp_close: request.tcp_close, ..Options::default() },
        criu: engine.criu().as_ref().map_or_else(|_| String::new(), |info| info.version.clone()),
        volumes: saved,
        log_bytes: None,
        purpose: Purpose::Asked,
    };
    let (mut warnings, takes_pre_dumps) =
        offer(engine, &record, request, &under_way, &ticket, line, &mut account)?;
    let pre_copies = pre_copies(engine, &sandbox, request, takes_pre_dumps)?;
    let mut log = LogSender::open(container);
    log.send(line, &mut account)?;
    let passes = Passes::of(container.layer_dir(record.layer).join("upper"), trees);

    tidy(container, &ticket);
    let partial = under_way.partial();
    state_dir::make_dir(&under_way.dir, 0o700)?;
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&partial)
        .map_err(|cause| Error::system(format!("create directory {partial:?}"), cause))?;
    {
        let mut inner = container.lock();
        inner.record.leaving = Some(Leaving {
            ticket: ticket.clone(),
            host: request.host.clone(),
            phase: Phase::Begun,
            is_kept: request.keep,
            is_lazy: request.lazy,
        });
        save(container, &inner.record)?;
    }
    let journey =
        Journey { engine, container, record: &record, under_way: &under_way, ticket: &ticket, line };
    let memory =
        Ahead { is_wanted: pre_copies, is_must: request.pre_copy == PreCopy::Always, ..Ahead::default() };
    let mut goods = Goods { log, passes, memory, files: BTreeMap::new() };
    let outcome = journey
        .send_ahead(&sandbox, &mut goods, &mut account)
        .and_then(|()| journey.hand_over(&sandbox, request, &mut goods, &mut account));
    warnings.append(&mut goods.memory.warnings);
    match outcome {
        Ok(stopped) => {
            container.wait_until(Some(END_WAIT), |inner| !inner.record.state.is_alive());
            settle_given(container, request.keep)?;
            let mut attributes = record.event_attributes();
            attributes.insert("host".to_owned(), request.host.clone());
            engine.events.publish("container", "migrate", &container.id, attributes);
            Ok(Migrated {
                id: container.id.clone(),
                is_moved: true,
                is_in_doubt: false,
                bytes: account.bytes,
                pre_copied_bytes: goods.memory.bytes,
                milliseconds: millis(account.began.elapsed()),
                stopped_milliseconds: millis(stopped),
                warnings,
            })
        }
        Err(error) => {
            let mut inner = container.lock();
            let is_given = inner.record.leaving.as_ref().is_some_and(|leaving| leaving.phase == Phase::Given);
            if is_given {
                save(container, &inner.record)?;
                drop(inner);
                container.wait_until(Some(END_WAIT), |inner| !inner.record.state.is_alive());
                if request.lazy
                    && let Err(error) = seal_again(&checkpoint_dir(container, &ticket))
                {
                    log::error!("{error}");
                }
                let text = super::check_start(&container.record())
                    .map_or_else(|error| error.message, |()| String::new());
                return Err(error.during(text));
            }
            inner.record.leaving = None;
            save(container, &inner.record)?;
            drop(inner);
            tidy(container, &ticket);
            Err(error)
        }
    }
}

/// Seals a checkpoint whose memory has been written after it was sent.
fn seal_again(dir: &Path) -> Result<()> {
    if !is_whole(&dir.join("images"))? {
        return Err(Error::conflict("its memory was not written"));
    }
    let manifest = Manifest { files: seal::seal(dir, seal::Known::new())?, ..Manifest::load(dir)? };
    state_dir::save(&dir.join(MANIFEST), &manifest, Durability::Renamed)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

type Saved = Vec<checkpoints::manifest::SavedVolume>;

/// The volumes whose content goes along; and where that is, with the archive it goes to.
fn saved_volumes(
    engine: &Engine,
    record: &Record,
    request: &MigrateRequest,
) -> Result<(Saved, Vec<(PathBuf, String)>)> {
    let wanted = CheckpointCreate { no_volumes: request.keep_volumes, ..CheckpointCreate::default() };
    let saved = volumes::to_save(engine, record, &wanted)?;
    Ok(saved.into_iter().map(|(saved, from)| (saved.clone(), (from, saved.file))).unzip())
}

/// Offers the container, and sends its image if that is not there; gives what the receiver has to complain of, and
/// whether it takes memory before the freeze.
fn offer(
    engine: &Engine,
    record: &Record,
    request: &MigrateRequest,
    under_way: &UnderWay,
    ticket: &str,
    line: &Line,
    account: &mut Account<'_>,
) -> Result<(Vec<String>, bool)> {
    let mut offered: BTreeMap<String, OfferedVolume> = BTreeMap::new();
    for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
        let volume = engine.volumes.get(&mount.name)?;
        let shown = volume.shown();
        let is_saved = under_way.volumes.iter().any(|saved| saved.name == mount.name);
        let left_out = match is_saved {
            true => None,
            false => Some(volumes::why_not(mount, &volume).unwrap_or("--keep-volumes").to_owned()),
        };
        let volume_request = VolumeCreate {
            name: mount.name.clone(),
            driver: String::new(),
            driver_opts: shown.options.clone(),
            labels: shown.labels.clone(),
        };
        offered.insert(mount.name.clone(), OfferedVolume { request: volume_request, left_out });
    }
    let id =
        ImageId::parse(&record.image_id).ok_or_else(|| Error::system("read its image", "not a digest"))?;
    let image = engine.images.get(&id)?;
    let offer = Offer {
        version: wire::VERSION,
        layers: image.config.rootfs.diff_ids.clone(),
        ticket: ticket.to_owned(),
        from: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        manifest: under_way.describe(record, BTreeMap::new()),
        volumes: offered.into_values().collect(),
        keep_volumes: request.keep_volumes,
        lazy: request.lazy,
        tcp_close: request.tcp_close,
        trust: request.trust,
    };
    line.sender.tell(&Message::Offer(Box::new(offer)))?;
    let (has_image, layers, warnings, takes_pre_dumps) = match line.hear()? {
        Message::Accepted { has_image, layers, warnings, takes_pre_dumps } => {
            (has_image, layers, warnings, takes_pre_dumps)
        }
        _ => return Err(wire::strange("no answer to an offer")),
    };
    if !has_image {
        let missing = image.config.rootfs.diff_ids.iter().filter(|id| !layers.contains(*id)).count();
        let text = match missing == image.config.rootfs.diff_ids.len() {
            true => "Sending the image".to_owned(),
            false => format!("Sending the image: {missing} of {} layers", image.config.rootfs.diff_ids.len()),
        };
        account.enter(Doing::Image, &text);
        let names: Vec<String> =
            engine.images.references_of(&id).iter().map(|reference| reference.familiar()).collect();
        let names = if names.is_empty() { vec![id.to_string()] } else { names };
        let mut so_far = 0;
        let mut sent = |bytes| account.sent(bytes, "image", None, &mut so_far);
        let sent = line.sender.written(Item::Image, &mut sent, |out| {
            engine.images.save_without(&names, &layers, out).map(|_| ())
        });
        sent.map_err(|error| line.unsent(error))?;
    }
    match line.hear()? {
        Message::Stored {} => Ok((warnings, takes_pre_dumps)),
        _ => Err(wire::strange("no answer to an image")),
    }
}

/// A container that has been accepted, from its freeze to its end here.
struct Journey<'a> {
    engine: &'a Arc<Engine>,
    container: &'a Arc<Container>,
    record: &'a Record,
    under_way: &'a UnderWay,
    ticket: &'a str,
    line: &'a Line,
}

/// What goes along beside what the dump writes.
struct Goods {
    log: LogSender,
    passes: Passes,
    memory: Ahead,
    /// Those of the checkpoint that have been sent.
    files: BTreeMap<String, Sealed>,
}

impl Journey<'_> {
    /// Freezes it, sends it and gives it away; how long it stood still until it ran over there.
    ///
    /// # Errors
    /// It runs on here, unless its record says that it was given away.
    fn hand_over(
        &self,
        sandbox: &Sandbox,
        request: &MigrateRequest,
        goods: &mut Goods,
        account: &mut Account<'_>,
    ) -> Result<Duration> {
        let dump = Dump {
            dir: self.under_way.partial(),
            tcp_close: request.tcp_close,
            without_layer: true,
            lazy: request.lazy,
            pre_dumps: goods.memory.passes,
            ..Dump::default()
        };
        let (keeper, gate) = Keeper::pair().map_err(|cause| Error::system("make a gate", cause))?;
        account.enter(Doing::Freezing, "Freezing the container");
        let stopped = Cell::new(Instant::now());
        let hold = || {
            stopped.set(Instant::now());
            network::hold(self.engine, self.record);
        };
        let result = std::thread::scope(|scope| {
            let dump = || sandbox.hand_over(dump, gate, verdict(self.container));
            let builder = std::thread::Builder::new().name("migration-dump".to_owned());
            let dump = builder
                .spawn_scoped(scope, dump)
                .map_err(|cause| Error::system("start thread \"migration-dump\"", cause))?;
            let progress = growing::Progress::default();
            let is_frozen = std::thread::scope(|scope| {
                let (files, account) = (&mut goods.files, &mut *account);
                let (sender, partial) = (self.line.sender.clone(), self.under_way.partial());
                let watched = &progress;
                let ahead = move || send_growing(&sender, &partial, watched, files, account);
                let ahead =
                    std::thread::Builder::new().name("migration-pages".to_owned()).spawn_scoped(scope, ahead);
                let is_frozen = keeper.is_ready(hold);
                progress.ends(is_frozen);
                let ahead =
                    ahead.map_err(|cause| Error::system("start thread \"migration-pages\"", cause))?;
                let sent =
                    ahead.join().unwrap_or_else(|_| Err(Error::system("send memory", "its thread panicked")));
                // What could not be frozen has not been sent, either.
                match is_frozen {
                    true => sent.map(|()| true).map_err(|error| self.line.unsent(error)),
                    false => Ok(false),
                }
            });
            let stopped = stopped.get();
            log::debug!("migration: frozen after {} ms", stopped.elapsed().as_millis());
            let memory = match (&is_frozen, request.lazy) {
                (Ok(true), true) => sandbox.memory(&self.under_way.partial().join("images")).map(Some),
                _ => Ok(None),
            };
            let sent = match (is_frozen, memory) {
                (Ok(true), Ok(memory)) => {
                    self.send(goods, account, memory.as_ref(), stopped).and_then(|ran| match &memory {
                        // The tree stays as long as it is asked.
                        Some(_) => send_memory(self.line, memory.as_ref(), account).map(|()| ran),
                        None => Ok(ran),
                    })
                }
                (Ok(true), Err(cause)) => Err(cause.into()),
                (Ok(false), _) => Err(Error::conflict(NOT_FROZEN)),
                (Err(error), _) => Err(error),
            };
            let is_given = sent.is_ok() || self.is_given();
            keeper.decide(match (&sent, is_given) {
                (Ok(_), _) => Decision::Go,
                (Err(_), true) => Decision::Write,
                (Err(_), false) => Decision::No,
            });
            let dumped = dump.join().unwrap_or_else(|_| {
                Err(crate::runtime::Error {
                    op: "freeze".into(),
                    object: "container".into(),
                    cause: crate::runtime::Cause::Refused("its thread panicked".into()),
                })
            });
            match (sent, dumped) {
                (Ok(took), _) => Ok(took.duration_since(stopped)),
                // The freeze's own failure says more than that there is nothing to send.
                (Err(error), Err(cause)) if !is_given && error.message == NOT_FROZEN => {
                    let at = logs::place(&self.container.dir, "freeze");
                    let cause = logs::keep(cause, &self.under_way.partial().join(DUMP_LOG), &at);
                    Err(checkpoints::explained(self.engine, cause))
                }
                (Err(error), dumped) => {
                    if let Err(cause) = dumped
                        && is_given
                    {
                        log::error!("the memory of container {:?} is not written: {cause}", self.record.name);
                    }
                    Err(error)
                }
            }
        });
        if result.is_err() && !self.is_given() {
            network::release(self.engine, self.record);
            // What the receiver has is discarded when it hears so, or that there is nobody any more.
            if let Err(error) = &result {
                let _ = self.line.sender.tell(&Message::Failed { message: error.message.clone() });
            }
        }
        result
    }

    fn is_given(&self) -> bool {
        let inner = self.container.lock();
        inner.record.leaving.as_ref().is_some_and(|leaving| leaving.phase == Phase::Given)
    }

    /// Sends the frozen container, and gives it away when the receiver is ready; when it ran there.
    fn send(
        &self,
        goods: &mut Goods,
        account: &mut Account<'_>,
        memory: Option<&Memory>,
        stopped: Instant,
    ) -> Result<Instant> {
        let (partial, line) = (self.under_way.partial(), self.line);
        account.enter(Doing::Rest, "Sending the container");
        goods.log.send_rest(line, account)?;
        self.send_pass(goods, account, true)?;
        log::debug!("migration: files sent after {} ms", stopped.elapsed().as_millis());
        let files = &mut goods.files;
        let mut sizes = seal::sizes(&partial)?;
        if let Some((name, _)) =
            sizes.iter().find(|(name, bytes)| files.get(name).is_some_and(|sent| sent.bytes != *bytes))
        {
            return Err(Error::system("send memory", format!("{name} has grown after its end was sent")));
        }
        sizes.retain(|(name, _)| !files.contains_key(name));
        let (total, mut so_far) = (sizes.iter().map(|(_, bytes)| bytes).sum(), 0);
        for (name, _) in sizes {
            line.look_up()?;
            let path = partial.join(&name);
            let file = File::open(&path).map_err(|cause| Error::system(format!("open {path:?}"), cause))?;
            let mut sent = |bytes| account.sent(bytes, "memory", Some(total), &mut so_far);
            let item = Item::Checkpoint(name.clone());
            let sent = line.sender.file(item, file, &mut sent);
            let (sha256, bytes) = sent.map_err(|error| line.unsent(error))?;
            files.insert(name, seal::sealed(&path, sha256, bytes)?);
        }
        let manifest =
            self.under_way.describe(self.record, std::mem::take(files)).with_pre_dumps(goods.memory.passes);
        // Memory that comes to it later is in no list of files: `seal_again` makes one.
        let files = if memory.is_some() { BTreeMap::new() } else { manifest.files.clone() };
        let kept = Manifest { files, ..manifest.clone() };
        state_dir::save(&partial.join(MANIFEST), &kept, Durability::Renamed)?;
        let whole = checkpoint_dir(self.container, self.ticket);
        fs::rename(&partial, &whole)
            .map_err(|cause| Error::system(format!("rename {partial:?} to {whole:?}"), cause))?;
        let told = line.sender.tell(&Message::Whole { manifest: Box::new(manifest) });
        told.map_err(|error| line.unsent(error))?;
        log::debug!("migration: sent after {} ms", stopped.elapsed().as_millis());
        account.enter(Doing::Thawing, "Waiting for the other daemon to be ready");
        match line.hear_while_giving(memory, account)? {
            Message::Ready { .. } => {}
            _ => return Err(wire::strange("no word of being ready")),
        }
        log::debug!("migration: ready after {} ms", stopped.elapsed().as_millis());
        self.give()?;
        // If it cannot be told it cannot be heard either.
        let _ = line.sender.tell(&Message::Commit {});
        match line.hear_while_giving(memory, account)? {
            Message::Done {} => Ok(Instant::now()),
            _ => Err(wire::strange("no word of running")),
        }
    }

    /// Decides that the container is the receiver's.
    fn give(&self) -> Result<()> {
        let verdict = gate::claim(&verdict(self.container), MOVED)?;
        if verdict != MOVED {
            return Err(Error::conflict("it was decided that it stays"));
        }
        let mut inner = self.container.lock();
        if let Some(leaving) = &mut inner.record.leaving {
            // Not on disk: the verdict is what counts, and the next daemon finds it.
            leaving.phase = Phase::Given;
        }
        Ok(())
    }
}

/// Sends large files of memory while CRIU writes them.
fn send_growing(
    sender: &Sender,
    partial: &Path,
    progress: &growing::Progress,
    files: &mut BTreeMap<String, Sealed>,
    account: &mut Account<'_>,
) -> Result<()> {
    let mut so_far = 0;
    for number in 1.. {
        let Some(growing) = growing::Growing::wait(partial, number, progress)? else { continue };
        let growing::Found::File { name, path, content } = growing else { break };
        let mut sent = |bytes| account.sent(bytes, "memory", None, &mut so_far);
        let (sha256, bytes) = sender.file(Item::Checkpoint(name.clone()), content, &mut sent)?;
        files.insert(name, seal::sealed(&path, sha256, bytes)?);
    }
    Ok(())
}

/// Removes a container that runs elsewhere now, with the volumes that went along and that nobody else has.
pub fn remove(engine: &Arc<Engine>, container: &Arc<Container>) {
    let record = container.record();
    if let Err(error) = lifecycle::remove_with_volumes(engine, container, false) {
        log::error!("{error}");
        return;
    }
    for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
        let Ok(volume) = engine.volumes.get(&mount.name) else { continue };
        if volumes::why_not(mount, &volume).is_some() {
            continue;
        }
        match engine.volumes.remove(&engine.events, &mount.name, true) {
            Err(error) if error.class != crate::http::api::Class::Conflict => log::warn!("{error}"),
            _ => {}
        }
    }
}
