//! The receiving side of a migration: a container is made as the offer says, filled, thawed up to its gate, and let run
//! when the sender commits.
//!
//! Until "ready" is on disk a break discards it all; after that, and until the sender has spoken, only its processes:
//! the checkpoint stays. After "committed" is on disk it is ours: a thaw that failed is tried once more, and a daemon
//! that dies leaves it to the next one.
//!
//! Stays whole: what is on disk at each step is read in one place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::memory::{End, Hear, Relay};
use super::wire::{self, Connection, Item, Message, Offer, Receiver, Sender, Standing};
use super::{Arriving, Phase, checkpoint, checkpoint_dir, logs as logs_of};
use crate::daemon::containers::checkpoint::manifest::{MANIFEST, SavedVolume, boot_id};
use crate::daemon::containers::checkpoint::seal::{self, Sealed};
use crate::daemon::containers::checkpoint::{
    self as checkpoints, How, Manifest, PARTIAL, Thawing, logs, passes, preflight,
};
use crate::daemon::containers::container::{Container, Inner, Record};
use crate::daemon::containers::create;
use crate::daemon::containers::mounts::{self, Mount, Wanted};
use crate::daemon::containers::state::{Action, State};
use crate::daemon::containers::{checks, lifecycle, network, spec};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::ImageId;
use crate::daemon::networks::ports::Ports;
use crate::daemon::state_dir::{self, Durability};
use crate::daemon::{names, runtimes};
use crate::http::api::container::NetworkingConfig;
use crate::runtime::Thaw;
use crate::runtime::criu::predump;
use crate::runtime::criu::relay::Found;

/// Why a container was ended whose page daemon neither ended nor went on.
const HUNG: &str =
    "the container is ended: its memory is not whole, and the rest cannot come: criu's page daemon hangs";

/// Serves one connection. Blocks as long as the migration takes.
pub fn serve(engine: &Arc<Engine>, connection: Connection) {
    let (sender, mut receiver) = match wire::begin(connection) {
        Ok(line) => line,
        Err(error) => return log::error!("{error}"),
    };
    let served = receiver.message().and_then(|message| match message {
        Message::Offer(offer) => receive(engine, *offer, &sender, &mut receiver),
        Message::Resolve { container, ticket } => {
            resolve(engine, &container, &ticket, &sender, &mut receiver)
        }
        Message::Withdraw { container } => {
            withdraw(engine, &container)?;
            sender.tell(&Message::Done {})
        }
        _ => Err(wire::strange("a message that begins nothing")),
    });
    if let Err(error) = served {
        log::warn!("a container that was to arrive: {error}");
        let _ = sender.tell(&Message::Failed { message: error.message });
    }
    sender.hang_up();
}

/// Takes a container in.
fn receive(engine: &Arc<Engine>, offer: Offer, sender: &Sender, receiver: &mut Receiver) -> Result<()> {
    if offer.version != wire::VERSION {
        return Err(Error::not_implemented(format!(
            "the sender speaks version {} of migrations, this dewar version {}",
            offer.version,
            wire::VERSION
        )));
    }
    let was = offer.manifest.record.as_deref().ok_or_else(|| wire::strange("an offer of no container"))?;
    // What an earlier attempt has left of the same container is older than this one.
    withdraw(engine, &was.id)?;
    let Draft { record, wanted, mut warnings } = draft(engine, &offer, was)?;
    let name = record.name.clone();
    let image = ImageId::parse(&record.image_id).ok_or_else(|| wire::strange("an image that is none"));
    let made = image.and_then(|image| {
        let has_image = engine.images.get(&image).is_ok();
        let layers = offer.layers.iter().filter(|id| engine.images.has_layer(id)).cloned().collect();
        let warnings = std::mem::take(&mut warnings);
        sender.tell(&Message::Accepted { has_image, layers, warnings, takes_pre_dumps: true })?;
        if !has_image {
            take_image(engine, &image, receiver)?;
        }
        make(engine, record, wanted)
    });
    let container = made.inspect_err(|_| engine.containers.release(&name))?;
    let action = container.begin();
    let offered = offer.manifest.volumes.clone();
    let filled = fill(engine, &container, offered, sender, receiver);
    let result = match filled {
        Ok(manifest) if offer.lazy => {
            let thaw =
                |asks, hear: Hear<'_>| bring_to_life(engine, &container, &manifest, asks, sender, hear);
            let result = with_memory(&container, sender, receiver, (action, thaw));
            return settle_arrival(engine, &container, &name, result);
        }
        Ok(manifest) => {
            bring_to_life(engine, &container, &manifest, None, sender, &mut || receiver.message())
        }
        Err(error) => Err(error),
    };
    drop(action);
    let result = result.and_then(|()| {
        let told = sender.tell(&Message::Done {});
        super::sweep(&container, &container.record());
        told
    });
    settle_arrival(engine, &container, &name, result)
}

