//! CRIU's logs of freezes and thaws that failed: kept in the container's directory, the newest few, until the container
//! is removed. The error that tells of the failure names the file.

use std::fs;
use std::path::{Path, PathBuf};

use crate::runtime::{self, Cause, criu};

/// In the container's directory.
const DIR: &str = "criu-logs";
/// Of one container.
const KEPT: usize = 5;

/// Where the log of an attempt would be kept: `what` is `freeze` or `thaw`, `dir` the container's.
pub fn place(dir: &Path, what: &str) -> PathBuf {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S.%6fZ");
    dir.join(DIR).join(format!("{now}-{what}.log"))
}

/// Keeps the log of a failed freeze, and names it in the error.
pub fn keep(error: runtime::Error, log: &Path, at: &Path) -> runtime::Error {
    criu::keep_log(log, at);
    mention(error, at)
}

/// Names the log kept at `at`, if there is one, in the error it is about. The oldest of many go.
pub fn mention(error: runtime::Error, at: &Path) -> runtime::Error {
    if !at.exists() {
        return error;
    }
    tidy(at.parent().unwrap_or(at));
    match error.cause {
        Cause::Refused(reason) => {
            let cause = Cause::Refused(format!("{reason} (criu's log: {})", at.display()));
            runtime::Error { cause, ..error }
        }
        _ => error,
    }
}

fn tidy(dir: &Path) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut logs: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    // Their names begin with when they were written.
    logs.sort();
    let surplus = logs.len().saturating_sub(KEPT);
    for path in &logs[..surplus] {
        if let Err(error) = fs::remove_file(path) {
            log::warn!("remove {path:?}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_named() {
        let dir = std::env::temp_dir().join(format!("dewar-criu-logs-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let log = dir.join("dump.log");
        fs::write(&log, "text").unwrap();
        let error = || runtime::Error {
            op: "freeze".into(),
            object: "container".into(),
            cause: Cause::Refused("why".into()),
        };
        let places: Vec<PathBuf> =
            (0..KEPT + 2).map(|number| place(&dir, &format!("freeze-{number}"))).collect();
        for at in &places {
            let text = keep(error(), &log, at).to_string();
            assert_eq!(text, format!("freeze container: why (criu's log: {})", at.display()));
        }
        let left = fs::read_dir(dir.join(DIR)).unwrap().count();
        assert_eq!(left, KEPT);
        assert!(places.last().unwrap().exists() && !places[0].exists());
        let nothing = keep(error(), &dir.join("none"), &place(&dir, "thaw"));
        assert_eq!(nothing.to_string(), "freeze container: why");
        fs::remove_dir_all(&dir).unwrap();
    }
}
