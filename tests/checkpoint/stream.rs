//! Checkpoints that go to their client while they are made: what comes out of them, what is on the daemon's disk meanwhile,
//! and what becomes of a container whose client, CRIU or disk fails.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::{counting, counts_on, counts_past, exec, numbers, numbers_of};
use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, TempDir, eventually};

/// Megabytes that nobody can foretell, in a shell variable; a needle among it; and what the two come to, again and again.
const KEEPER: &str = "s=$(head -c 6000000 /dev/urandom | base64); n=needle; n=$n-in-memory; \
                      while :; do echo \"$s$n\" | md5sum; sleep 0.05; done";

/// A daemon with a container `web` that keeps something in mind.
fn keeping() -> Daemon {
    let daemon = Daemon::start();
    daemon.run_detached("web", &["-v", "data:/data", "--tmpfs", "/scratch"], KEEPER);
    eventually("it having something", || daemon.logs("web").lines().count() > 1);
    daemon
}

/// What a container has said that it keeps: always the same.
#[track_caller]
fn kept(daemon: &Daemon, name: &str) -> String {
    let logs = daemon.logs(name);
    let first = logs.lines().next().expect("it has said something").to_owned();
    assert!(logs.lines().all(|line| line == first), "its memory has changed:\n{logs}");
    first
}

#[track_caller]
fn keeps_on(daemon: &Daemon, name: &str) {
    let before = daemon.logs(name).lines().count();
    eventually("it going on", || daemon.logs(name).lines().count() > before + 1);
}

/// Every file below the daemon's directories in which there is `needle`, or that is one of CRIU's images.
fn traces(daemon: &Daemon, needle: &str) -> String {
    let grep = Cmd::new("grep").args(["-rlsaF", "-D", "skip", needle]).arg(daemon.dir()).run().stdout;
    let images = Cmd::new("find").arg(daemon.dir()).args(["-type", "f", "-name", "*.img"]).ok().stdout;
    format!("{grep}{images}")
}

/// What a stream has in the containers' directories.
fn scratch(daemon: &Daemon) -> Vec<PathBuf> {
    let found =
        Cmd::new("find").arg(daemon.dir().join("data/containers")).args(["-name", "stream"]).ok().stdout;
    found.lines().map(PathBuf::from).collect()
}

fn size(dir: &Path) -> u64 {
    let files = Cmd::new("find").arg(dir).args(["-type", "f", "-printf", "%s\\n"]).ok().stdout;
    files.lines().map(|line| line.parse::<u64>().expect("a number")).sum()
}

#[test]
fn no_memory_is_on_disk_and_a_client_that_is_gone_lets_it_run_on() {
    requires!(root, criu);
    let daemon = keeping();
    let flags = ["checkpoint", "create", "-o", "-", "--output-compress", "none", "web", "cp1"];
    let mut client = daemon.dewar(&flags).spawn();
    let mut first = vec![0; 1 << 20];
    client.child.stdout.as_mut().expect("a pipe").read_exact(&mut first).expect("the archive begins");
    // Megabytes are still to come, and nobody takes them: it stands still in the middle of its dump.
    let dirs = scratch(&daemon);
    assert_eq!(dirs.len(), 1, "{dirs:?}");
    assert!(size(&dirs[0]) < 64 << 10, "{} bytes in {dirs:?}", size(&dirs[0]));
    assert_eq!(traces(&daemon, "needle-in-memory"), "");
    drop(client);
    keeps_on(&daemon, "web");
    kept(&daemon, "web");
    assert_eq!(daemon.state("web")["Status"], "running");
    eventually("nothing of it staying", || scratch(&daemon).is_empty());
    // A disk that is full, too; and one that takes it all.
    let output = daemon.dewar(&["checkpoint", "create", "-o", "/dev/full", "web", "cp1"]).fails(1);
    output.stderr_has("write \"/dev/full\"").stderr_has("No space left on device");
    keeps_on(&daemon, "web");
    daemon.dewar(&["checkpoint", "ls", "web"]).ok().stdout_lacks("cp1");
}

