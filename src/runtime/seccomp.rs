//! System call policies as BPF programs: a compiler of our own.
//!
//! In: a [`spec::Seccomp`] (Docker's default, or a user's profile). Out: a filter for
//! [`super::sys::seccomp::load`].
//!
//! ```text
//!   arch? ─┬─ native ─► number? ── binary search over ranges of numbers with the same answer ─► action
//!          │                                             └─ arguments? first rule that holds ─► action
//!          ├─ 32 bit ─► the same with its own numbers, when the policy names it; else EPERM
//!          └─ other ──► kill
//! ```
//!
//! Meaning, as libseccomp and runc have it: a rule equal to the default action says nothing; names no kernel
//! of this architecture has are ignored; a rule without arguments beats those with; among the rest the first
//! that holds wins; several comparisons of one argument within one rule are alternatives. A call newer than
//! all the policy names gets ENOSYS instead of a refusal, so that libraries fall back to what they used
//! before it existed. x32 calls (number bit 30) get ENOSYS too: as on the kernels, nearly all, that lack that ABI.
//!
//! Why not libseccomp: it is C, and a linear filter of 1500 instructions costs ten times as long to load.
//!
//! Source: seccomp(2), seccomp_rule_add(3), runtime-spec `config-linux.md`.

mod assemble;
mod profile;
mod table;

use std::collections::HashMap;

use self::assemble::{Assembler, Comparison, Label, Operator};
pub use self::profile::{default_profile, from_docker_profile};
use super::spec::{Seccomp, SyscallArg, SyscallRule};
use super::{Cause, Error};

/// `EPERM`, the errno of a refusal that names none.
const EPERM: u32 = libc::EPERM.cast_unsigned();
const ENOSYS: u32 = libc::ENOSYS.cast_unsigned();

/// From here on x86_64 numbers belong to x32.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

/// An architecture a filter can tell calls of.
struct Architecture {
    /// Its name in policies.
    name: &'static str,
    /// What the kernel calls it (`AUDIT_ARCH_*`).
    audit: u32,
    table: &'static str,
    /// Whether arguments have an upper half that can be other than zero.
    wide: bool,
    native: bool,
}

#[cfg(target_arch = "x86_64")]
static ARCHITECTURES: [Architecture; 2] = [
    Architecture {
        name: "SCMP_ARCH_X86_64",
        audit: 0xc000_003e,
        table: table::X86_64,
        wide: true,
        native: true,
    },
    Architecture { name: "SCMP_ARCH_X86", audit: 0x4000_0003, table: table::X86, wide: false, native: false },
];

#[cfg(target_arch = "aarch64")]
static ARCHITECTURES: [Architecture; 1] = [Architecture {
    name: "SCMP_ARCH_AARCH64",
    audit: 0xc000_00b7,
    table: table::AARCH64,
    wide: true,
    native: true,
}];

/// 32-bit architectures this processor may run, for which we have no table: always EPERM.
#[cfg(target_arch = "x86_64")]
const FOREIGN: [u32; 0] = [];
/// `AUDIT_ARCH_ARM`
#[cfg(target_arch = "aarch64")]
const FOREIGN: [u32; 1] = [0x4000_0028];

/// What happens to a call: `SECCOMP_RET_*` with its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Action(u32);

impl Action {
    const ALLOW: Action = Action(libc::SECCOMP_RET_ALLOW);
    const KILL_PROCESS: Action = Action(libc::SECCOMP_RET_KILL_PROCESS);

    const fn errno(errno: u32) -> Action {
        Action(libc::SECCOMP_RET_ERRNO | errno)
    }

    fn parse(name: &str, errno: Option<u32>) -> Result<Action, Error> {
        // MAX_ERRNO: the kernel would quietly lower a larger one.
        let data = errno.unwrap_or(EPERM);
        if data > 4095 {
            return Err(refused(&format!("errno {data}"), "larger than 4095"));
        }
        Ok(match name {
            "SCMP_ACT_ALLOW" => Action::ALLOW,
            "SCMP_ACT_ERRNO" => Action::errno(data),
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action(libc::SECCOMP_RET_KILL_THREAD),
            "SCMP_ACT_KILL_PROCESS" => Action::KILL_PROCESS,
            "SCMP_ACT_TRAP" => Action(libc::SECCOMP_RET_TRAP),
            "SCMP_ACT_TRACE" => Action(libc::SECCOMP_RET_TRACE | data),
            "SCMP_ACT_LOG" => Action(libc::SECCOMP_RET_LOG),
            other => return Err(refused(&format!("action \"{other}\""), "not supported")),
        })
    }

