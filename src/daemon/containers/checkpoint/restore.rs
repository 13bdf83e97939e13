//! New containers out of a checkpoint: each with an id, a name, an address, files, volumes and a log of its own.
//!
//! ```text
//!  drafts     every copy's record is written and checked, names are taken, host ports looked at   nothing is made
//!  make       volumes, directory, layer from rootfs.tar; on record as unborn                       two side by side
//!  start      as any thaw; then it is born
//! ```
//!
//! A copy that cannot be made leaves nothing; those beside it stay. A daemon that dies in between finds a copy that
//! lives, and keeps it, or one that is [`Record::is_unborn`], and removes it.
//!
//! What a copy does not have of its original: the hostname, unless somebody chose that; aliases in networks, which
//! would lead the original's clients to it; addresses and ports of the host that the original still has; its exec
//! sessions; its log. Its processes keep what they remember of those, the variable `HOSTNAME` for one.

mod sources;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::manifest::SavedVolume;
use super::{How, Thawing, check_lazy, check_runtime, find, logs, pack, passes, preflight};
use crate::daemon::containers::container::{Container, Record};
use crate::daemon::containers::create::{self, now};
use crate::daemon::containers::mounts::{self, Mount, Wanted};
use crate::daemon::containers::network::{self, Frozen};
use crate::daemon::containers::state::{Action, State};
use crate::daemon::containers::{lifecycle, spec};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::ImageId;
use crate::daemon::names::{self, CheckpointId};
use crate::daemon::networks::network::Driver;
use crate::daemon::networks::ports::{Ports, Terms};
use crate::daemon::state_dir;
use crate::http::api::checkpoint_policy::CheckpointPolicy;
use crate::http::api::container::{
    Empty, EndpointIpam, EndpointSettings, HostConfig, NetworkingConfig, PortBinding, RestartPolicy, Set,
};
use crate::http::api::copies::{Copied, Copies, CopyRequest};
use crate::runtime::Thaw;
use sources::{copied_mount, name_volumes};

/// Copies made at once: each costs the kernel's work.
const AT_ONCE: usize = 2;
/// Copies in one request: what is more is a slip of the hand.
const MOST: u32 = 1000;

/// What copies are made of.
pub struct Origin {
    /// The original as it was.
    pub record: Record,
    /// The checkpoint.
    pub dir: PathBuf,
    /// The same, but with its memory as CRIU reads it.
    pub memory: PathBuf,
    /// Where it was in networks.
    pub places: Frozen,
    /// Whose content is in the checkpoint.
    pub volumes: Vec<SavedVolume>,
}

/// A copy that is to be.
struct Draft {
    record: Record,
    wanted: Vec<Wanted>,
    hostname: Option<String>,
    warnings: Vec<String>,
}

/// Makes new containers out of a container's checkpoint. Blocks until all of them run.
///
/// # Errors
/// NotFound for an unknown checkpoint or network; Conflict for a name that is taken, an image that is gone or
/// another one; InvalidParameter for what does not fit the checkpoint; System with CRIU's reason. A copy that failed
/// leaves nothing behind; those that were made stay, and the text names both.
pub fn copies(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    id: &str,
    request: &CopyRequest,
) -> Result<Copies> {
    let id = CheckpointId::parse(id)?;
    // Nobody may remove the checkpoint meanwhile.
    let _action = container.begin();
    let (dir, manifest) = find(container, &id, &request.checkpoint_dir)?;
    let attempt = || format!("Cannot restore checkpoint {id} of container {}", container.name());
    let record = container.record();
    preflight::check(engine, &record, &dir, &manifest, request.trust)
        .map_err(|error| error.during(attempt()))?;
    if request.lazy {
        pack::check_lazy(&manifest).map_err(|error| error.during(attempt()))?;
    }
    let memory = pack::unpack(&dir, &manifest).map_err(|error| error.during(attempt()))?;
    let is_anothers = record.state.is_alive();
    let places = Frozen { is_anothers, ..manifest.places };
    let origin = Origin { record, memory: memory.path().to_owned(), dir, places, volumes: manifest.volumes };
    let containers = make_all(engine, &origin, request).map_err(|error| error.during(attempt()))?;
    Ok(Copies { containers, stopped_milliseconds: None })
}

