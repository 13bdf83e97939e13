//! Memory that is written while its processes run on, so that the dump that freezes them writes only what has changed
//! since: CRIU's `pre-dump`, where the kernel notes which pages are dirty.
//!
//! ```text
//!  memory/1/                         all of it
//!  memory/2/   parent -> ../1        what has changed since
//!  images/     parent -> ../memory/2 the dump: the rest
//! ```
//!
//! Processes stand still only until a pass has its hands on the pages. Each pass resets what the kernel has noted: after
//! one that failed, no earlier one may be built on.
//!
//! Sources: criu(8), CRIU's `cr-dump.c`, `mem.c`, the kernel's soft-dirty.rst.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::images::failed;
use super::launcher::Launcher;
use super::rpc::{RequestType, Writer};
use super::{common_options, judge, open_dir, save_cache};
use crate::runtime::Error;
use crate::runtime::shim::protocol::CriuPlace;

/// Below a checkpoint's directory.
pub const DIRECTORY: &str = "memory";
/// What leads from images to those they build on.
pub const PARENT: &str = "parent";
const LOG: &str = "pre-dump.log";

/// The directory of a pass, below a checkpoint's.
pub fn directory(number: u32) -> String {
    format!("{DIRECTORY}/{number}")
}

/// What leads from `images` to the last of so many passes.
pub fn parent_of_images(passes: u32) -> String {
    format!("../{}", directory(passes))
}

/// Whether a directory of a checkpoint holds a pass.
pub fn is_directory(name: &str) -> bool {
    let number = name.strip_prefix(DIRECTORY).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
    number.parse::<u16>().is_ok_and(|parsed| parsed > 0 && parsed.to_string() == number)
}

/// Whether a link below a checkpoint's directory, in `directory`, is one that leads to a pass.
pub fn is_parent(directory: &str, name: &str, target: &Path) -> bool {
    let target = target.to_str().and_then(|target| target.strip_prefix("../")).unwrap_or_default();
    name == PARENT
        && match directory {
            "images" => is_directory(target),
            _ => is_directory(directory) && is_directory(&format!("{DIRECTORY}/{target}")),
        }
}

/// Writes what has changed of a tree's memory since the pass before, all of it in the first one, to `memory/NUMBER` below
/// `dir`; the bytes of it. Blocks until it is written; the processes run on long before.
///
/// # Errors
/// They run on. What is there of the pass is worthless, and so are those before it.
pub fn pre_dump(place: &CriuPlace, pid: i32, dir: &Path, number: u32) -> Result<u64, Error> {
    let pass = dir.join(directory(number));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&pass)
        .map_err(|error| Error { op: "make".into(), ..failed(&pass, error) })?;
    let images_dir = open_dir(&pass)?;
    let mut opts = common_options(&images_dir, &images_dir, LOG, Path::new("/"), &[]);
    opts.int(2, pid as u64).bool(3, true).bool(15, true);
    if number > 1 {
        opts.text(14, format!("../{}", number - 1).as_bytes());
    }
    let mut body = Writer::default();
    body.message(2, &opts);
    let mut conversation = Launcher::new(Path::new("/proc/self/exe"), place).start()?;
    let outcome = conversation.request(RequestType::PreDump, &body, &mut |notice| save_cache(place, &notice));
    drop(conversation);
    judge("write the memory of", outcome, &pass.join(LOG))?;
    // They say nothing that anybody needs, and change nothing when they are not there.
    for name in [LOG, "stats-dump"] {
        let _ = fs::remove_file(pass.join(name));
    }
    pages_in(&pass)
}

/// Bytes of memory among images.
fn pages_in(images: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for entry in fs::read_dir(images).map_err(|error| failed(images, error))? {
        let entry = entry.map_err(|error| failed(images, error))?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with("pages-")) {
            bytes += entry.metadata().map_err(|error| failed(images, error))?.len();
        }
    }
    Ok(bytes)
}

/// Links the images of a checkpoint that came from elsewhere to so many passes beside them.
///
/// # Errors
/// One of them is not there; a link cannot be made.
pub fn link(dir: &Path, passes: u32) -> Result<(), Error> {
    let make = |at: PathBuf, target: String| {
        let at = at.join(PARENT);
        std::os::unix::fs::symlink(target, &at)
            .map_err(|error| Error { op: "make".into(), ..failed(&at, error) })
    };
    for number in 2..=passes {
        make(dir.join(directory(number)), format!("../{}", number - 1))?;
    }
    if passes > 0 { make(dir.join("images"), parent_of_images(passes)) } else { Ok(()) }
}

/// Memory of processes that is theirs alone, as far as the kernel tells; those that have ended have none.
pub fn resident_bytes(pids: &[i32]) -> u64 {
    let own = |pid: &i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let mut pages = text.split(' ').skip(1).map_while(|word| word.parse::<u64>().ok());
        let (resident, shared) = (pages.next()?, pages.next()?);
        Some(resident.saturating_sub(shared))
    };
    pids.iter().filter_map(own).sum::<u64>() * rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_passes_only() {
        for (directory, target) in [("images", "../memory/3"), ("memory/3", "../2")] {
            assert!(is_parent(directory, PARENT, Path::new(target)), "{directory} {target}");
        }
        for (directory, name, target) in [
            ("images", PARENT, "../memory"),
            ("images", PARENT, "../memory/0"),
            ("images", PARENT, "../memory/1/../../.."),
            ("images", PARENT, "/memory/1"),
            ("images", "core-1.img", "../memory/1"),
            ("memory/2", PARENT, "../memory/1"),
            ("memory/2", PARENT, "../.."),
            ("", PARENT, "../memory/1"),
            ("volumes", PARENT, "../1"),
        ] {
            assert!(!is_parent(directory, name, Path::new(target)), "{directory} {name} {target}");
        }
        assert!(is_directory("memory/12"));
        for name in ["memory", "memory/", "memory/01", "memory/x", "memory/1/2", "memory/0"] {
            assert!(!is_directory(name), "{name}");
        }
    }

    #[test]
    fn passes_are_linked_in_their_order() {
        let dir = std::env::temp_dir().join(format!("dewar-predump-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        for name in ["images", "memory/1", "memory/2"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        fs::write(dir.join("memory/1/pages-1.img"), [0; 10]).unwrap();
        fs::write(dir.join("memory/1/pagemap-1.img"), [0; 5]).unwrap();
        assert_eq!(pages_in(&dir.join("memory/1")).unwrap(), 10);
        link(&dir, 2).unwrap();
        assert_eq!(fs::read(dir.join("images/parent/parent/pages-1.img")).unwrap().len(), 10);
        assert!(!dir.join("memory/1/parent").exists());
        assert!(link(&dir.join("none"), 1).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn memory_that_a_process_has_alone_is_counted() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = resident_bytes(&[own]);
        let much = vec![7_u8; 64 << 20];
        let after = resident_bytes(&[own, i32::MAX]);
        assert!(after >= before + (48 << 20), "{before} {after} {}", much[much.len() / 2]);
    }
}
