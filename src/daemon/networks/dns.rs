//! The name server of the containers' networks: Docker's 127.0.0.11.
//!
//! Each container in a network of the user's own has a socket for UDP and one for TCP in its namespace, on ports
//! of their own, to which its namespace redirects 127.0.0.11:53: so that a name server can run in the container,
//! and none on the host is in the way. Containers' names are answered here, the others by whom the host asks, or
//! whom `--dns` names.

mod answer;
mod forward;
mod message;
mod namespace;
mod redirect;
mod server;
mod stream;
mod zones;

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

pub use zones::{Link, Seen, Upstreams, View};

use crate::runtime::netns;
use server::Server;

/// Where containers look for their name server.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Where a container's queries come to in the end, on [`ADDRESS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedPorts {
    pub udp: u16,
    pub tcp: u16,
}

/// All containers' name server. Its thread begins with the first container, and ends when this is dropped.
#[derive(Debug)]
pub struct Dns {
    server: Arc<Server>,
}

impl Dns {
    /// `resolv_conf` is the host's, which is read again whenever it has changed.
    pub fn new(resolv_conf: PathBuf) -> Dns {
        Dns { server: Arc::new(Server::new(resolv_conf)) }
    }

    /// Serves a container, with sockets made in its namespace, where `lo` must be up. Whom it served before in
    /// this container's name is forgotten.
    ///
    /// # Errors
    /// Those of entering the namespace and of binding; `EMFILE`, `EAGAIN` for the thread.
    pub fn serve(&self, container: &str, netns: &Path, view: View) -> io::Result<ServedPorts> {
        let sockets = netns::within(netns, bind)?;
        let (udp, tcp) = (sockets.0.local_addr()?.port(), sockets.1.local_addr()?.port());
        if self.server.add(container, netns.to_owned(), view, sockets)? {
            let server = Arc::clone(&self.server);
            let spawned = thread::Builder::new().name("dns".to_owned()).spawn(move || run(&server));
            spawned.inspect_err(|_| self.server.is_not_running())?;
        }
        Ok(ServedPorts { udp, tcp })
    }

    /// Gives a container that is served another view of names.
    pub fn change(&self, container: &str, view: View) {
        self.server.lock().change(container, view);
    }

    /// Serves a container no longer, and has nothing open in its namespace when this returns. It may never have
    /// been served.
    pub fn forget(&self, container: &str) {
        self.server.lock().forget(container);
    }

    /// Makes a container known in a network, by the network's id. The first of the names is the one its addresses
    /// have; all are compared without regard to case. Instead of what it was known by there.
    pub fn join(&self, network: &str, container: &str, names: &[String], addresses: &[IpAddr]) {
        self.server.lock().zones.join(network, container, names, addresses);
    }

    /// Makes a container unknown in a network; it may be already.
    pub fn leave(&self, network: &str, container: &str) {
        self.server.lock().zones.leave(network, container);
    }
}

/// Sockets in the calling thread's namespace to which 127.0.0.11:53 leads.
fn bind() -> io::Result<(UdpSocket, TcpListener)> {
    let sockets = server::bind(ADDRESS, 0)?;
    match redirect::lead(sockets.0.local_addr()?.port(), sockets.1.local_addr()?.port()) {
        Ok(()) => Ok(sockets),
        Err(cause) => {
            // The port itself will do as well, until somebody in the container wants it.
            log::debug!("lead port {} to the name server: {cause}", redirect::PORT);
            server::bind(ADDRESS, redirect::PORT)
        }
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.server.end();
    }
}

/// Serves until the end. A query that makes us panic must not take all the others with it.
fn run(server: &Server) {
    loop {
        match panic::catch_unwind(AssertUnwindSafe(|| server.run())) {
            Ok(Ok(())) => return,
            Ok(Err(cause)) => {
                log::error!("serve names: {cause}");
                return server.is_not_running();
            }
            Err(_) => log::error!("serve names: a query ended in a panic"),
        }
    }
}

#[cfg(test)]
mod tests;
