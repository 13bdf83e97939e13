//! Containers driven through [`Runtime`], as the daemon does; needs root, busybox-static and a built binary.
//!
//! Stays whole: one bed, which every test restarts, freezes or robs of its shim; the conversations at its end are those
//! of `fixtures/`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use super::protocol;
use crate::runtime::cgroup::Cgroup;
use crate::runtime::spec::{Capabilities, Linux, Mount, Namespace, NamespaceKind, Process, Spec};
use crate::runtime::*;

static NEXT: AtomicU32 = AtomicU32::new(0);
const PATIENCE: Duration = Duration::from_secs(10);

/// A daemon's view of one container, in a directory of its own.
struct Bed {
    dir: PathBuf,
    id: String,
    runtime: Option<Runtime>,
    events: Receiver<SandboxEvent>,
    netns: bool,
}

fn binary() -> PathBuf {
    // The binary under test lies beside the directory of the test programs.
    let deps = std::env::current_exe().unwrap();
    let exe = deps.parent().unwrap().parent().unwrap().join("dewar");
    assert!(exe.exists(), "build the dewar binary first (cargo build)");
    exe
}

fn runtime(dir: &Path) -> (Runtime, Receiver<SandboxEvent>) {
    let (sender, events) = mpsc::channel();
    let config = RuntimeConfig { exe: Some(binary()), criu: None, criu_cache_dir: dir.join("criu") };
    (Runtime::new(config, sender).unwrap(), events)
}

impl Bed {
    fn new() -> Bed {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("dewar-shim-{}-{number}", std::process::id()));
        for name in ["lower/bin", "lower/proc", "lower/sys", "lower/dev", "lower/tmp", "lower/etc"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        std::fs::create_dir_all(dir.join("upper")).unwrap();
        std::fs::create_dir_all(dir.join("work")).unwrap();
        std::fs::create_dir_all(dir.join("run")).unwrap();
        std::fs::copy("/bin/busybox", dir.join("lower/bin/busybox")).unwrap();
        for tool in
            ["sh", "cat", "sleep", "echo", "stty", "ls", "kill", "dd", "tail", "head", "true", "id", "wc"]
        {
            std::os::unix::fs::symlink("busybox", dir.join("lower/bin").join(tool)).unwrap();
        }
        let (runtime, events) = runtime(&dir);
        // Unlike at its beginning too: that is what a shim is seen by.
        let id = format!("{:08x}{number:04x}{:052x}", std::process::id(), std::process::id());
        Bed { dir, id, runtime: Some(runtime), events, netns: false }
    }

    fn with_netns() -> Bed {
        let mut bed = Bed::new();
        bed.netns = true;
        netns::create(&bed.dir.join("netns")).unwrap();
        bed
    }

    fn clean_up(&self, runtime: &Runtime) -> Result<(), Error> {
        let launch = self.launch("");
        runtime.clean_up(&launch.spec.linux.cgroups_path, &launch.run_dir)
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().unwrap()
    }

    fn launch(&self, script: &str) -> Launch {
        let words: Vec<String> = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        self.launch_args(&words)
    }

