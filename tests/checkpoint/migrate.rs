//! Moves between two daemons: what comes along, what is refused, and who has the container when something dies.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::peers::{self, Line, PORT};
use super::{COUNTER, counting, counts_past, numbers};
use crate::support::requires::requires;
use crate::support::{Daemon, Namespace, TempDir, eventually};

/// A second daemon, which has no image.
pub(super) fn other() -> Daemon {
    Daemon::empty()
}

/// What `sh -c SCRIPT` in the container says.
fn says(daemon: &Daemon, script: &str) -> String {
    daemon.dewar(&["exec", "web", "sh", "-c", script]).ok().trimmed().to_owned()
}

pub(super) type Found = Vec<(String, String)>;

/// The ids and states of all of a daemon's containers.
pub(super) fn containers(daemon: &Daemon) -> Found {
    let list = daemon.api("GET", "/containers/json?all=1").is(200).json();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    list.as_array().into_iter().flatten().map(|one| (text(&one["Id"]), text(&one["State"]))).collect()
}

/// Nothing of a move is left in the daemon's directories.
#[track_caller]
pub(super) fn is_clean(daemon: &Daemon) {
    let names = ["(", "-name", "*migration-*", "-o", "-name", "handover*", ")"];
    let mut left = String::new();
    for _ in 0..500 {
        // What is just being removed is not there.
        left = crate::support::Cmd::new("find").arg(daemon.dir().join("data")).args(names).run().stdout;
        if left.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("left of a move: {left}\n{}", daemon.log());
}

#[test]
fn it_goes_on_elsewhere_with_all_it_has() {
    requires!(root, criu);
    let here = counting(&["-v", "data:/data", "-v", "/nameless", "--hostname", "ship", "-e", "A=b"]);
    let there = other();
    says(
        &here,
        "echo kept >/file; echo kept >/data/file; echo kept >/nameless/file; echo kept >/dev/shm/file",
    );
    let before = here.api("GET", "/containers/web/json").is(200).json();
    let count = numbers(&here).len();
    let told = here.dewar(&["migrate", "web", &there.host()]).ok();
    told.stdout_has("Sending the image").stdout_has("web runs at unix://").stdout_has("it stood still for ");
    counts_past(&there, count);
    let after = there.api("GET", "/containers/web/json").is(200).json();
    for key in ["Id", "Name", "Created", "Image", "Config", "Path", "Args"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    let files = "cat /file /data/file /nameless/file /dev/shm/file; hostname";
    assert_eq!(says(&there, files), "kept\nkept\nkept\nkept\nship");
    // Nothing of it is where it was.
    assert_eq!(containers(&here), []);
    assert_eq!(here.dewar(&["volume", "ls", "-q"]).ok().stdout, "");
    here.has_told(&["container migrate", "container destroy"]);
    is_clean(&there);
    // Back again, from the other one's side, with messages for programs.
    let json = there.dewar(&["migrate", "--json", "web", &here.host()]).ok();
    let objects: Vec<serde_json::Value> =
        json.stdout.lines().map(|line| serde_json::from_str(line).expect("an object on each line")).collect();
    let phases: Vec<&str> = objects.iter().filter_map(|object| object["Phase"].as_str()).collect();
    let mut passed = phases.clone();
    passed.dedup();
    assert_eq!(passed, ["files", "freezing", "rest", "thawing", "done"]);
    let last = objects.last().expect("objects");
    assert_eq!(last["IsMoved"], true);
    assert!(last["Bytes"].as_u64() > Some(10_000) && last["StoppedMilliseconds"].is_u64(), "{last}");
    json.stdout_lacks("image");
    counts_past(&here, numbers(&here).len());
    assert_eq!(says(&here, files), "kept\nkept\nkept\nkept\nship");
    assert_eq!(containers(&there), []);
    is_clean(&here);
    here.dewar(&["rm", "-f", "-v", "web"]).ok();
}

#[test]
fn one_that_is_kept_stays_stopped() {
    requires!(root, criu);
    let here = counting(&["-v", "data:/data"]);
    let there = other();
    let told = here.dewar(&["migrate", "-q", "--keep", "web", &there.host()]).ok();
    assert_eq!(told.stdout, "");
    counts_past(&there, numbers(&there).len());
    assert_eq!(here.state("web")["Status"], "exited");
    assert_eq!(here.dewar(&["volume", "ls", "-q"]).ok().trimmed(), "data");
    is_clean(&here);
    // Its user may start it anew.
    here.dewar(&["start", "web"]).ok();
    // Not over one that is there; both go on.
    here.dewar(&["migrate", "web", &there.host()]).fails(1).stderr_has("is here already");
    assert_eq!(
        (here.state("web")["Running"].clone(), there.state("web")["Running"].clone()),
        (true.into(), true.into())
    );
}

#[test]
fn what_cannot_move_runs_on() {
    requires!(root, criu);
    let here = counting(&["-v", "data:/data"]);
    let there = Daemon::start();
    let refused = |words: &str| {
        let count = numbers(&here).len();
        let output = here.dewar(&["migrate", "web", &there.host()]).fails(1);
        output.stderr_has(words).no_panic();
        let is_discarded = || containers(&there).iter().all(|(_, state)| state == "exited");
        eventually("it being discarded there", is_discarded);
        counts_past(&here, count);
        is_clean(&here);
        is_clean(&there);
    };
    there.dewar(&["volume", "create", "data"]).ok();
    refused("volume data is there already");
    there.dewar(&["volume", "rm", "data"]).ok();
    there.dewar(&["run", "--name", "web", "--network", "none", "busybox", "true"]).ok();
    refused("The container name \"/web\" is already in use");
    there.dewar(&["rm", "web"]).ok();
    here.dewar(&["checkpoint", "create", "--leave-running", "web", "cp1"]).ok();
    refused("its checkpoints stay here");
    here.dewar(&["checkpoint", "rm", "web", "cp1"]).ok();
    // One that CRIU cannot freeze.
    let dir = TempDir::new();
    let socket = dir.path().join("outside");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a fresh directory");
    let volume = format!("{}:{}", socket.display(), peers::OUTSIDE);
    peers::run(&here, "stuck", &["--network", "none", "-v", &volume], peers::UNFREEZABLE);
    eventually("the conversation", || here.logs("stuck").contains("said 3"));
    here.dewar(&["migrate", "stuck", &there.host()]).fails(1).stderr_has("Cannot migrate container stuck");
    eventually("it being discarded there", || containers(&there).is_empty());
    assert_eq!(here.state("stuck")["Status"], "running");
    // A mount that is not on the other host; a network that it lacks; one that does not run.
    let sources = TempDir::new();
    std::fs::create_dir(sources.path().join("a")).expect("a fresh directory");
    here.dewar(&["network", "create", "apart"]).ok();
    for (flags, words) in [
        (
            ["--mount", &format!("type=bind,src={},dst=/m", sources.path().join("a").display())],
            "is not there",
        ),
        (["--network", "apart"], "apart"),
    ] {
        here.dewar(&["run", "-d", "--name", "odd"]).args(flags).args(["busybox", "sleep", "1000"]).ok();
        if words == "is not there" {
            std::fs::remove_dir(sources.path().join("a")).expect("it was made above");
        }
        here.dewar(&["migrate", "odd", &there.host()]).fails(1).stderr_has(words);
        assert_eq!(here.state("odd")["Status"], "running");
        here.dewar(&["rm", "-f", "odd"]).ok();
    }
    here.dewar(&["stop", "-t", "0", "stuck"]).ok();
    here.dewar(&["migrate", "stuck", &there.host()]).fails(1).stderr_has("is not running");
    here.dewar(&["migrate", "web", "unix:///nonexistent/socket"]).fails(1).stderr_has("Cannot connect");
    here.dewar(&["migrate", "web", &here.host()]).fails(1).stderr_has("is here already");
    counts_past(&here, numbers(&here).len());
}

/// Two hosts on one wire, with a network on it that both have, and somebody else on the wire.
pub(super) struct Wire {
    pub here: Daemon,
    pub there: Daemon,
    pub outside: Namespace,
}

pub(super) fn wired() -> Wire {
    let outside = Namespace::new();
    outside.run("ip", &["link", "add", "wire", "type", "bridge"]);
    outside.run("ip", &["link", "set", "wire", "up"]);
    outside.run("ip", &["addr", "add", "10.77.0.250/24", "dev", "wire"]);
    let host = |name: &str, gateway: &str| {
        let host = Namespace::new();
        let path = outside.path();
        host.run("ip", &["link", "add", "uplink", "type", "veth", "peer", "name", name, "netns", &path]);
        outside.run("ip", &["link", "set", "dev", name, "master", "wire", "up"]);
        host.run("ip", &["link", "add", "shared", "type", "bridge"]);
        host.run("ip", &["link", "set", "dev", "uplink", "master", "shared", "up"]);
        host.run("ip", &["link", "set", "shared", "up"]);
        let daemon = Daemon::start_in(&host, &[]);
        let create = ["network", "create", "--subnet", "10.77.0.0/24", "--gateway", gateway];
        let bridge = ["-o", "com.docker.network.bridge.name=shared", "wire"];
        daemon.dewar(&create).args(bridge).ok();
        daemon
    };
    let (here, there) = (host("one", "10.77.0.1"), host("two", "10.77.0.2"));
    Wire { here, there, outside }
}

#[test]
fn connections_go_on_over_a_shared_network() {
    requires!(root, criu, iproute);
    let wire = wired();
    peers::run(&wire.here, "web", &["--network", "wire", "--ip", "10.77.0.100"], "server");
    let to = format!("10.77.0.100:{PORT}");
    eventually("it listening", || wire.here.logs("web").contains("said"));
    let mut line = wire.outside.within(|| Line::open(&to));
    for (from, to_daemon) in [(&wire.here, &wire.there), (&wire.there, &wire.here), (&wire.here, &wire.there)]
    {
        let mac = address(from);
        from.dewar(&["migrate", "web", &to_daemon.host()]).ok();
        assert!(line.says(), "the line is dead");
        assert_eq!(address(to_daemon), mac);
    }
    assert!(wire.outside.within(|| Line::open(&to)).says());
    // Its talk with itself has gone on as well.
    assert!(!wire.there.logs("web").contains("broken"));
}

fn address(daemon: &Daemon) -> [serde_json::Value; 2] {
    let found = daemon.api("GET", "/containers/web/json").is(200).json();
    let endpoint = &found["NetworkSettings"]["Networks"]["wire"];
    ["IPAddress", "MacAddress"].map(|key| endpoint[key].clone())
}

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    DaemonHere,
    DaemonThere,
    CriuHere,
    CriuThere,
    ShimThere,
    ShimHere,
    Client,
}

const VICTIMS: [Victim; 7] = [
    Victim::DaemonHere,
    Victim::DaemonThere,
    Victim::CriuHere,
    Victim::CriuThere,
    Victim::ShimThere,
    Victim::Client,
    Victim::ShimHere,
];

/// The processes called so that a daemon's shims are, or have started.
fn processes(daemon: &Daemon, criu: bool) -> Vec<i32> {
    let own = format!("{}/", daemon.dir().join("run/containers").display());
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers: Vec<i32> = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let is_shim = |pid: i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let log = std::fs::read_link(format!("/proc/{pid}/fd/2")).unwrap_or_default();
        line.starts_with(b"dewar-shim") && log.display().to_string().starts_with(&own)
    };
    let shims: Vec<i32> = numbers.iter().copied().filter(|pid| is_shim(*pid)).collect();
    if !criu {
        return shims;
    }
    let parent = |pid: i32| -> Option<i32> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let is_criu = |pid: i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("swrk")
            && parent(pid).is_some_and(|parent| shims.contains(&parent))
    };
    numbers.into_iter().filter(|pid| is_criu(*pid)).collect()
}

