//! Dump and thaw as the shim does them: what of a container is outside of its process tree, and where it goes.
//!
//! ```text
//!  dump dir          from                                         back, on a thaw
//!  images/           CRIU                                         CRIU
//!  memory/N/         CRIU, while the processes ran                CRIU, where `images/` says that it has not changed
//!  rootfs.tar        the overlay's upper, while frozen            the daemon, before it asks for a thaw
//!  shm.tar           /dev/shm, while frozen                       a fresh tmpfs, unpacked
//!  tmpfs-N.tar       any other tmpfs, while frozen                the same
//!  volumes/NAME.tar  volumes the daemon names, while frozen       the daemon, before it asks for a thaw
//!  mounts.json       the mounts CRIU is told are external         a source for each
//!  descriptors.json  what fds 0, 1, 2 were                        new pipes under the old keys
//!  dump.log          CRIU
//!  dump.json         says that all of it is there: for a daemon that was not when it was written
//! ```
//!
//! External for CRIU are: every bind mount from the host, volumes among them (any source may take its place), every tmpfs (CRIU would run GNU tar for it), and the network namespace (the daemon's). Masks bound
//! from the container's own /dev/null, proc, sysfs, devpts, mqueue and cgroup mounts CRIU restores itself.
//!
//! Processes of an exec are not in the tree: they go on with `leave_running`, and end with the container
//! without it.
//!
//! Limits: input the process had not read from its stdin pipe at the dump is lost on a thaw; the minimal init
//! of `--init` is the dewar binary, so such a container thaws only under the build that froze it.
//!
//! A failed dump leaves the container running: CRIU undoes what it did, and that is checked here.
//!
//! Stays whole: dump and thaw mirror each other step by step.

pub mod adopt;
mod dev;
pub mod release;
mod stage;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufWriter;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use self::stage::Stage;
use super::gate::{Decision, Gate};
use super::protocol::CriuPlace;
use super::stdio::{CHUNK_BYTES, Ends, Stdio};
use super::{Container, Pipes, failed, has_namespace, plumb_pipes, refused};
use crate::runtime::cgroup::Cgroup;
use crate::runtime::criu::check::{self, Examination, Obstacle};
use crate::runtime::criu::pages::PageDaemon;
use crate::runtime::criu::{self, DumpRequest, Home, NETNS_KEY, RestoreRequest, Restorer, StandIns, stream};
use crate::runtime::init::Trees;
use crate::runtime::mounts::{self, Mounted};
use crate::runtime::spec::{Mount, NamespaceKind, Spec};
use crate::runtime::sys::process::pidfd_open;
use crate::runtime::{Cause, Dump, Error, Launch, Thaw, layer, netns, plan, rootfs};

/// Written last: what a dump without it lacks is not known.
pub const WHOLE: &str = "dump.json";

#[derive(Debug, Serialize, Deserialize)]
struct Whole {
    version: u32,
}

/// `mounts.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Mounts {
    /// Counts up when the meaning changes.
    version: u32,
    mounts: Vec<External>,
}

/// A mount that CRIU takes from us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct External {
    destination: String,
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Kind {
    /// From the host: `below` is the path under the spec's mount, for a mount that came along recursively.
    Bind { mount: String, below: String },
    /// A tmpfs: its options, and its content unless that is made anew.
    Tmpfs { options: String, archive: Option<String> },
    /// The tmpfs on /dev: its nodes are made anew.
    Dev { options: String },
    /// A mask on a file: the container's own /dev/null. The destination is a key, not a path.
    Null,
    /// The container's cgroup, or on v1 the tmpfs that holds a mount for each controller: `below` is the
    /// path under the spec's mount.
    Cgroup { below: String },
}

fn is_bind(mount: &Mount) -> bool {
    mount.kind == "bind" || mount.options.iter().any(|option| option == "bind" || option == "rbind")
}

fn is_cgroup(mount: &Mount) -> bool {
    mount.kind == "cgroup" || mount.kind == "cgroup2"
}

/// The spec as init has it: with the minimal init's program, which is this binary.
fn effective_spec(launch: &Launch) -> Result<Spec, Error> {
    const REAPER: &str = "/sbin/docker-init";
    let mut spec = launch.spec.clone();
    if launch.reaper && spec.mounts.iter().all(|mount| mount.destination != REAPER) {
        let own = std::env::current_exe().map_err(|error| failed("find", "our own program", error))?;
        spec.mounts.push(Mount {
            destination: REAPER.to_owned(),
            kind: "bind".to_owned(),
            source: own.display().to_string(),
            options: vec!["bind".to_owned()],
        });
    }
    Ok(spec)
}

