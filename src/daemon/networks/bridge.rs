//! Bridge networks made real, and the door to the other drivers: what containers are plugged into.
//!
//! A network is a bridge, a place in it a pair of interfaces: one in the bridge, one in the container. Everything is
//! asked of the kernel in a few sends, and nothing is kept but what an interface's own alias says: whose it is. So a
//! daemon that comes back finds what is its own, and leaves alone what is not. A container's end goes with its
//! namespace and takes the other along, which costs nothing; taking it away by hand costs 30 ms.
//!
//! Source: dockerd's bridge driver, for what a bridge looks like.

mod device;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::network::{Driver, Given, Network, option};
use super::{endpoint, firewall, mac, macvlan};
use crate::daemon::config::{Config, DEFAULT_EXEC_ROOT, NetworkDefaults, fnv1a};
use crate::daemon::error::{Error, Result};
use crate::runtime::netlink::link::{self, Veth, Which};
use crate::runtime::netlink::{Message, Protocol, Socket};
use crate::runtime::netns;

/// The bridge of the default network, of a daemon whose exec-root is the default.
const DEFAULT_BRIDGE: &str = "dewar0";

/// What the caller wants of a plug beside the place itself.
#[derive(Clone, Debug, Default)]
pub struct PlugOptions {
    /// Nothing reaches the container until [`Wiring::release`].
    pub is_held: bool,
    /// Settings of the container's end, as Docker writes them: `net.ipv4.conf.IFNAME.log_martians`, and their values.
    pub sysctls: Vec<(String, String)>,
    /// In bytes, instead of the network's.
    pub mtu: Option<u32>,
}

/// An interface that carries our mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub owner: Owner,
}

/// Whose an interface of ours is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// By id.
    Network(String),
    /// By the endpoint's id.
    Endpoint(String),
}

/// The host's side of all networks, in the network namespace of the thread that is first to use it.
#[derive(Debug)]
pub struct Wiring {
    /// What the aliases of our interfaces begin with: one per exec-root.
    mark: String,
    default_bridge: String,
    defaults: NetworkDefaults,
    host: Mutex<Host>,
}

#[derive(Debug, Default)]
pub(super) struct Host {
    socket: Option<Socket>,
    /// Interface indexes of bridges that are as they should be, by network.
    bridges: HashMap<String, u32>,
    /// Forwarding has been seen to, by family.
    forwards: [bool; 2],
    /// Addresses that neighbours may know with another MAC address than the one that belongs to them.
    strange: BTreeSet<Ipv4Addr>,
}

