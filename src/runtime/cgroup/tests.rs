//! Real cgroups of this host, and directories that play one.

use std::os::fd::AsFd;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::runtime::spec::{Cpu, Memory, Pids, Resources};

fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("/dewar-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Removed when dropped, processes and parent included.
struct Made(Cgroup);

impl Made {
    fn new(resources: &Resources) -> Made {
        Made(Cgroup::create(&format!("{}/leaf", unique()), resources).unwrap())
    }

    fn v2() -> Made {
        let layout = Layout::unified(Layout::host().unwrap().v2.as_deref().unwrap());
        let path = format!("{}/leaf", unique());
        Made(Cgroup::create_in(&layout, &path, &Resources::default()).unwrap())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let parent = self.0.path.trim_end_matches("/leaf");
        let parent = Cgroup::open_in(&self.0.layout, parent).unwrap();
        let _ = parent.thaw();
        let _ = parent.kill_all();
        parent.remove().unwrap();
        for dir in parent.dirs() {
            assert!(!dir.exists(), "{} was left behind", dir.display());
        }
    }
}

/// A shell inside the cgroup, started the way a container is.
fn inside(cgroup: &Cgroup, script: &str) -> Child {
    let entrance: Vec<String> = cgroup
        .layout
        .v1
        .iter()
        .map(|h| cgroup.below(&h.mount).join("tasks"))
        .chain(cgroup.v2_dir().map(|dir| dir.join("cgroup.procs")))
        .map(|path| format!("echo 0 > {}", path.display()))
        .collect();
    Command::new("sh").arg("-c").arg(format!("{} && {{ {script}; }}", entrance.join(" && "))).spawn().unwrap()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// After a boot, policies bring containers up side by side: one found the parent that another had made and not yet
/// given processors, took none, and could not be entered (ENOSPC).
#[test]
fn the_first_of_a_parent_can_be_made_side_by_side() {
    for _ in 0..20 {
        let parent = unique();
        std::thread::scope(|scope| {
            for number in 0..6 {
                let path = format!("{parent}/leaf-{number}");
                scope.spawn(move || {
                    let cgroup = Cgroup::create(&path, &Resources::default()).unwrap();
                    assert!(inside(&cgroup, "true").wait().unwrap().success(), "{path} can be entered");
                    cgroup.remove().unwrap();
                });
            }
        });
        Cgroup::open(&parent).unwrap().remove().unwrap();
    }
}

#[test]
fn limits_reach_the_kernel_and_can_be_changed() {
    let made = Made::new(&Resources {
        memory: Memory { limit: Some(64 << 20), swap: Some(128 << 20), ..Memory::default() },
        cpu: Cpu { shares: Some(512), quota: Some(50_000), period: Some(100_000), ..Cpu::default() },
        pids: Pids { limit: Some(100) },
        ..Resources::default()
    });
    let read = |controller: &str, file: &str| {
        let dir = made.0.v1_dir(controller).expect("v1 on the test host");
        std::fs::read_to_string(dir.join(file)).unwrap().trim().to_owned()
    };
    assert_eq!(read("memory", "memory.limit_in_bytes"), (64u64 << 20).to_string());
    assert_eq!(read("memory", "memory.memsw.limit_in_bytes"), (128u64 << 20).to_string());
    assert_eq!(read("cpu", "cpu.shares"), "512");
    assert_eq!(read("cpu", "cpu.cfs_quota_us"), "50000");
    assert_eq!(read("pids", "pids.max"), "100");
    assert!(!read("cpuset", "cpuset.cpus").is_empty());

    // Up past the old memsw, then down again: the order differs.
    for (limit, swap) in [(256 << 20, 512 << 20), (32 << 20, 40 << 20), (64 << 20, -1), (-1, -1)] {
        let memory = Memory { limit: Some(limit), swap: Some(swap), ..Memory::default() };
        let (warnings, _) = made.0.update(&Resources { memory, ..Resources::default() }).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
    }
    assert_eq!(read("cpu", "cpu.shares"), "512");
    let stats = made.0.stats();
    assert_eq!(stats.pids.limit, Some(100));
    assert!(stats.memory.limit_bytes < 1 << 60);
}

#[test]
fn freezes_thaws_counts_and_kills() {
    for made in [Made::new(&Resources::default()), Made::v2()] {
        let cgroup = &made.0;
        let mut child = inside(cgroup, "while :; do :; done");
        wait_until("the child enters", || cgroup.pids().unwrap().len() == 1);
        assert_eq!(cgroup.pids().unwrap(), [i32::try_from(child.id()).unwrap()]);
        cgroup.freeze().unwrap();
        assert!(cgroup.is_frozen().unwrap());
        let used = cgroup.stats().cpu.total_ns;
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(cgroup.stats().cpu.total_ns, used, "a frozen process runs");
        cgroup.thaw().unwrap();
        assert!(!cgroup.is_frozen().unwrap());
        wait_until("the child runs again", || cgroup.stats().cpu.total_ns > used);
        // Killing works on a frozen cgroup as well.
        cgroup.freeze().unwrap();
        cgroup.kill_all().unwrap();
        child.wait().unwrap();
        assert_eq!(cgroup.pids().unwrap(), Vec::<i32>::new());
        cgroup.remove().unwrap();
        assert_eq!(cgroup.pids().unwrap(), Vec::<i32>::new());
        cgroup.remove().unwrap();
    }
}

#[test]
fn kills_one_by_one_without_cgroup_kill() {
    let mut layout = Layout::host().unwrap().clone();
    layout.v2 = None;
    let path = format!("{}/leaf", unique());
    let made = Made(Cgroup::create_in(&layout, &path, &Resources::default()).unwrap());
    let mut child = inside(&made.0, "sleep 60 & sleep 60 & wait");
    wait_until("the children start", || made.0.pids().unwrap().len() == 3);
    made.0.kill_all().unwrap();
    child.wait().unwrap();
    wait_until("all are gone", || made.0.pids().unwrap().is_empty());
}

#[test]
fn attaches_from_outside() {
    let made = Made::new(&Resources::default());
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    made.0.attach(pid).unwrap();
    let table = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(table.lines().all(|line| line.ends_with(made.0.path())), "{table}");
    made.0.kill_all().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_empty_leftover_is_replaced_and_an_inhabited_one_is_not() {
    let made = Made::new(&Resources { pids: Pids { limit: Some(7) }, ..Resources::default() });
    let pids_max = made.0.v1_dir("pids").unwrap().join("pids.max");
    let again = || Cgroup::create(made.0.path(), &Resources::default());
    again().unwrap();
    assert_eq!(std::fs::read_to_string(&pids_max).unwrap().trim(), "max");
    let mut child = inside(&made.0, "exec sleep 60");
    wait_until("the child enters", || made.0.pids().unwrap().len() == 1);
    let error = again().unwrap_err().to_string();
    assert!(error.contains("has processes"), "{error}");
    assert!(made.0.dirs().all(|dir| dir.exists()), "the refusal removed somebody's cgroup");
    made.0.kill_all().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_oom_killer_is_noticed_and_counted() {
    let memory = Memory { limit: Some(8 << 20), swap: Some(8 << 20), ..Memory::default() };
    let made = Made::new(&Resources { memory, ..Resources::default() });
    let mut notifier = made.0.oom_notifier().unwrap();
    assert!(!notifier.struck());
    // Without swap a shell string of 32 MiB does not fit.
    let mut child = inside(&made.0, "x=0123456789abcdef; while :; do x=$x$x; done");
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(notifier.as_fd(), rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&timeout)).unwrap(), 1, "no notice");
    assert!(notifier.struck());
    child.wait().unwrap();
    wait_until("the kill is counted", || made.0.oom_kills() == 1);
    made.0.remove().unwrap();
    assert!(!notifier.struck(), "removal is not an OOM kill");
    assert_eq!(made.0.oom_kills(), 0);
}

#[test]
fn device_policies_hold_in_both_versions() {
    let rules = Resources { devices: default_device_rules(), ..Resources::default() };
    for made in [Made::new(&Resources::default()), Made::v2()] {
        let cgroup = &made.0;
        let run = |script: &str| inside(cgroup, script).wait().unwrap().success();
        assert!(run("exec 3< /dev/kmsg"), "no policy yet");
        cgroup.update(&rules).unwrap();
        assert!(run("echo x > /dev/null && head -c 1 /dev/zero > /dev/null"));
        assert!(!run("exec 2>&- 3< /dev/kmsg"), "kmsg is not on the list");
        let node = std::env::temp_dir().join(unique().trim_start_matches('/'));
        let mknod = format!("mknod {0} c 1 11 && rm {0}", node.display());
        assert!(run(&mknod), "making nodes is allowed");
        let nothing = DeviceRules::only(false);
        cgroup.update(&nothing).unwrap();
        assert!(!run("exec 2>&-; : > /dev/null"));
        assert!(!run(&format!("exec 2>&-; {mknod}")));
        let everything = DeviceRules::only(true);
        cgroup.update(&everything).unwrap();
        assert!(run("exec 3< /dev/kmsg"), "the old policy is gone");
    }
}

struct DeviceRules;

impl DeviceRules {
    fn only(allow: bool) -> Resources {
        let rule = spec::DeviceRule { allow, kind: "a".to_owned(), ..spec::DeviceRule::default() };
        Resources { devices: vec![rule], ..Resources::default() }
    }
}

#[test]
fn sweeping_spares_the_living() {
    let made = Made::new(&Resources::default());
    let parent = made.0.path().trim_end_matches("/leaf").to_owned();
    let stray = Cgroup::create(&format!("{parent}/stray/sub"), &Resources::default()).unwrap();
    let lively = Cgroup::create(&format!("{parent}/lively"), &Resources::default()).unwrap();
    let mut child = inside(&lively, "exec sleep 60");
    wait_until("the child enters", || lively.pids().unwrap().len() == 1);
    let layout = Layout::host().unwrap();
    assert_eq!(sweep(&parent, &["leaf".to_owned()]).unwrap(), layout.mounts().count());
    assert!(stray.dirs().all(|dir| !dir.exists()));
    assert!(made.0.dirs().chain(lively.dirs()).all(|dir| dir.exists()));
    lively.kill_all().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_entrance_opened_before_works_after() {
    let made = Made::new(&Resources::default());
    let entrance = made.0.entrance().unwrap();
    match crate::runtime::sys::process::clone(0, None).unwrap() {
        crate::runtime::sys::process::Side::Child => {
            let code = i32::from(entrance.enter().is_err());
            crate::runtime::sys::process::exit(code)
        }
        crate::runtime::sys::process::Side::Parent { pid, .. } => {
            assert_eq!(crate::runtime::sys::process::wait(pid).unwrap().code, 0);
        }
    }
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    for path in ["", "/", "dewar", "/a//b", "/a/../b", "/./a", "/a/"] {
        assert!(Cgroup::open(path).is_err(), "{path}");
    }
}

/// A directory with the given files, playing a v2 cgroup `/c` below its root.
struct Fake(PathBuf);

impl Fake {
    fn new(files: &[(&str, &str)]) -> Fake {
        let root = std::env::temp_dir().join(unique().trim_start_matches('/'));
        std::fs::create_dir_all(root.join("c")).unwrap();
        for (name, text) in files {
            std::fs::write(root.join("c").join(name), text).unwrap();
        }
        Fake(root)
    }

    fn cgroup(&self) -> Cgroup {
        Cgroup::open_in(&Layout::unified(&self.0), "/c").unwrap()
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.0.join("c").join(file)).unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn v2_files_get_v2_words() {
    let files = ["memory.max", "memory.swap.max", "cpu.weight", "cpu.max", "pids.max"];
    let fake = Fake::new(&files.map(|name| (name, "")));
    let resources = Resources {
        memory: Memory { limit: Some(1000), swap: Some(1500), swappiness: Some(3), ..Memory::default() },
        cpu: Cpu { shares: Some(1024), quota: Some(-1), cpus: Some("0".to_owned()), ..Cpu::default() },
        pids: Pids { limit: Some(0) },
        ..Resources::default()
    };
    let (warnings, _) = fake.cgroup().update(&resources).unwrap();
    assert_eq!(fake.read("memory.max"), "1000");
    assert_eq!(fake.read("memory.swap.max"), "500");
    assert_eq!(fake.read("cpu.weight"), "100");
    assert_eq!(fake.read("cpu.max"), "max 100000");
    assert_eq!(fake.read("pids.max"), "max");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("swappiness") && warnings[1].contains("cpuset"));
}

#[test]
fn v2_stats_come_in_the_common_shape() {
    let fake = Fake::new(&[
        (
            "cpu.stat",
            "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 2\nthrottled_usec 7\n",
        ),
        ("memory.current", "4096\n"),
        ("memory.max", "max\n"),
        ("memory.stat", "anon 1\nfile 2\n"),
        ("memory.events", "low 0\noom 3\noom_kill 2\n"),
        ("pids.current", "5\n"),
        ("pids.max", "max\n"),
        ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n"),
    ]);
    let stats = fake.cgroup().stats();
    assert_eq!((stats.cpu.total_ns, stats.cpu.user_ns, stats.cpu.kernel_ns), (30_000, 20_000, 10_000));
    assert_eq!((stats.cpu.periods, stats.cpu.throttled_periods, stats.cpu.throttled_ns), (4, 2, 7_000));
    assert_eq!((stats.memory.usage_bytes, stats.memory.failures), (4096, 3));
    assert!(stats.memory.limit_bytes > 0 && stats.memory.limit_bytes < u64::MAX);
    assert_eq!(stats.memory.stats.get("file"), Some(&2));
    assert_eq!((stats.pids.current, stats.pids.limit), (5, None));
    assert_eq!(stats.io_serviced[1].value, 4);
    assert_eq!(fake.cgroup().oom_kills(), 2);
}

#[test]
fn controllers_are_enabled_from_the_top() {
    let fake = Fake::new(&[("cgroup.controllers", "cpu memory"), ("cgroup.subtree_control", "")]);
    for (name, text) in [("cgroup.controllers", "cpu memory pids hugetlb"), ("cgroup.subtree_control", "cpu")]
    {
        std::fs::write(fake.0.join(name), text).unwrap();
    }
    enable_controllers(&fake.0, &fake.0.join("c"));
    let top = std::fs::read_to_string(fake.0.join("cgroup.subtree_control")).unwrap();
    assert_eq!(
        (top.as_str(), fake.read("cgroup.subtree_control").as_str()),
        ("+memory +pids", "+cpu +memory")
    );
}

#[test]
fn v2_counters_are_read_in_v1s_units() {
    let files = [
        (
            "cpu.stat",
            "usage_usec 7000\nuser_usec 5000\nsystem_usec 2000\nnr_periods 9\nnr_throttled 4\nthrottled_usec 30\n",
        ),
        ("memory.current", "4096\n"),
        ("memory.max", "8192\n"),
        ("memory.events", "low 0\nhigh 0\nmax 5\noom 2\noom_kill 1\n"),
        ("memory.stat", "anon 1024\ninactive_file 512\n"),
        ("pids.current", "3\n"),
        ("pids.max", "max\n"),
        ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n"),
    ];
    let stats = Fake::new(&files).cgroup().stats();
    let cpu = &stats.cpu;
    assert_eq!((cpu.total_ns, cpu.user_ns, cpu.kernel_ns), (7_000_000, 5_000_000, 2_000_000));
    assert_eq!((cpu.periods, cpu.throttled_periods, cpu.throttled_ns), (9, 4, 30_000));
    assert!(cpu.per_cpu_ns.is_empty(), "v2 does not count by processor");
    let memory = &stats.memory;
    assert_eq!((memory.usage_bytes, memory.limit_bytes, memory.failures), (4096, 8192, 2));
    assert_eq!((memory.stats["inactive_file"], memory.max_usage_bytes), (512, None));
    assert_eq!((stats.pids.current, stats.pids.limit), (3, None));
    let io: Vec<_> = stats.io_service_bytes.iter().map(|entry| (entry.op.as_str(), entry.value)).collect();
    assert_eq!(io, [("read", 10), ("write", 20)]);
}

#[test]
fn an_update_that_fails_half_way_changes_nothing() {
    let memory = Memory { limit: Some(32 << 20), ..Memory::default() };
    let made = Made::new(&Resources { memory, ..Resources::default() });
    let read = |controller: &str, file: &str| {
        std::fs::read_to_string(made.0.v1_dir(controller).unwrap().join(file)).unwrap()
    };
    let files = [("memory", "memory.limit_in_bytes"), ("cpu", "cpu.shares"), ("cpu", "cpu.cfs_quota_us")];
    let before = files.map(|(controller, file)| read(controller, file));
    let asked = Resources {
        memory: Memory { limit: Some(64 << 20), ..Memory::default() },
        cpu: Cpu {
            shares: Some(99),
            quota: Some(50_000),
            // Written after the others, and no such processor.
            cpus: Some("4095".to_owned()),
            ..Cpu::default()
        },
        ..Resources::default()
    };
    assert!(made.0.update(&asked).is_err());
    assert_eq!(files.map(|(controller, file)| read(controller, file)), before);
    // What succeeded can be taken back all the same.
    let cpu = Cpu { cpus: None, ..asked.cpu.clone() };
    let (_, undo) = made.0.update(&Resources { cpu, ..asked }).unwrap();
    assert_ne!(files.map(|(controller, file)| read(controller, file)), before);
    undo.run();
    assert_eq!(files.map(|(controller, file)| read(controller, file)), before);
}
