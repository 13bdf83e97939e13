//! Our own program, as no container can write to it.
//!
//! A process that is about to become a container's command runs this binary until execve, and an entry point of
//! `#!/proc/self/exe` makes the container's root run it after. Through `/proc/PID/exe` it could be opened for
//! writing, and the next start on the host would run what was written (CVE-2019-5736). The kernel refuses that
//! while the file is being executed, but not in all versions and not for ever.
//!
//! So shims are executed through a copy of the *mount* that holds the binary: detached, read-only, and in no
//! namespace, so nobody can make it writable again. The pages are the file's own; a sealed copy in
//! memory would cost as much as the binary is big.
//!
//! Sources: open_tree(2), mount_setattr(2).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;

use super::sys::mount::{self, Attributes, Reach};
use super::{Cause, Error};

/// The binary on a read-only mount of its own, for as long as this is held or something runs from it.
#[derive(Debug)]
pub struct Program {
    tree: OwnedFd,
}

impl Program {
    /// Makes the mount; `path` is the binary.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN; `ENOENT`.
    pub fn open(path: &Path) -> Result<Program, Error> {
        let failed = |cause: std::io::Error| Error {
            op: "protect".to_owned(),
            object: path.display().to_string(),
            cause: Cause::Io(cause),
        };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(CWD, path, flags).map_err(|errno| failed(errno.into()))?;
        let read_only = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
        mount::set_attributes(tree.as_fd(), read_only, Reach::One).map_err(failed)?;
        Ok(Program { tree })
    }

    /// A path to execute it by, good in this process.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.tree.as_raw_fd()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_and_cannot_be_opened_for_writing() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let file = std::env::temp_dir().join(format!("dewar-program-{}", std::process::id()));
        std::fs::copy("/bin/sh", &file).unwrap();
        let program = Program::open(&file).unwrap();
        let mut child = std::process::Command::new(program.path())
            .args(["-c", "read line"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let held = std::fs::File::open(format!("/proc/{}/exe", child.id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // Nothing runs from it any more, which is when the kernel would let a writer in.
        let through = |path: String| std::fs::OpenOptions::new().append(true).open(path).map(drop);
        let opened = through(format!("/proc/self/fd/{}", held.as_raw_fd()));
        let by_name = through(file.display().to_string());
        std::fs::remove_file(&file).unwrap();
        assert_eq!(opened.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        // The file itself can still be written to by the host: it is the way to it that is closed.
        by_name.unwrap();
    }
}
