//! Two streams joined: a client's connection and the shim's end of a process's streams.
//!
//! ```text
//!            replay (the log so far), then
//!   process ──> [encode] ──> backlog (memory, then disk) ──> client     never waits for the client
//!   process <── input, 64 KiB                <── [decode] <── client     waits for the process
//! ```
//!
//! One thread, one poll, nothing blocks but the disk. The directions do not wait for each other: a process that
//! does not read its input still has its output carried.
//!
//! The process waits only for a client that is a whole [`Backlog`] behind; one that then takes nothing for
//! [`PATIENCE`] is cut off. A client that is gone is noticed at once. What it sent last still goes to the
//! process.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::daemon::containers::backlog::Backlog;
use crate::http::hijack::{Hijacked, ReadHalf, WriteHalf};
use crate::http::socket::time_left;

/// What one read takes at most; also what lies on the thread's stack.
const BLOCK: usize = 16 * 1024;
/// Input held for a process that does not read; more stays in the client's socket.
const INPUT_BYTES: usize = 64 * 1024;
/// How long a client that is a whole backlog behind may take nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the client has to take in that time: less would hold the process up for ever.
const PATIENCE_BYTES: usize = 64 * 1024;
/// How long the last input of a client that is gone waits for the process.
const LAST_INPUT: Duration = Duration::from_secs(2);
/// Room in the process's socket for the last input: more than any client's own buffers hold.
const LAST_INPUT_BYTES: usize = 8 << 20;
/// Writes to the client before the process is looked at again.
const WRITES_PER_TURN: usize = 16;

/// How bytes look on the client's side.
pub trait Wire {
    /// Appends to `out` what carries `bytes`, the process's output as the shim sends it.
    fn encode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()>;
    /// Appends to `input` what `bytes` from the client carry, and to `out` what has to be answered.
    fn decode(&mut self, bytes: &[u8], input: &mut Vec<u8>, out: &mut Vec<u8>) -> Heard;
    /// Appends the last words.
    fn finish(&mut self, out: &mut Vec<u8>);
}

/// What came of listening to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// More may come.
    Some,
    /// The client has said its last word and hears no more than the answer to it.
    Last,
}

/// Bytes as they are.
pub struct Plain;

impl Wire for Plain {
    fn encode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        out.extend_from_slice(bytes);
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8], input: &mut Vec<u8>, _: &mut Vec<u8>) -> Heard {
        input.extend_from_slice(bytes);
        Heard::Some
    }

    fn finish(&mut self, _: &mut Vec<u8>) {}
}

/// Gives the next piece of what comes before the process's output, as the shim would send it; `None` at the end.
pub type Replay<'a> = &'a mut dyn FnMut() -> Option<Vec<u8>>;

/// Which side ended a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Process,
    Client,
}

/// What is joined.
pub struct Joint<'a> {
    /// `None` when there is only a replay.
    pub process: Option<&'a UnixStream>,
    pub wire: &'a mut dyn Wire,
    pub replay: Option<Replay<'a>>,
    pub backlog: Backlog,
}

/// Carries bytes both ways until the process's side has ended and all is delivered, or the client is gone.
///
/// The client's half-close becomes the process's end of input and nothing else. `before_end` is called when
/// everything is delivered, before the client can see that it was all.
pub fn pump(client: Hijacked, joint: Joint<'_>, before_end: impl FnOnce()) -> End {
    let stopping = client.peer();
    let nonblocking = client.set_nonblocking().and_then(|()| match joint.process {
        Some(process) => process.set_nonblocking(true),
        None => Ok(()),
    });
    if let Err(cause) = nonblocking {
        log::warn!("talk to a client: {cause}");
        return End::Client;
    }
    let (reader, writer) = client.split();
    let mut pump = Pump {
        reader,
        writer,
        process: joint.process,
        wire: joint.wire,
        replay: joint.replay,
        staged: Vec::new(),
        backlog: joint.backlog,
        input: Vec::new(),
        is_heard: true,
        is_deaf: false,
        is_gone: false,
        has_finished: false,
        is_closing: false,
        since: None,
        taken: 0,
        block: [0; BLOCK],
    };
    let end = loop {
        if let Some(end) = pump.turn(stopping.as_ref()) {
            break end;
        }
    };
    if end == End::Process {
        before_end();
    }
    end
}