fn kill9(pids: &[i32]) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// One move with a fault after `delay`; what has the container afterwards is to be one of the two, and to count on.
fn round(here: &mut Daemon, there: &mut Daemon, victim: Victim, delay: Duration) {
    let mut client = here.dewar(&["migrate", "-q", "web", &there.host()]).spawn();
    std::thread::sleep(delay);
    match victim {
        Victim::DaemonHere => here.kill9(),
        Victim::DaemonThere => there.kill9(),
        Victim::CriuHere => kill9(&processes(here, true)),
        Victim::CriuThere => kill9(&processes(there, true)),
        Victim::ShimHere => kill9(&processes(here, false)),
        Victim::ShimThere => kill9(&processes(there, false)),
        Victim::Client => drop(client.child.kill()),
    }
    match victim {
        Victim::DaemonHere => drop(here.restart()),
        Victim::DaemonThere => drop(there.restart()),
        _ => {}
    }
    let code = client.wait();
    let what = format!("{victim:?} after {delay:?}, the client ended with {code}");
    if victim == Victim::Client {
        // Both sides notice; what they cannot know is found out.
        eventually("the frozen side has decided", || {
            containers(here).iter().chain(&containers(there)).any(|(_, state)| state == "running")
                || !here
                    .dewar(&["migrate", "--resolve", "web", &there.host()])
                    .run()
                    .stderr
                    .contains("is not")
        });
        let resolved = here.dewar(&["migrate", "--resolve", "web", &there.host()]).run();
        assert!(
            resolved.code == 0
                || resolved.stderr.contains("No such container")
                || resolved.stderr.contains("here already"),
            "{what}: {resolved}"
        );
    }
    let states = || (containers(here), containers(there));
    let is_settled = |(one, other): &(Found, Found)| {
        one.len() + other.len() == 1 && one.iter().chain(other).all(|(_, state)| state == "running")
    };
    let is_settled_stopped = |(one, other): &(Found, Found)| one.len() + other.len() == 1;
    let mut now = states();
    for _ in 0..500 {
        if is_settled(&now) || (victim == Victim::ShimHere && is_settled_stopped(&now)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
        now = states();
    }
    if victim == Victim::ShimHere {
        assert!(is_settled_stopped(&now), "{what}: {now:?}");
    } else if victim == Victim::ShimThere && now.1.iter().any(|(_, state)| state == "exited") {
        // It ran there already, and died with its shim as any container does.
        assert!(now.0.is_empty(), "{what}: {now:?}");
    } else {
        assert!(is_settled(&now), "{what}: {now:?}\n--- here\n{}--- there\n{}", here.log(), there.log());
    }
    let owner = if now.0.is_empty() { &*there } else { &*here };
    let count = numbers(owner).len();
    let is_shim = matches!(victim, Victim::ShimHere | Victim::ShimThere);
    // It may have run there already, and what killed its shim is noticed a moment later.
    eventually(&what, || {
        numbers(owner).len() > count + 3 || (is_shim && owner.state("web")["Running"] == false)
    });
    eprintln!("{what}");
    is_clean(here);
    is_clean(there);
    owner.dewar(&["rm", "-f", "web"]).ok();
    for daemon in [&*here, &*there] {
        eventually("no shims", || processes(daemon, false).is_empty());
    }
}

#[test]
fn whatever_dies_one_side_has_it() {
    requires!(root, criu);
    let (mut here, mut there) = (Daemon::start(), Daemon::start());
    // Beyond the end of a move on an idle machine.
    for (number, delay) in [40, 90, 140, 190, 240, 300, 370, 450].into_iter().enumerate() {
        for victim in VICTIMS.iter().skip(number % 2).step_by(2) {
            here.run_detached("web", &[], COUNTER);
            eventually("it counting", || numbers(&here).len() > 3);
            round(&mut here, &mut there, *victim, Duration::from_millis(delay));
        }
    }
}

/// A way to a daemon that breaks just before something passes.
pub(super) struct Way {
    path: std::path::PathBuf,
    /// How much has passed since the container was about to be frozen.
    late: Arc<AtomicU64>,
    /// What breaks it, and whether it works again afterwards.
    cut: Arc<Mutex<Cut>>,
    _dir: TempDir,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    At(&'static str, bool),
    /// So many bytes have passed since it was about to be frozen.
    After(u64, bool),
    /// Nothing passes after so many, until this changes.
    Hold(u64),
    /// Nothing passes after this has, until it changes.
    HoldAfter(&'static str),
    Never,
    Always,
}

impl Way {
    pub fn to(daemon: &Daemon) -> Way {
        let dir = TempDir::new();
        let path = dir.path().join("way");
        let listener = UnixListener::bind(&path).expect("a fresh directory");
        let (cut, socket) = (Arc::new(Mutex::new(Cut::Never)), daemon.socket());
        let shared = Arc::clone(&cut);
        let late = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&late);
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = UnixStream::connect(&socket) else { continue };
                if *shared.lock().expect("nobody panics with it") == Cut::Always {
                    continue;
                }
                for (mut from, mut to) in [
                    (
                        near.try_clone().expect("a descriptor can be copied"),
                        far.try_clone().expect("a descriptor can be copied"),
                    ),
                    (
                        far.try_clone().expect("a descriptor can be copied"),
                        near.try_clone().expect("a descriptor can be copied"),
                    ),
                ] {
                    let (cut, late) = (Arc::clone(&shared), Arc::clone(&counter));
                    std::thread::spawn(move || carry(&mut from, &mut to, &cut, &late));
                }
            }
        });
        Way { path, late, cut, _dir: dir }
    }

    /// Bytes, in either direction, since the last [`cuts`](Way::cuts).
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// From now on; what has passed is counted anew.
    pub fn cuts(&self, cut: Cut) {
        self.late.store(0, Ordering::Relaxed);
        *self.cut.lock().expect("nobody panics with it") = cut;
    }
}