impl Host {
    /// # Errors
    /// See [`Socket::open`].
    pub(super) fn socket(&mut self) -> io::Result<&mut Socket> {
        if self.socket.is_none() {
            self.socket = Some(Socket::open(Protocol::Route)?);
        }
        self.socket.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Waits until a port and its bridge carry traffic; gives the port's index.
    fn wait_running(&mut self, name: &str) -> io::Result<Option<u32>> {
        let socket = self.socket()?;
        let port = Which::Name(name);
        link::wait_running(socket, port)?;
        let Some(found) = link::find(socket, port)? else { return Ok(None) };
        // A bridge has a cable while one of its ports does.
        link::wait_running(socket, Which::Index(found.master))?;
        Ok(Some(found.index))
    }
}

fn ipv4(given: &Given) -> Option<Ipv4Addr> {
    match given.ipv4?.address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// Keeps in mind whether a place's address is with a MAC address of its own; gives whether it was so before.
fn note(strange: &mut BTreeSet<Ipv4Addr>, given: &Given) -> bool {
    let Some(own) = ipv4(given) else { return false };
    match given.mac == mac::text(mac::of(own)) {
        true => strange.remove(&own),
        false => !strange.insert(own),
    }
}

impl Wiring {
    /// Touches nothing.
    pub fn new(config: &Config) -> Wiring {
        let is_default = config.exec_root == Path::new(DEFAULT_EXEC_ROOT);
        let hash = fnv1a(config.exec_root.as_os_str().as_encoded_bytes());
        Wiring {
            mark: if is_default { "dewar".to_owned() } else { format!("dewar-{hash:08x}") },
            default_bridge: match is_default {
                true => DEFAULT_BRIDGE.to_owned(),
                false => format!("dewar-{hash:08x}"),
            },
            defaults: config.network.clone(),
            host: Mutex::default(),
        }
    }

    pub(super) fn host(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is the network of containers that name none.
    fn is_default(network: &Network) -> bool {
        network.name == "bridge" || network.switch(option::DEFAULT_BRIDGE, false)
    }

    /// The interface of the network of containers that name none.
    pub fn default_bridge(&self) -> &str {
        match self.defaults.bridge.as_str() {
            "" => &self.default_bridge,
            given => given,
        }
    }

    /// The interface of a bridge network.
    pub fn bridge_name(&self, network: &Network) -> String {
        if let Some(name) = network.options.get(option::BRIDGE_NAME).filter(|name| !name.is_empty()) {
            return name.clone();
        }
        if Wiring::is_default(network) {
            return self.default_bridge().to_owned();
        }
        format!("br-{}", network.id.get(..12).unwrap_or(&network.id))
    }

    /// Interfaces we did not make, in a network that was given one.
    fn is_given(&self, network: &Network) -> bool {
        Wiring::is_default(network) && !self.defaults.bridge.is_empty()
    }

    pub(super) fn mark_of(&self, owner: &Owner) -> String {
        match owner {
            Owner::Network(id) => format!("{} network {id}", self.mark),
            Owner::Endpoint(id) => format!("{} endpoint {id}", self.mark),
        }
    }

    /// Makes what a new network needs on the host.
    ///
    /// # Errors
    /// The name is somebody else's, a parent is missing, or the kernel refuses.
    pub fn create(&self, network: &Network) -> Result<()> {
        match network.driver {
            _ if network.config_only => Ok(()),
            Driver::Bridge => self.ensure(&mut self.host(), network).map(|_| ()),
            Driver::Macvlan | Driver::Ipvlan => macvlan::create(self, network),
            Driver::Host | Driver::Null => Ok(()),
        }
    }

    /// Takes away what we made for a network; a bridge that was there before us stays.
    ///
    /// # Errors
    /// The kernel refuses; that it is gone is fine.
    pub fn remove(&self, network: &Network) -> Result<()> {
        let name = match network.driver {
            Driver::Bridge => self.bridge_name(network),
            Driver::Macvlan | Driver::Ipvlan => macvlan::parent(network),
            Driver::Host | Driver::Null => return Ok(()),
        };
        let mut host = self.host();
        host.bridges.remove(&network.id);
        let failed = |error: &dyn std::fmt::Display| Error::system(format!("remove interface {name}"), error);
        let socket = host.socket().map_err(|error| failed(&error))?;
        let found = link::find(socket, Which::Name(&name)).map_err(|error| failed(&error))?;
        match found {
            Some(found) if found.alias == self.mark_of(&Owner::Network(network.id.clone())) => {
                socket.run(&[link::delete(Which::Index(found.index))]).map_err(|error| failed(&error))
            }
            _ => Ok(()),
        }
    }

    /// Gives the namespace at `netns` its interface in a network.
    ///
    /// # Errors
    /// The kernel refuses; nothing is left behind.
    pub fn plug(&self, netns: &Path, network: &Network, given: &Given, options: &PlugOptions) -> Result<()> {
        match network.driver {
            Driver::Bridge => self.plug_bridge(netns, network, given, options),
            Driver::Macvlan | Driver::Ipvlan => macvlan::plug(self, netns, network, given, options),
            Driver::Host | Driver::Null => Ok(()),
        }
    }

    fn plug_bridge(
        &self,
        netns: &Path,
        network: &Network,
        given: &Given,
        options: &PlugOptions,
    ) -> Result<()> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::system(format!("plug {} into network {}", given.interface, network.name), error)
        };
        let mac = endpoint::mac(&given.mac).map_err(|error| failed(&error))?;
        let namespace = fs::File::open(netns).map_err(|error| failed(&error))?;
        let mut host = self.host();
        let mut is_second = false;
        loop {
            let master = match host.bridges.get(&network.id) {
                Some(index) => *index,
                None => self.ensure(&mut host, network)?,
            };
            let veth = Veth {
                host: &given.host_interface,
                master,
                peer: &given.interface,
                netns: namespace.as_fd(),
                mac,
                mtu: options.mtu.or_else(|| self.mtu(network)),
            };
            let mut port = link::change(Which::Name(veth.host), (!options.is_held).then_some(true));
            port.string(libc::IFLA_IFALIAS, &self.mark_of(&Owner::Endpoint(given.endpoint_id.clone())));
            link::hairpin(&mut port, firewall::needs_isolation(network));
            let socket = host.socket().map_err(|error| failed(&error))?;
            let made = socket.run(&[link::veth(&veth)]);
            let is_made = made.is_ok();
            let made = made.map_err(io::Error::from);
            match made.and_then(|()| device::only_a_port(veth.host)).and_then(|()| Ok(socket.run(&[port])?)) {
                Ok(()) => break,
                Err(error) => {
                    if is_made {
                        // It will not be used.
                        let _ = socket.run(&[link::delete(Which::Name(veth.host))]);
                    }
                    // The bridge may have been taken from under us.
                    let is_there = matches!(link::find(socket, Which::Index(master)), Ok(Some(_)));
                    if is_second || is_there {
                        return Err(failed(&error));
                    }
                    host.bridges.remove(&network.id);
                    is_second = true;
                }
            }
        }
        drop(host);
        let has_router = network.pools_of(true).next().is_some();
        let made = netns::within(netns, || {
            let mut inside = Socket::open(Protocol::Route)?;
            let index = endpoint::configure(&mut inside, given, &options.sysctls, has_router)?;
            if options.is_held { Ok(()) } else { self.introduce(&mut inside, given, index) }
        });
        made.map_err(|error| {
            if let Ok(socket) = self.host().socket() {
                let _ = socket.run(&[link::delete(Which::Name(&given.host_interface))]);
            }
            failed(&error)
        })
    }

    /// Has the neighbours know where a container is that has just come; called inside.
    ///
    /// What all are told, all have to hear: beside five hundred it took half of a start. So they are only where they
    /// may know something else. A MAC address goes with its IPv4 address, and the bridge alone has to know the port.
    fn introduce(&self, inside: &mut Socket, given: &Given, index: u32) -> io::Result<()> {
        let mac = endpoint::mac(&given.mac)?;
        let known = (given.ipv6.is_none() && given.link_local.is_empty())
            .then(|| ipv4(given).filter(|own| mac == Some(mac::of(*own))))
            .flatten();
        let mut host = self.host();
        let port = host.wait_running(&given.host_interface)?;
        let is_strange = note(&mut host.strange, given);
        if let (Some(mac), Some(port), Some(_), false) = (mac, port, known, is_strange) {
            return Ok(host.socket()?.run(&[link::seen(port, mac)])?);
        }
        drop(host);
        endpoint::announce(inside, index)
    }

    /// Tells the neighbours where the container is now; called inside.
    fn announce(&self, inside: &mut Socket, given: &Given, index: u32) -> io::Result<()> {
        if !given.host_interface.is_empty() {
            let mut host = self.host();
            host.wait_running(&given.host_interface)?;
            note(&mut host.strange, given);
        }
        endpoint::announce(inside, index)
    }

    /// Takes a living container out of a network. What is gone already is fine.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn unplug(&self, netns: &Path, network: &Network, given: &Given) -> Result<()> {
        let gone = |result: Result<(), crate::runtime::netlink::Failed>| match result {
            Err(error) if error.errno == rustix::io::Errno::NODEV => Ok(()),
            other => Ok(other?),
        };
        let unplugged = match network.driver {
            Driver::Host | Driver::Null => Ok(()),
            Driver::Bridge => self
                .host()
                .socket()
                .and_then(|socket| gone(socket.run(&[link::delete(Which::Name(&given.host_interface))]))),
            Driver::Macvlan | Driver::Ipvlan => netns::within(netns, || {
                gone(Socket::open(Protocol::Route)?.run(&[link::delete(Which::Name(&given.interface))]))
            }),
        };
        unplugged.map_err(|error| {
            Error::system(format!("unplug {} from network {}", given.interface, network.name), error)
        })
    }

