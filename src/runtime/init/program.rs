//! The last part of starting a process: from root inside the container to the user's command.
//!
//! Prepared ([`Program::prepare`]) by the parent, where failing is cheap; carried out ([`Program::run`]) by
//! the child, inside the container's root, with nothing open but its streams and the report socket. Order,
//! and why: home and groups from the image's files while we may read them; the working directory made as
//! root; limits before the right to raise them is gone; the filter as late as its rule allows (without
//! no_new_privs it needs CAP_SYS_ADMIN, so before capabilities are dropped; with it, last); identity;
//! capabilities; command.
//!
//! Sources: capabilities(7), seccomp(2), runtime-spec `config.md` (Process).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::command;
use crate::runtime::spec::{Capabilities, Process, Seccomp};
use crate::runtime::sys::{fd, seccomp as filter};
use crate::runtime::user::{self, Identity};
use crate::runtime::{Cause, Error, capabilities, seccomp};

/// Where `--init` puts the minimal init.
pub const REAPER: &str = "/sbin/docker-init";
/// A passwd or group file larger than this is no passwd file.
const MAX_ACCOUNTS_BYTES: u64 = 16 << 20;
/// What a shell would search without a PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether the command is pid 1 itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supervision {
    Direct,
    /// Below the minimal init at [`REAPER`].
    Reaper,
}

/// Capability sets as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sets {
    /// To take out of the bounding set. Found out by the parent: the child's /proc is the container's.
    dropped: u64,
    effective: u64,
    permitted: u64,
    inheritable: u64,
    ambient: u64,
}

/// A process checked and compiled, ready to be carried out.
#[derive(Debug)]
pub struct Program<'a> {
    process: &'a Process,
    supervision: Supervision,
    sets: Sets,
    filter: Option<Filter>,
    limits: Vec<(Resource, Rlimit)>,
    oom_score_adj: Option<i32>,
    no_new_privileges: bool,
}

struct Filter {
    code: Vec<libc::sock_filter>,
    flags: libc::c_ulong,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} instructions", self.code.len())
    }
}

/// Which capabilities a process gets.
#[derive(Clone, Copy, Debug)]
pub enum Rights<'a> {
    /// All we have ourselves.
    Full,
    Listed(Option<&'a Capabilities>),
}