fn carry(from: &mut UnixStream, to: &mut UnixStream, cut: &Mutex<Cut>, late: &AtomicU64) {
    let mut block = vec![0; 256 * 1024];
    while let Ok(count @ 1..) = from.read(&mut block) {
        let has = |word: &[u8]| block[..count].windows(word.len()).any(|part| part == word);
        if late.load(Ordering::Relaxed) > 0 || has(b"{\"freezing\"") {
            late.fetch_add(count as u64, Ordering::Relaxed);
        }
        let passed = || late.load(Ordering::Relaxed);
        while matches!(*cut.lock().expect("nobody panics with it"), Cut::Hold(bytes) if passed() >= bytes) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut now = cut.lock().expect("nobody panics with it");
        let broken = match *now {
            Cut::At(word, is_once) if has(word.as_bytes()) => Some(is_once),
            Cut::After(bytes, is_once) if passed() >= bytes => Some(is_once),
            _ => None,
        };
        if matches!(*now, Cut::HoldAfter(word) if has(word.as_bytes())) {
            *now = Cut::Hold(0);
        }
        if let Some(is_once) = broken {
            *now = if is_once { Cut::Never } else { Cut::Always };
            break;
        }
        drop(now);
        if to.write_all(&block[..count]).is_err() {
            break;
        }
    }
    for end in [from, to] {
        let _ = end.shutdown(std::net::Shutdown::Both);
    }
}

