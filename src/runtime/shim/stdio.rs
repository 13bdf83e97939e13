//! The streams of one process: its pipes or terminal on one side, any number of clients and a log on the other.
//!
//! ```text
//!   process stdout/stderr ──> pipe ──┬──> log
//!                         or console ├──> client 1   framed unless a terminal; bounded queue
//!                                    └──> client n
//!   process stdin  <── pipe or console <── bounded queue <── client input, detach keys taken out
//! ```
//!
//! Nothing here blocks, except a write to the log's disk. A log's receiver that falls behind holds output up as a
//! client does, for a shorter time. Client sockets are used with MSG_DONTWAIT and keep
//! their flags: the daemon may hold the same open file.
//!
//! A client here is the daemon's end of somebody's connection. It takes whatever comes and keeps what that
//! somebody does not read (`daemon::containers::backlog`), so a queue fills only while the daemon is short of
//! processor or disk; output is not read meanwhile, as in a pipe. A daemon that takes nothing at all for
//! [`CLIENT_PATIENCE`] is stopped or hangs: its client is cut off. Nothing that was queued is lost when the
//! process ends.
//!
//! A client stays until it hangs up, is cut off, detaches, or the process has ended and its output is
//! delivered ([`Stdio::close_clients`]). A client's end of input closes a pipe for good when `stdin_once`;
//! a terminal has no end of input.
//!
//! Stays whole: one state machine over all streams of a process.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::detach::DetachKeys;
use super::log::entry::Moment;
use super::log::{Log, Part, Stream};
use super::protocol::Client;
use crate::runtime::LogMark;

/// Output a client may leave unread, beyond its socket's buffer, before the process has to wait for it.
pub const CLIENT_QUEUE_BYTES: usize = 256 * 1024;
/// How long a process waits for a daemon that takes nothing: longer than the daemon waits for its client.
pub const CLIENT_PATIENCE: Duration = Duration::from_secs(30);
/// The most that is read from a pipe when it is given up: more than its buffer holds.
const LAST_READ_BYTES: usize = 1024 * 1024;
/// Input held for a process that does not read; more stays in the clients' sockets.
const INPUT_QUEUE_BYTES: usize = 64 * 1024;
/// Read at once from anything; also the largest frame.
pub const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks taken from one source before the others get their turn.
const CHUNKS_PER_TURN: usize = 8;
/// A console whose last slave was closed says so until one is opened: ask again only this often.
const CONSOLE_REST: Duration = Duration::from_millis(50);

/// Where something is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Output(Stream),
    Console,
    Stdin,
    Client(u32),
    Log(Part),
}

/// What handling a port led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Nothing,
    /// A client typed the detach keys.
    Detached,
}

/// The process's ends, ours.
#[derive(Debug)]
pub enum Ends {
    /// Read ends of output, write end of input; non-blocking.
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    /// The master; non-blocking.
    Console(OwnedFd),
}

/// One process's streams.
#[derive(Debug)]
pub struct Stdio {
    outputs: [Option<OwnedFd>; 2],
    stdin: Option<OwnedFd>,
    console: Option<OwnedFd>,
    console_rests_until: Option<Instant>,
    terminal: bool,
    stdin_once: bool,
    close_stdin_when_written: bool,
    input: Queue,
    clients: Vec<Attached>,
    next_client: u32,
    log: Option<Log>,
}

#[derive(Debug)]
struct Attached {
    number: u32,
    stream: OwnedFd,
    wants: Client,
    keys: DetachKeys,
    /// Input is still to be read.
    reading: bool,
    queue: Queue,
    /// The queue is full, and this is when the client last took some of it.
    full_since: Option<Instant>,
    /// It hung up, and its last input waits for room.
    has_left: bool,
}

/// Bytes waiting to be written.
#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    start: usize,
}

