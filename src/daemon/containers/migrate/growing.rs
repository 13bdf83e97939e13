//! Files of memory that are sent while CRIU still writes them: it writes `images/pages-1.img`, then 2 and so on, each only
//! by appending. A file is at its end when there is the next one, or when the dump is.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::daemon::containers::checkpoint::seal;
use crate::daemon::error::{Error, Result};

/// Smaller ones are sent with the rest.
const LARGE_BYTES: u64 = 1 << 20;
/// How often it is looked for more.
const PACE: Duration = Duration::from_millis(1);

const UNDER_WAY: u8 = 0;
const WRITTEN: u8 = 1;
const FAILED: u8 = 2;

/// How far the dump is.
#[derive(Default)]
pub struct Progress(AtomicU8);

impl Progress {
    /// The dump has ended: all is written, or nothing will come of it.
    pub fn ends(&self, is_written: bool) {
        self.0.store(if is_written { WRITTEN } else { FAILED }, Ordering::Release);
    }

    fn now(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }
}

/// A file that may still grow; reads as one that has its end.
pub struct Growing<'a> {
    file: File,
    next: PathBuf,
    progress: &'a Progress,
}

/// What there is to send under a number.
pub enum Found<'a> {
    File {
        name: String,
        path: PathBuf,
        content: Growing<'a>,
    },
    /// Nothing more comes.
    End,
}

impl Growing<'_> {
    /// Waits for the file of a number below `dir` to become large; `None` for one that stays small.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn wait<'a>(dir: &Path, number: u32, progress: &'a Progress) -> Result<Option<Found<'a>>> {
        let name = format!("images/pages-{number}.img");
        let (path, next) =
            (dir.join(&name), dir.join(format!("images/pages-{}.img", number.saturating_add(1))));
        loop {
            // In this order: what was written before an end is seen after it.
            let (state, has_next) = (progress.now(), next.symlink_metadata().is_ok());
            if path.symlink_metadata().is_ok_and(|meta| meta.len() >= LARGE_BYTES) {
                let file =
                    seal::open(&path).map_err(|cause| Error::system(format!("open {path:?}"), cause))?;
                return Ok(Some(Found::File { name, path, content: Growing { file, next, progress } }));
            }
            match (state, has_next) {
                (_, true) => return Ok(None),
                (UNDER_WAY, false) => std::thread::sleep(PACE),
                _ => return Ok(Some(Found::End)),
            }
        }
    }
}

impl Read for Growing<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let (state, has_next) = (self.progress.now(), self.next.symlink_metadata().is_ok());
            let count = self.file.read(into)?;
            match (count, state) {
                (1.., _) => return Ok(count),
                (0, FAILED) => return Err(io::Error::other("the dump has failed")),
                (0, UNDER_WAY) if !has_next => std::thread::sleep(PACE),
                (0, _) => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dewar-growing-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("images")).unwrap();
        dir
    }

    /// Reads everything that is found large, by number.
    fn read_all(dir: &Path, progress: &Progress) -> io::Result<Vec<(u32, Vec<u8>)>> {
        let mut all = Vec::new();
        for number in 1.. {
            match Growing::wait(dir, number, progress).unwrap() {
                None => {}
                Some(Found::End) => break,
                Some(Found::File { mut content, .. }) => {
                    let mut read = Vec::new();
                    content.read_to_end(&mut read)?;
                    all.push((number, read));
                }
            }
        }
        Ok(all)
    }

    #[test]
    fn files_are_read_whole_while_they_grow() {
        let dir = scratch("grow");
        let progress = Progress::default();
        let found = std::thread::scope(|scope| {
            let reader = scope.spawn(|| read_all(&dir, &progress));
            for (number, mebibytes) in [(1, 3), (2, 0), (3, 5), (4, 1)] {
                let mut file = File::create(dir.join(format!("images/pages-{number}.img"))).unwrap();
                for part in 0..mebibytes * 4 {
                    file.write_all(&vec![number * 16 + part; 256 << 10]).unwrap();
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            progress.ends(true);
            reader.join().unwrap().unwrap()
        });
        let sizes: Vec<_> = found.iter().map(|(number, content)| (*number, content.len() >> 20)).collect();
        assert_eq!(sizes, [(1, 3), (3, 5), (4, 1)]);
        for (number, content) in found {
            assert!(content == fs::read(dir.join(format!("images/pages-{number}.img"))).unwrap());
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_dump_that_fails_ends_it() {
        let dir = scratch("fail");
        let progress = Progress::default();
        fs::write(dir.join("images/pages-1.img"), vec![7; 2 << 20]).unwrap();
        progress.ends(false);
        assert!(read_all(&dir, &progress).is_err());
        fs::remove_dir_all(&dir).unwrap();
        fs::create_dir_all(dir.join("images")).unwrap();
        assert!(read_all(&dir, &progress).unwrap().is_empty());
        fs::remove_dir_all(&dir).unwrap();
    }
}
