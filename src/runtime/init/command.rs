//! Finding the command in the container's `PATH`, and saying in Docker's words why it cannot run.
//!
//! Docker's clients derive exit codes from these texts, so they are an interface:
//! `executable file not found in $PATH` and `no such file or directory` are 127, `permission denied` is 126.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;

use crate::runtime::CommandError;
use crate::runtime::sys::process;

/// Finds what `execve` should be given for `name`, as the user we are now.
///
/// # Errors
/// Docker's text, with the exit code a shell would use.
pub fn find(name: &str, path: &str) -> Result<PathBuf, CommandError> {
    let not_found = || refuse(127, format!("exec: \"{name}\": executable file not found in $PATH"));
    if name.is_empty() {
        return Err(not_found());
    }
    if name.contains('/') {
        return match check(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(Errno::ACCESS) => Err(refuse(126, format!("exec: \"{name}\": permission denied"))),
            Err(Errno::ISDIR) => {
                Err(refuse(126, format!("exec: \"{name}\": is a directory: permission denied")))
            }
            Err(errno) => Err(refuse(127, format!("exec: \"{name}\": stat {name}: {}", phrase(errno)))),
        };
    }
    path.split(':')
        .map(|dir| Path::new(if dir.is_empty() { "." } else { dir }).join(name))
        .find(|candidate| check(candidate).is_ok())
        .ok_or_else(not_found)
}

/// Becomes the program at `path`; returns only when that fails.
pub fn execute(path: &Path, args: &[CString], env: &[CString]) -> CommandError {
    let shown = path.display();
    let Ok(file) = CString::new(path.as_os_str().as_bytes()) else {
        return refuse(127, format!("exec {shown:?}: invalid argument"));
    };
    let error = match process::exec(&file, args, env) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    let errno = Errno::from_io_error(&error).unwrap_or(Errno::INVAL);
    let code = if matches!(errno, Errno::NOENT | Errno::NOTDIR) { 127 } else { 126 };
    refuse(code, format!("exec {shown}: {}", phrase(errno)))
}

/// Whether `path` is a file this user may execute.
fn check(path: &Path) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // A seccomp profile may know stat but not faccessat2: execve will tell.
        Err(Errno::NOSYS | Errno::PERM) => Ok(()),
        other => other,
    }
}

/// The system's words for an error, as C and Go programs write them inside a sentence.
pub fn phrase(errno: Errno) -> String {
    let text = io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// The value of `key` in a list of `KEY=value`; the last one wins.
pub fn value<'a>(env: &'a [String], key: &str) -> Option<&'a str> {
    env.iter().rev().find_map(|entry| entry.strip_prefix(key)?.strip_prefix('='))
}

/// C strings for execve.
///
/// # Errors
/// The text that has a NUL inside.
pub fn c_strings<T: AsRef<OsStr>>(texts: &[T]) -> Result<Vec<CString>, String> {
    texts
        .iter()
        .map(|text| {
            let text = text.as_ref();
            CString::new(text.as_bytes()).map_err(|_| format!("{} has a NUL inside", text.display()))
        })
        .collect()
}

fn refuse(exit_code: u8, message: String) -> CommandError {
    CommandError { exit_code, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn commands_are_found_or_refused_in_dockers_words() {
        let dir = std::env::temp_dir().join(format!("dewar-command-{}", std::process::id()));
        fs::create_dir_all(dir.join("first/tool")).unwrap();
        fs::create_dir_all(dir.join("second")).unwrap();
        fs::write(dir.join("second/tool"), "").unwrap();
        fs::set_permissions(dir.join("second/tool"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.join("second/plain"), "").unwrap();
        let path = format!("/nope:{0}/first:{0}/second", dir.display());
        let text =
            |name: &str| find(name, &path).map_err(|error| (error.exit_code, error.message)).unwrap_err();

        assert_eq!(find("tool", &path).unwrap(), dir.join("second/tool"), "a directory is no command");
        let missing = (127, r#"exec: "plain": executable file not found in $PATH"#.to_owned());
        assert_eq!(text("plain"), missing);
        assert_eq!(text("").0, 127);
        assert_eq!(
            text("/no/x"),
            (127, r#"exec: "/no/x": stat /no/x: no such file or directory"#.to_owned())
        );
        let plain = dir.join("second/plain").display().to_string();
        assert_eq!(text(&plain), (126, format!("exec: \"{plain}\": permission denied")));
        let first = dir.join("first").display().to_string();
        assert_eq!(text(&first), (126, format!("exec: \"{first}\": is a directory: permission denied")));
        let below = format!("{plain}/x");
        assert_eq!(text(&below), (127, format!("exec: \"{below}\": stat {below}: not a directory")));
        let tool = dir.join("second/tool");
        // Another test's child may hold what was written open for a moment.
        let error = (0..200)
            .map(|_| execute(&tool, &c_strings(&["tool"]).unwrap(), &[]))
            .inspect(|_| std::thread::sleep(std::time::Duration::from_millis(5)))
            .find(|error| !error.message.contains("text file busy"))
            .unwrap();
        assert_eq!(error.message, format!("exec {}: exec format error", tool.display()));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_last_value_wins() {
        let env = ["PATH=/a".to_owned(), "PATHS=/b".to_owned(), "PATH=/c".to_owned()];
        assert_eq!(value(&env, "PATH"), Some("/c"));
        assert_eq!(value(&env, "HOME"), None);
        assert!(c_strings(&["a\0b"]).is_err());
    }
}
