//! Limits that the kernel holds.

use std::time::{Duration, Instant};

use crate::support::requires::requires;
use crate::support::{Daemon, eventually};

#[test]
fn memory_is_limited_and_the_kill_is_told() {
    requires!(root);
    let daemon = Daemon::start();
    let script = "head -c 200000000 /dev/zero | tail -c 200000000 > /dev/null";
    daemon.run_detached("hungry", &["--memory", "20m"], &format!("exec sh -c '{script}; exit $?'"));
    daemon.dewar(&["wait", "hungry"]).ok();
    let state = daemon.state("hungry");
    assert_eq!(state["OOMKilled"], true, "{state}");
    daemon.run(&["--memory", "100m"], "head -c 10000000 /dev/zero | tail -c 10000000 > /dev/null").ok();
}

#[test]
fn processes_are_limited() {
    requires!(root);
    let daemon = Daemon::start();
    let script =
        "i=0; while [ $i -lt 30 ]; do sleep 5 & i=$((i+1)); done 2>&1; jobs | wc -l; kill $(jobs -p)";
    let output = daemon.run(&["--pids-limit", "10"], script).run();
    let text = format!("{}{}", output.stdout, output.stderr);
    assert!(text.contains("fork") || text.contains("Resource temporarily unavailable"), "{output}");
}

#[test]
fn cpu_time_is_limited() {
    requires!(root);
    let daemon = Daemon::start();
    // The time the kernel gave in one second of trying.
    let script = "timeout 1 sh -c 'while :; do :; done'; awk '{ print $16 + $17 }' /proc/self/stat";
    daemon.run_detached("busy", &["--cpus", "0.2"], "while :; do :; done");
    let pid = daemon.state("busy")["Pid"].to_string();
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
        let fields: Vec<_> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
    };
    let (before, start) = (ticks(), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let share = (ticks() - before) as f64 / 100.0 / start.elapsed().as_secs_f64();
    assert!(share < 0.35, "it got {share:.2} of a CPU although limited to 0.2 ({script})");
}

#[test]
fn the_container_is_in_a_cgroup_of_its_own_and_sees_only_it() {
    requires!(root);
    let daemon = Daemon::start();
    let id = daemon.run_detached("web", &["--memory", "64m"], "exec sleep 1000");
    let pid = daemon.state("web")["Pid"].to_string();
    let paths = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a running process");
    assert!(paths.lines().any(|line| line.contains(&id)), "{paths}");
    // The shim must not be in it: it would be frozen with it.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let shim =
        status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent").trim().to_owned();
    let shims = std::fs::read_to_string(format!("/proc/{shim}/cgroup")).expect("a running process");
    assert!(!shims.contains(&id), "{shims}");
}

#[test]
fn no_cgroup_is_left() {
    requires!(root);
    let daemon = Daemon::start();
    for _ in 0..5 {
        daemon.run(&["--memory", "64m", "--cpus", "1", "--pids-limit", "100"], "true").ok();
    }
    eventually("cgroups to be removed", || daemon.leftovers().cgroups.is_empty());
}