/// What is left of a container that may not have come to life.
fn settle_arrival(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    name: &str,
    result: Result<()>,
) -> Result<()> {
    match result {
        Ok(()) => Ok(()),
        // It has been taken over.
        Err(error) if phase(container).is_none() => Err(error),
        // The sender may have decided without our having heard of it.
        Err(error) if phase(container) == Some(Phase::Ready) => {
            log::warn!("container {name:?} waits until it is known whose it is: {error}");
            Err(error)
        }
        // It stays, and so does its checkpoint: nobody else has it.
        Err(error) if phase(container) == Some(Phase::Given) => Err(error),
        Err(error) => {
            discard(engine, container);
            Err(error)
        }
    }
}

/// A container that is to be.
struct Draft {
    record: Record,
    wanted: Vec<Wanted>,
    warnings: Vec<String>,
}

/// Checks what can be before anything is made, and takes the name.
fn draft(engine: &Engine, offer: &Offer, was: &Record) -> Result<Draft> {
    if !names::is_id(&was.id) || !names::is_id(&offer.ticket) {
        return Err(wire::strange("an id that is none"));
    }
    if engine.containers.by_id(&was.id).is_some() {
        return Err(Error::conflict(format!("container {} is here already", was.id)));
    }
    preflight::fits(engine, &offer.manifest)?;
    if let Err(reason) = engine.criu() {
        return Err(Error::conflict(reason.to_string()));
    }
    if offer.lazy {
        checkpoints::check_lazy(engine)?;
    }
    let (config, host_config) = (was.config.clone(), was.host_config.clone());
    checks::config(&config)?;
    checks::conflicts(&config, &host_config)?;
    checks::host_config(&config, &host_config)?;
    if runtimes::find(&engine.config(), &host_config.runtime)?.is_some() {
        return Err(Error::not_implemented("only the built-in runtime thaws containers"));
    }
    Ports::wishes(&host_config, &config.exposed_ports)?;
    let endpoints_config = was.networks.iter().map(|(name, place)| (name.clone(), place.asked.clone()));
    let given = NetworkingConfig { endpoints_config: endpoints_config.collect() };
    for name in was.networks.keys() {
        engine.networks.find(name)?;
    }
    let networks = network::places(engine, &host_config, &config, given)?;
    let (mut wanted, mut volumes) = (Vec::new(), Vec::new());
    for mount in &was.mounts {
        wanted.push(wish(engine, offer, mount, &mut volumes)?);
    }
    let warnings = offer.volumes.iter().filter_map(|volume| {
        let reason = volume.left_out.as_ref()?;
        Some(format!("the content of volume {} does not come along: {reason}", volume.request.name))
    });
    let warnings = warnings.collect();
    let record = Record {
        id: was.id.clone(),
        name: names::container_name(&was.name)?.to_owned(),
        created: was.created.clone(),
        image_id: was.image_id.clone(),
        path: was.path.clone(),
        args: was.args.clone(),
        config,
        host_config,
        networks,
        state: State::Created,
        restart_count: was.restart_count,
        is_unborn: true,
        arriving: Some(Arriving {
            ticket: offer.ticket.clone(),
            from: offer.from.clone(),
            phase: Phase::Begun,
            volumes,
            keep_volumes: offer.keep_volumes,
            lazy: offer.lazy,
            tcp_close: offer.tcp_close,
            trust: offer.trust,
        }),
        ..Record::default()
    };
    spec::validate(&record)?;
    engine.containers.reserve(&record.name, &record.id)?;
    Ok(Draft { record, wanted, warnings })
}

