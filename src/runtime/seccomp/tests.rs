//! The filter against the rules it came from, and against the kernel.

use std::collections::HashSet;

use libc::sock_filter;

use super::*;
use crate::runtime::sys;

/// What a filter sees of a call.
#[derive(Clone, Copy, Debug)]
struct Call {
    number: u32,
    arch: u32,
    args: [u64; 6],
}

/// Classic BPF as the kernel runs it, as far as we emit it.
fn run(filter: &[sock_filter], call: Call) -> u32 {
    let word = |offset: u32| match offset {
        0 => call.number,
        4 => call.arch,
        offset => {
            let arg = call.args[(offset as usize - 16) / 8];
            u32::try_from(if offset % 8 == 4 { arg >> 32 } else { arg & 0xffff_ffff }).unwrap()
        }
    };
    let (mut pc, mut a) = (0, 0);
    for _ in 0..filter.len() {
        let sock_filter { code, jt, jf, k } = filter[pc];
        pc += 1;
        let jump = |holds| usize::from(if holds { jt } else { jf });
        match code {
            0x20 => a = word(k),
            0x54 => a &= k,
            0x05 => pc += k as usize,
            0x15 => pc += jump(a == k),
            0x25 => pc += jump(a > k),
            0x35 => pc += jump(a >= k),
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
    panic!("no return");
}

/// The newest call of an architecture that the policy names.
fn newest(policy: &Seccomp, arch: &Architecture) -> Option<u32> {
    let named: HashSet<&str> =
        policy.syscalls.iter().flat_map(|rule| rule.names.iter().map(String::as_str)).collect();
    table::entries(arch.table).filter(|(_, name)| named.contains(name)).map(|(number, _)| number).max()
}

/// The policy read rule by rule, as the module's header states it. `name` is the call's, `newest` the newest
/// number the policy names.
fn naive(policy: &Seccomp, call: Call, name: Option<&str>, newest: Option<u32>) -> u32 {
    let default = Action::parse(&policy.default_action, policy.default_errno_ret).unwrap();
    let arch = ARCHITECTURES.iter().find(|arch| arch.audit == call.arch).expect("one of ours");
    if !arch.native && !policy.architectures.iter().any(|name| name == arch.name) {
        return Action::errno(EPERM).0;
    }
    if arch.native && call.number >= 0x4000_0000 {
        return Action::errno(ENOSYS).0;
    }
    if newest.is_some_and(|newest| call.number > newest) && !default.is_permissive() {
        return Action::errno(ENOSYS).0;
    }
    let Some(name) = name else { return default.0 };
    let rules: Vec<_> = policy
        .syscalls
        .iter()
        .filter(|rule| rule.names.iter().any(|n| n == name))
        .map(|rule| (rule, Action::parse(&rule.action, rule.errno_ret).unwrap()))
        .filter(|(_, action)| *action != default)
        .collect();
    if let Some((_, action)) = rules.iter().find(|(rule, _)| rule.args.is_empty()) {
        return action.0;
    }
    let holds = |arg: &SyscallArg| {
        let actual = call.args[arg.index as usize];
        match arg.op.as_str() {
            "SCMP_CMP_NE" => actual != arg.value,
            "SCMP_CMP_LT" => actual < arg.value,
            "SCMP_CMP_LE" => actual <= arg.value,
            "SCMP_CMP_EQ" => actual == arg.value,
            "SCMP_CMP_GE" => actual >= arg.value,
            "SCMP_CMP_GT" => actual > arg.value,
            _ => actual & arg.value == arg.value_two & arg.value,
        }
    };
    let matched = rules.iter().find(|(rule, _)| {
        let mut indices: Vec<_> = rule.args.iter().map(|arg| arg.index).collect();
        indices.sort_unstable();
        indices.dedup();
        if indices.len() < rule.args.len() {
            rule.args.iter().any(holds)
        } else {
            rule.args.iter().all(holds)
        }
    });
    matched.map_or(default, |(_, action)| *action).0
}

/// xorshift; the seed is fixed, so a failure repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[usize::try_from(self.below(list.len() as u64)).unwrap()]
    }
}

