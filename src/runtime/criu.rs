//! CRIU: finding it, asking what it can do, dumping and restoring a process tree.
//!
//! In: a process or a directory of images, and what lies outside of the tree (mounts, the network namespace,
//! pipes). Out: images, or a process that goes on. All of it but a dump that is streamed ([`stream`]) by one mechanism,
//! the swrk conversation ([`rpc`]): it reports phases (the writable layer is saved while the tree is frozen), hands back the master
//! of a restored terminal, and makes the restored process a child of its caller.
//!
//! ```text
//!  shim ── spawn ──> dewar-criu ([`launcher`]) ── exec ──> criu swrk FD
//!                    own mount namespace: a tmpfs on /run holding CRIU's cache of kernel features
//!                    for a restore: in the container's cgroup, and a cgroup namespace of its own
//! ```
//!
//! A restore's CRIU is started first and told later where it can be ([`Restorer`]): loading it takes as long as making the
//! mounts it needs.
//!
//! CRIU keeps what it learnt about the kernel in /run/criu.kdat, but only on a tmpfs; without it every start
//! costs 50 ms more, and a /run on disk is left with a stale file that spoils the cache for good. So the
//! launcher covers such a /run by a tmpfs seeded from `cache_dir`, and the first conversation saves the file.
//! The container's run directory stays reachable under its own path.
//!
//! Restored tasks inherit CRIU's cgroups: images hold none, and move between cgroup v1 and v2 hosts.
//!
//! Not here: which mounts and descriptors are external (`shim/checkpoint.rs`).
//! Sources: criu(8), CRIU's `images/rpc.proto`.

pub mod asking;
pub mod check;
pub mod fault;
pub mod images;
pub mod launcher;
pub mod memory;
pub mod pages;
pub mod predump;
pub mod relay;
pub mod rewrite;
pub mod rpc;
pub mod stream;

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::shim::protocol::CriuPlace;
use super::{Cause, Error, uts};
pub use launcher::Home;
use launcher::Launcher;
use rpc::{Conversation, Notice, RequestType, Response, Version, Writer};

/// `argv[0]` of the launcher.
pub const LAUNCHER_NAME: &str = "dewar-criu";

/// Oldest release that has what dewar asks for.
const OLDEST: Version = Version { major: 3, minor: 17, sublevel: 0 };
/// First release that dumps sockets on kernels from [`SOCKOPT_KERNEL`] on.
const DUMPS_SOCKETS: Version = Version { major: 4, minor: 2, sublevel: 0 };
/// Kernel whose getsockopt refuses SO_PASSCRED on inet sockets.
const SOCKOPT_KERNEL: (u32, u32) = (6, 16);
/// Deleted files up to this size are saved in the images.
const GHOST_LIMIT_BYTES: u64 = 1 << 30;
/// CRIU's key for the container's network namespace; runc's, so that images can be exchanged.
pub const NETNS_KEY: &str = "extRootNetNS";

/// CRIU's log of a dump, in the dump's directory.
pub const DUMP_LOG: &str = "dump.log";
/// CRIU's log of a restore, in the container's run directory.
pub const RESTORE_LOG: &str = "restore.log";

/// Where scripts/criu.sh puts a CRIU that works when the distribution's does not.
const OWN: &str = "/opt/dewar/criu/bin/criu";

pub const HOW_TO_GET: &str =
    "install the criu package, or run scripts/criu.sh, or say where it is with --criu";

/// A CRIU that was asked about itself.
#[derive(Clone, Debug)]
pub struct CriuInfo {
    pub path: PathBuf,
    pub version: String,
    /// What will not work on this kernel, one sentence each; empty when all is well.
    pub faults: Vec<String>,
    /// Processes can run before their memory is there.
    pub has_lazy_pages: bool,
    /// The kernel notes which pages are dirty.
    pub has_pre_dumps: bool,
}

