//! A layer's tar stream without the files' contents, from which it can be written again exactly.
//!
//! A layer is known by the digest of its tar, and the same files can be written as many different tars. So
//! everything that is not content is kept beside the unpacked files:
//!
//! ```text
//! stream = { record }
//! record = 'R' length:u32 bytes                                  bytes of the stream
//!        | 'F' length:u32 path count:u32 { offset:u64 length:u64 } pieces of the file at path
//! ```
//!
//! Numbers are big-endian. A later entry that replaced a file makes the stream differ: the caller compares
//! the digest of what is written, as it must anyway.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{error, read_failure, refused, shown};
use crate::runtime::{Cause, Error};

/// A path longer than this was refused when it was unpacked.
const MAX_PATH: u32 = 64 << 10;

pub(super) fn write_raw(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    for piece in bytes.chunks(1 << 20) {
        out.write_all(b"R")?;
        out.write_all(&(piece.len() as u32).to_be_bytes())?;
        out.write_all(piece)?;
    }
    Ok(())
}

pub(super) fn write_file(out: &mut dyn Write, path: &[u8], pieces: &[(u64, u64)]) -> io::Result<()> {
    out.write_all(b"F")?;
    out.write_all(&(path.len() as u32).to_be_bytes())?;
    out.write_all(path)?;
    out.write_all(&(pieces.len() as u32).to_be_bytes())?;
    for (offset, length) in pieces {
        out.write_all(&offset.to_be_bytes())?;
        out.write_all(&length.to_be_bytes())?;
    }
    Ok(())
}

/// Writes the tar stream again that was unpacked into `diff` while `split` was recorded; returns its size in
/// bytes. Whoever calls compares the digest.
pub fn reassemble(mut split: impl Read, diff: &Path, mut out: impl Write) -> Result<u64, Error> {
    let failed = |cause: Cause| error("write out layer", diff.display().to_string(), cause);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(diff, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
    let mut written = 0;
    let mut buffer = vec![0; 128 << 10];
    loop {
        let mut tag = [0];
        if split.read(&mut tag).map_err(|cause| failed(read_failure(cause)))? == 0 {
            out.flush().map_err(|cause| failed(cause.into()))?;
            return Ok(written);
        }
        let mut step = || -> Result<(), Cause> {
            match tag[0] {
                b'R' => {
                    let mut left = u64::from(read_u32(&mut split)?);
                    written += left;
                    while left > 0 {
                        let wanted = buffer.len().min(left as usize);
                        split.read_exact(&mut buffer[..wanted]).map_err(read_failure)?;
                        out.write_all(&buffer[..wanted])?;
                        left -= wanted as u64;
                    }
                }
                b'F' => {
                    let length = read_u32(&mut split)?;
                    if length > MAX_PATH {
                        return Err(refused("the record of the archive is damaged"));
                    }
                    let mut path = vec![0; length as usize];
                    split.read_exact(&mut path).map_err(read_failure)?;
                    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                    let file = rustix::fs::openat2(&root, path.as_slice(), flags, Mode::empty(), resolve)
                        .map_err(|errno| refused(format!("{:?} of the layer: {errno}", shown(&path))))?;
                    let file = File::from(file);
                    for _ in 0..read_u32(&mut split)? {
                        let (mut offset, mut left) = (read_u64(&mut split)?, read_u64(&mut split)?);
                        written += left;
                        while left > 0 {
                            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                            file.read_exact_at(&mut buffer[..wanted], offset).map_err(|cause| {
                                refused(format!("{:?} of the layer: {cause}", shown(&path)))
                            })?;
                            out.write_all(&buffer[..wanted])?;
                            (offset, left) = (offset + wanted as u64, left - wanted as u64);
                        }
                    }
                }
                _ => return Err(refused("the record of the archive is damaged")),
            }
            Ok(())
        };
        step().map_err(failed)?;
    }
}

fn read_u32(from: &mut impl Read) -> Result<u32, Cause> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes).map_err(read_failure)?;
    Ok(u32::from_be_bytes(bytes))
}

fn read_u64(from: &mut impl Read) -> Result<u64, Cause> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes).map_err(read_failure)?;
    Ok(u64::from_be_bytes(bytes))
}