/// Values near those that rules mention, in both halves.
const VALUES: [u64; 16] = [
    0,
    1,
    8,
    37,
    38,
    39,
    40,
    41,
    0x2_0008,
    0x1000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0026,
    0x1_0000_0027,
    u64::MAX - 1,
    u64::MAX,
];

fn agree(policy: &Seccomp, random: &mut Random, rounds: u32) {
    let filter = compile(policy).unwrap();
    let numbers: Vec<u32> =
        (0..520).chain([0x3fff_ffff, 0x4000_0000, 0x4000_0001, 0x4000_0208, u32::MAX]).collect();
    for arch in &ARCHITECTURES {
        let names: HashMap<u32, &str> = table::entries(arch.table).collect();
        let newest = newest(policy, arch);
        for &number in &numbers {
            for _ in 0..rounds {
                let mut args = [0; 6].map(|_: u64| random.pick(&VALUES));
                // The kernel gives filters 32-bit arguments with an upper half of zero.
                if !arch.wide {
                    args = args.map(|arg| arg & 0xffff_ffff);
                }
                let call = Call { number, arch: arch.audit, args };
                let expected = naive(policy, call, names.get(&number).copied(), newest);
                assert_eq!(run(&filter, call), expected, "{call:?} under {policy:?}");
            }
        }
    }
    let unknown = Call { number: 1, arch: 0x1234, args: [0; 6] };
    assert_eq!(run(&filter, unknown), Action::KILL_PROCESS.0);
}

fn caps(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn the_default_filter_decides_as_its_rules_do() {
    let mut random = Random(0x5eed);
    for set in [&[][..], &["CAP_SYS_ADMIN"], &["CAP_CHECKPOINT_RESTORE", "CAP_SYS_PTRACE", "CAP_BPF"]] {
        agree(&default_profile(&caps(set)), &mut random, 6);
    }
}

#[test]
fn random_policies_decide_as_their_rules_do() {
    let actions = ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "TRAP", "TRACE", "LOG"];
    let operators = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    let names: Vec<&str> = table::entries(ARCHITECTURES[0].table).map(|(_, name)| name).collect();
    let mut random = Random(0xd0_c5eed);
    for round in 0..40 {
        let action = |random: &mut Random| format!("SCMP_ACT_{}", random.pick(&actions));
        let syscalls = (0..random.below(if round % 10 == 0 { 900 } else { 60 }))
            .map(|_| {
                // Few names, so that rules meet.
                let pool = &names[..if random.below(2) == 0 { 20 } else { names.len() }];
                let args = (0..random.below(4).saturating_sub(1))
                    .map(|_| SyscallArg {
                        index: u32::try_from(random.below(3)).unwrap(),
                        value: random.pick(&VALUES),
                        value_two: random.pick(&VALUES),
                        op: format!("SCMP_CMP_{}", random.pick(&operators)),
                    })
                    .collect();
                SyscallRule {
                    names: vec![random.pick(pool).to_owned(), "no_such_call".to_owned()],
                    action: action(&mut random),
                    errno_ret: (random.below(2) == 0).then_some(38),
                    args,
                }
            })
            .collect();
        let policy = Seccomp {
            default_action: action(&mut random),
            default_errno_ret: None,
            architectures: if round % 2 == 0 { caps(&["SCMP_ARCH_X86"]) } else { Vec::new() },
            flags: Vec::new(),
            syscalls,
        };
        agree(&policy, &mut random, 3);
    }
}

#[test]
fn the_default_filter_is_short() {
    let filter = compile(&default_profile(&[])).unwrap();
    let native_only = Seccomp { architectures: Vec::new(), ..default_profile(&[]) };
    let native = compile(&native_only).unwrap();
    assert!(native.len() <= 150, "{} instructions", native.len());
    assert!(filter.len() <= 300, "{} instructions with i386", filter.len());
}