impl Queue {
    fn waiting(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start >= self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn written(&mut self, bytes: usize) {
        self.start += bytes;
        if self.is_empty() {
            // An idle container should cost nothing.
            *self = Queue::default();
        }
    }
}

impl Stdio {
    /// Streams without a process yet; clients may already be added.
    pub fn new(terminal: bool, stdin_once: bool, log: Option<Log>) -> Stdio {
        Stdio {
            outputs: [None, None],
            stdin: None,
            console: None,
            console_rests_until: None,
            terminal,
            stdin_once,
            close_stdin_when_written: false,
            input: Queue::default(),
            clients: Vec::new(),
            next_client: 0,
            log,
        }
    }

    /// Joins the process's ends.
    pub fn connect(&mut self, ends: Ends) {
        match ends {
            Ends::Pipes { stdin, stdout, stderr } => {
                self.outputs = [Some(stdout), Some(stderr)];
                self.stdin = stdin;
            }
            Ends::Console(master) => self.console = Some(master),
        }
    }

    /// Adds a client. One that reads the log gets the unfinished lines, which are not in it, and everything
    /// that is read from the process after the place that is given.
    pub fn attach(&mut self, wants: Client, stream: OwnedFd) -> Option<LogMark> {
        let keys = if self.terminal { wants.detach_keys.clone() } else { Vec::new() };
        let reading = wants.stdin;
        let mut client = Attached {
            number: self.next_client,
            stream,
            wants,
            keys: DetachKeys::new(keys),
            reading,
            queue: Queue::default(),
            full_since: None,
            has_left: false,
        };
        self.next_client = self.next_client.wrapping_add(1);
        let log = self.log.as_ref().filter(|_| client.wants.reads_log);
        for stream in [Stream::Stdout, Stream::Stderr] {
            let unfinished = log.map_or(&[][..], |log| log.unfinished(stream));
            if !unfinished.is_empty() && client.wants(stream) {
                // A client that is gone already is noticed like any other.
                let _ = client.output(stream, unfinished, !self.terminal);
            }
        }
        self.clients.push(client);
        log.and_then(Log::mark)
    }

    /// The terminal, if the process has one.
    pub fn console(&self) -> Option<BorrowedFd<'_>> {
        self.console.as_ref().map(AsFd::as_fd)
    }

    /// Our ends of the pipes that stand for fds 0, 1, 2.
    pub fn pipes(&self) -> [Option<BorrowedFd<'_>>; 3] {
        [&self.stdin, &self.outputs[0], &self.outputs[1]].map(|end| end.as_ref().map(AsFd::as_fd))
    }

