//! A directory tree copied into another directory: owners, modes, times and attributes too.
//!
//! What packs and what unpacks are joined by a pipe: one way of reading a tree and one of writing it, both
//! safe from links, serve for copies as for archives.

use std::fs::File;
use std::io::BufWriter;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::pipe::{PipeFlags, pipe_with};

use super::tar::Writer;
use super::{Limits, Trees, error, pack_tree, unpack_plain};
use crate::runtime::Error;

/// Copies the directory `from` (any descriptor of it) and what is below it over the directory `into`. File
/// systems of the kernel's are left empty, sockets out.
///
/// # Errors
/// What was read or written last, by name. Part of the copy may be there.
pub fn copy(from: impl AsFd + Sync, into: &Path) -> Result<(), Error> {
    let failed = |cause: std::io::Error| error("copy into", into.display().to_string(), cause);
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
    std::thread::scope(|scope| {
        let pack = || -> Result<(), Error> {
            let mut writer = Writer::new(BufWriter::with_capacity(64 * 1024, File::from(write)));
            pack_tree(from.as_fd(), b".", Trees::Mounted, &mut writer)?;
            let (mut out, _) = writer.finish().map_err(failed)?;
            std::io::Write::flush(&mut out).map_err(failed)
        };
        let packing = std::thread::Builder::new().spawn_scoped(scope, pack).map_err(failed)?;
        let limits = Limits { entries: u64::MAX, bytes: u64::MAX, ..Limits::default() };
        let unpacked = unpack_plain(File::from(read), into, limits);
        let packed =
            packing.join().unwrap_or_else(|_| Err(failed(std::io::Error::other("a thread panicked"))));
        match (packed, unpacked) {
            // The reader's end closed the pipe: why it did is the cause.
            (_, Err(error)) => Err(error),
            (packed, Ok(_)) => packed,
        }
    })
}