/// Every call of this machine is either allowed, conditional, or refused on purpose.
#[cfg(target_arch = "x86_64")]
#[test]
fn nothing_is_refused_by_oversight() {
    const REFUSED: &str = "\
        acct add_key afs_syscall bpf chroot clock_settime clock_settime64 clone3 create_module delete_module \
        fanotify_init file_getattr file_setattr finit_module fsconfig fsmount fsopen fspick \
        get_kernel_syms get_mempolicy getpmsg init_module io_uring_enter io_uring_register io_uring_setup \
        ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie lsm_get_self_attr \
        lsm_list_modules lsm_set_self_attr mbind migrate_pages mount mount_setattr move_mount move_pages \
        nfsservctl open_by_handle_at open_tree open_tree_attr perf_event_open pidfd_getfd pivot_root \
        process_madvise putpmsg query_module quotactl quotactl_fd reboot request_key security \
        set_mempolicy set_mempolicy_home_node setdomainname sethostname setns settimeofday stime swapoff \
        swapon _sysctl sysfs syslog tuxcall umount umount2 unshare uprobe uselib userfaultfd ustat vhangup \
        vserver \
        bdflush break ftime gtty idle lock mpx nice oldfstat oldlstat oldolduname oldstat olduname prof profil \
        readdir sgetmask sigaction signal sigpending sigsuspend ssetmask stty ulimit vm86 vm86old";
    let policy = default_profile(&[]);
    let filter = compile(&policy).unwrap();
    let conditional = ["clone", "personality", "socket"];
    let mut refused: Vec<&str> = REFUSED.split_ascii_whitespace().collect();
    let mut wrong = Vec::new();
    for arch in &ARCHITECTURES {
        for (number, name) in table::entries(arch.table) {
            let call = Call { number, arch: arch.audit, args: [7; 6] };
            let allowed = run(&filter, call) == Action::ALLOW.0;
            let expected = !refused.contains(&name);
            if !conditional.contains(&name) && allowed != expected {
                wrong.push((arch.name, name, allowed));
            }
        }
    }
    assert_eq!(wrong, []);
    let known: Vec<&str> =
        ARCHITECTURES.iter().flat_map(|a| table::entries(a.table)).map(|(_, n)| n).collect();
    refused.retain(|name| !known.contains(name));
    assert_eq!(refused, Vec::<&str>::new(), "not a call");
}

#[test]
fn answers_that_programs_depend_on() {
    let number = |name: &str| table::entries(ARCHITECTURES[0].table).find(|(_, n)| *n == name).unwrap().0;
    let ask = |caps: &[String], name: &str, first: u64| {
        let filter = compile(&default_profile(caps)).unwrap();
        run(
            &filter,
            Call { number: number(name), arch: ARCHITECTURES[0].audit, args: [first, 0, 0, 0, 0, 0] },
        )
    };
    let (allow, eperm, enosys) = (Action::ALLOW.0, Action::errno(EPERM).0, Action::errno(ENOSYS).0);
    let admin = caps(&["CAP_SYS_ADMIN"]);
    assert_eq!(ask(&[], "clone3", 0), enosys);
    assert_eq!(ask(&admin, "clone3", 0), allow);
    assert_eq!(ask(&[], "clone", 0x11), allow);
    assert_eq!(ask(&[], "clone", 0x1000_0011), eperm);
    assert_eq!(ask(&admin, "clone", 0x1000_0011), allow);
    assert_eq!(ask(&[], "mount", 0), eperm);
    assert_eq!(ask(&admin, "mount", 0), allow);
    assert_eq!(ask(&admin, "io_uring_setup", 0), eperm);
    // AF_ALG, also when disguised by an upper word the kernel ignores.
    for family in [38, 40, 0x1_0000_0026, u64::MAX] {
        assert_eq!(ask(&admin, "socket", family), eperm, "{family:#x}");
    }
    for family in [1, 2, 10, 16, 17, 37, 39, 41, 44] {
        assert_eq!(ask(&[], "socket", family), allow, "{family}");
    }
    assert_eq!(ask(&[], "personality", 0xffff_ffff), allow);
    assert_eq!(ask(&[], "personality", 0x4_0000), eperm);
    let filter = compile(&default_profile(&[])).unwrap();
    let future = Call { number: 600, arch: ARCHITECTURES[0].audit, args: [0; 6] };
    assert_eq!(run(&filter, future), enosys);
}