/// Finds CRIU: the given path, else `$DEWAR_CRIU`, dewar's own prefix, `$PATH`.
///
/// # Errors
/// There is none; the message says how to get one.
pub fn find(explicit: Option<&Path>) -> Result<PathBuf, Error> {
    let missing = |object: String| Error {
        op: "find".into(),
        object,
        cause: Cause::Refused(format!("not found; {HOW_TO_GET}")),
    };
    let named = explicit.map(Path::to_owned).or_else(|| std::env::var_os("DEWAR_CRIU").map(PathBuf::from));
    if let Some(path) = named {
        return if is_program(&path) {
            Ok(path)
        } else {
            Err(missing(format!("criu at \"{}\"", path.display())))
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/sbin:/usr/bin:/sbin:/bin"));
    let in_path: Vec<PathBuf> = std::env::split_paths(&path).map(|dir| dir.join("criu")).collect();
    // Dewar's own comes first: it is only there because the distribution's did not work on this kernel.
    [PathBuf::from(OWN)]
        .into_iter()
        .chain(in_path)
        .chain(["/usr/sbin/criu", "/usr/local/sbin/criu"].map(PathBuf::from))
        .find(|path| path.is_absolute() && is_program(path))
        .ok_or_else(|| missing("criu".into()))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Asks the CRIU at `place` for its version and whether it works on this kernel; costs about 0.1 s. `exe` is
/// the dewar binary.
///
/// # Errors
/// It cannot be started, is too old, or gives no sensible answer.
pub fn probe(exe: &Path, place: &CriuPlace) -> Result<CriuInfo, Error> {
    let failed = |reason: String| Error {
        op: "use".into(),
        object: format!("criu at \"{}\"", place.path.display()),
        cause: Cause::Refused(reason),
    };
    let ask = |kind: RequestType, body: &Writer| -> Result<Response, Error> {
        let mut conversation = Launcher::new(exe, place).start()?;
        Ok(conversation.request(kind, body, &mut |notice| save_cache(place, &notice))?.0)
    };
    let version = ask(RequestType::Version, &Writer::default())
        .map_err(|error| {
            failed(format!("it does not start on kernel {}: {error}; {HOW_TO_GET}", kernel_release()))
        })?
        .version
        .ok_or_else(|| failed("it does not tell its version".into()))?;
    if version < OLDEST {
        return Err(failed(format!("version {version} is too old, {OLDEST} is needed; {HOW_TO_GET}")));
    }
    let mut faults = Vec::new();
    if version < DUMPS_SOCKETS && kernel_version() >= SOCKOPT_KERNEL {
        faults.push(format!(
            "criu {version} cannot freeze processes that have sockets on kernel {}: {DUMPS_SOCKETS} is needed (scripts/criu.sh fetches it)",
            kernel_release()
        ));
    }
    let mut wanted = Writer::default();
    wanted.bool(1, true).bool(2, true).bool(3, true);
    let mut body = Writer::default();
    body.message(5, &wanted);
    let (mut has_lazy_pages, mut has_pre_dumps) = (false, false);
    match ask(RequestType::FeatureCheck, &body) {
        Ok(response) => {
            (has_lazy_pages, has_pre_dumps) = (response.has_lazy_pages, response.has_dirty_tracking);
        }
        Err(error) => {
            faults.push(format!("criu {version} cannot look at kernel {}: {error}", kernel_release()));
        }
    }
    let (path, version) = (place.path.clone(), version.to_string());
    Ok(CriuInfo { path, version, faults, has_lazy_pages, has_pre_dumps })
}

fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn kernel_version() -> (u32, u32) {
    let release = kernel_release();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// What to dump.
#[derive(Debug)]
pub struct DumpRequest<'a> {
    pub pid: i32,
    pub images_dir: &'a Path,
    /// Receives `dump.log`.
    pub work_dir: &'a Path,
    /// The container's root as mounted here.
    pub root: &'a Path,
    /// CRIU's `--external` words.
    pub external: Vec<String>,
    pub freeze_cgroup: Option<&'a Path>,
    pub leave_running: bool,
    /// TCP connections are not saved.
    pub tcp_close: bool,
    pub terminal: bool,
    /// What can be brought later stays in the processes, see [`memory`].
    pub lazy: bool,
    /// Images that have all memory which has not changed since, from `images_dir`; see [`predump`].
    pub parent: Option<String>,
}

/// Dumps a process tree. `begins` runs before the first process is stopped, `frozen` while the tree stands still, its images written; its error undoes the
/// dump. Blocks until the tree is gone, or runs again.
///
/// # Errors
/// The tree runs as if nothing had been tried. The cause is one sentence with CRIU's decisive words.
pub fn dump(
    place: &CriuPlace,
    request: &DumpRequest<'_>,
    begins: &mut dyn FnMut(),
    frozen: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<(), Error> {
    let images_dir = open_dir(request.images_dir)?;
    let work_dir = open_dir(request.work_dir)?;
    let mut opts = common_options(&images_dir, &work_dir, DUMP_LOG, request.root, &request.external);
    opts.int(2, request.pid as u64).bool(3, request.leave_running).bool(18, true);
    // A connection that nobody has accepted yet cannot be saved, and is no reason to save nothing.
    opts.int(35, GHOST_LIMIT_BYTES).bool(46, true).bool(50, request.terminal);
    if let Some(path) = request.freeze_cgroup {
        opts.text(44, path.as_os_str().as_bytes());
    }
    opts.bool(52, request.tcp_close);
    if let Some(parent) = &request.parent {
        // CRIU looks at what is dirty only when it is told to go on noting it.
        opts.text(14, parent.as_bytes()).bool(15, true);
    }
    // After the hook CRIU would serve the pages to all the world, with no end. At a port that is taken it cannot, and
    // lets go of the tree at once; by then that was ended in the hook, or is to run on.
    let mut taken = None;
    if request.lazy {
        let (holder, port) = take_port().map_err(|errno| system("take", "a port", errno))?;
        let mut server = Writer::default();
        server.int(2, u64::from(port));
        opts.bool(48, true).message(11, &server);
        taken = Some(holder);
    }
    let mut body = Writer::default();
    body.message(2, &opts);
    let mut conversation = Launcher::new(Path::new("/proc/self/exe"), place).start()?;
    let outcome = conversation.request(RequestType::Dump, &body, &mut |notice| match notice.phase {
        "post-dump" => frozen(),
        "pre-dump" => {
            begins();
            save_cache(place, &notice)
        }
        _ => save_cache(place, &notice),
    });
    drop(conversation);
    drop(taken);
    judge("freeze", outcome, &request.work_dir.join(DUMP_LOG)).map(|_| ())
}

/// A TCP port that nobody else can have while the socket lives, and that nobody listens at.
fn take_port() -> rustix::io::Result<(OwnedFd, u16)> {
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &any)?;
    let port = SocketAddrV4::try_from(rustix::net::getsockname(&socket)?)?.port();
    Ok((socket, port))
}

/// What to restore.
#[derive(Debug)]
pub struct RestoreRequest<'a> {
    pub images_dir: &'a Path,
    /// A mount point: the container's new root.
    pub root: &'a Path,
    /// CRIU's `--external` words.
    pub external: Vec<String>,
    pub terminal: bool,
    /// TCP connections come back closed.
    pub tcp_close: bool,
    /// Set before anything runs.
    pub hostname: Option<&'a str>,
    /// A [`pages::PageDaemon`] in the work directory brings the memory later.
    pub lazy: bool,
}

/// What stands in for descriptors that led out of the tree, by their keys in the images.
pub type StandIns = Vec<(String, OwnedFd)>;

/// A restored tree.
#[derive(Debug)]
pub struct Restored {
    /// Its root, a child of the caller.
    pub pid: i32,
    /// The master of its terminal.
    pub console: Option<OwnedFd>,
}

/// A CRIU that is to restore. Dropping it ends it.
#[derive(Debug)]
pub struct Restorer<'a> {
    launcher: Launcher<'a>,
    work: &'a Path,
    inherit: StandIns,
    begun: Option<Begun>,
}

/// A CRIU that waits to be told what to restore.
#[derive(Debug)]
struct Begun {
    conversation: Conversation,
    /// Keys of [`StandIns`], and their numbers in CRIU.
    inherit: Writer,
}

impl<'a> Restorer<'a> {
    /// One with `restore.log` to be in the directory `work`. It is started here and comes up while the caller goes on, if it
    /// will see what is mounted here meanwhile; else when it is told what to restore. The caller must be single-threaded,
    /// then, too.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        criu: &'a CriuPlace,
        home: Home<'a>,
        work: &'a Path,
        inherit: StandIns,
    ) -> Result<Restorer<'a>, Error> {
        let mut launcher = Launcher::new(Path::new("/proc/self/exe"), criu);
        launcher.home = Some(home);
        launcher.keep_reachable = Some(work);
        let mut restorer = Restorer { launcher, work, inherit, begun: None };
        if launcher::stays_here() {
            restorer.begun = Some(restorer.begin()?);
        }
        Ok(restorer)
    }

    fn begin(&self) -> Result<Begun, Error> {
        let (mut told, mut kept) = (Writer::default(), Vec::new());
        for (key, fd) in &self.inherit {
            // Without close-on-exec, and each with a number of its own: CRIU consumes them.
            let copy = rustix::io::fcntl_dupfd_cloexec(fd, 10)
                .and_then(|copy| rustix::io::fcntl_setfd(&copy, rustix::io::FdFlags::empty()).map(|()| copy))
                .map_err(|errno| system("pass", key, errno))?;
            let mut inherit = Writer::default();
            inherit.text(1, key.as_bytes()).int(2, copy.as_raw_fd() as u64);
            told.message(27, &inherit);
            kept.push(copy);
        }
        Ok(Begun { conversation: self.launcher.start()?, inherit: told })
    }

    /// Restores a process tree. `standing` runs when everything is there and stands still; its error ends it. Blocks
    /// until it runs.
    ///
    /// # Errors
    /// Nothing runs. The cause is one sentence with CRIU's decisive words.
    pub fn restore(
        mut self,
        request: &RestoreRequest<'_>,
        standing: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<Restored, Error> {
        let images_dir = open_dir(request.images_dir)?;
        let work_dir = open_dir(self.work)?;
        let mut opts = common_options(&images_dir, &work_dir, RESTORE_LOG, request.root, &request.external);
        opts.bool(26, true).bool(6, true).bool(50, request.terminal).bool(52, request.tcp_close);
        let Begun { mut conversation, inherit } = match self.begun.take() {
            Some(begun) => begun,
            None => self.begin()?,
        };
        opts.bool(48, request.lazy).append(&inherit);
        let mut body = Writer::default();
        body.message(2, &opts);
        let mut console = None;
        let place = self.launcher.place;
        let outcome = conversation.request(RequestType::Restore, &body, &mut |notice| match notice.phase {
            "orphan-pts-master" => {
                console = notice.fd;
                Ok(())
            }
            // Everything is there, and stands still.
            "post-restore" => {
                if let Some(name) = request.hostname {
                    uts::set_hostname(notice.pid, name)?;
                }
                standing()
            }
            _ => save_cache(place, &notice),
        });
        drop(conversation);
        let response = judge("thaw", outcome, &self.work.join(RESTORE_LOG))?;
        let pid = response.pid.filter(|&pid| pid > 0).ok_or_else(|| Error {
            op: "thaw".into(),
            object: "container".into(),
            cause: Cause::Refused("criu did not tell the restored process".into()),
        })?;
        Ok(Restored { pid, console })
    }
}