/// Makes all the copies that a request asks for.
///
/// # Errors
/// As [`copies`].
pub fn make_all(engine: &Arc<Engine>, origin: &Origin, request: &CopyRequest) -> Result<Vec<Copied>> {
    let _held = engine.digests.hold();
    let count = check(engine, origin, request)?;
    let mut drafts = Vec::new();
    for number in 1..=count {
        match draft(engine, origin, request, (number, count)) {
            Ok(draft) => drafts.push(draft),
            Err(error) => {
                drafts.iter().for_each(|draft: &Draft| engine.containers.release(&draft.record.name));
                return Err(error);
            }
        }
    }
    if request.port_bindings.is_none() {
        leave_taken_ports(engine, &mut drafts);
    }
    let places = Frozen {
        is_anothers: origin.places.is_anothers || count > 1 || !request.network.is_empty(),
        ..origin.places.clone()
    };
    let drafts: Vec<(String, Mutex<Option<Draft>>)> =
        drafts.into_iter().map(|draft| (draft.record.name.clone(), Mutex::new(Some(draft)))).collect();
    let how = How { tcp_close: request.tcp_close, lazy: request.lazy, ..How::default() };
    let (next, made) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((_, draft)) = drafts.get(number) else { return };
            let draft = draft.lock().unwrap_or_else(PoisonError::into_inner).take();
            let copy = draft.map(|draft| make(engine, origin, &places, &how, draft));
            if let Some(copy) = copy {
                made.lock().unwrap_or_else(PoisonError::into_inner).push((number, copy));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..AT_ONCE.min(drafts.len()) {
            let builder = std::thread::Builder::new().name("copies".to_owned());
            if let Err(cause) = builder.spawn_scoped(scope, work) {
                log::warn!("start thread \"copies\": {cause}");
            }
        }
        work();
    });
    let mut made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
    made.sort_by_key(|(number, _)| *number);
    outcome(made.into_iter().map(|(number, copy)| (drafts[number].0.as_str(), copy)).collect())
}

/// All of them, or an error that says which failed and which run.
fn outcome(made: Vec<(&str, Result<Copied>)>) -> Result<Vec<Copied>> {
    let total = made.len();
    let (mut copies, mut failures) = (Vec::new(), Vec::new());
    for (name, copy) in made {
        match copy {
            Ok(copy) => copies.push(copy),
            Err(error) => failures.push((name, error)),
        }
    }
    let Some((_, first)) = failures.first() else { return Ok(copies) };
    if total == 1 {
        return Err(first.clone());
    }
    let class = first.class;
    let told: Vec<String> = failures.iter().map(|(name, error)| format!("{name}: {error}")).collect();
    let mut text = format!("{} of {total} copies failed: {}", failures.len(), told.join("; "));
    if !copies.is_empty() {
        let running: Vec<&str> = copies.iter().map(|copy| copy.name.as_str()).collect();
        text.push_str(&format!("; {} run", running.join(", ")));
    }
    Err(Error { class, message: text })
}

/// Checks what can be before anything is made; gives how many copies are asked for.
fn check(engine: &Engine, origin: &Origin, request: &CopyRequest) -> Result<u32> {
    let count = request.count.max(1);
    if count > MOST {
        return Err(Error::invalid(format!("{count} copies at once: {MOST} is the most")));
    }
    let addresses = [&request.ipv4_address, &request.ipv6_address, &request.mac_address];
    if count > 1 && addresses.iter().any(|text| !text.is_empty()) {
        return Err(Error::invalid("an address is one container's: it goes with one copy only"));
    }
    check_runtime(engine, &origin.record)?;
    if request.lazy {
        check_lazy(engine)?;
    }
    let image = ImageId::parse(&origin.record.image_id);
    let image = image.ok_or_else(|| Error::system("read the image of the original", "not a digest"))?;
    engine.images.get(&image).map_err(|_| {
        Error::conflict(format!("it was taken over image {image}, which is not here any more"))
    })?;
    for destination in request.volumes.keys() {
        let has = |mount: &Mount| {
            mount.destination == *destination && matches!(mount.kind.as_str(), "volume" | "bind")
        };
        if !origin.record.mounts.iter().any(has) {
            return Err(Error::invalid(format!("there is no mount at {destination} to point elsewhere")));
        }
    }
    Ok(count)
}