/// What takes a mount's place here; `made` gets the volumes that are to be made.
fn wish(engine: &Engine, offer: &Offer, mount: &Mount, made: &mut Vec<String>) -> Result<Wanted> {
    let mount = Mount { is_copied: false, ..mount.clone() };
    if mount.kind == "bind" && !mount.is_source_made && !Path::new(&mount.source).exists() {
        return Err(Error::conflict(format!(
            "directory {} is mounted at {}, and is not there on the receiving host",
            mount.source, mount.destination
        )));
    }
    if mount.kind != "volume" {
        return Ok(Wanted { mount, volume: None });
    }
    let name = &mount.name;
    let offered = offer.volumes.iter().find(|volume| volume.request.name == *name);
    let offered = offered.ok_or_else(|| wire::strange("a volume that it does not describe"))?;
    let is_here = engine.volumes.get(name).is_ok();
    match (&offered.left_out, is_here) {
        (None, true) if !offer.keep_volumes => {
            return Err(Error::conflict(format!(
                "volume {name} is there already: remove it, or take it as it is with --keep-volumes"
            )));
        }
        (Some(reason), false) => {
            return Err(Error::conflict(format!("volume {name} is not there, and is not sent: {reason}")));
        }
        (_, false) if !made.contains(name) => made.push(name.clone()),
        _ => {}
    }
    Ok(Wanted { volume: Some(offered.request.clone()), mount })
}

fn take_image(engine: &Engine, image: &ImageId, receiver: &mut Receiver) -> Result<()> {
    match receiver.message()? {
        Message::File { item: Item::Image } => {}
        Message::Failed { message } => return Err(Error::conflict(message)),
        _ => return Err(wire::strange("no image")),
    }
    let mut body = receiver.body();
    engine.images.load(&mut body, None, &mut |_| {})?;
    body.finish()?;
    engine.images.get(image).map(|_| ()).map_err(|_| wire::strange("another image than the container's"))
}

/// Puts the empty container on disk; the name stays taken if that fails.
fn make(engine: &Engine, mut record: Record, wanted: Vec<Wanted>) -> Result<Arc<Container>> {
    let (id, dir) = (record.id.clone(), engine.state_dir.container(&record.id));
    // First: a daemon that dies finds what to remove.
    state_dir::make_dir(&dir, 0o710)?;
    let made = state_dir::save(&dir.join("container.json"), &record, Durability::Renamed)
        .and_then(|()| mounts::acquire(engine, &mut record, wanted));
    let container = Arc::new(Container::new(dir, record));
    if let Err(error) = made.and_then(|()| create::write(engine, &container)) {
        mounts::forget(engine, &container.record(), false);
        super::forget_volumes(engine, &container.record());
        let _ = state_dir::remove_tree(&container.dir);
        return Err(error);
    }
    engine.containers.insert(Arc::clone(&container));
    engine.events.publish("container", "create", &id, container.record().event_attributes());
    Ok(container)
}

