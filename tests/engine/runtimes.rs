//! Other OCI runtimes: what a user sees must not depend on which one runs the container.
//!
//! One script over the built-in runtime, runc and crun; each step is an answer, and the answers are compared.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::daemon::BUSYBOX;
use crate::support::requires::{self, requires};
use crate::support::terminal::Terminal;
use crate::support::{Cmd, Daemon, Output, TempDir, binary, eventually};

/// Whether cgroup2 is mounted beside v1 with controllers of its own.
fn is_hybrid() -> bool {
    std::fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers")
        .is_ok_and(|text| !text.trim().is_empty())
}

/// crun as it runs here. On a hybrid host it refuses to do anything while cgroup2 has controllers, whatever its
/// cgroup manager, so it gets a mount namespace without that mount.
fn crun(dir: &Path) -> PathBuf {
    let crun = requires::on_path("crun").expect("the test requires crun");
    if !is_hybrid() {
        return crun;
    }
    let script = format!(
        "#!/bin/sh\nexec unshare -m --propagation slave sh -c \
         'umount /sys/fs/cgroup/unified && exec {} \"$@\"' crun \"$@\"\n",
        crun.display()
    );
    let path = dir.join("crun");
    std::fs::write(&path, script).expect("a fresh directory");
    Cmd::new("chmod").args(["755", &path.display().to_string()]).ok();
    path
}

/// A daemon that knows both.
fn daemon_with(dir: &TempDir) -> Daemon {
    let runc = requires::on_path("runc").expect("the test requires runc");
    let runc = format!("runc={}", runc.display());
    let crun = format!("crun={}", crun(dir.path()).display());
    let daemon = Daemon::with(&["--add-runtime", &runc, "--add-runtime", &crun], &[]);
    daemon.dewar(&["import"]).arg(crate::support::busybox_tar()).arg(BUSYBOX).ok();
    daemon
}

/// What one runtime answered, step by step.
struct Transcript<'a> {
    daemon: &'a Daemon,
    runtime: &'static str,
    answers: Vec<String>,
}

impl Transcript<'_> {
    /// Notes an answer, without what is another's in every run.
    fn note(&mut self, step: &str, output: &Output) {
        let ids = |text: &str| -> String {
            let words = text.split_inclusive(|letter: char| !letter.is_ascii_hexdigit());
            // Capability sets have 16 digits, and are part of the answer.
            let is_id = |word: &str| {
                let digits = word.trim_end_matches(|letter: char| !letter.is_ascii_hexdigit());
                matches!(digits.len(), 12 | 64)
            };
            words.map(|word| if is_id(word) { "ID " } else { word }).collect()
        };
        let name = self.name();
        let (stdout, stderr) = (output.stdout.replace(&name, "NAME"), output.stderr.replace(&name, "NAME"));
        let text = format!("{step}: {}\n{}{}", output.code, ids(&stdout), ids(&stderr));
        self.answers.push(text.replace(&format!("\"{}\"", self.runtime), "RUNTIME"));
    }

    fn name(&self) -> String {
        format!("{}-web", self.runtime)
    }

    /// A container that is run to its end.
    fn run(&mut self, step: &str, flags: &[&str], command: &[&str]) -> Output {
        let run = self.daemon.dewar(&["run", "--rm", "--network", "none", "--runtime", self.runtime]);
        let output = run.args(flags).arg(BUSYBOX).args(command).run();
        self.note(step, &output);
        output
    }

    /// A command about the container that stays.
    fn web(&mut self, step: &str, before: &[&str], after: &[&str]) -> Output {
        let output = self.daemon.dewar(before).arg(self.name()).args(after).run();
        self.note(step, &output);
        output
    }

    /// What a command says on a terminal.
    fn terminal(&mut self, step: &str, args: &[&str]) {
        let host = self.daemon.host();
        let mut all = vec!["-H", &host];
        all.extend_from_slice(args);
        let mut terminal = Terminal::start(&binary(), &all);
        terminal.expect("size");
        let code = terminal.wait();
        self.answers.push(format!("{step}: {code} {}", terminal.seen().replace(['\0', '\r'], "")));
    }
}

/// What a process is allowed and given.
const SELF: &str = "id; pwd; env | sort | grep -v HOSTNAME; ulimit -n; hostname; cat /proc/self/oom_score_adj; \
    grep -E 'Cap|NoNewPrivs|Seccomp:|Groups|SigIgn' /proc/self/status; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/domainname; \
    grep -cE ' /proc/(kcore|keys) ' /proc/mounts; grep -c ' /proc/sys proc ro' /proc/mounts; \
    mount | grep -E ' on (/dev/shm|/t|/sys|/proc) ' | sort; touch /x; ls -l /dev/null /dev/ptmx | cut -c1-10; \
    ls /sys/class/net; echo $$; unshare -U true; exit 3";
