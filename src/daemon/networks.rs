//! The networks there are, and the places containers have in them.
//!
//! ```text
//! data-root/networks.json        Docker's own three: their ids and the default bridge's subnets
//! data-root/networks/<id>.json   a network somebody made
//! ```
//!
//! `host` is the host's own network, `none` a loopback interface alone, `bridge` what containers get that ask for
//! nothing else. Who is in a network is in memory: while a container lives its own record says which places it has,
//! and a starting daemon reads them there ([`Networks::adopt`]).
//!
//! Locks: `changes` is held while a network is made or removed, files included; `inner` is short. Order: `changes` →
//! `inner`.
//!
//! [`create`](self::create) is what a request may ask, [`ipam`] the addresses, [`list`](mod@list) what clients see.
//! Not here: how a network is made real, and how a container joins one (`containers`).

pub mod bridge;
mod create;
pub mod dns;
mod endpoint;
pub mod firewall;
mod host;
mod ipam;
mod list;
pub mod mac;
mod macvlan;
pub mod network;
pub mod ports;
pub mod resolv_conf;
pub mod subnet;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::config::NetworkDefaults;
use super::error::{Error, Result};
use super::names;
use super::state_dir::{self, Durability, Found, StateDir};
use crate::http::api::network::NetworkCreate;
use ipam::Leases;
pub use list::{inspect, list, prune};
use network::{DEFAULT_GATEWAY_IPV4, DEFAULT_GATEWAY_IPV6, Driver, Given, Network, Pool, Wanted, option};
use subnet::Subnet;

/// Docker's own.
const PREDEFINED: [(&str, Driver); 3] =
    [("bridge", Driver::Bridge), ("host", Driver::Host), ("none", Driver::Null)];

/// `networks.json`: what of Docker's own stays the same from start to start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Predefined {
    /// RFC 3339: when the ids were drawn.
    created: String,
    /// By name.
    ids: BTreeMap<String, String>,
    /// The subnets the default bridge got, as far as no option says them; at most one of each family.
    #[serde(default)]
    subnets: Vec<Subnet>,
}

/// All networks.
#[derive(Debug)]
pub struct Networks {
    dir: PathBuf,
    changes: Mutex<()>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By id.
    networks: BTreeMap<String, Arc<Network>>,
    leases: Leases,
}

