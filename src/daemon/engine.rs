//! The engine: the stores behind the API, the one type handlers see.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Once, OnceLock, PoisonError, RwLock};

use super::authorization::Authorization;
use super::build::Builds;
use super::config::Config;
use super::containers::checkpoint::digests::Digests;
use super::containers::{Containers, health, schedule};
use super::error::Result;
use super::events::Bus;
use super::images;
use super::metrics::Metrics;
use super::networks::Networks;
use super::networks::bridge::Wiring;
use super::networks::dns::Dns;
use super::networks::firewall::Firewall;
use super::networks::ports::Ports;
use super::registry;
use super::state_dir::StateDir;
use super::usage::Pruning;
use super::volumes::Volumes;
use crate::http::api::image::JsonMessage;
use crate::http::tls::Acceptor;
use crate::runtime::{CriuInfo, Runtime, RuntimeConfig, SandboxEvent, mount_namespace};

/// Everything the daemon owns.
pub struct Engine {
    config: RwLock<Arc<Config>>,
    pub state_dir: StateDir,
    pub images: images::Store,
    pub builds: Builds,
    pub volumes: Volumes,
    pub containers: Containers,
    pub networks: Networks,
    /// Bridges and interfaces; the rules beside them; the host's ports that lead in; and the names.
    pub wiring: Wiring,
    pub firewall: Firewall,
    pub ports: Ports,
    pub dns: Dns,
    pub events: Bus,
    pub health: health::Schedule,
    /// Of checkpoints.
    pub schedule: schedule::Schedule,
    /// Of checkpoints, too.
    pub digests: Digests,
    pub runtime: Runtime,
    pub pruning: Pruning,
    pub authorization: Authorization,
    /// The daemon's end of TLS, if its hosts speak that: set before they are bound.
    pub acceptor: OnceLock<Arc<Acceptor>>,
    pub metrics: Metrics,
    /// Set when the daemon is going down: restart policies rest.
    pub is_stopping: AtomicBool,
    /// A stable name of this installation, made at the first start.
    pub id: String,
    criu: OnceLock<std::result::Result<CriuInfo, String>>,
    names: Once,
}

impl Engine {
    /// Locks the roots and opens the stores; restores nothing yet.
    pub fn open(config: Config) -> Result<(Arc<Engine>, Receiver<SandboxEvent>)> {
        let state_dir = StateDir::open(&config.data_root, &config.exec_root)?;
        let images = images::Store::open(&config.data_root.join("images"))?;
        let builds = Builds::open(&state_dir)?;
        let volumes = Volumes::open(&config.data_root.join("volumes"))?;
        let (sender, receiver) = std::sync::mpsc::channel();
        let runtime = Runtime::new(
            RuntimeConfig {
                exe: None,
                criu: config.criu.clone(),
                criu_cache_dir: state_dir.exec_root.join("criu"),
            },
            sender,
        )?;
        let wiring = Wiring::new(&config);
        let networks = Networks::open(&state_dir, &config.network, wiring.default_bridge())?;
        let firewall = Firewall::open(&config);
        let id = installation_id(&state_dir)?;
        let authorization = Authorization::new(&state_dir.exec_root);
        let engine = Engine {
            config: RwLock::new(Arc::new(config)),
            state_dir,
            images,
            builds,
            volumes,
            containers: Containers::default(),
            networks,
            wiring,
            firewall,
            ports: Ports::default(),
            dns: Dns::new("/etc/resolv.conf".into()),
            events: Bus::default(),
            health: health::Schedule::default(),
            schedule: schedule::Schedule::default(),
            digests: Digests::default(),
            runtime,
            pruning: Pruning::default(),
            authorization,
            acceptor: OnceLock::new(),
            metrics: Metrics::default(),
            is_stopping: AtomicBool::new(false),
            id,
            criu: OnceLock::new(),
            names: Once::new(),
        };
        Ok((Arc::new(engine), receiver))
    }

    /// The configuration in force: a snapshot, which a reload leaves alone.
    pub fn config(&self) -> Arc<Config> {
        // Only whole values are swapped in: there is nothing a panic could leave half done.
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has the names of network namespaces stay out of containers' mount namespaces, before the first is made.
    pub fn keep_names_out(&self) {
        self.names.call_once(|| {
            let names = self.state_dir.netns_dir();
            if let Err(cause) = mount_namespace::keep_out(&names) {
                // Starts beside many containers are slower for it.
                log::warn!("keep {names:?} out of containers' mount namespaces: {cause}");
            }
        });
    }

    /// Pulls an image, or all tags of a repository, and publishes it: see [`images::Store::pull`].
    pub fn pull(
        &self,
        reference: images::Reference,
        platform: Option<images::config::Platform>,
        client: &registry::Client,
        tell: &mut dyn FnMut(JsonMessage),
    ) -> Result<Vec<images::Pulled>> {
        let config = self.config();
        let pull = images::Pull {
            registries: registry::registries(&config, reference.domain(), client)?,
            reference,
            platform,
            downloads: config.max_concurrent_downloads as usize,
            attempts: config.max_download_attempts,
            cancel: client.cancel.clone(),
        };
        let all = self.images.pull(&pull, tell)?;
        for pulled in &all {
            // Compat: a pull's event is about the name.
            let (id, name) = (pulled.reference.familiar(), pulled.reference.familiar_name());
            let labels = self.images.get(&pulled.id)?.config.config.labels.clone();
            let attributes = labels.into_iter().chain([("name".to_owned(), name)]).collect();
            self.events.publish("image", "pull", &id, attributes);
        }
        Ok(all)
    }

    /// Puts another configuration in force for what asks from now on.
    pub fn set_config(&self, config: Config) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// The CRIU that freezes containers; asked once, because that costs a tenth of a second.
    pub fn criu(&self) -> &std::result::Result<CriuInfo, String> {
        self.criu.get_or_init(|| self.runtime.probe_criu().map_err(|error| error.to_string()))
    }
}

/// The id in `info`, kept in `engine-id` under the data root.
fn installation_id(state_dir: &StateDir) -> Result<String> {
    let path = state_dir.data_root.join("engine-id");
    let is_id = |text: &str| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let problem = match std::fs::read(&path).map(|text| String::from_utf8_lossy(&text).trim().to_owned()) {
        Ok(id) if is_id(&id) => return Ok(id),
        Ok(text) => Some(format!("{text:.40?} is not 32 hex digits")),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => None,
        Err(cause) => Some(cause.to_string()),
    };
    if let Some(problem) = problem {
        let kept = super::state_dir::put_aside(&path);
        log::error!("read {path:?}: {problem}{kept}");
    }
    let id = super::names::new_id()?[..32].to_owned();
    super::state_dir::replace(&path, id.as_bytes(), 0o644, super::state_dir::Durability::Synced)?;
    Ok(id)
}