struct Pump<'a> {
    reader: ReadHalf,
    writer: WriteHalf,
    /// `None` once its output has ended.
    process: Option<&'a UnixStream>,
    wire: &'a mut dyn Wire,
    replay: Option<Replay<'a>>,
    /// A piece of the replay on its way.
    staged: Vec<u8>,
    /// Whole frames: what the wire adds to the output it adds here.
    backlog: Backlog,
    input: Vec<u8>,
    /// The client may send more.
    is_heard: bool,
    /// The client takes no more output.
    is_deaf: bool,
    /// The client has closed its connection.
    is_gone: bool,
    /// The last words are in the backlog.
    has_finished: bool,
    /// The client has asked for the end; only the answer to that is still owed.
    is_closing: bool,
    /// When the client last took enough of a full backlog, or the process last took input from a client that
    /// is gone.
    since: Option<Instant>,
    /// What the client took since then.
    taken: usize,
    block: [u8; BLOCK],
}

impl Pump<'_> {
    /// Waits once and does what can be done.
    fn turn(&mut self, peer: Option<&crate::http::connection::Peer>) -> Option<End> {
        self.talk();
        let is_delivered = self.replay.is_none() && self.staged.is_empty() && self.backlog.is_empty();
        let hears_no_more = self.is_deaf || (self.is_closing && is_delivered);
        if hears_no_more && !self.is_heard && self.input.is_empty() {
            return Some(End::Client);
        }
        if self.process.is_none() {
            if self.is_deaf || (self.has_finished && is_delivered) {
                return Some(End::Process);
            }
            if !self.has_finished {
                self.has_finished = true;
                let mut last = Vec::new();
                self.wire.finish(&mut last);
                self.backlog.push(&last);
                return None;
            }
        }
        let owes = !self.is_deaf && !is_delivered;
        let is_full = !self.is_deaf && self.backlog.is_full();
        // One that does not take the answers is not listened to either.
        let hears = self.is_heard && self.input.len() < INPUT_BYTES && !is_full;
        let patience = if self.is_gone { LAST_INPUT } else { PATIENCE };
        if !(is_full || self.is_gone) {
            self.since = None;
        } else if self.since.get_or_insert_with(Instant::now).elapsed() >= patience {
            if is_full {
                let kept = self.backlog.len();
                log::warn!(
                    "an attached client takes nothing for {patience:?}: cut off with {kept} bytes unread"
                );
            }
            return Some(End::Client);
        }
        let (from_client, from_process) = {
            let mut fds = Vec::with_capacity(3);
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, hears);
            flags.set(PollFlags::OUT, owes);
            // Once a client is gone, poll would say so for ever.
            let watches_client = !self.is_gone || hears;
            if watches_client {
                fds.push(PollFd::from_borrowed_fd(self.writer.fd(), flags));
            }
            // The hang-up of a process whose last words have no room yet would be told for ever.
            let watched = self.process.filter(|_| !is_full || !self.input.is_empty());
            if let Some(process) = watched {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, !is_full);
                flags.set(PollFlags::OUT, !self.input.is_empty());
                fds.push(PollFd::from_borrowed_fd(process.as_fd(), flags));
            }
            if let Some(peer) = peer {
                fds.push(PollFd::from_borrowed_fd(peer.stopping(), PollFlags::IN));
            }
            let deadline = match hears && self.reader.has_buffered() {
                true => Some(Instant::now()),
                false => self.since.map(|since| since + patience),
            };
            match poll(&mut fds, deadline.map(time_left).as_ref()) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => return None,
                Err(_) => return Some(End::Client),
            }
            let mut ready = fds.iter().map(PollFd::revents);
            let mut next = |is_there: bool| if is_there { ready.next() } else { None };
            let from_client = next(watches_client).unwrap_or(PollFlags::empty());
            let from_process = next(watched.is_some()).unwrap_or(PollFlags::empty());
            if next(peer.is_some()).is_some_and(|flags| !flags.is_empty()) {
                return Some(End::Client);
            }
            (from_client, from_process)
        };
        if from_client.intersects(PollFlags::HUP | PollFlags::ERR) {
            self.client_left();
        }
        if hears && (from_client.contains(PollFlags::IN) || self.is_gone || self.reader.has_buffered()) {
            self.listen();
        }
        if from_process.contains(PollFlags::OUT) {
            self.pass_input();
        }
        if from_process.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && !is_full {
            self.take_output();
        }
        None
    }

    /// Sends what is owed until the client takes no more or others should have their turn.
    fn talk(&mut self) {
        let mut writes = 0;
        while writes < WRITES_PER_TURN {
            if self.is_deaf {
                return;
            }
            if self.staged.len() < BLOCK
                && let Some(replay) = &mut self.replay
            {
                match replay() {
                    Some(piece) => {
                        if self.wire.encode(&piece, &mut self.staged).is_err() {
                            return self.deafen();
                        }
                    }
                    None => self.replay = None,
                }
                continue;
            }
            let (is_staged, front) = if self.staged.is_empty() {
                match self.backlog.front() {
                    Ok(front) => (false, front),
                    Err(cause) => {
                        log::warn!("read back output kept for a slow client: {cause}");
                        return self.deafen();
                    }
                }
            } else {
                (true, self.staged.as_slice())
            };
            if front.is_empty() {
                return;
            }
            writes += 1;
            match self.writer.write(front) {
                Ok(count) => {
                    if is_staged {
                        self.staged.drain(..count);
                    } else {
                        self.backlog.consume(count);
                    }
                    self.taken += count;
                    if self.taken >= PATIENCE_BYTES {
                        self.taken = 0;
                        self.since = None;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.deafen(),
            }
        }
    }

    /// The client takes no more output; one that shut only its reading side may still send input.
    fn deafen(&mut self) {
        self.is_deaf = true;
        self.replay = None;
        self.staged = Vec::new();
        self.backlog.clear();
    }

    /// The client has closed: what it sent last is all there will be.
    fn client_left(&mut self) {
        self.deafen();
        if !std::mem::replace(&mut self.is_gone, true)
            && let Some(process) = self.process
        {
            // All of it fits there, so that this thread need not wait for the process to read. Without the
            // right to a large buffer it waits a little.
            let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(process, LAST_INPUT_BYTES);
        }
    }

    /// Takes what the client has sent.
    fn listen(&mut self) {
        match self.reader.read(&mut self.block) {
            Ok(0) => self.is_heard = false,
            Ok(count) => {
                let mut answer = Vec::new();
                let heard = self.wire.decode(&self.block[..count], &mut self.input, &mut answer);
                if !self.is_deaf {
                    self.backlog.push(&answer);
                }
                if heard == Heard::Last {
                    self.is_heard = false;
                    // Its last word answered, nothing more may be said.
                    self.has_finished = true;
                    self.is_closing = true;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => self.is_heard = false,
        }
        self.pass_input();
    }

    /// Hands the process what the client sent, and the end of it.
    fn pass_input(&mut self) {
        let Some(mut process) = self.process else {
            self.input.clear();
            return;
        };
        while !self.input.is_empty() {
            match process.write(&self.input) {
                Ok(count) => {
                    self.input.drain(..count);
                    if self.is_gone {
                        self.since = None;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The shim listens no more; what it still says is read.
                Err(_) => self.input.clear(),
            }
        }
        // What was allocated for a burst is not kept for an idle client.
        self.input = Vec::new();
        if !self.is_heard {
            let _ = process.shutdown(Shutdown::Write);
        }
    }

    /// Takes what the process says.
    fn take_output(&mut self) {
        let Some(mut process) = self.process else { return };
        match process.read(&mut self.block) {
            Ok(count) if count > 0 => {
                if self.is_deaf || self.is_closing {
                    return;
                }
                let mut out = Vec::new();
                match self.wire.encode(&self.block[..count], &mut out) {
                    Ok(()) => self.backlog.push(&out),
                    Err(cause) => {
                        log::warn!("carry a process's output: {cause}");
                        self.deafen();
                    }
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            // Closed, or torn down with input unread.
            _ => {
                self.process = None;
                self.input = Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::containers::backlog::Limits;
    use crate::http::connection::{Peer, Stopping};
    use crate::http::socket::Socket;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::thread::{self, JoinHandle};

    /// A client, a process and the thread that joins them.
    struct Bed {
        client: UnixStream,
        process: UnixStream,
        pump: JoinHandle<End>,
        stopping: Arc<Stopping>,
        dir: PathBuf,
    }

    fn bed(name: &str, file_bytes: u64, replay: Vec<&'static str>) -> Bed {
        let dir = std::env::temp_dir().join(format!("dewar-pump-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (client, server) = UnixStream::pair().unwrap();
        let (process, end) = UnixStream::pair().unwrap();
        let stopping = Arc::new(Stopping::new().unwrap());
        let socket = Arc::new(Socket::Unix(server));
        let peer = Peer::new(socket.clone(), stopping.clone());
        let hijacked = Hijacked::server(socket, b"early ".to_vec(), peer, Box::new(())).unwrap();
        let backlog = Backlog::new(dir.clone(), Limits { memory_bytes: 64 * 1024, file_bytes });
        let pump = thread::spawn(move || {
            let mut pieces = replay.into_iter();
            let mut next = || pieces.next().map(|piece| piece.as_bytes().to_vec());
            let joint = Joint { process: Some(&end), wire: &mut Plain, replay: Some(&mut next), backlog };
            pump(hijacked, joint, || {})
        });
        Bed { client, process, pump, stopping, dir }
    }

    fn read_all(stream: &mut UnixStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn both_ways_with_early_bytes_and_a_half_close() {
        let mut bed = bed("both", 1 << 30, vec!["the ", "past, "]);
        bed.client.write_all(b"input").unwrap();
        bed.client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut bed.process), b"early input");
        bed.process.write_all(b"the present").unwrap();
        drop(bed.process);
        assert_eq!(read_all(&mut bed.client), b"the past, the present");
        drop(bed.client);
        assert_eq!(bed.pump.join().unwrap(), End::Process);
        std::fs::remove_dir_all(&bed.dir).unwrap();
    }

    #[test]
    fn a_process_never_waits_for_a_client_that_reads_late() {
        let mut bed = bed("late", 1 << 30, vec![]);
        let text: Vec<u8> = (0..30_000_000_u32).map(|at| (at / 3) as u8).collect();
        bed.process.write_all(&text).unwrap();
        drop(bed.process);
        assert!(read_all(&mut bed.client) == text);
        drop(bed.client);
        assert_eq!(bed.pump.join().unwrap(), End::Process);
        std::fs::remove_dir_all(&bed.dir).unwrap();
    }

    #[test]
    fn a_whole_backlog_behind_the_process_waits_and_nothing_is_lost() {
        let mut bed = bed("full", 4 << 20, vec![]);
        let text: Vec<u8> = (0..40_000_000_u32).map(|at| (at / 3) as u8).collect();
        let expected = text.clone();
        let mut process = bed.process;
        let writer = thread::spawn(move || process.write_all(&text));
        thread::sleep(Duration::from_millis(300));
        assert!(!writer.is_finished(), "40 MB do not fit");
        assert!(read_all(&mut bed.client) == expected);
        writer.join().unwrap().unwrap();
        drop(bed.client);
        assert_eq!(bed.pump.join().unwrap(), End::Process);
        std::fs::remove_dir_all(&bed.dir).unwrap();
    }

    #[test]
    fn output_goes_on_while_the_process_does_not_read() {
        let mut bed = bed("deaf", 1 << 30, vec![]);
        bed.client.set_nonblocking(true).unwrap();
        while bed.client.write(&[b'x'; 4096]).is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
        bed.client.set_nonblocking(false).unwrap();
        bed.process.write_all(b"still here").unwrap();
        let mut got = [0; 10];
        bed.client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"still here");
        // Gone with input unread by the process: told at once, and the input is not lost.
        drop(bed.client);
        assert_eq!(bed.pump.join().unwrap(), End::Client);
        assert!(read_all(&mut bed.process).len() > INPUT_BYTES);
        std::fs::remove_dir_all(&bed.dir).unwrap();
    }

    #[test]
    fn an_end_that_hangs_up_ends_it() {
        let bed = bed("gone", 1 << 30, vec![]);
        drop(bed.client);
        assert_eq!(bed.pump.join().unwrap(), End::Client);
        std::fs::remove_dir_all(&bed.dir).unwrap();
    }

    #[test]
    fn a_server_that_stops_ends_it() {
        let bed = bed("stop", 1 << 30, vec![]);
        bed.stopping.set();
        assert_eq!(bed.pump.join().unwrap(), End::Client);
        std::fs::remove_dir_all(&bed.dir).unwrap();
    }
}
