//! From what a container is to what must be done: a [`Spec`] becomes ordered [`Step`]s, as data.
//!
//! ```text
//!   spec --plan()--> [Step] --init::steps--> system calls        printed, compared and tested without root
//! ```
//!
//! Order, and why: propagation first (nothing we mount may reach the host); names and sysctls while the
//! host's /proc is there to write through; mounts as given (the daemon sorts by depth); device nodes, links and the
//! console once /dev is up; masks and read-only paths once nothing below them is mounted any more; the root
//! last, and pivot_root when all sources outside it have been used.
//!
//! Not here: namespaces, cgroup, user, capabilities, seccomp, execve (`init`); which mounts and masks a
//! container gets (the daemon).
//!
//! Sources: runtime-spec `config.md` and `config-linux.md`, mount(8), mount_setattr(2).

use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use super::spec::{Device, Mount, NamespaceKind, Spec};
use super::{Cause, Error, devices};

mod options;

pub use options::{Binding, Options, Propagation};

/// What turns a fresh mount namespace into a container, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Plan {
    pub steps: Vec<Step>,
}

/// One thing to do. Paths are the container's: absolute, without `.` and `..`, and resolved inside its root.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Step {
    /// Sets how mounts of the namespace we start in are shared with the host, from `/` down.
    Propagate {
        propagation: Propagation,
    },
    Hostname {
        name: String,
    },
    Domainname {
        name: String,
    },
    /// Writes `value` to the parameter's file below /proc/sys.
    Sysctl {
        name: String,
        value: String,
    },
    /// Mounts a new file system.
    Mount {
        kind: String,
        source: String,
        target: PathBuf,
        options: Options,
    },
    /// Shows a file or directory of the host at `target`.
    Bind {
        source: PathBuf,
        target: PathBuf,
        options: Options,
    },
    /// Mounts the cgroup hierarchies the host has, rooted at the container's own cgroup.
    Cgroups {
        target: PathBuf,
        options: Options,
    },
    /// Makes a device node.
    Node {
        device: Device,
    },
    Symlink {
        path: PathBuf,
        target: PathBuf,
        only_if_target_exists: bool,
    },
    /// Allocates the pty in the container's devpts and shows it at `path`.
    Console {
        path: PathBuf,
    },
    /// Hides a path if it exists: a file behind the container's /dev/null, a directory behind an empty one.
    Mask {
        path: PathBuf,
    },
    /// Makes a path and what is mounted below it read-only, if it exists.
    ReadonlyPath {
        path: PathBuf,
    },
    /// Makes one mount read-only.
    ReadonlyMount {
        path: PathBuf,
    },
    /// Makes the container's root ours, and lets go of the host's.
    PivotRoot,
    /// Sets the propagation of the container's own root.
    PropagateRoot {
        propagation: Propagation,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Propagate { propagation } => write!(f, "make / {propagation}"),
            Step::Hostname { name } => write!(f, "sethostname {name}"),
            Step::Domainname { name } => write!(f, "setdomainname {name}"),
            Step::Sysctl { name, value } => write!(f, "sysctl {name}={value}"),
            Step::Mount { kind, target, options, .. } => {
                write!(f, "mount {kind} on {} ({options})", target.display())
            }
            Step::Bind { source, target, options } => {
                write!(f, "bind {} on {} ({options})", source.display(), target.display())
            }
            Step::Cgroups { target, options } => {
                write!(f, "mount cgroups on {} ({options})", target.display())
            }
            Step::Node { device } => {
                let Device { path, kind, major, minor, .. } = device;
                write!(f, "mknod {path} {kind} {major}:{minor} {:o}", devices::mode(device))
            }
            Step::Symlink { path, target, .. } => {
                write!(f, "symlink {} -> {}", path.display(), target.display())
            }
            Step::Console { path } => write!(f, "open the console at {}", path.display()),
            Step::Mask { path } => write!(f, "mask {}", path.display()),
            Step::ReadonlyPath { path } | Step::ReadonlyMount { path } => {
                write!(f, "make {} read-only", path.display())
            }
            Step::PivotRoot => write!(f, "pivot_root"),
            Step::PropagateRoot { propagation } => write!(f, "make the new / {propagation}"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

/// Turns a spec into the steps that make it true.
///
/// # Errors
/// [`Cause::Refused`] for what cannot be meant: a relative destination, an unknown mount option, a sysctl
/// that is not the container's own, a device that is no device.
pub fn plan(spec: &Spec) -> Result<Plan, Error> {
    let mut steps = Vec::new();
    let propagation = match spec.linux.rootfs_propagation.as_str() {
        "" => Propagation::RSlave,
        word => Propagation::parse(word).ok_or_else(|| refuse("set the propagation", "/", "no such word"))?,
    };
    steps.push(Step::Propagate { propagation });
    names(spec, &mut steps)?;
    for (name, value) in &spec.linux.sysctl {
        check_sysctl(spec, name)?;
        steps.push(Step::Sysctl { name: name.clone(), value: value.clone() });
    }

    let mut dev_is_ours = true;
    let mut seal_dev = false;
    for mount in &spec.mounts {
        let mut step = mount_step(mount)?;
        if let Step::Mount { target, options, .. } = &mut step
            && target == Path::new("/dev")
        {
            // The nodes must be made before it is sealed.
            seal_dev = options.take_read_only();
        }
        if matches!(&step, Step::Bind { target, .. } if target == Path::new("/dev")) {
            dev_is_ours = false;
        }
        steps.push(step);
    }
    if dev_is_ours {
        dev(spec, &mut steps)?;
    }
    if spec.process.terminal {
        steps.push(Step::Console { path: "/dev/console".into() });
    }
    if seal_dev {
        steps.push(Step::ReadonlyMount { path: "/dev".into() });
    }
    for path in &spec.linux.masked_paths {
        steps.push(Step::Mask { path: inside(path, "mask")? });
    }
    for path in &spec.linux.readonly_paths {
        steps.push(Step::ReadonlyPath { path: inside(path, "make read-only")? });
    }
    if spec.root.readonly {
        steps.push(Step::ReadonlyMount { path: "/".into() });
    }
    steps.push(Step::PivotRoot);
    if propagation.is_shared() || propagation.is_unbindable() {
        steps.push(Step::PropagateRoot { propagation });
    }
    Ok(Plan { steps })
}

fn names(spec: &Spec, steps: &mut Vec<Step>) -> Result<(), Error> {
    let own = owns(spec, NamespaceKind::Uts);
    for (name, what) in [(&spec.hostname, "set the host name"), (&spec.domainname, "set the domain name")] {
        if !name.is_empty() && !own {
            return Err(refuse(what, name, "the container shares the host's uts namespace"));
        }
    }
    if !spec.hostname.is_empty() {
        steps.push(Step::Hostname { name: spec.hostname.clone() });
    }
    if !spec.domainname.is_empty() {
        steps.push(Step::Domainname { name: spec.domainname.clone() });
    }
    Ok(())
}

fn mount_step(mount: &Mount) -> Result<Step, Error> {
    let target = inside(&mount.destination, "mount on")?;
    if target == Path::new("/") {
        return Err(refuse("mount on", "/", "that is the container's root"));
    }
    let options =
        Options::parse(&mount.options).map_err(|cause| refuse("mount on", &mount.destination, &cause))?;
    if options.binding != Binding::None || mount.kind == "bind" {
        if let Some(word) = options.data.first() {
            let cause = format!("option {word:?} does not apply to a bind mount");
            return Err(refuse("mount on", &mount.destination, &cause));
        }
        let source = PathBuf::from(&mount.source);
        if !source.is_absolute() {
            return Err(refuse("bind", &mount.source, "not an absolute path"));
        }
        return Ok(Step::Bind { source, target, options });
    }
    Ok(match mount.kind.as_str() {
        "cgroup" | "cgroup2" => Step::Cgroups { target, options },
        "" => return Err(refuse("mount on", &mount.destination, "no file system type")),
        kind => Step::Mount { kind: kind.to_owned(), source: mount.source.clone(), target, options },
    })
}

fn dev(spec: &Spec, steps: &mut Vec<Step>) -> Result<(), Error> {
    for device in devices::nodes(&spec.linux.devices) {
        inside(&device.path, "make the device")?;
        if devices::file_type(&device).is_none() {
            return Err(refuse("make the device", &device.path, "its type is none of c, b, u, p"));
        }
        steps.push(Step::Node { device });
    }
    for (path, target) in devices::LINKS {
        steps.push(Step::Symlink {
            path: path.into(),
            target: target.into(),
            only_if_target_exists: *path == "/dev/core",
        });
    }
    Ok(())
}

/// Whether the container has (or joins) a namespace of this kind instead of using the host's.
pub fn owns(spec: &Spec, kind: NamespaceKind) -> bool {
    spec.linux.namespaces.iter().any(|namespace| namespace.kind == kind)
}

/// Refuses a sysctl that would change the host, or leave /proc/sys.
fn check_sysctl(spec: &Spec, name: &str) -> Result<(), Error> {
    let kind = match name {
        "kernel.domainname" | "kernel.hostname" => NamespaceKind::Uts,
        "kernel.sem" => NamespaceKind::Ipc,
        _ if name.starts_with("kernel.msg") || name.starts_with("kernel.shm") => NamespaceKind::Ipc,
        _ if name.starts_with("fs.mqueue.") => NamespaceKind::Ipc,
        _ if name.starts_with("net.") => NamespaceKind::Network,
        _ => return Err(refuse("set the sysctl", name, "it is not in a separate kernel namespace")),
    };
    if !owns(spec, kind) {
        return Err(refuse("set the sysctl", name, "the container shares that namespace with the host"));
    }
    let path_is_plain = sysctl_path(name).components().all(|part| matches!(part, Component::Normal(_)));
    if name.contains('\0') || !path_is_plain {
        return Err(refuse("set the sysctl", name, "not a parameter's name"));
    }
    Ok(())
}

/// `net.ipv4.conf.eth0/1.forwarding` → `net/ipv4/conf/eth0.1/forwarding`, as sysctl(8).
pub fn sysctl_path(name: &str) -> PathBuf {
    let swap = |letter| match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swap).collect::<String>().into()
}

/// An absolute path without `.` and `..`: `..` at the root is the root, as the kernel has it.
fn inside(path: &str, op: &str) -> Result<PathBuf, Error> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(refuse(op, path, "not an absolute path"));
    }
    let mut clean = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(clean)
}

fn refuse(op: &str, object: &str, cause: &str) -> Error {
    Error { op: op.to_owned(), object: object.to_owned(), cause: Cause::Refused(cause.to_owned()) }
}

#[cfg(test)]
mod tests;