/// `criu_opts` of dump and restore alike.
fn common_options(images: &OwnedFd, work: &OwnedFd, log: &str, root: &Path, external: &[String]) -> Writer {
    const CG_MODE_IGNORE: u64 = 0;
    const NETWORK_LOCK_SKIP: u64 = 3;
    let mut opts = Writer::default();
    opts.int(1, images.as_raw_fd() as u64).int(17, work.as_raw_fd() as u64);
    // Level 2 names errors and warnings; 4 would write thousands of lines.
    opts.int(9, 2).text(10, log.as_bytes()).bool(12, true);
    opts.bool(4, true).bool(5, true).bool(8, true);
    opts.text(13, root.as_os_str().as_bytes());
    opts.bool(24, true).int(34, CG_MODE_IGNORE).int(64, NETWORK_LOCK_SKIP);
    for word in external {
        opts.text(37, word.as_bytes());
    }
    opts
}

/// CRIU's verdict; an error of ours that made it give up comes first.
fn judge(op: &str, outcome: Result<(Response, Option<Error>), Error>, log: &Path) -> Result<Response, Error> {
    let failed =
        |reason: String| Error { op: op.into(), object: "container".into(), cause: Cause::Refused(reason) };
    match outcome {
        Ok((_, Some(ours))) => Err(ours),
        Ok((response, None)) if response.success => Ok(response),
        Ok((response, None)) => {
            let text = fault::explain(&read_log(log));
            let says_more = !response.message.is_empty() && !fault::is_noise(&response.message);
            if fault::decisive(&read_log(log)).is_empty() && says_more {
                return Err(failed(format!("{text}: {}", response.message.trim())));
            }
            Err(failed(text))
        }
        Err(error) => {
            // A CRIU that died may still have said why.
            let log = read_log(log);
            let known = !fault::decisive(&log).is_empty();
            let said = if known { format!("{}; ", fault::explain(&log)) } else { String::new() };
            Err(failed(format!("{said}{error}")))
        }
    }
}

