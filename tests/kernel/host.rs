//! The host itself: what `doctor` says of it, what `info` warns of, and what a daemon mounts where little is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::requires::{self, requires};
use crate::support::{Cmd, Daemon, TempDir, binary, busybox_tar, eventually};

fn doctor(args: &[&str]) -> Cmd {
    Cmd::new(binary()).arg("doctor").args(args)
}

#[track_caller]
fn checks(text: &str) -> Vec<Value> {
    let report: Value = serde_json::from_str(text).expect("JSON");
    report["checks"].as_array().expect("a list").clone()
}

#[track_caller]
fn find<'a>(checks: &'a [Value], name: &str) -> &'a Value {
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name:?} in {checks:#?}"))
}

#[test]
fn doctor_finds_this_host_usable_and_leaves_nothing() {
    requires!(root);
    let dir = TempDir::new();
    let root = dir.path().display().to_string();
    let text = doctor(&["--data-root", &root]).ok();
    text.stdout_has("Containers can run here").stdout_has("overlay on it").stdout_lacks("MISSING");
    let output = doctor(&["--data-root", &root, "--format", "json"]).ok();
    let checks = checks(&output.stdout);
    for area in ["kernel", "cgroups", "rights", "storage", "network", "checkpoints"] {
        assert!(checks.iter().any(|check| check["area"] == area), "nothing of {area}: {checks:#?}");
    }
    for check in &checks {
        let is_ok = check["status"] == "ok";
        assert_ne!(check["status"], "missing", "{check}");
        assert_eq!((check["costs"].is_null(), check["remedy"].is_null()), (is_ok, is_ok), "{check}");
    }
    // The same twice, as each kernel feature has one answer; every container before was proof of these.
    for name in ["pid namespace", "overlayfs", "seccomp", "openat2", "pids", "memory", "devices", "freezer"] {
        assert_eq!(find(&checks, name)["status"], "ok");
    }
    assert_eq!(fs::read_dir(&root).expect("a directory").count(), 0);
    // Others' mounts come and go meanwhile.
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("a mount table");
    assert!(!mounts.contains(&root) && !mounts.contains("dewar-doctor"), "{mounts}");
}

