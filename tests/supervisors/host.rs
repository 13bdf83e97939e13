//! A host of its own for a supervisor: a root of BusyBox, the supervisor's packages and dewar's init files, in mount
//! and pid namespaces. Its end is the end of everything in it; a mount or cgroup that is left fails the test.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::support::leftovers::Leftovers;
use crate::support::requires::supervisors_path;
use crate::support::{Cmd, TempDir, binary, busybox_tar, eventually, source, within};

/// Flags that every daemon here gets: its cgroup must be no other's.
pub const OPTIONS: &str = "--exec-root /tmp/run --pidfile /run/dewar.pid";

pub struct Host {
    dir: TempDir,
    machine: Option<Child>,
    /// The host's process 1, as it is known outside.
    init: u32,
}

impl Host {
    /// A root with BusyBox, a supervisor's packages (a directory of scripts/supervisors.sh, if any), the binary, and
    /// what `make install-NAME` installs.
    #[track_caller]
    pub fn build(packages: Option<&str>, install: &str) -> Host {
        let dir = TempDir::new();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).expect("a fresh directory");
        Cmd::new("tar").arg("-xf").arg(busybox_tar()).arg("-C").arg(&root).ok();
        if let Some(name) = packages {
            let tree = supervisors_path().expect("the test requires supervisors").join(name);
            Cmd::new("cp").arg("-a").arg(tree.join(".")).arg(&root).ok();
        }
        for dir in ["usr/local/bin", "var/log", "etc/dewar", "etc/default"] {
            std::fs::create_dir_all(root.join(dir)).expect("a directory of ours");
        }
        // A link, not a copy: a debug build is big. Another file system needs the copy.
        let program = root.join("usr/local/bin/dewar");
        if std::fs::hard_link(binary(), &program).is_err() {
            Cmd::new("cp").arg(binary()).arg(&program).ok();
        }
        Cmd::new("cp").arg(busybox_tar()).arg(root.join("root/busybox.tar")).ok();
        let destination = format!("DESTDIR={}", root.display());
        let make = Cmd::new("make").arg("-sC").arg(source());
        make.args([&format!("install-{install}"), &destination, "PREFIX=/usr/local"]).ok();
        Host { dir, machine: None, init: 0 }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Writes a file of the host, before it starts.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        let file = self.root().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(file.parent().expect("a path in the root")).expect("a directory of ours");
        std::fs::write(file, text).expect("a file of ours");
    }

    /// The flags of [`OPTIONS`], with this host's exec-root.
    pub fn options(&self) -> String {
        OPTIONS.replace("/tmp/run", &self.exec_root().display().to_string())
    }

    fn exec_root(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// Starts it with `init` as its first process.
    #[track_caller]
    pub fn boot(&mut self, init: &[&str]) {
        // A test that is killed must not leave a host behind.
        let machine = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare"])
            .args(["--mount", "--pid", "--fork", "--kill-child"])
            .arg(source().join("tests/supervisors/host.sh"))
            .arg(self.root())
            .arg(self.exec_root())
            .args(init)
            .stdin(Stdio::null())
            .spawn()
            .expect("setpriv from util-linux");
        let children = format!("/proc/{0}/task/{0}/children", machine.id());
        self.machine = Some(machine);
        eventually("the host's first process", || {
            let children = std::fs::read_to_string(&children).unwrap_or_default();
            self.init = children.trim().parse().unwrap_or(0);
            self.init != 0 && self.run("test -e /root/busybox.tar && test ! -e /.old/proc").run().code == 0
        });
    }

    /// A line of shell on the host.
    pub fn run(&self, line: &str) -> Cmd {
        Cmd::new("nsenter")
            .args(["--target", &self.init.to_string(), "--mount", "--pid", "--root", "--wd"])
            .args(["/bin/sh", "-c", line])
            .env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    }

    /// Runs a line of shell; the test fails unless it exits with 0. Gives its output, trimmed.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        self.run(line).ok().trimmed().to_owned()
    }

    /// Waits until a line of shell exits with 0.
    #[track_caller]
    pub fn until(&self, line: &str) {
        within(std::time::Duration::from_secs(30), line, || self.run(line).run().code == 0);
    }

    /// What the daemon and the supervisor have said.
    fn logs(&self) -> String {
        self.run("cat /dev/console /var/log/dewar.log /var/log/dewar/current").run().stdout
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the host's logs\n{}", self.logs());
        }
        if let Some(mut machine) = self.machine.take() {
            drop(machine.kill());
            drop(machine.wait());
        }
        let left = Leftovers::of(self.dir.path());
        if std::thread::panicking() {
            left.remove();
        } else {
            left.assert_none();
        }
    }
}