/// Which of the container's mounts are external.
fn externals(mounted: &[Mounted], spec: &Spec) -> Vec<External> {
    let mut found: Vec<External> = Vec::new();
    let masked: BTreeSet<&str> = spec.linux.masked_paths.iter().map(String::as_str).collect();
    let mut archives = 0;
    for mount in mounted {
        let destination = mount.destination.as_str();
        // The spec's mount it is, or came along with: the one nearest to it.
        let from = spec
            .mounts
            .iter()
            .filter(|from| Path::new(destination).starts_with(&from.destination))
            .max_by_key(|from| from.destination.len());
        let own_tmpfs = mount.kind == "tmpfs" && mount.root == "/";
        let kind = match from {
            _ if destination == "/" => continue,
            // What the kernel's own file systems have below them is masks and read-only binds of themselves.
            Some(from) if is_bind(from) => Kind::Bind {
                mount: from.destination.clone(),
                below: destination[from.destination.len()..].trim_start_matches('/').to_owned(),
            },
            Some(from) if is_cgroup(from) => Kind::Cgroup {
                below: destination[from.destination.len()..].trim_start_matches('/').to_owned(),
            },
            _ if !own_tmpfs => continue,
            _ if destination == "/dev" => Kind::Dev { options: tmpfs_options(&mount.options) },
            _ if masked.contains(destination) => {
                Kind::Tmpfs { options: tmpfs_options(&mount.options), archive: None }
            }
            _ => {
                let archive = if destination == "/dev/shm" {
                    "shm.tar".to_owned()
                } else {
                    archives += 1;
                    format!("tmpfs-{archives}.tar")
                };
                Kind::Tmpfs { options: tmpfs_options(&mount.options), archive: Some(archive) }
            }
        };
        // Of two on one another the upper one is seen.
        found.retain(|known| known.destination != destination);
        found.push(External { destination: destination.to_owned(), kind });
    }
    found
}

/// Whether a path is another, or below it.
fn is_within(path: &str, other: &str) -> bool {
    Path::new(path).starts_with(other)
}

/// Options of the superblock that a new tmpfs takes; mountinfo's `ro` and `rw` are the mount's affair.
fn tmpfs_options(options: &str) -> String {
    let takes = ["size=", "nr_inodes=", "mode=", "uid=", "gid="];
    let kept = options.split(',').filter(|option| takes.iter().any(|key| option.starts_with(key)));
    kept.collect::<Vec<_>>().join(",")
}

