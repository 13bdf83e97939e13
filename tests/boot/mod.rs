//! A host of BusyBox, an inittab and the binary, from its first boot to a clean power-off, in a virtual machine.
//!
//! The only place where the daemon meets an init of its own, a kernel of another version, cgroup2 without any v1,
//! and a loss of power.

mod console;
mod precopy;

use std::path::Path;

use crate::support::requires::requires;
use crate::support::{Cmd, TempDir};
use console::Host;

/// Counts in memory: a number that goes on was not started anew.
const COUNTER: &str = "sh -c 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done'";

#[test]
fn a_minimal_host_keeps_its_containers_from_the_first_boot_to_power_off() {
    requires!(root, vm, criu);
    let dir = TempDir::new();

    let mut host = Host::boot(dir.path());
    the_daemon_starts_from_init_and_mounts_cgroup2(&mut host);
    containers_run_within_limits(&mut host);
    init_starts_a_killed_daemon_again(&mut host);
    a_container_is_frozen_and_thawed(&mut host);
    for (name, policy) in [("stopped", "unless-stopped"), ("running", "unless-stopped"), ("once", "no")] {
        // Ends at once and with a code of its own when it is asked to.
        host.ok(&format!(
            "dewar run -d --name {name} --restart {policy} --network none busybox \
             sh -c 'trap \"exit 7\" TERM; while :; do sleep 0.1; done'"
        ));
    }
    host.ok("dewar stop stopped");
    // The power fails: nothing is written any more, nobody is told.
    host.last("echo b > /proc/sysrq-trigger");

    let mut host = Host::boot(dir.path());
    host.ok("dewar ping --wait 20");
    policies_hold_after_a_boot(&mut host, "255");
    // The checkpoint is from before.
    let frozen = host.ok("dewar logs count | tail -n 1");
    host.ok("dewar start --checkpoint cp count");
    host.eventually(&format!("dewar logs count | grep -qx {}", number(&frozen) + 1));
    powers_off_cleanly(host, dir.path());

    let mut host = Host::boot(dir.path());
    host.ok("dewar ping --wait 20");
    policies_hold_after_a_boot(&mut host, "7");
    powers_off_cleanly(host, dir.path());
}

fn the_daemon_starts_from_init_and_mounts_cgroup2(host: &mut Host) {
    assert_eq!(host.ok("dewar ping --wait 20"), "OK");
    let mounts = host.ok("grep cgroup /proc/mounts");
    assert!(mounts.starts_with("cgroup2 /sys/fs/cgroup cgroup2 ") && mounts.lines().count() == 1, "{mounts}");
    assert_eq!(host.ok("dewar info --format '{{.CgroupVersion}} {{.CgroupDriver}}'"), "2 cgroupfs");
    assert_eq!(host.ok("dewar info --format '{{json .Warnings}}'"), "[]");
}

fn containers_run_within_limits(host: &mut Host) {
    host.ok("dewar import /root/busybox.tar busybox");
    assert_eq!(host.ok("dewar run --rm --network none busybox echo hello"), "hello");
    host.ok(&format!(
        "dewar run -d --name web --stop-signal KILL --restart always --network none -m 64m --cpus 0.5 --cpuset-cpus 0 --pids-limit 50 \
         busybox {COUNTER}"
    ));
    host.eventually("dewar logs web | grep -qx 3");
    assert_eq!(host.ok("dewar exec web sh -c 'hostname | wc -c'"), "13");
    host.ok("cd /sys/fs/cgroup/dewar/$(dewar inspect --format '{{.Id}}' web)");
    assert_eq!(
        host.ok("cat memory.max cpu.max pids.max cpuset.cpus.effective"),
        "67108864\n50000 100000\n50\n0"
    );
    // The device policy is a BPF program: the disk is out of reach, /dev/null is not.
    let disk = host.run("dewar exec --privileged web sh -c 'mknod /disk b $((0xfe)) 0 && head -c 1 /disk'");
    assert!(disk.code != 0 && disk.text.contains("not permitted"), "{disk}");
    host.ok("dewar exec web sh -c 'mknod /null c 1 3 && echo > /null'");
    host.ok("dewar pause web");
    assert_eq!(host.ok("grep frozen cgroup.events; cat cgroup.procs | wc -l"), "frozen 1\n2");
    host.ok("dewar unpause web");
    host.ok("dewar update -m 48m --memory-swap 48m --cpus 0.25 web");
    assert_eq!(host.ok("cat memory.max memory.swap.max cpu.max"), "50331648\n0\n25000 100000");
    let stats = host.ok("dewar stats --no-stream --format '{{.MemUsage}} {{.PIDs}} {{.CPUPerc}}' web");
    let words: Vec<&str> = stats.split_whitespace().collect();
    assert!(matches!(words[..], [used, "/", "48MiB", "2", cpu] if used != "0B" && cpu != "0.00%"), "{stats}");
    host.ok("cd /");
    let hog = host.run("dewar run --name hog --network none -m 8m --memory-swap 8m busybox tail /dev/zero");
    assert_eq!(hog.code, 137, "{hog}");
    assert_eq!(host.ok("dewar inspect --format '{{.State.OOMKilled}}' hog; dewar rm hog"), "true\nhog");
}