#[test]
fn doctor_names_what_is_missing_what_it_costs_and_how_to_get_it() {
    requires!(root);
    let dir = TempDir::new();
    // A root without the one right that everything needs.
    let capped = Cmd::new("setpriv")
        .arg("--bounding-set=-sys_admin,-sys_resource")
        .arg(binary())
        .args(["doctor", "--format", "json"])
        .fails(1);
    let report: Value = serde_json::from_str(&capped.stdout).expect("JSON");
    assert_eq!(report["usable"], false);
    let found = checks(&capped.stdout);
    for name in ["pid namespace", "capabilities"] {
        let check = find(&found, name);
        assert_eq!(check["status"], "missing", "{check}");
        assert!(check["remedy"].as_str().is_some_and(|remedy| remedy.contains("root")), "{check}");
    }
    assert_eq!(find(&found, "CAP_SYS_RESOURCE")["status"], "warning");
    // A data root where nothing can be stored.
    let nowhere = doctor(&["--data-root", "/proc/nowhere"]).fails(1);
    nowhere.stdout_has("MISSING  data root").stdout_has("Containers cannot run here");
    // A criu that is none: containers run all the same.
    let fake = dir.path().join("criu");
    fs::write(&fake, "#!/bin/sh\nexit 3\n").expect("a fresh directory");
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).expect("ours");
    let output = doctor(&["--criu", &fake.display().to_string(), "--format", "json"]).ok();
    let found = checks(&output.stdout);
    let criu = find(&found, "criu");
    assert_eq!((&criu["status"], &criu["area"]), (&"warning".into(), &"checkpoints".into()), "{criu}");
    assert!(criu["remedy"].as_str().is_some_and(|remedy| remedy.contains("scripts/criu.sh")), "{criu}");
    doctor(&["--format", "yaml"]).fails(125).stderr_has("expected text or json");
    // The daemon's own options count.
    let file = dir.path().join("daemon.json");
    fs::write(&file, format!(r#"{{"data-root":"{}/data"}}"#, dir.path().display())).expect("ours");
    let file = file.display().to_string();
    doctor(&["--config-file", &file]).ok().stdout_has(&format!("{}/data: ", dir.path().display()));
}

/// A network namespace begins without loopback, as a host whose init knows nothing of it does.
#[test]
fn doctor_says_that_criu_does_not_begin_without_loopback() {
    requires!(root, criu);
    let criu = requires::criu_path().expect("required above").display().to_string();
    let output = Cmd::new("unshare")
        .arg("-n")
        .arg(binary())
        .args(["doctor", "--format", "json", "--criu", &criu])
        .ok();
    let found = checks(&output.stdout);
    let check = find(&found, "criu check");
    assert_eq!(
        (&check["status"], &check["costs"]),
        (&"warning".into(), &"containers cannot be frozen or thawed".into()),
        "{check}"
    );
    assert!(check["remedy"].as_str().is_some_and(|remedy| remedy.contains("ip link set lo up")), "{check}");
    assert!(found.iter().all(|check| check["name"] != "lazy pages"), "that cannot be known: {found:#?}");
}

#[test]
fn info_warns_of_what_doctor_finds() {
    requires!(root);
    let daemon = Daemon::empty();
    let info = daemon.api("GET", "/info").is(200).json();
    let warnings: Vec<&str> =
        info["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let found = checks(&doctor(&["--format", "json"]).ok().stdout);
    let right = find(&found, "CAP_SYS_RESOURCE");
    let is_told = warnings.iter().any(|warning| warning.contains("CAP_SYS_RESOURCE"));
    assert_eq!(is_told, right["status"] != "ok", "{warnings:?}");
    assert!(warnings.iter().all(|warning| warning.starts_with("WARNING: ")), "{warnings:?}");
}

/// A daemon in a mount namespace of its own, prepared by a script.
struct Bare {
    dir: TempDir,
    process: Child,
}

impl Bare {
    fn start(script: &str) -> Bare {
        let dir = TempDir::new();
        let log = fs::File::create(dir.path().join("daemon.log")).expect("a fresh directory");
        let root = dir.path().display();
        let daemon = format!(
            "set -e; {script}; exec {} daemon -H unix://{root}/dewar.sock --data-root {root}/data --exec-root {root}/run",
            binary().display()
        );
        let process = Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", &daemon])
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("unshare is there");
        let bare = Bare { dir, process };
        eventually("the daemon serving", || bare.log().contains("serves API"));
        bare.dewar(&["import"]).arg(busybox_tar()).arg("busybox").ok();
        bare
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("daemon.log")).unwrap_or_default()
    }

    fn dewar(&self, args: &[&str]) -> Cmd {
        let host = format!("unix://{}/dewar.sock", self.dir.path().display());
        Cmd::new(binary()).args(["-H", &host]).args(args)
    }

    /// Everything a container's cgroup is for: its limits, exec, pause, its end.
    fn exercise(&self) {
        self.dewar(&["run", "-d", "--name", "web", "--network", "none", "busybox", "sleep", "1000"]).ok();
        self.dewar(&["exec", "web", "true"]).ok();
        self.dewar(&["pause", "web"]).ok();
        self.dewar(&["unpause", "web"]).ok();
        self.dewar(&["rm", "-f", "web"]).ok();
    }

    fn end(mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it lives");
        assert!(self.process.wait().expect("a child of ours").success(), "{}", self.log());
        crate::support::leftovers::Leftovers::of(self.dir.path()).assert_none();
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{}", self.log());
            drop(self.process.kill());
            drop(self.process.wait());
            crate::support::leftovers::Leftovers::of(self.dir.path()).remove();
        }
    }
}

#[test]
fn a_host_without_cgroups_proc_and_sys_gets_them_mounted() {
    requires!(root);
    // As the kernel leaves it to an init that mounts nothing. Controllers stay in the hierarchies they are in.
    let bare = Bare::start("umount -R /sys/fs/cgroup; umount -R -l /sys; umount -R -l /proc");
    for part in ["/proc was not mounted", "/sys was not mounted", "no cgroups were mounted"] {
        assert!(bare.log().contains(part), "{part}: {}", bare.log());
    }
    let script = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null";
    let limited = ["run", "--rm", "--network", "none", "-m", "64m", "busybox", "sh", "-c", script];
    bare.dewar(&limited).run().stdout_is("67108864\n");
    bare.exercise();
    bare.end();
}

#[test]
fn cgroup2_alone_is_enough() {
    requires!(root);
    let bare = Bare::start("umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup");
    let info = bare.dewar(&["info", "--format", "{{.CgroupVersion}}"]).ok();
    assert_eq!(info.trimmed(), "2");
    bare.exercise();
    // Devices are restricted by a BPF program.
    let script = "mknod /tmp/mem c 1 1 && dd if=/tmp/mem of=/dev/null bs=1 count=1";
    let output = bare.dewar(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", script]).run();
    output.says("peration not permitted");
    bare.end();
}
