//! Real containers from a busybox root. Each test runs again in a process of its own ([`isolated`]): clone
//! wants one thread, and the mounts made must go with the test.
//!
//! Stays whole: one fixture, which is a third of it, for everything that init does in one go.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, io, thread};

use super::*;
use crate::runtime::CommandError;
use crate::runtime::spec::{Capabilities, ConsoleSize, Namespace, Rlimit, Root as SpecRoot, User};
use crate::runtime::{Overlay, Stdio, rootfs};

const DEFAULT_CAPABILITIES: &str = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP \
    SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE";

fn isolated(body: impl FnOnce()) {
    if env::var_os("DEWAR_TEST_ISOLATED").is_some() {
        process::unshare(UnshareFlags::NEWNS).unwrap();
        let private =
            rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        return body();
    }
    let name = thread::current().name().unwrap().to_owned();
    let output = Command::new(env::current_exe().unwrap())
        .args([name.as_str(), "--exact", "--nocapture", "--include-ignored", "--test-threads=1"])
        .env("DEWAR_TEST_ISOLATED", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    print!("{text}");
}

/// An image, its overlay mounted, and a cgroup; gone when dropped.
struct Fixture {
    dir: PathBuf,
    cgroup: Cgroup,
    launch: Launch,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture::with_image(|_| {})
    }

    fn with_image(prepare: impl FnOnce(&Path)) -> Fixture {
        let name = format!("dewar-init-test-{}", std::process::id());
        let dir = env::temp_dir().join(&name);
        let image = dir.join("image");
        for part in ["bin", "etc", "proc", "sys", "dev"] {
            fs::create_dir_all(image.join(part)).unwrap();
        }
        fs::copy("/bin/busybox", image.join("bin/busybox")).unwrap();
        for tool in
            ["sh", "id", "ls", "cat", "hostname", "touch", "sleep", "stty", "tty", "stat", "grep", "env"]
        {
            symlink("busybox", image.join("bin").join(tool)).unwrap();
        }
        fs::write(image.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\n")
            .unwrap();
        fs::write(image.join("etc/group"), "root:x:0:\nweb:x:34:\nextra:x:55:web\n").unwrap();
        prepare(&image);
        let make = |part: &str| {
            let path = dir.join(part);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let overlay = Overlay {
            lower: vec![image],
            upper: make("upper"),
            work: make("work"),
            volatile: true,
            shared: None,
        };
        rootfs::mount(&overlay, &make("merged")).unwrap();
        let spec = spec(&name);
        let cgroup = Cgroup::create(&spec.linux.cgroups_path, &spec.linux.resources).unwrap();
        let stdio =
            Stdio { terminal: false, open_stdin: false, stdin_once: false, log: None, log_remote: None };
        let launch = Launch {
            id: name,
            run_dir: dir.clone(),
            spec,
            overlay,
            stdio,
            exit_file: dir.join("exit"),
            durable: false,
            reaper: false,
            oci: None,
        };
        Fixture { dir, cgroup, launch }
    }

    fn process(&mut self) -> &mut Process {
        &mut self.launch.spec.process
    }

    fn rootfs(&self) -> PathBuf {
        self.dir.join("merged")
    }

    fn start(&self, streams: Streams) -> Result<Started, Error> {
        start(&self.launch, &self.rootfs(), super::Trees::new(), &self.cgroup, streams)
    }

    /// Runs `sh -c script` to its end: exit code and output.
    fn shell(&mut self, script: &str) -> (i32, String) {
        self.process().args = ["sh", "-c", script].map(str::to_owned).into();
        self.run().unwrap()
    }

    fn run(&self) -> Result<(i32, String), Error> {
        let (streams, mut output) = pipes();
        let started = self.start(streams)?;
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        Ok((process::wait(started.pid).unwrap().code, text))
    }

    fn join(&self, pid: i32, process: &Process, privileged: bool) -> Result<(i32, String), Error> {
        let (streams, mut output) = pipes();
        let target = Target { pid, cgroup: &self.cgroup, spec: &self.launch.spec };
        let started = join(&target, process, privileged, streams)?;
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        Ok((process::wait(started.pid).unwrap().code, text))
    }

    fn refusal(&self) -> (u8, String) {
        let error = self.run().unwrap_err();
        match error.cause {
            Cause::Command(CommandError { exit_code, message }) => (exit_code, message),
            _ => (0, error.to_string()),
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.cgroup.kill_all();
        while process::reap().is_some() {}
        self.cgroup.remove().unwrap();
        rootfs::unmount(&self.rootfs()).unwrap();
        // A failed test may have mounts left in here; its namespace takes them along.
        if let Err(error) = fs::remove_dir_all(&self.dir)
            && !thread::panicking()
        {
            panic!("{error}");
        }
    }
}

fn pipes() -> (Streams, io::PipeReader) {
    let (reader, writer) = io::pipe().unwrap();
    let stderr = writer.try_clone().unwrap().into();
    (Streams::Pipes { stdin: None, stdout: writer.into(), stderr }, reader)
}

fn mount(destination: &str, kind: &str, options: &str) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: kind.to_owned(),
        source: kind.to_owned(),
        options: options.split(',').map(str::to_owned).collect(),
    }
}

/// What Docker gives a container by default.
fn spec(name: &str) -> Spec {
    let all: Vec<String> =
        DEFAULT_CAPABILITIES.split_whitespace().map(|name| format!("CAP_{name}")).collect();
    let capabilities = Capabilities {
        bounding: all.clone(),
        effective: all.clone(),
        permitted: all,
        ..Capabilities::default()
    };
    let mut spec = Spec {
        process: Process {
            user: User { username: Some(String::new()), ..User::default() },
            env: vec!["PATH=/nope:/bin".to_owned()],
            cwd: "/".to_owned(),
            capabilities: Some(capabilities),
            ..Process::default()
        },
        root: SpecRoot::default(),
        hostname: "web".to_owned(),
        mounts: vec![
            mount("/proc", "proc", "nosuid,noexec,nodev"),
            mount("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
            mount("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
            mount("/sys", "sysfs", "nosuid,noexec,nodev,ro"),
            mount("/sys/fs/cgroup", "cgroup", "nosuid,noexec,nodev,ro"),
            mount("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
            mount("/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777,size=65536k"),
        ],
        ..Spec::default()
    };
    use NamespaceKind::{Cgroup, Ipc, Mount, Network, Pid, Uts};
    let own = |kind| Namespace { kind, path: None };
    spec.linux.namespaces = [Mount, Pid, Ipc, Uts, Network, Cgroup].map(own).into();
    spec.linux.cgroups_path = format!("/{name}");
    spec.linux.masked_paths = ["/proc/timer_list", "/proc/scsi", "/proc/acpi", "/sys/firmware", "/proc/none"]
        .map(str::to_owned)
        .into();
    spec.linux.readonly_paths = ["/proc/sys", "/proc/none"].map(str::to_owned).into();
    spec
}

#[test]
fn the_first_process_has_a_world_of_its_own() {
    isolated(|| {
        let mut fixture = Fixture::new();
        // A descriptor that is not close-on-exec must not survive either.
        let leak = fs::File::open("/proc").unwrap();
        rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
        let (code, text) = fixture.shell(
            "echo $$ $(hostname) $(umask) $HOME $(pwd); ls /proc/1/fd; grep -E 'Cap|NoNew' /proc/1/status; \
             cat /proc/1/cgroup | grep -v :/$; id; readlink /proc/1/fd/0; exit 7",
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(code, 7, "{text}");
        assert_eq!(lines[0], "1 web 0022 /root /");
        assert_eq!(lines[1..4], ["0", "1", "2"], "{text}");
        assert!(!lines[4].chars().all(|digit| digit.is_ascii_digit()), "a descriptor leaked: {text}");
        assert!(text.contains("CapInh:\t0000000000000000"), "{text}");
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert!(text.contains(&format!("{set}:\t00000000a80425fb")), "{text}");
        }
        assert!(text.contains("CapAmb:\t0000000000000000") && text.contains("NoNewPrivs:\t0"), "{text}");
        assert!(text.contains("uid=0(root) gid=0(root) groups=0(root)"), "{text}");
    });
}

#[test]
fn devices_mounts_and_masks_are_the_containers_own() {
    isolated(|| {
        let mut fixture = Fixture::new();
        let (_, text) = fixture.shell(
            "for d in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$d; done; \
             for l in fd stdin ptmx; do echo $l $(readlink /dev/$l); done; cat /proc/mounts; ls /proc/scsi /sys/firmware; \
             cat /proc/timer_list; touch /proc/sys/kernel/x; echo 1 > /proc/sys/vm/drop_caches; ls /sys/fs/cgroup; \
             touch /sys/fs/cgroup/x; ls /; touch /made",
        );
        for line in ["/dev/null 1:3 666", "/dev/tty 5:0 666", "fd /proc/self/fd", "ptmx pts/ptmx"] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        for line in [
            "proc /proc proc rw,nosuid,nodev,noexec",
            "tmpfs /dev tmpfs rw,nosuid,size=65536k,mode=755",
            "tmpfs /dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k",
            "devpts /dev/pts devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666",
            "sysfs /sys sysfs ro,nosuid,nodev,noexec",
            "tmpfs /proc/timer_list tmpfs",
            "tmpfs /sys/firmware tmpfs ro",
            "proc /proc/sys proc ro",
        ] {
            assert!(text.lines().any(|found| found.starts_with(line)), "{line} in\n{text}");
        }
        assert!(
            text.contains("/proc/sys/kernel/x: Read-only") || text.contains("/proc/sys/kernel/x: No such"),
            "{text}"
        );
        assert!(text.contains("drop_caches: Read-only file system"), "{text}");
        assert!(text.contains("/sys/fs/cgroup/x: Read-only file system"), "{text}");
        let own = ["overlay", "proc", "tmpfs", "devpts", "sysfs", "cgroup", "cgroup2", "mqueue"];
        let mounts = text.lines().filter(|line| line.ends_with(" 0 0"));
        let left = mounts.filter(|line| !own.contains(&line.split(' ').next().unwrap())).count();
        assert_eq!((left, text.matches("overlay / ").count()), (0, 1), "a mount of the host is left: {text}");
        assert!(fixture.dir.join("upper/made").exists());

        fixture.launch.spec.root.readonly = true;
        let (code, text) = fixture.shell("touch /more && exit 3; touch /dev/shm/ok");
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("Read-only file system"), "{text}");
    });
}

#[test]
fn binds_show_the_host_and_stay_below_the_root() {
    isolated(|| {
        let mut fixture = Fixture::with_image(|image| {
            symlink("/../../../../tmp", image.join("escape")).unwrap();
            symlink("../run/resolve/stub", image.join("etc/resolv.conf")).unwrap();
        });
        let shown = fixture.dir.join("shown");
        fs::create_dir_all(shown.join("sub")).unwrap();
        fs::write(shown.join("file"), "hello").unwrap();
        rustix::mount::mount("none", shown.join("sub"), "tmpfs", rustix::mount::MountFlags::empty(), None)
            .unwrap();
        let bind = |source: PathBuf, destination: &str, options: &str| Mount {
            source: source.display().to_string(),
            ..mount(destination, "bind", options)
        };
        fixture.launch.spec.mounts.extend([
            bind(shown.clone(), "/data", "rbind,rprivate"),
            bind(shown.clone(), "/deep/new/data", "rbind,rprivate,rro"),
            bind(shown.join("file"), "/etc/resolv.conf", "bind,private"),
            bind(shown.clone(), "/escape/x/y", "rbind,rprivate"),
        ]);
        let (code, text) = fixture.shell(
            "cat /etc/resolv.conf /run/resolve/stub; touch /data/a /data/sub/b; touch /deep/new/data/c; \
             touch /deep/new/data/sub/d; cat /tmp/x/y/file",
        );
        assert!(text.starts_with("hellohello"), "{text}");
        assert!(text.ends_with("hello"), "{text}");
        assert_eq!(code, 0);
        assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
        assert!(shown.join("a").exists() && shown.join("sub/b").exists());
        assert!(!Path::new("/tmp/x").exists());
        fixture.launch.spec.mounts.push(bind(shown.join("file"), "/bin", "bind"));
        assert!(fixture.refusal().1.contains("onto a file (or vice-versa)"));
        fixture.launch.spec.mounts.pop();
        fixture.launch.spec.mounts.push(bind("/no/such/source".into(), "/x", "bind"));
        assert!(fixture.refusal().1.starts_with("open the bind source /no/such/source: No such file"));
        rustix::mount::unmount(shown.join("sub"), rustix::mount::UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn a_hostile_image_cannot_choose_its_proc_or_reach_out() {
    isolated(|| {
        let mut fixture = Fixture::with_image(|image| {
            fs::remove_dir(image.join("proc")).unwrap();
            symlink("/etc", image.join("proc")).unwrap();
        });
        fixture.process().args = vec!["true".to_owned()];
        let refusal = fixture.refusal().1;
        assert!(refusal.starts_with("mount proc on /proc: Too many levels of symbolic links"), "{refusal}");
        drop(fixture);
        let outside = env::temp_dir().join(format!("dewar-outside-{}", std::process::id()));
        fs::create_dir_all(&outside).unwrap();
        let outer = outside.clone();
        let mut fixture = Fixture::with_image(|image| {
            fs::remove_dir(image.join("dev")).unwrap();
            symlink(&outer, image.join("dev")).unwrap();
            fs::remove_file(image.join("etc/passwd")).unwrap();
            symlink("/../../../../etc/passwd", image.join("etc/passwd")).unwrap();
            symlink(&outer, image.join("work")).unwrap();
        });
        fixture.process().cwd = "/work/here".to_owned();
        let (code, text) = fixture.shell("pwd; ls -d /dev/null; echo $HOME");
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("/here") && text.contains("/dev/null"), "{text}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        fs::remove_dir_all(&outside).unwrap();
    });
}

#[test]
fn users_come_from_the_image() {
    isolated(|| {
        let mut fixture = Fixture::new();
        let mut as_user = |name: &str, script: &str| {
            fixture.process().user.username = Some(name.to_owned());
            fixture.shell(script)
        };
        let (code, text) =
            as_user("web", "id; echo $HOME; grep -E 'CapEff|CapPrm' /proc/1/status; echo ok > /dev/stdout");
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("uid=33(web) gid=34(web) groups=34(web),55(extra)\n/var/www"), "{text}");
        assert!(text.contains("CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nok"), "{text}");
        assert!(
            as_user("4242:55", "id; echo $HOME")
                .1
                .starts_with("uid=4242 gid=55(extra) groups=55(extra)\n/\n")
        );
        fixture.process().user.username = Some("nope".to_owned());
        let wanted = "resolve user \"nope\": unable to find user nope: no matching entries in passwd file";
        assert_eq!(fixture.refusal().1, wanted);
    });
}

#[test]
fn commands_that_cannot_run_are_refused_in_dockers_words() {
    isolated(|| {
        let mut fixture = Fixture::with_image(|image| {
            fs::write(image.join("plain"), "x").unwrap();
            fs::write(image.join("script"), "#!/no/interpreter\n").unwrap();
            fs::set_permissions(image.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
        });
        let mut refused = |command: &str| {
            fixture.process().args = vec![command.to_owned()];
            fixture.refusal()
        };
        let nope = (127, r#"exec: "nope": executable file not found in $PATH"#.to_owned());
        assert_eq!(refused("nope"), nope);
        assert_eq!(
            refused("/nope"),
            (127, r#"exec: "/nope": stat /nope: no such file or directory"#.to_owned())
        );
        assert_eq!(refused("/plain"), (126, r#"exec: "/plain": permission denied"#.to_owned()));
        assert_eq!(refused("/bin"), (126, r#"exec: "/bin": is a directory: permission denied"#.to_owned()));
        assert_eq!(refused("/script"), (127, "exec /script: no such file or directory".to_owned()));
        fixture.process().args.clear();
        assert_eq!(fixture.refusal().1, "start the process: it has no command");
        assert_eq!(fixture.shell("kill -9 $$; kill -TERM 1; exit 4").0, 4, "pid 1 is immune to itself");
    });
}

#[test]
fn limits_umask_directory_and_privileges_are_as_asked() {
    isolated(|| {
        let mut fixture = Fixture::new();
        let spec = &mut fixture.launch.spec;
        spec.linux.sysctl = [("net.ipv4.ip_unprivileged_port_start".to_owned(), "77".to_owned())].into();
        spec.domainname = "example".to_owned();
        let process = fixture.process();
        process.rlimits = vec![Rlimit { kind: "RLIMIT_NOFILE".to_owned(), soft: 20, hard: 30 }];
        process.no_new_privileges = true;
        process.oom_score_adj = Some(500);
        process.user.umask = Some(0o077);
        process.cwd = "/a/b".to_owned();
        let (code, text) = fixture.shell(
            "ulimit -n; ulimit -Hn; umask; pwd; stat -c %a /a/b; grep NoNew /proc/1/status; cat /proc/1/oom_score_adj \
             /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_unprivileged_port_start",
        );
        let wanted = "20\n30\n0077\n/a/b\n755\nNoNewPrivs:\t1\n500\nexample\n77\n";
        assert_eq!((code, text.as_str()), (0, wanted));
        fixture.process().cwd = "/bin/busybox".to_owned();
        assert!(fixture.refusal().1.starts_with("change directory to /bin/busybox: not a directory"));
    });
}

#[test]
fn a_terminal_is_the_containers_own() {
    isolated(|| {
        let mut fixture = Fixture::new();
        fixture.process().terminal = true;
        fixture.process().console_size = Some(ConsoleSize { height: 33, width: 77 });
        let script = "tty; stty size; stat -c %t:%T /dev/console /dev/pts/0; ls -1 /proc/1/fd; \
            echo tty > /dev/tty; read word; echo got $word; exit 5";
        fixture.process().args = ["sh", "-c", script].map(str::to_owned).into();
        let started = fixture.start(Streams::Terminal).unwrap();
        let mut master = fs::File::from(started.console.unwrap());
        master.write_all(b"hello\n").unwrap();
        let mut text = Vec::new();
        // EIO: the last slave is closed.
        let _ = master.read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        assert_eq!(process::wait(started.pid).unwrap().code, 5, "{text}");
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| *line != "hello").collect();
        assert_eq!(lines, ["/dev/pts/0", "33 77", "88:0", "88:0", "0", "1", "2", "tty", "got hello"]);
    });
}

#[test]
fn a_further_process_joins_everything() {
    isolated(|| {
        let mut fixture = Fixture::new();
        fixture.process().args = ["sleep", "60"].map(str::to_owned).into();
        fixture.process().oom_score_adj = Some(300);
        let (streams, _output) = pipes();
        let started = fixture.start(streams).unwrap();
        let mut process = fixture.launch.spec.process.clone();
        let script = "for n in mnt pid ipc uts net cgroup; do \
                [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] || echo differs $n; done; \
            hostname; ls /proc/$$/fd; cat /proc/self/stat | cut -d' ' -f4,6; grep Cap /proc/self/status; \
            cat /proc/self/oom_score_adj; grep -v :/$ /proc/self/cgroup; exit 9";
        process.args = ["sh", "-c", script].map(str::to_owned).into();
        let (code, text) = fixture.join(started.pid, &process, false).unwrap();
        assert_eq!(code, 9, "{text}");
        assert!(text.starts_with("web\n0\n1\n2\n"), "{text}");
        assert!(!text.contains("differs"), "{text}");
        assert!(text.contains("CapEff:\t00000000a80425fb"), "{text}");
        assert!(text.ends_with("300\n"), "it is in the container's cgroup: {text}");
        let session: Vec<&str> = text.lines().nth(4).unwrap().split(' ').collect();
        assert_eq!(session[0], session[1], "it leads a session: {text}");
        assert_ne!(session[0], "0", "its session is inside the pid namespace: {text}");

        let (_, text) = fixture.join(started.pid, &process, true).unwrap();
        assert!(!text.contains("CapEff:\t00000000a80425fb"), "{text}");
        process.user.username = Some("web".to_owned());
        process.args = ["id", "-u"].map(str::to_owned).into();
        assert_eq!(fixture.join(started.pid, &process, false).unwrap().1, "33\n");
        process.args = vec!["nope".to_owned()];
        let error = fixture.join(started.pid, &process, false).unwrap_err();
        assert!(matches!(error.cause, Cause::Command(error) if error.exit_code == 127));

        process.terminal = true;
        process.args = ["sh", "-c", "tty; stty size; exit 6"].map(str::to_owned).into();
        process.console_size = Some(ConsoleSize { height: 11, width: 22 });
        let target = Target { pid: started.pid, cgroup: &fixture.cgroup, spec: &fixture.launch.spec };
        let exec = join(&target, &process, false, Streams::Terminal).unwrap();
        let mut text = Vec::new();
        let _ = fs::File::from(exec.console.unwrap()).read_to_end(&mut text);
        assert_eq!(String::from_utf8_lossy(&text), "/dev/pts/0\r\n11 22\r\n");
        assert_eq!(process::wait(exec.pid).unwrap().code, 6);

        signal::send(started.pidfd.as_fd(), libc::SIGKILL).unwrap();
        assert_eq!(process::wait(started.pid).unwrap().code, 137);
        assert!(fixture.join(started.pid, &process, false).is_err(), "the container has ended");
        // Our children are born where we live again.
        assert!(Command::new("/bin/true").status().unwrap().success());
    });
}

#[test]
fn another_containers_namespaces_are_joined_by_path() {
    isolated(|| {
        let mut fixture = Fixture::new();
        fixture.process().args = ["sleep", "60"].map(str::to_owned).into();
        let (streams, _output) = pipes();
        let first = fixture.start(streams).unwrap();
        for namespace in &mut fixture.launch.spec.linux.namespaces {
            let name = match namespace.kind {
                NamespaceKind::Pid => "pid",
                NamespaceKind::Ipc => "ipc",
                NamespaceKind::Network => "net",
                _ => continue,
            };
            namespace.path = Some(format!("/proc/{}/ns/{name}", first.pid));
        }
        let (code, text) = fixture.shell(
            "echo $$; cat /proc/1/cmdline; for n in pid ipc net; do \
                [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] || echo differs; done",
        );
        assert_eq!(code, 0);
        assert!(!text.starts_with("1\n") && text.contains("sleep") && !text.contains("differs"), "{text}");
        signal::send(first.pidfd.as_fd(), libc::SIGKILL).unwrap();
        process::wait(first.pid).unwrap();
        fixture.launch.spec.linux.namespaces.insert(0, Namespace { kind: NamespaceKind::User, path: None });
        assert!(fixture.refusal().1.contains("user namespace"));
    });
}

#[test]
fn the_reaper_ends_with_its_command_and_forwards_signals() {
    isolated(|| {
        let words = |args: &[&str]| args.iter().map(Into::into).collect::<Vec<std::ffi::OsString>>();
        let reap = |args: &[&str], act: &dyn Fn(i32)| {
            let new_pid = u64::from(libc::CLONE_NEWPID.cast_unsigned());
            match process::clone(new_pid, None).unwrap() {
                Side::Child => process::exit(reaper::run(&words(args))),
                Side::Parent { pid, .. } => {
                    act(pid);
                    process::wait(pid).unwrap().code
                }
            }
        };
        let busybox = "/bin/busybox";
        assert_eq!(reap(&[busybox, "sh", "-c", "(sleep 0.05 &); exit 3"], &|_| ()), 3);
        assert_eq!(reap(&["/no/such"], &|_| ()), 127);
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty()).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&writer);
        let script = format!("trap 'exit 44' TERM; echo up >&{number}; while :; do sleep 0.01; done");
        let code = reap(&[busybox, "sh", "-c", &script], &|pid| {
            let mut ready = [0; 3];
            let mut reader = &reader;
            reader.read_exact(&mut ready).unwrap();
            signal::kill(pid, libc::SIGTERM).unwrap();
        });
        assert_eq!(code, 44);
        drop(writer);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
    });
}

#[test]
fn with_the_reaper_its_binary_is_bound_read_only() {
    let with_reaper = add_reaper(&Spec::default()).unwrap();
    let bind = with_reaper.mounts.last().unwrap();
    assert_eq!(bind.destination, "/sbin/docker-init");
    assert!(bind.options.contains(&"ro".to_owned()));
    assert_eq!(add_reaper(&with_reaper).unwrap().mounts.len(), 1, "the daemon's own bind is kept");
}

#[test]
fn with_the_reaper_pid_1_is_docker_init() {
    isolated(|| {
        let mut fixture = Fixture::new();
        fixture.launch.reaper = true;
        // Tests run from target/…/deps; the binary whose main() knows the name is built beside it.
        let dewar = env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("dewar");
        fixture.launch.spec.mounts.push(Mount {
            source: dewar.display().to_string(),
            ..mount("/sbin/docker-init", "bind", "bind,ro,private")
        });
        let (code, text) = fixture.shell("cat /proc/1/cmdline; ls /proc/1/fd; readlink /proc/1/exe; exit 5");
        assert_eq!(code, 5, "{text}");
        assert!(text.starts_with("/sbin/docker-init\0--\0sh\0-c\0"), "{text}");
        assert!(text.ends_with("\x000\n1\n2\n/sbin/docker-init\n"), "{text}");
        fixture.process().args = vec!["nope".to_owned()];
        assert_eq!(fixture.refusal().0, 127);
    });
}

#[test]
fn a_filter_holds_with_and_without_new_privileges() {
    use crate::runtime::spec::{Seccomp, SyscallRule};
    isolated(|| {
        let mut fixture = Fixture::new();
        fixture.launch.spec.linux.seccomp = Some(Seccomp {
            default_action: "SCMP_ACT_ALLOW".to_owned(),
            syscalls: vec![SyscallRule {
                names: ["mkdir", "mkdirat"].map(str::to_owned).into(),
                action: "SCMP_ACT_ERRNO".to_owned(),
                errno_ret: Some(libc::EXDEV.cast_unsigned()),
                args: Vec::new(),
            }],
            ..Seccomp::default()
        });
        for no_new_privileges in [false, true] {
            fixture.process().no_new_privileges = no_new_privileges;
            for user in ["", "web"] {
                fixture.process().user.username = Some(user.to_owned());
                let (code, text) = fixture.shell("grep Seccomp: /proc/1/status; busybox mkdir /dev/shm/x");
                assert_ne!(code, 0, "{text}");
                assert!(text.starts_with("Seccomp:\t2\n") && text.contains("nvalid cross-device"), "{text}");
            }
        }
    });
}

/// `cargo test -- --ignored --nocapture start_takes`: prints, and fails only when something is very wrong.
#[test]
#[ignore = "a measurement; needs a quiet machine"]
fn start_takes_milliseconds() {
    isolated(|| {
        let mut fixture = Fixture::new();
        fixture.process().args = ["/bin/busybox", "true"].map(str::to_owned).into();
        let mut times: Vec<(Duration, Duration)> = Vec::new();
        for _ in 0..200 {
            let (streams, output) = pipes();
            let begin = Instant::now();
            let started = fixture.start(streams).unwrap();
            let executed = begin.elapsed();
            process::wait(started.pid).unwrap();
            times.push((executed, begin.elapsed()));
            drop(output);
        }
        times.sort_unstable();
        println!("clone to exec: median {:?}, p10 {:?}, p90 {:?}", times[100].0, times[20].0, times[180].0);
        let mut whole: Vec<Duration> = times.iter().map(|(_, whole)| *whole).collect();
        whole.sort_unstable();
        println!("clone to reaped: median {:?}", whole[100]);
        assert!(times[100].0 < Duration::from_millis(50));
    });
}
