//! A container that reaches for the engine's own binary.

use crate::support::requires::requires;
use crate::support::{Daemon, binary, eventually};

/// Regression: CVE-2019-5736. A script whose interpreter is `/proc/self/exe` made our binary run inside, through the
/// host's writable mount, where the container's root could change it.
#[test]
fn our_program_cannot_be_changed_from_inside() {
    use std::os::unix::fs::MetadataExt;
    requires!(root);
    let daemon = Daemon::start();
    let before = std::fs::metadata(binary()).expect("the program under test");
    // It connects to a listener that never answers, and so stays.
    let script = "printf '#!/proc/self/exe inspect\\n' > /hostile; chmod +x /hostile; \
                  sleep 1000 | nc -l -p 2375 > /dev/null & exec sleep 1000";
    daemon.run_detached("web", &["--init", "-e", "DOCKER_HOST=tcp://127.0.0.1:2375"], script);
    eventually("the listener", || {
        daemon.dewar(&["exec", "web", "netstat", "-lnt"]).run().stdout.contains(":2375 ")
    });
    daemon.dewar(&["exec", "-d", "web", "/hostile"]).ok();
    let find = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline | grep -q '^/proc/self/exe inspect' && echo $p; done";
    let mut process = String::new();
    eventually("our program inside", || {
        process = daemon.dewar(&["exec", "web", "sh", "-c", find]).run().trimmed().to_owned();
        process.starts_with("/proc/") && !process.contains('\n')
    });
    // A change of mode or time asks the mount first; opening it for writing would only meet the kernel's refusal
    // to write to what is being executed.
    for target in [format!("{process}/exe"), "/proc/1/exe".to_owned(), "/sbin/docker-init".to_owned()] {
        for change in ["chmod 777", "touch -d 2000-01-01"] {
            let command = format!("{change} {target}");
            daemon.dewar(&["exec", "web", "sh", "-c", &command]).fails(1).stderr_has("Read-only file system");
        }
        daemon.dewar(&["exec", "web", "sh", "-c", &format!(": >> {target}")]).fails(1);
    }
    let after = std::fs::metadata(binary()).expect("the program under test");
    assert_eq!((before.mode(), before.mtime(), before.len()), (after.mode(), after.mtime(), after.len()));
}
