//! A container's places in networks: asked for at create, given at start, taken back at the end.
//!
//! ```text
//!  create ─► places (asked)         connect / disconnect
//!                 │                        │ while it does not run: what is asked for
//!                 ▼                        ▼ while it runs: as start and end do, for one network
//!  start ──► addresses ─► ports ─► files ─► namespace ─► interfaces, routes ─► rules ─► names
//!  end   ──► the same backwards; interfaces go with the namespace
//! ```
//!
//! Whoever changes places holds the container's action lock. What fails half way is taken back; what is taken back
//! twice is no error. Addresses, ports and rules are the daemon's memory: a starting daemon adopts what the records
//! of living containers say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::container::{Container, Record};
use super::files;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::networks::bridge::{Owner, PlugOptions};
use crate::daemon::networks::network::{Driver, Given, Network, option};
use crate::daemon::networks::ports::Claim;
use crate::daemon::state_dir::{self, Durability, Found};
use crate::http::api::container::{ContainerConfig, EndpointSettings, HostConfig, NetworkingConfig};
use crate::runtime::netns;

mod frozen;
mod left_out;
mod links;
mod members;
mod names;
mod published;
mod refusals;
mod shown;

pub use frozen::{Frozen, hold, without};
pub use links::{check as check_links, environment_now as link_environment};
pub use members::{connect, disconnect};
pub use names::before_start;
use names::{join_zones, serve_names, surroundings};
pub use published::shown_ports;
use published::{claim_ports, publish_ports};
pub use refusals::mac_address;
pub use shown::shown;

/// A container's place in one network.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// As the request had it; the fields that only answers have are empty.
    pub asked: EndpointSettings,
    /// Of the network it was last in.
    pub network_id: String,
    /// While the container runs; of its last life afterwards.
    pub given: Option<Given>,
}

/// By the network's name. Boxed: a map has room for eleven values from its first on.
pub type Places = BTreeMap<String, Box<Place>>;

/// The network of a mode: `default` is the bridge, `container:` none of its own.
pub fn of_mode(mode: &str) -> Option<&str> {
    match mode {
        "default" | "" => Some("bridge"),
        mode if mode.starts_with("container:") => None,
        name => Some(name),
    }
}

/// The places a new container asks for.
///
/// # Errors
/// InvalidParameter. Compat: a network that is not there is told by the start, so that it may come meanwhile.
pub fn places(
    engine: &Engine,
    host: &HostConfig,
    config: &ContainerConfig,
    given: NetworkingConfig,
) -> Result<Places> {
    let mode = host.network_mode.as_str();
    let known = |reference: &str| match reference {
        "default" => of_mode(mode).unwrap_or("bridge").to_owned(),
        other => {
            engine.networks.find(other).map_or_else(|_| other.to_owned(), |network| network.name.clone())
        }
    };
    let mut places = Places::new();
    let Some(first) = of_mode(mode).map(known) else {
        return if given.endpoints_config.is_empty() {
            Ok(places)
        } else {
            Err(Error::invalid(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            ))
        };
    };
    for (reference, asked) in given.endpoints_config {
        refusals::endpoint(&asked)?;
        let place = Place { asked: as_asked(asked), ..Place::default() };
        places.insert(known(&reference), Box::new(place));
    }
    if places.is_empty() {
        places.insert(first.clone(), Box::default());
    }
    if let (Some(place), Some(mac)) = (places.get_mut(&first), &config.mac_address)
        && place.asked.mac_address.is_empty()
    {
        place.asked.mac_address.clone_from(mac);
    }
    refusals::together(mode, &places)?;
    for (name, place) in &places {
        if let Ok(network) = engine.networks.find(name) {
            refusals::place(&network, &place.asked)?;
        }
    }
    Ok(places)
}

/// What of a place is a request's to say.
fn as_asked(settings: EndpointSettings) -> EndpointSettings {
    let EndpointSettings { ipam_config, links, aliases, mac_address, driver_opts, gw_priority, .. } =
        settings;
    EndpointSettings {
        ipam_config,
        links,
        aliases,
        mac_address,
        driver_opts,
        gw_priority,
        ..EndpointSettings::default()
    }
}

/// Brings the container's records from before there were places in line.
pub fn complete(record: &mut Record) {
    if record.networks.is_empty()
        && let Some(name) = of_mode(&record.host_config.network_mode)
    {
        record.networks.insert(name.to_owned(), Box::default());
    }
}

