//! Which device nodes a container may open: v1's `devices.allow`/`devices.deny`, v2's BPF program.
//!
//! In: the specification's ordered [`DeviceRule`]s. A request (node kind, number, some of `rwm`) is allowed
//! when for each wanted bit the *last* rule that matches allows it; what no rule matches is denied.
//!
//! ```text
//!   r2 = wanted bits
//!   for each rule, last first:   kind, major, minor match?
//!       allow:  r2 &= ~bits;  nothing left → allowed
//!       deny:   r2 & bits     → denied
//!   → denied
//! ```
//!
//! v1 keeps a list of exceptions to one default and cannot cut a hole into a wildcard: denying `c 10:229`
//! after allowing `c *:*` has no effect there, as under every other runtime.
//!
//! Source: kernel Documentation/admin-guide/cgroup-v1/devices.rst, include/uapi/linux/bpf.h
//! (`struct bpf_cgroup_dev_ctx`).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::failed;
use crate::runtime::spec::DeviceRule;
use crate::runtime::sys::bpf::{self, Insn};
use crate::runtime::{Cause, Error};

/// What every container may do unless it is privileged: make any node, use the harmless ones.
///
/// `/dev/net/tun` (10:200) opens only with a network namespace's CAP_NET_ADMIN, and users miss it when it
/// is gone (opencontainers/runc#3468).
pub fn default_device_rules() -> Vec<DeviceRule> {
    let rule = |kind: &str, major, minor, access: &str| DeviceRule {
        allow: true,
        kind: kind.to_owned(),
        major,
        minor,
        access: access.to_owned(),
    };
    let mut rules = vec![
        DeviceRule { allow: false, kind: "a".to_owned(), access: "rwm".to_owned(), ..DeviceRule::default() },
        rule("c", None, None, "m"),
        rule("b", None, None, "m"),
    ];
    // null, zero, full, random, urandom; tty, console, ptmx; the pts; tun
    let memory = [3, 5, 7, 8, 9].map(|minor| (1, Some(minor)));
    let terminals = [0, 1, 2].map(|minor| (5, Some(minor)));
    let nodes = memory.into_iter().chain(terminals).chain([(136, None), (10, Some(200))]);
    rules.extend(nodes.map(|(major, minor)| rule("c", Some(major), minor, "rwm")));
    rules
}

const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const EVERY_ACCESS: i32 = MKNOD | READ | WRITE;

/// A rule that has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    /// `b` or `c`; `None` is both.
    kind: Option<char>,
    major: Option<u32>,
    minor: Option<u32>,
    access: i32,
}

impl Rule {
    fn parse(rule: &DeviceRule) -> Result<Rule, Error> {
        let refuse = |what: &str, value: &str| Error {
            op: "read device rule".to_owned(),
            object: format!("{what} \"{value}\""),
            cause: Cause::Refused("not understood".to_owned()),
        };
        let kind = match rule.kind.as_str() {
            "" | "a" => None,
            "b" => Some('b'),
            // An unbuffered character device is a character device to the kernel.
            "c" | "u" => Some('c'),
            other => return Err(refuse("type", other)),
        };
        let mut access = 0;
        for letter in rule.access.chars() {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                _ => return Err(refuse("access", &rule.access)),
            };
        }
        Ok(Rule {
            allow: rule.allow,
            kind,
            major: rule.major,
            minor: rule.minor,
            access: if access == 0 { EVERY_ACCESS } else { access },
        })
    }

    /// Whether this rule decides everything, so that none before it matters.
    fn is_total(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == EVERY_ACCESS
    }
}

/// The rules that matter, the first of them total.
fn reduce(rules: &[DeviceRule]) -> Result<Vec<Rule>, Error> {
    let mut reduced = vec![Rule { allow: false, kind: None, major: None, minor: None, access: EVERY_ACCESS }];
    for rule in rules {
        let rule = Rule::parse(rule)?;
        if rule.is_total() {
            reduced.clear();
        }
        reduced.push(rule);
    }
    Ok(reduced)
}

