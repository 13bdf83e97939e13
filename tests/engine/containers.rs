//! The life of a container through `dewar`.

use std::time::{Duration, Instant};

use crate::support::requires::requires;
use crate::support::{Daemon, eventually};

#[test]
fn run_passes_output_and_exit_codes() {
    requires!(root);
    let daemon = Daemon::start();
    let output = daemon.run(&[], "echo out; echo err >&2; exit 7").fails(7);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    // 128 + SIGKILL, as a shell has it.
    daemon.run(&["--init"], "kill -9 $$").fails(137);
    daemon.dewar(&["ps", "-aq"]).ok().stdout_is("");
}

#[test]
fn run_reads_standard_input_to_its_end() {
    requires!(root);
    let daemon = Daemon::start();
    let text = "line\n".repeat(50_000);
    let output = daemon.run(&["-i"], "wc -c; echo end").stdin(text.as_bytes()).ok();
    output.stdout_is(&format!("{}\nend\n", text.len()));
    // Without -i there is none.
    daemon.run(&[], "cat; echo end").stdin("lost").ok().stdout_is("end\n");
}

#[test]
fn run_moves_many_bytes_unchanged() {
    requires!(root);
    let daemon = Daemon::start();
    let text = "0123456789abcdef".repeat(1 << 18);
    let output = daemon.run(&["-i"], "cat").stdin(text.as_bytes()).ok();
    assert!(output.stdout == text, "{} bytes of {}", output.stdout.len(), text.len());
}

#[test]
fn run_sets_what_its_flags_say() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run(&["-e", "A=b c"], "echo $A").ok().stdout_is("b c\n");
    daemon
        .dewar(&[
            "run",
            "--rm",
            "--network",
            "none",
            "-e",
            "FROM_HOST",
            "busybox",
            "sh",
            "-c",
            "echo $FROM_HOST",
        ])
        .env("FROM_HOST", "yes")
        .ok()
        .stdout_is("yes\n");
    daemon.run(&["-w", "/var/tmp"], "pwd").ok().stdout_is("/var/tmp\n");
    // Made if it is not there, as Docker does.
    daemon.run(&["-w", "/new/dir"], "pwd").ok().stdout_is("/new/dir\n");
    daemon.run(&["--hostname", "here"], "hostname; cat /etc/hostname").ok().stdout_is("here\nhere\n");
    daemon.run(&["-u", "1000:50"], "id -u; id -g").ok().stdout_is("1000\n50\n");
    daemon.run(&["-u", "user"], "id -u; id -g; id -G").ok().stdout_is("1000\n1000\n1000 50\n");
    daemon.run(&["--entrypoint", "/bin/echo"], "ignored").ok().stdout_has("sh -c ignored");
    daemon.run(&["--read-only"], "touch /x 2>&1; echo $?").ok().stdout_has("Read-only file system");
    daemon.run(&["--name", "named"], "hostname").ok();
    let path = daemon.run(&[], "echo $PATH; echo $HOME; echo $HOSTNAME").ok();
    path.stdout_has("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n/root\n");
}

#[test]
fn bind_mounts_show_the_hosts_files() {
    requires!(root);
    let daemon = Daemon::start();
    let host = daemon.dir().join("shared");
    std::fs::create_dir(&host).expect("a fresh directory");
    std::fs::write(host.join("in"), "from the host\n").expect("a fresh directory");
    let writable = format!("{}:/data", host.display());
    daemon.run(&["-v", &writable], "cat /data/in; echo out > /data/out").ok().stdout_is("from the host\n");
    assert_eq!(std::fs::read_to_string(host.join("out")).expect("written in the container"), "out\n");
    let read_only = format!("{}:/data:ro", host.display());
    daemon.run(&["-v", &read_only], "echo x > /data/no 2>&1 || echo refused").ok().stdout_has("refused");
    // A single file; and a source that is missing is made, as a directory.
    let file = format!("{}:/file:ro", host.join("in").display());
    daemon.run(&["-v", &file], "cat /file").ok().stdout_is("from the host\n");
    let made = format!("{}:/made", host.join("made").display());
    daemon.run(&["-v", &made], "test -d /made").ok();
    assert!(host.join("made").is_dir());
}

