//! Supervisors are told: sd_notify's socket, a readiness descriptor, a pid file.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, TempDir, binary};

fn next(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let count = socket.recv(&mut buffer).expect("a notification within the time");
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

#[test]
fn systemd_hears_of_readiness_reloads_the_watchdog_and_the_end() {
    requires!(root);
    let name = format!("dewar-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let socket = UnixDatagram::bind_addr(&address).expect("a name of ours");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let env = [("NOTIFY_SOCKET", format!("@{name}")), ("WATCHDOG_USEC", "400000".to_owned())];
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    // An abstract name is of the machine's network.
    let mut daemon = Daemon::on_host(&[], &env);
    assert!(next(&socket).starts_with("READY=1\n"));
    assert_eq!(next(&socket), "WATCHDOG=1");
    let pid = Pid::from_raw(daemon.pid().cast_signed()).expect("a pid");
    kill_process(pid, Signal::HUP).expect("the daemon runs");
    let mut told = next(&socket);
    while told == "WATCHDOG=1" {
        told = next(&socket);
    }
    assert!(told.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{told}");
    assert_eq!(next(&socket), "READY=1");
    assert_eq!(daemon.stop(), 0);
    let mut last = next(&socket);
    while last == "WATCHDOG=1" {
        last = next(&socket);
    }
    assert_eq!(last, "STOPPING=1");
}

#[test]
fn a_pid_file_of_nobody_or_of_another_program_is_overwritten() {
    requires!(root);
    let dir = TempDir::new();
    let path = dir.path().join("sub/dewar.pid");
    let path_text = path.display().to_string();
    // Process 1 lives and is no dewar daemon.
    for stale in ["", "1\n", "4194304\n", "words"] {
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("a fresh directory");
        std::fs::write(&path, stale).expect("a fresh directory");
        let mut daemon = Daemon::with(&["--pidfile", &path_text], &[]);
        let written = std::fs::read_to_string(&path).expect("it is written before the daemon answers");
        assert_eq!(written.trim(), daemon.pid().to_string(), "over {stale:?}");
        assert_eq!(daemon.stop(), 0);
        assert!(!path.exists(), "it is removed at the end");
    }
    // A daemon's that lives is not, and stays.
    let first = Daemon::with(&["--pidfile", &path_text], &[]);
    let at = |name: &str| dir.path().join(name).display().to_string();
    let host = format!("unix://{}", at("s"));
    let roots = ["--data-root", &at("data"), "--exec-root", &at("run"), "-H", &host];
    let output = Cmd::new(binary()).arg("daemon").args(roots).args(["--pidfile", &path_text]).run();
    assert_eq!(output.code, 1, "{output}");
    output.stderr_has(&format!("process with PID {} is still running", first.pid()));
    assert_eq!(std::fs::read_to_string(&path).expect("still there").trim(), first.pid().to_string());
    assert!(!dir.path().join("s").exists(), "the second leaves no socket");
}
