//! Whether a running tree of processes can be frozen, before anything is tried: what CRIU would refuse, read from
//! /proc.
//!
//! In: the tree's first process, and which of its mounts come from outside. Out: every [`Obstacle`], with the process
//! that has it and what to do about it. Nothing is stopped, opened for reading or changed; what a process does
//! meanwhile may be missed, and the dump then says it.
//!
//! ```text
//!  examine ── tree: /proc/PID/task/*/children, as CRIU walks it
//!          ├─ each process: credentials, namespaces, session, tracer          (here)
//!          ├─ its descriptors, mappings, working directory, root ([`files`])
//!          ├─ the sockets among those, and their peers           ([`sockets`])
//!          └─ the tree's mounts                                  ([`mounts`])
//! ```
//!
//! Each rule was tried on CRIU 4.2.1: the zoo in tests/checkpoint has an animal for it.
//!
//! Not seen here, because nothing in /proc says it: a Landlock domain (which does not come back with the process).
//!
//! Sources: proc(5) and its pages, CRIU's `files.c`, `namespaces.c`, `mount.c`, `sk-*.c`.

mod files;
mod mounts;
mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use crate::runtime::sys::process::shares_memory;
use crate::runtime::{Cause, Error};
use mounts::Table;
use sockets::Sockets;

/// What stands in the way of a freeze.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Obstacle {
    /// One word that programs can tell it by: `descriptor`, `mapping`, `socket`, `mount`, `namespace`, `process`,
    /// `container`, `criu`.
    pub kind: &'static str,
    /// In the container; `None` where it is nobody's in particular.
    pub pid: Option<i32>,
    /// The process's name.
    pub command: String,
    /// Which descriptor, mapping, mount …
    pub object: String,
    pub reason: String,
    pub remedy: String,
    /// CRIU does not notice: it would freeze what it then cannot thaw.
    pub is_trap: bool,
}

impl Obstacle {
    /// One of the container as a whole.
    pub fn of_container(reason: impl Into<String>, remedy: impl Into<String>) -> Obstacle {
        Obstacle {
            kind: "container",
            object: "container".to_owned(),
            reason: reason.into(),
            remedy: remedy.into(),
            ..Obstacle::default()
        }
    }
}

/// All that was found.
#[derive(Clone, Debug, Default)]
pub struct Examination {
    /// How many processes would be frozen.
    pub processes: usize,
    pub obstacles: Vec<Obstacle>,
    /// What will not be as before, without being in the way.
    pub notes: Vec<String>,
    /// Some process has a socket of the internet families.
    pub has_inet: bool,
}

/// A process of the tree.
#[derive(Clone, Debug)]
struct Task {
    /// As seen from here.
    pid: i32,
    /// In the container.
    inner: i32,
    command: String,
    parent: Option<i32>,
    status: BTreeMap<String, String>,
}

impl Task {
    /// `None` once it is gone.
    fn look(pid: i32, parent: Option<i32>) -> Option<Task> {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let status = fields(&text);
        let inner = last_number(status.get("NSpid")?)?;
        let command = status.get("Name").cloned().unwrap_or_default();
        Some(Task { pid, inner, command, parent, status })
    }

    /// It has ended, and is of no consequence.
    fn is_dead(&self) -> bool {
        self.status.get("State").is_some_and(|state| state.starts_with(['Z', 'X']))
    }

    fn path(&self, rest: &str) -> String {
        format!("/proc/{}/{rest}", self.pid)
    }

    fn obstacle(&self, kind: &'static str, object: &str, reason: &str, remedy: &str) -> Obstacle {
        Obstacle {
            kind,
            pid: Some(self.inner),
            command: self.command.clone(),
            object: object.to_owned(),
            reason: reason.to_owned(),
            remedy: remedy.to_owned(),
            is_trap: false,
        }
    }
}

/// `Name:\tvalue` lines.
fn fields(text: &str) -> BTreeMap<String, String> {
    let line =
        |line: &str| line.split_once(':').map(|(key, value)| (key.to_owned(), value.trim().to_owned()));
    text.lines().filter_map(line).collect()
}

fn last_number(text: &str) -> Option<i32> {
    text.split_whitespace().next_back()?.parse().ok()
}

