//! Limits: what the kernel was told, read from inside.

use std::path::Path;

use super::{BOTH, inside, refused, shows};
use crate::support::requires::requires;
use crate::support::{Cmd, Daemon};

/// Reads each pair's first file on a host with cgroup v1 controllers, its second on one with v2 alone.
fn read(files: &[(&str, &str)]) -> String {
    let is_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let chosen: Vec<&str> = files.iter().map(|(v1, v2)| if is_v2 { *v2 } else { *v1 }).collect();
    format!("cd /sys/fs/cgroup; for f in {}; do tr '\\n' ' ' < $f; done", chosen.join(" "))
}

fn pick<'a>(v1: &'a str, v2: &'a str) -> &'a str {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { v2 } else { v1 }
}

#[test]
fn memory_processes_and_cpus() {
    requires!(root, docker);
    let daemon = Daemon::start();
    inside(
        &daemon,
        "--memory 20m --memory-swap 50m --memory-reservation 10m --pids-limit 7 --cpu-shares 512 --cpu-period 50000 \
         --cpu-quota 20000 --cpuset-cpus 0 --cpuset-mems 0",
        &read(&[
            ("memory/memory.limit_in_bytes", "memory.max"),
            ("memory/memory.memsw.limit_in_bytes", "memory.swap.max"),
            ("memory/memory.soft_limit_in_bytes", "memory.low"),
            ("pids/pids.max", "pids.max"),
            ("cpu/cpu.shares", "cpu.weight"),
            ("cpu/cpu.cfs_quota_us", "cpu.max"),
            ("cpuset/cpuset.cpus", "cpuset.cpus"),
            ("cpuset/cpuset.mems", "cpuset.mems"),
        ]),
        pick(
            "20971520 52428800 10485760 7 512 20000 0 0 ",
            "20971520 31457280 10485760 7 59 20000 50000 0 0 ",
        ),
    );
    inside(
        &daemon,
        "-m 20m --cpus 0.5 --pids-limit -1",
        &read(&[
            ("memory/memory.memsw.limit_in_bytes", "memory.swap.max"),
            ("pids/pids.max", "pids.max"),
            ("cpu/cpu.cfs_quota_us", "cpu.max"),
        ]),
        pick("41943040 max 50000 ", "20971520 max 50000 100000 "),
    );
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        let script = "cd /sys/fs/cgroup/memory; cat memory.swappiness; grep disable memory.oom_control";
        inside(
            &daemon,
            "--memory-swappiness 10 --oom-kill-disable -m 20m",
            script,
            "10\noom_kill_disable 1\n",
        );
    }
    let script = "cat /proc/self/oom_score_adj; grep Cpus_allowed_list /proc/self/status | cut -f 2";
    inside(&daemon, "--oom-score-adj 500 --cpuset-cpus 0-0", script, "500\n0\n");
}

#[test]
fn block_devices() {
    requires!(root, docker);
    let daemon = Daemon::start();
    // Any whole disk the host has; a machine without one has no limits for it.
    let disk = std::fs::read_dir("/sys/block").into_iter().flatten().flatten().find_map(|entry| {
        let path = Path::new("/dev").join(entry.file_name());
        let name = entry.file_name().to_string_lossy().into_owned();
        (path.exists() && !name.starts_with("loop") && !name.starts_with("ram")).then_some((name, path))
    });
    if let Some((name, path)) = disk {
        let number = std::fs::read_to_string(format!("/sys/block/{name}/dev")).expect("a disk has a number");
        let (number, path) = (number.trim(), path.display());
        let flags = format!(
            "--device-read-bps {path}:1mb --device-write-bps {path}:2mb --device-read-iops {path}:30 \
             --device-write-iops {path}:40 --blkio-weight-device {path}:300"
        );
        let script = read(&[
            ("blkio/blkio.throttle.read_bps_device", "io.max"),
            ("blkio/blkio.throttle.write_bps_device", ""),
            ("blkio/blkio.throttle.read_iops_device", ""),
            ("blkio/blkio.throttle.write_iops_device", ""),
        ]);
        let v1 = format!("{number} 1048576 {number} 2097152 {number} 30 {number} 40 ");
        let v2 = format!("{number} rbps=1048576 wbps=2097152 riops=30 wiops=40 ");
        inside(&daemon, &flags, &script, pick(&v1, &v2));
    }
    shows(&daemon, "--blkio-weight 300", "echo fine", &["fine"]);
    refused(&daemon, "--blkio-weight 5", "Range of blkio weight is from 10 to 1000");
    // No kernel has the knob any more: discarded with Docker's warning, whatever the device.
    shows(&daemon, "--blkio-weight-device /dev/nosuch:300", "echo fine", &["fine"]);
    refused(&daemon, "--blkio-weight-device /dev/null:5", "/dev/null:5");
    refused(&daemon, "--device-read-bps /dev/nosuch:1mb", "/dev/nosuch");
    refused(&daemon, "--device-read-bps /dev/null:1mb", "not a block device");
}