/// Keeps the end of a log, a quarter of a mebibyte of it at most, readable by root alone. One that is not there, or
/// cannot be kept, is no matter: it is about a failure that is told anyway.
pub fn keep_log(from: &Path, to: &Path) {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    const MOST: usize = 256 << 10;
    let Ok(bytes) = std::fs::read(from) else { return };
    let end = &bytes[bytes.len().saturating_sub(MOST)..];
    if let Some(dir) = to.parent().filter(|_| !end.is_empty()) {
        let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
        let _ = file.and_then(|mut file| io::Write::write_all(&mut file, end));
    }
}

fn read_log(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn open_dir(path: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| system("open directory", &path.display().to_string(), errno))
}

fn system(op: &str, object: &str, errno: rustix::io::Errno) -> Error {
    Error { op: op.into(), object: object.into(), cause: Cause::Io(errno.into()) }
}

/// The cached features are for this boot's kernel and this CRIU.
fn cache_file(place: &CriuPlace) -> Option<PathBuf> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let program = std::fs::metadata(&place.path).ok()?;
    use std::os::unix::fs::MetadataExt;
    let name = format!("kdat-{}-{:x}-{:x}-{:x}", boot.trim(), program.dev(), program.ino(), program.mtime());
    Some(place.cache_dir.join(name))
}

/// Saves CRIU's feature cache once it has written one. Failing only costs time, later.
fn save_cache(place: &CriuPlace, notice: &Notice<'_>) -> Result<(), Error> {
    let from = format!("/proc/{}/root/run/criu.kdat", notice.criu_pid);
    let saved = cache_file(place).filter(|to| !to.exists()).and_then(|to| {
        let bytes = std::fs::read(from).ok().filter(|bytes| !bytes.is_empty())?;
        std::fs::create_dir_all(&place.cache_dir).ok()?;
        // Another shim may do the same: a whole file appears under the name, or none.
        let partial = to.with_extension(format!("{}.partial", std::process::id()));
        std::fs::write(&partial, bytes).ok()?;
        std::fs::rename(&partial, to).ok()
    });
    if saved.is_some() {
        ::log::debug!("saved criu's kernel features");
    }
    Ok(())
}