/// The names of the places in the order of their interfaces: the network mode's first.
fn in_order(record: &Record) -> Vec<String> {
    let first = of_mode(&record.host_config.network_mode).unwrap_or_default();
    let mut names: Vec<String> = record.networks.keys().cloned().collect();
    names.sort_by_key(|name| name != first);
    names
}

/// What a start finds out about its networks.
pub struct Connected {
    /// The namespace to run in; `None` for the host's own.
    pub netns: Option<PathBuf>,
    /// Variables that old-style links set, before the container's own.
    pub env: Vec<String>,
}

/// Gives the container its places, and makes them real. For a thaw they are those it was frozen in, as far as they
/// can be had, and nothing passes until [`release`].
///
/// `record` gets what was given; whoever starts puts it into the container once that runs. Blocks for some
/// milliseconds of the kernel's work.
///
/// # Errors
/// NotFound for a network, Conflict for a donor that does not run, System; nothing is left behind.
pub fn set_up(
    engine: &Engine,
    container: &Container,
    record: &mut Record,
    thaw: Option<&Frozen>,
) -> Result<Connected> {
    let connected = build(engine, container, record, thaw);
    if connected.is_err() {
        take_down(engine, record);
    }
    connected
}

fn build(
    engine: &Engine,
    container: &Container,
    record: &mut Record,
    thaw: Option<&Frozen>,
) -> Result<Connected> {
    let failed = |error: Error| error.during("failed to set up container networking");
    // What an earlier life had is no more.
    record.networks.values_mut().for_each(|place| place.given = None);
    record.ports.clear();
    let mut connected = Connected { netns: None, env: Vec::new() };
    if let Some(id) = record.host_config.network_mode.strip_prefix("container:") {
        let pid = super::lifecycle::running_pid(engine, id)?;
        connected.netns = Some(PathBuf::from(format!("/proc/{pid}/ns/net")));
        files::write(&container.dir, record, &before_start(engine, record)?)?;
        return Ok(connected);
    }
    let mut joined = Vec::new();
    for name in in_order(record) {
        // Compat: without a default network its containers have loopback alone, and nobody is told.
        if name == "bridge" && engine.config().network.bridge == "none" {
            continue;
        }
        joined.push(join(engine, record, &name, thaw).map_err(failed)?);
    }
    claim_ports(engine, record, thaw).map_err(failed)?;
    let begun = Begun { networks: record.networks.clone(), ports: record.ports.clone() };
    state_dir::save(&container.dir.join(PLACES), &begun, Durability::Renamed)?;
    connected.env = links::environment(engine, record)?;
    files::write(&container.dir, record, &surroundings(engine, record)?)?;
    if record.host_config.network_mode == "host" {
        return Ok(connected);
    }
    let path = engine.state_dir.netns(&container.id);
    engine.keep_names_out();
    netns::create(&path)?;
    for network in &joined {
        plug(engine, record, network, &path, thaw.is_some()).map_err(failed)?;
    }
    route(engine, record, &path)?;
    publish_ports(engine, record).map_err(failed)?;
    links::open(engine, record).map_err(failed)?;
    serve_names(engine, record, &path)?;
    for network in &joined {
        tell(engine, record, network, "connect");
    }
    connected.netns = Some(path);
    Ok(connected)
}

/// An address and an interface's name in one network.
fn join(engine: &Engine, record: &mut Record, name: &str, thaw: Option<&Frozen>) -> Result<Arc<Network>> {
    let network = engine.networks.find(name)?;
    let place = record.networks.get(name).cloned().unwrap_or_default();
    refusals::place(&network, &place.asked)?;
    let asked = refusals::endpoint(&place.asked)?;
    let again = thaw.and_then(|frozen| frozen.wanted(name, &asked));
    let again = again.and_then(|again| {
        let found = engine.networks.allocate(&network, &record.id, &again);
        found.inspect_err(|error| log::warn!("container {:?} in network {name}: {error}", record.name)).ok()
    });
    let mut given = match again {
        Some(given) => given,
        None => engine.networks.allocate(&network, &record.id, &asked)?,
    };
    if !matches!(network.driver, Driver::Host | Driver::Null) {
        given.interface = interface_name(record, &network, &place.asked);
    }
    if network.driver == Driver::Bridge {
        given.host_interface = format!("veth{}", given.endpoint_id.get(..7).unwrap_or_default());
    }
    let place = record.networks.entry(name.to_owned()).or_default();
    place.network_id.clone_from(&network.id);
    place.given = Some(given);
    Ok(network)
}

