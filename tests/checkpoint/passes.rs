//! What goes ahead of a move while the container runs: its files, in passes, the layers that are missing, its logs.

use std::path::{Path, PathBuf};

use super::migrate::{Cut, Way, containers, is_clean, other};
use super::peers;
use super::{COUNTER, counting, counts_past, numbers};
use crate::support::requires::{criu_path, requires};
use crate::support::{Cmd, Daemon, eventually};

/// Writes, replaces, renames and removes files without a pause, in its root and in a volume.
const RESTLESS: &str = "
    mkdir -p /work /data/work; i=0
    while :; do
        i=$((i+1)); echo $i
        for top in /work /data/work; do
            echo $i >$top/written$((i%20)); echo $i >>$top/appended
            echo $i >$top/new; mv $top/new $top/renamed$((i%5))
            rm -f $top/written$(((i+10)%20)); ln -sf $i $top/link; chmod $((600+i%8)) $top/appended
            rm -rf $top/directory$((i%3)); mkdir $top/directory$((i%3)); echo $i >$top/directory$((i%3))/inside
        done
        rm -f /etc/group$((i%4)); cp /etc/group /etc/group$((i%4))
    done";

/// All there is to tell of a tree's files.
fn told(tree: &Path) -> String {
    let script = "cd \"$1\" && find . -printf '%P %y %m %U %G %n %l ' -a \\( -type d -printf '\\n' -o -printf '%s %T@\\n' \\) | \
        sed 's/\\(^[^ ]* d [^ ]* [^ ]* [^ ]*\\) .*/\\1/' | sort && find . -type f | sort | xargs -r -d '\\n' md5sum";
    Cmd::new("sh").args(["-c", script, "sh"]).arg(tree).ok().stdout
}

/// Where the container `web` has its own files and those of the volume `data`, on the host.
fn trees(daemon: &Daemon) -> [PathBuf; 2] {
    let id = daemon.dewar(&["inspect", "-f", "{{.Id}}", "web"]).ok().trimmed().to_owned();
    let data = daemon.dir().join("data");
    [data.join("containers").join(id).join("rw-0/upper"), data.join("volumes/data/_data")]
}

#[test]
fn files_that_change_meanwhile_are_as_they_were_frozen() {
    requires!(root, criu);
    let (here, there) = (Daemon::start(), Daemon::start());
    here.run_detached("web", &["-v", "data:/data"], RESTLESS);
    // More than may come while it stands still.
    let large =
        "dd if=/dev/urandom of=/data/large bs=1M count=40; dd if=/dev/urandom of=/large bs=1M count=40";
    here.dewar(&["exec", "web", "sh", "-c", large]).ok();
    eventually("it working", || numbers(&here).len() > 50);
    let way = Way::to(&there);
    way.cuts(Cut::At("{\"commit\"", false));
    let mut client = here.dewar(&["migrate", "-q", "web", &way.host()]).spawn();
    let is_waiting = |daemon: &Daemon| {
        daemon.dewar(&["start", "web"]).run().stderr.contains("start --checkpoint migration-")
    };
    let patience = std::time::Duration::from_secs(60);
    crate::support::within(patience, "both in doubt", || is_waiting(&here) && is_waiting(&there));
    drop(client.child.kill());
    client.wait();
    assert!(way.late() < 20 << 20, "{} bytes came while it stood still", way.late());
    for (from, to) in trees(&here).iter().zip(&trees(&there)) {
        let (from, to) = (told(from), told(to));
        assert!(from == to, "--- here\n{from}--- there\n{to}");
        assert!(from.contains("appended") && from.contains("large"), "{from}");
    }
    // The checkpoint has it all as well, on either side.
    let said = there.dewar(&["start", "web"]).fails(1).stderr;
    let name = said.split("--checkpoint ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a name");
    let archive = there.dir().join("cp.tar").display().to_string();
    let export = ["checkpoint", "export", "web", name, "-o", &archive];
    there.dewar(&export).args(["--format", "podman"]).fails(1).stderr_has("in passes");
    there.dewar(&export).ok();
    there.dewar(&["start", "--checkpoint", name, "web"]).ok();
    counts_past(&there, numbers(&there).len());
    here.dewar(&["rm", "web"]).ok();
    let count = "cmp /large /data/large; test $(wc -l </work/appended) -gt 50 && tail -1 /work/appended";
    there.dewar(&["exec", "web", "sh", "-c", count]).ok();
    there.dewar(&["rm", "-f", "web"]).ok();
    // And goes to a third, in one file.
    let (third, image) = (Daemon::start(), there.dir().join("image.tar").display().to_string());
    here.dewar(&["save", "-o", &image, "busybox"]).ok();
    third.dewar(&["load", "-i", &image]).ok();
    third.dewar(&["checkpoint", "import", "--start", &archive]).ok();
    eventually("it going on", || third.logs("web").lines().count() > 3);
    third.dewar(&["exec", "web", "sh", "-c", count]).ok();
}

