//! The firewall: who may speak to whom, with which address, and through which port of the host.
//!
//! What is wanted is kept in memory and written into tables of our own (`ruleset`), change by change. A change the
//! kernel refuses, because somebody has been at the tables, is answered by writing them anew; a thread sees when
//! somebody takes from them (`nft flush ruleset`) and does the same. Rules of others are left alone, but for what
//! `foreign` says.
//!
//! Everything happens in the network namespace of the thread that first changes something.

mod foreign;
mod passage;
mod ruleset;
mod stale;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::network::{Network, option};
use super::ports::{Protocol, Publication};
use crate::daemon::bell::Bell;
use crate::daemon::config::{Config, DEFAULT_EXEC_ROOT, fnv1a};
use crate::daemon::error::{Error, Result};
use crate::runtime::netlink::{Failed, Socket};
use crate::runtime::nftables::{self, Batch, Family, Table};
use foreign::Foreign;
pub use passage::Passage;
use ruleset::Area;
use stale::{Stale, forget_flows};

/// After a repair: who takes rules away in a loop is not answered in one as fast.
const PAUSE: Duration = Duration::from_millis(5);

/// The daemon's rules.
#[derive(Debug)]
pub struct Firewall {
    shared: Arc<Shared>,
    watch: Mutex<Option<Watch>>,
}

#[derive(Debug)]
struct Shared {
    /// Of the families that rules are wanted for.
    tables: Vec<Table>,
    /// Of those they are not.
    unwanted: Vec<Table>,
    /// Published ports are reached at the containers' own addresses, on every network.
    is_direct: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    socket: Option<Socket>,
    /// The kernel may be changed. Until [`Firewall::synchronize`] it is what the last daemon left, on which living
    /// containers depend, while this one hears what is wanted piece by piece.
    is_started: bool,
    is_installed: bool,
    /// By id.
    networks: BTreeMap<String, Vec<(Family, Area)>>,
    /// By container.
    published: BTreeMap<String, Vec<Publication>>,
    /// By the container that may go through.
    passages: BTreeMap<String, Vec<Passage>>,
    /// For the thread to forget.
    stale: Vec<Stale>,
    /// The thread is to end.
    is_over: bool,
    foreign: Foreign,
}

/// The thread that looks after the rules.
#[derive(Debug)]
struct Watch {
    /// Rung when the state has something for it.
    bell: Arc<Bell>,
    thread: JoinHandle<()>,
}

impl Firewall {
    /// Reads what is wanted; the kernel is not touched before [`Firewall::synchronize`], nor before there is a
    /// network.
    pub fn open(config: &Config) -> Firewall {
        let name = table_name(&config.exec_root);
        let (tables, unwanted) = Family::BOTH
            .into_iter()
            .map(|family| Table { family, name: name.clone() })
            .partition(|table| match table.family {
                Family::Ip => config.network.iptables,
                Family::Ip6 => config.network.ip6tables,
            });
        let is_direct = config.network.allow_direct_routing;
        let state = Mutex::default();
        Firewall { shared: Arc::new(Shared { tables, unwanted, is_direct, state }), watch: Mutex::default() }
    }

    /// Makes the rules of a network whose containers are behind `bridge`. What was known of it is replaced.
    ///
    /// # Errors
    /// System, with the kernel's reason; then nothing has changed.
    pub fn add_network(&self, network: &Network, bridge: &str) -> Result<()> {
        let shared = &self.shared;
        let families = shared.tables.iter().map(|table| table.family);
        let areas: Vec<(Family, Area)> = families
            .filter_map(|family| Some((family, Area::of(network, bridge, family, shared.is_direct)?)))
            .collect();
        let mut state = shared.state();
        // Every container that joins comes by here.
        if state.networks.get(&network.id) == Some(&areas) {
            return Ok(());
        }
        let before = state.networks.insert(network.id.clone(), areas);
        let id = network.id.clone();
        let outcome = shared.apply(&mut state, |shared, state, batch| {
            for table in &shared.tables {
                for (_, area) in before.iter().flatten().filter(|(family, _)| *family == table.family) {
                    area.remove(batch, table);
                }
                for (_, area) in state.areas(&id).filter(|(family, _)| *family == table.family) {
                    area.add(batch, table);
                }
            }
        });
        if let Err(failed) = outcome {
            match before {
                Some(before) => state.networks.insert(network.id.clone(), before),
                None => state.networks.remove(&network.id),
            };
            return Err(Error::system(format!("make firewall rules for network {}", network.name), failed));
        }
        if !state.is_started {
            return Ok(());
        }
        shared.meet_others(&mut state);
        drop(state);
        self.watch()
    }

