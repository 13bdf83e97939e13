//! The archives of a container's files: its writable layer and its volumes, each in one piece, or, of a container that
//! was moved, in passes.
//!
//! ```text
//! rootfs.tar   volumes/NAME.tar                  all of it, while the container ran
//! passes/1/rootfs.gone  passes/1/rootfs.tar      what is to be removed then, and what has changed since
//! passes/2/…                                     and since then; the last one was taken while it stood still
//! ```

use std::fs::{self, File};
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

use super::manifest::Manifest;
use super::seal;
use super::volumes;
use crate::daemon::error::{Error, Result};
use crate::runtime::layer::{self, Limits, Pass, Seen};

/// The archive of the writable layer.
pub const ROOTFS: &str = "rootfs.tar";
/// Below a checkpoint's directory.
pub const DIRECTORY: &str = "passes";

/// Refuses a checkpoint whose files are in passes: no archive of podman's has a place for them.
///
/// # Errors
/// Conflict.
pub fn check(manifest: &Manifest) -> Result<()> {
    if manifest.pre_dumps > 0 || manifest.files.keys().any(|name| name.starts_with(DIRECTORY)) {
        let text = "it is a move's, which is in passes: start it, and take another checkpoint";
        return Err(Error::conflict(text));
    }
    Ok(())
}

/// One of a container's trees of files.
struct Tree {
    path: PathBuf,
    /// Its first archive.
    file: String,
    is_upper: bool,
    seen: Seen,
    is_begun: bool,
}

/// Takes a file's name, and what writes it.
type Put<'a> = dyn FnMut(&str, &mut dyn FnMut(&mut dyn Write) -> Result<()>) -> Result<()> + 'a;

/// A container's files, on their way into a checkpoint.
pub struct Passes {
    trees: Vec<Tree>,
    number: u32,
}

impl Passes {
    /// Of a writable layer's upper directory, and of volumes with the archives they go to.
    pub fn of(upper: PathBuf, volumes: impl IntoIterator<Item = (PathBuf, String)>) -> Passes {
        let tree = |(path, file): (PathBuf, String)| {
            let is_upper = file == ROOTFS;
            Tree { path, file, is_upper, seen: Seen::default(), is_begun: false }
        };
        let all = [(upper, ROOTFS.to_owned())].into_iter().chain(volumes);
        Passes { trees: all.map(tree).collect(), number: 0 }
    }

    /// Takes the next pass over all of it; `put` gets each file's name and who writes it. Gives the bytes that were
    /// written. A file system that does not note every change is passed over until everything is frozen.
    ///
    /// # Errors
    /// Of reading, and those of `put`.
    pub fn next(&mut self, is_frozen: bool, put: &mut Put<'_>) -> Result<u64> {
        let mut bytes = 0;
        for tree in &mut self.trees {
            if !is_frozen && !layer::is_tracked(&tree.path) {
                continue;
            }
            let pass = Pass::over(&tree.path, tree.is_upper, is_frozen, &tree.seen)?;
            if tree.is_begun && pass.is_empty() {
                continue;
            }
            let name = match tree.is_begun {
                true => format!("{DIRECTORY}/{}/{}", self.number, tree.file),
                false => tree.file.clone(),
            };
            if !pass.gone.is_empty() {
                let gone = pass.gone.join(&0);
                bytes += gone.len() as u64;
                put(&gone_of(&name), &mut |out| {
                    out.write_all(&gone).map_err(|cause| Error::system("write what is gone", cause))
                })?;
            }
            let (mut pass, mut packed) = (Some(pass), None);
            put(&name, &mut |out| {
                if let Some(pass) = pass.take() {
                    packed = Some(pass.pack(out)?);
                }
                Ok(())
            })?;
            if let Some((seen, size)) = packed {
                (tree.seen, tree.is_begun) = (seen, true);
                bytes += size;
            }
        }
        self.number += 1;
        Ok(bytes)
    }
}

fn gone_of(archive: &str) -> String {
    format!("{}.gone", archive.strip_suffix(".tar").unwrap_or(archive))
}

/// Whether a file of a checkpoint is one of a tree's archives, and then of which tree: its first archive's name.
pub fn tree_of(name: &str) -> Option<&str> {
    let first = match name.strip_prefix(DIRECTORY).and_then(|rest| rest.strip_prefix('/')) {
        Some(rest) => rest.split_once('/')?.1,
        None => name,
    };
    let is_tree = first == ROOTFS || first.strip_prefix(volumes::DIRECTORY).is_some();
    (is_tree && first.ends_with(".tar")).then_some(first)
}