#[test]
fn only_layers_that_are_missing_are_sent() {
    requires!(root, criu);
    let (here, there) = (Daemon::start(), Daemon::start());
    here.run_detached("maker", &[], "echo new >/layer; sleep 1000");
    eventually("it", || here.dewar(&["exec", "maker", "cat", "/layer"]).run().stdout == "new\n");
    here.dewar(&["commit", "maker", "more"]).ok();
    here.dewar(&["rm", "-f", "maker"]).ok();
    here.dewar(&["run", "-d", "--name", "web", "--network", "none", "more", "sh", "-c", COUNTER]).ok();
    eventually("it counting", || numbers(&here).len() > 3);
    let told = here.dewar(&["migrate", "web", &there.host()]).ok();
    told.stdout_has("Sending the image: 1 of 2 layers");
    counts_past(&there, numbers(&there).len());
    assert_eq!(there.dewar(&["exec", "web", "cat", "/layer"]).ok().stdout, "new\n");
    there.dewar(&["run", "--rm", "--network", "none", "more", "cat", "/layer"]).ok().stdout_is("new\n");
    there.dewar(&["rm", "-f", "web"]).ok();
}

/// One that is put aside while it moves, and those before.
#[test]
fn logs_that_were_put_aside_come_along() {
    requires!(root, criu);
    for options in [
        &["--log-opt", "max-size=2k", "--log-opt", "max-file=200"][..],
        &["--log-opt", "max-size=2k", "--log-opt", "max-file=200", "--log-opt", "compress=true"],
        &["--log-driver", "local", "--log-opt", "max-size=2k", "--log-opt", "max-file=200"],
    ] {
        let here = counting(options);
        let there = other();
        eventually("logs being put aside", || numbers(&here).len() > 60);
        here.dewar(&["migrate", "-q", "web", &there.host()]).ok();
        // From the first number on.
        counts_past(&there, numbers(&there).len());
        assert_eq!(containers(&here), []);
        is_clean(&there);
        there.dewar(&["rm", "-f", "web"]).ok();
    }
}

/// Files of memory that are sent while they are written, and memory that is read in when it runs over there.
#[test]
fn memory_comes_whole_at_once_or_by_and_by() {
    requires!(root, criu);
    let (here, there) = (Daemon::start(), Daemon::start());
    peers::run(&here, "web", &["--network", "none"], &format!("{}64", peers::MEMORY));
    let wholes = |daemon: &Daemon| {
        let logs = daemon.logs("web");
        assert!(!logs.contains("broken"), "{logs}");
        logs.matches("whole").count()
    };
    eventually("its memory being there", || wholes(&here) > 2);
    for (from, to, flags) in
        [(&here, &there, &["-q", "--lazy"][..]), (&there, &here, &["-q"]), (&here, &there, &["-q", "--lazy"])]
    {
        from.dewar(&["migrate"]).args(flags).args(["web", &to.host()]).ok();
        // It goes away when the memory has been read, and not before.
        let before = wholes(to);
        eventually("its memory being whole", || wholes(to) > before + 3);
        is_clean(to);
        assert_eq!(containers(from), []);
    }
    there
        .dewar(&["migrate", "--resolve", "--lazy", "web", &here.host()])
        .fails(1)
        .stderr_has("--resolve begins nothing");
    there.dewar(&["rm", "-f", "web"]).ok();
}

/// tests/boot has a kernel that does, wherever this runs.
#[test]
fn memory_goes_ahead_only_where_the_kernel_notes_what_changes() {
    requires!(root, criu);
    let (here, there) = (counting(&[]), other());
    let is_noted = Cmd::new(criu_path().expect("required above"))
        .args(["check", "--feature", "mem_dirty_track"])
        .run()
        .code
        == 0;
    let migrate = |choice: &str| {
        here.dewar(&["migrate", "--progress", "json", "--pre-copy", choice, "web", &there.host()])
    };
    here.dewar(&["migrate", "--pre-copy", "often", "web", &there.host()])
        .fails(1)
        .stderr_has("--pre-copy=often: it is one of auto, always, never");
    here.dewar(&["migrate", "--pre-copy", "always", "--lazy", "web", &there.host()])
        .fails(1)
        .stderr_has("--pre-copy=always and --lazy do not go together");
    if is_noted {
        let told = migrate("always").ok();
        assert!(!told.stdout.contains("\"PreCopiedBytes\":0"), "{}", told.stdout);
    } else {
        migrate("always")
            .fails(1)
            .stderr_has("Cannot migrate container web: --pre-copy: this kernel does not note");
        counts_past(&here, numbers(&here).len());
        migrate("auto").ok().stdout_has("\"PreCopiedBytes\":0");
    }
    counts_past(&there, numbers(&there).len());
    is_clean(&here);
    is_clean(&there);
}