/// The name asked for, or the first free of `eth0`, `eth1` and so on.
fn interface_name(record: &Record, network: &Network, asked: &EndpointSettings) -> String {
    if let Some(name) = asked.driver_opts.as_ref().and_then(|options| options.get(option::IFNAME)) {
        return name.clone();
    }
    let prefix = network.options.get(option::IFACE_PREFIX).map_or("eth", String::as_str);
    let is_taken = |name: &str| given(record).any(|(_, given)| given.interface == name);
    (0..).map(|number| format!("{prefix}{number}")).find(|name| !is_taken(name)).unwrap_or_default()
}

/// The places a container has now.
fn given(record: &Record) -> impl Iterator<Item = (&String, &Given)> {
    record.networks.iter().filter_map(|(name, place)| Some((name, place.given.as_ref()?)))
}

fn plug(engine: &Engine, record: &Record, network: &Network, netns: &Path, is_held: bool) -> Result<()> {
    let place = record.networks.get(&network.name).map(Box::as_ref);
    let Some(Place { asked, given: Some(given), .. }) = place else {
        return Ok(());
    };
    if matches!(network.driver, Driver::Host | Driver::Null) || given.interface.is_empty() {
        return Ok(());
    }
    if network.driver == Driver::Bridge {
        engine.firewall.add_network(network, &engine.wiring.bridge_name(network))?;
    }
    let options = asked.driver_opts.as_ref();
    let sysctls =
        options.and_then(|options| options.get(option::ENDPOINT_SYSCTLS)).map_or("", String::as_str);
    let sysctls = sysctls.split(',').filter_map(|one| one.split_once('='));
    let sysctls = sysctls.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect();
    engine.wiring.plug(netns, network, given, &PlugOptions { is_held, sysctls, mtu: None })
}

/// The place whose gateway is the container's way out, by family.
fn way_out(record: &Record, is_ipv6: bool) -> Option<(&String, &Given)> {
    let has_gateway =
        |given: &Given| if is_ipv6 { given.ipv6_gateway.is_some() } else { given.gateway.is_some() };
    let priority = |name: &str| record.networks.get(name).map_or(0, |place| place.asked.gw_priority);
    // Source: Docker's order: priority, then the name that sorts first.
    given(record)
        .filter(|(_, given)| has_gateway(given))
        .min_by(|(one, _), (other, _)| priority(other).cmp(&priority(one)).then_with(|| one.cmp(other)))
}

fn route(engine: &Engine, record: &Record, netns: &Path) -> Result<()> {
    let v4 = way_out(record, false).and_then(|(_, given)| Some((given.gateway?, given.interface.as_str())));
    let v6 =
        way_out(record, true).and_then(|(_, given)| Some((given.ipv6_gateway?, given.interface.as_str())));
    engine.wiring.default_route(netns, v4, v6)
}

/// Takes the container's places back: rules, ports, names, addresses, and the namespace with its interfaces.
/// Failures are told, not returned: the end is a fact, and the next start of the daemon sweeps what is left.
pub fn take_down(engine: &Engine, record: &Record) {
    let warn = |result: Result<()>| {
        if let Err(error) = result {
            log::warn!("container {:?}: {error}", record.name);
        }
    };
    warn(engine.firewall.unpublish(&record.id));
    warn(links::close(engine, record));
    engine.ports.release(&record.id);
    engine.dns.forget(&record.id);
    let path = engine.state_dir.netns(&record.id);
    if path.exists() {
        let is_shared = is_shared(engine, record);
        for (network, given) in record
            .networks
            .values()
            .filter_map(|place| Some((engine.networks.by_id(&place.network_id)?, place.given.as_ref()?)))
        {
            // The others stay in a shared namespace; its addresses are soon somebody else's. And the kernel is in no
            // hurry to take a namespace apart, while on a parent there is only one of a hardware address.
            let has_neighbours = matches!(network.driver, Driver::Macvlan | Driver::Ipvlan);
            if !given.interface.is_empty() && (is_shared || has_neighbours) {
                warn(engine.wiring.unplug(&path, &network, given));
            }
        }
        warn(netns::remove(&path).map_err(Error::from));
    }
    for place in record.networks.values() {
        leave(engine, record, place);
    }
}

/// Whether another living container has joined this one's namespace.
fn is_shared(engine: &Engine, record: &Record) -> bool {
    engine.containers.all().iter().any(|other| {
        let inner = other.lock();
        let mode = &inner.record.host_config.network_mode;
        inner.record.state.is_alive() && mode.strip_prefix("container:") == Some(&record.id)
    })
}