    /// Takes the rules of a network away; with the last network's go the tables.
    ///
    /// # Errors
    /// System, with the kernel's reason; the network is forgotten all the same.
    pub fn remove_network(&self, id: &str) -> Result<()> {
        let mut state = self.shared.state();
        let Some(gone) = state.networks.remove(id) else { return Ok(()) };
        let outcome = self.shared.apply(&mut state, |shared, _, batch| {
            for table in &shared.tables {
                for (_, area) in gone.iter().filter(|(family, _)| *family == table.family) {
                    area.remove(batch, table);
                }
            }
        });
        self.shared.meet_others(&mut state);
        outcome.map_err(|failed| Error::system(format!("remove firewall rules of network {id}"), failed))
    }

    /// Leads host ports to a container, in place of what was led to it.
    ///
    /// # Errors
    /// System, with the kernel's reason; then nothing has changed.
    pub fn publish(&self, container: &str, list: &[Publication]) -> Result<()> {
        self.replace(container, list)
            .map_err(|failed| Error::system(format!("publish ports of container {container}"), failed))
    }

    /// Leads nothing to the container any more.
    ///
    /// # Errors
    /// System, with the kernel's reason; the container is forgotten all the same.
    pub fn unpublish(&self, container: &str) -> Result<()> {
        self.replace(container, &[])
            .map_err(|failed| Error::system(format!("unpublish ports of container {container}"), failed))
    }

    fn replace(&self, container: &str, list: &[Publication]) -> Result<(), Failed> {
        let mut state = self.shared.state();
        let before = state.published.remove(container).unwrap_or_default();
        if before.is_empty() && list.is_empty() {
            return Ok(());
        }
        if !list.is_empty() {
            state.published.insert(container.to_owned(), list.to_vec());
        }
        let outcome = self.shared.apply(&mut state, |shared, state, batch| {
            for table in &shared.tables {
                let is_open = |one: &Publication| state.is_open(one, table.family);
                for (set, elements) in ruleset::published(table.family, &before, is_open) {
                    batch.delete_elements(table, set, &elements);
                }
                for (set, elements) in ruleset::published(table.family, list, is_open) {
                    batch.add_elements(table, set, &elements);
                }
            }
        });
        if outcome.is_err() && !list.is_empty() {
            state.published.remove(container);
            if !before.is_empty() {
                state.published.insert(container.to_owned(), before);
            }
            return outcome;
        }
        let is_datagram = |one: &&Publication| one.protocol == Protocol::Udp && one.host_port != 0;
        let (gone, new) = (before.iter().filter(is_datagram), list.iter().filter(is_datagram));
        state.stale.extend(gone.map(|one| Stale::To(one.to, one.to_port)));
        state.stale.extend(new.map(|one| Stale::At(one.host, one.host_port)));
        if !state.stale.is_empty() {
            drop(state);
            self.ring();
        }
        outcome
    }

    /// Makes the kernel's tables what they are to be, whatever they are: for the daemon's start.
    ///
    /// # Errors
    /// System, with the kernel's reason.
    pub fn synchronize(&self) -> Result<()> {
        let mut state = self.shared.state();
        state.is_started = true;
        let outcome = match state.networks.is_empty() {
            true => self.shared.remove_tables(&mut state),
            false => self.shared.install(&mut state),
        };
        outcome.map_err(|failed| Error::system("make firewall rules", failed))?;
        self.shared.meet_others(&mut state);
        let is_wanted = state.is_installed;
        drop(state);
        if is_wanted { self.watch() } else { Ok(()) }
    }

    /// Takes all rules away and forgets what they were for.
    pub fn uninstall(&self) {
        self.end_watch();
        let mut state = self.shared.state();
        (state.networks, state.published, state.passages) = Default::default();
        self.shared.meet_others(&mut state);
        if let Err(failed) = self.shared.remove_tables(&mut state) {
            log::warn!("remove firewall rules: {failed}");
        }
    }

