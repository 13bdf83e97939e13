//! The kernel's version, system calls, namespaces and network parts, and the rights this process has.

use std::fs;
use std::io::{self, Read};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::Resource;
use rustix::thread::UnshareFlags;

use super::{Check, Verdict};
use crate::runtime::capabilities;
use crate::runtime::sys::mount::{Attributes, Reach, set_attributes};
use crate::runtime::sys::process;

/// Oldest kernel that has everything containers need: openat2.
const OLDEST: (u32, u32) = (5, 6);
/// First that has everything dewar uses: recursive read-only mounts, killing a whole cgroup.
const WHOLE: (u32, u32) = (5, 14);
/// Enough for a few thousand containers; a daemon with its shims connected needs one each.
const FILES: u64 = 65536;

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn version() -> (u32, u32) {
    let release = release();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// System calls and facilities that can be asked for without changing anything.
pub(super) fn quick() -> Vec<Check> {
    vec![kernel(), pidfd(), openat2(), mount_setattr(), mount_api(), seccomp(), clock()]
}

fn kernel() -> Check {
    let check = Check::ok("kernel", "version", release());
    if version() < OLDEST {
        check.but(
            Verdict::Missing,
            "containers cannot be confined",
            "Linux 5.6 or newer (5.14 for all of it)",
        )
    } else if version() < WHOLE {
        check.but(
            Verdict::Warning,
            "no recursive read-only mounts (5.12), containers are killed one process after another (5.14)",
            "Linux 5.14 or newer",
        )
    } else {
        check
    }
}

fn outcome<T>(name: &str, result: io::Result<T>, costs: &str, since: &str, lacking: Verdict) -> Check {
    match result {
        Ok(_) => Check::ok("kernel", name, "works"),
        Err(error) => Check::ok("kernel", name, error.to_string()).but(
            lacking,
            costs,
            format!("Linux {since} or newer; inside of a container, a seccomp policy that allows it"),
        ),
    }
}

fn pidfd() -> Check {
    let own = i32::try_from(std::process::id()).unwrap_or(1);
    let result = process::pidfd_open(own);
    outcome("pidfd_open", result, "no container can be watched", "5.3", Verdict::Missing)
}

fn openat2() -> Check {
    let result =
        rustix::fs::openat2(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT);
    outcome(
        "openat2",
        result.map_err(Into::into),
        "paths cannot be kept inside of a container",
        "5.6",
        Verdict::Missing,
    )
}

fn mount_setattr() -> Check {
    let result = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|root| {
            use std::os::fd::AsFd;
            // Nothing to set and nothing to clear: the kernel looks at the call and does nothing.
            match set_attributes(root.as_fd(), Attributes::default(), Reach::One) {
                // The root of a chroot is no mount's; the call is there.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
                other => other,
            }
        });
    outcome("mount_setattr", result, "no recursive read-only mounts", "5.12", Verdict::Warning)
}

fn mount_api() -> Check {
    let result = rustix::mount::fsopen("overlay", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC);
    let name = "overlayfs";
    match result {
        Ok(_) => Check::ok("kernel", name, "available"),
        // Asking takes a right that looking does not.
        Err(Errno::PERM) => Check::ok("kernel", name, "cannot be asked for without CAP_SYS_ADMIN"),
        Err(Errno::NODEV) => Check::ok("kernel", name, "not in this kernel").but(
            Verdict::Missing,
            "containers have no root filesystem",
            "modprobe overlay, or a kernel with CONFIG_OVERLAY_FS",
        ),
        Err(errno) => outcome(
            name,
            Err::<(), _>(errno.into()),
            "containers have no root filesystem",
            "5.2",
            Verdict::Missing,
        ),
    }
}

fn seccomp() -> Check {
    let path = "/proc/sys/kernel/seccomp/actions_avail";
    match fs::read_to_string(path) {
        Ok(actions) => Check::ok("kernel", "seccomp", format!("filters ({})", actions.trim())),
        Err(error) => Check::ok("kernel", "seccomp", format!("{path}: {error}")).but(
            Verdict::Missing,
            "containers start with --security-opt seccomp=unconfined only",
            "a kernel with CONFIG_SECCOMP_FILTER, and /proc mounted",
        ),
    }
}

fn clock() -> Check {
    let now = jiff::Timestamp::now();
    let check = Check::ok("kernel", "clock", format!("{now:.0}"));
    // Before this program was written.
    if now.as_second() < 1_735_689_600 {
        check.but(
            Verdict::Warning,
            "logs, events and certificates have the wrong time",
            "set the clock, or run a time service",
        )
    } else {
        check
    }
}

/// Makes one namespace of each kind, on a thread that ends with it.
pub(super) fn namespaces() -> Vec<Check> {
    let all = [
        ("mount namespace", UnshareFlags::NEWNS, "CONFIG_NAMESPACES"),
        ("pid namespace", UnshareFlags::NEWPID, "CONFIG_PID_NS"),
        ("network namespace", UnshareFlags::NEWNET, "CONFIG_NET_NS"),
        ("ipc namespace", UnshareFlags::NEWIPC, "CONFIG_IPC_NS and CONFIG_SYSVIPC"),
        ("uts namespace", UnshareFlags::NEWUTS, "CONFIG_UTS_NS"),
        ("cgroup namespace", UnshareFlags::NEWCGROUP, "CONFIG_CGROUPS"),
    ];
    let mut checks: Vec<Check> = all
        .into_iter()
        .map(|(name, flag, config)| match apart(move || process::unshare(flag)) {
            Ok(()) => Check::ok("kernel", name, "works"),
            Err(error) => Check::ok("kernel", name, error.to_string()).but(
                Verdict::Missing,
                "no container can be started",
                format!("root with CAP_SYS_ADMIN, and a kernel with {config}"),
            ),
        })
        .collect();
    let users = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    checks.push(Check::ok(
        "kernel",
        "user namespace",
        match users.trim() {
            "" => "not in this kernel (this version of dewar does not use it)".to_owned(),
            most => format!("up to {most} (this version of dewar does not use it)"),
        },
    ));
    checks
}

