//! A private daemon for one test: own data root, own run root, own socket, own cgroups, own network.
//!
//! Dropping it removes its containers, stops it, and fails the test if anything of it is still there.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::http::{Connection, Reply};
use super::leftovers::{self, Leftovers};
use super::{Cmd, Namespace, TempDir, binary, busybox_tar, requires};

/// The image every daemon of a test can have: [`Daemon::start`] imports it.
pub const BUSYBOX: &str = "busybox";

/// Whether a daemon answers at a socket. The socket of one that was killed is still there and refuses, or is held for
/// a moment by a process it was just starting, and then hangs up.
fn answers(socket: &Path) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply)?;
        Ok(reply.starts_with(b"HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}

/// A daemon under test.
pub struct Daemon {
    dir: TempDir,
    process: Option<Child>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    passed: Option<Passed>,
    /// What becomes the program once it has set things up; empty for nothing.
    launcher: Vec<String>,
    /// Its "host", as far as networks go; `None` is this machine.
    network: Option<Namespace>,
    /// The test is in that network, too.
    is_shared: bool,
    /// Ended in order: nothing is left to be done.
    is_ended: bool,
}

/// Sockets for socket activation: descriptors from 3 on.
pub struct Passed {
    /// One or two; they come through the launcher's standard input and output.
    pub sockets: Vec<OwnedFd>,
    /// `LISTEN_FDNAMES`
    pub names: &'static str,
}

impl Daemon {
    /// A daemon with the busybox image.
    #[track_caller]
    pub fn start() -> Daemon {
        let daemon = Daemon::empty();
        daemon.dewar(&["import"]).arg(busybox_tar()).arg(BUSYBOX).ok();
        daemon
    }

    /// A daemon with the busybox image and further flags, in a network that may be somebody else's too.
    #[track_caller]
    pub fn start_in(network: &Namespace, args: &[&str]) -> Daemon {
        let criu = requires::criu_path().ok().map(|path| path.to_string_lossy().into_owned());
        let mut all: Vec<&str> = criu.iter().flat_map(|criu| ["--criu", criu]).collect();
        all.extend(args);
        let mut daemon = Daemon::prepare(&all, &[], None, &[], Some(network.clone()));
        daemon.is_shared = true;
        daemon.dewar(&["import"]).arg(busybox_tar()).arg(BUSYBOX).ok();
        daemon
    }

    /// A daemon with the busybox image that has this machine's network, and makes nothing in it: containers' logs go
    /// to servers of the test, or the host's network is what is looked at.
    #[track_caller]
    pub fn start_on_host() -> Daemon {
        let daemon = Daemon::on_host(&[], &[]);
        daemon.dewar(&["import"]).arg(busybox_tar()).arg(BUSYBOX).ok();
        daemon
    }

    /// A daemon without images.
    #[track_caller]
    pub fn empty() -> Daemon {
        let criu = requires::criu_path().ok().map(|path| path.to_string_lossy().into_owned());
        match &criu {
            Some(criu) => Daemon::with(&["--criu", criu], &[]),
            None => Daemon::with(&[], &[]),
        }
    }

    /// A daemon without images, with further flags and variables.
    #[track_caller]
    pub fn with(args: &[&str], env: &[(&str, &str)]) -> Daemon {
        Daemon::prepare(args, env, None, &[], Some(Namespace::new()))
    }

    /// As [`Daemon::with`], in a network that may be somebody else's too.
    #[track_caller]
    pub fn within(network: &Namespace, args: &[&str], env: &[(&str, &str)]) -> Daemon {
        let mut daemon = Daemon::prepare(args, env, None, &[], Some(network.clone()));
        daemon.is_shared = true;
        daemon
    }

    /// As [`Daemon::with`], for those that the test reaches by tcp: on this machine's network, where it makes nothing.
    #[track_caller]
    pub fn on_host(args: &[&str], env: &[(&str, &str)]) -> Daemon {
        let args: Vec<&str> = args.iter().copied().chain(["--bridge", "none"]).collect();
        Daemon::prepare(&args, env, None, &[], None)
    }

    /// A daemon without images, run by a command that becomes what its last arguments say.
    #[track_caller]
    pub fn inside(launcher: &[&str]) -> Daemon {
        Daemon::prepare(&[], &[], None, launcher, Some(Namespace::new()))
    }

    /// A daemon without images that is given sockets.
    #[track_caller]
    pub fn activated(args: &[&str], passed: Passed) -> Daemon {
        Daemon::prepare(args, &[], Some(passed), &[], Some(Namespace::new()))
    }

    #[track_caller]
    fn prepare(
        args: &[&str],
        env: &[(&str, &str)],
        passed: Option<Passed>,
        launcher: &[&str],
        network: Option<Namespace>,
    ) -> Daemon {
        let mut daemon = Daemon {
            dir: TempDir::new(),
            process: None,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            passed,
            launcher: launcher.iter().map(|word| (*word).to_owned()).collect(),
            network,
            is_shared: false,
            is_ended: false,
        };
        daemon.restart();
        daemon
    }

    /// A command that would start a second daemon on this one's directories.
    pub fn again(&self) -> Cmd {
        Cmd::new(binary()).args(["daemon", "-H", &self.host()]).args(self.roots())
    }

    fn roots(&self) -> [String; 4] {
        let dir = self.dir.path().display();
        ["--data-root".to_owned(), format!("{dir}/data"), "--exec-root".to_owned(), format!("{dir}/run")]
    }

    /// Starts it (again) and waits until it answers; gives the time that took.
    #[track_caller]
    pub fn restart(&mut self) -> Duration {
        assert!(self.process.is_none(), "the daemon still runs");
        self.is_ended = false;
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a fresh directory");
        let start = Instant::now();
        let mut command = self.command();
        command
            .args(["daemon", "-H", &self.host()])
            .args(self.roots())
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        if self.passed.is_none() {
            command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor can be copied"));
        }
        command.stderr(log);
        let spawned = match &self.network {
            Some(network) => network.within(|| command.spawn()),
            None => command.spawn(),
        };
        self.process = Some(spawned.expect("the program under test exists"));
        loop {
            if answers(&self.socket()) {
                return start.elapsed();
            }
            let process = self.process.as_mut().expect("started above");
            if let Some(status) = process.try_wait().expect("waiting for a child of ours") {
                self.process = None;
                panic!("the daemon ended with {status}:\n{}", self.log());
            }
            assert!(start.elapsed() < Duration::from_secs(20), "the daemon does not answer:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The program, or the launcher that passes sockets and then becomes it.
    fn command(&self) -> Command {
        let Some(passed) = &self.passed else {
            let [program, words @ ..] = &self.launcher[..] else { return Command::new(binary()) };
            let mut command = Command::new(program);
            command.args(words).arg(binary());
            return command;
        };
        let mut command = Command::new("sh");
        let copy = |index: usize| passed.sockets[index].try_clone().expect("a descriptor can be copied");
        let moves = match passed.sockets.len() {
            1 => "3<&0",
            _ => "3<&0 4<&1",
        };
        let script = format!(
            "export LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={}; exec \"$0\" \"$@\" {moves} </dev/null >/dev/null",
            passed.sockets.len(),
            passed.names
        );
        command.args(["-c", &script]).arg(binary()).stdin(copy(0));
        match passed.sockets.len() {
            1 => command.stdout(Stdio::null()),
            _ => command.stdout(copy(1)),
        };
        command
    }

    /// The port of the `tcp://` host with port 0, as the log tells it.
    #[track_caller]
    pub fn port(&self) -> u16 {
        // It answers before it tells.
        super::eventually("the daemon tells where it serves", || self.log().contains(" serves API "));
        let log = self.log();
        let line = log.lines().rev().find(|line| line.contains(" serves API ")).expect("it serves");
        let place = line.rsplit_once("tcp://").expect("it serves tcp").1;
        let address = place.split(',').next().unwrap_or_default();
        address.rsplit_once(':').and_then(|(_, port)| port.trim().parse().ok()).expect("a port")
    }

    /// Kills it as a crash would, with everything it runs left alone.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }

    /// Asks it to end and waits; gives its exit code.
    #[track_caller]
    pub fn stop(&mut self) -> i32 {
        let Some(mut process) = self.process.take() else { return 0 };
        let _ = kill_process(Pid::from_child(&process), Signal::TERM);
        let start = Instant::now();
        loop {
            if let Some(status) = process.try_wait().expect("waiting for a child of ours") {
                return status.code().unwrap_or(-1);
            }
            if start.elapsed() > Duration::from_secs(30) {
                drop(process.kill());
                drop(process.wait());
                panic!("the daemon did not stop within 30 s of SIGTERM:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Removes its containers and stops it, in order.
    #[track_caller]
    pub fn end(&mut self) {
        if self.process.is_none() {
            // Containers outlive a daemon that was killed; only a daemon can end them in order.
            self.restart();
        }
        self.remove_containers();
        assert_eq!(self.stop(), 0, "the daemon's exit code after SIGTERM:\n{}", self.log());
        assert!(!leftovers::has_names(self.dir.path()), "a mount is left:\n{}", self.log());
        self.is_ended = true;
    }

    /// Waits until it ends, which something else makes it do; gives its exit code.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        let mut process = self.process.take().expect("the daemon runs");
        let start = Instant::now();
        loop {
            if let Some(status) = process.try_wait().expect("waiting for a child of ours") {
                return status.code().unwrap_or(-1);
            }
            if start.elapsed() > Duration::from_secs(30) {
                self.process = Some(process);
                panic!("the daemon did not end within 30 s:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the daemon runs").id()
    }

    /// The network it believes to be the host's.
    #[track_caller]
    pub fn network(&self) -> &Namespace {
        self.network.as_ref().expect("not a daemon of this machine's network")
    }

    /// Where the daemon keeps everything: `data/`, `run/`, `daemon.log`, the socket.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("dewar.sock")
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("daemon.log")
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// `dewar -H … args`
    pub fn dewar<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Cmd {
        Cmd::new(binary()).args(["-H", &self.host()]).args(args)
    }

    /// `docker -H … args`: the stock client.
    #[track_caller]
    pub fn docker<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Cmd {
        let docker = requires::docker_path().expect("the test requires docker");
        // Its configuration must be neither read nor written.
        Cmd::new(docker)
            .env("DOCKER_CONFIG", self.dir.path().join("docker-config"))
            .env("DOCKER_CLI_HINTS", "false")
            .args(["-H", &self.host()])
            .args(args)
    }

    /// A docker-py script; `client` is a `docker.DockerClient` on this daemon.
    #[track_caller]
    pub fn python(&self, script: &str) -> Cmd {
        let python = requires::python_path().expect("the test requires docker-py");
        let prelude = format!("import docker\nclient = docker.DockerClient(base_url='{}')\n", self.host());
        Cmd::new(python).arg("-c").arg(prelude + script)
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn api(&self, method: &str, path: &str) -> Reply {
        let mut connection = Connection::open(&self.socket());
        connection.request(method, path, &[("Connection", "close")], None);
        connection.reply(method)
    }

    /// One request with a JSON body.
    #[track_caller]
    pub fn api_json(&self, method: &str, path: &str, body: &serde_json::Value) -> Reply {
        let mut connection = Connection::open(&self.socket());
        connection.request(method, path, &[("Connection", "close")], Some(body.to_string().as_bytes()));
        connection.reply(method)
    }

    /// `State` of a container.
    #[track_caller]
    pub fn state(&self, name: &str) -> serde_json::Value {
        self.api("GET", &format!("/containers/{name}/json")).is(200).json()["State"].clone()
    }

    /// The output of `dewar logs`.
    #[track_caller]
    pub fn logs(&self, name: &str) -> String {
        self.dewar(&["logs", name]).ok().stdout
    }

    /// Waits until the past events, as the stock client prints them, have each of `parts` in them.
    #[track_caller]
    pub fn has_told(&self, parts: &[&str]) {
        // "Until now" is a whole second: what has just happened comes with the next.
        super::eventually(&format!("the events {parts:?}"), || {
            let told = self.docker(&["events", "--since", "1h", "--until", "0s"]).ok().stdout;
            parts.iter().all(|part| told.contains(part))
        });
    }

    /// `dewar run` of busybox with `--network none`, to its end.
    pub fn run(&self, flags: &[&str], script: &str) -> Cmd {
        self.dewar(&["run", "--rm", "--network", "none"]).args(flags).args([BUSYBOX, "sh", "-c", script])
    }

    /// Starts a container named `name` in the background.
    #[track_caller]
    pub fn run_detached(&self, name: &str, flags: &[&str], script: &str) -> String {
        let command = self.dewar(&["run", "-d", "--name", name, "--network", "none"]);
        command.args(flags).args([BUSYBOX, "sh", "-c", script]).ok().trimmed().to_owned()
    }

    /// What of this daemon exists on the host now.
    pub fn leftovers(&self) -> Leftovers {
        let own = self.network.as_ref().filter(|_| !self.is_shared);
        Leftovers::within(self.dir.path(), own)
    }

    /// Removes every container, so that stopping need not wait for each.
    fn remove_containers(&self) {
        if std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            return;
        }
        let list = self.api("GET", "/containers/json?all=1");
        if list.status != 200 {
            return;
        }
        for container in list.json().as_array().cloned().unwrap_or_default() {
            if let Some(id) = container["Id"].as_str() {
                self.api("DELETE", &format!("/containers/{id}?force=1"));
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        if panicking {
            eprintln!("--- the daemon's log\n{}", self.log());
        }
        // A panic here while unwinding would abort the whole run.
        let cleaned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            if !self.is_ended {
                self.end();
            }
        }));
        self.kill9();
        let left = self.leftovers();
        left.remove();
        if !panicking {
            if let Err(cause) = cleaned {
                std::panic::resume_unwind(cause);
            }
            left.assert_none();
        }
    }
}