fn leave(engine: &Engine, record: &Record, place: &Place) {
    if !place.network_id.is_empty() {
        engine.dns.leave(&place.network_id, &record.id);
        let was_in = engine.networks.release(&place.network_id, &record.id);
        if was_in && let Some(network) = engine.networks.by_id(&place.network_id) {
            tell(engine, record, &network, "disconnect");
        }
    }
}

/// Tells that a container has come into a network, or has left it.
fn tell(engine: &Engine, record: &Record, network: &Network, action: &str) {
    let attributes = BTreeMap::from([
        ("container".to_owned(), record.id.clone()),
        ("name".to_owned(), network.name.clone()),
        ("type".to_owned(), network.driver.name().to_owned()),
    ]);
    engine.events.publish("network", action, &network.id, attributes);
}

/// Takes up what a container that outlived its daemon has.
pub fn adopt(engine: &Engine, record: &Record) {
    let warn = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            log::error!("container {:?}: take up its {what}: {error}", record.name);
        }
    };
    let path = engine.state_dir.netns(&record.id);
    for place in record.networks.values() {
        let Some(given) = &place.given else { continue };
        let Some(network) = engine.networks.by_id(&place.network_id) else {
            log::error!("container {:?}: its network {} is gone", record.name, place.network_id);
            continue;
        };
        warn("address", engine.networks.adopt(&network.id, &record.id, given));
        if network.driver == Driver::Bridge && !given.interface.is_empty() {
            warn("network", engine.firewall.add_network(&network, &engine.wiring.bridge_name(&network)));
        }
    }
    for text in engine.ports.adopt(&record.id, &record.ports) {
        log::error!("container {:?}: {text}", record.name);
    }
    warn("ports", publish_ports(engine, record));
    warn("links", links::adopt(engine, record));
    if record.host_config.network_mode != "host" && !record.networks.is_empty() {
        warn("names", serve_names(engine, record, &path));
    }
}

/// Lets through what was held back while the container thawed.
pub fn release(engine: &Engine, record: &Record) {
    let path = engine.state_dir.netns(&record.id);
    for (_, given) in given(record).filter(|(_, given)| !given.interface.is_empty()) {
        if let Err(error) = engine.wiring.release(&path, given) {
            log::error!("container {:?}: {error}", record.name);
        }
    }
}

/// Takes back what a container that has ended had. Called again, it finds nothing.
pub fn end(engine: &Engine, container: &Container) {
    take_down(engine, &container.record());
    // Another start has written its own.
    let _ = std::fs::remove_file(container.dir.join(PLACES));
}

/// Lets the others find a container by its new name.
pub fn rename(engine: &Engine, record: &Record) {
    if record.state.is_alive() {
        join_zones(engine, record);
    }
}

/// What a start was given, until the container's record has it: `places.json`, for a daemon that dies in between.
#[derive(Default, Serialize, Deserialize)]
struct Begun {
    networks: Places,
    ports: Vec<Claim>,
}

const PLACES: &str = "places.json";

/// Puts what a start was given into the record of a container whose start is found to have come through.
pub fn complete_start(record: &mut Record, dir: &Path) {
    if let Found::Value(begun) = state_dir::find::<Begun>(&dir.join(PLACES)) {
        (record.networks, record.ports) = (begun.networks, begun.ports);
    }
}

/// Takes up what the living have, and removes what nobody has any more, unless some containers are not known: those
/// keep what can be told of them.
pub fn recover(engine: &Engine, containers: &[Arc<Container>], left_out: &BTreeSet<String>) {
    let is_complete = left_out.is_empty();
    for id in left_out {
        left_out::keep(engine, id);
    }
    let living: Vec<Record> = containers
        .iter()
        .filter(|container| container.lock().record.state.is_alive())
        .map(|container| container.record())
        .collect();
    living.iter().for_each(|record| adopt(engine, record));
    let told = |result: Result<()>| {
        if let Err(error) = result {
            log::error!("{error}");
        }
    };
    let is_known = |owner: &Owner| match owner {
        Owner::Network(id) => engine.networks.by_id(id).is_some(),
        Owner::Endpoint(id) => {
            living.iter().any(|record| given(record).any(|(_, given)| given.endpoint_id == *id))
        }
    };
    // First: what is left of another data root may have the names that are needed.
    if is_complete {
        told(engine.wiring.sweep(&is_known));
    }
    for network in engine.networks.all() {
        let members: Vec<Given> =
            engine.networks.members(&network.id).into_iter().map(|(_, given)| given).collect();
        if !members.is_empty() {
            told(engine.wiring.repair(&network, &members));
        }
    }
    told(engine.firewall.synchronize());
}