/// Takes the files in, and makes a checkpoint of them.
fn fill(
    engine: &Arc<Engine>,
    container: &Container,
    offered: Vec<SavedVolume>,
    sender: &Sender,
    receiver: &mut Receiver,
) -> Result<Manifest> {
    let ticket = ticket(container);
    let dir = checkpoint_dir(container, &ticket);
    let partial = dir.with_file_name(format!("{}{PARTIAL}", checkpoint(&ticket)));
    state_dir::make_dir(&partial, 0o700)?;
    let log = logs_of::place(container);
    let mut is_frozen = false;
    sender.tell(&Message::Stored {})?;
    let mut files = BTreeMap::new();
    let manifest = loop {
        match receiver.message()? {
            Message::File { item: item @ (Item::Log | Item::OldLog(_)) } => {
                let path =
                    log.as_ref().ok_or_else(|| wire::strange("a log, which this container has not"))?;
                let path = match item {
                    Item::OldLog(suffix) if logs_of::is_suffix(&suffix) => logs_of::beside(path, &suffix),
                    Item::OldLog(_) => return Err(wire::strange("a log of no known name")),
                    _ => path.clone(),
                };
                store(receiver, &path)?;
            }
            Message::LogsAnew {} => log.as_deref().map_or(Ok(()), logs_of::remove)?,
            Message::File { item: Item::Checkpoint(name) } => {
                let sealed = store(receiver, &below(&partial, &name)?)?;
                if let Some(tree) = passes::tree_of(&name)
                    && let Some(into) = place_of(engine, container, &offered, tree)?
                {
                    passes::unpack_one(&partial, &name, &into)?;
                }
                files.insert(name, sealed);
            }
            Message::Freezing {} if !is_frozen => {
                is_frozen = true;
                sender.tell(&Message::Prepared {})?;
            }
            Message::Whole { manifest } => break *manifest,
            Message::Failed { message } => return Err(Error::conflict(message)),
            _ => return Err(wire::strange("a message that does not belong there")),
        }
    };
    let is_same = |(name, sealed): (&String, &Sealed)| {
        files.get(name).is_some_and(|own: &Sealed| {
            own.sha256.is_some() && own.sha256 == sealed.sha256 && own.bytes == sealed.bytes
        })
    };
    if manifest.files.len() != files.len() || !manifest.files.iter().all(is_same) {
        return Err(wire::strange("files that are not those of its manifest"));
    }
    predump::link(&partial, manifest.pre_dumps)?;
    // Sealed anew: inodes and times are this host's.
    let manifest = Manifest { files, boot_id: boot_id(), ..manifest };
    state_dir::save(&partial.join(MANIFEST), &manifest, Durability::Renamed)?;
    fs::rename(&partial, &dir)
        .map_err(|cause| Error::system(format!("rename {partial:?} to {dir:?}"), cause))?;
    let record = container.record();
    let is_trusted = record.arriving.as_ref().is_some_and(|arriving| arriving.trust);
    preflight::admits(&record, &dir, &manifest, is_trusted)?;
    if manifest.volumes != offered {
        return Err(wire::strange("other volumes than it offered"));
    }
    Ok(manifest)
}

/// Where a tree of files goes that comes in archives, the first of them called `archive`; `None` for one that is kept as
/// it is here.
fn place_of(
    engine: &Engine,
    container: &Container,
    offered: &[SavedVolume],
    archive: &str,
) -> Result<Option<PathBuf>> {
    if archive == passes::ROOTFS {
        return Ok(Some(container.layer_dir(0).join("upper")));
    }
    let record = container.record();
    let arriving = record.arriving.unwrap_or_default();
    let saved = offered.iter().find(|saved| saved.file == archive);
    match saved {
        Some(_) if arriving.keep_volumes => Ok(None),
        Some(saved) if arriving.volumes.contains(&saved.name) => {
            Ok(Some(engine.volumes.get(&saved.name)?.mountpoint()))
        }
        _ => Err(wire::strange("the content of a volume that is not the container's")),
    }
}

fn ticket(container: &Container) -> String {
    container.lock().record.arriving.as_ref().map(|arriving| arriving.ticket.clone()).unwrap_or_default()
}

/// A path below the checkpoint's directory, of which the sender has the last parts.
fn below(dir: &Path, name: &str) -> Result<PathBuf> {
    let path = Path::new(name);
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let is_known = match path.parent().and_then(Path::to_str) {
        Some("" | "images" | "volumes") => name != MANIFEST,
        Some(directory) => passes::is_directory(directory) || predump::is_directory(directory),
        None => false,
    };
    if !is_plain || !is_known || name.is_empty() {
        return Err(wire::strange("a file that has no place in a checkpoint"));
    }
    Ok(dir.join(path))
}

/// Writes what comes to the end of a file.
fn store(receiver: &mut Receiver, path: &Path) -> Result<Sealed> {
    let failed = |cause: std::io::Error| Error::system(format!("write {path:?}"), cause);
    state_dir::make_dir(path.parent().unwrap_or(path), 0o700)?;
    let file = File::options().append(true).create(true).mode(0o600).open(path).map_err(failed)?;
    let mut out = BufWriter::with_capacity(256 * 1024, file);
    let mut body = receiver.body();
    std::io::copy(&mut body, &mut out).map_err(failed)?;
    out.flush().map_err(failed)?;
    let (sha256, bytes) = body.finish()?;
    seal::sealed(path, sha256, bytes)
}