/// Dumps a running container.
pub(super) fn dump(
    container: &mut Container,
    stdio: &mut Stdio,
    (dump, gate): (&Dump, Option<&Gate>),
    has_execs: bool,
    criu: &CriuPlace,
) -> Result<(), Error> {
    let dir = dump.dir.as_path();
    let pid = container.pid;
    check_runtime(&container.launch)?;
    let spec = &effective_spec(&container.launch)?;
    check_namespaces(spec)?;
    if container.paused {
        // CRIU freezes by itself, and would thaw what was to stay paused.
        return Err(refused("freeze", "container", "it is paused"));
    }
    if container.pages.is_some() {
        return Err(refused("freeze", "container", "its memory is still coming from the last checkpoint"));
    }
    if dump.streamed && container.launch.stdio.terminal {
        return Err(refused("freeze", "container", "it has a terminal, which criu cannot stream"));
    }
    let path = format!("/proc/{pid}/mountinfo");
    let text = std::fs::read_to_string(&path).map_err(|error| failed("read", &path, error))?;
    let mounts = Mounts { version: 1, mounts: externals(&mounts::parse(&text), spec) };
    let images_dir = dir.join("images");
    if !dump.streamed {
        std::fs::create_dir(&images_dir).map_err(|error| failed("make", &images_dir, error))?;
    }
    for parent in dump.volumes.iter().filter_map(|volume| Path::new(&volume.file).parent()) {
        let parent = dir.join(parent);
        std::fs::create_dir_all(&parent).map_err(|error| failed("make", &parent, error))?;
    }
    save(&dir.join("mounts.json"), &mounts)?;
    save(&dir.join("descriptors.json"), &descriptors(stdio))?;

    let mut external: Vec<String> =
        mounts.mounts.iter().map(|mount| format!("mnt[{0}]:{0}", mount.destination)).collect();
    if netns_path(spec).is_some() {
        let path = format!("/proc/{pid}/ns/net");
        let netns = std::fs::metadata(&path).map_err(|error| failed("look at", &path, error))?;
        external.push(format!("net[{}]:{NETNS_KEY}", netns.ino()));
    }
    let root = container.launch.run_dir.join(super::ROOTFS);
    // CRIU stops the tree by ptrace; the freezer is only for what is beside the tree and could write while the
    // filesystem is saved. With it CRIU looks for the frozen state every 100 ms, which a shell's dump never
    // meets at the first look.
    let freeze_cgroup = if has_execs { container.cgroup.freezer_path() } else { None };
    let request = DumpRequest {
        pid,
        images_dir: &images_dir,
        work_dir: dir,
        root: &root,
        external,
        freeze_cgroup: freeze_cgroup.as_deref(),
        leave_running: dump.leave_running,
        tcp_close: dump.tcp_close,
        terminal: container.launch.stdio.terminal,
        lazy: dump.lazy,
        parent: (dump.pre_dumps > 0).then(|| criu::predump::parent_of_images(dump.pre_dumps)),
    };
    // Under whatever name the daemon gives it meanwhile.
    let images = File::open(&images_dir).map_err(|error| failed("open", &images_dir, error))?;
    let held = PathBuf::from(format!("/proc/self/fd/{}", images.as_raw_fd()));
    let upper = &container.launch.overlay.upper;
    let (cgroup, mut is_given, mut unwritten) = (&container.cgroup, false, None);
    let mut begins = || gate.iter().for_each(|gate| gate.announce());
    let mut files = dump.streamed.then(|| stream::Files::connect(dir)).transpose()?;
    let mut archive = |name: &str, pack: &dyn Fn(&mut BufWriter<File>) -> Result<(), Error>| match &mut files
    {
        Some(files) => pack_into(Path::new(name), files.create(name)?, pack),
        None => {
            let path = dir.join(name);
            let file = File::create(&path).map_err(|error| failed("write", &path, error))?;
            pack_into(&path, file, pack)
        }
    };
    let run = if dump.streamed { stream::dump } else { criu::dump };
    let outcome = run(criu, &request, &mut begins, &mut || {
        if !dump.without_layer {
            archive("rootfs.tar", &|out| layer::pack(upper, out).map(|_| ()))?;
        }
        for volume in &dump.volumes {
            archive(&volume.file, &|out| layer::pack_plain(&volume.from, out).map(|_| ()))?;
        }
        for mount in &mounts.mounts {
            if let Kind::Tmpfs { archive: Some(name), .. } = &mount.kind {
                let from = PathBuf::from(format!("/proc/{pid}/root{}", mount.destination));
                archive(name, &|out| layer::pack_plain(&from, out).map(|_| ()))?;
            }
        }
        let Some(gate) = gate else { return Ok(()) };
        if !dump.streamed {
            save(&dir.join(WHOLE), &Whole { version: 1 })?;
        }
        // A CRIU that dies while this waits lets its hold go.
        cgroup.freeze()?;
        // What it has said goes where its log goes.
        stdio.drain_frozen(&mut [0; CHUNK_BYTES]);
        let decision = gate.wait();
        is_given = decision != Decision::No;
        if is_given {
            let written = match decision {
                // Nobody may let it run here, whether that succeeds or not.
                Decision::Write if dump.lazy => {
                    cgroup.pids().and_then(|pids| criu::memory::write_out(&held, &pids))
                }
                _ => Ok(()),
            };
            unwritten = written.err();
            return cgroup.kill_all();
        }
        cgroup.thaw()?;
        if dump.leave_running {
            return Ok(());
        }
        Err(refused("hand over", "container", "it was called off"))
    });
    if is_given {
        // Nothing of it runs any more, whatever CRIU has to say about its end.
        return unwritten.map_or(Ok(()), Err);
    }
    if let Err(error) = outcome {
        // A CRIU that died half-way leaves the freezer as it was.
        container.cgroup.thaw()?;
        if let Some(pidfd) = &container.pidfd {
            // A process that CRIU died inside of goes on for a moment.
            let moment = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            let _ = rustix::event::poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&moment));
        }
        return Err(match left_behind(pid) {
            Some(state) => Error {
                cause: Cause::Refused(format!("{}; and afterwards the container is {state}", error.cause)),
                ..error
            },
            None => error,
        });
    }
    if dump.streamed {
        // What is in the directory is no checkpoint.
        return Ok(());
    }
    save(&dir.join(WHOLE), &Whole { version: 1 })
}