/// Writes the policy into a v1 cgroup of the `devices` controller. No rules leave it alone.
pub(super) fn apply_v1(dir: &Path, rules: &[DeviceRule]) -> Result<(), Error> {
    if rules.is_empty() {
        return Ok(());
    }
    let open = |name: &str| -> Result<File, Error> {
        let path = dir.join(name);
        OpenOptions::new().write(true).open(&path).map_err(|e| failed("open", &path, e))
    };
    let (mut allow, mut deny) = (None, None);
    for (allowed, line) in lines_v1(&reduce(rules)?) {
        let (slot, name) = if allowed { (&mut allow, "devices.allow") } else { (&mut deny, "devices.deny") };
        let file = match slot {
            Some(file) => file,
            None => slot.insert(open(name)?),
        };
        // One rule per write(2): the kernel reads no further.
        file.write_all(line.as_bytes())
            .map_err(|e| failed(&format!("set device rule \"{line}\" in"), &dir.join(name), e))?;
    }
    Ok(())
}

/// The lines to write, each with whether it goes to `devices.allow`.
fn lines_v1(rules: &[Rule]) -> Vec<(bool, String)> {
    let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
    let mut lines = Vec::new();
    for rule in rules {
        if rule.is_total() {
            lines.push((rule.allow, "a".to_owned()));
            continue;
        }
        let access: String = [('r', READ), ('w', WRITE), ('m', MKNOD)]
            .into_iter()
            .filter_map(|(letter, bit)| (rule.access & bit != 0).then_some(letter))
            .collect();
        // To the kernel `a` is total whatever follows it.
        for kind in rule.kind.map_or(vec!['b', 'c'], |kind| vec![kind]) {
            let (major, minor) = (number(rule.major), number(rule.minor));
            lines.push((rule.allow, format!("{kind} {major}:{minor} {access}")));
        }
    }
    lines
}

/// Replaces the programs of a v2 cgroup by this policy. No rules leave it alone.
pub(super) fn apply_v2(dir: &Path, rules: &[DeviceRule]) -> Result<(), Error> {
    if rules.is_empty() {
        return Ok(());
    }
    let rules = reduce(rules)?;
    let fail = |op: &str| {
        let op = format!("{op} the device policy of");
        move |e| failed(&op, dir, e)
    };
    let cgroup = File::open(dir).map_err(|e| failed("open", dir, e))?;
    let old = bpf::attached_device_programs(cgroup.as_fd()).map_err(fail("query"))?;
    // The new program goes on before the old ones come off: stricter for a moment, never laxer.
    let total = matches!(rules[..], [Rule { allow: true, .. }]);
    if !total {
        let program = load(&compile(&rules)).map_err(fail("load"))?;
        bpf::attach_device_program(cgroup.as_fd(), program.as_fd()).map_err(fail("attach"))?;
    }
    for id in old {
        let program = bpf::open_program(id).map_err(fail("open"))?;
        bpf::detach_device_program(cgroup.as_fd(), program.as_fd()).map_err(fail("detach"))?;
    }
    Ok(())
}

fn load(program: &[Insn]) -> std::io::Result<std::os::fd::OwnedFd> {
    match bpf::load_device_program(program) {
        // Before 5.11 programs were charged to RLIMIT_MEMLOCK, 64 KiB by default and shared by the user.
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
            let old = getrlimit(Resource::Memlock);
            let lifted = Rlimit { current: None, maximum: None };
            if setrlimit(Resource::Memlock, lifted).is_err() {
                return Err(e);
            }
            let result = bpf::load_device_program(program);
            setrlimit(Resource::Memlock, old)?;
            result
        }
        result => result,
    }
}

const R0: u8 = 0;
const CONTEXT: u8 = 1;
const WANTED: u8 = 2;
const KIND: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