    /// What keeps packets from containers that is not ours to change, for `info`.
    pub fn warnings(&self) -> Vec<String> {
        self.shared.state().foreign.warnings.clone()
    }

    /// Begins to look after the rules, unless somebody does.
    fn watch(&self) -> Result<()> {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if watch.is_some() || self.shared.tables.is_empty() {
            return Ok(());
        }
        let failed = |cause: std::io::Error| Error::system("watch firewall rules", cause);
        let news = nftables::open().map_err(failed)?;
        news.subscribe(nftables::GROUP).map_err(failed)?;
        let bell = Arc::new(Bell::new()?);
        let (shared, heard) = (Arc::clone(&self.shared), Arc::clone(&bell));
        let worker = thread::Builder::new().name("firewall".to_owned());
        self.shared.state().is_over = false;
        let thread = worker.spawn(move || shared.look_after(news, &heard)).map_err(failed)?;
        *watch = Some(Watch { bell, thread });
        Ok(())
    }

    fn end_watch(&self) {
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(watch) = watch {
            self.shared.state().is_over = true;
            watch.bell.ring();
            let _ = watch.thread.join();
        }
    }

    /// Has the thread look at the state.
    fn ring(&self) {
        if let Some(watch) = &*self.watch.lock().unwrap_or_else(PoisonError::into_inner) {
            watch.bell.ring();
        }
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        self.end_watch();
    }
}

/// Whether the ports of a network's bridge have to keep containers from each other, who may not speak to each other
/// while the kernel shows no rule what crosses a bridge.
pub fn needs_isolation(network: &Network) -> bool {
    if network.switch(option::ICC, true) {
        return false;
    }
    let is_shown = |family: &str| {
        let file = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        fs::read_to_string(file).is_ok_and(|text| text.trim() == "1")
    };
    !(is_shown("iptables") && (!network.ipv6 || is_shown("ip6tables")))
}

/// Two daemons on one host must not take each other's rules for leftovers.
fn table_name(exec_root: &Path) -> String {
    if exec_root == Path::new(DEFAULT_EXEC_ROOT) {
        return "dewar".to_owned();
    }
    // A collision would only cost one daemon's leftovers.
    let hash = fnv1a(exec_root.as_os_str().as_encoded_bytes());
    format!("dewar-{hash:08x}")
}

impl State {
    fn areas(&self, network: &str) -> impl Iterator<Item = &(Family, Area)> {
        self.networks.get(network).into_iter().flatten()
    }

    /// Whether a published port is open at the container's own address, too.
    fn is_open(&self, one: &Publication, family: Family) -> bool {
        one.host_port == 0 || self.areas(&one.network).any(|(of, area)| *of == family && area.is_open())
    }

    /// The interfaces that are ours.
    fn bridges(&self, family: Family) -> Vec<&str> {
        let areas = self.networks.values().flatten();
        areas.filter(|(of, _)| *of == family).map(|(_, area)| area.bridge.as_str()).collect()
    }

    fn socket(&mut self) -> Result<&mut Socket, Failed> {
        if self.socket.is_none() {
            let socket = nftables::open().map_err(|cause| Failed {
                index: 0,
                errno: rustix::io::Errno::from_io_error(&cause).unwrap_or(rustix::io::Errno::IO),
                text: String::new(),
            })?;
            self.socket = Some(socket);
        }
        Ok(self.socket.as_mut().expect("it was just opened"))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // What is wanted is changed before the kernel is: after a panic the next change writes all anew.
        self.state.lock().unwrap_or_else(|poisoned| {
            let mut state = PoisonError::into_inner(poisoned);
            state.is_installed = false;
            state
        })
    }

    /// Carries out a change of what is wanted, which `state` has already: by the messages `change` writes, or by
    /// writing everything anew when nothing is there or the kernel refuses.
    fn apply(
        &self,
        state: &mut State,
        change: impl FnOnce(&Shared, &State, &mut Batch),
    ) -> Result<(), Failed> {
        if self.tables.is_empty() || !state.is_started {
            return Ok(());
        }
        if state.networks.is_empty() && state.published.is_empty() {
            return self.remove_tables(state);
        }
        if !state.is_installed {
            return self.install(state);
        }
        let mut batch = Batch::new();
        change(self, state, &mut batch);
        match batch.run(state.socket()?) {
            Ok(()) => Ok(()),
            Err(failed) => {
                log::debug!("change firewall rules: {failed}: writing them anew");
                self.install(state)
            }
        }
    }

