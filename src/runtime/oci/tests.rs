use std::path::PathBuf;

use super::*;

fn text(said: &str, command: &str) -> Option<(u8, String)> {
    command_error(said, command).map(|error| (error.exit_code, error.message))
}

#[test]
fn runtimes_words_become_dockers() {
    let prefix = "runc create failed: unable to start container process: ";
    for (said, command, code, message) in [
        (
            format!("{prefix}exec: \"nope\": executable file not found in $PATH"),
            "nope",
            127,
            "exec: \"nope\": executable file not found in $PATH",
        ),
        (format!("{prefix}exec: \"/x\": permission denied"), "/x", 126, "exec: \"/x\": permission denied"),
        (
            "executable file `nope` not found in $PATH: No such file or directory".to_owned(),
            "nope",
            127,
            "exec: \"nope\": executable file not found in $PATH",
        ),
        (
            "executable file `/x` not found: No such file or directory".to_owned(),
            "/x",
            127,
            "exec: \"/x\": stat /x: no such file or directory",
        ),
        ("open executable: Permission denied".to_owned(), "/x", 126, "exec: \"/x\": permission denied"),
    ] {
        assert_eq!(text(&said, command), Some((code, message.to_owned())), "{said}");
    }
}

#[test]
fn what_is_not_about_the_command_is_no_command_error() {
    for said in [
        "chdir to cwd (\"/none\") set in config.json failed: no such file or directory",
        "cgroups in hybrid mode not supported",
        "",
    ] {
        assert_eq!(text(said, "/bin/sleep"), None, "{said}");
    }
    assert_eq!(text("no such file or directory", ""), None);
}

struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A container of a runtime that is a shell script.
fn foreign(name: &str, script: &str) -> (Dir, Foreign) {
    use std::os::unix::fs::PermissionsExt;
    let run_dir = std::env::temp_dir().join(format!("dewar-oci-{name}-{}", std::process::id()));
    fs::create_dir_all(run_dir.join(DIR)).unwrap();
    let path = run_dir.join("runtime");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let runtime = OciRuntime { name: "own".to_owned(), path, args: vec!["--first".to_owned()] };
    let foreign = Foreign::new(&runtime, "ID", &run_dir);
    (Dir(run_dir), foreign)
}

#[test]
fn a_call_has_the_command_line_of_runc() {
    let (dir, foreign) = foreign("line", "echo \"$@\" > \"$(dirname \"$0\")/line\"");
    foreign.kill(15).unwrap();
    let own = dir.0.join(DIR);
    let own = own.display();
    assert_eq!(
        fs::read_to_string(dir.0.join("line")).unwrap(),
        format!("--first --root {own}/state --log {own}/log.json --log-format json kill ID 15\n")
    );
}

#[test]
fn a_failure_has_the_last_error_of_the_log_or_else_of_stderr() {
    let log = "[ \"$4\" = --log ] && printf '%s\\n' '{\"level\":\"error\",\"msg\":\"first\"}' \
               '{\"level\":\"error\",\"msg\":\"exec failed: unable to start container process: last\"}' \
               '{\"level\":\"warning\",\"msg\":\"noise\"}' > \"$5\"; echo words >&2; exit 1";
    let (_dir, foreign) = foreign("log", log);
    assert_eq!(
        foreign.start().unwrap_err().to_string(),
        "OCI runtime \"own\" start failed: exec failed: unable to start container process: last"
    );
    let (_dir, foreign) = self::foreign("stderr", "echo words >&2; exit 1");
    assert_eq!(foreign.start().unwrap_err().to_string(), "OCI runtime \"own\" start failed: words");
    let (_dir, foreign) = self::foreign("silent", "exit 3");
    assert_eq!(foreign.start().unwrap_err().to_string(), "OCI runtime \"own\" start failed: exit status: 3");
}

#[test]
fn a_runtime_that_is_not_there_is_named() {
    let (dir, foreign) = foreign("gone", "");
    fs::remove_file(dir.0.join("runtime")).unwrap();
    let error = foreign.start().unwrap_err();
    assert!(matches!(error.cause, Cause::Io(_)));
    assert!(error.to_string().starts_with("run OCI runtime \"own\" ("), "{error}");
}

#[test]
fn our_files_go_and_nothing_else() {
    let (dir, foreign) = foreign("files", "");
    let own = dir.0.join(DIR);
    fs::create_dir_all(own.join("state/ID")).unwrap();
    fs::create_dir_all(own.join("mounts/0")).unwrap();
    fs::write(own.join("mounts/1"), "").unwrap();
    fs::write(own.join("config.json"), "{}").unwrap();
    foreign.delete().unwrap();
    assert!(!own.exists());
    foreign.delete().unwrap();
    // A mount point that is not empty shows something that is not ours.
    fs::create_dir_all(own.join("mounts/0/theirs")).unwrap();
    foreign.delete().unwrap_err();
    assert!(own.join("mounts/0/theirs").exists());
}