// Instruction codes: class | operation | source.
const LDX_W: u8 = 0x61;
const AND32: u8 = 0x54;
const RSH32: u8 = 0x74;
const MOV32: u8 = 0xb4;
const MOV32_X: u8 = 0xbc;
const JEQ32: u8 = 0x16;
const JNE32: u8 = 0x56;
const EXIT: u8 = 0x95;

fn insn(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers: destination | source << 4, offset, immediate }
}

/// Whether this kernel takes device programs, which cgroup2 restricts by.
pub fn can_restrict() -> std::io::Result<()> {
    bpf::load_device_program(&compile(&[])).map(drop)
}

/// The program of the header's drawing. Uses the 32-bit jumps of Linux 5.1.
fn compile(rules: &[Rule]) -> Vec<Insn> {
    // struct bpf_cgroup_dev_ctx { u32 access << 16 | kind; u32 major; u32 minor; }
    let mut program = vec![
        insn(LDX_W, WANTED, CONTEXT, 0, 0),
        insn(LDX_W, MAJOR, CONTEXT, 4, 0),
        insn(LDX_W, MINOR, CONTEXT, 8, 0),
        insn(MOV32_X, KIND, WANTED, 0, 0),
        insn(AND32, KIND, 0, 0, 0xffff),
        insn(RSH32, WANTED, 0, 0, 16),
    ];
    for rule in rules.iter().rev() {
        let verdict = [insn(MOV32, R0, 0, 0, i32::from(rule.allow)), insn(EXIT, 0, 0, 0, 0)];
        let mut body = Vec::with_capacity(5);
        if rule.access != EVERY_ACCESS {
            // Offset 2 skips the verdict, to the next rule.
            if rule.allow {
                body.push(insn(AND32, WANTED, 0, 0, !rule.access));
                body.push(insn(JNE32, WANTED, 0, 2, 0));
            } else {
                body.push(insn(MOV32_X, SCRATCH, WANTED, 0, 0));
                body.push(insn(AND32, SCRATCH, 0, 0, rule.access));
                body.push(insn(JEQ32, SCRATCH, 0, 2, 0));
            }
        }
        body.extend(verdict);
        // enum { BPF_DEVCG_DEV_BLOCK = 1, BPF_DEVCG_DEV_CHAR = 2 }
        let kind = rule.kind.map(|kind| if kind == 'b' { 1 } else { 2 });
        let tests: Vec<(u8, i32)> = [
            (KIND, kind),
            (MAJOR, rule.major.map(u32::cast_signed)),
            (MINOR, rule.minor.map(u32::cast_signed)),
        ]
        .into_iter()
        .filter_map(|(register, value)| Some((register, value?)))
        .collect();
        for (done, (register, value)) in tests.iter().enumerate() {
            let rest = tests.len() - done - 1 + body.len();
            let offset = i16::try_from(rest).expect("a rule is at most 8 instructions");
            program.push(insn(JNE32, *register, 0, offset, *value));
        }
        program.extend(body);
        // The verifier refuses code that cannot be reached.
        if rule.is_total() {
            return program;
        }
    }
    program.extend([insn(MOV32, R0, 0, 0, 0), insn(EXIT, 0, 0, 0, 0)]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: &str, major: Option<u32>, minor: Option<u32>, access: &str) -> DeviceRule {
        DeviceRule { allow, kind: kind.to_owned(), major, minor, access: access.to_owned() }
    }

    /// Evaluates the rules as the header says, bit by bit.
    fn naive(rules: &[Rule], kind: char, major: u32, minor: u32, wanted: i32) -> bool {
        [MKNOD, READ, WRITE].into_iter().filter(|bit| wanted & bit != 0).all(|bit| {
            rules
                .iter()
                .rev()
                .find(|r| {
                    r.kind.is_none_or(|k| k == kind)
                        && r.major.is_none_or(|n| n == major)
                        && r.minor.is_none_or(|n| n == minor)
                        && r.access & bit != 0
                })
                .is_some_and(|r| r.allow)
        })
    }

    /// Runs the handful of instructions the compiler emits.
    fn interpret(program: &[Insn], kind: char, major: u32, minor: u32, wanted: i32) -> bool {
        let kind = if kind == 'b' { 1 } else { 2 };
        let context = [u32::try_from(wanted).unwrap() << 16 | kind, major, minor];
        let mut r = [0u32; 16];
        let mut pc = 0;
        loop {
            let Insn { code, registers, offset, immediate } = program[pc];
            let (d, s) = (usize::from(registers & 15), usize::from(registers >> 4));
            let imm = immediate.cast_unsigned();
            pc += 1;
            let skip = usize::try_from(offset).unwrap();
            match code {
                LDX_W => r[d] = context[skip / 4],
                AND32 => r[d] &= imm,
                RSH32 => r[d] >>= imm,
                MOV32 => r[d] = imm,
                MOV32_X => r[d] = r[s],
                JEQ32 if r[d] == imm => pc += skip,
                JNE32 if r[d] != imm => pc += skip,
                JEQ32 | JNE32 => {}
                EXIT => return r[0] == 1,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_program_decides_as_the_rules_do() {
        let deny_all = rule(false, "a", None, None, "rwm");
        let lists = [
            default_device_rules(),
            vec![rule(true, "a", None, None, "rwm"), rule(false, "b", Some(8), None, "w")],
            vec![
                deny_all.clone(),
                rule(true, "c", Some(1), None, "r"),
                rule(true, "c", None, Some(3), "w"),
                rule(false, "", Some(1), Some(9), "r"),
                rule(true, "b", Some(u32::MAX), Some(1 << 19), "m"),
            ],
            vec![rule(true, "c", Some(1), Some(3), "")],
            vec![rule(true, "c", Some(1), Some(3), "rwm"), deny_all],
        ];
        for rules in lists {
            let rules = reduce(&rules).unwrap();
            let program = compile(&rules);
            for kind in ['b', 'c'] {
                for major in [0, 1, 5, 8, 10, 136, u32::MAX] {
                    for minor in [0, 1, 3, 9, 200, 229, 1 << 19] {
                        for wanted in 1..=EVERY_ACCESS {
                            assert_eq!(
                                interpret(&program, kind, major, minor, wanted),
                                naive(&rules, kind, major, minor, wanted),
                                "{kind} {major}:{minor} {wanted} under {rules:?}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_defaults_allow_null_and_refuse_disks() {
        let rules = reduce(&default_device_rules()).unwrap();
        let program = compile(&rules);
        assert!(interpret(&program, 'c', 1, 3, EVERY_ACCESS));
        assert!(interpret(&program, 'c', 136, 7, READ | WRITE));
        assert!(interpret(&program, 'b', 8, 0, MKNOD));
        assert!(!interpret(&program, 'b', 8, 0, READ));
        assert!(!interpret(&program, 'c', 10, 229, READ | WRITE));
        assert!(!interpret(&program, 'c', 1, 1, READ));
    }

    #[test]
    fn v1_lines_start_from_the_last_total_rule() {
        let rules = [
            rule(true, "c", Some(1), Some(3), "rwm"),
            rule(false, "a", None, None, ""),
            rule(true, "c", Some(136), None, "rw"),
            rule(true, "a", Some(7), Some(1), "m"),
        ];
        let lines = lines_v1(&reduce(&rules).unwrap());
        let expected = [(false, "a"), (true, "c 136:* rw"), (true, "b 7:1 m"), (true, "c 7:1 m")];
        assert_eq!(lines, expected.map(|(allow, line)| (allow, line.to_owned())));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(reduce(&[rule(true, "x", None, None, "rwm")]).is_err());
        let error = reduce(&[rule(true, "c", None, None, "rx")]).unwrap_err();
        assert_eq!(error.to_string(), "read device rule access \"rx\": not understood");
    }
}