impl Networks {
    /// Reads the networks; what is missing of Docker's own is made, the default one on the interface `bridge`. A
    /// network that cannot be read costs that network only. Blocks for reads.
    ///
    /// # Errors
    /// System, when `networks.json` cannot be written.
    pub fn open(state_dir: &StateDir, defaults: &NetworkDefaults, bridge: &str) -> Result<Networks> {
        let dir = state_dir.data_root.join("networks");
        state_dir::make_dir(&dir, 0o700)?;
        let mut inner = Inner::default();
        let entries = std::fs::read_dir(&dir);
        let entries = entries.map_err(|cause| Error::system(format!("list networks in {dir:?}"), cause))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        for path in paths {
            let Found::Value(network) = state_dir::find::<Network>(&path) else { continue };
            let is_whole = names::is_id(&network.id)
                && path.file_stem().is_some_and(|stem| *stem == *network.id)
                && !network.name.is_empty()
                && !network.is_predefined()
                && inner.by_name(&network.name).is_none();
            if !is_whole {
                let kept = state_dir::put_aside(&path);
                log::error!("read {path:?}: {:?} is no network of that id{kept}", network.name);
                continue;
            }
            if !network.config_only {
                inner.leases.restore(&network);
            }
            inner.networks.insert(network.id.clone(), Arc::new(network));
        }
        let path = state_dir.data_root.join("networks.json");
        let (mut predefined, is_kept) = read_predefined(&path)?;
        let before = predefined.subnets.clone();
        for (name, driver) in PREDEFINED {
            if name == "bridge" && defaults.bridge == "none" {
                continue;
            }
            let mut network = Network {
                id: predefined.ids.get(name).cloned().unwrap_or_default(),
                name: name.to_owned(),
                created: predefined.created.clone(),
                driver,
                // Compat: Docker calls all three of them enabled.
                ipv4: true,
                ..Network::default()
            };
            if driver == Driver::Bridge {
                network.options = default_options(defaults, bridge);
                inner.make_default_bridge(&mut network, &mut predefined.subnets, defaults);
            }
            inner.networks.insert(network.id.clone(), Arc::new(network));
        }
        if !is_kept || (before != predefined.subnets && !predefined.ids.is_empty()) {
            save_predefined(&path, &predefined)?;
        }
        Ok(Networks { dir, changes: Mutex::default(), inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change is undone or done by itself: a panic elsewhere leaves it whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every network, by name.
    pub fn all(&self) -> Vec<Arc<Network>> {
        let mut all: Vec<Arc<Network>> = self.lock().networks.values().cloned().collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    pub fn by_id(&self, id: &str) -> Option<Arc<Network>> {
        self.lock().networks.get(id).cloned()
    }

    /// Docker's order: whole id, name, prefix of one id.
    ///
    /// # Errors
    /// NotFound; InvalidParameter for an ambiguous prefix.
    pub fn find(&self, reference: &str) -> Result<Arc<Network>> {
        let inner = self.lock();
        if let Some(network) = inner.networks.get(reference).or_else(|| inner.by_name(reference)) {
            return Ok(Arc::clone(network));
        }
        let is_meant = |id: &&String| !reference.is_empty() && id.starts_with(reference);
        let found: Vec<&String> = inner.networks.keys().filter(is_meant).collect();
        match found[..] {
            [id] => Ok(Arc::clone(&inner.networks[id])),
            [] => Err(Error::not_found(format!("network {reference} not found"))),
            _ => Err(Error::invalid(format!(
                "network {reference} is ambiguous ({} matches found based on ID prefix)",
                found.len()
            ))),
        }
    }

    /// Makes a network; gives it and a warning, which may be empty. Blocks for a synced write.
    ///
    /// # Errors
    /// InvalidParameter, Forbidden, NotFound or Conflict, in Docker's words; System.
    pub fn create(
        &self,
        request: NetworkCreate,
        defaults: &NetworkDefaults,
    ) -> Result<(Arc<Network>, String)> {
        let mut network = create::check(request, defaults)?;
        let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if self.lock().by_name(&network.name).is_some() {
            return Err(Error::conflict(format!("network with name {} already exists", network.name)));
        }
        network.id = names::new_id()?;
        network.created = format!("{:.9}", jiff::Timestamp::now());
        if !network.config_from.is_empty() {
            let inner = self.lock();
            let template = inner.by_name(&network.config_from).filter(|template| template.config_only);
            let template = template.ok_or_else(|| {
                Error::not_found(format!("configuration network {:?} does not exist", network.config_from))
            })?;
            create::apply(template, &mut network);
        }
        if !network.config_only {
            create::check_options(&network)?;
            self.lock().allocate_pools(&mut network, defaults, &host::ranges)?;
        }
        let network = Arc::new(network);
        if let Err(error) = state_dir::save(&self.path(&network.id), &*network, Durability::Synced) {
            self.lock().leases.forget(&network);
            return Err(error);
        }
        self.lock().networks.insert(network.id.clone(), Arc::clone(&network));
        Ok((network, String::new()))
    }

    /// Removes a network nobody is in. `name_of` gives the name of a container.
    ///
    /// # Errors
    /// Forbidden, in Docker's words, for Docker's own, for one somebody is in and for a template in use; NotFound.
    pub fn remove(&self, id: &str, name_of: &dyn Fn(&str) -> String) -> Result<()> {
        let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inner = self.lock();
        let Some(network) = inner.networks.get(id).cloned() else {
            return Err(Error::not_found(format!("network {id} not found")));
        };
        let name = &network.name;
        if network.is_predefined() {
            return Err(Error::forbidden(format!("{name} is a pre-defined network and cannot be removed")));
        }
        let attempt = |error: Error| error.during("error while removing network");
        if network.config_only && inner.networks.values().any(|other| other.config_from == *name) {
            return Err(attempt(Error::forbidden(format!("configuration network {name:?} is in use"))));
        }
        let endpoint = |(container, given): (&String, &Given)| {
            let id = given.endpoint_id.get(..12).unwrap_or(&given.endpoint_id);
            format!("name:{:?} id:{id:?}", name_of(container))
        };
        let endpoints: Vec<String> = inner.leases.places(id).map(endpoint).collect();
        if !endpoints.is_empty() {
            let refusal = format!("network {name} has active endpoints ({})", endpoints.join(", "));
            return Err(attempt(Error::forbidden(refusal)));
        }
        // Nobody gets a place from here on.
        inner.networks.remove(id);
        drop(inner);
        let path = self.path(id);
        if let Err(cause) = std::fs::remove_file(&path)
            && cause.kind() != std::io::ErrorKind::NotFound
        {
            self.lock().networks.insert(network.id.clone(), network);
            return Err(attempt(Error::system(format!("remove {path:?}"), cause)));
        }
        if !network.config_only {
            self.lock().leases.forget(&network);
        }
        Ok(())
    }

    /// A place for a container in a network: everything but the names of interfaces.
    ///
    /// # Errors
    /// Forbidden or InvalidParameter for what cannot be had, System when no address is left; in Docker's words.
    /// NotFound when the network was removed meanwhile.
    pub fn allocate(&self, network: &Network, container: &str, wanted: &Wanted) -> Result<Given> {
        let mut inner = self.lock();
        if !inner.networks.contains_key(&network.id) {
            return Err(Error::not_found(format!("network {} not found", network.name)));
        }
        inner.leases.allocate(network, container, wanted)
    }

    /// Notes the place that a living container has: a starting daemon reads it from the container's record.
    ///
    /// # Errors
    /// NotFound for a network that is not there any more; Forbidden when an address is somebody else's.
    pub fn adopt(&self, network: &str, container: &str, given: &Given) -> Result<()> {
        let mut inner = self.lock();
        if !inner.networks.contains_key(network) {
            return Err(Error::not_found(format!("network {network} not found")));
        }
        inner.leases.adopt(network, container, given)
    }

    /// Keeps addresses from being given out as long as the daemon runs: somebody has them that it knows nothing else of.
    pub fn keep(&self, addresses: &[IpAddr]) {
        self.lock().leases.keep(addresses);
    }

    /// Gives a container's place back; false for one it has not.
    pub fn release(&self, network: &str, container: &str) -> bool {
        self.lock().leases.release(network, container)
    }

    /// Who is in a network: containers' ids and places, by id.
    pub fn members(&self, network: &str) -> Vec<(String, Given)> {
        let inner = self.lock();
        inner.leases.places(network).map(|(container, given)| (container.clone(), given.clone())).collect()
    }

    fn path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }
}

impl Inner {
    fn by_name(&self, name: &str) -> Option<&Arc<Network>> {
        self.networks.values().find(|network| network.name == name)
    }

    /// The subnets that are networks'.
    fn subnets(&self) -> Vec<Subnet> {
        let networks = self.networks.values().filter(|network| !network.config_only);
        networks.flat_map(|network| &network.pools).map(|pool| pool.subnet).collect()
    }

    fn bridge_id(&self) -> &str {
        self.by_name("bridge").map_or("", |network| network.id.as_str())
    }

    /// Chooses the subnets that were not named, checks those that were, and takes what is no container's.
    ///
    /// `around` gives the ranges of a family that are in use around the host.
    fn allocate_pools(
        &mut self,
        network: &mut Network,
        defaults: &NetworkDefaults,
        around: &dyn Fn(bool) -> Vec<Subnet>,
    ) -> Result<()> {
        let own = self.subnets();
        // Compat: a subnet that was named is held against other networks only.
        for pool in &network.pools {
            if own.iter().any(|other| other.overlaps(&pool.subnet)) {
                return Err(self.overlap(network, pool));
            }
        }
        for is_ipv6 in [false, true] {
            let is_wanted = if is_ipv6 { network.ipv6 } else { network.ipv4 };
            if !is_wanted || network.pools_of(is_ipv6).next().is_some() {
                continue;
            }
            let used = [own.clone(), around(is_ipv6)].concat();
            let pools = ipam::pools(&defaults.address_pools, is_ipv6, self.bridge_id());
            network.pools.push(pool_of(ipam::free_subnet(&pools, &used)?));
        }
        create::check_pools(network)?;
        if let Some(other) = self.same_bridge(network) {
            return Err(conflict(network, other, "networks have same bridge name"));
        }
        if let Some(refusal) = create::same_parent(network, self.networks.values()) {
            return Err(refusal);
        }
        let needs = [false, true].map(|is_ipv6| create::needs_gateway(network, is_ipv6));
        self.leases.reserve(network, |pool| needs[usize::from(pool.subnet.is_ipv6())])
    }

    /// Compat: with a range Docker finds out only when it makes the bridge.
    fn overlap(&self, network: &Network, pool: &Pool) -> Error {
        let others = || self.networks.values().filter(|other| !other.config_only);
        let is_other =
            |other: &&Arc<Network>| other.pools.iter().any(|one| one.subnet.overlaps(&pool.subnet));
        match others().find(is_other) {
            Some(other) if pool.range.is_some() && network.driver == Driver::Bridge => {
                let family = if pool.subnet.is_ipv6() { "IPv6" } else { "IPv4" };
                conflict(network, other, &format!("networks have overlapping {family}"))
            }
            _ => Error::forbidden("invalid pool request: Pool overlaps with other one on this address space"),
        }
    }

    fn same_bridge(&self, network: &Network) -> Option<&Arc<Network>> {
        let name = network.options.get(option::BRIDGE_NAME).filter(|name| !name.is_empty())?;
        let is_same = |other: &&Arc<Network>| {
            other.driver == Driver::Bridge && !other.config_only && bridge_name(other) == *name
        };
        self.networks.values().filter(|_| network.driver == Driver::Bridge).find(is_same)
    }

    /// What the daemon's options make of the default bridge. A subnet no option says is kept as long as no network
    /// has it; without any the bridge is there and gives no address.
    fn make_default_bridge(
        &mut self,
        network: &mut Network,
        kept: &mut Vec<Subnet>,
        defaults: &NetworkDefaults,
    ) {
        let own = self.subnets();
        network.ipv6 = defaults.ipv6;
        for is_ipv6 in [false, true].into_iter().filter(|is_ipv6| !is_ipv6 || defaults.ipv6) {
            let (address, range) = match is_ipv6 {
                true => (defaults.bip6, defaults.fixed_cidr_v6),
                false => (defaults.bip, defaults.fixed_cidr),
            };
            let (key, gateway) = match is_ipv6 {
                true => (DEFAULT_GATEWAY_IPV6, defaults.default_gateway_v6.map(Into::into)),
                false => (DEFAULT_GATEWAY_IPV4, defaults.default_gateway.map(Into::into)),
            };
            // An interface that somebody gave us has its addresses already.
            let is_given = address.is_none() && !defaults.bridge.is_empty();
            let existing = || host::address_of(&defaults.bridge, is_ipv6, range);
            let address = if is_given { existing() } else { address };
            let mut pool = if let Some(subnet) = address.or(range) {
                pool_of(subnet.network())
            } else {
                let is_free = |one: &&Subnet| own.iter().all(|other| !other.overlaps(one));
                let found = kept.iter().find(|one| one.is_ipv6() == is_ipv6).filter(is_free).copied();
                let used = || [own.clone(), host::ranges(is_ipv6)].concat();
                let pools = || ipam::pools(&defaults.address_pools, is_ipv6, &network.id);
                match found.map_or_else(|| ipam::free_subnet(&pools(), &used()), Ok) {
                    Ok(subnet) => {
                        kept.retain(|one| one.is_ipv6() != is_ipv6);
                        kept.push(subnet);
                        pool_of(subnet)
                    }
                    Err(error) => {
                        log::error!("choose a subnet for the default bridge: {error}");
                        continue;
                    }
                }
            };
            pool.range = range.map(|range| range.network());
            pool.gateway = address.map(|subnet| subnet.address);
            pool.auxiliary.extend(gateway.map(|gateway| (key.to_owned(), gateway)));
            network.pools.push(pool);
        }
        if let Err(error) = self.leases.reserve(network, |_| true) {
            log::error!("set up the default bridge's addresses: {error}");
        }
    }
}

fn pool_of(subnet: Subnet) -> Pool {
    Pool { subnet, range: None, gateway: None, auxiliary: BTreeMap::new(), is_chosen: false }
}

/// The interface a network asks for, or is given by Docker.
fn bridge_name(network: &Network) -> String {
    let named = network.options.get(option::BRIDGE_NAME).filter(|name| !name.is_empty());
    named.cloned().unwrap_or_else(|| format!("br-{}", network.id.get(..12).unwrap_or_default()))
}

fn conflict(network: &Network, other: &Network, cause: &str) -> Error {
    Error::forbidden(format!(
        "cannot create network {} ({}): conflicts with network {} ({}): {cause}",
        network.id,
        bridge_name(network),
        other.id,
        bridge_name(other)
    ))
}

/// The default bridge's options, as Docker shows them.
fn default_options(defaults: &NetworkDefaults, bridge: &str) -> BTreeMap<String, String> {
    BTreeMap::from(
        [
            (option::BRIDGE_NAME, bridge.to_owned()),
            (option::DEFAULT_BRIDGE, "true".to_owned()),
            (option::ICC, defaults.icc.to_string()),
            (option::MASQUERADE, defaults.ip_masq.to_string()),
            (option::HOST_BINDING, defaults.ip.to_string()),
            (option::MTU, defaults.mtu.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    )
}

/// The ids of Docker's own, drawn at the first start or when they cannot be read any more, and whether the file has
/// them: a later dewar's is left as it is.
fn read_predefined(path: &std::path::Path) -> Result<(Predefined, bool)> {
    let is_later = match state_dir::find::<Predefined>(path) {
        Found::Value(found) if PREDEFINED.iter().all(|(name, _)| found.ids.contains_key(*name)) => {
            return Ok((found, true));
        }
        Found::Value(_) => {
            let kept = state_dir::put_aside(path);
            log::error!("read {path:?}: a network is missing{kept}");
            false
        }
        Found::Later(_) => true,
        Found::Nothing | Found::Broken => false,
    };
    let created = format!("{:.9}", jiff::Timestamp::now());
    let mut predefined = Predefined { created, ..Predefined::default() };
    for (name, _) in PREDEFINED {
        predefined.ids.insert(name.to_owned(), names::new_id()?);
    }
    Ok((predefined, is_later))
}

fn save_predefined(path: &std::path::Path, predefined: &Predefined) -> Result<()> {
    if matches!(state_dir::find::<Predefined>(path), Found::Later(_)) {
        return Ok(());
    }
    state_dir::save(path, predefined, Durability::Synced)
}

#[cfg(test)]
mod tests;