#[test]
fn words_without_meaning_are_refused() {
    let policy = |action: &str, op: &str, index| Seccomp {
        default_action: "SCMP_ACT_ALLOW".to_owned(),
        syscalls: vec![SyscallRule {
            names: vec!["read".to_owned()],
            action: action.to_owned(),
            args: vec![SyscallArg { index, op: op.to_owned(), ..SyscallArg::default() }],
            ..SyscallRule::default()
        }],
        ..Seccomp::default()
    };
    assert!(compile(&policy("SCMP_ACT_ERRNO", "SCMP_CMP_EQ", 5)).is_ok());
    assert!(compile(&policy("SCMP_ACT_NOTIFY", "SCMP_CMP_EQ", 0)).is_err());
    assert!(compile(&policy("SCMP_ACT_ERRNO", "EQ", 0)).is_err());
    assert!(compile(&policy("SCMP_ACT_ERRNO", "SCMP_CMP_EQ", 6)).is_err());
    assert!(compile(&Seccomp::default()).is_err());
    let flagged = Seccomp { flags: caps(&["SECCOMP_FILTER_FLAG_NEW_LISTENER"]), ..Seccomp::default() };
    assert!(flags(&flagged).is_err());
}

/// Runs `body` in a child under the default filter; its result is the exit code.
fn under_filter(body: fn() -> u8) -> i32 {
    let policy = default_profile(&[]);
    let filter = compile(&policy).unwrap();
    let flags = flags(&policy).unwrap();
    match sys::process::clone(0, None).unwrap() {
        sys::process::Side::Child => {
            let code = match sys::seccomp::load(&filter, flags) {
                Ok(()) => i32::from(body()),
                Err(_) => 99,
            };
            sys::process::exit(code)
        }
        sys::process::Side::Parent { pid, .. } => sys::process::wait(pid).unwrap().code,
    }
}

#[test]
fn the_kernel_enforces_the_default_filter() {
    use rustix::io::Errno;
    // The number of the first expectation that is not met; a forked child had better not panic.
    let code = under_filter(|| {
        let mount = rustix::mount::mount("x", "/", "tmpfs", rustix::mount::MountFlags::empty(), None);
        let family = |number| {
            rustix::net::socket(
                rustix::net::AddressFamily::from_raw(number),
                rustix::net::SocketType::SEQPACKET,
                None,
            )
            .err()
        };
        let newuser = rustix::thread::UnshareFlags::NEWUSER;
        let checks = [
            rustix::process::getpid().as_raw_nonzero().get() > 1,
            mount == Err(Errno::PERM),
            sys::process::unshare(newuser).is_err_and(|e| e.raw_os_error() == Some(libc::EPERM)),
            family(38) == Some(Errno::PERM),
            family(40) == Some(Errno::PERM),
            family(1).is_none(),
            rustix::thread::set_name(c"filtered").is_ok(),
            sys::process::clone(0, None).is_err_and(|e| e.raw_os_error() == Some(libc::ENOSYS)),
        ];
        let failed = checks.iter().position(|met| !met);
        failed.map_or(0, |index| u8::try_from(index).map_or(98, |index| index + 1))
    });
    assert_eq!(code, 0);
}