#[test]
fn ps_shows_what_runs() {
    requires!(root);
    let daemon = Daemon::start();
    let id = daemon.run_detached("web", &[], "exec sleep 1000");
    assert_eq!(id.len(), 64);
    daemon.dewar(&["create", "--name", "idle", "--network", "none", "busybox", "true"]).ok();
    let running = daemon.dewar(&["ps"]).ok();
    running
        .stdout_has("CONTAINER ID")
        .stdout_has(&id[..12])
        .stdout_has("busybox")
        .stdout_has("Up ")
        .stdout_has("web");
    running.stdout_lacks("idle");
    daemon.dewar(&["ps", "-a"]).ok().stdout_has("idle").stdout_has("Created");
    daemon.dewar(&["ps", "-q", "--no-trunc"]).ok().stdout_is(&format!("{id}\n"));
    daemon
        .dewar(&["ps", "-a", "--format", "{{.Names}} {{.State}}"])
        .ok()
        .stdout_has("web running")
        .stdout_has("idle created");
    daemon.dewar(&["ps", "-aq", "--filter", "name=idle"]).ok().stdout_lacks(&id[..12]);
    daemon.dewar(&["kill", "web"]).ok();
    daemon.dewar(&["wait", "web"]).ok().stdout_is("137\n");
    daemon.dewar(&["ps", "-a"]).ok().stdout_has("Exited (137)");
}

#[test]
fn stop_asks_then_kills() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("polite", &[], "trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done");
    eventually("the trap being set", || daemon.state("polite")["Running"] == true);
    std::thread::sleep(Duration::from_millis(200));
    daemon.dewar(&["stop", "polite"]).ok().stdout_is("polite\n");
    assert_eq!(daemon.state("polite")["ExitCode"], 3);
    assert_eq!(daemon.logs("polite"), "bye\n");
    daemon.run_detached("stubborn", &[], "trap '' TERM; while :; do sleep 0.05; done");
    std::thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    daemon.dewar(&["stop", "-t", "1", "stubborn"]).ok();
    assert!(start.elapsed() >= Duration::from_millis(900), "it had a second: {:?}", start.elapsed());
    assert_eq!(daemon.state("stubborn")["ExitCode"], 137);
}

#[test]
fn kill_sends_the_signal_asked_for() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached(
        "web",
        &[],
        "trap 'echo usr1' USR1; trap 'exit 5' HUP; echo ready; while :; do sleep 0.05; done",
    );
    eventually("it being ready", || daemon.logs("web").contains("ready"));
    daemon.dewar(&["kill", "-s", "USR1", "web"]).ok();
    eventually("the signal", || daemon.logs("web").contains("usr1"));
    daemon.dewar(&["kill", "--signal", "SIGHUP", "web"]).ok();
    daemon.dewar(&["wait", "web"]).ok().stdout_is("5\n");
}

#[test]
fn the_client_passes_signals_on() {
    requires!(root);
    let daemon = Daemon::start();
    let script = "trap 'exit 6' INT; echo ready; while :; do sleep 0.05; done";
    let mut running = daemon
        .dewar(&["run", "--rm", "--name", "web", "--network", "none", "busybox", "sh", "-c", script])
        .spawn();
    eventually("it being ready", || {
        let logs = daemon.dewar(&["logs", "web"]).run();
        logs.stdout.contains("ready")
    });
    let pid = rustix::process::Pid::from_child(&running.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a child of ours");
    assert_eq!(running.wait(), 6);
}

#[test]
fn pause_stops_time_until_unpause() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done");
    eventually("it counting", || !daemon.logs("web").is_empty());
    daemon.dewar(&["pause", "web"]).ok().stdout_is("web\n");
    daemon.dewar(&["ps"]).ok().stdout_has("(Paused)");
    std::thread::sleep(Duration::from_millis(100));
    let frozen = daemon.logs("web");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(daemon.logs("web"), frozen);
    daemon.dewar(&["unpause", "web"]).ok();
    eventually("it going on", || daemon.logs("web").len() > frozen.len());
    // A paused container can be killed and removed.
    daemon.dewar(&["pause", "web"]).ok();
    daemon.dewar(&["rm", "-f", "web"]).ok().stdout_is("web\n");
}

#[test]
fn a_container_starts_again_with_its_files() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "echo run >> /count; cat /count");
    daemon.dewar(&["wait", "web"]).ok().stdout_is("0\n");
    daemon.dewar(&["start", "-a", "web"]).ok().stdout_is("run\nrun\n");
    daemon.dewar(&["start", "web"]).ok().stdout_is("web\n");
    daemon.dewar(&["wait", "web"]).ok();
    assert_eq!(daemon.logs("web"), "run\nrun\nrun\nrun\nrun\nrun\n");
}

