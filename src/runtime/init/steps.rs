//! Carrying out a plan: each [`Step`] is a few system calls on descriptors below the container's root.
//!
//! Runs in the new process, in its own mount namespace, before pivot_root: the host's /proc and the sources
//! of binds are still there, and every path of the container goes through [`Root`]. File systems are made
//! and trees cloned detached, given their attributes while nobody can see them, and then attached to a
//! descriptor; no path of the image is ever named to mount(2).
//!
//! Needs Linux 5.12 (mount_setattr).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::report;
use super::root::{self, Kind, Root};
use crate::runtime::plan::{self, Binding, Options, Plan, Propagation, Step};
use crate::runtime::spec::{ConsoleSize, Device, Spec};
use crate::runtime::sys::mount::{self, Attributes, Reach};
use crate::runtime::sys::process;
use crate::runtime::{Cause, Error, cgroup, console, devices};

/// A container's file systems while they are being put together.
pub struct Assembly<'a> {
    /// Where the host mounted the root.
    rootfs: &'a Path,
    root: Root,
    console_size: Option<ConsoleSize>,
    cgroup_path: &'a str,
    cgroup_namespace: cgroup::Namespace,
    /// Where the pty's master goes.
    report: BorrowedFd<'a>,
    /// The pty's other end, once there is one.
    pub terminal: Option<OwnedFd>,
    /// An attached empty directory, to show in place of masked ones.
    empty: Option<OwnedFd>,
    borrowed: &'a Borrowed,
    /// The sources that were opened before.
    trees: Trees,
}

/// Sources of binds by their destinations, cloned where their mounts still have their peers.
pub type Trees = BTreeMap<PathBuf, OwnedFd>;

/// Clones the sources of the binds whose mounts are to reach the host. To be called in the host's mount
/// namespace: in a slave of it a copy is a slave too, which hears of the host's mounts and is not heard.
///
/// # Errors
/// The source that cannot be opened, by name.
pub fn open_shared(plan: &Plan) -> Result<Trees, Error> {
    let mut trees = Trees::new();
    for step in &plan.steps {
        if let Step::Bind { source, target, options } = step
            && options.propagation.last().is_some_and(|word| word.is_shared())
        {
            trees.insert(target.clone(), open_source(source, options)?);
        }
    }
    Ok(trees)
}

/// A detached copy of what a bind shows.
pub fn open_source(source: &Path, options: &Options) -> Result<OwnedFd, Error> {
    let flags = clone_flags(options.binding);
    if options.below.as_os_str().is_empty() {
        return rustix::mount::open_tree(CWD, source, flags)
            .map_err(|errno| failed("open the bind source", source, errno.into()));
    }
    let object = source.join(&options.below);
    let open = || -> rustix::io::Result<OwnedFd> {
        let below = root::open_below(source, &options.below)?;
        rustix::mount::open_tree(&below, "", flags | OpenTreeFlags::AT_EMPTY_PATH)
    };
    open().map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP => Error {
            op: "open the bind source".to_owned(),
            object: object.display().to_string(),
            cause: Cause::Refused(match errno {
                Errno::XDEV => "path escapes from the volume".to_owned(),
                errno => io::Error::from(errno).to_string(),
            }),
        },
        errno => failed("open the bind source", &object, errno.into()),
    })
}

/// Mounts of other containers to be shown in this one, by the bind's source.
pub type Borrowed = BTreeMap<PathBuf, OwnedFd>;

