//! Memory that goes ahead of a move. The kernel of the virtual machine notes which pages are dirty; the one below may
//! not.

use serde_json::Value;

use super::console::Host;
use crate::support::TempDir;
use crate::support::requires::requires;

/// Collects some 20 MB in the memory of a `dd`, then a number now and then, and looks in the end whether all of it is right.
/// Its heap does not grow meanwhile: the kernel would take all of that for dirty.
const COLLECT: &str = "much() { for k in 0 1 2 3 4 5 6 7 8 9; do echo $k; cat /bin/busybox; done; }; mkfifo /pipe; \
    (much; i=0; \
     while [ ! -e /stop ]; do i=$((i+1)); echo $i; echo $i >&2; echo $i > /count; sleep 0.5; done) > /pipe & \
    dd bs=32M count=1 iflag=fullblock of=/out < /pipe; \
    (much; seq 1 $(cat /count)) | cmp - /out && echo all the same; sleep 1000";
/// The daemon that gets it.
const THERE: &str = "dewar -H unix:///run/there.sock";

#[test]
fn memory_goes_ahead_of_a_move() {
    requires!(root, vm, criu);
    let dir = TempDir::new();
    let mut host = Host::boot(dir.path());
    host.ok("dewar ping --wait 20 && dewar import /root/busybox.tar busybox 2>&1");
    host.ok(
        "mkdir -p /var/lib/there /run/there; dewar daemon -H unix:///run/there.sock --data-root /var/lib/there \
         --exec-root /run/there --pidfile /run/there.pid --bridge none > /var/log/there.log 2>&1 &",
    );
    host.ok(&format!("{THERE} ping --wait 20"));
    assert!(host.ok("dewar doctor").contains("soft-dirty                    works"));

    host.ok(&format!("dewar run -d --name mem --network none busybox sh -c '{COLLECT}'"));
    host.eventually("dewar logs mem 2>&1 | grep -qx 2");
    the_daemon_dies_meanwhile(&mut host);

    // While the other daemon thaws it, what is here is a checkpoint like any other.
    host.ok("cd /var/lib/dewar/containers/$(dewar inspect --format '{{.Id}}' mem); mkdir -p checkpoints; \
         (until cp -a checkpoints/migration-???????????? /root/kept; do sleep 0.05; done 2> /root/cp.log) &");
    let told = moved(&mut host, "dewar migrate --keep --progress json mem unix:///run/there.sock");
    let (ahead, last) = (sent_by(&told, "freezing"), sent_by(&told, "done"));
    assert!(ahead >= 18_000_000 && last - ahead < 3_000_000, "{told:?}");
    assert!(told.last().expect("a last line")["PreCopiedBytes"].as_u64() >= Some(18_000_000), "{told:?}");
    let seen: u64 = host.ok(&format!("{THERE} logs mem 2>&1 | tail -n 1")).parse().expect("a number");
    host.eventually(&format!("{THERE} logs mem 2>&1 | grep -qx {}", seen + 2));
    host.ok(&format!("{THERE} exec mem touch /stop"));
    host.eventually(&format!("{THERE} logs mem 2>&1 | grep -qx 'all the same'"));
    host.ok(&format!("{THERE} rm -f mem"));

    // The same from the checkpoint that was sent, which is in passes, too, and goes into one file.
    host.ok("mv /root/kept checkpoints/kept");
    host.ok("dewar checkpoint export --compress none -o /root/kept.tar mem kept");
    host.ok(&format!("{THERE} checkpoint import --start /root/kept.tar"));
    host.ok(&format!("{THERE} exec mem touch /stop"));
    host.eventually(&format!("{THERE} logs mem 2>&1 | grep -qx 'all the same'"));
    host.ok(&format!("{THERE} rm -f mem"));
    let passes = host.ok("ls -1 checkpoints/kept/memory; readlink checkpoints/kept/images/parent");
    assert!(passes.starts_with("1\n") && passes.contains("../memory/"), "{passes}");
    host.ok("dewar start --checkpoint kept mem");
    host.ok("dewar exec mem touch /stop");
    host.eventually("dewar logs mem 2>&1 | grep -qx 'all the same'");

    // Little memory is not worth it, unless it is asked for.
    for (choice, is_ahead) in [("auto", false), ("always", true)] {
        host.ok("dewar run -d --name little --network none busybox sleep 1000");
        let command =
            format!("dewar migrate --pre-copy {choice} --progress json little unix:///run/there.sock");
        let told = moved(&mut host, &command);
        let bytes = told.last().and_then(|last| last["PreCopiedBytes"].as_u64()).expect("a number");
        assert_eq!(bytes > 0, is_ahead, "{choice}: {told:?}");
        host.ok(&format!("{THERE} rm -f little"));
    }
    assert_eq!(host.ok("ls /var/lib/there/containers"), "");
}

/// Nothing has come of the move then, and the container has not noticed.
fn the_daemon_dies_meanwhile(host: &mut Host) {
    let ours = host.ok("dewar inspect --format '{{.Id}} {{.State.Pid}} {{.State.StartedAt}}' mem");
    let dir = format!("/var/lib/dewar/containers/{}/checkpoints", ours.split(' ').next().unwrap_or_default());
    let begun = format!("ls {dir}/migration-*.partial/memory/1");
    host.ok("dewar migrate -q mem unix:///run/there.sock > /root/told 2>&1 &");
    host.ok(&format!("for i in $(seq 1000); do {begun} > /dev/null 2>&1 && break; done; {begun}"));
    let pid = host.ok("cat /run/dewar.pid");
    host.ok(&format!("kill -9 {pid}"));
    host.eventually(&format!("! grep -qx {pid} /run/dewar.pid && dewar ping --wait 20"));
    assert_eq!(host.ok("dewar inspect --format '{{.Id}} {{.State.Pid}} {{.State.StartedAt}}' mem"), ours);
    let seen: u64 = host.ok("dewar logs mem 2>&1 | tail -n 1").parse().expect("a number");
    host.eventually(&format!("dewar logs mem 2>&1 | grep -qx {}", seen + 2));
    // CRIU, which nobody waits for any more, may still be writing.
    host.eventually(&format!("! ls {dir} | grep migration"));
    host.eventually("test \"$(ls /var/lib/there/containers)\" = ''");
}

/// What a move told, line by line.
#[track_caller]
fn moved(host: &mut Host, command: &str) -> Vec<Value> {
    let told = host.ok(command);
    let lines = told.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?}")));
    lines.collect()
}

/// The bytes that had been sent by the first line of a phase.
#[track_caller]
fn sent_by(told: &[Value], phase: &str) -> u64 {
    let line = told.iter().find(|line| line["Phase"] == phase);
    line.and_then(|line| line["Bytes"].as_u64()).unwrap_or_else(|| panic!("no {phase}: {told:?}"))
}