/// What passes at the steps of a move, and who has the container when the connection breaks there.
const STEPS: [(&str, bool); 12] = [
    ("{\"offer\"", false),
    ("{\"accepted\"", false),
    ("{\"stored\"", false),
    ("volumes/data.tar", false),
    ("{\"freezing\"", false),
    ("{\"prepared\"", false),
    ("passes/", false),
    ("inventory.img", false),
    ("{\"whole\"", false),
    ("{\"ready\"", false),
    ("{\"commit\"", true),
    ("{\"done\"", true),
];

/// A counter that keeps what it says in files, too.
const WRITER: &str =
    "i=0; while :; do i=$((i+1)); echo $i; echo $i >/number; echo $i >/data/number; sleep 0.02; done";

#[test]
fn wherever_the_connection_breaks_one_side_has_it() {
    requires!(root, criu);
    let (here, there) = (Daemon::start(), Daemon::start());
    let way = Way::to(&there);
    for (word, is_moved) in STEPS {
        here.run_detached("web", &["-v", "data:/data"], WRITER);
        eventually("it counting", || numbers(&here).len() > 3);
        way.cuts(Cut::At(word, true));
        let output = here.dewar(&["migrate", "-q", "web", &way.host()]).run();
        assert_eq!(output.code == 0, is_moved, "{word}: {output}");
        let (owner, other) = if is_moved { (&there, &here) } else { (&here, &there) };
        eventually(word, || containers(owner).len() == 1 && containers(other).is_empty());
        counts_past(owner, numbers(owner).len());
        for daemon in [&here, &there] {
            eventually("nothing left", || daemon.dewar(&["ps", "-aq"]).ok().stdout.lines().count() < 2);
            is_clean(daemon);
        }
        assert_eq!(other.dewar(&["volume", "ls", "-q"]).ok().stdout, "", "{word}");
        owner.dewar(&["rm", "-f", "web"]).ok();
        owner.dewar(&["volume", "rm", "data"]).ok();
    }
}

