//! The host's ports that lead into a container.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Frozen, way_out};
use crate::daemon::containers::container::Record;
use crate::daemon::engine::Engine;
use crate::daemon::error::Result;
use crate::daemon::networks::network::{Driver, Given, Network};
use crate::daemon::networks::ports::{self, Ports, Ruled, Terms};
use crate::http::api::container::PortBinding;

/// The bridge that published ports lead in by, and the container's place on it: that of its way out.
pub(super) fn way_in(engine: &Engine, record: &Record) -> Option<(Arc<Network>, Given)> {
    let (name, given) = way_out(record, false).or_else(|| way_out(record, true))?;
    let network = engine.networks.find(name).ok().filter(|network| network.driver == Driver::Bridge)?;
    Some((network, given.clone()))
}

/// Claims the host's ports that are to lead into the container, where anything can; for a thaw those that it had, if
/// others would do.
pub(super) fn claim_ports(engine: &Engine, record: &mut Record, thaw: Option<&Frozen>) -> Result<()> {
    record.ports.clear();
    // Compat: without a way in there is nothing to publish, and nobody is told.
    if let Some((network, _)) = way_in(engine, record) {
        let wishes = Ports::wishes(&record.host_config, &record.config.exposed_ports)?;
        let terms = Terms::of(&network, &engine.config().network);
        let endpoint = record.networks.get(&network.name).and_then(|place| place.given.as_ref());
        let endpoint = endpoint.map_or("", |given| given.endpoint_id.as_str());
        let again = thaw.map(|frozen| frozen.wishes(&wishes)).filter(|again| *again != wishes);
        let again = again.and_then(|again| engine.ports.claim(&record.id, &again, &terms).ok());
        let claimed = again.map_or_else(|| engine.ports.claim(&record.id, &wishes, &terms), Ok);
        record.ports = claimed.map_err(|error| {
            // Compat: tools look for these words.
            error.during(format!(
                "driver failed programming external connectivity on endpoint {} ({endpoint})",
                record.name
            ))
        })?;
    }
    Ok(())
}

/// Leads the claimed ports into the container.
pub(super) fn publish_ports(engine: &Engine, record: &Record) -> Result<()> {
    let Some((network, given)) = way_in(engine, record).filter(|_| !record.ports.is_empty()) else {
        return Ok(());
    };
    let config = engine.config();
    let defaults = &config.network;
    let ruled = Ruled { ipv4: defaults.iptables, ipv6: defaults.ip6tables, relays: defaults.userland_proxy };
    let list = engine.ports.lead(&record.id, &network.id, &given, ruled)?;
    engine.firewall.publish(&record.id, &list)
}

/// The container's ports while it runs, as `inspect` shows them: those that lead somewhere, and the others.
pub fn shown_ports(engine: &Engine, record: &Record) -> BTreeMap<String, Option<Vec<PortBinding>>> {
    let mut shown = BTreeMap::new();
    if record.state.is_alive() && way_in(engine, record).is_some() {
        shown = ports::shown(&record.ports);
        for port in record.config.exposed_ports.keys().chain(record.host_config.port_bindings.keys()) {
            shown.entry(port.clone()).or_default();
        }
    }
    shown
}
