//! What goes ahead of a move while the container runs: its files, and where the kernel notes what changes, its memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;

use super::{Goods, Journey};
use crate::daemon::containers::checkpoint as checkpoints;
use crate::daemon::containers::checkpoint::seal;
use crate::daemon::containers::migrate::account::Account;
use crate::daemon::containers::migrate::wire::{self, Item, Message};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::state_dir;
use crate::http::api::migrate::{Doing, MigrateRequest, PreCopy};
use crate::runtime::Sandbox;
use crate::runtime::criu::predump;

/// Passes over files and memory while the container runs, at most; and how little one has to have in it to be the last.
const PASSES: u32 = 5;
const SMALL_BYTES: u64 = 4 << 20;
/// Less memory than this is sent as quickly while it stands still.
const LITTLE_MEMORY_BYTES: u64 = 16 << 20;

/// Refuses to send memory while a container runs where that cannot be.
pub(super) fn check_pre_copy(engine: &Engine, is_lazy: bool) -> Result<()> {
    if is_lazy {
        return Err(Error::invalid(
            "with --lazy its memory is sent afterwards: leave that or --pre-copy out",
        ));
    }
    match engine.criu() {
        Ok(info) if !info.has_pre_dumps => Err(Error::not_implemented(format!(
            "--pre-copy: this kernel does not note for criu {} which pages are dirty (CONFIG_MEM_SOFT_DIRTY)",
            info.version
        ))),
        // The dump itself will say what is the matter.
        _ => Ok(()),
    }
}

/// Whether memory is sent while the container runs.
pub(super) fn pre_copies(
    engine: &Engine,
    sandbox: &Sandbox,
    request: &MigrateRequest,
    is_taken: bool,
) -> Result<bool> {
    let can = engine.criu().as_ref().is_ok_and(|info| info.has_pre_dumps);
    match request.pre_copy {
        PreCopy::Never => Ok(false),
        PreCopy::Always if !is_taken => {
            Err(Error::conflict("--pre-copy: the other daemon is an older dewar, which does not know of it"))
        }
        PreCopy::Always => Ok(true),
        PreCopy::Auto => {
            Ok(can && is_taken && !request.lazy && sandbox.resident_bytes() >= LITTLE_MEMORY_BYTES)
        }
    }
}

/// Memory that is sent while the container runs.
#[derive(Default)]
pub(super) struct Ahead {
    pub(super) is_wanted: bool,
    /// Without it there is no move.
    pub(super) is_must: bool,
    /// Passes that the dump builds on.
    pub(super) passes: u32,
    pub(super) bytes: u64,
    pub(super) warnings: Vec<String>,
}

impl Journey<'_> {
    /// Sends files and memory while the container runs, in passes until little changes between two.
    pub(super) fn send_ahead(
        &self,
        sandbox: &Sandbox,
        goods: &mut Goods,
        account: &mut Account<'_>,
    ) -> Result<()> {
        account.enter(
            Doing::Files,
            if goods.memory.is_wanted {
                "Sending files and memory while it runs"
            } else {
                "Sending files while it runs"
            },
        );
        let mut last = u64::MAX;
        for _ in 0..PASSES {
            let mut bytes = self.send_pass(goods, account, false)?;
            if goods.memory.is_wanted {
                bytes += self.send_memory_pass(sandbox, goods, account)?;
            }
            if bytes <= SMALL_BYTES || bytes > last / 2 {
                break;
            }
            last = bytes;
        }
        self.line.sender.tell(&Message::Freezing {})?;
        match self.line.hear()? {
            Message::Prepared {} => Ok(()),
            _ => Err(wire::strange("no word of being prepared")),
        }
    }

    /// Sends what has changed of the files, and keeps it; the bytes of it.
    pub(super) fn send_pass(
        &self,
        goods: &mut Goods,
        account: &mut Account<'_>,
        is_frozen: bool,
    ) -> Result<u64> {
        let (partial, line) = (self.under_way.partial(), self.line);
        let (files, mut so_far) = (&mut goods.files, 0);
        goods.passes.next(is_frozen, &mut |name, write| {
            line.look_up()?;
            let path = partial.join(name);
            let failed = |cause: std::io::Error| Error::system(format!("write {path:?}"), cause);
            state_dir::make_dir(path.parent().unwrap_or(&partial), 0o700)?;
            let file =
                File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
            let mut file = BufWriter::with_capacity(256 << 10, file);
            let mut sent = |bytes| account.sent(bytes, "files", None, &mut so_far);
            let (sha256, bytes) = line
                .sender
                .written(Item::Checkpoint(name.to_owned()), &mut sent, |out| write(&mut Both(out, &mut file)))
                .map_err(|error| line.unsent(error))?;
            file.flush().map_err(failed)?;
            files.insert(name.to_owned(), seal::sealed(&path, sha256, bytes)?);
            Ok(())
        })
    }

    /// Sends what has changed of its memory, and keeps it; the bytes of it.
    fn send_memory_pass(
        &self,
        sandbox: &Sandbox,
        goods: &mut Goods,
        account: &mut Account<'_>,
    ) -> Result<u64> {
        let (partial, line) = (self.under_way.partial(), self.line);
        let (memory, files) = (&mut goods.memory, &mut goods.files);
        let number = memory.passes + 1;
        let pass = predump::directory(number) + "/";
        let bytes = match sandbox.pre_dump(&partial, number) {
            Ok(bytes) => bytes,
            Err(cause) if memory.is_must => return Err(checkpoints::explained(self.engine, cause)),
            // What had been noted is forgotten: all of it is sent while it stands still.
            Err(cause) => {
                log::warn!("container {:?}: {cause}", self.record.name);
                memory.warnings.push(format!("its memory was sent while it stood still: {cause}"));
                (memory.is_wanted, memory.passes) = (false, 0);
                state_dir::remove_tree(&partial.join(&pass))?;
                return Ok(0);
            }
        };
        let mut so_far = 0;
        for (name, _) in seal::sizes(&partial)?.into_iter().filter(|(name, _)| name.starts_with(&pass)) {
            line.look_up()?;
            let path = partial.join(&name);
            let file = File::open(&path).map_err(|cause| Error::system(format!("open {path:?}"), cause))?;
            let mut sent = |bytes| account.sent(bytes, "memory", None, &mut so_far);
            let sent = line.sender.file(Item::Checkpoint(name.clone()), file, &mut sent);
            let (sha256, bytes) = sent.map_err(|error| line.unsent(error))?;
            files.insert(name, seal::sealed(&path, sha256, bytes)?);
        }
        (memory.passes, memory.bytes) = (number, memory.bytes + bytes);
        Ok(bytes)
    }
}

/// Writes to two places.
struct Both<'a>(&'a mut dyn Write, &'a mut dyn Write);

impl Write for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.0.write(bytes)?;
        self.1.write_all(&bytes[..count])?;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()?;
        self.1.flush()
    }
}