    /// Writes everything anew.
    fn install(&self, state: &mut State) -> Result<(), Failed> {
        let mut batch = Batch::new();
        for table in &self.tables {
            ruleset::install(&mut batch, table);
            for (_, area) in state.networks.values().flatten().filter(|(family, _)| *family == table.family) {
                area.add(&mut batch, table);
            }
            let all: Vec<Publication> = state.published.values().flatten().cloned().collect();
            let is_open = |one: &Publication| state.is_open(one, table.family);
            for (set, elements) in ruleset::published(table.family, &all, is_open) {
                batch.add_elements(table, set, &elements);
            }
            let all: Vec<Passage> = state.passages.values().flatten().cloned().collect();
            batch.add_elements(table, "linked", &ruleset::linked(table.family, &all));
        }
        batch.run(state.socket()?)?;
        state.is_installed = true;
        self.remove_unwanted(state)
    }

    /// Takes our tables away, if they are there.
    fn remove_tables(&self, state: &mut State) -> Result<(), Failed> {
        state.is_installed = false;
        self.remove(state, &self.tables)?;
        self.remove_unwanted(state)
    }

    /// Tables of families that rules were once wanted for.
    fn remove_unwanted(&self, state: &mut State) -> Result<(), Failed> {
        self.remove(state, &self.unwanted)
    }

    fn remove(&self, state: &mut State, tables: &[Table]) -> Result<(), Failed> {
        let mut batch = Batch::new();
        let socket = state.socket()?;
        for table in tables {
            // Asked first: a kernel without nf_tables has none, and a host that uses none is left without.
            let there = nftables::look::tables(socket, table.family.number()).unwrap_or_default();
            if there.contains(&table.name) {
                batch.delete_table(table);
            }
        }
        batch.run(socket)
    }

    /// Sees to other people's rules that would drop what ours accept.
    fn meet_others(&self, state: &mut State) {
        if !state.is_started || state.socket().is_err() {
            return;
        }
        let Some(mut socket) = state.socket.take() else { return };
        let families = self.tables.iter();
        let warnings: Vec<String> = families
            .flat_map(|table| foreign::meet(&mut socket, table, &state.bridges(table.family)))
            .collect();
        state.socket = Some(socket);
        if state.foreign.warnings != warnings {
            warnings.iter().for_each(|warning| log::warn!("{warning}"));
            state.foreign.warnings = warnings;
        }
    }

    /// Waits for news of the rules until the bell rings.
    fn look_after(&self, mut news: Socket, bell: &Bell) {
        let (mut is_hurt, mut is_met) = (false, true);
        loop {
            let is_pending = is_hurt || !is_met;
            // All of a transaction's news are there before any of it is answered.
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let mut waited =
                [PollFd::new(&news, PollFlags::IN), PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN)];
            match rustix::event::poll(&mut waited, is_pending.then_some(&at_once)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(cause) => return log::error!("watch firewall rules: {cause}"),
            }
            if !waited[1].revents().is_empty() {
                bell.silence();
                let mut state = self.state();
                if state.is_over {
                    return;
                }
                let stale = std::mem::take(&mut state.stale);
                drop(state);
                forget_flows(&stale);
            }
            if !waited[0].revents().is_empty() {
                let own = self.state().socket.as_ref().map(Socket::port).unwrap_or_default();
                let outcome = news.receive_others(own, &mut |kind, payload| {
                    let Some(one) = nftables::look::news(kind, payload) else { return };
                    is_hurt |= one.takes() && self.tables.iter().any(|table| one.is_of(table));
                    is_met &= !foreign::concerns(&one);
                });
                if let Err(cause) = outcome {
                    log::debug!("watch firewall rules: {cause}");
                    (is_hurt, is_met) = (true, false);
                }
                continue;
            }
            if is_pending {
                let mut state = self.state();
                if is_hurt && state.is_installed {
                    match self.install(&mut state) {
                        Ok(()) => log::info!("firewall rules were taken away by somebody: made them anew"),
                        Err(failed) => log::error!("make firewall rules anew: {failed}"),
                    }
                }
                self.meet_others(&mut state);
                drop(state);
                (is_hurt, is_met) = (false, true);
                thread::sleep(PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests;