    /// Whether a call nobody thought of goes through.
    fn is_permissive(self) -> bool {
        let action = self.0 & libc::SECCOMP_RET_ACTION_FULL;
        [libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_LOG, libc::SECCOMP_RET_TRACE].contains(&action)
    }
}

fn refused(object: &str, cause: &str) -> Error {
    Error {
        op: "read seccomp profile".to_owned(),
        object: object.to_owned(),
        cause: Cause::Refused(cause.to_owned()),
    }
}

/// The answer for one system call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Always(Action),
    /// The first whose comparisons all hold, else the default.
    First(Vec<(Vec<Comparison>, Action)>),
}

/// A policy whose words have been understood.
struct Policy<'a> {
    default: Action,
    calls: HashMap<&'a str, Verdict>,
}

impl<'a> Policy<'a> {
    fn read(seccomp: &'a Seccomp) -> Result<Policy<'a>, Error> {
        let default = Action::parse(&seccomp.default_action, seccomp.default_errno_ret)?;
        let mut calls: HashMap<&str, Verdict> = HashMap::with_capacity(512);
        for rule in &seccomp.syscalls {
            let action = Action::parse(&rule.action, rule.errno_ret)?;
            let cases = cases(rule)?;
            for name in &rule.names {
                if action == default {
                    // Says nothing, but the policy's author knew the call.
                    calls.entry(name).or_insert_with(|| Verdict::First(Vec::new()));
                } else if rule.args.is_empty() {
                    match calls.get(name.as_str()) {
                        // The first rule without arguments stands.
                        Some(Verdict::Always(_)) => {}
                        _ => drop(calls.insert(name, Verdict::Always(action))),
                    }
                } else {
                    let known = calls.entry(name).or_insert_with(|| Verdict::First(Vec::new()));
                    if let Verdict::First(list) = known {
                        list.extend(cases.iter().map(|case| (case.clone(), action)));
                    }
                }
            }
        }
        Ok(Policy { default, calls })
    }
}

/// The alternatives of a rule: all comparisons together, or each alone when an argument comes twice.
fn cases(rule: &SyscallRule) -> Result<Vec<Vec<Comparison>>, Error> {
    let all = rule.args.iter().map(comparison).collect::<Result<Vec<_>, _>>()?;
    let twice = all.iter().enumerate().any(|(i, c)| all[..i].iter().any(|earlier| earlier.index == c.index));
    // Compat: runc, since libseccomp accepts an argument once per rule.
    Ok(if twice { all.into_iter().map(|one| vec![one]).collect() } else { vec![all] })
}

fn comparison(arg: &SyscallArg) -> Result<Comparison, Error> {
    let index = u8::try_from(arg.index).ok().filter(|index| *index < 6);
    let index = index.ok_or_else(|| refused(&format!("argument {}", arg.index), "a call has six"))?;
    let operator = match arg.op.as_str() {
        "SCMP_CMP_NE" => Operator::NotEqual,
        "SCMP_CMP_LT" => Operator::Less,
        "SCMP_CMP_LE" => Operator::LessOrEqual,
        "SCMP_CMP_EQ" => Operator::Equal,
        "SCMP_CMP_GE" => Operator::GreaterOrEqual,
        "SCMP_CMP_GT" => Operator::Greater,
        "SCMP_CMP_MASKED_EQ" => {
            let (mask, value) = (arg.value, arg.value_two & arg.value);
            return Ok(Comparison { index, operator: Operator::MaskedEqual(mask), value });
        }
        other => return Err(refused(&format!("comparison \"{other}\""), "not supported")),
    };
    Ok(Comparison { index, operator, value: arg.value })
}

/// Turns a policy into a filter.
///
/// # Errors
/// Refused when the policy uses a word or number that has no meaning, or is too long for the kernel.
pub fn compile(policy: &Seccomp) -> Result<Vec<libc::sock_filter>, Error> {
    let read = Policy::read(policy)?;
    let mut asm = Assembler::new();
    let mut sections: Vec<(u32, Label)> = Vec::new();
    for audit in FOREIGN {
        sections.push((audit, asm.action(Action::errno(EPERM).0)));
    }
    // Code is laid out from its end: the native section, most used, comes last and so ends up first.
    for arch in ARCHITECTURES.iter().rev() {
        let listed = arch.native || policy.architectures.iter().any(|name| name == arch.name);
        let entry = if listed {
            section(&mut asm, arch, &read)
        } else {
            // Known but not wanted: a refusal, never unfiltered.
            asm.action(Action::errno(EPERM).0)
        };
        sections.push((arch.audit, entry));
    }
    let mut entry = asm.action(Action::KILL_PROCESS.0);
    for (audit, section) in sections {
        entry = asm.equal(audit, section, entry);
    }
    asm.load_arch(entry);
    let filter = asm.finish();
    // BPF_MAXINSNS
    if filter.len() > 4096 {
        return Err(refused("rules", &format!("{} instructions, the kernel takes 4096", filter.len())));
    }
    Ok(filter)
}

/// The flags to load a policy's filter with.
///
/// # Errors
/// Refused when a flag is unknown.
pub fn flags(policy: &Seccomp) -> Result<libc::c_ulong, Error> {
    // Compat: runc's default. Filtered processes are otherwise slowed by a speculation mitigation on kernels
    // before 5.16, for an attack that needs a JIT.
    if policy.flags.is_empty() {
        return Ok(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW);
    }
    policy.flags.iter().try_fold(0, |flags, name| {
        Ok(flags
            | match name.as_str() {
                "SECCOMP_FILTER_FLAG_TSYNC" => libc::SECCOMP_FILTER_FLAG_TSYNC,
                "SECCOMP_FILTER_FLAG_LOG" => libc::SECCOMP_FILTER_FLAG_LOG,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                other => return Err(refused(&format!("flag \"{other}\""), "not supported")),
            })
    })
}

/// The code for one architecture: load the number, find its range, judge.
fn section(asm: &mut Assembler, arch: &Architecture, policy: &Policy<'_>) -> Label {
    let default = Verdict::Always(policy.default);
    let missing = Verdict::Always(Action::errno(ENOSYS));
    let mut ranges: Vec<(u32, &Verdict)> = Vec::with_capacity(128);
    let mut cover = |from: u32, verdict| {
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((from, verdict));
        }
    };
    let mut next = 0;
    let named =
        table::entries(arch.table).filter_map(|(number, name)| Some((number, policy.calls.get(name)?)));
    for (number, verdict) in named {
        if number > next {
            cover(next, &default);
        }
        let silent = matches!(verdict, Verdict::First(rules) if rules.is_empty());
        cover(number, if silent { &default } else { verdict });
        next = number + 1;
    }
    // A policy without a word on this architecture refuses it in its own way.
    let judges_new = next > 0 && !policy.default.is_permissive();
    cover(next, if judges_new { &missing } else { &default });
    #[cfg(target_arch = "x86_64")]
    if arch.native {
        cover(X32_BIT, &missing);
    }
    let root = search(asm, arch, &ranges, policy.default);
    asm.load_number(root)
}

fn search(asm: &mut Assembler, arch: &Architecture, ranges: &[(u32, &Verdict)], default: Action) -> Label {
    match ranges {
        [] => asm.action(default.0),
        [(_, Verdict::Always(action))] => asm.action(action.0),
        [(_, Verdict::First(rules))] => {
            let mut entry = asm.action(default.0);
            for (comparisons, action) in rules.iter().rev() {
                let miss = entry;
                entry = asm.action(action.0);
                for comparison in comparisons.iter().rev() {
                    entry = asm.compare(comparison, arch.wide, entry, miss);
                }
            }
            entry
        }
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let above = search(asm, arch, high, default);
            let below = search(asm, arch, low, default);
            asm.at_least(high[0].0, above, below)
        }
    }
}

#[cfg(test)]
mod tests;