/// Writes a copy's record, and takes its name.
fn draft(
    engine: &Engine,
    origin: &Origin,
    request: &CopyRequest,
    (number, count): (u32, u32),
) -> Result<Draft> {
    let was = &origin.record;
    let id = names::new_id()?;
    let mut record = Record {
        id: id.clone(),
        created: now(),
        image_id: was.image_id.clone(),
        path: was.path.clone(),
        args: was.args.clone(),
        config: was.config.clone(),
        host_config: was.host_config.clone(),
        state: State::Created,
        is_unborn: true,
        ..Record::default()
    };
    let host = &mut record.host_config;
    host.container_id_file.clear();
    host.auto_remove = request.auto_remove;
    if host.auto_remove {
        host.checkpoint_policy = CheckpointPolicy::default();
        host.restart_policy = RestartPolicy { name: "no".to_owned(), maximum_retry_count: 0 };
    }
    if let Some(bindings) = &request.port_bindings {
        host.port_bindings.clone_from(bindings);
        host.publish_all_ports = false;
        record.config.exposed_ports.extend(bindings.keys().map(|port| (port.clone(), Empty {})));
    }
    record.config.labels.extend(request.labels.clone());
    record.config.mac_address = None;
    let is_default_name = was.id.get(..12) == Some(&was.config.hostname);
    let hostname = is_default_name.then(|| id[..12].to_owned());
    if let Some(name) = &hostname {
        record.config.hostname.clone_from(name);
    }
    place(engine, &mut record, was, request)?;
    let has_copy = |mount: &Mount| {
        request.copy_volumes
            && mount.kind == "volume"
            && !request.volumes.contains_key(&mount.destination)
            && origin.volumes.iter().any(|saved| saved.name == mount.name)
    };
    let wanted = was.mounts.iter().map(|mount| copied_mount(&mut record, mount, request, has_copy(mount)));
    let wanted = wanted.collect();
    let is_shared = |mount: &&Mount| {
        let is_elsewhere = request.volumes.contains_key(&mount.destination) || has_copy(mount);
        mount.kind == "volume" && mount.rw && !is_elsewhere
    };
    let warnings = was.mounts.iter().filter(is_shared).map(|mount| {
        let Mount { name, destination, .. } = mount;
        match request.copy_volumes {
            true => format!("volume {name} is shared with the original: its content is not in the checkpoint"),
            false => format!(
                "volume {name} is shared with the original: --copy-volumes copies it, --volume NAME:{destination} \
                 gives it another"
            ),
        }
    });
    let warnings = warnings.collect();
    spec::validate(&record)?;
    record.name = match (request.name.as_str(), count) {
        ("", _) => engine.containers.reserve_generated(&id)?,
        (name, 1) => reserve(engine, name, &id)?,
        (name, _) => reserve(engine, &format!("{name}-{number}"), &id)?,
    };
    Ok(Draft { record, wanted, hostname, warnings })
}

fn reserve(engine: &Engine, name: &str, id: &str) -> Result<String> {
    let name = names::container_name(name)?;
    engine.containers.reserve(name, id)?;
    Ok(name.to_owned())
}

/// Asks for the copy's places in networks: where the original is, or in the one network that is named.
fn place(engine: &Engine, record: &mut Record, was: &Record, request: &CopyRequest) -> Result<()> {
    let mut endpoints: BTreeMap<String, EndpointSettings> = BTreeMap::new();
    if request.network.is_empty() {
        for (name, place) in &was.networks {
            let asked = EndpointSettings {
                links: place.asked.links.clone(),
                driver_opts: place.asked.driver_opts.clone(),
                gw_priority: place.asked.gw_priority,
                ..EndpointSettings::default()
            };
            endpoints.insert(name.clone(), asked);
        }
    } else {
        record.host_config.network_mode = match request.network.as_str() {
            "default" => "bridge".to_owned(),
            name => match name.strip_prefix("container:") {
                Some(donor) => format!("container:{}", engine.containers.get(donor)?.id),
                None => name.to_owned(),
            },
        };
    }
    let [ipv4_address, ipv6_address] =
        [&request.ipv4_address, &request.ipv6_address].map(|text| text.to_owned());
    if !(ipv4_address.is_empty() && ipv6_address.is_empty() && request.mac_address.is_empty()) {
        let first = network::of_mode(&record.host_config.network_mode).ok_or_else(|| {
            Error::invalid("an address needs a network of the container's own, it shares another's")
        })?;
        let asked = endpoints.entry(first.to_owned()).or_default();
        asked.mac_address.clone_from(&request.mac_address);
        if !(ipv4_address.is_empty() && ipv6_address.is_empty()) {
            asked.ipam_config = Some(EndpointIpam { ipv4_address, ipv6_address, ..EndpointIpam::default() });
        }
    }
    let given = NetworkingConfig { endpoints_config: endpoints };
    record.networks = network::places(engine, &record.host_config, &record.config, given)?;
    Ports::wishes(&record.host_config, &record.config.exposed_ports)?;
    Ok(())
}