    /// Makes these the only ways out of a namespace: gateway, and the interface's name inside.
    ///
    /// # Errors
    /// There is no such interface, or the kernel refuses.
    pub fn default_route(
        &self,
        netns: &Path,
        ipv4: Option<(Ipv4Addr, &str)>,
        ipv6: Option<(Ipv6Addr, &str)>,
    ) -> Result<()> {
        let wanted = ipv4.map(|(gateway, device)| (IpAddr::V4(gateway), device));
        let wanted: Vec<_> = wanted.into_iter().chain(ipv6.map(|(to, device)| (to.into(), device))).collect();
        netns::within(netns, || endpoint::default_routes(&mut Socket::open(Protocol::Route)?, &wanted))
            .map_err(|error| Error::system(format!("set the default routes of {netns:?}"), error))
    }

    /// Lets nothing in or out of a living container, in this one of its networks. Of the drivers, ipvlan cannot.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn hold(&self, netns: &Path, given: &Given) -> Result<()> {
        let held = match given.host_interface.as_str() {
            "" => netns::within(netns, || {
                let mut inside = Socket::open(Protocol::Route)?;
                inside.run(&[macvlan::hold(&given.interface, true)])?;
                // Waits until it is in force.
                link::find(&mut inside, Which::Name(&given.interface)).map(|_| ())
            }),
            name => self.change_host(&link::change(Which::Name(name), Some(false))),
        };
        held.map_err(|error| Error::system(format!("hold {}", given.interface), error))
    }

    /// Ends a [`Wiring::hold`], and tells the neighbours.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn release(&self, netns: &Path, given: &Given) -> Result<()> {
        let released = match given.host_interface.as_str() {
            "" => Ok(()),
            name => self.change_host(&link::change(Which::Name(name), Some(true))),
        };
        let told = released.and_then(|()| {
            netns::within(netns, || {
                let mut inside = Socket::open(Protocol::Route)?;
                if given.host_interface.is_empty() {
                    inside.run(&[macvlan::hold(&given.interface, false)])?;
                }
                let index = endpoint::index(&mut inside, &given.interface)?;
                self.announce(&mut inside, given, index)
            })
        });
        told.map_err(|error| Error::system(format!("release {}", given.interface), error))
    }

    fn change_host(&self, message: &Message) -> io::Result<()> {
        Ok(self.host().socket()?.run(std::slice::from_ref(message))?)
    }

    /// Puts right, at the daemon's start, what happened to a network while nobody looked: its bridge is there with its
    /// addresses, and those who are in it are plugged in. Held ones stay held.
    ///
    /// # Errors
    /// The first thing that could not be put right; the rest has been tried.
    pub fn repair(&self, network: &Network, members: &[Given]) -> Result<()> {
        if network.driver != Driver::Bridge {
            return Ok(());
        }
        let mut host = self.host();
        host.bridges.remove(&network.id);
        let master = self.ensure(&mut host, network)?;
        let mut result = Ok(());
        for given in members {
            note(&mut host.strange, given);
            let name = given.host_interface.as_str();
            let replugged = host.socket().and_then(|socket| match link::find(socket, Which::Name(name))? {
                Some(found) if found.master == master => Ok(()),
                Some(found) => {
                    let mut port = link::change(Which::Index(found.index), None);
                    port.u32(libc::IFLA_MASTER, master);
                    let mut hairpin = link::change(Which::Index(found.index), None);
                    link::hairpin(&mut hairpin, firewall::needs_isolation(network));
                    Ok(socket.run(&[port, hairpin])?)
                }
                None => Err(io::Error::from(rustix::io::Errno::NODEV)),
            });
            if let Err(error) = replugged {
                let attempt = format!("plug {name} into network {} again", network.name);
                result = result.and(Err(Error::system(attempt, error)));
            }
        }
        result
    }

    /// All interfaces of the host's that carry our mark.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn host_interfaces(&self) -> Result<Vec<Interface>> {
        let links = self.host().socket().and_then(link::list);
        let links = links.map_err(|error| Error::system("list interfaces", error))?;
        let ours = links.into_iter().filter_map(|found| {
            let (kind, id) = found.alias.strip_prefix(&self.mark)?.strip_prefix(' ')?.split_once(' ')?;
            let owner = match kind {
                "network" => Owner::Network(id.to_owned()),
                "endpoint" => Owner::Endpoint(id.to_owned()),
                _ => return None,
            };
            Some(Interface { name: found.name, owner })
        });
        Ok(ours.collect())
    }

    /// Deletes the interfaces that carry our mark and whose owner is none of those who are known.
    ///
    /// # Errors
    /// The first that could not be deleted; the rest has been tried.
    pub fn sweep(&self, is_known: &dyn Fn(&Owner) -> bool) -> Result<()> {
        let mut result = Ok(());
        for interface in self.host_interfaces()?.into_iter().filter(|found| !is_known(&found.owner)) {
            log::info!("delete interface {}: it belongs to nobody", interface.name);
            if let Err(error) = self.change_host(&link::delete(Which::Name(&interface.name))) {
                let attempt = format!("delete interface {}", interface.name);
                result = result.and(Err(Error::system(attempt, error)));
            }
        }
        result
    }

    /// In bytes; `None` is the kernel's.
    pub(super) fn mtu(&self, network: &Network) -> Option<u32> {
        let given = network.options.get(option::MTU).and_then(|text| text.parse().ok());
        let mtu = given.or_else(|| Wiring::is_default(network).then_some(self.defaults.mtu));
        mtu.filter(|mtu| *mtu > 0)
    }
}

#[cfg(test)]
mod tests;
