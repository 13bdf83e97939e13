//! -d, -i, -t, -a, --rm, --sig-proxy, --detach-keys: what the client does with the container's streams and signals.

use rustix::process::{Pid, Signal, kill_process};

use super::{BOTH, Client, inspect};
use crate::support::requires::{docker_path, requires};
use crate::support::terminal::Terminal;
use crate::support::{Daemon, binary, eventually};

#[test]
fn attached_and_detached() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let script = "echo out; echo err >&2; cat; exit 3";
    for client in BOTH {
        let run = |flags: &[&str]| {
            client
                .on(&daemon, &["run", "--rm", "--network", "none"])
                .args(flags)
                .args(["busybox", "sh", "-c", script])
        };
        run(&[]).stdin("unread").fails(3).stdout_is("out\n").stderr_has("err\n");
        run(&["-i"]).stdin("typed\n").fails(3).stdout_is("out\ntyped\n").stderr_has("err\n");
        let output = run(&["-a", "stdout"]).fails(3);
        assert!(output.stdout == "out\n" && !output.stderr.contains("err"), "{output}");
        let output = run(&["-a", "stderr"]).fails(3);
        assert!(output.stdout.is_empty() && output.stderr.contains("err\n"), "{output}");
        client
            .on(
                &daemon,
                &["run", "--rm", "-t", "--network", "none", "busybox", "sh", "-c", "echo out; echo err >&2"],
            )
            .ok()
            .stdout_is("out\r\nerr\r\n");
        let output = run(&["-d", "-a", "stdout"]).run();
        assert!(output.code != 0 && output.stderr.contains("--attach and --detach"), "{output}");
        let id = client
            .on(&daemon, &["run", "--rm", "-d", "-i", "--name", "web", "--network", "none"])
            .args(["busybox", "sh", "-c", "read word; echo $word; exit 3"])
            .ok()
            .trimmed()
            .to_owned();
        assert_eq!(id.len(), 64);
        // Its input stays open although nobody is there.
        assert_eq!(daemon.state("web")["Running"], true);
        client.on(&daemon, &["attach", "web"]).stdin("later\n").fails(3).stdout_is("later\n");
        eventually("its removal", || daemon.dewar(&["ps", "-aq"]).ok().stdout.is_empty());
        // A start that fails removes it as well, before the client ends.
        client
            .on(&daemon, &["run", "--rm", "--name", "web", "--network", "none", "busybox", "nope"])
            .fails(127)
            .stderr_has("executable file not found in $PATH");
        daemon.dewar(&["ps", "-aq"]).ok().stdout_is("");
        // Created with an input, started with it.
        client
            .on(
                &daemon,
                &["create", "-i", "--name", "web", "--network", "none", "busybox", "sh", "-c", script],
            )
            .ok();
        client.on(&daemon, &["start", "-a", "-i", "web"]).stdin("typed\n").fails(3).stdout_is("out\ntyped\n");
        client.on(&daemon, &["start", "web"]).ok().stdout_is("web\n");
        client.on(&daemon, &["rm", "-f", "web"]).ok();
    }
}

#[test]
fn signals_reach_the_container_unless_told_otherwise() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    for client in BOTH {
        let start = |flag: &str| {
            let run = client.on(&daemon, &["run", "--name", "web", "--network", "none", flag]);
            let running = run.args(["busybox", "sh", "-c", script]).spawn();
            eventually("the container", || {
                daemon.api("GET", "/containers/web/json").status == 200
                    && daemon.logs("web").contains("ready")
            });
            let _ = kill_process(Pid::from_child(&running.child), Signal::TERM);
            running
        };
        assert_eq!(start("--sig-proxy=true").wait(), 7, "{client:?}");
        client.on(&daemon, &["rm", "web"]).ok();
        let running = start("--sig-proxy=false");
        // Long enough for the signal to have arrived, had it been sent on.
        for _ in 0..3 {
            client.on(&daemon, &["exec", "web", "true"]).ok();
        }
        drop(running);
        assert_eq!(daemon.state("web")["Running"], true, "{client:?}");
        client.on(&daemon, &["rm", "-f", "web"]).ok();
    }
}

#[test]
fn keys_detach() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let host = daemon.host();
    for client in BOTH {
        let program = match client {
            Client::Docker => docker_path().expect("required above"),
            Client::Dewar => binary(),
        };
        let name = format!("{client:?}").to_lowercase();
        let args =
            ["-H", &host, "run", "-it", "--name", &name, "--detach-keys", "ctrl-x,q", "--network", "none"];
        let mut terminal = Terminal::start(&program, &[&args[..], &["busybox", "sh"]].concat());
        terminal.expect("#");
        terminal.send("echo a$((40+2))b\n");
        terminal.expect("a42b");
        terminal.send("\u{18}q");
        terminal.wait();
        assert_eq!(inspect(&daemon, &name, "{{.State.Running}}"), "true", "{client:?}");
    }
}