    /// What to wait for, and on which descriptors.
    pub fn register<'a>(&'a self, now: Instant, mut add: impl FnMut(BorrowedFd<'a>, PollFlags, Port)) {
        let held_up = self.is_held_up();
        for (end, stream) in self.outputs.iter().zip([Stream::Stdout, Stream::Stderr]) {
            if let Some(end) = end
                && !held_up
            {
                add(end.as_fd(), PollFlags::IN, Port::Output(stream));
            }
        }
        if let Some(console) = &self.console
            && self.console_rests_until.is_none_or(|until| until <= now)
        {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, !held_up);
            flags.set(PollFlags::OUT, !self.input.is_empty());
            if !flags.is_empty() {
                add(console.as_fd(), flags, Port::Console);
            }
        }
        if let Some(stdin) = &self.stdin
            && !self.input.is_empty()
        {
            add(stdin.as_fd(), PollFlags::OUT, Port::Stdin);
        }
        if let Some(log) = &self.log {
            log.register(|fd, flags, part| add(fd, flags, Port::Log(part)));
        }
        for client in &self.clients {
            // No flags still tells of a peer that is gone, once: its input may have to wait for room.
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, client.reading && self.has_room());
            flags.set(PollFlags::OUT, !client.queue.is_empty());
            if !(flags.is_empty() && client.has_left) {
                add(client.stream.as_fd(), flags, Port::Client(client.number));
            }
        }
    }

    /// When to look again though nothing is ready.
    pub fn deadline(&self) -> Option<Instant> {
        let patience = self.clients.iter().filter_map(|client| client.full_since);
        let log = self.log.as_ref().and_then(Log::deadline);
        patience.map(|since| since + CLIENT_PATIENCE).chain(self.console_rests_until).chain(log).min()
    }

    /// Whether output must wait for a client, or the log's receiver, that has fallen behind.
    fn is_held_up(&self) -> bool {
        self.log.as_ref().is_some_and(Log::is_full)
            || self.clients.iter().any(|client| client.full_since.is_some())
    }

    /// Cuts off clients that have held the process up for too long; does what is due for the log.
    pub fn tend(&mut self, now: Instant) {
        if let Some(log) = &mut self.log {
            log.tend(now);
        }
        while let Some(at) = self
            .clients
            .iter()
            .position(|client| client.full_since.is_some_and(|since| now >= since + CLIENT_PATIENCE))
        {
            self.drop_client(at);
        }
    }

    /// Whether clients' input may be read: there is a process, and it has not fallen behind.
    fn has_room(&self) -> bool {
        let connected =
            self.console.is_some() || self.outputs.iter().any(Option::is_some) || self.stdin.is_some();
        connected && self.input.waiting().len() < INPUT_QUEUE_BYTES
    }

    /// Whether every byte of output has been read, and none can come.
    pub fn output_ended(&self) -> bool {
        self.console.is_none() && self.outputs.iter().all(Option::is_none)
    }

    /// Whether the log has nothing left to send.
    pub fn is_logged(&self) -> bool {
        self.log.as_ref().is_none_or(Log::is_idle)
    }

    /// Handles a port that poll found ready.
    pub fn ready(&mut self, port: Port, flags: PollFlags, buffer: &mut [u8; CHUNK_BYTES]) -> Outcome {
        match port {
            Port::Output(stream) => self.read_output(stream, buffer),
            Port::Console => {
                if flags.contains(PollFlags::OUT) {
                    self.write_input();
                }
                if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    self.read_console(buffer);
                }
            }
            Port::Stdin => self.write_input(),
            Port::Log(part) => {
                if let Some(log) = &mut self.log {
                    log.ready(part, flags);
                }
            }
            Port::Client(number) => return self.client_ready(number, flags, buffer),
        }
        Outcome::Nothing
    }

    fn read_output(&mut self, stream: Stream, buffer: &mut [u8; CHUNK_BYTES]) {
        for _ in 0..CHUNKS_PER_TURN {
            if self.is_held_up() {
                return;
            }
            let Some(end) = &self.outputs[stream as usize] else { return };
            match rustix::io::read(end, &mut buffer[..]) {
                Ok(0) => {
                    self.outputs[stream as usize] = None;
                    if let Some(log) = &mut self.log {
                        log.finish(stream, &Moment::now());
                    }
                }
                Ok(bytes) => self.deliver(stream, &buffer[..bytes]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.outputs[stream as usize] = None,
            }
        }
    }

    fn read_console(&mut self, buffer: &mut [u8; CHUNK_BYTES]) {
        self.console_rests_until = None;
        for _ in 0..CHUNKS_PER_TURN {
            if self.is_held_up() {
                return;
            }
            let Some(console) = &self.console else { return };
            match rustix::io::read(console, &mut buffer[..]) {
                Ok(bytes) if bytes > 0 => self.deliver(Stream::Stdout, &buffer[..bytes]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // EIO: no slave is open now. The process may open /dev/console again while it lives.
                _ => {
                    self.console_rests_until = Some(Instant::now() + CONSOLE_REST);
                    return;
                }
            }
        }
    }

    /// Reads what is left after the process has ended. A console no slave holds open has nothing more to
    /// say, and is closed.
    pub fn drain_ended_process(&mut self, buffer: &mut [u8; CHUNK_BYTES]) {
        self.stdin = None;
        self.input = Queue::default();
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.read_output(stream, buffer);
        }
        if self.console.is_some() {
            self.read_console(buffer);
            if self.console_rests_until.is_some() {
                self.end_output(buffer);
            }
        }
    }

    /// Reads what a process that stands still has said so far, for the log and the clients.
    pub fn drain_frozen(&mut self, buffer: &mut [u8; CHUNK_BYTES]) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.read_rest(stream, buffer);
        }
        if self.console.is_some() {
            self.read_console(buffer);
        }
    }

    /// Gives up waiting for output. What the pipes hold now is still read, for the log and the clients.
    pub fn end_output(&mut self, buffer: &mut [u8; CHUNK_BYTES]) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.read_rest(stream, buffer);
        }
        self.console = None;
        self.console_rests_until = None;
        self.outputs = [None, None];
        if let Some(log) = &mut self.log {
            let now = Moment::now();
            log.finish(Stream::Stdout, &now);
            log.finish(Stream::Stderr, &now);
        }
    }

    /// Reads what a pipe holds, held up or not.
    fn read_rest(&mut self, stream: Stream, buffer: &mut [u8; CHUNK_BYTES]) {
        let mut left = LAST_READ_BYTES;
        while let Some(end) = &self.outputs[stream as usize]
            && left > 0
        {
            match rustix::io::read(end, &mut buffer[..]) {
                Ok(bytes) if bytes > 0 => {
                    left = left.saturating_sub(bytes);
                    self.deliver(stream, &buffer[..bytes]);
                }
                Err(Errno::INTR) => {}
                _ => break,
            }
        }
    }

    fn deliver(&mut self, stream: Stream, chunk: &[u8]) {
        if let Some(log) = &mut self.log {
            log.write(stream, chunk, &Moment::now());
        }
        let terminal = self.terminal;
        self.clients
            .retain_mut(|client| !client.wants(stream) || client.output(stream, chunk, !terminal).is_ok());
    }

    fn client_ready(&mut self, number: u32, flags: PollFlags, buffer: &mut [u8; CHUNK_BYTES]) -> Outcome {
        let Some(at) = self.clients.iter().position(|client| client.number == number) else {
            return Outcome::Nothing;
        };
        let room = self.has_room();
        let client = &mut self.clients[at];
        let hung_up = flags.intersects(PollFlags::HUP | PollFlags::ERR);
        if flags.contains(PollFlags::OUT) && client.flush().is_err() {
            self.drop_client(at);
            return Outcome::Nothing;
        }
        if client.reading && room && (hung_up || flags.contains(PollFlags::IN)) {
            let got = rustix::net::recv(&client.stream, &mut buffer[..], RecvFlags::DONTWAIT);
            match got.map(|(_, bytes)| bytes) {
                Ok(0) => {
                    client.reading = false;
                    self.client_input_ended();
                    if hung_up {
                        self.drop_client(at);
                    }
                }
                Ok(bytes) => {
                    let mut passed = Vec::new();
                    let detached = client.keys.pass(&buffer[..bytes], &mut passed);
                    self.take_input(&passed);
                    if detached {
                        self.clients.remove(at);
                        return Outcome::Detached;
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => self.drop_client(at),
            }
        } else if hung_up {
            // A process that does not read its input must not keep the descriptors of clients long gone.
            client.has_left = client.reading && client.has_sent();
            if !client.has_left {
                self.drop_client(at);
            }
        }
        Outcome::Nothing
    }

    fn drop_client(&mut self, at: usize) {
        if self.clients.remove(at).reading {
            self.client_input_ended();
        }
    }

    fn client_input_ended(&mut self) {
        if self.stdin_once && !self.terminal {
            self.close_stdin();
        }
    }

    /// Closes the process's standard input once what was sent has been written. A terminal stays open.
    fn close_stdin(&mut self) {
        self.close_stdin_when_written = true;
        self.write_input();
    }

    fn take_input(&mut self, bytes: &[u8]) {
        if (self.stdin.is_some() || self.console.is_some()) && !self.close_stdin_when_written {
            self.input.push(bytes);
            self.write_input();
        }
    }

    fn write_input(&mut self) {
        while !self.input.is_empty() {
            let Some(end) = self.console.as_ref().or(self.stdin.as_ref()) else {
                self.input = Queue::default();
                break;
            };
            match rustix::io::write(end, self.input.waiting()) {
                Ok(bytes) => self.input.written(bytes),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // EPIPE: the process reads no more. Clients are still heard, for their detach keys.
                Err(_) => {
                    self.stdin = None;
                    self.input = Queue::default();
                }
            }
        }
        if self.close_stdin_when_written {
            self.stdin = None;
        }
    }

    /// Hands every client what it is owed, then hangs up. Does not wait: what a client has not taken yet goes
    /// into its socket's buffer, made large enough, where it outlives this process.
    pub fn close_clients(&mut self) {
        for client in &mut self.clients {
            if client.flush().is_ok() && !client.queue.is_empty() {
                // What is in the buffer now, what is queued, and the kernel's bookkeeping for both.
                let held = rustix::net::sockopt::socket_send_buffer_size(&client.stream).unwrap_or_default();
                let room = 2 * (held + client.queue.waiting().len());
                let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&client.stream, room);
                let _ = client.flush();
            }
        }
        self.clients.clear();
    }
}