/// Looks at the tree below `pid`. `external` are the destinations of mounts that are not CRIU's affair; `beside` the
/// processes of the container's cgroup, of which those outside of the tree are named in a note.
///
/// # Errors
/// The first process is gone, or /proc cannot be read.
pub fn examine(pid: i32, external: &BTreeSet<String>, beside: &[i32]) -> Result<Examination, Error> {
    let gone = |cause: io::Error| Error {
        op: "look at".into(),
        object: format!("process {pid}"),
        cause: Cause::Io(cause),
    };
    let first = Task::look(pid, None).ok_or_else(|| gone(io::ErrorKind::NotFound.into()))?;
    let mut table = Table::of(pid).map_err(gone)?;
    let tree = tree(first);
    let mut mounts_known = BTreeSet::new();
    for task in &tree {
        let namespace = fs::read_link(task.path("ns/mnt")).unwrap_or_default();
        if mounts_known.insert(namespace) && task.pid != pid {
            table.add(task.pid);
        }
    }
    let mut found = Examination::default();
    mounts::examine(&table, external, pid, &mut found.obstacles);
    let root = Namespaces::of(pid);
    let is_limited = !has_sys_resource();
    let mut sockets = Sockets::default();
    let mut files = files::Files::new(&table, pid);
    if let Some(first) = tree.first().filter(|_| root.differing(&Namespaces::own()).contains(&USERS)) {
        found.obstacles.push(nested(first, USERS));
    }
    for task in tree.iter().filter(|task| !task.is_dead()) {
        found.processes += 1;
        found.obstacles.extend(of_process(task, &tree, &root, is_limited));
        files.examine(task, &mut sockets, &mut found.obstacles);
    }
    sockets.examine(&mut found.obstacles);
    found.has_inet = sockets.has_inet();
    let in_tree: BTreeSet<i32> = tree.iter().map(|task| task.pid).collect();
    let outside = beside.iter().filter(|pid| !in_tree.contains(pid)).filter_map(|&pid| Task::look(pid, None));
    let outside: Vec<String> = outside.map(|task| format!("{} ({})", task.inner, task.command)).collect();
    if !outside.is_empty() {
        found.notes.push(format!(
            "processes of exec sessions are not saved, and end with the container: {}",
            outside.join(", ")
        ));
    }
    Ok(found)
}

/// The processes below one, itself first.
fn tree(first: Task) -> Vec<Task> {
    let mut found = vec![first];
    let mut next = 0;
    while let Some(task) = found.get(next) {
        let pid = task.pid;
        let children: Vec<Task> =
            children(pid).into_iter().filter_map(|child| Task::look(child, Some(pid))).collect();
        found.extend(children);
        next += 1;
    }
    found
}

/// The children of a process, by all of its threads.
pub fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    texts
        .flat_map(|text| text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<i32>>())
        .collect()
}

/// What CRIU, which has this process's capabilities, needs to read the limits of other users' processes.
fn has_sys_resource() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = fields(&text).get("CapEff").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    effective.is_some_and(|mask| mask & (1 << CAP_SYS_RESOURCE) != 0)
}

const USERS: &str = "user namespace";

/// The identities of a process's namespaces that CRIU wants to be the same in the whole tree.
struct Namespaces(BTreeMap<&'static str, String>);

impl Namespaces {
    const NAMES: [(&'static str, &'static str); 4] = [
        ("pid", "pid namespace"),
        ("user", USERS),
        ("time", "time namespace"),
        ("time_for_children", "time namespace for its children"),
    ];

    fn own() -> Namespaces {
        Namespaces::at("self")
    }

    fn of(pid: i32) -> Namespaces {
        Namespaces::at(&pid.to_string())
    }

    fn at(process: &str) -> Namespaces {
        let read = |name: &'static str| {
            let link = fs::read_link(format!("/proc/{process}/ns/{name}")).ok()?;
            Some((name, link.to_string_lossy().into_owned()))
        };
        Namespaces(Self::NAMES.iter().filter_map(|(name, _)| read(name)).collect())
    }

    /// What of `other`, of a process further down, is not as here.
    fn differing(&self, other: &Namespaces) -> Vec<&'static str> {
        let differs = |name: &str| match (self.0.get(name), other.0.get(name)) {
            (Some(here), Some(there)) => here != there,
            _ => false,
        };
        let mut found: Vec<&'static str> =
            Self::NAMES.iter().filter(|(name, _)| differs(name)).map(|(_, words)| *words).collect();
        // A process in another one has it for its children, too.
        if found.contains(&"time namespace") {
            found.retain(|words| *words != "time namespace for its children");
        }
        found
    }
}