    fn launch_args(&self, args: &[String]) -> Launch {
        let mount = |destination: &str, kind: &str, options: &[&str]| Mount {
            destination: destination.into(),
            kind: kind.into(),
            source: kind.into(),
            options: options.iter().map(|&o| o.to_owned()).collect(),
        };
        let caps: Vec<String> = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"]
            .map(str::to_owned)
            .to_vec();
        let kinds = [
            NamespaceKind::Mount,
            NamespaceKind::Pid,
            NamespaceKind::Network,
            NamespaceKind::Ipc,
            NamespaceKind::Uts,
            NamespaceKind::Cgroup,
        ];
        let namespaces = kinds.map(|kind| Namespace {
            kind,
            path: (kind == NamespaceKind::Network && self.netns)
                .then(|| self.dir.join("netns").display().to_string()),
        });
        let mut resources = spec::Resources::default();
        resources.pids.limit = Some(100);
        let spec = Spec {
            oci_version: "1.2.0".into(),
            process: Process {
                args: args.to_vec(),
                env: vec!["PATH=/bin".into()],
                cwd: "/".into(),
                capabilities: Some(Capabilities {
                    bounding: caps.clone(),
                    effective: caps.clone(),
                    permitted: caps,
                    ..Capabilities::default()
                }),
                ..Process::default()
            },
            hostname: "bed".into(),
            mounts: vec![
                mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
                mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
                mount(
                    "/dev/pts",
                    "devpts",
                    &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
                ),
                mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
                mount("/sys/fs/cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
                mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
                mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            ],
            linux: Linux {
                namespaces: namespaces.to_vec(),
                cgroups_path: format!("/dewar-shim-test/{}", &self.id[..12]),
                resources,
                masked_paths: vec!["/proc/kcore".into(), "/proc/acpi".into(), "/sys/firmware".into()],
                readonly_paths: vec!["/proc/sys".into()],
                ..Linux::default()
            },
            ..Spec::default()
        };
        Launch {
            id: self.id.clone(),
            run_dir: self.dir.join("run").join(&self.id),
            spec,
            overlay: Overlay {
                lower: vec![self.dir.join("lower")],
                upper: self.dir.join("upper"),
                work: self.dir.join("work"),
                volatile: false,
                shared: None,
            },
            stdio: Stdio {
                terminal: false,
                open_stdin: false,
                stdin_once: false,
                log: Some(LogFile::at(self.dir.join("log"))),
                log_remote: None,
            },
            exit_file: self.dir.join("exit"),
            durable: true,
            reaper: false,
            oci: None,
        }
    }

    fn terminal(mut launch: Launch) -> Launch {
        launch.stdio.terminal = true;
        launch.stdio.open_stdin = true;
        launch.spec.process.terminal = true;
        launch
    }

    fn start(&self, script: &str) -> Arc<Sandbox> {
        self.runtime().launch(self.launch(script), vec![]).unwrap()
    }

    fn event(&self) -> SandboxEvent {
        self.events.recv_timeout(Duration::from_secs(20)).expect("an event")
    }

    fn exit(&self) -> Exit {
        loop {
            match self.event() {
                SandboxEvent::Exited { exit, .. } => return exit,
                SandboxEvent::Oom { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        text.lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["log"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    fn wait_log(&self, wanted: impl Fn(&str) -> bool) -> String {
        wait_for("the log", || Some(self.log()).filter(|log| wanted(log)))
    }

    /// The daemon dies, and another one comes.
    fn restart(&mut self) {
        let (runtime, events) = runtime(&self.dir);
        self.runtime = Some(runtime);
        self.events = events;
    }

    /// Nothing of the container is left: mount, cgroup, process, directory.
    fn assert_clean(&self) {
        let run_dir = self.dir.join("run").join(&self.id);
        assert!(!run_dir.exists(), "{}", run_dir.display());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&self.id), "mounts of {}", self.id);
        for line in std::fs::read_to_string("/proc/mounts").unwrap().lines() {
            let at = line.split(' ').nth(1).unwrap();
            let left = Path::new(at).join("dewar-shim-test").join(&self.id[..12]);
            assert!(!left.exists(), "{}", left.display());
        }
        let named = |line: &str| line.starts_with("dewar-shim") && line.contains(&self.id[..12]);
        // Its last instructions may still run when the daemon has let go of it.
        wait_for("the shim's end", || processes().all(|line| !named(&line)).then_some(()));
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.netns {
            let _ = netns::remove(&self.dir.join("netns"));
        }
        if let Some(runtime) = &self.runtime {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.clean_up(runtime)));
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The command line of every process.
fn processes() -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    })
}

fn wait_for<T>(what: &str, mut get: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(got) = get() {
            return got;
        }
        assert!(Instant::now() < deadline, "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn attachment() -> (UnixStream, Attachment) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let attachment = Attachment {
        stream: OwnedFd::from(theirs),
        stdin: true,
        stdout: true,
        stderr: true,
        detach_keys: vec![16, 17],
        reads_log: false,
    };
    (ours, attachment)
}

fn exec(id: &str, script: &str, attachment: Option<Attachment>) -> Exec {
    Exec {
        id: id.into(),
        process: Process {
            args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["PATH=/bin".into()],
            cwd: "/".into(),
            ..Process::default()
        },
        privileged: false,
        attachment,
    }
}

fn read_all(mut stream: UnixStream) -> Vec<u8> {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    got
}

#[test]
fn output_is_logged_and_the_exit_code_recorded() {
    let bed = Bed::new();
    let sandbox = bed.start("echo out; echo err >&2; exit 42");
    let exit = bed.exit();
    assert_eq!((exit.code, exit.oom_killed, exit.checkpointed), (42, false, false));
    let recorded: Exit = serde_json::from_slice(&std::fs::read(bed.dir.join("exit")).unwrap()).unwrap();
    assert_eq!(recorded, exit);
    let log = bed.log();
    assert!(log.contains("out\n") && log.contains("err\n"), "{log}");
    sandbox.dismiss().unwrap();
    bed.assert_clean();
}

#[test]
fn a_command_that_cannot_run_leaves_nothing() {
    let bed = Bed::new();
    let launch = bed.launch_args(&["/bin/nope".to_owned()]);
    let error = bed.runtime().launch(launch, vec![]).unwrap_err();
    assert!(matches!(&error.cause, Cause::Command(e) if e.exit_code == 127), "{error}");
    bed.assert_clean();
    let mut launch = bed.launch("true");
    launch.overlay.lower = vec![bed.dir.join("missing")];
    let error = bed.runtime().launch(launch, vec![]).unwrap_err();
    assert!(error.to_string().contains("mount overlay"), "{error}");
    bed.assert_clean();
    assert!(bed.events.try_recv().is_err(), "no events of a container that never lived");
}

#[test]
fn a_cgroup_with_processes_is_left_alone() {
    let bed = Bed::new();
    let launch = bed.launch("true");
    let (path, resources) = (&launch.spec.linux.cgroups_path, &launch.spec.linux.resources);
    let cgroup = Cgroup::create(path, resources).unwrap();
    let mut inhabitant = std::process::Command::new("sleep").arg("100").spawn().unwrap();
    cgroup.attach(i32::try_from(inhabitant.id()).unwrap()).unwrap();
    let error = bed.runtime().launch(launch, vec![]).unwrap_err();
    assert!(error.to_string().contains("it exists and has processes"), "{error}");
    assert!(inhabitant.try_wait().unwrap().is_none(), "it lives");
    inhabitant.kill().unwrap();
    inhabitant.wait().unwrap();
    cgroup.remove().unwrap();
    bed.assert_clean();
}

#[test]
fn attached_clients_speak_and_hear() {
    let bed = Bed::new();
    let (mut client, attachment) = attachment();
    let mut launch = bed.launch("echo hello; cat; echo bye >&2");
    launch.stdio.open_stdin = true;
    launch.stdio.stdin_once = true;
    let sandbox = bed.runtime().launch(launch, vec![attachment]).unwrap();
    client.write_all(b"typed").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(bed.exit().code, 0);
    let got = read_all(client);
    // What is in the pipe together comes in one frame.
    let apart = b"\x01\0\0\0\0\0\0\x06hello\n\x01\0\0\0\0\0\0\x05typed\x02\0\0\0\0\0\0\x04bye\n";
    let together = b"\x01\0\0\0\0\0\0\x0bhello\ntyped\x02\0\0\0\0\0\0\x04bye\n";
    assert!(got == apart || got == together, "{got:?}");
    sandbox.dismiss().unwrap();
    bed.assert_clean();
}

#[test]
fn a_new_daemon_finds_the_running_container() {
    let mut bed = Bed::new();
    let sandbox = bed.start("n=0; while [ ! -e /stop ]; do echo $n; n=$((n+1)); sleep 0.05; done; exit 7");
    bed.wait_log(|log| log.contains("1\n"));
    let run_dir = bed.dir.join("run").join(&bed.id);
    let pid = sandbox.pid();
    bed.restart();
    let Adopted::Running(adopted) = bed.runtime().adopt(&run_dir, PATIENCE).unwrap() else {
        panic!("it runs")
    };
    drop(sandbox);
    assert_eq!(adopted.pid(), pid);
    std::fs::write(format!("/proc/{pid}/root/stop"), "").unwrap();
    assert_eq!(bed.exit().code, 7);
    let lines: Vec<u32> = bed.log().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(lines, (0..lines.len() as u32).collect::<Vec<_>>(), "no output is lost");
    adopted.dismiss().unwrap();
    bed.assert_clean();
}

#[test]
fn an_exit_without_a_daemon_is_found_on_disk() {
    let mut bed = Bed::new();
    let sandbox = bed.start("while [ ! -e /stop ]; do sleep 0.02; done; exit 9");
    let (pid, run_dir) = (sandbox.pid(), bed.dir.join("run").join(&bed.id));
    bed.runtime = None;
    drop(sandbox);
    std::fs::write(format!("/proc/{pid}/root/stop"), "").unwrap();
    wait_for("the exit", || bed.dir.join("exit").exists().then_some(()));
    bed.restart();
    // The shim may still be there: then it says so itself.
    wait_for("the shim's end", || match bed.runtime().adopt(&run_dir, PATIENCE).unwrap() {
        Adopted::Exited(_) | Adopted::Gone => Some(()),
        Adopted::Running(_) => None,
        other => panic!("{other:?}"),
    });
    assert_eq!(read_exit(&bed.dir.join("exit")).unwrap().expect("a record").code, 9);
    bed.clean_up(bed.runtime()).unwrap();
    bed.assert_clean();
}

#[test]
fn a_killed_shim_is_lost_and_can_be_cleaned_up() {
    let bed = Bed::new();
    let sandbox = bed.start("sleep 100");
    let shim = parent_of(sandbox.pid());
    crate::runtime::sys::signal::kill(shim, libc::SIGKILL).unwrap();
    assert!(matches!(bed.event(), SandboxEvent::Lost { .. }));
    bed.clean_up(bed.runtime()).unwrap();
    bed.assert_clean();
    wait_for("the container's end", || {
        (!Path::new(&format!("/proc/{}", sandbox.pid())).exists()).then_some(())
    });
    assert!(matches!(
        bed.runtime().adopt(&bed.dir.join("run").join(&bed.id), PATIENCE).unwrap(),
        Adopted::Gone
    ));
}

fn parent_of(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn execs_run_inside_and_report_their_codes() {
    let bed = Bed::new();
    let sandbox = bed.start("sleep 100");
    let (client, attached) = attachment();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    sandbox.exec(exec("e1", "cat; echo in; ls /proc | head -1; exit 5", Some(attached))).unwrap();
    let SandboxEvent::ExecExited { exec_id, code, .. } = bed.event() else { panic!() };
    assert_eq!((exec_id.as_str(), code), ("e1", 5));
    let got = String::from_utf8(read_all(client)).unwrap();
    assert!(got.contains("in\n"), "{got:?}");
    let error = sandbox
        .exec(Exec {
            process: Process { args: vec!["/nope".into()], cwd: "/".into(), ..Process::default() },
            ..exec("e2", "", None)
        })
        .unwrap_err();
    assert!(matches!(error.cause, Cause::Command(_)), "{error}");
    sandbox.exec(exec("e3", "sleep 100", None)).unwrap();
    sandbox.signal(libc::SIGTERM, Some("e3")).unwrap();
    let SandboxEvent::ExecExited { code, .. } = bed.event() else { panic!() };
    assert_eq!(code, 143);
    sandbox.signal(libc::SIGKILL, None).unwrap();
    assert_eq!(bed.exit().code, 137);
    assert!(sandbox.exec(exec("e4", "true", None)).is_err());
    sandbox.dismiss().unwrap();
    bed.assert_clean();
}

#[test]
fn pause_stops_the_clock_and_a_kill_gets_through() {
    let bed = Bed::new();
    let sandbox = bed.start("while true; do echo x; sleep 0.01; done");
    bed.wait_log(|log| log.len() > 4);
    sandbox.pause().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let before = bed.log().len();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(bed.log().len(), before);
    sandbox.resume().unwrap();
    bed.wait_log(|log| log.len() > before);
    sandbox.pause().unwrap();
    sandbox.signal(libc::SIGKILL, None).unwrap();
    assert_eq!(bed.exit().code, 137);
    sandbox.dismiss().unwrap();
    bed.assert_clean();
}

#[test]
fn out_of_memory_is_told() {
    let bed = Bed::new();
    let mut launch = bed.launch("dd if=/dev/zero of=/dev/null bs=64M count=1; tail /dev/zero");
    launch.spec.linux.resources.memory.limit = Some(8 << 20);
    let sandbox = bed.runtime().launch(launch, vec![]).unwrap();
    let mut oom = false;
    let exit = loop {
        match bed.event() {
            SandboxEvent::Oom { .. } => oom = true,
            SandboxEvent::Exited { exit, .. } => break exit,
            other => panic!("{other:?}"),
        }
    };
    assert!(oom && exit.oom_killed, "{exit:?}");
    sandbox.dismiss().unwrap();
    bed.assert_clean();
}

#[test]
fn a_terminal_has_a_size_and_detach_keys() {
    let bed = Bed::new();
    let (mut client, attached) = attachment();
    let launch = Bed::terminal(bed.launch("read a; stty size; read b; exit 3"));
    let sandbox = bed.runtime().launch(launch, vec![attached]).unwrap();
    sandbox.resize(None, 33, 101).unwrap();
    client.write_all(b"\n").unwrap();
    bed.wait_log(|log| log.contains("33 101"));
    client.write_all(&[16, 17]).unwrap();
    assert!(matches!(bed.event(), SandboxEvent::Detached { exec_id: None, .. }));
    let got = String::from_utf8(read_all(client)).unwrap();
    assert!(got.contains("33 101\r\n"), "{got:?}");
    let (mut client, attached) = attachment();
    sandbox.attach(attached).unwrap();
    client.write_all(b"\n").unwrap();
    assert_eq!(bed.exit().code, 3);
    sandbox.dismiss().unwrap();
    bed.assert_clean();
}

#[test]
fn many_launch_at_once() {
    let bed = Bed::new();
    let (runtime, events) = runtime(&bed.dir);
    let runtime = Arc::new(runtime);
    let mut threads = Vec::new();
    for number in 0..20 {
        let mut launch = bed.launch("exit 1");
        launch.id = format!("{number:0>64}");
        launch.run_dir = bed.dir.join("run").join(&launch.id);
        launch.exit_file = bed.dir.join(format!("exit-{number}"));
        launch.stdio.log = None;
        launch.durable = false;
        launch.spec.linux.cgroups_path = format!("{}-{number}", launch.spec.linux.cgroups_path);
        for (field, name) in [(&mut launch.overlay.upper, "u"), (&mut launch.overlay.work, "w")] {
            *field = bed.dir.join(format!("{name}{number}"));
            std::fs::create_dir(&*field).unwrap();
        }
        let runtime = Arc::clone(&runtime);
        threads.push(std::thread::spawn(move || runtime.launch(launch, vec![]).unwrap()));
    }
    let sandboxes: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let mut codes = BTreeMap::new();
    while codes.len() < sandboxes.len() {
        if let SandboxEvent::Exited { id, exit } = events.recv_timeout(Duration::from_secs(20)).unwrap() {
            codes.insert(id, exit.code);
        }
    }
    assert!(codes.values().all(|&code| code == 1));
    for sandbox in sandboxes {
        sandbox.dismiss().unwrap();
    }
    assert_eq!(std::fs::read_dir(bed.dir.join("run")).unwrap().count(), 0);
}

/// Whether checkpoint tests can run; says so if not.
fn has_criu() -> bool {
    match criu::find(None) {
        Ok(_) => true,
        Err(error) => {
            assert!(std::env::var_os("DEWAR_TEST_STRICT").is_none(), "{error}");
            println!("skip: criu");
            false
        }
    }
}

/// Counts, keeps the count in a file, and ends with 41 when told to.
const COUNT: &str = "echo memory > /dev/shm/kept; n=0; \
    while [ ! -e /stop ]; do echo $n; n=$((n+1)); echo $n > /count; sleep 0.02; done; cat /dev/shm/kept; exit 41";

impl Bed {
    fn dump(&self, sandbox: &Sandbox, name: &str, leave_running: bool) -> PathBuf {
        let dir = self.dir.join(name);
        std::fs::create_dir(&dir).unwrap();
        sandbox.dump(Dump { dir: dir.clone(), leave_running, ..Dump::default() }).unwrap();
        dir
    }

    /// Thaws over a writable layer of its own, as the daemon prepares it.
    fn thaw(&self, mut launch: Launch, dir: &Path, attachments: Vec<Attachment>) -> Arc<Sandbox> {
        let name = dir.file_name().unwrap().to_str().unwrap();
        launch.overlay.upper = self.dir.join(format!("{name}-upper"));
        launch.overlay.work = self.dir.join(format!("{name}-work"));
        std::fs::create_dir(&launch.overlay.upper).unwrap();
        std::fs::create_dir(&launch.overlay.work).unwrap();
        let tar = std::fs::File::open(dir.join("rootfs.tar")).unwrap();
        layer::unpack(tar, &launch.overlay.upper, layer::Limits::default()).unwrap();
        self.runtime()
            .thaw(
                launch,
                Thaw { dir: dir.to_owned(), tcp_close: false, hostname: None, lazy: false, asks: None },
                attachments,
                &self.dir.join("thaw.log"),
            )
            .unwrap()
    }

    fn last_count(&self) -> Option<u32> {
        self.log().lines().rev().find_map(|line| line.trim().parse().ok())
    }

    fn wait_count(&self, above: u32) {
        wait_for("the count", || self.last_count().filter(|&count| count > above));
    }
}

fn runs_free(pid: i32) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("TracerPid:\t0\n"), "{status}");
    assert!(!status.contains("State:\tT") && !status.contains("State:\tt"), "{status}");
}

#[test]
fn a_container_is_frozen_and_thawed_for_generations() {
    if !has_criu() {
        return;
    }
    let bed = Bed::with_netns();
    let mut sandbox = bed.start(COUNT);
    for generation in 0..3 {
        bed.wait_count(bed.last_count().map_or(3, |count| count + 3));
        let dir = bed.dump(&sandbox, &format!("cp{generation}"), false);
        let exit = bed.exit();
        assert!(exit.checkpointed && exit.code == 137, "{exit:?}");
        sandbox.dismiss().unwrap();
        bed.assert_clean();
        sandbox = bed.thaw(bed.launch("not run"), &dir, vec![]);
    }
    let (client, attached) = attachment();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    sandbox.exec(exec("e", "cat /dev/shm/kept; id -u; echo x > /dev/null", Some(attached))).unwrap();
    assert!(matches!(bed.event(), SandboxEvent::ExecExited { code: 0, .. }));
    assert!(String::from_utf8(read_all(client)).unwrap().contains("memory\n"));
    std::fs::write(format!("/proc/{}/root/stop", sandbox.pid()), "").unwrap();
    let exit = bed.exit();
    assert_eq!((exit.code, exit.checkpointed), (41, false));
    let log = bed.log();
    let counts: Vec<u32> = log.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(counts, (0..counts.len() as u32).collect::<Vec<_>>(), "no number is lost or said twice");
    assert!(log.ends_with("memory\n"), "{log}");
    sandbox.dismiss().unwrap();
    bed.assert_clean();
}

#[test]
fn a_terminal_is_frozen_and_thawed() {
    if !has_criu() {
        return;
    }
    let bed = Bed::with_netns();
    let script = format!("stty -echo; read a; echo got $a; {COUNT}");
    let launch = Bed::terminal(bed.launch(&script));
    let sandbox = bed.runtime().launch(launch.clone(), vec![]).unwrap();
    sandbox.resize(None, 40, 120).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let dir = bed.dump(&sandbox, "cp", false);
    assert!(bed.exit().checkpointed);
    sandbox.dismiss().unwrap();
    let (mut client, attached) = attachment();
    let sandbox = bed.thaw(launch, &dir, vec![attached]);
    client.write_all(b"line\n").unwrap();
    bed.wait_log(|log| log.contains("got line\r\n"));
    bed.wait_count(2);
    std::fs::write(format!("/proc/{}/root/stop", sandbox.pid()), "").unwrap();
    assert_eq!(bed.exit().code, 41);
    sandbox.dismiss().unwrap();
    bed.assert_clean();
}

#[test]
fn a_snapshot_leaves_the_container_running() {
    if !has_criu() {
        return;
    }
    let bed = Bed::with_netns();
    let sandbox = bed.start(COUNT);
    bed.wait_count(3);
    let dir = bed.dump(&sandbox, "cp", true);
    let saved = bed.last_count().unwrap();
    runs_free(sandbox.pid());
    bed.wait_count(saved + 3);
    sandbox.signal(libc::SIGKILL, None).unwrap();
    assert!(!bed.exit().checkpointed);
    sandbox.dismiss().unwrap();
    let sandbox = bed.thaw(bed.launch(""), &dir, vec![]);
    std::fs::write(format!("/proc/{}/root/stop", sandbox.pid()), "").unwrap();
    assert_eq!(bed.exit().code, 41);
    sandbox.dismiss().unwrap();
    bed.assert_clean();
}

#[test]
fn a_failed_dump_leaves_the_container_running() {
    if !has_criu() {
        return;
    }
    let bed = Bed::with_netns();
    let sandbox = bed.start(COUNT);
    bed.wait_count(3);
    let dir = bed.dir.join("cp");
    // The writable layer cannot be saved, with the tree frozen and its images written.
    std::fs::create_dir_all(dir.join("rootfs.tar")).unwrap();
    let error = sandbox.dump(Dump { dir, ..Dump::default() }).unwrap_err();
    assert!(error.to_string().contains("rootfs.tar"), "{error}");
    runs_free(sandbox.pid());
    bed.wait_count(bed.last_count().unwrap() + 3);
    std::fs::write(format!("/proc/{}/root/stop", sandbox.pid()), "").unwrap();
    let exit = bed.exit();
    assert_eq!((exit.code, exit.checkpointed), (41, false));
    sandbox.dismiss().unwrap();
    bed.assert_clean();
}

#[test]
fn a_thaw_that_fails_leaves_nothing() {
    if !has_criu() {
        return;
    }
    let bed = Bed::with_netns();
    let sandbox = bed.start(COUNT);
    bed.wait_count(3);
    let dir = bed.dump(&sandbox, "cp", false);
    assert!(bed.exit().checkpointed);
    sandbox.dismiss().unwrap();
    std::fs::remove_file(dir.join("images/pstree.img")).unwrap();
    let log = bed.dir.join("thaw.log");
    let error = bed
        .runtime()
        .thaw(
            bed.launch(""),
            Thaw { dir, tcp_close: false, hostname: None, lazy: false, asks: None },
            vec![],
            &log,
        )
        .unwrap_err();
    assert!(std::fs::read_to_string(&log).unwrap().contains("Error ("), "what criu said is kept");
    assert!(error.to_string().starts_with("thaw container: "), "{error}");
    bed.assert_clean();
}

#[test]
fn criu_is_asked_what_it_can_do() {
    if !has_criu() {
        return;
    }
    let bed = Bed::new();
    let info = bed.runtime().probe_criu().unwrap();
    assert!(info.version.contains('.'), "{info:?}");
    let place = protocol::CriuPlace { path: "/bin/true".into(), cache_dir: bed.dir.join("criu") };
    let error = criu::probe(&binary(), &place).unwrap_err();
    assert!(error.to_string().contains("does not start"), "{error}");
    let error = criu::find(Some(Path::new("/nowhere/criu"))).unwrap_err();
    assert!(error.to_string().contains("scripts/criu.sh"), "{error}");
}

/// The other end of a shim's socket, or of a daemon's: one packet at a time, by hand.
fn say(socket: &OwnedFd, line: &str) {
    rustix::io::write(socket, line.as_bytes()).unwrap();
}

fn hear(socket: &OwnedFd) -> serde_json::Value {
    let mut packet = vec![0; protocol::PACKET_BYTES];
    let bytes = rustix::io::read(socket, &mut packet).unwrap();
    serde_json::from_slice(&packet[..bytes]).unwrap()
}

/// A daemon of version 1, revision 0 finds a shim of today: every call it can make of a container that runs, as
/// it was recorded, has the answer it waits for.
#[test]
fn an_old_daemon_and_a_shim_of_today_understand_each_other() {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let mut bed = Bed::new();
    let sandbox = bed.start("trap 'exit 5' USR1; echo ready; while :; do sleep 0.02; done");
    bed.wait_log(|log| log.contains("ready"));
    let (pid, run_dir) = (sandbox.pid(), bed.dir.join("run").join(&bed.id));
    bed.runtime = None;
    drop(sandbox);
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let dir = std::fs::File::open(&run_dir).unwrap();
    let address = super::socket_address(std::os::fd::AsFd::as_fd(&dir)).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    let hello = hear(&socket);
    // Version 1 refuses a greater one, and reads these.
    let hello = &hello["hello"];
    assert_eq!((&hello["version"], &hello["pid"], &hello["exit"]), (&1.into(), &pid.into(), &().into()));
    assert_eq!((hello["id"].as_str(), hello["paused"].as_bool()), (Some(&*bed.id), Some(false)));
    for line in include_str!("fixtures/daemon-v1.jsonl").lines() {
        let sent: serde_json::Value = serde_json::from_str(line).unwrap();
        let call = sent["call"].as_object().unwrap().keys().next().unwrap().clone();
        let outcome = |socket: &OwnedFd| {
            let answer = hear(socket);
            assert_eq!(answer["answer"]["id"], sent["id"], "{line}: {answer}");
            answer["answer"]["outcome"].clone()
        };
        match call.as_str() {
            "pause" | "resume" | "resize" => {
                say(&socket, line);
                assert!(outcome(&socket)["done"].is_object(), "{line}");
            }
            // Without its descriptors, or at the wrong time: refused, and not the end of the talk.
            "launch" | "thaw" | "exec" | "attach" | "dismiss" => {
                say(&socket, line);
                assert!(outcome(&socket)["failed"]["cause"]["refused"].is_string(), "{line}");
            }
            _ => {}
        }
    }
    say(&socket, r#"{"id":77,"call":{"sing":{"song":"of a later daemon"}}}"#);
    assert!(hear(&socket)["answer"]["outcome"]["failed"]["cause"]["refused"].is_string());
    say(&socket, r#"{"id":9,"call":{"signal":{"exec":null,"signal":10}}}"#);
    assert!(hear(&socket)["answer"]["outcome"]["done"].is_object());
    let ended = hear(&socket);
    let exit = &ended["event"]["exited"];
    assert_eq!((&exit["code"], &exit["checkpointed"]), (&5.into(), &false.into()), "{ended}");
    say(&socket, r#"{"id":12,"call":{"dismiss":{}}}"#);
    assert!(hear(&socket)["answer"]["outcome"]["done"].is_object());
    bed.restart();
    bed.clean_up(bed.runtime()).unwrap();
    bed.assert_clean();
}

/// A daemon of today finds a shim of version 1, revision 0, played from what one said.
#[test]
fn a_daemon_of_today_and_an_old_shim_understand_each_other() {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let bed = Bed::new();
    let run_dir = bed.dir.join("run").join(&bed.id);
    std::fs::create_dir_all(&run_dir).unwrap();
    let kind = SocketType::SEQPACKET;
    let listener = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    let dir = std::fs::File::open(&run_dir).unwrap();
    rustix::net::bind(&listener, &super::socket_address(std::os::fd::AsFd::as_fd(&dir)).unwrap()).unwrap();
    rustix::net::listen(&listener, 1).unwrap();
    let lines: Vec<&str> = include_str!("fixtures/shim-v1.jsonl").lines().collect();
    let find = |parts: &[&str]| {
        let found = lines.iter().find(|line| parts.iter().all(|part| line.contains(part)));
        (*found.unwrap_or_else(|| panic!("{parts:?}"))).to_owned()
    };
    let paused = find(&["hello", "\"paused\":true"])
        .replace("3e58dbd248e2f924227e2b199e537a2ca29b45bef2290d8f6e885643bfd4e3ea", &bed.id);
    let (done, no_command) = (find(&["answer", "\"pid\":null"]), find(&["answer", "command"]));
    let (not_frozen, missing) = (find(&["answer", "refused"]), find(&["answer", "errno"]));
    let (exec_exited, oom) = (find(&["exec_exited"]), find(&["oom\":{}"]));
    let (detached, exited) = (find(&["detached", "null"]), find(&["event", "exited\":{\"code"]));
    let shim = std::thread::spawn(move || {
        let socket = rustix::net::accept(&listener).unwrap();
        say(&socket, &paused);
        // One answer to each call, under the call's number.
        for line in [&done, &no_command, &not_frozen, &missing] {
            let asked = hear(&socket);
            let mut answer: serde_json::Value = serde_json::from_str(line).unwrap();
            answer["answer"]["id"] = asked["id"].clone();
            say(&socket, &answer.to_string());
        }
        for line in [&exec_exited, &oom, &detached, &exited] {
            say(&socket, line);
        }
        hear(&socket)
    });
    let adopted = bed.runtime().adopt(&run_dir, PATIENCE).unwrap();
    let Adopted::Running(sandbox) = adopted else { panic!("{adopted:?}") };
    assert_eq!((sandbox.pid(), sandbox.was_paused(), sandbox.was_oom_killed()), (28375, true, false));
    assert_eq!(sandbox.had_ended().count(), 0);
    sandbox.resume().unwrap();
    let exec = Exec { id: "e".into(), process: Process::default(), privileged: false, attachment: None };
    assert!(matches!(
        sandbox.exec(exec).unwrap_err().cause,
        Cause::Command(CommandError { exit_code: 127, .. })
    ));
    assert!(matches!(sandbox.pause().unwrap_err().cause, Cause::Refused(_)));
    let error = sandbox.signal(15, None).unwrap_err();
    assert!(
        matches!(&error.cause, Cause::Io(cause) if cause.kind() == std::io::ErrorKind::NotFound),
        "{error}"
    );
    assert!(matches!(bed.event(), SandboxEvent::ExecExited { code: 4, .. }));
    assert!(matches!(bed.event(), SandboxEvent::Oom { .. }));
    assert!(matches!(bed.event(), SandboxEvent::Detached { exec_id: None, .. }));
    assert!(matches!(bed.event(), SandboxEvent::Exited { exit: Exit { code: 3, .. }, .. }));
    // Hearing nothing more is what an old shim does to a daemon, too: it is gone.
    assert!(sandbox.dismiss().is_ok());
    assert!(shim.join().unwrap()["call"]["dismiss"].is_object());
}