/// The client cannot be served any longer.
#[derive(Debug)]
struct CutOff;

impl Attached {
    fn wants(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.wants.stdout,
            Stream::Stderr => self.wants.stderr,
        }
    }

    /// Whether the peer has sent something that is not received yet.
    fn has_sent(&self) -> bool {
        let peek = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        matches!(rustix::net::recv(&self.stream, &mut [0_u8; 1][..], peek), Ok((_, bytes)) if bytes > 0)
    }

    fn output(&mut self, stream: Stream, chunk: &[u8], framed: bool) -> Result<(), CutOff> {
        let length = (chunk.len() as u32).to_be_bytes();
        let number = match stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        };
        let header = [number, 0, 0, 0, length[0], length[1], length[2], length[3]];
        let header = if framed { &header[..] } else { &[] };
        let mut sent = 0;
        if self.queue.is_empty() {
            let parts = [IoSlice::new(header), IoSlice::new(chunk)];
            sent = match rustix::io::retry_on_intr(|| {
                rustix::net::sendmsg(
                    &self.stream,
                    &parts,
                    &mut rustix::net::SendAncillaryBuffer::default(),
                    SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
                )
            }) {
                Ok(sent) => sent,
                Err(Errno::AGAIN) => 0,
                Err(_) => return self.output_refused(),
            };
        }
        if sent < header.len() {
            self.queue.push(&header[sent..]);
            sent = header.len();
        }
        self.queue.push(&chunk[sent - header.len()..]);
        if self.queue.is_empty() {
            self.queue = Queue::default();
        }
        if self.queue.waiting().len() >= CLIENT_QUEUE_BYTES {
            self.full_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// The peer takes no more output; one that shut only its reading side may still send input.
    fn output_refused(&mut self) -> Result<(), CutOff> {
        self.queue = Queue::default();
        self.full_since = None;
        if !self.reading {
            return Err(CutOff);
        }
        self.wants.stdout = false;
        self.wants.stderr = false;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), CutOff> {
        while !self.queue.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.stream, self.queue.waiting(), flags) {
                Ok(bytes) => {
                    self.queue.written(bytes);
                    let is_full = self.queue.waiting().len() >= CLIENT_QUEUE_BYTES;
                    self.full_since = is_full.then(Instant::now);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(_) => return self.output_refused(),
            }
        }
        Ok(())
    }
}

