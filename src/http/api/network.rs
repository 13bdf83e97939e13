//! Networks: what there is to be in, and who is in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::container::EndpointSettings;
use super::{Endpoint, Filters, Method, Shape};

/// `docker network inspect`; in a list without its containers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Network {
    pub name: String,
    /// 64 hex digits.
    pub id: String,
    /// RFC 3339 with nanoseconds.
    pub created: String,
    /// `local`.
    pub scope: String,
    pub driver: String,
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub config_from: ConfigReference,
    pub config_only: bool,
    /// By container id.
    pub containers: BTreeMap<String, NetworkEndpoint>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// Who gives out addresses, from where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ipam {
    pub driver: String,
    pub options: Option<BTreeMap<String, String>>,
    /// Subnets; none for a network without addresses.
    pub config: Option<Vec<IpamConfig>>,
}

/// A subnet. What is empty is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamConfig {
    /// In CIDR notation, as the range.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    pub ip_range: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    #[serde(rename = "AuxiliaryAddresses", skip_serializing_if = "BTreeMap::is_empty")]
    pub auxiliary_addresses: BTreeMap<String, String>,
}

/// The network another one takes its settings from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConfigReference {
    pub network: String,
}

/// A container in a network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkEndpoint {
    pub name: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub mac_address: String,
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

/// What `docker network prune` removed; null for nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworksPruned {
    pub networks_deleted: Option<Vec<String>>,
}

/// The body of create. Of the switches of the address families, none is not the same as off: the daemon's
/// options may say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkCreate {
    pub name: String,
    pub driver: String,
    pub scope: String,
    #[serde(rename = "EnableIPv4", skip_serializing_if = "Option::is_none")]
    pub enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6", skip_serializing_if = "Option::is_none")]
    pub enable_ipv6: Option<bool>,
    #[serde(rename = "IPAM")]
    pub ipam: Option<Ipam>,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub config_only: bool,
    pub config_from: Option<ConfigReference>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkCreated {
    pub id: String,
    pub warning: String,
}

/// The body of connect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkConnect {
    pub container: String,
    pub endpoint_config: Option<EndpointSettings>,
}

/// The body of disconnect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkDisconnect {
    pub container: String,
    /// Also when the container is not there, or cannot be reached.
    pub force: bool,
}

crate::query! {
    pub struct ListQuery {
        filters: Filters = "filters",
    }
}
crate::query! {
    pub struct InspectQuery {
        verbose: bool = "verbose",
        /// `local`, `global` or `swarm`; empty for any.
        scope: String = "scope",
    }
}
crate::query! {
    pub struct PruneQuery {
        filters: Filters = "filters",
    }
}

pub static NETWORK_LIST: Endpoint<ListQuery, (), Vec<Network>> =
    Endpoint::new("NetworkList", Method::Get, "/networks", Shape::Json, 200);
pub static NETWORK_INSPECT: Endpoint<InspectQuery, (), Network> =
    Endpoint::new("NetworkInspect", Method::Get, "/networks/{name}", Shape::Json, 200);
pub static NETWORK_CREATE: Endpoint<(), NetworkCreate, NetworkCreated> =
    Endpoint::new("NetworkCreate", Method::Post, "/networks/create", Shape::Json, 201);
pub static NETWORK_DELETE: Endpoint<(), (), ()> =
    Endpoint::new("NetworkDelete", Method::Delete, "/networks/{name}", Shape::Empty, 204);
pub static NETWORK_CONNECT: Endpoint<(), NetworkConnect, ()> =
    Endpoint::new("NetworkConnect", Method::Post, "/networks/{name}/connect", Shape::Empty, 200);
pub static NETWORK_DISCONNECT: Endpoint<(), NetworkDisconnect, ()> =
    Endpoint::new("NetworkDisconnect", Method::Post, "/networks/{name}/disconnect", Shape::Empty, 200);
pub static NETWORK_PRUNE: Endpoint<PruneQuery, (), NetworksPruned> =
    Endpoint::new("NetworkPrune", Method::Post, "/networks/prune", Shape::Json, 200);
