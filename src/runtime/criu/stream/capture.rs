//! The reading end of a streamed dump: all its files at once, a piece of this one and a piece of that one, as they
//! come. Holds one piece at a time; a pipe that is full keeps its writer waiting.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::{FILES_SOCKET, failed, within};
use crate::runtime::criu::open_dir;
use crate::runtime::criu::rpc::{Fields, Value};
use crate::runtime::{Cause, Error, console};

/// CRIU's name for it.
const IMAGES_SOCKET: &str = "streamer-capture.sock";
/// Bytes of a piece, at most, and what a pipe is asked to hold.
const PIECE_BYTES: usize = 256 << 10;
/// A message holds one name of a file.
const MESSAGE_BYTES: usize = 4096;

/// What has come of a file, by its path in a dump's directory.
#[derive(Debug)]
pub enum Captured<'a> {
    Piece(&'a str, &'a [u8]),
    /// Nothing more comes of it; whether that is all of it only the dump's success tells.
    End(&'a str),
}

/// Listens for a dump. Dropping it while one is under way makes that fail.
#[derive(Debug)]
pub struct Capture {
    listeners: [(UnixListener, Origin); 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Criu,
    Shim,
}

impl Capture {
    /// Listens in `dir`, in which there is an `images`.
    ///
    /// # Errors
    /// The sockets cannot be made.
    pub fn listen(dir: &Path) -> Result<Capture, Error> {
        let listen = |dir: &Path, name: &str| {
            let open = open_dir(dir)?;
            UnixListener::bind(within(&open, name))
                .map_err(|cause| failed("listen at", &dir.join(name), cause))
        };
        let images = listen(&dir.join("images"), IMAGES_SOCKET)?;
        let files = listen(dir, FILES_SOCKET)?;
        Ok(Capture { listeners: [(images, Origin::Criu), (files, Origin::Shim)] })
    }

    /// Gives `take` all that comes, until `over` can be read and every file has ended. Blocks until then.
    ///
    /// # Errors
    /// That of `take`; a pipe cannot be read. The dump then fails.
    pub fn run(
        self,
        over: &OwnedFd,
        take: &mut dyn FnMut(Captured<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut talks: Vec<(UnixStream, Origin)> = Vec::new();
        let mut files: Vec<(String, File)> = Vec::new();
        let mut piece = vec![0; PIECE_BYTES];
        let mut is_over = false;
        loop {
            let mut polled = Vec::with_capacity(3 + talks.len() + files.len());
            // A hung-up pipe is always ready: the end is looked at once.
            polled.push(match is_over {
                true => PollFd::new(&self.listeners[0].0, PollFlags::empty()),
                false => PollFd::new(over, PollFlags::IN),
            });
            polled.extend(self.listeners.iter().map(|(fd, _)| PollFd::new(fd, PollFlags::IN)));
            polled.extend(talks.iter().map(|(fd, _)| PollFd::new(fd, PollFlags::IN)));
            polled.extend(files.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)));
            // What was said before the end is there by the time the end is.
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let timeout = (is_over && files.is_empty()).then_some(&at_once);
            match rustix::event::poll(&mut polled, timeout) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result.map_err(|errno| failed("wait for", Path::new("the dump"), errno))?,
            };
            let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(polled);
            let has_come = ready[1..].iter().any(|is_ready| *is_ready);
            if is_over && !has_come && files.is_empty() {
                return Ok(());
            }
            is_over |= ready[0];
            let (of_listeners, rest) = ready[1..].split_at(self.listeners.len());
            let (of_talks, of_files) = rest.split_at(talks.len());
            let mut at = of_files.iter();
            let mut broken = None;
            files.retain_mut(|(name, file)| {
                if broken.is_some() || !at.next().is_some_and(|is_ready| *is_ready) {
                    return true;
                }
                let result = match file.read(&mut piece) {
                    Ok(0) => take(Captured::End(name)).map(|()| false),
                    Ok(count) => take(Captured::Piece(name, &piece[..count])).map(|()| true),
                    Err(cause) if cause.kind() == ErrorKind::Interrupted => Ok(true),
                    Err(cause) => Err(failed("read", Path::new(name), cause)),
                };
                result.unwrap_or_else(|error| {
                    broken = Some(error);
                    false
                })
            });
            if let Some(error) = broken {
                return Err(error);
            }
            let mut at = of_talks.iter();
            let mut gone = Vec::new();
            for (number, (talk, origin)) in talks.iter_mut().enumerate() {
                if !at.next().is_some_and(|is_ready| *is_ready) {
                    continue;
                }
                match hear(talk)? {
                    Some((name, pipe)) => {
                        // A larger pipe lets its writer get ahead; the kernel's limit may forbid it.
                        let _ = rustix::pipe::fcntl_setpipe_size(&pipe, PIECE_BYTES);
                        files.push((path_of(*origin, name), File::from(pipe)));
                    }
                    None => gone.push(number),
                }
            }
            for number in gone.into_iter().rev() {
                talks.swap_remove(number);
            }
            for ((listener, origin), is_ready) in self.listeners.iter().zip(of_listeners) {
                if *is_ready {
                    let accepted = listener.accept();
                    let (talk, _) =
                        accepted.map_err(|cause| failed("listen for", Path::new("the dump"), cause))?;
                    talks.push((talk, *origin));
                }
            }
        }
    }
}