#[test]
fn a_host_that_never_comes_back_leaves_the_choice_to_the_user() {
    requires!(root, criu);
    let (mut here, mut there) = (Daemon::start(), Daemon::start());
    for is_taken_there in [true, false] {
        let way = Way::to(&there);
        here.run_detached("web", &[], COUNTER);
        eventually("it counting", || numbers(&here).len() > 3);
        way.cuts(Cut::At("{\"commit\"", false));
        let mut client = here.dewar(&["migrate", "-q", "web", &way.host()]).spawn();
        let is_waiting = |daemon: &Daemon| {
            daemon.dewar(&["start", "web"]).run().stderr.contains("start --checkpoint migration-")
        };
        // Frozen on both sides: each may be the one that is lost.
        eventually("both in doubt", || is_waiting(&here) && is_waiting(&there));
        drop(client.child.kill());
        client.wait();
        for daemon in [&mut here, &mut there] {
            daemon.kill9();
            daemon.restart();
        }
        for daemon in [&here, &there] {
            assert!(is_waiting(daemon));
            assert_ne!(daemon.state("web")["Running"], true);
        }
        let (owner, other) = if is_taken_there { (&there, &here) } else { (&here, &there) };
        let said = owner.dewar(&["start", "web"]).fails(1).stderr;
        let name =
            said.split("--checkpoint ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a name");
        owner.dewar(&["start", "--checkpoint", name, "web"]).ok();
        counts_past(owner, numbers(owner).len());
        other.dewar(&["rm", "web"]).ok();
        owner.dewar(&["rm", "-f", "web"]).ok();
    }
    // Or the line comes back, and whoever asks is told.
    let way = Way::to(&there);
    here.run_detached("web", &[], COUNTER);
    eventually("it counting", || numbers(&here).len() > 3);
    way.cuts(Cut::At("{\"commit\"", false));
    let mut client = here.dewar(&["migrate", "-q", "web", &way.host()]).spawn();
    eventually("the sender's decision", || {
        here.dewar(&["start", "web"]).run().stderr.contains("start --checkpoint migration-")
    });
    drop(client.child.kill());
    client.wait();
    here.dewar(&["migrate", "--resolve", "web", &there.host()]).ok().stdout_has("web runs at");
    assert_eq!(containers(&here), []);
    counts_past(&there, numbers(&there).len());
    is_clean(&there);
}
