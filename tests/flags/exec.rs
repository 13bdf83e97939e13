//! `exec` with each of its flags.

use super::{BOTH, file};
use crate::support::requires::requires;
use crate::support::{Daemon, eventually};

#[test]
fn identity_environment_and_place() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let list = file(&daemon, "env", "F=file\nDEWAR_SURELY_UNSET\n");
    let flags = [
        "-u",
        "user",
        "-e",
        "A=1",
        "-e",
        "Z=1",
        "-w",
        "/tmp",
        "--group-add",
        "77",
        "--hostname",
        "box",
        "--read-only",
    ];
    daemon.run_detached("web", &flags, "exec sleep 1000");
    let id = "echo $(id -u):$(id -g) $(id -G | tr ' ' '\\n' | sort -n | tr '\\n' ' ')$HOME; pwd; umask";
    for client in BOTH {
        let exec = |flags: &[&str], script: &str| {
            client.on(&daemon, &["exec"]).args(flags).args(["web", "sh", "-c", script])
        };
        exec(&[], id).ok().stdout_is("1000:1000 50 77 1000 /home\n/tmp\n0022\n");
        exec(&["-u", "0"], id).ok().stdout_is("0:0 0 77 /root\n/tmp\n0022\n");
        exec(&["-u", "4242:50", "-w", "/"], id).ok().stdout_is("4242:50 50 77 /\n/\n0022\n");
        let output = exec(&["--env-file", &list, "-e", "A=2", "-e", "B=3", "-e", "Z"], "env | sort").ok();
        for part in ["A=2\n", "B=3\n", "F=file\n", "HOME=/home\n", "HOSTNAME=box\n"] {
            output.stdout_has(part);
        }
        output.stdout_lacks("TERM=").stdout_lacks("Z=").stdout_lacks("DEWAR_SURELY_UNSET");
        exec(&["-t"], "echo $TERM; test -t 1 && echo tty").ok().stdout_is("xterm\r\ntty\r\n");
        exec(&["-i"], "cat").stdin("typed\n").ok().stdout_is("typed\n");
        exec(&[], "cat").stdin("unread\n").ok().stdout_is("");
        let status = "grep -E '^(CapEff|Seccomp):' /proc/self/status | tr -d '\\t'; touch /x 2>&1";
        exec(&["-u", "0"], status)
            .fails(1)
            .stdout_has("CapEff:00000000a80425fb\nSeccomp:2\n")
            .stdout_has("Read-only");
        let output = exec(&["-u", "0", "--privileged"], status).fails(1);
        output.stdout_lacks("CapEff:00000000a80425fb").stdout_has("CapEff:");
        let same =
            "test \"$(cat /proc/self/cgroup)\" = \"$(cat /proc/1/cgroup)\" && cat /proc/self/oom_score_adj";
        exec(&[], same).ok().stdout_is("0\n");
        exec(&["-d"], "echo x > /dev/shm/detached").ok().stdout_is("");
        eventually("the detached one", || exec(&[], "cat /dev/shm/detached").run().stdout == "x\n");
        exec(&["-u", "0"], "rm /dev/shm/detached").ok();
    }
}

#[test]
fn codes_and_texts() {
    requires!(root, docker);
    let daemon = Daemon::start();
    daemon.run_detached(
        "web",
        &[],
        "printf '#!/no/interpreter\\n' > /script; chmod +x /script; exec sleep 1000",
    );
    eventually("the script", || daemon.dewar(&["exec", "web", "test", "-x", "/script"]).run().code == 0);
    for client in BOTH {
        let exec = |args: &[&str]| client.on(&daemon, &["exec"]).args(args);
        exec(&["web", "sh", "-c", "exit 9"]).fails(9);
        exec(&["web", "sh", "-c", "kill -9 $$"]).fails(137);
        exec(&["web", "sh", "-c", "kill -15 $$"]).fails(143);
        for (command, code, text) in [
            ("nope", 127, "exec: \"nope\": executable file not found in $PATH"),
            ("/nope", 127, "exec: \"/nope\": stat /nope: no such file or directory"),
            ("/script", 127, "no such file or directory"),
            ("/etc/passwd", 126, "exec: \"/etc/passwd\": permission denied"),
            ("/etc", 126, "exec: \"/etc\": is a directory"),
        ] {
            let output = exec(&["web", command]).fails(code);
            output.says("OCI runtime exec failed: exec failed: unable to start container process: ");
            output.says(text);
        }
        exec(&["-d", "web", "nope"]).fails(1).stderr_has("executable file not found");
        exec(&["-u", "nosuch", "web", "true"])
            .fails(126)
            .says("unable to find user nosuch: no matching entries in passwd file");
        exec(&["-w", "/etc/passwd", "web", "true"]).fails(126).says("not a directory");
        exec(&["-it", "web", "true"]).fails(1).stderr_has("the input device is not a TTY");
        exec(&["none", "true"]).fails(1).stderr_has("No such container: none");
    }
}

#[test]
fn beside_host_processes_and_in_states_that_forbid_it() {
    requires!(root, docker);
    let daemon = Daemon::start();
    daemon.run_detached("hosts", &["--pid", "host"], "exec sleep 1000");
    daemon.run_detached("frozen", &[], "exec sleep 1000");
    daemon.dewar(&["pause", "frozen"]).ok();
    daemon.dewar(&["create", "--name", "fresh", "--network", "none", "busybox", "true"]).ok();
    let id = daemon
        .dewar(&["run", "-d", "--name", "done", "--network", "none", "busybox", "true"])
        .ok()
        .trimmed()
        .to_owned();
    daemon.dewar(&["wait", "done"]).ok();
    let host = std::fs::read_link("/proc/self/ns/pid").expect("a kernel with namespaces");
    for client in BOTH {
        let exec = |name: &str, script: &str| client.on(&daemon, &["exec", name, "sh", "-c", script]);
        exec("hosts", "readlink /proc/self/ns/pid").ok().stdout_is(&format!("{}\n", host.display()));
        exec("frozen", "true").fails(1).stderr_has("is paused, unpause the container before exec");
        exec("fresh", "true").fails(1).stderr_has("is not running");
        exec("done", "true").fails(1).stderr_has(&format!("container {id} is not running"));
        // Only the container's own processes.
        let output = client.on(&daemon, &["top", "hosts", "-o", "pid,comm,args"]).ok();
        let lines: Vec<Vec<&str>> =
            output.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["PID", "COMMAND", "COMMAND"]);
        assert_eq!(lines[1][1..], ["sleep", "sleep", "1000"], "{output}");
        assert_eq!(lines.len(), 2);
    }
    daemon.dewar(&["unpause", "frozen"]).ok();
}