/// Thaws it up to its gate, and lets it run when the sender gives it away.
fn bring_to_life(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    manifest: &Manifest,
    asks: Option<OwnedFd>,
    sender: &Sender,
    hear: Hear<'_>,
) -> Result<()> {
    let arriving = container.lock().record.arriving.clone().unwrap_or_default();
    let thaw = Thaw {
        dir: checkpoint_dir(container, &arriving.ticket),
        tcp_close: arriving.tcp_close || manifest.options.tcp_close,
        hostname: None,
        lazy: arriving.lazy,
        asks: asks.map(Arc::new),
    };
    let refusal = Mutex::new(None);
    let log = logs::place(&container.dir, "thaw");
    let thawing = Thawing { thaw, layer: 0, places: manifest.places.clone(), log };
    let started = {
        let mut agreed = || match agree(container, sender, hear) {
            Ok(()) => true,
            Err(error) => {
                *refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                false
            }
        };
        lifecycle::start_at_gate(engine, container, thawing, &mut agreed)
    };
    let Err(error) = started else { return Ok(()) };
    if let Some(refusal) = refusal.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(refusal);
    }
    if phase(container) != Some(Phase::Given) {
        return Err(error);
    }
    if arriving.lazy {
        // The sender has what it lacks; asked again it sends that.
        return Err(error);
    }
    // It is ours, and has not run: what came between may not come again.
    log::warn!("container {:?}: its thaw failed, and is tried again: {error}", container.name());
    again(engine, container, None)
}

/// Says that it is ready, and waits for the sender's decision.
fn agree(container: &Container, sender: &Sender, hear: Hear<'_>) -> Result<()> {
    set_phase(container, Phase::Ready)?;
    sender.tell(&Message::Ready { warnings: Vec::new() })?;
    match hear()? {
        Message::Commit {} => set_phase(container, Phase::Given),
        other => {
            // It has decided: nothing is in doubt any more.
            set_phase(container, Phase::Begun)?;
            Err(match other {
                Message::Failed { message } => Error::conflict(message),
                _ => wire::strange("no decision"),
            })
        }
    }
}

fn phase(container: &Container) -> Option<Phase> {
    container.lock().record.arriving.as_ref().map(|arriving| arriving.phase)
}

/// Writes down how far it has come.
fn set_phase(container: &Container, phase: Phase) -> Result<()> {
    let mut inner = container.lock();
    let before = inner.record.clone();
    inner.record.is_unborn = phase == Phase::Begun;
    let record = &mut inner.record;
    if let Some(arriving) = &mut record.arriving {
        arriving.phase = phase;
        let is_awaited = arriving.lazy && phase == Phase::Given;
        record.awaited = is_awaited.then(|| arriving.ticket.clone());
    }
    let saved = state_dir::save(&container.dir.join("container.json"), &inner.record, Durability::Synced);
    saved.inspect_err(|_| inner.record = before)
}

/// Thaws what is ours out of its checkpoint, on a layer of its own; the caller holds the action lock.
fn again(engine: &Arc<Engine>, container: &Arc<Container>, asks: Option<OwnedFd>) -> Result<()> {
    let arriving = container.lock().record.arriving.clone().unwrap_or_default();
    let how = How {
        tcp_close: arriving.tcp_close,
        lazy: arriving.lazy,
        trust: arriving.trust,
        keep_volumes: arriving.keep_volumes,
        asks: asks.map(Arc::new),
    };
    let name = checkpoint(&arriving.ticket);
    checkpoints::restore_locked(engine, container, &name, "", how, Action::Restore)
}

