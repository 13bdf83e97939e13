//! Copies of what runs and goes on: the original's clients notice nothing, each copy has the memory and the files of
//! the moment, and a daemon that dies in the middle leaves whole copies or none.

use std::time::Duration;

use super::network::{goes_on, published, serving};
use super::peers::{Line, PORT};
use super::{COUNTER, counting, counts_on, counts_past, exec, numbers, numbers_of};
use crate::support::requires::requires;
use crate::support::{Daemon, eventually};

/// What clones are made of on the way; nothing of it may stay.
#[track_caller]
fn nothing_on_the_way(daemon: &Daemon) {
    for dir in ["data/clones", "run/clones"] {
        let left = std::fs::read_dir(daemon.dir().join(dir)).map(Iterator::count).unwrap_or(0);
        assert_eq!(left, 0, "{dir}");
    }
}

#[test]
fn memory_and_files_are_copied_and_the_original_goes_on() {
    requires!(root, criu);
    let daemon = counting(&[]);
    exec(&daemon, "web", "echo before > /file");
    let pid = daemon.state("web")["Pid"].clone();
    let output = daemon.dewar(&["clone", "--count", "3", "--name", "copy", "web"]).ok();
    output.stdout_is("copy-1\ncopy-2\ncopy-3\n").stderr_has("web stood still for");
    assert_eq!(daemon.state("web")["Pid"], pid);
    counts_past(&daemon, numbers(&daemon).len());
    exec(&daemon, "web", "echo after > /file");
    for name in ["copy-1", "copy-2", "copy-3"] {
        counts_on(&daemon, name);
        assert!(numbers_of(&daemon, name)[0] > 5, "it began anew");
        assert_eq!(exec(&daemon, name, "cat /file"), "before\n");
    }
    nothing_on_the_way(&daemon);
    daemon.dewar(&["checkpoint", "ls", "-q", "web"]).ok().stdout_is("");
    // Three generations.
    daemon.dewar(&["clone", "--name", "second", "copy-2"]).ok();
    daemon.dewar(&["clone", "--name", "third", "second"]).ok();
    counts_on(&daemon, "third");
    assert_eq!(exec(&daemon, "third", "cat /file; hostname").lines().next(), Some("before"));
    daemon.dewar(&["checkpoint", "create", "third", "cp1"]).ok();
    daemon.dewar(&["start", "--checkpoint", "cp1", "third"]).ok();
    counts_on(&daemon, "third");
}

/// A volume in two places is one volume of the copy's, and what its processes have open is in it.
#[test]
fn volumes_are_copied_on_request() {
    requires!(root, criu);
    let daemon = Daemon::start();
    let writes = "exec 3>> /data/out; i=0; while :; do i=$((i+1)); echo $i; echo $i >&3; sleep 0.02; done";
    let volumes = ["-v", "data:/data", "-v", "data:/again", "-v", "/anon"];
    daemon.run_detached("web", &volumes, writes);
    exec(&daemon, "web", "echo named > /data/file; echo unnamed > /anon/file");
    eventually("it counting", || numbers(&daemon).len() > 5);
    let cloned = daemon.dewar(&["clone", "--copy-volumes", "--count", "2", "--name", "copy", "web"]).ok();
    assert!(!cloned.stderr.contains("is shared"), "{cloned}");
    daemon.dewar(&["checkpoint", "create", "--leave-running", "web", "cp1"]).ok();
    exec(&daemon, "web", "echo after > /data/file; echo after > /anon/file");
    daemon.dewar(&["restore", "--copy-volumes", "--name", "third", "web", "cp1"]).ok();
    let sources = |name: &str| {
        let format = "{{range .Mounts}}{{.Destination}}={{.Name}} {{end}}";
        daemon.dewar(&["inspect", "-f", format, name]).ok().trimmed().to_owned()
    };
    for name in ["copy-1", "copy-2", "third"] {
        counts_on(&daemon, name);
        assert_eq!(exec(&daemon, name, "cat /data/file /again/file /anon/file"), "named\nnamed\nunnamed\n");
        let names: Vec<String> = sources(name).split(' ').map(str::to_owned).collect();
        let of = |at: &str| names.iter().find_map(|name| name.strip_prefix(at)).expect("it is mounted");
        assert_eq!(of("/data="), of("/again="));
        assert_ne!(of("/data="), of("/anon="));
        assert!(!sources("web").contains(of("/data=")) && !sources("web").contains(of("/anon=")));
        // It writes into its own from where it was.
        let out = exec(&daemon, name, "cat /data/out");
        let out: Vec<u32> = out.lines().map(|line| line.parse().expect("a number")).collect();
        assert!(out.windows(2).all(|pair| pair[1] == pair[0] + 1), "{name}: {out:?}");
    }
    counts_past(&daemon, numbers(&daemon).len());
    // What nobody named goes with the container.
    daemon.dewar(&["rm", "-f", "-v", "copy-1", "copy-2", "third"]).ok();
    assert_eq!(daemon.dewar(&["volume", "ls", "-q"]).ok().stdout.lines().count(), 2);
    // Without a word they are shared, which is said.
    let shared = daemon.dewar(&["clone", "--name", "guest", "web"]).ok();
    shared.stderr_has("volume data is shared with the original: --copy-volumes copies it");
    nothing_on_the_way(&daemon);
}