fn init_starts_a_killed_daemon_again(host: &mut Host) {
    let pid = host.ok("cat /run/dewar.pid");
    let web = host.ok("dewar inspect --format '{{.State.Pid}}' web");
    host.ok(&format!("kill -9 {pid}"));
    host.eventually(&format!("! grep -qx {pid} /run/dewar.pid && dewar ping --wait 20"));
    assert!(host.screen().contains("init: /usr/local/bin/dewar ended with 137"));
    assert_eq!(host.ok("dewar inspect --format '{{.State.Pid}}' web"), web);
    let last = host.ok("dewar logs web | tail -n 1");
    host.eventually(&format!("dewar logs web | grep -qx {}", number(&last) + 3));
    host.ok(&format!("kill -9 {web}"));
    host.eventually(&format!(
        "dewar inspect --format '{{{{.RestartCount}}}} {{{{.State.Pid}}}}' web | grep '^1 ' | grep -vw -e {web} -e 0"
    ));
}

fn a_container_is_frozen_and_thawed(host: &mut Host) {
    host.ok(&format!("dewar run -d --name count --stop-signal KILL --network none busybox {COUNTER}"));
    host.eventually("dewar logs count | grep -qx 5");
    host.ok("dewar checkpoint create count cp");
    assert_eq!(host.ok("dewar checkpoint ls count | grep -c cp"), "1");
    assert_eq!(host.ok("dewar inspect --format '{{.State.Status}}' count"), "exited");
    let frozen = host.ok("dewar logs count | tail -n 1");
    host.ok("dewar start --checkpoint cp count");
    host.eventually(&format!("dewar logs count | grep -qx {}", number(&frozen) + 3));
    assert_eq!(host.ok("dewar logs count | grep -cx 1"), "1");
    host.ok("dewar stop -t 0 count");
}

/// `code` is how a container without a policy ended that was running when the host was not any more.
#[track_caller]
fn policies_hold_after_a_boot(host: &mut Host, code: &str) {
    // Policies take effect one by one, after the daemon answers.
    for (name, state) in [("web", "running 0"), ("running", "running 0"), ("stopped", "exited 7")] {
        host.eventually(&format!(
            "dewar inspect --format '{{{{.State.Status}}}} {{{{.State.ExitCode}}}}' {name} | grep -qx '{state}'"
        ));
    }
    let have = host.ok("dewar inspect --format '{{.State.Status}} {{.State.ExitCode}}' once");
    assert_eq!(have, format!("exited {code}"));
    host.ok("dewar start once");
    // Started again, a container still has what it printed before.
    host.eventually("test $(dewar logs web | grep -cx 1) -ge 2");
}

/// Powers the host off and looks at what its console showed and at the disk that is left.
#[track_caller]
fn powers_off_cleanly(mut host: Host, dir: &Path) {
    let farewell = host.last("poweroff");
    for line in ["init: /usr/local/bin/dewar ended with 0", "init: left are 0 mounts and: /run/dewar"] {
        assert!(farewell.lines().any(|shown| shown == line), "not on the console: {line:?}");
    }
    drop(host);
    let disk = dir.join("disk.img");
    let state = Cmd::new("dumpe2fs").arg("-h").arg(&disk).ok().stdout;
    assert!(
        state.lines().any(|line| line.split_whitespace().eq(["Filesystem", "state:", "clean"])),
        "{state}"
    );
    assert!(!state.contains("needs_recovery"), "not unmounted: {state}");
    Cmd::new("e2fsck").arg("-fn").arg(&disk).ok();
}

#[track_caller]
fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("not a number: {text:?}"))
}
