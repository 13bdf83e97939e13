//! Who reaches whom: servers that tell what they see, and clients that ask, over TCP and UDP.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::Namespace;

/// Longer than an answer takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(3);
/// Long enough for an answer that should not come.
const DOUBT: Duration = Duration::from_millis(400);

/// Answers everyone on a port, TCP and UDP, IPv4 and IPv6, with its name and whom it sees: `web 192.0.2.2`.
pub struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    #[track_caller]
    pub fn start(place: &Namespace, name: &str, port: u16) -> Server {
        let any = SocketAddr::new(IpAddr::from([0_u16; 8]), port);
        Server::at(place, name, any)
    }

    #[track_caller]
    pub fn at(place: &Namespace, name: &str, address: SocketAddr) -> Server {
        let bound = place.within(|| Ok((TcpListener::bind(address)?, UdpSocket::bind(address)?)));
        let (tcp, udp) = bound.unwrap_or_else(|cause: std::io::Error| panic!("{name} on {address}: {cause}"));
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, name) = (Arc::clone(&stop), name.to_owned());
        let thread = std::thread::spawn(move || {
            let pause = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            while !flag.load(Ordering::Relaxed) {
                let mut ready = [PollFd::new(&tcp, PollFlags::IN), PollFd::new(&udp, PollFlags::IN)];
                if poll(&mut ready, Some(&pause)).is_err() {
                    continue;
                }
                let [is_tcp, is_udp] =
                    [ready[0].revents(), ready[1].revents()].map(|events| !events.is_empty());
                if is_tcp && let Ok((mut stream, peer)) = tcp.accept() {
                    drop(stream.write_all(format!("{name} {}", peer.ip().to_canonical()).as_bytes()));
                }
                let mut buffer = [0; 64];
                if is_udp && let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                    drop(udp.send_to(format!("{name} {}", peer.ip().to_canonical()).as_bytes(), peer));
                }
            }
        });
        Server { stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// What the server at `to` (`address:port`) says to somebody in `from`, over TCP.
pub fn tcp(from: &Namespace, to: &str, patience: Duration) -> Result<String, String> {
    let address: SocketAddr = to.parse().map_err(|_| format!("{to} is no address"))?;
    from.within(|| {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&address, patience)?;
            stream.set_read_timeout(Some(patience))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().map_err(|cause| format!("tcp to {to}: {cause}"))
    })
}

/// The same over UDP.
pub fn udp(from: &Namespace, to: &str, patience: Duration) -> Result<String, String> {
    let address: SocketAddr = to.parse().map_err(|_| format!("{to} is no address"))?;
    from.within(|| {
        let ask = || -> std::io::Result<String> {
            let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(address)?;
            socket.set_read_timeout(Some(patience))?;
            socket.send(b"who")?;
            let mut buffer = [0; 200];
            let count = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
        };
        ask().map_err(|cause| format!("udp to {to}: {cause}"))
    })
}

/// Both ways of asking have this answer.
#[track_caller]
pub fn answers(from: &Namespace, to: &str, expected: &str) {
    let heard = [tcp(from, to, PATIENCE), udp(from, to, PATIENCE)];
    for answer in heard {
        assert_eq!(answer.as_deref(), Ok(expected), "asking {to}");
    }
}

/// Asking over TCP alone has this answer.
#[track_caller]
pub fn answers_tcp(from: &Namespace, to: &str, expected: &str) {
    assert_eq!(tcp(from, to, PATIENCE).as_deref(), Ok(expected), "asking {to}");
}

/// Nobody answers, either way.
#[track_caller]
pub fn is_cut(from: &Namespace, to: &str) {
    for answer in [tcp(from, to, DOUBT), udp(from, to, DOUBT)] {
        assert!(answer.is_err(), "{to} should be out of reach: {answer:?}");
    }
}

/// A TCP connection that stays: what goes in comes out again.
pub struct Line {
    near: TcpStream,
    far: TcpStream,
}

impl Line {
    /// From `from` to a listener at `port` in `to`, which is reached as `address:port`.
    #[track_caller]
    pub fn connect(from: &Namespace, to: &Namespace, port: u16, address: &str) -> Line {
        let listener = to.within(|| TcpListener::bind(("0.0.0.0", port))).expect("a free port inside");
        let address: SocketAddr = address.parse().expect("an address");
        let near = from.within(|| TcpStream::connect_timeout(&address, PATIENCE)).expect("it connects");
        let (far, _) = listener.accept().expect("it is connected");
        far.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Line { near, far }
    }

    /// Whether a word gets through.
    pub fn carries(&mut self, word: &str) -> bool {
        let mut heard = vec![0; word.len()];
        let sent = self.near.write_all(word.as_bytes());
        sent.is_ok() && self.far.read_exact(&mut heard).is_ok() && heard == word.as_bytes()
    }
}