/// Runs `work` on a thread of its own, so that what it changes about itself ends with it.
pub(super) fn apart<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("probe".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the probe panicked")))
    })
}

/// What this process may do.
pub(super) fn rights() -> Vec<Check> {
    let mut checks = Vec::new();
    let user = rustix::process::geteuid();
    let check = Check::ok(
        "rights",
        "user",
        if user.is_root() { "root".to_owned() } else { user.as_raw().to_string() },
    );
    checks.push(match user.is_root() {
        true => check,
        false => {
            check.but(Verdict::Missing, "the daemon does not start", "run the daemon (and this) as root")
        }
    });
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .unwrap_or_default();
    let has = |name: &str| capabilities::number(name).is_some_and(|number| effective >> number & 1 == 1);
    let needed = [
        "SYS_ADMIN",
        "NET_ADMIN",
        "SYS_CHROOT",
        "SETUID",
        "SETGID",
        "SETPCAP",
        "SETFCAP",
        "MKNOD",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
    ];
    let lacking: Vec<&str> = needed.into_iter().filter(|name| !has(name)).collect();
    checks.push(if lacking.is_empty() {
        Check::ok("rights", "capabilities", "all that containers need")
    } else {
        Check::ok("rights", "capabilities", format!("without CAP_{}", lacking.join(", CAP_"))).but(
            Verdict::Missing,
            "containers do not start, or cannot be given what they ask for",
            "start the daemon with them: as root, outside of a container or in a privileged one",
        )
    });
    for (name, costs) in [
        (
            "SYS_RESOURCE",
            "no ulimit above the daemon's own, no negative --oom-score-adj; criu freezes processes of root only",
        ),
        ("SYS_PTRACE", "containers cannot be frozen, and what their processes are is not seen"),
        ("NET_RAW", "containers have no CAP_NET_RAW: no ping"),
        ("AUDIT_WRITE", "containers have no CAP_AUDIT_WRITE: some logins in them fail"),
    ] {
        let label = format!("CAP_{name}");
        checks.push(match has(name) {
            true => Check::ok("rights", label, "held"),
            false => Check::ok("rights", label, "not held").but(
                Verdict::Warning,
                costs,
                "start the daemon with it: outside of a container, or in one that has it",
            ),
        });
    }
    // One or the other is enough to choose process ids.
    let restores = has("CHECKPOINT_RESTORE") || has("SYS_ADMIN");
    let check = Check::ok(
        "rights",
        "CAP_CHECKPOINT_RESTORE",
        if restores { "held, or more than it" } else { "not held" },
    );
    checks.push(match restores {
        true => check,
        false => check.but(
            Verdict::Warning,
            "containers cannot be thawed",
            "start the daemon with it or with CAP_SYS_ADMIN",
        ),
    });
    checks.push(files());
    checks
}

fn files() -> Check {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    let show = |limit: Option<u64>| limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string());
    let found = format!("{} (at most {})", show(limit.current), show(limit.maximum));
    let check = Check::ok("rights", "open files", found);
    // A daemon raises it itself as far as it may.
    if most < FILES {
        check.but(
            Verdict::Warning,
            format!("about {} containers and clients at once", most / 2),
            "ulimit -Hn 65536 before the daemon starts (LimitNOFILE= in a unit)",
        )
    } else {
        check
    }
}

/// Parts that networks between containers need; what is built as a module counts.
pub(super) fn networking() -> Vec<Check> {
    let config = config();
    [
        ("bridge", "CONFIG_BRIDGE"),
        ("veth", "CONFIG_VETH"),
        ("nftables", "CONFIG_NF_TABLES"),
        ("connection tracking", "CONFIG_NF_CONNTRACK"),
        ("address translation", "CONFIG_NF_NAT"),
        ("address translation in rules", "CONFIG_NFT_NAT"),
        ("masquerading in rules", "CONFIG_NFT_MASQ"),
        ("kinds of addresses in rules", "CONFIG_NFT_FIB_IPV4"),
    ]
    .into_iter()
    .map(|(name, symbol)| {
        let Some(config) = &config else {
            return Check::ok("network", name, "not known: this kernel does not tell its configuration");
        };
        let value = config.lines().find_map(|line| line.strip_prefix(symbol)?.strip_prefix('='));
        match value {
            Some("y") => Check::ok("network", name, "built in"),
            Some("m") => Check::ok("network", name, "a module"),
            _ => Check::ok("network", name, "not in this kernel").but(
                Verdict::Warning,
                "bridge networks will not work; --network host and none do",
                format!("a kernel with {symbol}"),
            ),
        }
    })
    .collect()
}

/// How the running kernel was configured, where it or its package says so.
fn config() -> Option<String> {
    if let Ok(file) = fs::File::open("/proc/config.gz") {
        let mut text = String::new();
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).ok()?;
        return Some(text);
    }
    let release = release();
    [format!("/boot/config-{release}"), format!("/lib/modules/{release}/config")]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_what_tests_need_and_nothing_stays_behind() {
        let namespace = || fs::read_link("/proc/thread-self/ns/net").unwrap();
        let before = namespace();
        for check in quick().into_iter().chain(namespaces()) {
            assert_ne!(check.status, Verdict::Missing, "{check:?}");
            assert_eq!(check.costs.is_empty(), check.status == Verdict::Ok, "{check:?}");
        }
        assert_eq!(namespace(), before);
    }
}
