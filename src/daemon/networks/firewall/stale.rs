//! Datagrams that would go on being led as before.

use std::net::{IpAddr, UdpSocket};

use crate::runtime::conntrack::{self, Flow};
use crate::runtime::nftables;

/// UDP flows that the rules of now would lead otherwise.
#[derive(Clone, Copy, Debug)]
pub enum Stale {
    /// Led to where nothing is led any more.
    To(IpAddr, u16),
    /// To a port of the host that was not led then.
    At(IpAddr, u16),
}

impl Stale {
    fn is_ipv6(self) -> bool {
        let (Stale::To(address, _) | Stale::At(address, _)) = self;
        address.is_ipv6()
    }

    fn is(self, flow: &Flow) -> bool {
        match self {
            Stale::To(address, port) => flow.is_led && flow.from == (address, port),
            // A flow that only passes through is none of ours: to be the host's, an address can be bound.
            Stale::At(host, port) => {
                let (to, to_port) = flow.to;
                !flow.is_led
                    && to_port == port
                    && host.is_ipv6() == to.is_ipv6()
                    && (host == to || host.is_unspecified() && UdpSocket::bind((to, 0)).is_ok())
            }
        }
    }
}

/// Lets clients that go on sending be led by the rules of now. On the thread: it takes its time.
pub fn forget_flows(stale: &[Stale]) {
    let outcome = nftables::open().and_then(|mut socket| {
        [false, true]
            .into_iter()
            .filter(|family| stale.iter().any(|one| one.is_ipv6() == *family))
            .try_for_each(|family| {
                conntrack::forget(&mut socket, family, &|flow| stale.iter().any(|one| one.is(flow)))
            })
    });
    if let Err(cause) = outcome {
        // Such clients have to pause for half a minute, then.
        log::debug!("forget flows of datagrams: {cause}");
    }
}
