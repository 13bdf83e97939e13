//! The default policy, and Docker's profile format.
//!
//! In: the container's bounding capabilities, or the JSON of `--security-opt seccomp=…`. Out: a plain
//! [`Seccomp`] without conditions.
//!
//! The default lists what is allowed; everything else is EPERM. What it keeps out: other namespaces, mounts,
//! modules, the clock, keyrings, io_uring, the kernel's crypto sockets (AF_ALG) and the sockets between
//! virtual machines (AF_VSOCK) – unless a capability that is about just that was granted.
//!
//! *Limits*: on i386 `socketcall` takes the address family from memory, where no filter can look.
//!
//! Source: Docker's documented default profile, "Seccomp security profiles for Docker".

use serde::Deserialize;

use super::{ARCHITECTURES, ENOSYS, EPERM, refused};
use crate::runtime::Error;
use crate::runtime::spec::{Seccomp, SyscallArg, SyscallRule};

/// Always allowed, by subject. Names of other architectures and of kernels to come do no harm.
const ALLOWED: [&str; 12] = [
    // files: opening, reading, writing
    "open openat openat2 creat close close_range read readv pread64 preadv preadv2 write writev pwrite64 \
     pwritev pwritev2 lseek _llseek dup dup2 dup3 fcntl fcntl64 flock ioctl sendfile sendfile64 splice tee \
     vmsplice copy_file_range readahead fadvise64 fadvise64_64 fallocate fsync fdatasync sync syncfs \
     sync_file_range cachestat truncate truncate64 ftruncate ftruncate64 pipe pipe2 umask",
    // files: names and attributes
    "access faccessat faccessat2 chdir fchdir getcwd chmod fchmod fchmodat fchmodat2 chown chown32 fchown \
     fchown32 lchown lchown32 fchownat stat stat64 fstat fstat64 lstat lstat64 fstatat64 newfstatat statx \
     statfs statfs64 fstatfs fstatfs64 statmount listmount getdents getdents64 link linkat symlink symlinkat \
     readlink readlinkat rename renameat renameat2 unlink unlinkat mkdir mkdirat rmdir mknod mknodat utime \
     utimes futimesat utimensat utimensat_time64 getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr \
     fsetxattr setxattrat listxattr llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr \
     removexattrat name_to_handle_at",
    // waiting for files
    "poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create epoll_create1 epoll_ctl \
     epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2 inotify_init \
     inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark signalfd signalfd4 io_setup io_submit \
     io_getevents io_pgetevents io_pgetevents_time64 io_cancel io_destroy",
    // memory
    "brk mmap mmap2 munmap mremap mprotect pkey_alloc pkey_free pkey_mprotect madvise mincore msync mlock \
     mlock2 mlockall munlock munlockall mseal remap_file_pages memfd_create memfd_secret map_shadow_stack \
     membarrier process_mrelease",
    // processes and threads
    "fork vfork execve execveat exit exit_group wait4 waitid waitpid kill tkill tgkill getpid getppid gettid \
     getpgid getpgrp setpgid getsid setsid pidfd_open pidfd_send_signal prctl set_tid_address \
     set_robust_list get_robust_list set_thread_area get_thread_area rseq futex futex_time64 futex_wait \
     futex_waitv futex_wake futex_requeue ptrace process_vm_readv process_vm_writev uname getcpu \
     restart_syscall uretprobe",
    // identity and rights: only ever to less, the kernel sees to that
    "getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid \
     getresgid32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 setresuid \
     setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 getgroups getgroups32 \
     setgroups setgroups32 capget capset seccomp landlock_create_ruleset landlock_add_rule \
     landlock_restrict_self",
    // resources and scheduling
    "getrlimit ugetrlimit setrlimit prlimit64 getrusage getpriority setpriority ioprio_get ioprio_set times \
     sysinfo sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getattr \
     sched_setattr sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min \
     sched_rr_get_interval sched_rr_get_interval_time64",
    // signals
    "rt_sigaction rt_sigprocmask rt_sigpending rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 \
     rt_sigqueueinfo rt_tgsigqueueinfo rt_sigreturn sigaltstack sigprocmask sigreturn pause alarm",
    // time; setting the clock is refused by the kernel without CAP_SYS_TIME
    "time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_nanosleep \
     clock_nanosleep_time64 clock_adjtime clock_adjtime64 adjtimex nanosleep getitimer setitimer timer_create \
     timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create \
     timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64",
    // sockets; `socket` itself is conditional
    "socketpair bind listen accept accept4 connect getsockname getpeername getsockopt setsockopt send sendto \
     sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64 shutdown socketcall",
    // System V and POSIX IPC
    "ipc semget semop semctl semtimedop semtimedop_time64 shmget shmat shmdt shmctl msgget msgsnd msgrcv \
     msgctl mq_open mq_unlink mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64 \
     mq_notify mq_getsetattr",
    "getrandom",
];

/// Allowed on one family of processors.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &str = "arch_prctl modify_ldt";
#[cfg(target_arch = "aarch64")]
const ALLOWED_HERE: &str =
    "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls";

