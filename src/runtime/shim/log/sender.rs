//! Messages on their way to a syslog server or to the journal.
//!
//! ```text
//!   push ──> queue ──> socket          whole messages; on a stream the first may be written in part
//!              │ full: blocking mode asks the container to wait, at most PATIENCE; then, and in
//!              │       non-blocking mode at once, what comes is lost and counted
//!   refused, hung up: the socket is closed; connected again after a pause that doubles
//! ```
//!
//! Nothing here blocks but the first connection, which has [`CONNECT_PATIENCE`]: a start is refused when there is no
//! receiver. Later ones may come and go: what is queued is sent to the next, and how much was lost is said first.
//! A message that was written in part when its connection broke is sent again whole.
//!
//! Datagrams are one message each. UDP knows no loss, so there is none to count.
//!
//! Not here: what a message looks like (`message`).

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::Stream;
use super::entry::{Entry, Moment};
use super::message;
use crate::runtime::{LogAddress, LogRemote};

/// How long a container waits for a receiver that takes nothing.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long a start waits for the first connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Between attempts to connect: the first pause and the longest.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What a message costs beside its bytes.
const MESSAGE_BYTES: usize = 32;

/// Sends one container's messages.
#[derive(Debug)]
pub struct Sender {
    remote: LogRemote,
    link: Link,
    queue: VecDeque<Vec<u8>>,
    /// Of the messages in the queue.
    bytes: usize,
    /// Of the first message, on a stream.
    written: usize,
    /// The queue is full, and the container waits since then.
    full_since: Option<Instant>,
    /// The container has waited long enough; cleared when something is taken again.
    has_given_up: bool,
    lost: u64,
    count: u64,
    pause: Duration,
    /// Which of several addresses is next.
    turn: usize,
    /// Of the current connection: without the bounds of messages.
    is_stream: bool,
}

#[derive(Debug)]
enum Link {
    Up(OwnedFd),
    /// A stream's connection is being made.
    Rising(OwnedFd),
    /// Not before this.
    Down(Instant),
}

