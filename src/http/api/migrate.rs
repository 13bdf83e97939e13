//! Moves of running containers from one daemon to another. Dewar's own: Docker has no such operations.
//!
//! Both operations take their connection over, and speak frames on it: to the receiving daemon the sending one, by way
//! of the client that joins the two.
//!
//! ```text
//!   kind (1 byte)  length (4 bytes, big endian)  content
//!     m            a message of the daemons to each other, as JSON
//!     d            a piece of the file that the last message announced
//!     h            nothing: whoever sends it lives
//!     p            to the client alone, from the sending daemon: a message of the progress
//! ```

use serde::{Deserialize, Serialize};

use super::{Endpoint, Method, Shape};

/// Bytes before a frame's content.
pub const HEADER_BYTES: usize = 5;
/// The longest content.
pub const FRAME_BYTES: usize = 4 << 20;
pub const MESSAGE: u8 = b'm';
pub const DATA: u8 = b'd';
pub const ALIVE: u8 = b'h';
pub const PROGRESS: u8 = b'p';

/// What comes before `length` bytes of content.
pub fn header(kind: u8, length: usize) -> [u8; HEADER_BYTES] {
    // Callers keep to FRAME_BYTES.
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [kind, a, b, c, d]
}

/// The kind and length that a frame begins with; `None` for what is no frame.
pub fn parse(header: [u8; HEADER_BYTES]) -> Option<(u8, usize)> {
    let [kind, a, b, c, d] = header;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    (matches!(kind, MESSAGE | DATA | ALIVE | PROGRESS) && length <= FRAME_BYTES).then_some((kind, length))
}

/// How a container is to move.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MigrateRequest {
    /// What its user calls the other daemon: it is written down and said, and connected to by the client alone.
    pub host: String,
    /// The container stays here, stopped, with its volumes.
    pub keep: bool,
    /// Volumes over there keep the content they have.
    pub keep_volumes: bool,
    /// Whether memory is sent while it runs here, where the kernel notes what changes: by how much there is of it; always,
    /// or the move is refused; or never.
    pub pre_copy: PreCopy,
    /// It runs over there before all of its memory, which is there by then, has been read in.
    pub lazy: bool,
    /// TCP connections come back closed. They do in any case where the address is another.
    pub tcp_close: bool,
    /// Its processes may have more than its configuration gives them.
    pub trust: bool,
    /// Begin nothing: finish what a broken connection left open, or undo it.
    pub resolve: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PreCopy {
    #[default]
    Auto,
    Always,
    Never,
}

/// What a migration is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doing {
    /// The other daemon looks whether it can have it.
    #[default]
    Offering,
    Image,
    /// The container's, while it runs; and where that is done, its memory.
    Files,
    /// From here on it stands still.
    Freezing,
    /// What is left of its files, and its memory, unless that is sent later.
    Rest,
    /// The other daemon thaws it.
    Thawing,
    /// It runs over there, and gets its memory.
    Memory,
}

/// How far a migration has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Counted {
    #[serde(rename = "Phase")]
    pub doing: Doing,
    /// Sent so far, of everything.
    pub bytes: u64,
    /// What that comes to in the end, as far as it is known; 0 if it is not.
    pub total: u64,
    /// In this phase.
    pub bytes_per_second: u64,
    /// Since the migration began.
    pub milliseconds: u64,
}

/// `aux` of the messages of a progress before its last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Moving {
    pub moving: Counted,
}

/// What a migration came to; `aux` of the last message of its progress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Migrated {
    /// The container's id, the same on both sides.
    pub id: String,
    /// The container runs over there; else it runs, or is, here.
    pub is_moved: bool,
    /// The connection to the other daemon broke: what that has is not known, and is to be resolved. Goes with a
    /// failure.
    pub is_in_doubt: bool,
    /// Sent, of everything.
    pub bytes: u64,
    /// Memory that was sent while it ran.
    pub pre_copied_bytes: u64,
    /// All of it took so long.
    pub milliseconds: u64,
    /// It stood still for so long.
    pub stopped_milliseconds: u64,
    pub warnings: Vec<String>,
}

pub static CONTAINER_MIGRATE: Endpoint<(), MigrateRequest, ()> =
    Endpoint::new("ContainerMigrate", Method::Post, "/containers/{name}/migrate", Shape::Hijack, 101);
pub static MIGRATION_RECEIVE: Endpoint<(), (), ()> =
    Endpoint::new("MigrationReceive", Method::Post, "/migrations", Shape::Hijack, 101);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_are_written() {
        for (kind, length) in [(MESSAGE, 0), (DATA, FRAME_BYTES), (PROGRESS, 300)] {
            assert_eq!(parse(header(kind, length)), Some((kind, length)));
        }
        for strange in [*b"x\0\0\0\x01", *b"d\xff\0\0\0", *b"HTTP/"] {
            assert_eq!(parse(strange), None);
        }
    }
}
