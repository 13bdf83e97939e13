//! The process between CRIU's page daemon and whichever daemon of ours fetches the memory: it keeps the questions until
//! they are answered, so that a daemon's end is no end of what waits for memory.
//!
//! ```text
//!  criu lazy-pages ──▶ questions ──▶ line: the daemon that began, or the last one to connect to `memory.sock`
//!        ▲                 │ asked again on each new line
//!        └── answers, each of them whole, or not at all ◀── line
//! ```
//!
//! It is this binary, started by the shim in the run directory. It says there when all has come: a daemon that was not
//! there cannot have heard it. It ends with CRIU's page daemon.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::asking::{self, Asked, Request};
use crate::runtime::{Cause, Error};

/// `argv[0]` of it.
pub const NAME: &str = "dewar-memory";
/// Where a later daemon finds it, in the run directory.
const SOCKET: &str = "memory.sock";
/// Says there that nothing more is wanted.
const WHOLE: &str = "memory.whole";

fn failed(op: &str, object: &Path, cause: impl Into<Cause>) -> Error {
    Error { op: op.into(), object: object.display().to_string(), cause: cause.into() }
}

/// Starts it for the page daemon at the other end of `criu`; `line` leads to the daemon that has the memory.
///
/// # Errors
/// It cannot be started.
pub fn start(run_dir: &Path, criu: OwnedFd, line: OwnedFd) -> Result<Child, Error> {
    Command::new("/proc/self/exe")
        .arg0(NAME)
        .env_clear()
        .current_dir(run_dir)
        .stdin(Stdio::from(criu))
        .stdout(Stdio::from(line))
        // The shim's log is its own: who holds it passes for a shim.
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed("start the memory's relay in", run_dir, error))
}

/// What a later daemon finds in a container's run directory.
#[derive(Debug)]
pub enum Found {
    /// A new line, on which all is asked that has no answer.
    Line(UnixStream),
    /// All has come.
    Whole,
    /// Neither: none of its memory was to come, or it cannot come any more.
    Nothing,
}

/// Looks for it. Does not block.
///
/// # Errors
/// It is there and cannot be spoken to.
pub fn find(run_dir: &Path) -> Result<Found, Error> {
    use rustix::io::Errno;
    let connect = || -> rustix::io::Result<OwnedFd> {
        let dir = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(run_dir, dir, Mode::empty())?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &crate::runtime::shim::address_in(dir.as_fd(), SOCKET)?)?;
        rustix::io::ioctl_fionbio(&socket, false)?;
        Ok(socket)
    };
    match connect() {
        Ok(socket) => Ok(Found::Line(socket.into())),
        Err(Errno::NOENT | Errno::CONNREFUSED) if run_dir.join(WHOLE).exists() => Ok(Found::Whole),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(Found::Nothing),
        Err(errno) => Err(failed("connect to", &run_dir.join(SOCKET), errno)),
    }
}