impl Sender {
    /// Connects. Blocks at most [`CONNECT_PATIENCE`].
    ///
    /// # Errors
    /// There is no receiver.
    pub fn open(remote: LogRemote) -> io::Result<Sender> {
        let mut sender = Sender {
            remote,
            link: Link::Down(Instant::now()),
            queue: VecDeque::new(),
            bytes: 0,
            written: 0,
            full_since: None,
            has_given_up: false,
            lost: 0,
            count: 0,
            pause: PAUSE,
            turn: 0,
            is_stream: false,
        };
        sender.connect()?;
        if let Link::Rising(socket) = &sender.link {
            let mut fds = [PollFd::new(socket, PollFlags::OUT)];
            let wait = Timespec { tv_sec: CONNECT_PATIENCE.as_secs() as i64, tv_nsec: 0 };
            if rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&wait)))? == 0 {
                return Err(Errno::TIMEDOUT.into());
            }
            sockopt::socket_error(socket)??;
            sender.risen();
        }
        Ok(sender)
    }

    /// Takes an entry.
    pub fn push(&mut self, entry: &Entry<'_>) {
        self.count += 1;
        let message = message::encode(&self.remote.form, entry, self.count);
        // The first is always taken: it may be larger than the whole buffer.
        if !self.queue.is_empty() && self.bytes + message.len() > self.limit_with_reserve() {
            self.lost += 1;
            return;
        }
        self.bytes += message.len() + MESSAGE_BYTES;
        self.queue.push_back(message);
        self.flush();
        if self.remote.is_blocking && !self.has_given_up && self.bytes >= self.remote.buffer_bytes {
            self.full_since.get_or_insert_with(Instant::now);
        }
    }

    /// In blocking mode the container is asked to wait at the limit; what it had written by then has room.
    fn limit_with_reserve(&self) -> usize {
        match self.remote.is_blocking && !self.has_given_up {
            true => self.remote.buffer_bytes.saturating_mul(2).saturating_add(1 << 20),
            false => self.remote.buffer_bytes,
        }
    }

    /// Whether the container is to wait.
    pub fn is_full(&self) -> bool {
        self.full_since.is_some()
    }

    /// Whether nothing is left to be sent.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// What to wait for.
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let (socket, mut flags) = match &self.link {
            // A stream's end is seen at once, not with the first message that is lost by it.
            Link::Up(socket) if self.is_stream => (socket, PollFlags::IN),
            Link::Up(socket) => (socket, PollFlags::empty()),
            Link::Rising(socket) => (socket, PollFlags::OUT),
            Link::Down(_) => return None,
        };
        flags.set(PollFlags::OUT, flags.contains(PollFlags::OUT) || !self.queue.is_empty());
        (!flags.is_empty()).then(|| (socket.as_fd(), flags))
    }

    /// When to look again though nothing is ready.
    pub fn deadline(&self) -> Option<Instant> {
        let retry = match &self.link {
            Link::Down(until) if !self.queue.is_empty() => Some(*until),
            _ => None,
        };
        retry.into_iter().chain(self.full_since.map(|since| since + PATIENCE)).min()
    }

    /// Does what is due.
    pub fn tend(&mut self, now: Instant) {
        if self.full_since.is_some_and(|since| now >= since + PATIENCE) {
            self.full_since = None;
            self.has_given_up = true;
        }
        if let Link::Down(until) = self.link
            && now >= until
            && !self.queue.is_empty()
        {
            match self.connect() {
                Ok(()) if matches!(self.link, Link::Up(_)) => self.risen(),
                Ok(()) => {}
                Err(_) => self.fall(),
            }
        }
    }

    /// Handles what poll found.
    pub fn ready(&mut self, flags: PollFlags) {
        match std::mem::replace(&mut self.link, Link::Down(Instant::now())) {
            Link::Rising(socket) => match sockopt::socket_error(&socket) {
                Ok(Ok(())) => {
                    self.link = Link::Rising(socket);
                    self.risen();
                }
                _ => self.fall(),
            },
            Link::Up(socket) => {
                let has_hung_up = self.is_stream
                    && flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
                    && has_ended(&socket);
                self.link = Link::Up(socket);
                if has_hung_up {
                    self.fall();
                } else {
                    self.flush();
                }
            }
            down @ Link::Down(_) => self.link = down,
        }
    }

    /// The connection is there.
    fn risen(&mut self) {
        self.link = match std::mem::replace(&mut self.link, Link::Down(Instant::now())) {
            Link::Rising(socket) => Link::Up(socket),
            other => other,
        };
        self.written = 0;
        self.flush();
    }

    /// The connection broke, or could not be made.
    fn fall(&mut self) {
        self.link = Link::Down(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.written = 0;
    }

    fn flush(&mut self) {
        loop {
            let Link::Up(socket) = &self.link else { return };
            let Some(message) = self.queue.front() else {
                // An idle container should cost nothing.
                self.queue = VecDeque::new();
                return;
            };
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(socket, &message[self.written..], flags) {
                Ok(sent) => {
                    self.written += sent;
                    self.pause = PAUSE;
                    if self.written >= message.len() || !self.is_stream {
                        self.taken();
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => return,
                // Larger than the receiver's kind of socket takes at all.
                Err(Errno::MSGSIZE) => {
                    self.lost += 1;
                    self.taken();
                }
                // UDP tells of a datagram before this one, and by that has forgotten it.
                Err(Errno::CONNREFUSED) if matches!(self.remote.address, LogAddress::Udp(_)) => {}
                Err(_) => self.fall(),
            }
        }
    }

    /// The first message is gone.
    fn taken(&mut self) {
        self.written = 0;
        if let Some(message) = self.queue.pop_front() {
            self.bytes = self.bytes.saturating_sub(message.len() + MESSAGE_BYTES);
        }
        if self.bytes < self.remote.buffer_bytes {
            self.full_since = None;
            self.has_given_up = false;
        } else if self.full_since.is_some() {
            self.full_since = Some(Instant::now());
        }
        if self.lost > 0 && self.bytes < self.remote.buffer_bytes / 2 {
            let lost = std::mem::take(&mut self.lost);
            let text = format!("{lost} messages of this container were lost: nobody took them");
            let entry =
                Entry { stream: Stream::Stderr, text: text.as_bytes(), partial: None, time: &Moment::now() };
            self.count += 1;
            let message = message::encode(&self.remote.form, &entry, self.count);
            self.bytes += message.len() + MESSAGE_BYTES;
            self.queue.push_back(message);
        }
    }

    /// Begins a connection to the next of the addresses.
    fn connect(&mut self) -> io::Result<()> {
        let turn = self.turn;
        self.turn = turn.wrapping_add(1);
        let link = match &self.remote.address {
            LogAddress::Unix(path) => connect_unix(path, SocketType::STREAM),
            LogAddress::UnixDatagram(path) => connect_unix(path, SocketType::DGRAM),
            LogAddress::Local(paths) => {
                let mut links = paths.iter().map(|path| connect_unix(path, SocketType::DGRAM));
                let nowhere = || Err(io::ErrorKind::NotFound.into());
                links.find(Result::is_ok).unwrap_or_else(nowhere)
            }
            LogAddress::Udp(addresses) => connect_inet(addresses, turn, SocketType::DGRAM),
            LogAddress::Tcp(addresses) => connect_inet(addresses, turn, SocketType::STREAM),
        }?;
        if let Link::Up(socket) | Link::Rising(socket) = &link {
            self.is_stream = sockopt::socket_type(socket)? == SocketType::STREAM;
        }
        self.link = link;
        Ok(())
    }
}

/// Connects to a socket of either kind, the given one first: who names a path seldom knows its kind.
fn connect_unix(path: &Path, kind: SocketType) -> io::Result<Link> {
    let address = SocketAddrUnix::new(path)?;
    let attempt = |kind| -> rustix::io::Result<Link> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
        rustix::net::connect(&socket, &address)?;
        Ok(Link::Up(socket))
    };
    let other = if kind == SocketType::STREAM { SocketType::DGRAM } else { SocketType::STREAM };
    match attempt(kind) {
        Err(Errno::PROTOTYPE) => Ok(attempt(other)?),
        result => Ok(result?),
    }
}

fn connect_inet(addresses: &[SocketAddr], turn: usize, kind: SocketType) -> io::Result<Link> {
    let Some(address) = addresses.get(turn % addresses.len().max(1)) else {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    };
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    match rustix::net::connect(&socket, address) {
        Ok(()) => Ok(Link::Up(socket)),
        Err(Errno::INPROGRESS) => Ok(Link::Rising(socket)),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether a stream's peer has hung up. What it says is not for us.
fn has_ended(socket: &OwnedFd) -> bool {
    loop {
        match rustix::net::recv(socket, &mut [0_u8; 512][..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return true,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return false,
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{LogForm, SyslogForm};
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::os::unix::net::UnixDatagram;
    use std::path::PathBuf;

    fn remote(address: LogAddress, is_blocking: bool) -> LogRemote {
        let form = LogForm::Syslog {
            facility: 1,
            form: SyslogForm::Unix,
            tag: "t".to_owned(),
            hostname: "h".to_owned(),
        };
        LogRemote { address, form, is_blocking, buffer_bytes: 20_000 }
    }

    fn push(sender: &mut Sender, text: &str) {
        let time = Moment::now();
        sender.push(&Entry { stream: Stream::Stdout, text: text.as_bytes(), partial: None, time: &time });
    }

    fn turn(sender: &mut Sender) {
        let (fd, flags) = match sender.interest() {
            Some((fd, flags)) => (fd.try_clone_to_owned().unwrap(), flags),
            None => {
                std::thread::sleep(Duration::from_millis(5));
                return sender.tend(Instant::now());
            }
        };
        let mut fds = [PollFd::new(&fd, flags)];
        let wait = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        rustix::event::poll(&mut fds, Some(&wait)).unwrap();
        let flags = fds[0].revents();
        if !flags.is_empty() {
            sender.ready(flags);
        }
        sender.tend(Instant::now());
    }

    fn said(line: &str) -> String {
        line.rsplit_once("]: ").expect("a message").1.trim_end().to_owned()
    }

    fn socket_path(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("dewar-sender-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    fn receive(receiver: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 1000];
        let bytes = receiver.recv(&mut buffer).ok()?;
        Some(said(std::str::from_utf8(&buffer[..bytes]).unwrap()))
    }

    #[test]
    fn a_receiver_that_comes_back_gets_what_was_queued() {
        let path = socket_path("back");
        assert!(Sender::open(remote(LogAddress::UnixDatagram(path.clone()), true)).is_err());
        let receiver = UnixDatagram::bind(&path).unwrap();
        // The other kind is named: it is found out.
        let mut sender = Sender::open(remote(LogAddress::Unix(path.clone()), true)).unwrap();
        push(&mut sender, "1");
        assert_eq!(receive(&receiver).unwrap(), "1");
        drop(receiver);
        push(&mut sender, "2");
        push(&mut sender, "3");
        assert!(!sender.is_idle() && sender.deadline().is_some());
        std::fs::remove_file(&path).unwrap();
        let receiver = UnixDatagram::bind(&path).unwrap();
        while !sender.queue.is_empty() {
            turn(&mut sender);
        }
        assert_eq!([receive(&receiver).unwrap(), receive(&receiver).unwrap()], ["2", "3"]);
        assert_eq!(sender.deadline(), None);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_full_buffer_asks_for_a_pause_and_then_counts() {
        let path = socket_path("full");
        let receiver = UnixDatagram::bind(&path).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let mut sender = Sender::open(remote(LogAddress::UnixDatagram(path.clone()), true)).unwrap();
        let mut pushed = 0;
        while !sender.is_full() {
            push(&mut sender, &format!("{pushed}"));
            pushed += 1;
        }
        assert_eq!(sender.lost, 0);
        let since = Instant::now();
        sender.tend(since);
        assert!(sender.is_full());
        sender.tend(since + PATIENCE);
        assert!(!sender.is_full(), "the container goes on");
        push(&mut sender, "lost");
        assert_eq!(sender.lost, 1);
        let mut got = Vec::new();
        while !sender.queue.is_empty() {
            got.extend(std::iter::from_fn(|| receive(&receiver)));
            turn(&mut sender);
        }
        got.extend(std::iter::from_fn(|| receive(&receiver)));
        let numbers: Vec<String> = (0..pushed).map(|number| number.to_string()).collect();
        assert!(got.len() > pushed && got[..pushed] == numbers[..], "{} of {pushed}", got.len());
        assert_eq!(got[pushed..], ["1 messages of this container were lost: nobody took them"]);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn without_blocking_nobody_waits() {
        let path = socket_path("ring");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let mut sender = Sender::open(remote(LogAddress::UnixDatagram(path.clone()), false)).unwrap();
        for _ in 0..2000 {
            push(&mut sender, "x");
            assert!(!sender.is_full());
        }
        assert!(sender.lost > 0 && sender.bytes <= 20_100, "{} {}", sender.lost, sender.bytes);
        drop(receiver);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_stream_is_made_again_and_its_torn_message_repeated() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut sender = Sender::open(remote(LogAddress::Tcp(vec![address]), true)).unwrap();
        let (first, _) = listener.accept().unwrap();
        push(&mut sender, "1");
        let mut line = String::new();
        BufReader::new(&first).read_line(&mut line).unwrap();
        assert_eq!(said(&line), "1");
        drop(first);
        // The end is seen without a message.
        while matches!(sender.link, Link::Up(_)) {
            turn(&mut sender);
        }
        push(&mut sender, "2");
        while !sender.queue.is_empty() {
            turn(&mut sender);
        }
        let (second, _) = listener.accept().unwrap();
        line.clear();
        BufReader::new(second).read_line(&mut line).unwrap();
        assert_eq!(said(&line), "2");
        drop(listener);
        let refused = Sender::open(remote(LogAddress::Tcp(vec![address]), true)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