impl<'a> Program<'a> {
    /// Checks and compiles. `container` lends what `process` leaves open: an exec has the limits, the OOM
    /// score and the no-new-privileges of its container.
    ///
    /// # Errors
    /// [`Cause::Refused`]: no command, unknown capability or limit, a filter that does not compile.
    pub fn prepare(
        process: &'a Process,
        container: &'a Process,
        rights: Rights<'_>,
        policy: Option<&Seccomp>,
        supervision: Supervision,
    ) -> Result<Program<'a>, Error> {
        if process.args.is_empty() {
            return Err(refused("start", "the process", "it has no command"));
        }
        let filter = match policy {
            None => None,
            Some(policy) => Some(Filter { code: seccomp::compile(policy)?, flags: seccomp::flags(policy)? }),
        };
        let limits = if process.rlimits.is_empty() { &container.rlimits } else { &process.rlimits };
        Ok(Program {
            process,
            supervision,
            sets: sets(rights)?,
            filter,
            limits: limits.iter().map(limit).collect::<Result<_, _>>()?,
            oom_score_adj: process.oom_score_adj.or(container.oom_score_adj),
            no_new_privileges: process.no_new_privileges || container.no_new_privileges,
        })
    }

    /// Sets the OOM score through the host's /proc: call it while that is still there.
    ///
    /// # Errors
    /// `EACCES` when lowering it without CAP_SYS_RESOURCE.
    pub fn adjust_oom_score(&self) -> Result<(), Error> {
        let Some(score) = self.oom_score_adj else { return Ok(()) };
        let file = "/proc/self/oom_score_adj";
        let current = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<i32>().ok());
        if current == Some(score) {
            return Ok(());
        }
        std::fs::write(file, score.to_string())
            .map_err(|cause| failed("set the OOM score to", &score.to_string(), cause))
    }

    /// Becomes the command. Everything but fds 0, 1, 2 and close-on-exec ones is closed already, `/` is the
    /// container's root.
    ///
    /// # Errors
    /// Returns only on failure.
    pub fn run(&self) -> Result<std::convert::Infallible, Error> {
        let process = self.process;
        let identity = self.identity()?;
        let mut env = process.env.clone();
        if command::value(&env, "HOME").unwrap_or_default().is_empty() {
            env.retain(|entry| !entry.starts_with("HOME="));
            env.push(format!("HOME={}", identity.home));
        }
        hand_over_streams(identity.uid);
        // Compat: made 0755 by root whatever the umask says.
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let entered = enter_directory(&process.cwd)?;
        rustix::process::umask(Mode::from_raw_mode(process.user.umask.unwrap_or(0o022) & 0o777));
        for (resource, limit) in &self.limits {
            rustix::process::setrlimit(*resource, *limit)
                .map_err(|errno| user_error("set the limit", &format!("{resource:?}"), errno.into()))?;
        }
        if !self.no_new_privileges {
            self.load_filter()?;
        }
        self.become_user(&identity)
            .map_err(|cause| failed("become user", &identity.uid.to_string(), cause))?;
        if entered == Entered::NotYet {
            rustix::process::chdir(directory(&process.cwd))
                .map_err(|errno| user_error("change directory to", &process.cwd, errno.into()))?;
        }
        self.execute(&env)
    }

    fn execute(&self, env: &[String]) -> Result<std::convert::Infallible, Error> {
        let args = &self.process.args;
        let path = command::value(env, "PATH").unwrap_or(DEFAULT_PATH);
        let failed =
            |error| Error { op: "run".to_owned(), object: args[0].clone(), cause: Cause::Command(error) };
        let mut file = command::find(&args[0], path).map_err(failed)?;
        let mut words: Vec<&str> = args.iter().map(String::as_str).collect();
        if self.supervision == Supervision::Reaper {
            words.splice(0..0, [REAPER, "--"]);
            file = REAPER.into();
        }
        let invalid = |cause: String| refused("run", &args[0], &cause);
        let words = command::c_strings(&words).map_err(invalid)?;
        let env = command::c_strings(env).map_err(invalid)?;
        // A second line behind O_CLOEXEC: one leaked descriptor is a way out and the end of checkpoints.
        // Kernels before 5.11 lack the call, and need only the first.
        let _ = fd::cloexec_from(3);
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true)
                .map_err(|errno| self::failed("set", "no_new_privs", errno.into()))?;
            self.load_filter()?;
        }
        Err(failed(command::execute(&file, &words, &env)))
    }

    fn identity(&self) -> Result<Identity, Error> {
        let user = &self.process.user;
        let passwd = accounts("/etc/passwd");
        match &user.username {
            None => Ok(user::by_number(user.uid, user.gid, &user.additional_gids, &passwd)),
            Some(name) => user::resolve(name, &user.group_add, &passwd, &accounts("/etc/group"))
                .map_err(|cause| refused("resolve user", &format!("{name:?}"), &cause)),
        }
    }

    fn load_filter(&self) -> Result<(), Error> {
        let Some(Filter { code, flags }) = &self.filter else { return Ok(()) };
        filter::load(code, *flags).map_err(|cause| failed("load", "the seccomp filter", cause))
    }

    fn become_user(&self, identity: &Identity) -> io::Result<()> {
        let Sets { dropped, effective, permitted, inheritable, ambient } = self.sets;
        for number in (0..64).filter(|number| dropped & (1 << number) != 0) {
            rustix::thread::remove_capability_from_bounding_set(bits(1 << number))?;
        }
        rustix::thread::set_keep_capabilities(true)?;
        let groups: Vec<Gid> = identity.groups.iter().map(|&group| Gid::from_raw(group)).collect();
        rustix::thread::set_thread_groups(&groups)?;
        let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        rustix::thread::set_keep_capabilities(false)?;
        let sets = CapabilitySets {
            effective: bits(effective),
            permitted: bits(permitted),
            inheritable: bits(inheritable),
        };
        rustix::thread::set_capabilities(None, sets)?;
        rustix::thread::clear_ambient_capability_set()?;
        for number in (0..64).filter(|number| ambient & permitted & inheritable & (1 << number) != 0) {
            rustix::thread::configure_capability_in_ambient_set(bits(1 << number), true)?;
        }
        Ok(())
    }
}

fn bits(set: u64) -> CapabilitySet {
    CapabilitySet::from_bits_retain(set)
}