fn path_of(origin: Origin, name: String) -> String {
    match origin {
        Origin::Criu => format!("images/{name}"),
        Origin::Shim => name,
    }
}

/// The next file that is announced: its name, and the pipe it comes through; `None` when no more will be.
fn hear(talk: &mut UnixStream) -> Result<Option<(String, OwnedFd)>, Error> {
    let object = Path::new("the dump's files");
    let refused = |text: &str| failed("hear of", object, Cause::Refused(text.to_owned()));
    let mut length = [0; 4];
    match talk.read_exact(&mut length) {
        // Also of a CRIU that died: that the dump has failed is told elsewhere.
        Err(cause) if matches!(cause.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
            return Ok(None);
        }
        result => result.map_err(|cause| failed("hear of", object, cause))?,
    }
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > MESSAGE_BYTES {
        return Err(refused("it is no message of criu's"));
    }
    let mut message = vec![0; length];
    talk.read_exact(&mut message).map_err(|cause| failed("hear of", object, cause))?;
    let name = Fields(&message).find_map(|field| match field {
        Ok((1, Value::Bytes(name))) => std::str::from_utf8(name).ok().map(str::to_owned),
        _ => None,
    });
    let name = name.ok_or_else(|| refused("it has no name"))?;
    let (_, fd) = console::receive(talk.as_fd(), &mut [0; 1])
        .map_err(|cause| failed("receive", Path::new(&name), cause))?;
    Ok(Some((name, fd.ok_or_else(|| refused("no pipe came with it"))?)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::path::PathBuf;

    use super::*;
    use crate::runtime::criu::stream::Files;

    fn listening(name: &str) -> (PathBuf, Capture) {
        let dir = std::env::temp_dir().join(format!("dewar-capture-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("images")).unwrap();
        let capture = Capture::listen(&dir).unwrap();
        (dir, capture)
    }

    #[test]
    fn files_come_side_by_side_and_whole() {
        let (dir, capture) = listening("whole");
        let (over, end) = rustix::pipe::pipe().unwrap();
        let at = dir.clone();
        let write = std::thread::spawn(move || {
            let mut files = Files::connect(&at).unwrap();
            let (mut one, mut two) = (files.create("one").unwrap(), files.create("volumes/two").unwrap());
            files.create("empty").unwrap();
            for round in 0..50_u8 {
                one.write_all(&[round; 30_000]).unwrap();
                two.write_all(&[round; 7]).unwrap();
            }
            drop((one, two, files, end));
        });
        let mut got: BTreeMap<String, (Vec<u8>, bool)> = BTreeMap::new();
        let run = capture.run(&over, &mut |captured| {
            match captured {
                Captured::Piece(name, bytes) => got.entry(name.into()).or_default().0.extend(bytes),
                Captured::End(name) => got.entry(name.into()).or_default().1 = true,
            }
            Ok(())
        });
        run.unwrap();
        write.join().unwrap();
        assert!(got.values().all(|(_, has_ended)| *has_ended));
        let lengths: Vec<_> = got.iter().map(|(name, (bytes, _))| (name.as_str(), bytes.len())).collect();
        assert_eq!(lengths, [("empty", 0), ("one", 1_500_000), ("volumes/two", 350)]);
        assert!(
            got["one"].0.chunks(30_000).zip(0..).all(|(part, round)| part.iter().all(|byte| *byte == round))
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn whoever_writes_hears_that_nobody_reads() {
        let (dir, capture) = listening("broken");
        let (over, _end) = rustix::pipe::pipe().unwrap();
        let at = dir.clone();
        let write = std::thread::spawn(move || {
            let mut file = Files::connect(&at).unwrap().create("one").unwrap();
            loop {
                if let Err(cause) = file.write_all(&[0; 4096]) {
                    return cause.kind();
                }
            }
        });
        let refusal = || failed("write", Path::new("it"), Cause::Refused("the disk is full".into()));
        let error = capture.run(&over, &mut |_| Err(refusal())).unwrap_err();
        assert!(error.to_string().contains("the disk is full"), "{error}");
        assert_eq!(write.join().unwrap(), ErrorKind::BrokenPipe);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