fn nested(task: &Task, namespace: &str) -> Obstacle {
    task.obstacle(
        "namespace",
        namespace,
        &format!("it has a {namespace} of its own inside of the container's, which criu does not save"),
        "run it without a sandbox or container of its own inside of this one",
    )
}

fn of_process(task: &Task, tree: &[Task], root: &Namespaces, is_limited: bool) -> Vec<Obstacle> {
    let mut found = Vec::new();
    for namespace in root.differing(&Namespaces::of(task.pid)) {
        found.push(nested(task, namespace));
    }
    let ids = |name: &str| task.status.get(name).cloned().unwrap_or_default();
    let is_root = |text: &str| text.split_whitespace().take(3).all(|id| id == "0");
    if is_limited && !(is_root(&ids("Uid")) && is_root(&ids("Gid"))) {
        let id = ids("Uid").split_whitespace().nth(1).unwrap_or_default().to_owned();
        let gid = ids("Gid").split_whitespace().nth(1).unwrap_or_default().to_owned();
        found.push(task.obstacle(
            "process",
            &format!("user {id}:{gid}"),
            "criu reads its limits only with CAP_SYS_RESOURCE, which the daemon does not have",
            "give the daemon CAP_SYS_RESOURCE, or run the process as root",
        ));
    }
    for thread in fs::read_dir(task.path("task")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        if let Some(tracer) = fields(&text).get("TracerPid").filter(|tracer| *tracer != "0") {
            let name = tracer.parse().ok().and_then(|pid| Task::look(pid, None)).map(|task| task.command);
            found.push(task.obstacle(
                "process",
                &format!("traced by {}", name.unwrap_or_else(|| format!("process {tracer}"))),
                "criu traces processes to freeze them, and a process can be traced by one only",
                "end the debugger, strace or whatever traces it",
            ));
            break;
        }
    }
    if task.status.get("NSsid").and_then(|ids| last_number(ids)) == Some(0) {
        found.push(task.obstacle(
            "process",
            "session",
            "it belongs to a session outside of the container, as what nsenter leaves behind does",
            "end it, and start it with dewar exec or with setsid",
        ));
    }
    if let Some(parent) = task.parent.and_then(|pid| tree.iter().find(|other| other.pid == pid))
        && shares_memory(task.pid, parent.pid).unwrap_or(false)
    {
        found.push(task.obstacle(
            "process",
            "memory",
            &format!(
                "it shares its memory with process {} without being a thread of it (vfork)",
                parent.inner
            ),
            "try again: it does so only until it executes another program, as a rule",
        ));
    }
    found
}

/// A whole text file below /proc, empty if it is gone.
fn read(path: impl AsRef<Path>) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read_with_the_innermost_numbers() {
        let status = fields("Name:\tsh\nNSpid:\t812\t7\nUid:\t0\t0\t0\t0\n");
        assert_eq!(status["Name"], "sh");
        assert_eq!(last_number(&status["NSpid"]), Some(7));
        assert_eq!(last_number(""), None);
    }

    #[test]
    fn only_namespaces_that_differ_are_named_and_time_once() {
        let of = |pairs: &[(&'static str, &str)]| {
            Namespaces(pairs.iter().map(|(name, id)| (*name, (*id).to_owned())).collect())
        };
        let root = of(&[("pid", "pid:[1]"), ("time", "time:[1]"), ("time_for_children", "time:[1]")]);
        assert!(root.differing(&of(&[("pid", "pid:[1]"), ("user", "user:[7]")])).is_empty());
        let other = of(&[("pid", "pid:[2]"), ("time", "time:[2]"), ("time_for_children", "time:[2]")]);
        assert_eq!(root.differing(&other), ["pid namespace", "time namespace"]);
        let unshared = of(&[("time", "time:[1]"), ("time_for_children", "time:[2]")]);
        assert_eq!(root.differing(&unshared), ["time namespace for its children"]);
    }

    #[test]
    fn this_process_is_in_a_tree() {
        let own = i32::try_from(std::process::id()).unwrap();
        let task = Task::look(own, None).unwrap();
        assert!(!task.is_dead() && !task.command.is_empty());
        assert_eq!(tree(task)[0].pid, own);
        assert!(Task::look(i32::MAX, None).is_none());
    }
}