#[test]
fn processes_limits_and_kernel_parameters() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let script = "ulimit -n; ulimit -Hn; ulimit -c; ulimit -s; ulimit -t; \
                  cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax /proc/sys/fs/mqueue/msg_max";
    let flags = "--ulimit nofile=10:20 --ulimit core=0 --ulimit stack=4194304:8388608 --ulimit cpu=77 \
                 --sysctl net.ipv4.ip_forward=1 --sysctl kernel.shmmax=12345678 --sysctl fs.mqueue.msg_max=20";
    inside(&daemon, flags, script, "10\n20\n0\n4096\n77\n1\n12345678\n20\n");
    refused(&daemon, "--ulimit nofile=20:10", "invalid argument \"nofile=20:10\" for \"--ulimit\" flag");
    refused(&daemon, "--ulimit bogus=1", "invalid ulimit type: bogus");
    refused(&daemon, "--sysctl kernel.panic=1", "kernel.panic");
    refused(&daemon, "--sysctl net.nosuch=1", "net.nosuch");
    refused(&daemon, "--ipc host --sysctl kernel.shmmax=1", "not allowed in host ipc namespace");
}

#[test]
fn the_cgroup_can_be_below_another() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let parent = format!("dewar-test-parent-{}", std::process::id());
    for client in BOTH {
        let run = client
            .on(&daemon, &["run", "-d", "--name", "web", "--network", "none", "--cgroup-parent", &parent]);
        let id = run.args(["busybox", "sleep", "1000"]).ok().trimmed().to_owned();
        let pid = daemon.state("web")["Pid"].to_string();
        let paths = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a running process");
        assert!(paths.contains(&format!("/{parent}/{id}")), "{paths}");
        client.on(&daemon, &["rm", "-f", "web"]).ok();
    }
    // As Docker, the parent is left to whoever named it.
    let command = format!("rmdir /sys/fs/cgroup/{parent} /sys/fs/cgroup/*/{parent} 2> /dev/null");
    Cmd::new("sh").args(["-c", &command]).run();
}

#[test]
fn limits_out_of_range_are_told_in_dockers_words() {
    requires!(root, docker);
    let daemon = Daemon::start();
    for (flags, part) in [
        ("--memory 1m", "Minimum memory limit allowed is 6MB"),
        ("--memory-swap 1g", "You should always set the Memory limit when using Memoryswap limit, see usage"),
        (
            "--memory 20m --memory-swap 10m",
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            "--memory 20m --memory-reservation 30m",
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        ("--memory-swappiness 200", "alid memory swappiness range is 0-100"),
        ("--cpus 9999", "range of CPUs is from 0.01 to "),
        ("--cpu-period 5", "CPU cfs period can not be less than 1ms"),
        ("--cpu-quota 5", "CPU cfs quota can not be less than 1ms"),
        ("--cpus 1 --cpu-quota 5000", "Nano CPUs and CPU Period or Quota cannot both be set"),
        ("--cpuset-cpus 999", "Requested CPUs are not available - requested 999, available: "),
        ("--cpuset-cpus xx", "Invalid value xx for cpuset cpus"),
        ("--cpuset-mems 99", "Requested memory nodes are not available - requested 99, available: "),
        ("--cpuset-mems 1-", "Invalid value 1- for cpuset mems"),
        ("--cpu-rt-runtime 1000", "Your kernel does not support CPU real-time scheduler"),
        ("--oom-score-adj 5000", "Invalid value 5000, range for oom score adj is [-1000, 1000]"),
    ] {
        refused(&daemon, flags, part);
    }
    daemon.dewar(&["ps", "-aq"]).ok().stdout_is("");
}