/// What of a running container stands in the way of a dump, and what a dump would lose; looked at from outside, while
/// it goes on. Blocks for as long as reading /proc takes.
///
/// # Errors
/// It has ended, or /proc cannot be read.
pub fn examine(launch: &Launch, pid: i32) -> Result<Examination, Error> {
    let spec = effective_spec(launch)?;
    let path = format!("/proc/{pid}/mountinfo");
    let text = std::fs::read_to_string(&path).map_err(|error| failed("read", &path, error))?;
    let external = externals(&mounts::parse(&text), &spec).into_iter().map(|mount| mount.destination);
    let beside = Cgroup::open(&spec.linux.cgroups_path)?.pids()?;
    let mut found = check::examine(pid, &external.collect(), &beside)?;
    for error in [check_runtime(launch), check_namespaces(&spec)].into_iter().filter_map(Result::err) {
        let remedy = "create the container without what it shares, or with the built-in runtime";
        found.obstacles.insert(0, Obstacle::of_container(error.cause.to_string(), remedy));
    }
    if has_pages_to_come(pid) {
        found.obstacles.insert(
            0,
            Obstacle::of_container(
                "its memory is still coming from the last checkpoint",
                "wait until a lazy restore has brought it all",
            ),
        );
    }
    Ok(found)
}

/// Whether the shim of a container's first process has a page daemon.
pub fn has_pages_to_come(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
    shim.is_some_and(|shim| {
        check::children(shim).into_iter().any(|child| {
            let words = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).any(|word| word == b"lazy-pages")
        })
    })
}

/// What a failed dump did to a process; `None` when it runs as before.
fn left_behind(pid: i32) -> Option<&'static str> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    match (field("State:"), field("TracerPid:")) {
        (None, _) => Some("gone"),
        (Some(state), _) if state.starts_with(['Z', 'X']) => Some("dead"),
        (_, Some(tracer)) if tracer != "0" => Some("still traced"),
        _ => None,
    }
}

/// Another runtime's container is not ours to take apart, and a thawed one would be unknown to it.
fn check_runtime(launch: &Launch) -> Result<(), Error> {
    match &launch.oci {
        None => Ok(()),
        Some(runtime) => {
            let reason =
                format!("runtime {:?} does not support it, only the built-in one does", runtime.name);
            Err(refused("freeze", "container", &reason))
        }
    }
}

/// Refuses what CRIU cannot restore, in words about the container.
fn check_namespaces(spec: &Spec) -> Result<(), Error> {
    if !has_namespace(spec, NamespaceKind::Pid) {
        return Err(refused("freeze", "container", "it shares the host's process ids (--pid host)"));
    }
    for namespace in &spec.linux.namespaces {
        let foreign = namespace.path.is_some() && namespace.kind != NamespaceKind::Network;
        if foreign {
            let reason = format!("it shares the {:?} namespace of another container", namespace.kind);
            return Err(refused("freeze", "container", &reason.to_lowercase()));
        }
    }
    Ok(())
}

fn netns_path(spec: &Spec) -> Option<&str> {
    let network = spec.linux.namespaces.iter().find(|namespace| namespace.kind == NamespaceKind::Network);
    network.and_then(|namespace| namespace.path.as_deref())
}

/// The keys of fds 0, 1, 2 as CRIU sees them: of our pipes the inode, which both ends share.
fn descriptors(stdio: &Stdio) -> [String; 3] {
    let elsewhere = if stdio.console().is_some() { "/dev/console" } else { "/dev/null" };
    stdio.pipes().map(|end| match end.map(rustix::fs::fstat) {
        Some(Ok(stat)) => format!("pipe:[{}]", stat.st_ino),
        _ => elsewhere.to_owned(),
    })
}

fn save(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let text =
        serde_json::to_vec(value).map_err(|error| failed("write", path, std::io::Error::from(error)))?;
    std::fs::write(path, text).map_err(|error| failed("write", path, error))
}

fn load<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, Error> {
    let text = std::fs::read(path).map_err(|error| failed("read", path, error))?;
    serde_json::from_slice(&text).map_err(|error| failed("read", path, Cause::Refused(error.to_string())))
}