/// Allowed to those who have the capability.
const BY_CAPABILITY: [(&str, &str); 14] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_set_self_attr lsm_list_modules mount mount_setattr move_mount open_tree open_tree_attr \
         perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "init_module finit_module delete_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// `CLONE_NEW{CGROUP,UTS,IPC,USER,PID,NET,NS}`
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// Address families by `(mask, value)` of the low word: 0..=37, 39, 41..=47, which is all but AF_ALG (38) and
/// AF_VSOCK (40).
///
/// The kernel takes the family as an int and drops the upper word. Comparing all 64 bits for "greater than
/// 40" would let 1 << 32 | 38 through.
const FAMILIES: [(u64, u64); 7] = [
    (0xffff_ffe0, 0),
    (0xffff_fffc, 32),
    (0xffff_fffe, 36),
    (0xffff_ffff, 39),
    (0xffff_ffff, 41),
    (0xffff_fffe, 42),
    (0xffff_fffc, 44),
];

/// Linux, the same with SHORT_INODE-era and 32-bit `uname`, the two together, and "only ask".
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

fn allow(names: &str, args: Vec<SyscallArg>) -> SyscallRule {
    SyscallRule {
        names: names.split_ascii_whitespace().map(str::to_owned).collect(),
        action: "SCMP_ACT_ALLOW".to_owned(),
        errno_ret: None,
        args,
    }
}

fn masked(mask: u64, value: u64) -> Vec<SyscallArg> {
    vec![SyscallArg { index: 0, value: mask, value_two: value, op: "SCMP_CMP_MASKED_EQ".to_owned() }]
}