/// Now, in UTC, RFC 3339 with nine fractional digits.
pub fn timestamp() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    struct Process {
        stdin: std::fs::File,
        stdout: Option<std::fs::File>,
        stderr: Option<std::fs::File>,
    }

    fn piped(stdin_once: bool) -> (Stdio, Process) {
        let pipe = || pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let (child_in, stdin) = pipe();
        let (stdout, child_out) = pipe();
        let (stderr, child_err) = pipe();
        let mut stdio = Stdio::new(false, stdin_once, None);
        stdio.connect(Ends::Pipes { stdin: Some(stdin), stdout, stderr });
        let process = Process {
            stdin: child_in.into(),
            stdout: Some(child_out.into()),
            stderr: Some(child_err.into()),
        };
        (stdio, process)
    }

    fn client(stdio: &mut Stdio) -> UnixStream {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let wants =
            Client { stdin: true, stdout: true, stderr: true, detach_keys: vec![16, 17], reads_log: false };
        stdio.attach(wants, theirs);
        ours.into()
    }

    /// One turn of the shim's loop. Returns whether a client detached.
    fn turn(stdio: &mut Stdio) -> bool {
        let mut ports = Vec::new();
        let mut fds = Vec::new();
        stdio.register(Instant::now(), |fd, flags, port| {
            fds.push(rustix::event::PollFd::from_borrowed_fd(fd, flags));
            ports.push(port);
        });
        let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        rustix::event::poll(&mut fds, Some(&wait)).unwrap();
        let ready: Vec<_> = fds.iter().map(|fd| fd.revents()).zip(ports).collect();
        let mut buffer = [0; CHUNK_BYTES];
        let ready = ready.into_iter().filter(|(flags, _)| !flags.is_empty());
        ready.fold(false, |seen, (flags, port)| {
            stdio.ready(port, flags, &mut buffer) == Outcome::Detached || seen
        })
    }

    #[test]
    fn output_is_framed_and_copied_to_every_client() {
        let (mut stdio, mut process) = piped(false);
        let mut clients = [client(&mut stdio), client(&mut stdio)];
        process.stdout.as_mut().unwrap().write_all(b"out").unwrap();
        turn(&mut stdio);
        process.stderr.as_mut().unwrap().write_all(b"oops").unwrap();
        turn(&mut stdio);
        for client in &mut clients {
            let mut got = [0; 23];
            client.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x04oops");
        }
        process.stdout = None;
        process.stderr = None;
        turn(&mut stdio);
        assert!(stdio.output_ended());
        stdio.close_clients();
        assert_eq!(clients[0].read(&mut [0; 1]).unwrap(), 0);
    }

    /// Writes until the process would have to wait; gives what was written.
    fn fill(stdio: &mut Stdio, out: &mut std::fs::File) -> usize {
        let mut written = 0;
        let mut idle = 0;
        while idle < 3 {
            match out.write(&[b'x'; 4096]) {
                Ok(bytes) => {
                    written += bytes;
                    idle = 0;
                }
                Err(_) => idle += 1,
            }
            turn(stdio);
        }
        written
    }

    #[test]
    fn a_stalled_client_holds_the_process_up_and_is_then_cut_off() {
        let (mut stdio, mut process) = piped(false);
        let stalled = client(&mut stdio);
        let mut reader = client(&mut stdio);
        reader.set_nonblocking(true).unwrap();
        let mut received = 0;
        let mut drain = |reader: &mut UnixStream| {
            let mut buffer = [0; 65536];
            while let Ok(bytes) = reader.read(&mut buffer) {
                received += bytes;
            }
            received
        };
        let out = process.stdout.as_mut().unwrap();
        let mut written = 0;
        while stdio.clients[0].full_since.is_none() {
            written += out.write(&[b'x'; 4096]).unwrap();
            turn(&mut stdio);
            drain(&mut reader);
        }
        written += fill(&mut stdio, out);
        assert!(written < 4 * CLIENT_QUEUE_BYTES, "{written} bytes past a client that reads nothing");
        let now = Instant::now();
        stdio.tend(now);
        assert_eq!(stdio.clients.len(), 2, "there is patience");
        assert!(stdio.deadline().is_some_and(|at| at > now));
        stdio.tend(now + CLIENT_PATIENCE);
        assert_eq!(stdio.clients.len(), 1, "the stalled client is gone, the other is not");
        for _ in 0..20 {
            turn(&mut stdio);
            drain(&mut reader);
        }
        assert!(drain(&mut reader) >= written);
        drop(stalled);
    }

    #[test]
    fn what_is_queued_when_the_process_ends_is_still_delivered() {
        let (mut stdio, mut process) = piped(false);
        let mut slow = client(&mut stdio);
        let mut out = process.stdout.take().unwrap();
        let written = fill(&mut stdio, &mut out);
        assert!(written >= CLIENT_QUEUE_BYTES);
        drop(out);
        process.stderr = None;
        let mut buffer = [0; CHUNK_BYTES];
        stdio.drain_ended_process(&mut buffer);
        assert!(!stdio.output_ended(), "it is held up");
        stdio.end_output(&mut buffer);
        stdio.close_clients();
        drop(stdio);
        let mut got = Vec::new();
        slow.read_to_end(&mut got).unwrap();
        assert_eq!(got.iter().filter(|byte| **byte == b'x').count(), written);
    }

    /// The descriptors of such clients used to stay for as long as the process did not read.
    #[test]
    fn clients_that_leave_a_process_that_does_not_read_are_forgotten() {
        let (mut stdio, _process) = piped(false);
        let typing = client(&mut stdio);
        typing.set_nonblocking(true).unwrap();
        while (&typing).write(&[b'x'; 4096]).is_ok() || stdio.has_room() {
            turn(&mut stdio);
        }
        drop(client(&mut stdio));
        turn(&mut stdio);
        assert_eq!(stdio.clients.len(), 1, "one had nothing to say, the other is still there");
        drop(typing);
        turn(&mut stdio);
        assert!(stdio.clients[0].has_left, "what it said last waits for room");
        let mut polled = 0;
        stdio.register(Instant::now(), |_, _, port| polled += usize::from(matches!(port, Port::Client(_))));
        assert_eq!(polled, 0, "and costs nothing meanwhile");
    }

    #[test]
    fn a_client_that_reads_the_log_gets_what_is_not_in_it() {
        let path = std::env::temp_dir().join(format!("dewar-stdio-{}.log", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let config = crate::runtime::LogFile::at(path.clone());
        let (mut stdio, mut process) = piped(false);
        stdio.log = Some(Log::open(Some(config), None).unwrap());
        process.stdout.as_mut().unwrap().write_all(b"line\n$ ").unwrap();
        turn(&mut stdio);
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let wants = Client { stdout: true, reads_log: true, ..Client::default() };
        let mark = stdio.attach(wants, theirs).unwrap();
        assert_eq!(mark.bytes, std::fs::metadata(&path).unwrap().len());
        let mut got = [0; 10];
        UnixStream::from(ours).read_exact(&mut got).unwrap();
        assert_eq!(&got, b"\x01\0\0\0\0\0\0\x02$ ");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn stdin_once_closes_at_the_first_clients_end() {
        let (mut stdio, mut process) = piped(true);
        let mut typing = client(&mut stdio);
        typing.write_all(b"hello").unwrap();
        typing.shutdown(std::net::Shutdown::Write).unwrap();
        turn(&mut stdio);
        turn(&mut stdio);
        let mut text = String::new();
        process.stdin.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        process.stdout.as_mut().unwrap().write_all(b"still heard").unwrap();
        turn(&mut stdio);
        let mut got = [0; 19];
        typing.read_exact(&mut got).unwrap();
    }

    #[test]
    fn stdin_stays_open_for_the_next_client_otherwise() {
        let (mut stdio, mut process) = piped(false);
        drop(client(&mut stdio));
        turn(&mut stdio);
        assert!(stdio.clients.is_empty());
        client(&mut stdio).write_all(b"again").unwrap();
        turn(&mut stdio);
        let mut got = [0; 5];
        process.stdin.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"again");
    }

    #[test]
    fn input_beyond_the_pipe_waits_and_arrives() {
        let (mut stdio, mut process) = piped(true);
        let typing = client(&mut stdio);
        let text: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
        let expected = text.clone();
        let writer = std::thread::spawn(move || {
            let mut typing = typing;
            typing.write_all(&text).unwrap();
        });
        let mut got = Vec::new();
        let mut buffer = [0; 8192];
        loop {
            turn(&mut stdio);
            match process.stdin.read(&mut buffer) {
                Ok(0) => break,
                Ok(bytes) => got.extend_from_slice(&buffer[..bytes]),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
            assert!(stdio.input.waiting().len() <= INPUT_QUEUE_BYTES + CHUNK_BYTES);
        }
        writer.join().unwrap();
        assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
    }

    #[test]
    fn detach_keys_work_on_a_terminal_only() {
        let (mut stdio, _process) = piped(false);
        let mut typing = client(&mut stdio);
        typing.write_all(&[16, 17]).unwrap();
        assert!(!turn(&mut stdio));
        stdio.terminal = true;
        let mut typing = client(&mut stdio);
        typing.write_all(&[16, 17]).unwrap();
        assert!(turn(&mut stdio));
        assert_eq!(typing.read(&mut [0; 1]).unwrap(), 0);
    }
}