const LIMIT: &str =
    "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes";

fn one_off(answers: &mut Transcript<'_>) {
    let plain = answers.run(
        "plain",
        &["--hostname", "h", "--domainname", "d.e", "-w", "/made/here"],
        &["sh", "-c", SELF],
    );
    assert_eq!(plain.code, 3, "{plain}");
    plain.stdout_has("uid=0(root)").stdout_has("HOME=/root").stdout_has("Seccomp:\t2");
    let restricted = answers.run(
        "restricted",
        &[
            "-u",
            "user:staff",
            "--group-add",
            "65534",
            "-w",
            "/home",
            "-e",
            "A=1",
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges",
            "--read-only",
            "--tmpfs",
            "/t:size=1m,exec",
            "--shm-size",
            "8m",
            "--ulimit",
            "nofile=100:200",
            "--sysctl",
            "net.ipv4.ip_forward=1",
            "--oom-score-adj",
            "500",
            "--hostname",
            "h",
        ],
        &["sh", "-c", SELF],
    );
    assert_eq!(restricted.code, 3, "{restricted}");
    restricted
        .stdout_has("uid=1000(user) gid=50(staff)")
        .stdout_has("NoNewPrivs:\t1")
        .stdout_has("size=8192k");
    answers.run("input", &["-i"], &["cat"]);
    for (command, code) in [("nope", 127), ("/nope", 127), ("/etc/hostname", 126)] {
        let output = answers.run(command, &[], &[command]);
        assert_eq!(output.code, code, "{output}");
    }
    let nobody = answers.run("user", &["-u", "who"], &["id"]);
    nobody.stderr_has("unable to find user who: no matching entries in passwd file");
    answers.run("signal", &[], &["sh", "-c", "kill -USR1 $$; trap 'exit 9' TERM; kill $$"]);
    answers.run("init", &["--init"], &["sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '; exit 5"]);
    answers.run("host", &["--pid", "host", "--uts", "host"], &["sh", "-c", "test -d /proc/1; hostname"]);
    answers.run(
        "privileged",
        &["--privileged"],
        &["sh", "-c", "grep Cap /proc/self/status; ls -d /dev/loop*"],
    );
    let oom = answers.run(
        "memory",
        &["-m", "16m"],
        &["sh", "-c", &format!("{LIMIT}; x=a; while :; do x=$x$x; done")],
    );
    assert_eq!((oom.code, oom.trimmed()), (137, "16777216"), "{oom}");
    answers.terminal(
        "terminal",
        &[
            "run",
            "-it",
            "--rm",
            "--network",
            "none",
            "--runtime",
            answers.runtime,
            BUSYBOX,
            "sh",
            "-c",
            "tty; test -c /dev/console && echo size; exit 4",
        ],
    );
}