#[test]
fn what_cannot_be_cloned_is_refused_and_runs_on() {
    requires!(root, criu);
    let daemon = counting(&[]);
    daemon.dewar(&["clone", "none-such"]).fails(1).stderr_has("none-such");
    daemon.dewar(&["clone", "--name", "web", "web"]).fails(1).stderr_has("already in use");
    daemon.dewar(&["pause", "web"]).ok();
    daemon.dewar(&["clone", "web"]).fails(1).stderr_has("paused");
    daemon.dewar(&["unpause", "web"]).ok();
    counts_past(&daemon, numbers(&daemon).len());
    nothing_on_the_way(&daemon);
    daemon.dewar(&["create", "--name", "idle", "--network", "none", "busybox", "true"]).ok();
    daemon.dewar(&["clone", "idle"]).fails(1).stderr_has("not running");
    daemon.dewar(&["ps", "-aq"]).ok();
    assert_eq!(daemon.dewar(&["ps", "-aq"]).ok().stdout.lines().count(), 2);
}

#[test]
fn clients_of_the_original_notice_nothing() {
    requires!(root, criu, docker, iproute);
    let site = serving();
    let to = published(&site);
    let mut line = site.outside.within(|| Line::open(&to));
    site.daemon.dewar(&["clone", "--count", "2", "--name", "copy", "web"]).ok();
    assert!(line.says(), "the line from outside is dead");
    goes_on(&site, "asker");
    goes_on(&site, "web");
    let beside = site.running("asker").inside;
    for name in ["copy-1", "copy-2"] {
        let mut line = beside.within(|| Line::open(&format!("{}:{PORT}", site.address(name, "shop"))));
        assert!(line.says());
        eventually("the copy talking to itself again", || {
            site.daemon.logs(name).matches("said ").count() > 3
        });
    }
    // A clone of a clone, and the original is gone: its address is free, and nobody takes it by himself.
    site.daemon.dewar(&["clone", "--name", "grandchild", "copy-1"]).ok();
    let mut line = beside.within(|| Line::open(&format!("{}:{PORT}", site.address("grandchild", "shop"))));
    assert!(line.says());
}

#[test]
fn health_checks_and_restart_policies_are_the_copys_own() {
    requires!(root, criu);
    let daemon = Daemon::start();
    let flags = [
        "--restart",
        "always",
        "--health-cmd",
        "test ! -e /ill",
        "--health-interval",
        "1s",
        "--health-retries",
        "1",
    ];
    daemon.run_detached("web", &flags, COUNTER);
    eventually("its health", || daemon.state("web")["Health"]["Status"] == "healthy");
    daemon.dewar(&["clone", "--name", "copy", "web"]).ok();
    eventually("the copy's health", || daemon.state("copy")["Health"]["Status"] == "healthy");
    exec(&daemon, "copy", "touch /ill");
    eventually("the copy's illness", || daemon.state("copy")["Health"]["Status"] == "unhealthy");
    assert_eq!(daemon.state("web")["Health"]["Status"], "healthy");
    // Its end is answered by its policy: it begins anew.
    let pid = daemon.state("copy")["Pid"].clone();
    crate::support::Cmd::new("kill").args(["-9", &pid.to_string()]).ok();
    eventually("the copy's return", || {
        let state = daemon.state("copy");
        state["Running"] == true && state["Pid"] != pid
    });
}

#[test]
fn a_daemon_killed_in_the_middle_leaves_whole_copies_or_none() {
    requires!(root, criu);
    let mut daemon = counting(&[]);
    for (round, wait) in [5, 40, 80, 120, 160, 200, 260, 330, 420, 600].into_iter().enumerate() {
        let name = format!("r{round}");
        let line = daemon.dewar(&["clone", "--count", "3", "--name", &name, "web"]).spawn();
        std::thread::sleep(Duration::from_millis(wait));
        daemon.kill9();
        drop(line);
        daemon.restart();
        // Shims that were at work come to their end first.
        eventually("copies that are whole", || {
            let list = daemon.api("GET", "/containers/json?all=1").is(200).json();
            let list = list.as_array().cloned().unwrap_or_default();
            list.iter().all(|one| one["State"] == "running")
        });
        let names = daemon.dewar(&["ps", "-a", "--format", "{{.Names}}"]).ok().stdout;
        for copy in names.lines().filter(|copy| copy.starts_with('r')) {
            counts_on(&daemon, copy);
            exec(&daemon, copy, "true");
            daemon.dewar(&["rm", "-f", copy]).ok();
        }
        counts_past(&daemon, numbers(&daemon).len());
        eventually("nothing on the way", || {
            ["data", "run"].iter().all(|dir| {
                std::fs::read_dir(daemon.dir().join(dir).join("clones")).map(Iterator::count).unwrap_or(0)
                    == 0
            })
        });
        let dirs = std::fs::read_dir(daemon.dir().join("data/containers")).expect("it is there").count();
        assert_eq!(dirs, 1, "after round {round}");
    }
    daemon.dewar(&["clone", "--name", "last", "web"]).ok();
    counts_on(&daemon, "last");
}