#[test]
fn what_was_streamed_comes_back_whole_or_not_at_all() {
    requires!(root, criu);
    let daemon = keeping();
    exec(&daemon, "web", "for d in '' /dev/shm /scratch /data; do echo $d > $d/file; done; rm /bin/vi");
    let dir = TempDir::new();
    let file = |name: &str| dir.path().join(name);
    let path = |name: &str| file(name).display().to_string();
    let flags = ["checkpoint", "create", "--output-compress", "none", "-o", &path("cp1"), "web", "cp1"];
    daemon.dewar(&flags).ok().stdout_is("cp1\n").no_panic();
    assert_eq!(daemon.state("web")["Status"], "exited");
    assert_eq!(traces(&daemon, "needle-in-memory"), "");
    assert_eq!(scratch(&daemon), Vec::<PathBuf>::new());
    let whole = std::fs::read(file("cp1")).expect("it was written");
    assert!(whole.windows(16).any(|window| window == b"needle-in-memory"));
    let import =
        |name: &str, from: &str| daemon.dewar(&["checkpoint", "import", "--trust", "--name", name, from]);
    // Its last members are all that is missing; and then much more is.
    for length in [whole.len() - (6 << 10), whole.len() / 2] {
        std::fs::write(file("cut"), &whole[..length]).expect("a directory of ours");
        import("cut", &path("cut")).fails(1).stderr_has("the archive is damaged").no_panic();
    }
    import("copy", &path("cp1")).arg("--start").ok().stdout_is("copy cp1\n");
    keeps_on(&daemon, "copy");
    assert_eq!(kept(&daemon, "copy"), kept(&daemon, "web"));
    let look = "cat /file /dev/shm/file /scratch/file /data/file; test -e /bin/vi || echo gone";
    assert_eq!(exec(&daemon, "copy", look), "\n/dev/shm\n/scratch\n/data\ngone\n");
}

#[test]
fn a_stream_is_encrypted_on_its_way_and_the_container_may_run_on() {
    requires!(root, criu);
    let daemon = counting(&[]);
    let dir = TempDir::new();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(dir.path().join("phrase"), "open sesame\n").expect("a directory of ours");
    let (phrase, sealed) = (path("phrase"), path("sealed"));
    let flags = ["--leave-running", "--passphrase-file", &phrase, "-o", &sealed, "web", "cp1"];
    daemon.dewar(&[&["checkpoint", "create"], &flags[..]].concat()).ok().stdout_is("cp1\n");
    counts_past(&daemon, numbers(&daemon).len());
    let written = std::fs::read(dir.path().join("sealed")).expect("it was written");
    assert!(written.starts_with(b"age-encryption.org/v1\n"));
    daemon.dewar(&["checkpoint", "import", "--name", "copy", &sealed]).fails(1).stderr_has("it is encrypted");
    let import = ["checkpoint", "import", "--name", "copy", "--passphrase-file", &phrase, &sealed];
    daemon.dewar(&import).ok().stdout_is("copy cp1\n");
    daemon.dewar(&["start", "--checkpoint", "cp1", "copy"]).ok();
    counts_on(&daemon, "copy");
    assert!(numbers_of(&daemon, "copy")[0] > 1, "it began again");
}

#[test]
fn what_cannot_be_streamed_runs_on() {
    requires!(root, criu);
    let dir = TempDir::new();
    let file = dir.path().join("cp1");
    let path = file.display().to_string();
    let daemon = counting(&["-t"]);
    let create = |daemon: &Daemon| daemon.dewar(&["checkpoint", "create", "-o", &path, "web", "cp1"]);
    create(&daemon).fails(1).stderr_has("it has a terminal, which criu cannot stream");
    counts_past(&daemon, numbers(&daemon).len());
    assert!(!file.exists());
    drop(daemon);
    // A CRIU that ends in the middle, when it has begun to send.
    let real = crate::support::requires::criu_path().expect("it is required").display().to_string();
    let body = format!(
        "case \" $* \" in *--stream*) while [ $# -gt 0 ]; do [ $1 = --work-dir ] && \
         echo '(00.1) Error (criu/some.c:1): the reason it failed' > $2/dump.log; shift; done; exit 1;; esac\n\
         exec {real} \"$@\""
    );
    let (daemon, _dir) = super::failures::with_fake_criu(&body);
    create(&daemon).fails(1).stderr_has("the reason it failed");
    counts_past(&daemon, numbers(&daemon).len());
    assert!(!file.exists());
    assert_eq!(scratch(&daemon), Vec::<PathBuf>::new());
}