/// The sets to run with, cut down to what we can give: a daemon without a capability cannot hand it out.
fn sets(rights: Rights<'_>) -> Result<Sets, Error> {
    let own = rustix::thread::capabilities(None)
        .map_err(|errno| failed("read", "our own capabilities", errno.into()))?
        .permitted
        .bits();
    let known = capabilities::known();
    let given = own & known;
    let Rights::Listed(listed) = rights else {
        return Ok(Sets {
            dropped: known & !given,
            effective: given,
            permitted: given,
            inheritable: 0,
            ambient: 0,
        });
    };
    let empty = Capabilities::default();
    let listed = listed.unwrap_or(&empty);
    let set = |names: &[String]| {
        let set =
            capabilities::set(names).map_err(|name| refused("give the capability", name, "there is none"))?;
        Ok::<u64, Error>(set & given)
    };
    let permitted = set(&listed.permitted)?;
    Ok(Sets {
        dropped: known & !set(&listed.bounding)?,
        // The kernel refuses an effective set beyond the permitted one.
        effective: set(&listed.effective)? & permitted,
        permitted,
        inheritable: set(&listed.inheritable)?,
        ambient: set(&listed.ambient)?,
    })
}

fn limit(limit: &crate::runtime::spec::Rlimit) -> Result<(Resource, Rlimit), Error> {
    let resource = match limit.kind.as_str() {
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_STACK" => Resource::Stack,
        other => return Err(refused("set the limit", other, "there is none")),
    };
    // u64::MAX is the kernel's "unlimited", which rustix writes as None.
    let value = |value: u64| (value != u64::MAX).then_some(value);
    Ok((resource, Rlimit { current: value(limit.soft), maximum: value(limit.hard) }))
}

/// An accounts file of the image; anything but a plain file of sane size reads as empty. Not blocking: the
/// image could hold a FIFO under that name.
fn accounts(path: &str) -> Vec<u8> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut text = Vec::new();
    let Ok(file) = rustix::fs::open(path, flags, Mode::empty()) else { return text };
    let plain = rustix::fs::fstat(&file)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    if plain && File::from(file).take(MAX_ACCOUNTS_BYTES).read_to_end(&mut text).is_err() {
        text.clear();
    }
    text
}

/// Gives pipes and the pty to the user, who may open them again as /dev/stdout. Streams of other kinds are
/// somebody else's files.
fn hand_over_streams(uid: u32) {
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(stream) else { continue };
        let ours = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo | FileType::Socket => true,
            // Unix98 ptys: majors 136 to 143.
            FileType::CharacterDevice => (136..=143).contains(&rustix::fs::major(stat.st_rdev)),
            _ => false,
        };
        if ours && stat.st_uid != uid {
            // A stream that cannot be given away still works; only opening it anew does not.
            let _ = rustix::fs::fchown(stream.as_fd(), Some(Uid::from_raw(uid)), None);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entered {
    Yes,
    /// Root may not, as on a network file system; the user perhaps may.
    NotYet,
}

fn directory(cwd: &str) -> &Path {
    Path::new(if cwd.is_empty() { "/" } else { cwd })
}

fn enter_directory(cwd: &str) -> Result<Entered, Error> {
    let path = directory(cwd);
    if !path.is_absolute() {
        return Err(refused("change directory to", cwd, "not an absolute path"));
    }
    let entered = match rustix::process::chdir(path) {
        Err(Errno::NOENT) => {
            std::fs::create_dir_all(path)
                .map_err(|cause| user_error("make the working directory", cwd, cause))?;
            rustix::process::chdir(path)
        }
        other => other,
    };
    match entered {
        Err(Errno::ACCESS) => return Ok(Entered::NotYet),
        other => other.map_err(|errno| user_error("change directory to", cwd, errno.into()))?,
    }
    // A path that leads out through a descriptor somebody forgot (CVE-2024-21626) has no name in our root.
    let here = rustix::process::getcwd(Vec::new()).map_err(|errno| failed("find", cwd, errno.into()))?;
    if !here.as_bytes().starts_with(b"/") {
        return Err(refused("change directory to", cwd, "it is outside the container's root"));
    }
    Ok(Entered::Yes)
}

/// A failure that what the caller asked for explains.
fn user_error(op: &str, object: &str, cause: io::Error) -> Error {
    match Errno::from_io_error(&cause) {
        Some(errno) => refused(op, object, &command::phrase(errno)),
        None => failed(op, object, cause),
    }
}

fn failed(op: &str, object: &str, cause: io::Error) -> Error {
    Error { op: op.to_owned(), object: object.to_owned(), cause: Cause::Io(cause) }
}

fn refused(op: &str, object: &str, cause: &str) -> Error {
    Error { op: op.to_owned(), object: object.to_owned(), cause: Cause::Refused(cause.to_owned()) }
}
