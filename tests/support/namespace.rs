//! Network namespaces of tests: a daemon's "host", and the hosts around it. Gone with their last user.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// A network namespace with loopback up. Clones are the same one; it is held open until the last is dropped.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<File>);

impl PartialEq for Namespace {
    fn eq(&self, other: &Namespace) -> bool {
        self.inode() == other.inode()
    }
}

impl Eq for Namespace {}

impl Namespace {
    /// A new one.
    #[track_caller]
    pub fn new() -> Namespace {
        let made = std::thread::spawn(|| {
            #[expect(deprecated, reason = "it is unsafe with descriptor tables only")]
            rustix::thread::unshare(UnshareFlags::NEWNET).expect("root may make a network namespace");
            let file = File::open("/proc/thread-self/ns/net").expect("a thread has a namespace");
            // Not iproute2: every test has busybox.
            let up = Command::new("busybox").args(["ip", "link", "set", "lo", "up"]).status();
            assert!(up.is_ok_and(|status| status.success()), "loopback comes up");
            file
        });
        Namespace(Arc::new(made.join().expect("a fresh namespace")))
    }

    /// The one a process is in.
    #[track_caller]
    pub fn of(pid: u32) -> Namespace {
        let file = File::open(format!("/proc/{pid}/ns/net")).expect("a process of ours");
        Namespace(Arc::new(file))
    }

    /// Where programs find it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs `work` on a thread inside; what it opens or starts stays there.
    #[track_caller]
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let done = std::thread::scope(|scope| {
            let inside = || {
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("the namespace is there");
                work()
            };
            scope.spawn(inside).join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// What the kernel calls it: the number in `/proc/PID/ns/net`.
    pub fn inode(&self) -> u64 {
        self.0.metadata().map(|meta| meta.ino()).unwrap_or_default()
    }

    /// As `readlink /proc/PID/ns/net` prints it.
    pub fn link(&self) -> String {
        format!("net:[{}]", self.inode())
    }

    /// The names of its interfaces, but for loopback.
    pub fn interfaces(&self) -> BTreeSet<String> {
        let table = self.within(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default());
        let names =
            table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned());
        names.filter(|name| name != "lo").collect()
    }

    /// Who else is in it: process ids.
    pub fn processes(&self) -> BTreeSet<u32> {
        let link = self.link();
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        all.filter(|entry| {
            std::fs::read_link(entry.path().join("ns/net")).is_ok_and(|ns| ns.as_os_str() == link.as_str())
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
    }

    /// A program inside, as `Command::new` has it, run to its end; the test fails unless it succeeds. Gives what it
    /// printed.
    #[track_caller]
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.within(|| Command::new(program).args(args).stdin(Stdio::null()).output());
        let output = output.unwrap_or_else(|cause| panic!("{program}: {cause}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{program} {args:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }
}