/// Takes the bindings to host ports that are another's out of what copies publish, with a word about each.
fn leave_taken_ports(engine: &Engine, drafts: &mut [Draft]) {
    let mut tried = Vec::new();
    for draft in drafts.iter_mut() {
        let network = network::of_mode(&draft.record.host_config.network_mode);
        let network = network.and_then(|name| engine.networks.find(name).ok());
        let Some(network) = network.filter(|network| network.driver == Driver::Bridge) else { continue };
        let terms = Terms::of(&network, &engine.config().network);
        let mut may_have = |port: &str, binding: &PortBinding, id: &str| -> Result<()> {
            if matches!(binding.host_port.as_str(), "" | "0") {
                return Ok(());
            }
            let port_bindings = BTreeMap::from([(port.to_owned(), Some(vec![binding.clone()]))]);
            let alone = HostConfig { port_bindings, ..HostConfig::default() };
            // Held until all copies have been asked: no two of them may have it.
            let trial = format!("{id}-{}", tried.len());
            engine.ports.claim(&trial, &Ports::wishes(&alone, &Set::new())?, &terms)?;
            tried.push(trial);
            Ok(())
        };
        let Draft { record, warnings, .. } = draft;
        let Record { id, host_config, .. } = record;
        host_config.port_bindings.retain(|port, bindings| {
            let Some(bindings) = bindings.as_mut().filter(|bindings| !bindings.is_empty()) else {
                return true;
            };
            bindings.retain(|binding| match may_have(port, binding, id) {
                Ok(()) => true,
                Err(error) => {
                    warnings.push(format!("port {port} is not published: {error}"));
                    false
                }
            });
            !bindings.is_empty()
        });
    }
    tried.iter().for_each(|trial| engine.ports.release(trial));
}

/// Makes one copy, and brings it to life.
fn make(engine: &Arc<Engine>, origin: &Origin, places: &Frozen, how: &How, draft: Draft) -> Result<Copied> {
    let Draft { mut record, mut wanted, hostname, warnings } = draft;
    let (id, name) = (record.id.clone(), record.name.clone());
    let dir = engine.state_dir.container(&id);
    let new = name_volumes(&dir, origin, &mut record, &mut wanted);
    let acquired = new.and_then(|new| mounts::acquire(engine, &mut record, wanted).map(|()| new));
    let new = acquired.and_then(|new| {
        let filled = new.iter().try_for_each(|(saved, name)| {
            passes::unpack(&origin.dir, &saved.file, &engine.volumes.get(name)?.mountpoint())
        });
        filled.inspect_err(|_| mounts::forget(engine, &record, true))
    });
    if let Err(error) = new {
        engine.containers.release(&name);
        let _ = state_dir::remove_tree(&dir);
        return Err(error);
    }
    let container = Arc::new(Container::new(dir, record));
    // Before others can find it.
    let _action = container.begin();
    let filled = create::write(engine, &container)
        .and_then(|()| passes::unpack(&origin.dir, passes::ROOTFS, &container.layer_dir(0).join("upper")));
    if let Err(error) = filled {
        engine.containers.release(&name);
        mounts::forget(engine, &container.record(), true);
        let _ = state_dir::remove_tree(&container.dir);
        return Err(error);
    }
    // It has its record, which says that it is unborn.
    let _ = std::fs::remove_file(container.dir.join(create::PENDING));
    engine.containers.insert(Arc::clone(&container));
    engine.events.publish("container", "create", &id, container.record().event_attributes());
    let How { tcp_close, lazy, .. } = *how;
    let thaw = Thaw { dir: origin.memory.clone(), tcp_close, hostname, lazy, asks: None };
    let thawing = Thawing {
        thaw,
        layer: 0,
        places: places.clone(),
        // The copy goes with its directory if it fails.
        log: logs::place(&engine.state_dir.container(&origin.record.id), "thaw"),
    };
    match lifecycle::start_locked(engine, &container, Action::Restore, Some(thawing)) {
        Ok(()) => Ok(Copied { id, name, warnings }),
        Err(error) => {
            undo(engine, &container);
            Err(error)
        }
    }
}

/// Removes a copy that did not come to life; the caller holds its action lock.
fn undo(engine: &Arc<Engine>, container: &Arc<Container>) {
    let mut inner = container.lock();
    inner.record.state = State::Removing;
    inner.record.is_removed_with_volumes = true;
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
