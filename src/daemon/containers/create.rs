//! `POST /containers/create`: a request is checked, merged with its image and written down.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::container::{Container, Record};
use super::logs::drivers;
use super::{checks, files, health, limits, mounts, network, spec, state::State};
use crate::daemon::config::ContainerDefaults;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::config::{Config, Platform};
use crate::daemon::metrics;
use crate::daemon::networks::ports::Ports;
use crate::daemon::state_dir::{Durability, Found};
use crate::daemon::volumes::ANONYMOUS;
use crate::daemon::{names, runtimes, state_dir};
use crate::http::api::container::{ContainerConfig, ContainerCreate, ContainerCreated, NetworkingConfig};
use crate::http::api::image::ImageConfig;

/// Creates a container. Nothing is left behind when it is refused.
///
/// # Errors
/// InvalidParameter, NotFound (the image: clients pull on it), Conflict (the name).
pub fn create(
    engine: &Arc<Engine>,
    name: &str,
    platform: &str,
    request: ContainerCreate,
) -> Result<ContainerCreated> {
    let began = Instant::now();
    let ContainerCreate { config, host_config, networking_config } = request;
    if config.image.is_empty() {
        return Err(Error::invalid("invalid config: no image specified"));
    }
    checks::config(&config)?;
    checks::conflicts(&config, &host_config)?;
    let image = engine.images.resolve(&config.image)?;
    check_platform(&config.image, &image.config, platform)?;
    let id = names::new_id()?;
    let mut record = Record {
        id: id.clone(),
        created: now(),
        image_id: image.id.to_string(),
        config: merge(config, &image.config.config),
        host_config,
        ..Record::default()
    };
    fill_defaults(&mut record, engine)?;
    let mut warnings = limits::discard_unsupported(&mut record.host_config.resources, limits::kernel()?);
    (record.path, record.args) = command(&record.config)?;
    health::validate(record.config.healthcheck.as_ref())?;
    checks::host_config(&record.config, &record.host_config)?;
    runtimes::find(&engine.config(), &record.host_config.runtime)?;
    check_network(engine, &mut record, networking_config, &mut warnings)?;
    let mut wanted = mounts::wanted(engine, &record)?;
    spec::validate(&record)?;

    record.name = if name.is_empty() {
        engine.containers.reserve_generated(&id)?
    } else {
        let name = names::container_name(name)?;
        engine.containers.reserve(name, &id)?;
        name.to_owned()
    };
    let dir = engine.state_dir.container(&id);
    let acquired =
        note_volumes(&dir, &mut wanted).and_then(|()| mounts::acquire(engine, &mut record, wanted));
    if let Err(error) = acquired {
        engine.containers.release(&record.name);
        let _ = state_dir::remove_tree(&dir);
        return Err(error);
    }
    let container = Arc::new(Container::new(dir, record));
    if let Err(error) = write(engine, &container).and_then(|()| mounts::populate(engine, &container)) {
        engine.containers.release(&container.name());
        mounts::forget(engine, &container.record(), true);
        // The first failure is the one to tell; what cannot be removed now is swept at the next start.
        let _ = state_dir::remove_tree(&container.dir);
        return Err(error);
    }
    // It has its record; a daemon that finds both passes this one over.
    let _ = std::fs::remove_file(container.dir.join(PENDING));
    engine.containers.insert(Arc::clone(&container));
    engine.events.publish("container", "create", &id, container.record().event_attributes());
    engine.metrics.done(metrics::Action::Create, began);
    Ok(ContainerCreated { id, warnings })
}

/// `pending.json`: the volumes that are made for a container before it has its record.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Pending {
    volumes: Vec<String>,
}

pub(super) const PENDING: &str = "pending.json";

/// Gives the volumes nobody named their names, and writes them down: should this daemon die before the
/// container has its record, the next one removes them.
pub(super) fn note_volumes(dir: &Path, wanted: &mut [mounts::Wanted]) -> Result<()> {
    let mut pending = Pending::default();
    for volume in wanted.iter_mut().filter_map(|wanted| wanted.volume.as_mut()) {
        if volume.name.is_empty() {
            volume.name = names::new_id()?;
            volume.labels.get_or_insert_default().insert(ANONYMOUS.to_owned(), String::new());
            pending.volumes.push(volume.name.clone());
        }
    }
    if pending.volumes.is_empty() {
        return Ok(());
    }
    state_dir::make_dir(dir, 0o710)?;
    state_dir::save(&dir.join(PENDING), &pending, Durability::Renamed)
}

/// Takes back a creation that was cut off: for a starting daemon.
pub fn undo(engine: &Engine, id: &str, dir: &Path) {
    if let Found::Value(pending) = state_dir::find::<Pending>(&dir.join(PENDING)) {
        for volume in &pending.volumes {
            if let Err(error) = engine.volumes.remove(&engine.events, volume, true) {
                log::warn!("{error}");
            }
        }
    }
    match state_dir::remove_tree(dir) {
        Ok(()) => log::info!("container {id}: its creation was cut off, and is undone"),
        Err(error) => log::warn!("{error}"),
    }
}