fn long_lived(answers: &mut Transcript<'_>) {
    let name = answers.name();
    let (daemon, runtime) = (answers.daemon, answers.runtime);
    let volume = format!("v-{runtime}");
    daemon.run_detached(
        &format!("{runtime}-donor"),
        &["--runtime", runtime, "--ipc", "shareable", "-v", &format!("{volume}:/v")],
        "mkdir /v/sub; echo s >/v/sub/f; echo m >/dev/shm/f; sleep 600",
    );
    eventually("the donor", || {
        daemon.dewar(&["exec", &format!("{runtime}-donor"), "cat", "/dev/shm/f"]).run().code == 0
    });
    let borrowed = format!("container:{runtime}-donor");
    let below = format!("src={volume},dst=/v,volume-subpath=sub");
    answers.run("borrowed", &["--ipc", &borrowed, "--mount", &below], &["cat", "/dev/shm/f", "/v/f"]);

    let script = "trap 'echo got; exit 7' TERM; trap 'exit 9' USR2; echo up; echo err >&2; while :; do sleep 0.05; done";
    let flags = ["--runtime", runtime, "-m", "64m", "--health-cmd", "true", "--health-interval", "100ms"];
    daemon.run_detached(&name, &flags, script);
    answers.web("exec", &["exec"], &["sh", "-c", "id; pwd; echo e >&2; exit 5"]);
    answers.web(
        "exec as",
        &["exec", "-u", "user", "-w", "/etc", "-e", "X=1"],
        &["sh", "-c", "id; pwd; echo $X $HOME"],
    );
    answers.web("exec rights", &["exec"], &["grep", "-E", "Cap|Seccomp:|NoNew", "/proc/self/status"]);
    for (command, code) in [("nope", 127), ("/etc/hostname", 126)] {
        let output = answers.web("exec what cannot run", &["exec"], &[command]);
        assert_eq!(output.code, code, "{output}");
    }
    answers.terminal("exec on a terminal", &["exec", "-it", &name, "sh", "-c", "tty; echo size; exit 6"]);
    let echoed = daemon.dewar(&["exec", "-i", &name, "cat"]).stdin("typed").run();
    answers.note("exec with input", &echoed);
    assert_eq!(echoed.stdout, "typed");
    eventually("health", || daemon.state(&name)["Health"]["Status"] == "healthy");

    let top = daemon.dewar(&["top", &name]).ok();
    top.stdout_has("sh -c trap");
    daemon.dewar(&["stats", "--no-stream", &name]).ok().stdout_has("/ 64MiB");
    answers.web("pause", &["pause"], &[]);
    answers.web("exec while paused", &["exec"], &["true"]);
    answers.web("unpause", &["unpause"], &[]);
    answers.web("update", &["update", "-m", "32m", "--memory-swap", "64m"], &[]);
    answers.web("limit", &["exec"], &["sh", "-c", LIMIT]).stdout_is("33554432\n");
    answers.web("write", &["exec"], &["sh", "-c", "echo new >/new"]);
    answers.web("diff", &["diff"], &[]);
    let copied = daemon.dewar(&["cp", &format!("{name}:/new"), "-"]).ok();
    assert!(copied.stdout.contains("new\n"), "{copied}");
}

/// After the daemon was killed and is back.
fn afterwards(answers: &mut Transcript<'_>) {
    let name = answers.name();
    let daemon = answers.daemon;
    answers.web("exec after the crash", &["exec"], &["sh", "-c", "cat /new; exit 8"]);
    answers.web("signal", &["kill", "-s", "USR2"], &[]);
    eventually("its end by a signal", || daemon.state(&name)["Status"] == "exited");
    answers.web("start", &["start"], &[]);
    answers.web("stop", &["stop"], &[]);
    answers.web("logs", &["logs"], &[]);
    let format = "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Error}}";
    answers.web("inspect", &["inspect", "-f", format], &[]);
    answers.web("start again", &["start"], &[]);
    let inspected = daemon.dewar(&["inspect", "-f", "{{.HostConfig.Runtime}}", &name]).ok();
    assert_eq!(inspected.trimmed(), answers.runtime);
    answers.web("force", &["rm", "-f"], &[]);
}

#[test]
fn the_same_script_has_the_same_answers() {
    requires!(root, runc, crun);
    let dir = TempDir::new();
    let mut daemon = daemon_with(&dir);
    let mut before = Vec::new();
    for runtime in ["dewar", "runc", "crun"] {
        let mut transcript = Transcript { daemon: &daemon, runtime, answers: Vec::new() };
        one_off(&mut transcript);
        long_lived(&mut transcript);
        before.push(transcript.answers);
    }
    daemon.kill9();
    daemon.restart();
    let mut all = Vec::new();
    for (runtime, answers) in ["dewar", "runc", "crun"].into_iter().zip(before) {
        let mut transcript = Transcript { daemon: &daemon, runtime, answers };
        afterwards(&mut transcript);
        all.push((runtime, transcript.answers));
    }
    let (_, expected) = all.remove(0);
    for (runtime, answers) in all {
        for (answer, expected) in answers.iter().zip(&expected) {
            assert_eq!(answer, expected, "{runtime} and the built-in runtime");
        }
        assert_eq!(answers.len(), expected.len());
    }
}

