//! A server and a client that notice when a connection breaks. This program is static, so it runs in containers, too:
//! there it is started for one of the tests below, which do nothing without being told to.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::support::Daemon;
use crate::support::daemon::BUSYBOX;

/// Where the server listens, over TCP and UDP, IPv4 and IPv6.
pub const PORT: u16 = 7000;
/// Says who is to be played, and with whom.
const ROLE: &str = "DEWAR_TEST_PEER";
const PROGRAM: &str = "/peer";
/// A server that CRIU finds out that it cannot freeze when it is well under way.
pub const UNFREEZABLE: &str = "server with a line to the host";
/// Where the host listens for that, in the container.
pub const OUTSIDE: &str = "/outside";
/// Fills so many MiB, and looks again and again whether they are what it has written.
pub const MEMORY: &str = "memory of ";
/// Longer than a freeze and a thaw take on a loaded machine, and than TCP waits before it says something again.
const PATIENCE: Duration = Duration::from_secs(20);

/// The flags and the command of a container that plays a role: `server`, [`UNFREEZABLE`], or `ADDRESS:PORT` for a
/// client of one.
pub fn command(role: &str) -> Vec<String> {
    let own = std::env::current_exe().expect("a program knows where it is");
    let words = ["-v", &format!("{}:{PROGRAM}:ro", own.display()), "-e", &format!("{ROLE}={role}")];
    let test = ["--exact", "checkpoint::peers::plays_its_role", "--ignored", "--nocapture"];
    let words = words.into_iter().chain([BUSYBOX, PROGRAM]).chain(test);
    words.map(str::to_owned).collect()
}

/// Starts a container that plays a role.
#[track_caller]
pub fn run(daemon: &Daemon, name: &str, flags: &[&str], role: &str) {
    daemon.dewar(&["run", "-d", "--name", name]).args(flags).args(command(role)).ok();
}

#[test]
#[ignore = "runs in the containers of other tests"]
fn plays_its_role() {
    match std::env::var(ROLE) {
        Err(_) => {}
        Ok(role) if role == "server" => serve(),
        Ok(role) if role == UNFREEZABLE => {
            let _line = std::os::unix::net::UnixStream::connect(OUTSIDE).expect("the test listens");
            serve();
        }
        Ok(role) if role.starts_with(MEMORY) => {
            remember(role[MEMORY.len()..].parse().expect("a number"));
        }
        Ok(peer) => ask(peer.parse().expect("an address")),
    }
}

/// Tells `whole` for each time that all of its memory was.
fn remember(mebibytes: usize) {
    let value = |at: usize| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut memory: Vec<u64> = (0..mebibytes << 17).map(value).collect();
    for round in 0.. {
        // A word of each page, another one each time.
        for (page, words) in memory.chunks_mut(512).enumerate() {
            let at = round % words.len();
            if words[at] != value(page * 512 + at) {
                return tell(&format!("broken in page {page}"));
            }
            // So that not all of it is what is in the checkpoint.
            words[at] = value(page * 512 + at);
        }
        tell(&format!("whole {round}"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Counts what each connection says, and talks to itself.
fn serve() {
    let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), PORT);
    let tcp = TcpListener::bind(any).expect("a fresh namespace");
    let udp = UdpSocket::bind(any).expect("a fresh namespace");
    std::thread::spawn(move || {
        let (mut count, mut buffer) = (0, [0; 512]);
        while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
            count += 1;
            let text = format!("{count} {}", String::from_utf8_lossy(&buffer[..length]));
            drop(udp.send_to(text.as_bytes(), peer));
        }
    });
    std::thread::spawn(|| ask(SocketAddr::from(([127, 0, 0, 1], PORT))));
    for stream in tcp.incoming().flatten() {
        std::thread::spawn(move || converse(stream));
    }
}

fn converse(mut stream: TcpStream) {
    let (mut count, mut buffer) = (0, [0; 512]);
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        count += 1;
        let text = format!("{count} {}", String::from_utf8_lossy(&buffer[..length]));
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

/// Talks over one connection for as long as it lasts, then over another; tells of each answer.
fn ask(peer: SocketAddr) {
    loop {
        if let Ok(stream) = TcpStream::connect(peer) {
            let mut line = Line { stream, count: 0 };
            while line.says() {
                tell(&format!("said {}", line.count));
                std::thread::sleep(Duration::from_millis(50));
            }
            tell(&format!("broken after {}", line.count));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Into the container's log.
fn tell(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// A connection to a server.
pub struct Line {
    stream: TcpStream,
    count: u32,
}

impl Line {
    /// Connects and says a first word, from the network of this thread.
    #[track_caller]
    pub fn open(to: &str) -> Line {
        let to: SocketAddr = to.parse().expect("an address");
        let stream =
            TcpStream::connect_timeout(&to, PATIENCE).unwrap_or_else(|cause| panic!("{to}: {cause}"));
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let mut line = Line { stream, count: 0 };
        assert!(line.says(), "nothing is heard from {to}");
        line
    }

    /// Whether the server hears it, as the next word of this connection.
    pub fn says(&mut self) -> bool {
        let mut buffer = [0; 512];
        self.count += 1;
        let expected = format!("{} word", self.count);
        let heard = self.stream.write_all(b"word").and_then(|()| self.stream.read(&mut buffer));
        heard.is_ok_and(|length| buffer[..length] == *expected.as_bytes())
    }
}

/// What a server says to a datagram from the network of this thread: which one it was, and the word.
#[track_caller]
pub fn datagram(to: &str) -> String {
    let to: SocketAddr = to.parse().expect("an address");
    let any: SocketAddr = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }.parse().expect("an address");
    let socket = UdpSocket::bind(any).expect("a free port");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("not zero");
    let mut buffer = [0; 512];
    // Datagrams may be lost.
    for _ in 0..10 {
        socket.send_to(b"word", to).expect("there is a way");
        if let Ok((length, _)) = socket.recv_from(&mut buffer) {
            return String::from_utf8_lossy(&buffer[..length]).into_owned();
        }
    }
    panic!("nothing is heard from {to}")
}
