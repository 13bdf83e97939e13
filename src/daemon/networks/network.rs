//! What a network is, and what a container's place in one is.
//!
//! Plain values: the store keeps them, the drivers make them real, `containers` asks for places and keeps what it
//! was given in the container's record.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::subnet::Subnet;

/// How a network is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    #[default]
    Bridge,
    /// The host's own network.
    Host,
    /// A loopback interface alone.
    Null,
    Macvlan,
    Ipvlan,
}

/// A network, as `networks/<id>.json` has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// 64 hex digits.
    pub id: String,
    pub name: String,
    /// UTC, RFC 3339 with nanoseconds.
    pub created: String,
    pub driver: Driver,
    /// No way out, no way in: containers reach each other only.
    pub internal: bool,
    pub attachable: bool,
    pub ipv4: bool,
    pub ipv6: bool,
    /// In the order given; at least one of each family that is on, for drivers with addresses.
    pub pools: Vec<Pool>,
    pub options: BTreeMap<String, String>,
    /// None when nobody said any, which clients see.
    pub ipam_options: Option<BTreeMap<String, String>>,
    pub labels: BTreeMap<String, String>,
    /// The configuration-only network this one was made from; empty for none.
    pub config_from: String,
    /// Only a template for others.
    pub config_only: bool,
}

/// Where a network's addresses come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Without host bits.
    pub subnet: Subnet,
    /// Where addresses nobody asked for are taken from; within the subnet.
    pub range: Option<Subnet>,
    /// The bridge's own address, or the router's for macvlan. `None` only where there is none (internal macvlan).
    pub gateway: Option<IpAddr>,
    /// Addresses that are somebody else's, by what for.
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// The subnet is one that was asked for: only in such a one may a container choose its address.
    #[serde(default)]
    pub is_chosen: bool,
}

/// The auxiliary addresses that are the way out when the bridge is not. Source: Docker.
pub const DEFAULT_GATEWAY_IPV4: &str = "DefaultGatewayIPv4";
pub const DEFAULT_GATEWAY_IPV6: &str = "DefaultGatewayIPv6";

impl Pool {
    /// Where a container's packets for elsewhere go.
    pub fn way_out(&self) -> Option<IpAddr> {
        let key = if self.subnet.is_ipv6() { DEFAULT_GATEWAY_IPV6 } else { DEFAULT_GATEWAY_IPV4 };
        self.auxiliary.get(key).copied().or(self.gateway)
    }
}

/// What a container asks of its place in a network; the zero value asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wanted {
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    /// `02:42:ac:11:00:02`
    pub mac: Option<String>,
    /// 169.254.0.0/16 and fe80::/10, beside the place's own.
    pub link_local: Vec<IpAddr>,
}

/// A container's place in a network while it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Given {
    /// 64 hex digits.
    pub endpoint_id: String,
    /// With the subnet's prefix.
    pub ipv4: Option<Subnet>,
    pub ipv6: Option<Subnet>,
    pub mac: String,
    /// Where the way out begins; none in an internal network.
    pub gateway: Option<Ipv4Addr>,
    pub ipv6_gateway: Option<Ipv6Addr>,
    pub link_local: Vec<IpAddr>,
    /// Its name inside: `eth0`.
    pub interface: String,
    /// The host's end of it; empty for drivers without one.
    pub host_interface: String,
}

impl Driver {
    /// As the API spells it.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Bridge => "bridge",
            Driver::Host => "host",
            Driver::Null => "null",
            Driver::Macvlan => "macvlan",
            Driver::Ipvlan => "ipvlan",
        }
    }

    /// Whether its networks have addresses.
    pub fn has_addresses(self) -> bool {
        !matches!(self, Driver::Host | Driver::Null)
    }
}

/// Options of the bridge driver, as dockerd names them.
pub mod option {
    /// Of `default-network-opts`: what a network has when nobody says.
    pub const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
    pub const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";
    pub const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
    pub const MTU: &str = "com.docker.network.driver.mtu";
    pub const ICC: &str = "com.docker.network.bridge.enable_icc";
    pub const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
    pub const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
    pub const IFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";
    pub const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
    pub const INHIBIT_IPV4: &str = "com.docker.network.bridge.inhibit_ipv4";
    pub const GATEWAY_MODE_IPV4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
    pub const GATEWAY_MODE_IPV6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
    /// The address of ours that masqueraded packets get.
    pub const HOST_IPV4: &str = "com.docker.network.host_ipv4";
    pub const HOST_IPV6: &str = "com.docker.network.host_ipv6";
    pub const TRUSTED_INTERFACES: &str = "com.docker.network.bridge.trusted_host_interfaces";
    /// Of macvlan and ipvlan.
    pub const PARENT: &str = "parent";
    pub const MACVLAN_MODE: &str = "macvlan_mode";
    pub const IPVLAN_MODE: &str = "ipvlan_mode";
    pub const IPVLAN_FLAG: &str = "ipvlan_flag";
    /// Of an endpoint: the interface's name inside, and sysctls of it.
    pub const IFNAME: &str = "com.docker.network.endpoint.ifname";
    pub const ENDPOINT_SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
}

impl Network {
    /// One of an option's values that means yes; `default` when it is not given.
    pub fn switch(&self, option: &str, default: bool) -> bool {
        // Source: Go's ParseBool; create has refused everything else.
        match self.options.get(option).map(String::as_str) {
            Some("1" | "t" | "T" | "true" | "TRUE" | "True" | "") => true,
            Some(_) => false,
            None => default,
        }
    }

    /// Whether it is one of Docker's own: they cannot be made and not removed.
    pub fn is_predefined(&self) -> bool {
        is_predefined(&self.name)
    }

    /// The pools of a family.
    pub fn pools_of(&self, is_ipv6: bool) -> impl Iterator<Item = &Pool> {
        self.pools.iter().filter(move |pool| pool.subnet.is_ipv6() == is_ipv6)
    }
}

/// The names that mean networks of Docker's own. Source: Docker; `default` means one of the others.
pub fn is_predefined(name: &str) -> bool {
    matches!(name, "bridge" | "host" | "none" | "default")
}