/// Refuses an image that is not of the platform asked for.
///
/// # Errors
/// NotFound: clients then pull the right one. InvalidParameter for what is no platform.
fn check_platform(reference: &str, image: &Config, asked: &str) -> Result<()> {
    if asked.is_empty() {
        return Ok(());
    }
    let has = Platform {
        os: image.os.clone(),
        architecture: image.architecture.clone(),
        variant: image.variant.clone(),
    };
    // A system or an architecture alone is enough, and the rest is ours.
    let wanted = match asked.split_once('/') {
        Some(_) => Platform::parse(asked)?,
        None if matches!(asked, "linux" | "windows" | "darwin" | "freebsd") => {
            Platform { os: asked.to_owned(), ..Platform::host() }
        }
        None if matches!(asked, "amd64" | "arm64" | "arm" | "386" | "ppc64le" | "riscv64" | "s390x") => {
            Platform { architecture: asked.to_owned(), variant: String::new(), ..Platform::host() }
        }
        None => {
            return Err(Error::invalid(format!(
                "{asked:?}: unknown operating system or architecture: invalid argument"
            )));
        }
    };
    if wanted.accepts(&has) {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "image with reference {reference} was found but its platform ({has}) does not match the specified platform \
         ({wanted})"
    )))
}

/// Puts a container with an empty layer on disk.
pub(super) fn write(engine: &Engine, container: &Container) -> Result<()> {
    state_dir::make_dir(&container.dir, 0o710)?;
    let layer = container.layer_dir(0);
    // The upper directory is the container's root directory: its mode is what processes see.
    state_dir::make_dir(&layer.join("upper"), 0o755)?;
    state_dir::make_dir(&layer.join("work"), 0o700)?;
    let inner = container.lock();
    files::write(&container.dir, &inner.record, &network::before_start(engine, &inner.record)?)?;
    container.save(&inner)
}

/// The current time as Docker writes it.
pub fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

/// The caller's configuration over the image's. Source: Docker's merge rules.
fn merge(mut config: ContainerConfig, image: &ImageConfig) -> ContainerConfig {
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&image.working_dir);
    }
    let given = std::mem::replace(&mut config.env, image.env.clone());
    spec::merge_env(&mut config.env, &given);
    let is_entrypoint_given = config.entrypoint.is_some();
    match config.entrypoint.as_deref() {
        None => config.entrypoint = image.entrypoint.clone(),
        // `--entrypoint ""` asks for none.
        Some([word]) if word.is_empty() => config.entrypoint = None,
        Some(_) => {}
    }
    if config.cmd.as_ref().is_none_or(Vec::is_empty) && !is_entrypoint_given {
        config.cmd = image.cmd.clone();
    }
    for (key, value) in &image.labels {
        config.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    for destination in image.volumes.keys() {
        config.volumes.get_or_insert_default().entry(destination.clone()).or_default();
    }
    for port in image.exposed_ports.keys() {
        config.exposed_ports.entry(port.clone()).or_default();
    }
    health::merge(&mut config.healthcheck, image.healthcheck.as_ref());
    if config.shell.as_ref().is_none_or(Vec::is_empty) {
        config.shell.clone_from(&image.shell);
    }
    if config.stop_signal.as_ref().is_none_or(String::is_empty) {
        config.stop_signal = image.stop_signal.clone().filter(|signal| !signal.is_empty());
    }
    config
}

/// Fills in what the caller did not ask for.
pub(super) fn fill_defaults(record: &mut Record, engine: &Engine) -> Result<()> {
    let config = engine.config();
    let defaults = &config.defaults;
    let host = &mut record.host_config;
    let or = |field: &mut String, default: &str| {
        if field.is_empty() {
            *field = default.to_owned();
        }
    };
    or(&mut host.restart_policy.name, "no");
    or(&mut host.network_mode, "default");
    or(&mut host.ipc_mode, &defaults.ipc_mode);
    or(&mut host.runtime, &config.default_runtime);
    drivers::merge(&mut host.log_config, &defaults.log);
    or(&mut host.cgroupns_mode, &defaults.cgroupns_mode);
    if host.shm_size == 0 {
        host.shm_size = defaults.shm_size;
    }
    fill_daemons_defaults(record, defaults);
    let host = &mut record.host_config;
    let limits = &mut host.resources;
    if limits.memory > 0 && limits.memory_swap == 0 {
        limits.memory_swap = limits.memory.saturating_mul(2);
    }
    limits.memory_swappiness = limits.memory_swappiness.filter(|value| *value != -1);
    limits.pids_limit = limits.pids_limit.filter(|limit| *limit > 0);
    limits.oom_kill_disable.get_or_insert(false);
    for mode in [&mut host.network_mode, &mut host.ipc_mode, &mut host.pid_mode] {
        if let Some(reference) = mode.strip_prefix("container:") {
            *mode = format!("container:{}", engine.containers.get(reference)?.id);
        }
    }
    if record.config.hostname.is_empty()
        && let Some(id) = host.network_mode.strip_prefix("container:")
    {
        record.config.hostname = engine.containers.get(id)?.record().config.hostname;
    }
    if record.config.hostname.is_empty() {
        record.config.hostname = if host.network_mode == "host" || host.uts_mode == "host" {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        } else {
            record.id[..12].to_owned()
        };
    }
    record.state = State::Created;
    Ok(())
}