/// Its main. Standard input is CRIU's socket, standard output the first line, the working directory the run directory.
pub fn main() -> ExitCode {
    let begin = || -> io::Result<(OwnedFd, OwnedFd, UnixListener)> {
        let (criu, line) =
            (io::stdin().as_fd().try_clone_to_owned()?, io::stdout().as_fd().try_clone_to_owned()?);
        // Their ends must be seen.
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        Ok((criu, line, UnixListener::bind(SOCKET)?))
    };
    // Its end is its container's: let the kernel find somebody else when it is out of memory. Without CAP_SYS_RESOURCE it
    // stays as it is.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    // CRIU's page daemon finds nobody, and says so.
    let Ok((criu, line, listener)) = begin() else { return ExitCode::FAILURE };
    let relay = Arc::new(Relay::new(criu.into()));
    relay.take(line.into());
    let accepting = Arc::clone(&relay);
    let accept = move || listener.incoming().flatten().for_each(|line| accepting.take(line));
    if std::thread::Builder::new().name("lines".to_owned()).spawn(accept).is_err() {
        return ExitCode::FAILURE;
    }
    match relay.listen(|| File::create(WHOLE).map(drop)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

struct Relay {
    criu: UnixStream,
    /// Held while an answer goes to CRIU: nobody asks again meanwhile for what is being answered.
    answering: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Without an answer; all of them have been asked on the line.
    waiting: VecDeque<Request>,
    line: Option<Arc<UnixStream>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    fn new(criu: UnixStream) -> Relay {
        Relay { criu, answering: Mutex::default(), state: Mutex::default() }
    }

    /// Passes questions on until nothing more is wanted, which `note` notes.
    ///
    /// # Errors
    /// The page daemon has ended before.
    fn listen(&self, note: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        loop {
            match asking::next(&self.criu)? {
                Some(Asked::Pages(request)) => {
                    let mut state = lock(&self.state);
                    state.waiting.push_back(request);
                    // One that nobody hears any more is asked again on the next line.
                    let _ = state.line.as_ref().map(|line| asking::ask(line, &request));
                }
                Some(Asked::Whole) => {
                    note()?;
                    lock(&self.state).line.iter().for_each(|line| asking::is_whole(line));
                    return Ok(());
                }
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// Goes on with a new line, on which all is asked again; the one before it is over.
    fn take(self: &Arc<Self>, line: UnixStream) {
        let line = Arc::new(line);
        {
            let _answering = lock(&self.answering);
            let mut state = lock(&self.state);
            if let Some(old) = state.line.replace(Arc::clone(&line)) {
                let _ = old.shutdown(Shutdown::Both);
            }
            for request in &state.waiting {
                let _ = asking::ask(&line, request);
            }
        }
        let (relay, carried) = (Arc::clone(self), Arc::clone(&line));
        let carry = move || {
            relay.carry(&carried);
            let _ = carried.shutdown(Shutdown::Both);
        };
        if std::thread::Builder::new().name("line".to_owned()).spawn(carry).is_err() {
            // Its daemon takes that for a loss, which it is.
            let _ = line.shutdown(Shutdown::Both);
        }
    }

    /// Brings the answers that come on a line, until that ends or is not the last one any more.
    fn carry(&self, line: &Arc<UnixStream>) {
        let first = || lock(&self.state).waiting.front().copied();
        while let Ok(Some((request, pages))) = asking::answered(line, first) {
            let _answering = lock(&self.answering);
            {
                let mut state = lock(&self.state);
                if !state.line.as_ref().is_some_and(|last| Arc::ptr_eq(last, line)) {
                    return;
                }
                state.waiting.pop_front();
            }
            if asking::answer(&self.criu, &request, &pages).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// CRIU's words, in the older form: GET, and so many pages of process 9.
    fn question(address: u64, pages: u32) -> Vec<u8> {
        [&7_u32.to_ne_bytes()[..], &pages.to_ne_bytes(), &address.to_ne_bytes(), &9_u64.to_ne_bytes()]
            .concat()
    }

    fn asked(line: &UnixStream) -> Request {
        match asking::next(line).unwrap() {
            Some(Asked::Pages(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_has_no_whole_answer_is_asked_on_the_next_line() {
        let (criu, theirs) = UnixStream::pair().unwrap();
        let relay = Arc::new(Relay::new(theirs));
        let listening = Arc::clone(&relay);
        let listener = std::thread::spawn(move || {
            let mut is_noted = false;
            listening.listen(|| {
                is_noted = true;
                Ok(())
            })?;
            Ok::<bool, io::Error>(is_noted)
        });
        let (first, other) = UnixStream::pair().unwrap();
        relay.take(other);
        let page = usize::try_from(super::super::memory::page_bytes()).unwrap();
        for address in [0x10_0000, 0x20_0000, 0x30_0000] {
            (&criu).write_all(&question(address, 2)).unwrap();
            assert_eq!(asked(&first).address, address);
        }
        // The first is answered; of the second's answer half goes, and none that the line's end cuts reaches CRIU.
        let heard = |address: u64, byte: u8| {
            let mut heard = vec![0; question(0, 0).len() + 2 * page];
            (&criu).read_exact(&mut heard).unwrap();
            assert_eq!(heard[8..16], address.to_ne_bytes());
            assert!(heard[24..].iter().all(|it| *it == byte), "{address:x}");
        };
        let answer = |line: &UnixStream, address: u64, byte: u8, bytes: usize| {
            let mut header = question(address, 2);
            header[..4].copy_from_slice(&(6_u32 | 4 << 16).to_ne_bytes());
            let mut line = line;
            line.write_all(&header).and_then(|()| line.write_all(&vec![byte; bytes])).unwrap();
        };
        answer(&first, 0x10_0000, 1, 2 * page);
        heard(0x10_0000, 1);
        answer(&first, 0x20_0000, 2, page);
        drop(first);
        // Asked while nobody is there.
        (&criu).write_all(&question(0x40_0000, 2)).unwrap();
        while lock(&relay.state).waiting.len() < 3 {
            std::thread::yield_now();
        }
        let (second, other) = UnixStream::pair().unwrap();
        relay.take(other);
        for (address, byte) in [(0x20_0000, 3), (0x30_0000, 4), (0x40_0000, 5)] {
            assert_eq!(asked(&second).address, address);
            answer(&second, address, byte, 2 * page);
            heard(address, byte);
        }
        // A line that answers what was not asked is over, and the next one goes on.
        (&criu).write_all(&question(0x50_0000, 2)).unwrap();
        assert_eq!(asked(&second).address, 0x50_0000);
        answer(&second, 0x60_0000, 6, 0);
        assert_eq!(asking::next(&second).unwrap(), None);
        let (third, other) = UnixStream::pair().unwrap();
        relay.take(other);
        assert_eq!(asked(&third).address, 0x50_0000);
        answer(&third, 0x50_0000, 7, 2 * page);
        heard(0x50_0000, 7);
        asking::is_whole(&criu);
        assert_eq!(asking::next(&third).unwrap(), Some(Asked::Whole));
        assert!(listener.join().unwrap().unwrap());
    }

    #[test]
    fn an_end_without_the_last_word_is_a_loss() {
        let (criu, theirs) = UnixStream::pair().unwrap();
        drop(criu);
        assert!(Relay::new(theirs).listen(|| panic!("nothing has come")).is_err());
    }
}