impl<'a> Assembly<'a> {
    /// Opens `rootfs`, a directory that is a mount.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn new(
        spec: &'a Spec,
        rootfs: &'a Path,
        report: BorrowedFd<'a>,
        borrowed: &'a Borrowed,
        trees: Trees,
    ) -> Result<Self, Error> {
        let private = plan::owns(spec, crate::runtime::spec::NamespaceKind::Cgroup);
        Ok(Assembly {
            rootfs,
            root: Root::open(rootfs).map_err(|cause| failed("open", rootfs, cause))?,
            console_size: spec.process.console_size,
            cgroup_path: &spec.linux.cgroups_path,
            cgroup_namespace: if private { cgroup::Namespace::Private } else { cgroup::Namespace::Host },
            report,
            terminal: None,
            empty: None,
            borrowed,
            trees,
        })
    }

    /// The container's root.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Carries the steps out, in order.
    ///
    /// # Errors
    /// The first step that fails, by name.
    pub fn run(&mut self, plan: &Plan) -> Result<(), Error> {
        plan.steps.iter().try_for_each(|step| self.step(step))
    }

    fn step(&mut self, step: &Step) -> Result<(), Error> {
        let text = |name: &str| PathBuf::from(name);
        match step {
            Step::Propagate { propagation } => {
                self.propagate(*propagation).map_err(|cause| failed("set the propagation of", "/", cause))
            }
            Step::Hostname { name } => rustix::system::sethostname(name.as_bytes())
                .map_err(|errno| failed("set the host name", text(name), errno.into())),
            Step::Domainname { name } => rustix::system::setdomainname(name.as_bytes())
                .map_err(|errno| failed("set the domain name", text(name), errno.into())),
            // Which parameters there are, and what fits them, only the kernel knows.
            Step::Sysctl { name, value } => {
                fs::write(Path::new("/proc/sys").join(plan::sysctl_path(name)), value)
                    .map_err(|cause| refused("set the sysctl", Path::new(name), &cause.to_string()))
            }
            Step::Mount { kind, source, target, options } => {
                self.mount(kind, source, target, options).map_err(|cause| {
                    let op = format!("mount {kind} on");
                    match cause.raw_os_error() {
                        Some(libc::EINVAL) if kind == "tmpfs" => {
                            refused(&op, target, &format!("invalid options: {options}"))
                        }
                        _ => failed(&op, target, cause),
                    }
                })
            }
            Step::Bind { source, target, options } => self.bind(source, target, options),
            Step::Cgroups { target, options } => self.cgroups(target, options),
            Step::Node { device } => {
                self.node(device).map_err(|cause| failed("make the device", text(&device.path), cause))
            }
            Step::Symlink { path, target, only_if_target_exists } => self
                .link(path, target, *only_if_target_exists)
                .map_err(|cause| failed("make the link", path, cause)),
            Step::Console { path } => {
                self.console(path).map_err(|cause| failed("make the console", path, cause))
            }
            Step::Mask { path } => self.mask(path).map_err(|cause| failed("mask", path, cause)),
            Step::ReadonlyPath { path } => {
                self.seal_path(path).map_err(|cause| failed("make read-only", path, cause))
            }
            Step::ReadonlyMount { path } => {
                self.seal_mount(path).map_err(|cause| failed("make read-only", path, cause))
            }
            Step::PivotRoot => self.pivot().map_err(|cause| failed("pivot_root to", self.rootfs, cause)),
            Step::PropagateRoot { propagation } => rustix::mount::mount_change("/", flags(*propagation))
                .map_err(|errno| failed("set the propagation of", "/", errno.into())),
        }
    }

    fn propagate(&mut self, propagation: Propagation) -> io::Result<()> {
        rustix::mount::mount_change("/", flags(propagation))?;
        if propagation.is_shared() {
            // pivot_root refuses a new root whose parent mount is shared: let its parent be itself.
            rustix::mount::mount_change(self.rootfs, MountPropagationFlags::PRIVATE)?;
            let tree = rustix::mount::open_tree(CWD, self.rootfs, clone_flags(Binding::Tree))?;
            rustix::mount::move_mount(&tree, "", CWD, self.rootfs, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
            self.root = Root::open(self.rootfs)?;
        }
        Ok(())
    }

    fn mount(&self, kind: &str, source: &str, target: &Path, options: &Options) -> io::Result<()> {
        let target = self.root.make(target, Kind::Directory).and_then(|found| match kind {
            // A link would let the image choose which of its files answer as /proc.
            "proc" | "sysfs" => self.root.find_plain(target),
            _ => Ok(found),
        })?;
        let tree = new_filesystem(kind, source, options)?;
        attach(&tree, &target)
    }

    fn bind(&mut self, source: &Path, target: &Path, options: &Options) -> Result<(), Error> {
        let borrowed = self.borrowed;
        let opened;
        let tree = match (borrowed.get(source), self.trees.remove(target)) {
            (Some(tree), _) => tree,
            (None, tree) => {
                opened = tree.map_or_else(|| open_source(source, options), Ok)?;
                &opened
            }
        };
        let shown = root::identify(tree).map_err(|cause| failed("look at", source, cause))?.0;
        let kind = if shown == FileType::Directory { Kind::Directory } else { Kind::File };
        let attached = || -> io::Result<bool> {
            let place = self.root.make(target, kind)?;
            let fits = (root::identify(&place)?.0 == FileType::Directory) == (kind == Kind::Directory);
            if fits {
                decorate(tree, options)?;
                attach(tree, &place)?;
            }
            Ok(fits)
        };
        let hint = "are you trying to mount a directory onto a file (or vice-versa)?";
        match attached() {
            Ok(true) => Ok(()),
            Ok(false) => Err(refused("mount on", target, hint)),
            Err(cause) => Err(failed("mount on", target, cause)),
        }
    }

    fn cgroups(&mut self, target: &Path, options: &Options) -> Result<(), Error> {
        let writable = options.attributes & libc::MOUNT_ATTR_RDONLY == 0;
        let view = cgroup::view(self.cgroup_path, self.cgroup_namespace, writable)?;
        let moved = |path: &str| {
            let below = Path::new(path).strip_prefix(cgroup::ROOT).unwrap_or(Path::new(""));
            if below.as_os_str().is_empty() { target.to_owned() } else { target.join(below) }
        };
        for mount in &view.mounts {
            let target = moved(&mount.destination);
            let mut options =
                Options::parse(&mount.options).map_err(|cause| refused("mount on", &target, &cause))?;
            if view.seal.is_some() && mount.kind == "tmpfs" {
                // Directories and links are still to be made in it.
                options.take_read_only();
            }
            if options.binding == Binding::None {
                self.mount(&mount.kind, &mount.source, &target, &options)
                    .map_err(|cause| failed(&format!("mount {} on", mount.kind), &target, cause))?;
            } else {
                self.bind(Path::new(&mount.source), &target, &options)?;
            }
        }
        for (path, to) in &view.symlinks {
            let path = moved(path);
            self.link(&path, Path::new(to), false).map_err(|cause| failed("make the link", &path, cause))?;
        }
        if view.seal.is_some() {
            self.seal_mount(target).map_err(|cause| failed("make read-only", target, cause))?;
        }
        Ok(())
    }

    fn node(&self, device: &Device) -> io::Result<()> {
        let file_type = devices::file_type(device).ok_or(Errno::INVAL)?;
        let (parent, name) = self.root.parent(Path::new(&device.path))?;
        let mode = Mode::from_raw_mode(devices::mode(device));
        let number = rustix::fs::makedev(device.major, device.minor);
        match rustix::fs::mknodat(&parent, name, file_type, mode, number) {
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) != file_type || stat.st_rdev != number {
                    return Err(Errno::EXIST.into());
                }
            }
            other => other?,
        }
        let (uid, gid) = (device.uid.map(Uid::from_raw), device.gid.map(Gid::from_raw));
        if uid.is_some() || gid.is_some() {
            rustix::fs::chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    fn link(&self, path: &Path, target: &Path, only_if_target_exists: bool) -> io::Result<()> {
        if only_if_target_exists && self.root.find(target).is_err() {
            return Ok(());
        }
        let (parent, name) = self.root.parent(path)?;
        match rustix::fs::symlinkat(target, &parent, name) {
            Err(Errno::EXIST) => Ok(()),
            other => Ok(other?),
        }
    }

    fn console(&mut self, path: &Path) -> io::Result<()> {
        let pty = console::allocate(self.root.as_fd(), self.console_size)?;
        let target = self.root.make(path, Kind::File)?;
        let flags = clone_flags(Binding::One) | OpenTreeFlags::AT_EMPTY_PATH;
        let tree = rustix::mount::open_tree(&pty.slave, "", flags)?;
        attach(&tree, &target)?;
        report::send_console(self.report, pty.master.as_fd())?;
        self.terminal = Some(pty.slave);
        Ok(())
    }

    fn mask(&mut self, path: &Path) -> io::Result<()> {
        let target = match self.root.find(path) {
            Err(error) if is_absent(&error) => return Ok(()),
            other => other?,
        };
        if root::identify(&target)?.0 != FileType::Directory {
            let null = self.root.find(Path::new("/dev/null"))?;
            if root::identify(&null)? != (FileType::CharacterDevice, (1, 3)) {
                return Err(Errno::NODEV.into());
            }
            return attach(&clone_of(&null, Binding::One)?, &target);
        }
        if let Some(empty) = &self.empty {
            return attach(&clone_of(empty, Binding::One)?, &target);
        }
        let words = ["ro", "nosuid", "nodev", "noexec", "nr_inodes=2", "size=4k", "mode=755"];
        let options = Options::parse(&words.map(str::to_owned)).map_err(io::Error::other)?;
        let empty = new_filesystem("tmpfs", "tmpfs", &options)?;
        attach(&empty, &target)?;
        self.empty = Some(empty);
        Ok(())
    }

    fn seal_path(&self, path: &Path) -> io::Result<()> {
        let target = match self.root.find(path) {
            Err(error) if is_absent(&error) => return Ok(()),
            other => other?,
        };
        let tree = clone_of(&target, Binding::Tree)?;
        let read_only = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
        mount::set_attributes(tree.as_fd(), read_only, Reach::Recursive)?;
        attach(&tree, &target)
    }

    fn seal_mount(&self, path: &Path) -> io::Result<()> {
        let target = self.root.find(path)?;
        let read_only = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
        mount::set_attributes(target.as_fd(), read_only, Reach::One)
    }

    fn pivot(&self) -> io::Result<()> {
        let host = Root::open(Path::new("/"))?;
        rustix::process::fchdir(&self.root)?;
        rustix::process::pivot_root(".", ".")?;
        // The host's root now lies on top of ours. Its mounts must not carry their unmounting back.
        rustix::process::fchdir(&host)?;
        rustix::mount::mount_change(".", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        Ok(rustix::process::chdir("/")?)
    }
}

/// Opens the sources of binds that are another container's, `/proc/PID/root/…`: a mount can only be copied
/// from inside its own namespace, and with the links of its own root.
///
/// # Errors
/// The container is gone, or shows nothing there.
pub fn borrow(spec: &Spec) -> Result<Borrowed, Error> {
    let mut borrowed = Borrowed::new();
    for mount in &spec.mounts {
        let source = Path::new(&mount.source);
        let Some((pid, inside)) =
            mount.source.strip_prefix("/proc/").and_then(|rest| rest.split_once("/root/"))
        else {
            continue;
        };
        let open = || -> io::Result<OwnedFd> {
            let namespace = fs::File::open(format!("/proc/{pid}/ns/mnt"))?;
            // A thread of its own, so that this process stays where it is.
            process::unshare(UnshareFlags::FS)?;
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
            let flags = clone_flags(Binding::Tree) | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
            Ok(rustix::mount::open_tree(CWD, Path::new("/").join(inside), flags)?)
        };
        let opened = std::thread::scope(|scope| {
            scope.spawn(open).join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
        });
        borrowed.insert(
            source.to_owned(),
            opened.map_err(|cause| failed("open the bind source", source, cause))?,
        );
    }
    Ok(borrowed)
}

/// Missing, or below something that is no directory: nothing to hide or protect.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

fn flags(propagation: Propagation) -> MountPropagationFlags {
    let flag = match propagation {
        Propagation::Shared | Propagation::RShared => MountPropagationFlags::SHARED,
        Propagation::Slave | Propagation::RSlave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Private | Propagation::RPrivate => MountPropagationFlags::PRIVATE,
        Propagation::Unbindable | Propagation::RUnbindable => MountPropagationFlags::UNBINDABLE,
    };
    if propagation.is_recursive() { flag | MountPropagationFlags::REC } else { flag }
}

fn clone_flags(binding: Binding) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if binding == Binding::Tree { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

fn clone_of(fd: impl AsFd, binding: Binding) -> io::Result<OwnedFd> {
    Ok(rustix::mount::open_tree(fd, "", clone_flags(binding) | OpenTreeFlags::AT_EMPTY_PATH)?)
}

fn new_filesystem(kind: &str, source: &str, options: &Options) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if !source.is_empty() {
        rustix::mount::fsconfig_set_string(&context, "source", source)?;
    }
    for option in &options.data {
        match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(&context, key, value)?,
            None => rustix::mount::fsconfig_set_flag(&context, option)?,
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    let attributes = u32::try_from(options.attributes | options.recursive).map_err(|_| Errno::INVAL)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes);
    let tree = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    spread(&tree, &options.propagation)?;
    Ok(tree)
}

/// Gives a cloned tree its attributes while it is still detached.
fn decorate(tree: &OwnedFd, options: &Options) -> io::Result<()> {
    for (set, reach) in [(options.attributes, Reach::One), (options.recursive, Reach::Recursive)] {
        if set == 0 {
            continue;
        }
        // Access time policies are one field: setting one means clearing the others.
        let clear = if set & libc::MOUNT_ATTR__ATIME == 0 { 0 } else { libc::MOUNT_ATTR__ATIME };
        mount::set_attributes(tree.as_fd(), Attributes { set, clear, propagation: 0 }, reach)?;
    }
    spread(tree, &options.propagation)
}

fn spread(tree: &OwnedFd, words: &[Propagation]) -> io::Result<()> {
    for propagation in words {
        let reach = if propagation.is_recursive() { Reach::Recursive } else { Reach::One };
        let attributes = Attributes { propagation: propagation.flag(), ..Attributes::default() };
        mount::set_attributes(tree.as_fd(), attributes, reach)?;
    }
    Ok(())
}

fn attach(tree: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, "", target, "", flags)?)
}

fn failed(op: &str, object: impl AsRef<Path>, cause: io::Error) -> Error {
    Error { op: op.to_owned(), object: object.as_ref().display().to_string(), cause: Cause::Io(cause) }
}

fn refused(op: &str, object: &Path, cause: &str) -> Error {
    Error { op: op.to_owned(), object: object.display().to_string(), cause: Cause::Refused(cause.to_owned()) }
}