/// Whether a directory of a checkpoint is one that passes are in.
pub fn is_directory(name: &str) -> bool {
    let rest = name.strip_prefix(DIRECTORY).and_then(|rest| rest.strip_prefix('/'));
    let Some(rest) = rest else { return false };
    let (number, below) = rest.split_once('/').unwrap_or((rest, ""));
    number.parse::<u16>().is_ok_and(|parsed| parsed.to_string() == number)
        && matches!(below, "" | volumes::DIRECTORY)
}

/// Unpacks one archive, and removes before what its pass found gone.
///
/// # Errors
/// It cannot be read, or leads elsewhere.
pub fn unpack_one(dir: &Path, name: &str, into: &Path) -> Result<()> {
    let open = |path: &Path| seal::open(path).map_err(|cause| Error::system(format!("open {path:?}"), cause));
    let gone = dir.join(gone_of(name));
    if gone.symlink_metadata().is_ok() {
        layer::remove_gone(open(&gone)?, into)?;
    }
    let archive: BufReader<File> = BufReader::with_capacity(256 << 10, open(&dir.join(name))?);
    match tree_of(name) {
        Some(ROOTFS) => layer::unpack(archive, into, Limits::default())?,
        _ => layer::unpack_plain(archive, into, Limits::default())?,
    };
    Ok(())
}

/// Unpacks a tree of the checkpoint in `dir` into an empty directory: its first archive, and what has changed since.
///
/// # Errors
/// As [`unpack_one`].
pub fn unpack(dir: &Path, file: &str, into: &Path) -> Result<()> {
    unpack_one(dir, file, into)?;
    let numbers = fs::read_dir(dir.join(DIRECTORY)).into_iter().flatten().flatten();
    let mut numbers: Vec<u32> =
        numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    for number in numbers {
        let name = format!("{DIRECTORY}/{number}/{file}");
        if dir.join(&name).symlink_metadata().is_ok() {
            unpack_one(dir, &name, into)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_known_by_their_names() {
        assert_eq!(tree_of("rootfs.tar"), Some(ROOTFS));
        assert_eq!(tree_of("passes/12/rootfs.tar"), Some(ROOTFS));
        assert_eq!(tree_of("passes/1/volumes/data.tar"), Some("volumes/data.tar"));
        for name in ["shm.tar", "passes/1/rootfs.gone", "images/rootfs.tar", "passes/rootfs.tar"] {
            assert_eq!(tree_of(name), None, "{name}");
        }
        assert!(is_directory("passes/1") && is_directory("passes/23/volumes"));
        for name in
            ["passes", "passes/", "passes/x", "passes/01", "passes/1/x", "passes/1/volumes/x", "volumes"]
        {
            assert!(!is_directory(name), "{name}");
        }
    }

    #[test]
    fn a_tree_comes_together_from_its_passes() {
        let dir = std::env::temp_dir().join(format!("dewar-tree-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let [upper, volume, into, checkpoint] = ["upper", "volume", "into", "cp"].map(|name| dir.join(name));
        for path in [&upper, &volume, &into, &checkpoint] {
            fs::create_dir_all(path).unwrap();
        }
        let mut passes = Passes::of(upper.clone(), [(volume.clone(), "volumes/v.tar".to_owned())]);
        let mut put = |name: &str, write: &mut dyn FnMut(&mut dyn Write) -> Result<()>| {
            let path = checkpoint.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            write(&mut File::create(path).unwrap())
        };
        for (round, is_frozen) in [(0, false), (1, false), (2, true)] {
            fs::write(volume.join(format!("file{round}")), "new").unwrap();
            fs::write(volume.join("same"), format!("round {round}")).unwrap();
            if round > 0 {
                fs::remove_file(volume.join(format!("file{}", round - 1))).unwrap();
            }
            passes.next(is_frozen, &mut put).unwrap();
        }
        unpack(&checkpoint, "volumes/v.tar", &into).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&into).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["file2", "same"]);
        assert_eq!(fs::read_to_string(into.join("same")).unwrap(), "round 2");
        fs::remove_dir_all(&dir).unwrap();
    }
}
