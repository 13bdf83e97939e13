//! What is said when a command cannot do what it is asked, and what it exits with: scripts match on both.

use super::{BOTH, inspect};
use crate::support::requires::requires;
use crate::support::{Daemon, eventually};

#[test]
fn a_command_that_cannot_be_run() {
    requires!(root, docker);
    let daemon = Daemon::start();
    for client in BOTH {
        let name = format!("{client:?}").to_lowercase();
        // The client's code is read from the text; the container keeps the engine's own.
        for (words, code, kept, text) in [
            (&["nope"][..], 127, "127", "exec: \"nope\": executable file not found in $PATH"),
            (&["/nope"], 127, "127", "exec: \"/nope\": stat /nope: no such file or directory"),
            (&["/etc/passwd"], 126, "126", "exec: \"/etc/passwd\": permission denied"),
            (&["/etc"], 126, "126", "exec: \"/etc\": is a directory: permission denied"),
            (&["/etc/passwd/x"], 125, "127", "stat /etc/passwd/x: not a directory"),
        ] {
            let run =
                client.on(&daemon, &["run", "--name", &name, "--network", "none", "busybox"]).args(words);
            run.fails(code).stderr_has(text);
            assert_eq!(
                inspect(&daemon, &name, "{{.State.Status}} {{.State.ExitCode}}"),
                format!("created {kept}")
            );
            assert!(inspect(&daemon, &name, "{{.State.Error}}").contains(text));
            client
                .on(&daemon, &["start", &name])
                .fails(1)
                .stderr_has(text)
                .stderr_has(&format!("failed to start containers: {name}"));
            client.on(&daemon, &["start", "-a", &name]).fails(1).stderr_has(text);
            client.on(&daemon, &["rm", &name]).ok();
        }
        let run = |script: &str| client.run(&daemon, "", script);
        run("exit 42").fails(42);
        run("sh -c 'kill -11 $$'; exit $?").fails(139);
        run("printf '#!/no/interpreter\\n' > /x; chmod +x /x; exec /x").fails(127);
        client.run(&daemon, "--init", "kill -9 $$").fails(137);
    }
}

#[test]
fn names_and_states_that_are_in_the_way() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let web = daemon.run_detached("web", &[], "exec sleep 1000");
    daemon.run_detached("frozen", &[], "exec sleep 1000");
    daemon.dewar(&["pause", "frozen"]).ok();
    let done = daemon
        .dewar(&["create", "--name", "done", "--network", "none", "busybox", "true"])
        .ok()
        .trimmed()
        .to_owned();
    daemon.dewar(&["start", "-a", "done"]).ok();
    let conflict = format!(
        "Conflict. The container name \"/web\" is already in use by container \"{web}\". You have to remove (or rename) \
         that container to be able to reuse that name."
    );
    let bad_name = "Invalid container name (bad name), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed";
    let not_running = format!("container {done} is not running");
    for client in BOTH {
        for (words, code, text) in [
            (&["run", "-d", "--name", "web", "busybox", "true"][..], 125, conflict.as_str()),
            (&["create", "--name", "web", "busybox", "true"], 1, &conflict),
            (&["create", "--name", "bad name", "busybox", "true"], 1, bad_name),
            (&["create", "--name", "x", "busybox", "true"], 1, "Invalid container name (x)"),
            (&["rename", "done", "web"], 1, &conflict),
            (&["rename", "done", "bad name"], 1, bad_name),
            (&["rename", "done", "done"], 1, "Renaming a container with the same name as its current name"),
            (&["rename", "none", "other"], 1, "No such container: none"),
            (&["rm", "web"], 1, "cannot remove container \"/web\": container is running"),
            (&["rm", "frozen"], 1, "container is paused and must be unpaused first"),
            (&["kill", "done"], 1, &not_running),
            (&["kill", "-s", "BOGUS", "web"], 1, "Invalid signal: BOGUS"),
            (&["kill", "-s", "0", "web"], 1, "Invalid signal: 0"),
            (&["kill", "-s", "65", "web"], 1, "Invalid signal: 65"),
            (&["pause", "frozen"], 1, "is already paused"),
            (&["pause", "done"], 1, &not_running),
            (&["unpause", "web"], 1, "is not paused"),
            (&["start", "frozen"], 1, "cannot start a paused container, try unpause instead"),
            (&["attach", "done"], 1, "You cannot attach to a stopped container, start it first"),
            (&["attach", "frozen"], 1, "You cannot attach to a paused container, unpause it first"),
            (&["top", "done"], 1, &not_running),
            (&["top", "web", "-Z"], 1, "-Z"),
            (&["top", "web", "-o", "cmd"], 1, "Couldn't find PID field in ps output"),
        ] {
            client.on(&daemon, words).fails(code).stderr_has(text);
        }
        for command in
            ["start", "stop", "restart", "kill", "pause", "unpause", "rm", "wait", "logs", "top", "attach"]
        {
            client.on(&daemon, &[command, "none"]).fails(1).stderr_has("No such container: none");
        }
        // Some of several: those that can, do.
        client
            .on(&daemon, &["start", "done", "none", "web"])
            .fails(1)
            .stdout_is("done\nweb\n")
            .stderr_has("No such container: none")
            .stderr_has("failed to start containers: none");
        client.on(&daemon, &["wait", "done"]).ok().stdout_is("0\n");
        client.on(&daemon, &["start", "web"]).ok().stdout_is("web\n");
        client
            .on(&daemon, &["top", "web"])
            .ok()
            .stdout_has("UID")
            .stdout_has("STIME")
            .stdout_has("sleep 1000");
        client.on(&daemon, &["top", "web", "aux"]).ok().stdout_has("%MEM").stdout_has("COMMAND");
    }
    daemon.dewar(&["unpause", "frozen"]).ok();
}

#[test]
fn signals_by_name_and_number() {
    requires!(root, docker);
    let daemon = Daemon::start();
    // busybox knows no names for real-time signals.
    let script =
        "for s in USR1 HUP 36 64; do trap \"echo got $s\" $s; done; echo ready; while :; do sleep 0.02; done";
    daemon.run_detached("web", &[], script);
    eventually("it being ready", || daemon.logs("web").contains("ready"));
    for client in BOTH {
        let mut sent = 0;
        for (signal, said) in
            [("USR1", "USR1"), ("sigusr1", "USR1"), ("1", "HUP"), ("RTMIN+2", "36"), ("SIGRTMAX", "64")]
        {
            let before = daemon.logs("web").matches(&format!("got {said}\n")).count();
            client.on(&daemon, &["kill", "-s", signal, "web"]).ok().stdout_is("web\n");
            eventually(signal, || daemon.logs("web").matches(&format!("got {said}\n")).count() == before + 1);
            sent += 1;
        }
        assert_eq!(sent, 5);
    }
}