/// Brings a container to life with `thaw`, whose memory comes later, and waits until it is there. The action lock is
/// let go of as soon as it runs.
///
/// # Errors
/// Those of `thaw`; the line has ended before all was there, or what runs had to be ended. In any case nothing can be
/// said on the line afterwards, and the sender was told.
fn with_memory<Lock, Work>(
    container: &Arc<Container>,
    sender: &Sender,
    receiver: &mut Receiver,
    (action, thaw): (Lock, Work),
) -> Result<()>
where
    Work: FnOnce(Option<OwnedFd>, Hear<'_>) -> Result<()>,
{
    let owner = Arc::clone(container);
    let (relay, asks) = Relay::begin(&container.id, move |end| memory_ended(&owner, end))?;
    relay.beside(sender, receiver, |hear| {
        thaw(Some(asks), hear)?;
        drop(action);
        sender.tell(&Message::Done {})?;
        await_memory(&relay, container, sender)
    })
}

fn await_memory(relay: &Relay, container: &Arc<Container>, sender: &Sender) -> Result<()> {
    match relay.wait() {
        End::Whole => {
            // When it ended it may not have been known yet that the container runs.
            super::sweep(container, &container.record());
            sender.tell(&Message::Fetched {})
        }
        End::Lost => sender.tell(&Message::Lost {}),
        End::Unanswered => Err(Error::conflict(
            "the connection broke before all of its memory had come: it runs, and waits for it",
        )),
    }
}

/// Goes on with the memory of a container that an earlier daemon has let run: the rest comes when the move is resolved.
pub fn await_rest(container: &Arc<Container>) {
    let (record, sandbox) = {
        let inner = container.lock();
        (inner.record.clone(), inner.sandbox.clone())
    };
    let (Some(_), Some(sandbox)) = (&record.awaited, sandbox) else { return };
    let name = &record.name;
    match sandbox.asking() {
        Ok(Found::Line(criu)) => {
            log::warn!(
                "container {name:?} waits for memory until \"dewar migrate --resolve\" where it came from"
            );
            let owner = Arc::clone(container);
            if let Err(error) = Relay::go_on(&container.id, criu, move |end| memory_ended(&owner, end)) {
                log::error!("container {name:?}: go on with its memory: {error}");
            }
        }
        Ok(Found::Whole) => memory_ended(container, End::Whole),
        Ok(Found::Nothing) => {}
        Err(error) => log::error!("container {name:?}: go on with its memory: {error}"),
    }
}

/// Writes down that nothing more is to come; sees to it that nothing runs on whose memory cannot be whole.
fn memory_ended(container: &Arc<Container>, end: End) {
    if end != End::Whole {
        // Its shim does that, unless CRIU's page daemon hangs.
        let has_ended = |inner: &Inner| !inner.record.state.is_alive();
        if !container.wait_until(Some(Duration::from_secs(2)), has_ended) {
            let sandbox = container.lock().sandbox.clone();
            if let Some(Err(error)) = sandbox.map(|sandbox| sandbox.signal(9, None)) {
                log::error!("container {:?}: end it, as its memory is not whole: {error}", container.name());
            }
            if container.wait_until(Some(Duration::from_secs(10)), has_ended) {
                explain_end(container);
            }
        }
        return;
    }
    {
        let mut inner = container.lock();
        inner.record.awaited = None;
        if let Err(error) = container.save(&inner) {
            log::warn!("{error}");
        }
    }
    super::sweep(container, &container.record());
}

/// Says why it was ended, where a shim would have said it.
fn explain_end(container: &Container) {
    let mut inner = container.lock();
    if inner.record.state.is_alive() || !inner.record.error.is_empty() {
        return;
    }
    inner.record.error = HUNG.to_owned();
    log::error!("container {:?}: {}", inner.record.name, inner.record.error);
    if let Err(error) = container.save(&inner) {
        log::warn!("{error}");
    }
}

/// Brings a container to life that is ours and does not run yet.
///
/// # Errors
/// As a restore; the container stays, with its checkpoint.
pub fn complete(engine: &Arc<Engine>, container: &Arc<Container>) -> Result<()> {
    let _action = container.begin();
    again(engine, container, None)?;
    super::sweep(container, &container.record());
    Ok(())
}

/// Answers what is here of a container, and takes it over if the sender says so.
fn resolve(
    engine: &Arc<Engine>,
    id: &str,
    ticket: &str,
    sender: &Sender,
    receiver: &mut Receiver,
) -> Result<()> {
    let found = engine.containers.by_id(id);
    let record = found.as_ref().map(|container| container.record()).unwrap_or_default();
    let (arriving, is_awaited) = (record.arriving, record.awaited.as_deref() == Some(ticket));
    let standing = match (&found, &arriving) {
        (None, _) => Standing::Unknown,
        (Some(_), None) if is_awaited && Relay::of(id).is_some() => Standing::Fetching,
        (Some(_), None) if is_awaited => Standing::Lost,
        (Some(_), None) => Standing::Taken,
        (Some(_), Some(arriving)) if arriving.phase == Phase::Ready && arriving.ticket == ticket => {
            Standing::Ready
        }
        // It is ours, and does not run for want of its memory.
        (Some(_), Some(arriving)) if arriving.phase == Phase::Given && is_awaited => Standing::Ready,
        (Some(_), Some(arriving)) if arriving.phase == Phase::Given => Standing::Taken,
        _ => Standing::Unknown,
    };
    sender.tell(&Message::Standing(standing))?;
    let is_waiting = matches!(standing, Standing::Ready | Standing::Fetching);
    let Some(container) = found.filter(|_| is_waiting) else { return Ok(()) };
    let Message::Commit {} = receiver.message()? else { return Ok(()) };
    let not_waiting = || Error::conflict(format!("container {id} is not waiting any more"));
    if standing == Standing::Fetching {
        let relay = Relay::of(id).ok_or_else(not_waiting)?;
        return relay.beside(sender, receiver, |_| await_memory(&relay, &container, sender));
    }
    let action = container.begin();
    match phase(&container) {
        Some(Phase::Ready) => set_phase(&container, Phase::Given)?,
        Some(Phase::Given) if is_awaited => {}
        _ => return Err(not_waiting()),
    }
    if arriving.is_some_and(|arriving| arriving.lazy) {
        let thaw = |asks, _: Hear<'_>| again(engine, &container, asks);
        return with_memory(&container, sender, receiver, (action, thaw));
    }
    drop(action);
    complete(engine, &container)?;
    sender.tell(&Message::Done {})
}

/// Discards what waits here of a container that its sender has.
fn withdraw(engine: &Arc<Engine>, id: &str) -> Result<()> {
    let Some(container) = engine.containers.by_id(id) else { return Ok(()) };
    let is_ours = || Err(Error::conflict(format!("container {id} is here already")));
    // Its action lock may be the sender's, which is this daemon.
    if phase(&container).is_none() {
        return is_ours();
    }
    let _action = container.begin();
    match phase(&container) {
        Some(Phase::Begun | Phase::Ready) => {
            log::info!("container {:?} stays where it came from, and is discarded here", container.name());
            discard(engine, &container);
            Ok(())
        }
        _ => is_ours(),
    }
}

/// Removes a container that is not ours, with the volumes made for it.
fn discard(engine: &Arc<Engine>, container: &Arc<Container>) {
    let mut inner = container.lock();
    inner.record.state = State::Removing;
    // Should this daemon die now, the next one goes on.
    if let Err(error) = container.save(&inner) {
        log::warn!("{error}");
    }
    drop(inner);
    container.notify();
    if let Err(error) = lifecycle::finish_removal(engine, container) {
        log::error!("{error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_in_their_checkpoint() {
        let dir = Path::new("/c");
        for name in [
            "rootfs.tar",
            "images/pages-1.img",
            "volumes/data.tar",
            "dump.json",
            "passes/1/rootfs.gone",
            "memory/1/pages-1.img",
            "passes/3/volumes/data.tar",
        ] {
            assert_eq!(below(dir, name).unwrap(), dir.join(name));
        }
        for name in [
            "",
            "..",
            "../x",
            "/etc/passwd",
            "images/../../x",
            "a/b",
            "images/a/b",
            "memory/x",
            "memory/1/../x",
            "memory/0/x",
            MANIFEST,
        ] {
            assert!(below(dir, name).is_err(), "{name}");
        }
    }
}