/// What the daemon's configuration gives containers that ask for nothing else; written down, so that a container
/// stays what it was created as.
fn fill_daemons_defaults(record: &mut Record, defaults: &ContainerDefaults) {
    let host = &mut record.host_config;
    for (name, limit) in &defaults.ulimits {
        if !host.resources.ulimits.iter().any(|given| given.name == *name) {
            host.resources.ulimits.push(limit.clone());
        }
    }
    if defaults.init {
        host.init.get_or_insert(true);
    }
    if !host.network_mode.starts_with("container:") {
        let or = |list: &mut Vec<String>, default: &[String]| {
            if list.is_empty() {
                list.extend_from_slice(default);
            }
        };
        or(&mut host.dns, &defaults.dns);
        or(&mut host.dns_options, &defaults.dns_options);
        or(&mut host.dns_search, &defaults.dns_search);
    }
    let has = |options: &[String], key: &str| {
        options.iter().any(|option| option.split(['=', ':']).next() == Some(key))
    };
    let options = host.security_opt.get_or_insert_default();
    if defaults.no_new_privileges && !host.privileged && !has(options, "no-new-privileges") {
        options.push("no-new-privileges".to_owned());
    }
    // Compat: a privileged container has no filter whatever the daemon's profile is.
    if !defaults.seccomp_profile.is_empty() && !host.privileged && !has(options, "seccomp") {
        options.push(format!("seccomp={}", defaults.seccomp_profile));
    }
    if options.is_empty() {
        host.security_opt = None;
    }
}

/// Entry point and command, joined: the program and its arguments.
fn command(config: &ContainerConfig) -> Result<(String, Vec<String>)> {
    let mut words = config.entrypoint.iter().chain(&config.cmd).flatten().cloned();
    match words.next() {
        Some(path) if !path.is_empty() => Ok((path, words.collect())),
        _ => Err(Error::invalid("no command specified")),
    }
}

fn check_network(
    engine: &Engine,
    record: &mut Record,
    networking: NetworkingConfig,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let host = &mut record.host_config;
    match host.network_mode.as_str() {
        // With `--bridge none` what asks for nothing else has a loopback interface alone.
        "default" if engine.config().network.bridge == "none" => host.network_mode = "none".to_owned(),
        "default" => host.network_mode = "bridge".to_owned(),
        "host" if !host.port_bindings.is_empty() || host.publish_all_ports => {
            warnings.push("Published ports are discarded when using host network mode".to_owned());
        }
        mode => {
            if let Some(id) = mode.strip_prefix("container:") {
                if id == record.id {
                    return Err(Error::invalid("cannot join own network namespace"));
                }
                engine.containers.get(id)?;
            }
        }
    }
    network::check_links(engine, host.links.as_deref().unwrap_or_default())?;
    Ports::wishes(&record.host_config, &record.config.exposed_ports)?;
    record.networks = network::places(engine, &record.host_config, &record.config, networking)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entrypoint_given_drops_the_images_command() {
        let image = ImageConfig {
            entrypoint: Some(vec!["/e".to_owned()]),
            cmd: Some(vec!["c".to_owned()]),
            ..ImageConfig::default()
        };
        let run = |entrypoint: Option<Vec<&str>>, cmd: Option<Vec<&str>>| {
            let words =
                |list: Option<Vec<&str>>| list.map(|list| list.into_iter().map(str::to_owned).collect());
            let config = ContainerConfig {
                entrypoint: words(entrypoint),
                cmd: words(cmd),
                ..ContainerConfig::default()
            };
            command(&merge(config, &image)).map(|(path, args)| format!("{path} {}", args.join(" ")))
        };
        assert_eq!(run(None, None).unwrap(), "/e c");
        assert_eq!(run(None, Some(vec!["d"])).unwrap(), "/e d");
        assert_eq!(run(Some(vec!["/x"]), None).unwrap(), "/x ");
        assert_eq!(run(Some(vec![""]), Some(vec!["d"])).unwrap(), "d ");
        assert_eq!(run(Some(vec![""]), None).unwrap_err().message, "no command specified");
    }
}
