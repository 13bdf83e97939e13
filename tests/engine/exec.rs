//! Further processes in a running container.

use crate::support::Daemon;
use crate::support::requires::requires;

#[test]
fn exec_runs_beside_the_first_process() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &["-e", "A=container", "--memory", "64m", "-w", "/tmp"], "exec sleep 1000");
    daemon
        .dewar(&["exec", "web", "sh", "-c", "echo out; echo err >&2; exit 3"])
        .fails(3)
        .stdout_is("out\n")
        .stderr_has("err");
    daemon.dewar(&["exec", "web", "sh", "-c", "pwd; echo $A; hostname"]).ok().stdout_has("/tmp\ncontainer\n");
    daemon
        .dewar(&["exec", "-e", "A=exec", "-w", "/", "-u", "1000", "web", "sh", "-c", "pwd; echo $A; id -u"])
        .ok()
        .stdout_is("/\nexec\n1000\n");
    // Same namespaces and same cgroup as the first process.
    for kind in ["mnt", "pid", "net", "ipc", "uts"] {
        let script = format!("test $(readlink /proc/self/ns/{kind}) = $(readlink /proc/1/ns/{kind})");
        daemon.dewar(&["exec", "web", "sh", "-c", &script]).ok();
    }
    daemon
        .dewar(&["exec", "web", "sh", "-c", "test \"$(cat /proc/self/cgroup)\" = \"$(cat /proc/1/cgroup)\""])
        .ok();
}

#[test]
fn exec_reads_standard_input() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    daemon
        .dewar(&["exec", "-i", "web", "sh", "-c", "cat; echo end"])
        .stdin("typed\n")
        .ok()
        .stdout_is("typed\nend\n");
    let text = "0123456789abcdef".repeat(1 << 16);
    let output = daemon.dewar(&["exec", "-i", "web", "cat"]).stdin(text.as_bytes()).ok();
    assert!(output.stdout == text, "{} bytes of {}", output.stdout.len(), text.len());
}

#[test]
fn exec_failures_have_their_codes() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    daemon.dewar(&["exec", "web", "nope"]).fails(127).says("executable file not found");
    daemon.dewar(&["exec", "web", "/etc/passwd"]).fails(126).says("permission denied");
    daemon.dewar(&["exec", "web", "/nope/nope"]).fails(127).says("no such file or directory");
    daemon.dewar(&["exec", "none", "true"]).fails(1).stderr_has("No such container: none");
    daemon.dewar(&["exec", "-u", "nobody-here", "web", "true"]).run().says("nobody-here");
    daemon.dewar(&["exec", "web", "sh", "-c", "kill -9 $$"]).fails(137);
    daemon.dewar(&["stop", "-t", "0", "web"]).ok();
    daemon.dewar(&["exec", "web", "true"]).fails(1).stderr_has("not running");
}

#[test]
fn exec_detached_goes_on_by_itself() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    daemon.dewar(&["exec", "-d", "web", "sh", "-c", "sleep 0.2; echo done > /tmp/mark"]).ok().stdout_is("");
    crate::support::eventually("the mark", || {
        daemon.dewar(&["exec", "web", "cat", "/tmp/mark"]).run().stdout == "done\n"
    });
}

#[test]
fn execs_end_with_the_container() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    let mut running = daemon.dewar(&["exec", "web", "sh", "-c", "echo here; exec sleep 1000"]).spawn();
    std::thread::sleep(std::time::Duration::from_millis(300));
    daemon.dewar(&["kill", "web"]).ok();
    assert_eq!(running.wait(), 137);
}
