//! The way back from an update: what each file held before it was written.
//!
//! A file's content is not always what may be written to it: lists of devices come with every device, and
//! v1's `memory.oom_control` with counters. [`before`] makes the write that restores it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{keyed, put};

/// Writes that restore a cgroup's limits.
#[derive(Debug, Default)]
pub struct Undo {
    writes: Vec<(PathBuf, String)>,
}

impl Undo {
    /// Notes what `path` holds before `value` is written to it. A file that is not there is none to restore.
    pub(super) fn note(&mut self, path: &Path, value: &str) {
        if let Ok(text) = fs::read_to_string(path) {
            self.writes.push((path.to_owned(), before(&text, value)));
        }
    }

    /// Puts everything back, the last write first. What the kernel refuses is said in the log.
    pub fn run(self) {
        // Files that bound each other (memory and swap, quota and period) may need another turn.
        let mut failed = Vec::new();
        for (path, value) in self.writes.iter().rev() {
            if put(path, value).is_err() {
                failed.push((path, value));
            }
        }
        for (path, value) in failed {
            if let Err(error) = put(path, value) {
                log::warn!("write \"{value}\" back to {path:?}: {error}");
            }
        }
    }
}

/// What to write to a file that holds `text`, to undo a write of `value`.
fn before(text: &str, value: &str) -> String {
    if let Some(disabled) = keyed(text, "oom_kill_disable") {
        return disabled.to_string();
    }
    let Some((device, limit)) = value.split_once(' ').filter(|(device, _)| device.contains(':')) else {
        return text.trim().to_owned();
    };
    let line = text.lines().find(|line| line.split(' ').next() == Some(device));
    match (line, limit.split_once('=')) {
        (Some(line), _) => line.to_owned(),
        (None, Some((key, _))) => format!("{device} {key}=max"),
        (None, None) => format!("{device} 0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_file_is_restored_in_its_own_words() {
        for (text, value, restored) in [
            ("1048576\n", "2097152", "1048576"),
            ("max 100000\n", "50000 100000", "max 100000"),
            ("0-1\n", "0", "0-1"),
            ("default 100\n", "500", "default 100"),
            ("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "1", "0"),
            ("8:0 500\n8:16 700\n", "8:16 900", "8:16 700"),
            ("8:0 500\n", "8:16 900", "8:16 0"),
            (
                "8:16 rbps=5 wbps=max riops=max wiops=max\n",
                "8:16 rbps=9",
                "8:16 rbps=5 wbps=max riops=max wiops=max",
            ),
            ("", "8:16 rbps=9", "8:16 rbps=max"),
        ] {
            assert_eq!(before(text, value), restored, "{text:?} {value:?}");
        }
    }
}
