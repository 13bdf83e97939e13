//! Where a dump or a thaw waits, everything standing still, until the daemon has decided whose the container is.
//!
//! ```text
//!   daemon                                   shim, in CRIU's hook
//!     | <------------------------- 'b' begins --  |   dump only: CRIU is about to stop the processes
//!     | --- 'b' ------------------------------->  |
//!     | <------------------------- 'r' ready ---  |   all is written (dump), all is there (thaw)
//!     | --- 'g' go, 'n' no ------------------->   |   the tree ends or runs; or the other way round
//!     | --- 'w' write ------------------------>   |   lazy dump: go, but write first what is only in the tree
//!     |  gone ------------------------------->    |   thaw: no. dump: what the verdict's file says, go as write
//! ```
//!
//! The verdict on a dump is a file that is made once: whoever comes first decides, and the other one obeys. So a
//! daemon that dies has either given the container away, or its shim lets it run on at once; the next daemon
//! reads which.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::runtime::{Cause, Error};

const BEGINS: u8 = b'b';
const READY: u8 = b'r';
const GO: u8 = b'g';
const NO: u8 = b'n';
const WRITE: u8 = b'w';

/// The verdict of a container that is another daemon's now.
pub const MOVED: &str = "moved";
/// The verdict of one that stays.
pub const KEPT: &str = "kept";

/// What becomes of what stands at a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Go,
    /// Go, and nobody else has all of what a lazy dump has left in the tree.
    Write,
    No,
}

/// The shim's side.
#[derive(Debug)]
pub(super) struct Gate {
    pub stream: UnixStream,
    /// Of a dump.
    pub verdict: Option<PathBuf>,
}

impl Gate {
    /// Says that everything is about to stand still, and waits until the daemon has heard it.
    pub fn announce(&self) {
        let mut stream = &self.stream;
        // A daemon that is gone is noticed when it is asked.
        let _ = stream.write_all(&[BEGINS]).and_then(|()| stream.read_exact(&mut [0]));
    }

    /// Says that everything stands still, and waits for the decision.
    pub fn wait(&self) -> Decision {
        let mut word = [0];
        let mut stream = &self.stream;
        let told = stream.write_all(&[READY]).and_then(|()| stream.read_exact(&mut word));
        match (told, word[0], &self.verdict) {
            (Ok(()), GO, _) => Decision::Go,
            (Ok(()), WRITE, _) => Decision::Write,
            (Ok(()), _, _) => Decision::No,
            (Err(_), _, None) => Decision::No,
            // Without a verdict that can be read it stays: the other side has not been told otherwise.
            (Err(_), _, Some(path)) => match claim(path, KEPT) {
                Ok(verdict) if verdict == MOVED => Decision::Write,
                _ => Decision::No,
            },
        }
    }
}

/// The daemon's side.
#[derive(Debug)]
pub struct Keeper(UnixStream);

impl Keeper {
    /// A gate: the daemon's end, and the shim's.
    pub fn pair() -> io::Result<(Keeper, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Keeper(ours), theirs.into()))
    }

    /// Waits until everything stands still, and runs `begins` just before it does; false when it does not come to that.
    pub fn is_ready(&self, mut begins: impl FnMut()) -> bool {
        loop {
            let mut word = [0];
            match ((&self.0).read_exact(&mut word), word[0]) {
                (Ok(()), BEGINS) => {
                    begins();
                    let _ = (&self.0).write_all(&[BEGINS]);
                }
                (Ok(()), READY) => return true,
                _ => return false,
            }
        }
    }

    /// Tells the decision. A shim that is gone needs none.
    pub fn decide(&self, decision: Decision) {
        let word = match decision {
            Decision::Go => GO,
            Decision::Write => WRITE,
            Decision::No => NO,
        };
        let _ = (&self.0).write_all(&[word]);
    }
}

/// Makes `verdict` the content of the file at `path`, unless it has one; gives what is in force, which then outlives
/// a power cut.
pub fn claim(path: &Path, verdict: &str) -> Result<String, Error> {
    let failed = |cause: io::Error| Error {
        op: "decide".into(),
        object: path.display().to_string(),
        cause: Cause::Io(cause),
    };
    let own = path.with_extension(format!("{verdict}.{}", std::process::id()));
    let make = || -> io::Result<()> {
        let mut file = File::create(&own)?;
        file.write_all(verdict.as_bytes())?;
        file.sync_all()?;
        let linked = fs::hard_link(&own, path);
        let _ = fs::remove_file(&own);
        match linked {
            Err(cause) if cause.kind() != ErrorKind::AlreadyExists => return Err(cause),
            _ => {}
        }
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    make().map_err(failed)?;
    fs::read_to_string(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_verdict_stands() {
        let dir = std::env::temp_dir().join(format!("dewar-gate-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("verdict");
        assert_eq!(claim(&path, MOVED).unwrap(), MOVED);
        assert_eq!(claim(&path, KEPT).unwrap(), MOVED);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_daemon_that_is_gone_has_decided_or_the_container_stays() {
        let dir = std::env::temp_dir().join(format!("dewar-gate-gone-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for (verdict, decision) in
            [(None, Decision::No), (Some(MOVED), Decision::Write), (Some(KEPT), Decision::No)]
        {
            let path = dir.join(verdict.unwrap_or("none"));
            verdict.map(|verdict| claim(&path, verdict).unwrap());
            let (keeper, theirs) = Keeper::pair().unwrap();
            drop(keeper);
            let gate = Gate { stream: theirs.into(), verdict: Some(path.clone()) };
            assert_eq!(gate.wait(), decision, "{verdict:?}");
            assert_eq!(fs::read_to_string(path).unwrap(), verdict.unwrap_or(KEPT));
        }
        let (keeper, theirs) = Keeper::pair().unwrap();
        drop(keeper);
        assert_eq!(Gate { stream: theirs.into(), verdict: None }.wait(), Decision::No, "a thaw");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_daemon_decides() {
        for decision in [Decision::Go, Decision::Write, Decision::No] {
            let (keeper, theirs) = Keeper::pair().unwrap();
            let gate = Gate { stream: theirs.into(), verdict: None };
            let shim = std::thread::spawn(move || gate.wait());
            assert!(keeper.is_ready(|| panic!("a thaw")));
            keeper.decide(decision);
            assert_eq!(shim.join().unwrap(), decision);
        }
    }
}