/// The policy of a container with these capabilities in its bounding set (`CAP_CHOWN`, …).
pub fn default_profile(bounding_caps: &[String]) -> Seccomp {
    let has = |cap: &str| bounding_caps.iter().any(|name| name == cap);
    let mut syscalls: Vec<SyscallRule> = ALLOWED.iter().map(|names| allow(names, Vec::new())).collect();
    syscalls.push(allow(ALLOWED_HERE, Vec::new()));
    syscalls.extend(FAMILIES.iter().map(|(mask, value)| allow("socket", masked(*mask, *value))));
    syscalls.extend(PERSONALITIES.iter().map(|&value| {
        let arg = SyscallArg { index: 0, value, value_two: 0, op: "SCMP_CMP_EQ".to_owned() };
        allow("personality", vec![arg])
    }));
    let granted = BY_CAPABILITY.iter().filter(|(cap, _)| has(cap));
    syscalls.extend(granted.map(|(_, names)| allow(names, Vec::new())));
    if !has("CAP_SYS_ADMIN") {
        syscalls.push(allow("clone", masked(NAMESPACE_FLAGS, 0)));
        // Its flags are behind a pointer; libraries go back to clone when it does not exist.
        syscalls.push(SyscallRule {
            names: vec!["clone3".to_owned()],
            action: "SCMP_ACT_ERRNO".to_owned(),
            errno_ret: Some(ENOSYS),
            args: Vec::new(),
        });
    }
    Seccomp {
        default_action: "SCMP_ACT_ERRNO".to_owned(),
        default_errno_ret: Some(EPERM),
        architectures: ARCHITECTURES.iter().map(|arch| arch.name.to_owned()).collect(),
        flags: Vec::new(),
        syscalls,
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Vec<String>>,
    syscalls: Option<Vec<ProfileRule>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ArchMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ProfileRule {
    /// The format's first version.
    name: String,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Option<SyscallArg>>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// The machine profiles are resolved for.
struct Machine<'a> {
    /// `amd64`, `arm64`, as profiles call it.
    arch: &'a str,
    kernel: (u32, u32),
    caps: &'a [String],
}

/// Reduces a profile in Docker's format to what holds for this machine and these bounding capabilities.
///
/// # Errors
/// Refused when it is not such a profile, or contradicts itself.
pub fn from_docker_profile(json: &str, caps: &[String]) -> Result<Seccomp, Error> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let uname = rustix::system::uname();
    let kernel = version(&uname.release().to_string_lossy()).unwrap_or((0, 0));
    reduce(json, &Machine { arch, kernel, caps })
}

fn reduce(json: &str, machine: &Machine<'_>) -> Result<Seccomp, Error> {
    let profile: Profile = serde_json::from_str(json).map_err(|e| refused("JSON", &e.to_string()))?;
    if profile.default_action.is_empty() {
        return Err(refused("defaultAction", "missing"));
    }
    let arch_map = profile.arch_map.unwrap_or_default();
    let mut architectures = profile.architectures.unwrap_or_default();
    if !architectures.is_empty() && !arch_map.is_empty() {
        return Err(refused("architectures", "'architectures' and 'archMap' were both specified, use one"));
    }
    let native = ARCHITECTURES[0].name;
    if let Some(entry) = arch_map.into_iter().find(|entry| entry.architecture == native) {
        architectures.push(entry.architecture);
        architectures.extend(entry.sub_architectures.unwrap_or_default());
    }
    let mut syscalls = Vec::new();
    for rule in profile.syscalls.unwrap_or_default() {
        if !applies(rule.includes.as_ref(), rule.excludes.as_ref(), machine)? {
            continue;
        }
        let mut names = rule.names.unwrap_or_default();
        if !rule.name.is_empty() {
            if !names.is_empty() {
                return Err(refused(&format!("call \"{}\"", rule.name), "both 'name' and 'names' specified"));
            }
            names.push(rule.name);
        }
        let args = rule.args.unwrap_or_default().into_iter().flatten().collect();
        syscalls.push(SyscallRule { names, action: rule.action, errno_ret: rule.errno_ret, args });
    }
    Ok(Seccomp {
        default_action: profile.default_action,
        default_errno_ret: profile.default_errno_ret,
        architectures,
        flags: profile.flags.unwrap_or_default(),
        syscalls,
    })
}

/// Included by all of its conditions, excluded by any.
fn applies(
    includes: Option<&Filter>,
    excludes: Option<&Filter>,
    machine: &Machine<'_>,
) -> Result<bool, Error> {
    let is_here = |arch: &String| arch == machine.arch;
    let has = |cap: &String| machine.caps.contains(cap);
    if let Some(Filter { caps, arches, min_kernel }) = includes {
        let arches = arches.as_deref().unwrap_or_default();
        if !arches.is_empty() && !arches.iter().any(is_here)
            || !caps.iter().flatten().all(has)
            || !reached(min_kernel.as_deref(), machine)?.unwrap_or(true)
        {
            return Ok(false);
        }
    }
    if let Some(Filter { caps, arches, min_kernel }) = excludes {
        let hit = arches.iter().flatten().any(is_here)
            || caps.iter().flatten().any(has)
            || reached(min_kernel.as_deref(), machine)?.unwrap_or(false);
        return Ok(!hit);
    }
    Ok(true)
}

/// Whether the kernel is at least as new; `None` without a condition.
fn reached(min_kernel: Option<&str>, machine: &Machine<'_>) -> Result<Option<bool>, Error> {
    let Some(text) = min_kernel.filter(|text| !text.is_empty()) else { return Ok(None) };
    let wanted =
        version(text).ok_or_else(|| refused(&format!("kernel version \"{text}\""), "not understood"))?;
    Ok(Some(machine.kernel >= wanted))
}

/// The first two numbers of `6.18.44-fc`.
fn version(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = text.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = r#"{
      "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
      "archMap": [
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}
      ],
      "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": ""},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]},
         "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["swapon"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
        {"names": ["modify_ldt"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"]}},
        {"name": "acct", "action": "SCMP_ACT_TRAP", "excludes": {"arches": ["s390x"]}}
      ]}"#;

    fn names(caps: &[&str], arch: &str) -> String {
        let caps: Vec<String> = caps.iter().map(|&cap| cap.to_owned()).collect();
        let machine = Machine { arch, kernel: (6, 1), caps: &caps };
        let policy = reduce(PROFILE, &machine).unwrap();
        policy.syscalls.iter().flat_map(|rule| rule.names.clone()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn conditions_are_resolved() {
        assert_eq!(names(&[], "amd64"), "read write clone ptrace modify_ldt acct");
        assert_eq!(names(&["CAP_SYS_ADMIN"], "arm64"), "read write mount ptrace acct");
        assert_eq!(names(&[], "s390x"), "read write clone ptrace");
        let policy = from_docker_profile(PROFILE, &[]).unwrap();
        assert_eq!(policy.architectures[0], ARCHITECTURES[0].name);
        assert_eq!(policy.default_errno_ret, Some(38));
        super::super::compile(&policy).unwrap();
    }

    #[test]
    fn broken_profiles_are_refused_in_words() {
        let cases = [
            ("", "EOF"),
            ("{}", "defaultAction"),
            ("[1]", "invalid"),
            (r#"{"defaultAction":"x","architectures":["a"],"archMap":[{"architecture":"b"}]}"#, "archMap"),
            (r#"{"defaultAction":"x","syscalls":[{"name":"a","names":["b"]}]}"#, "both"),
            (r#"{"defaultAction":"x","syscalls":[{"name":"a","includes":{"minKernel":"new"}}]}"#, "\"new\""),
        ];
        for (json, expected) in cases {
            let error = from_docker_profile(json, &[]).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn kernel_versions_are_compared_as_numbers() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("4.8"), Some((4, 8)));
        assert!(version("5.10").unwrap() > version("5.9").unwrap());
        assert_eq!([version("x.1"), version("5"), version("5.x")], [None; 3]);
    }

    #[test]
    fn families_are_all_but_two() {
        for family in 0..64u64 {
            let allowed = FAMILIES.iter().any(|(mask, value)| family & mask == *value);
            assert_eq!(allowed, family < 48 && family != 38 && family != 40, "family {family}");
        }
    }
}