#[test]
fn what_another_runtime_cannot_do_is_said() {
    requires!(root, runc);
    let runc = requires::on_path("runc").expect("the test requires runc");
    let runc = format!("runc={}", runc.display());
    let flags = [
        "--add-runtime",
        &runc,
        "--add-runtime",
        "gone=/no/such/runtime",
        "--add-runtime",
        "false=/bin/false",
    ];
    let daemon = Daemon::with(&flags, &[]);
    daemon.dewar(&["import"]).arg(crate::support::busybox_tar()).arg(BUSYBOX).ok();
    let run = |runtime: &str| daemon.run(&["--runtime", runtime], "true");
    run("gone")
        .fails(125)
        .stderr_has("run OCI runtime \"gone\" (/no/such/runtime): No such file or directory");
    run("false").fails(125).stderr_has("OCI runtime \"false\" create failed: exit status: 1");
    let body = serde_json::json!({"Image": BUSYBOX, "Cmd": ["true"], "HostConfig": {"Runtime": "nope"}});
    daemon
        .api_json("POST", "/containers/create", &body)
        .refuses(400, "unknown or invalid runtime name: nope");
    daemon
        .run(&["--runtime", "runc", "-w", "/etc/passwd"], "true")
        .fails(125)
        .stderr_has("OCI runtime \"runc\"");

    daemon.run_detached("web", &["--runtime", "io.containerd.runc.v2"], "sleep 600");
    let cwd = daemon.dewar(&["exec", "-w", "/none", "web", "true"]).fails(126);
    cwd.says("OCI runtime \"runc\" exec failed: chdir to cwd");
    let body = serde_json::json!({"CheckpointID": "cp"});
    daemon
        .api_json("POST", "/containers/web/checkpoints", &body)
        .refuses(501, "runtime \"runc\" does not support checkpoints");
    daemon.dewar(&["rm", "-f", "web"]).ok();
}

#[test]
fn a_shim_that_is_killed_leaves_nothing() {
    requires!(root, runc);
    let runc = requires::on_path("runc").expect("the test requires runc");
    let daemon = Daemon::with(&["--add-runtime", &format!("runc={}", runc.display())], &[]);
    daemon.dewar(&["import"]).arg(crate::support::busybox_tar()).arg(BUSYBOX).ok();
    daemon.run_detached("web", &["--runtime", "runc"], "sleep 600");
    let pid = daemon.state("web")["Pid"].as_i64().expect("a number");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
    let shim = Pid::from_raw(parent.expect("a parent")).expect("the shim is its parent");
    kill_process(shim, Signal::KILL).expect("it runs");
    eventually("the end of its container", || daemon.state("web")["Status"] == "exited");
    // Dead, at least: whose init reaps it is not ours to say.
    eventually("its death", || {
        std::fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |text| text.is_empty())
    });
    daemon.dewar(&["start", "web"]).ok();
    daemon.dewar(&["exec", "web", "true"]).ok();
}

#[test]
fn runtimes_come_and_go_with_the_configuration() {
    requires!(root, runc);
    let dir = TempDir::new();
    let path = dir.path().join("daemon.json");
    let runc = requires::on_path("runc").expect("the test requires runc");
    std::fs::write(&path, "{}").expect("a fresh directory");
    let daemon = Daemon::with(&["--config-file", &path.display().to_string()], &[]);
    daemon.dewar(&["import"]).arg(crate::support::busybox_tar()).arg(BUSYBOX).ok();
    let reload = |text: &str, done: &str| {
        std::fs::write(&path, text).expect("the file is the test's");
        let before = daemon.log().matches(done).count();
        kill_process(Pid::from_raw(daemon.pid().cast_signed()).expect("a pid"), Signal::HUP)
            .expect("it runs");
        eventually(done, || daemon.log().matches(done).count() > before);
    };
    let used = |name: &str| daemon.dewar(&["inspect", "-f", "{{.HostConfig.Runtime}}", name]).ok().stdout;
    // Docker's name for its stock runtime, in a Compose file or a script, means ours while there is no other.
    daemon.run(&["--runtime", "runc"], "true").ok();
    daemon
        .run(&["--runtime", "other"], "true")
        .fails(125)
        .stderr_has("unknown or invalid runtime name: other");

    let file = serde_json::json!({
        "runtimes": {"other": {"path": runc, "runtimeArgs": ["--debug"]}}, "default-runtime": "other"
    });
    reload(&file.to_string(), "the configuration was reloaded");
    let info = daemon.api("GET", "/info").is(200).json();
    assert_eq!(info["DefaultRuntime"], "other");
    assert_eq!(info["Runtimes"]["other"]["runtimeArgs"][0], "--debug");
    assert!(info["Runtimes"]["dewar"].is_object());
    daemon.run_detached("web", &[], "sleep 600");
    assert_eq!(used("web"), "other\n");

    reload(r#"{"runtimes": {"dewar": {"path": "/bin/true"}}}"#, "it stays as it was");
    reload(r#"{"default-runtime": "gone"}"#, "it stays as it was");
    reload("{}", "the configuration was reloaded");
    // It runs on under the runtime that made it; another start would need that.
    daemon.dewar(&["exec", "web", "true"]).ok();
    daemon.dewar(&["kill", "web"]).ok();
    daemon.dewar(&["start", "web"]).fails(1).stderr_has("unknown or invalid runtime name: other");
    daemon.run_detached("plain", &[], "true");
    assert_eq!(used("plain"), "dewar\n");
}