/// Packs into a file, or into a pipe that stands for one.
fn pack_into(
    path: &Path,
    file: File,
    pack: &dyn Fn(&mut BufWriter<File>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut out = BufWriter::with_capacity(64 * 1024, file);
    pack(&mut out)?;
    std::io::Write::flush(&mut out).map_err(|error| failed("write", path, error))
}

/// Brings a container back from `thaw.dir` instead of starting its command. The checkpoint's writable layer is in the
/// overlay already, which is mounted here at `root`.
pub(super) fn thaw(
    launch: Launch,
    root: &Path,
    mut trees: Trees,
    (thaw, gate): (&Thaw, Option<Gate>),
    criu: &CriuPlace,
    stdio: &mut Stdio,
) -> Result<Container, Error> {
    let dir = thaw.dir.as_path();
    check_runtime(&launch)?;
    let spec = &effective_spec(&launch)?;
    check_namespaces(spec)?;
    let mounts: Mounts = load(&dir.join("mounts.json"))?;
    if mounts.version != 1 {
        return Err(failed("read", dir.join("mounts.json"), Cause::Refused("a later dewar wrote it".into())));
    }
    let keys: Vec<String> = load(&dir.join("descriptors.json"))?;
    let cgroup = Cgroup::open(&spec.linux.cgroups_path)?;
    let mut begin = || -> Result<(i32, OwnedFd, Ends, Option<PageDaemon>), Error> {
        let (inherit, ends) = stand_ins(&launch, &keys)?;
        // Its program comes up while the rest is got ready.
        let home = Home { cgroup: &cgroup, has_namespace: has_namespace(spec, NamespaceKind::Cgroup) };
        let restorer = Restorer::start(criu, home, &launch.run_dir, inherit)?;
        rootfs::mount(&launch.overlay, root)?;
        let mut stage = Stage::new(&launch.run_dir)?;
        let external = stage.fill(&mounts.mounts, spec, dir, &mut trees)?;
        let images = dir.join("images");
        let asks = thaw.asks.as_ref().map(|asks| asks.try_clone()).transpose();
        let asks = asks.map_err(|error| failed("copy", "the socket for memory", error))?;
        if asks.is_none() && !criu::memory::is_whole(&images)? {
            let reason = "its memory is not in it: that was to be sent from where the container came from";
            return Err(refused("thaw", "checkpoint", reason));
        }
        let mut pages = match thaw.lazy {
            true => Some(PageDaemon::start(criu, &images, &launch.run_dir, asks)?),
            false => None,
        };
        let request = RestoreRequest {
            images_dir: &images,
            root,
            external,
            terminal: launch.stdio.terminal,
            tcp_close: thaw.tcp_close,
            hostname: thaw.hostname.as_deref(),
            lazy: thaw.lazy,
        };
        let restored = restorer.restore(&request, &mut || match &gate {
            Some(gate) if gate.wait() != Decision::Go => {
                Err(refused("hand over", "container", "it was called off"))
            }
            _ => Ok(()),
        })?;
        if let Some(pages) = &mut pages {
            pages.hold();
        }
        let pidfd = pidfd_open(restored.pid).map_err(|error| failed("watch", "the thawed process", error))?;
        let ends = match (ends, restored.console) {
            (Some(ends), _) => ends,
            (None, Some(master)) => {
                rustix::io::ioctl_fionbio(&master, true)
                    .map_err(|errno| failed("use", "the terminal", errno))?;
                Ends::Console(master)
            }
            (None, None) => return Err(refused("use", "the terminal", "criu gave none back")),
        };
        Ok((restored.pid, pidfd, ends, pages))
    };
    match begin() {
        Ok((pid, pidfd, ends, pages)) => {
            stdio.connect(ends);
            let mut container = Container::new(launch, cgroup, pid, pidfd);
            container.pages = pages;
            Ok(container)
        }
        Err(error) => {
            let _ = cgroup.kill_all();
            let _ = cgroup.remove();
            Err(error)
        }
    }
}

/// What leads out of a tree that is to be thawed, by the keys it had: the network namespace, and pipes for its
/// streams, with our ends of those. None of a terminal's, which CRIU makes.
fn stand_ins(launch: &Launch, keys: &[String]) -> Result<(StandIns, Option<Ends>), Error> {
    let mut inherit = StandIns::new();
    if let Some(path) = netns_path(&launch.spec) {
        let netns = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        inherit.push((NETNS_KEY.to_owned(), netns.map_err(|errno| failed("open", path, errno))?));
        set_sysctls(Path::new(path), &launch.spec)?;
    }
    if launch.stdio.terminal {
        return Ok((inherit, None));
    }
    let is_pipe = |key: &String| key.starts_with("pipe:[");
    let Pipes { stdin, stdout, stderr, ends } = plumb_pipes(keys.first().is_some_and(is_pipe))?;
    for (key, end) in keys.iter().zip([stdin, Some(stdout), Some(stderr)]) {
        if let Some(end) = end.filter(|_| is_pipe(key)) {
            inherit.push((key.clone(), end));
        }
    }
    Ok((inherit, Some(ends)))
}

/// Gives the network namespace, a new one that CRIU leaves as it is, the settings that the container asks for.
fn set_sysctls(path: &Path, spec: &Spec) -> Result<(), Error> {
    let settings: Vec<_> = spec.linux.sysctl.iter().filter(|(name, _)| name.starts_with("net.")).collect();
    if settings.is_empty() {
        return Ok(());
    }
    let set = netns::within(path, || {
        settings.iter().try_for_each(|(name, value)| {
            let path = Path::new("/proc/sys").join(plan::sysctl_path(name));
            std::fs::write(path, value.as_bytes())
        })
    });
    set.map_err(|error| failed("set the sysctls of", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
519 484 0:45 / / rw,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
520 519 0:48 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
521 519 0:49 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755,inode64
522 521 0:50 / /dev/pts rw,nosuid,noexec,relatime - devpts devpts rw,gid=5,mode=620,ptmxmode=666
523 521 0:51 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k
524 519 254:1 /var/lib/c/hosts /etc/hosts rw,relatime - ext4 /dev/vda1 rw
525 519 254:1 /srv/my\\040data /data rw,relatime - ext4 /dev/vda1 rw
526 525 0:60 / /data/sub rw,relatime - tmpfs tmpfs rw
527 520 0:49 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
528 520 0:61 / /proc/acpi ro,relatime - tmpfs tmpfs ro
529 519 0:62 / /tmp rw - tmpfs tmpfs rw,size=1024k,mode=1777
530 521 0:50 /0 /dev/console rw,nosuid,noexec,relatime - devpts devpts rw,gid=5,mode=620
";

    fn spec() -> Spec {
        let mount = |destination: &str, kind: &str, source: &str| Mount {
            destination: destination.into(),
            kind: kind.into(),
            source: source.into(),
            options: if kind == "bind" { vec!["rbind".into()] } else { vec![] },
        };
        let mut spec = Spec {
            mounts: vec![
                mount("/proc", "proc", "proc"),
                mount("/dev", "tmpfs", "tmpfs"),
                mount("/dev/pts", "devpts", "devpts"),
                mount("/dev/shm", "tmpfs", "shm"),
                mount("/etc/hosts", "bind", "/var/lib/c/hosts"),
                mount("/data", "bind", "/srv/my data"),
                mount("/tmp", "tmpfs", "tmpfs"),
            ],
            ..Spec::default()
        };
        spec.linux.masked_paths = vec!["/proc/kcore".into(), "/proc/acpi".into()];
        spec
    }

    #[test]
    fn external_is_what_comes_from_outside_and_every_tmpfs() {
        let found = externals(&mounts::parse(MOUNTINFO), &spec());
        let tmpfs = |options: &str, archive: Option<&str>| Kind::Tmpfs {
            options: options.into(),
            archive: archive.map(str::to_owned),
        };
        let bind = |mount: &str, below: &str| Kind::Bind { mount: mount.into(), below: below.into() };
        let expected = [
            ("/dev", Kind::Dev { options: "size=65536k,mode=755".into() }),
            ("/dev/shm", tmpfs("size=65536k", Some("shm.tar"))),
            ("/etc/hosts", bind("/etc/hosts", "")),
            ("/data", bind("/data", "")),
            ("/data/sub", bind("/data", "sub")),
            ("/proc/acpi", tmpfs("", None)),
            ("/tmp", tmpfs("size=1024k,mode=1777", Some("tmpfs-1.tar"))),
        ];
        let expected: Vec<_> =
            expected.map(|(d, kind)| External { destination: d.into(), kind }).into_iter().collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_mounts_file_round_trips() {
        let mounts = Mounts { version: 1, mounts: externals(&mounts::parse(MOUNTINFO), &spec()) };
        let text = serde_json::to_string(&mounts).unwrap();
        let back: Mounts = serde_json::from_str(&text).unwrap();
        assert_eq!(back.mounts, mounts.mounts);
    }
}