#[test]
fn start_attached_gives_the_exit_code() {
    requires!(root);
    let daemon = Daemon::start();
    daemon
        .dewar(&["create", "--name", "web", "-i", "--network", "none", "busybox", "sh", "-c", "cat; exit 4"])
        .ok();
    daemon.dewar(&["start", "-a", "-i", "web"]).stdin("typed\n").fails(4).stdout_is("typed\n");
}

#[test]
fn attach_joins_a_running_container() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &["-i"], "read line; echo got $line; exit 2");
    daemon.dewar(&["attach", "web"]).stdin("word\n").fails(2).stdout_is("got word\n");
}

#[test]
fn top_lists_processes() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "sleep 999 & exec sleep 998");
    eventually("both processes", || {
        let top = daemon.dewar(&["top", "web"]).ok();
        top.stdout_has("PID").stdout_has("sleep 998");
        top.stdout.contains("sleep 999")
    });
}

#[test]
fn inspect_prints_json_and_templates() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    let value: serde_json::Value =
        serde_json::from_str(&daemon.dewar(&["inspect", "web"]).ok().stdout).expect("JSON");
    assert_eq!(value[0]["Name"], "/web");
    daemon
        .dewar(&["inspect", "--format", "{{.State.Status}} {{.Name}}", "web"])
        .ok()
        .stdout_is("running /web\n");
    daemon.dewar(&["inspect", "web", "nope"]).fails(1).stderr_has("nope");
}

#[test]
fn rm_needs_force_while_running() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    daemon.dewar(&["rm", "web"]).fails(1).stderr_has("running");
    daemon.dewar(&["rm", "-f", "web"]).ok().stdout_is("web\n");
    daemon.dewar(&["rm", "web"]).fails(1).stderr_has("No such container: web");
    // What can be removed is, although others cannot.
    daemon.dewar(&["create", "--name", "a1", "--network", "none", "busybox", "true"]).ok();
    daemon.dewar(&["rm", "nope", "a1"]).fails(1).stdout_is("a1\n").stderr_has("nope");
}

#[test]
fn the_network_is_none_or_the_hosts() {
    requires!(root);
    let daemon = Daemon::start();
    let none = daemon
        .run(
            &[],
            "ls /sys/class/net; cat /proc/net/route | wc -l; ping -c 1 -W 1 127.0.0.1 > /dev/null && echo up",
        )
        .ok();
    none.stdout_is("lo\n1\nup\n");
    let output =
        daemon.dewar(&["run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net"]).ok();
    assert_eq!(output.trimmed(), daemon.network().link());
}

#[test]
fn init_reaps_and_forwards() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached(
        "web",
        &["--init"],
        "(sleep 0.1 &) ; trap 'exit 8' TERM; echo ready; while :; do sleep 0.05; done",
    );
    eventually("it being ready", || daemon.logs("web").contains("ready"));
    std::thread::sleep(Duration::from_millis(300));
    let zombies =
        daemon.dewar(&["exec", "web", "sh", "-c", "grep -l '^State:.Z' /proc/[0-9]*/status | wc -l"]).ok();
    zombies.stdout_is("0\n");
    daemon.dewar(&["stop", "web"]).ok();
    assert_eq!(daemon.state("web")["ExitCode"], 8);
}

#[test]
fn many_start_at_once() {
    requires!(root);
    let daemon = Daemon::start();
    let before = daemon.leftovers();
    std::thread::scope(|scope| {
        for number in 0..16 {
            let daemon = &daemon;
            scope.spawn(move || {
                daemon
                    .run(&["--name", &format!("many-{number}")], &format!("echo {number}"))
                    .ok()
                    .stdout_is(&format!("{number}\n"));
            });
        }
    });
    before.assert_same_now();
}

#[test]
fn nothing_is_left_after_a_container() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run(&[], "true").ok();
    let before = daemon.leftovers();
    let containers = std::fs::read_dir(daemon.dir().join("data/containers")).map_or(0, Iterator::count);
    daemon.run(&["-v", "/tmp:/host", "--memory", "64m"], "echo x > /file").ok();
    daemon.run(&[], "exit 9").fails(9);
    daemon.run_detached("web", &[], "exec sleep 1000");
    daemon.dewar(&["exec", "web", "true"]).ok();
    daemon.dewar(&["rm", "-f", "web"]).ok();
    before.assert_same_now();
    eventually("container directories to be removed", || {
        std::fs::read_dir(daemon.dir().join("data/containers")).map_or(0, Iterator::count) == containers
    });
}
