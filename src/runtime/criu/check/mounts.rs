//! The mounts of a tree of processes that CRIU would have to make again.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use super::{Obstacle, read};
use crate::runtime::mounts::{self, Mounted};

/// File systems that CRIU mounts again, with what is in them as far as it can be had.
const KNOWN: [&str; 17] = [
    "proc",
    "sysfs",
    "devtmpfs",
    "binfmt_misc",
    "tmpfs",
    "devpts",
    "simfs",
    "btrfs",
    "pstore",
    "mqueue",
    "fusectl",
    "debugfs",
    "tracefs",
    "securityfs",
    "cgroup",
    "cgroup2",
    "aufs",
];

/// The mounts of a tree of processes.
#[derive(Debug)]
pub(super) struct Table {
    /// Those of its first process.
    own: Vec<Mounted>,
    /// Those of processes in mount namespaces of their own, which CRIU saves too.
    nested: Vec<Mounted>,
}

impl Table {
    pub(super) fn of(pid: i32) -> io::Result<Table> {
        let text = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
        Ok(Table { own: mounts::parse(&text), nested: Vec::new() })
    }

    /// Adds those of a process further down.
    pub(super) fn add(&mut self, pid: i32) {
        self.nested.extend(mounts::parse(&read(format!("/proc/{pid}/mountinfo"))));
    }

    #[cfg(test)]
    pub(super) fn parse(text: &str) -> Table {
        Table { own: mounts::parse(text), nested: Vec::new() }
    }

    pub(super) fn get(&self, id: u64) -> Option<&Mounted> {
        self.own.iter().chain(&self.nested).find(|mount| mount.id == id)
    }

    /// Those of the first process.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Mounted> {
        self.own.iter()
    }
}

/// Finds mounts that are in the way. `external` are those that CRIU leaves alone.
pub(super) fn examine(table: &Table, external: &BTreeSet<String>, pid: i32, found: &mut Vec<Obstacle>) {
    // What is mounted from within onto the container's own file systems shows a part of those.
    let devices: BTreeSet<(u32, u32)> =
        table.iter().filter(|mount| mount.root == "/").map(|it| it.device).collect();
    for mount in
        table.iter().filter(|mount| mount.destination != "/" && !external.contains(&mount.destination))
    {
        let object = format!("{} on {}", mount.kind, mount.destination);
        let mut obstacle = |reason: String, remedy: &str| {
            found.push(Obstacle {
                kind: "mount",
                object: object.clone(),
                reason,
                remedy: remedy.to_owned(),
                ..Obstacle::default()
            });
        };
        let is_part = mount.root != "/";
        if is_part && devices.contains(&mount.device) {
            continue;
        }
        if is_part {
            obstacle(
                "it came from outside, and dewar did not make it".to_owned(),
                "unmount it, or have it as a volume (-v)",
            );
        } else if mount.kind == "overlay" {
            obstacle(
                "its layers cannot be found again when it is thawed".to_owned(),
                "unmount it, or keep nested containers' layers on a volume that is stopped first",
            );
            found.iter_mut().last().into_iter().for_each(|found| found.is_trap = true);
        } else if !KNOWN.contains(&mount.kind.as_str()) {
            obstacle(
                format!("criu does not save file systems of type {}", mount.kind),
                "unmount it, or have it mounted by the host as a volume (-v)",
            );
        } else if mount.kind == "mqueue" {
            let path = format!("/proc/{pid}/root{}", mount.destination);
            let queues = fs::read_dir(path).into_iter().flatten().flatten();
            for queue in queues.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
                obstacle(
                    format!("criu does not save POSIX message queues, and there is /{queue}"),
                    "have the program remove its queue (mq_unlink), or use another kind of queue",
                );
            }
        }
    }
}

/// The text of a mount's ID in fdinfo.
pub(super) fn id_of(fdinfo: &str) -> Option<u64> {
    super::fields(fdinfo).get("mnt_id")?.parse().ok()
}

/// As [`id_of`] of a descriptor of ours.
pub(super) fn id_of_own(fd: &impl std::os::fd::AsRawFd) -> Option<u64> {
    id_of(&read(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
519 484 0:45 / / rw,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
520 519 0:48 / /proc rw,nosuid - proc proc rw
527 520 0:49 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw
521 519 0:49 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k
525 519 254:1 /srv/data /data rw,relatime - ext4 /dev/vda1 rw
526 519 254:1 /srv/secret /secret rw,relatime - ext4 /dev/vda1 rw
528 519 0:50 / /mnt rw - ramfs none rw
529 519 0:51 / /over rw - overlay o rw
";

    #[test]
    fn what_dewar_did_not_mount_and_criu_does_not_know_is_named() {
        let table = Table::parse(MOUNTINFO);
        let mut found = Vec::new();
        examine(&table, &["/data".to_owned(), "/dev".to_owned()].into(), 0, &mut found);
        let objects: Vec<&str> = found.iter().map(|it| it.object.as_str()).collect();
        assert_eq!(objects, ["ext4 on /secret", "ramfs on /mnt", "overlay on /over"]);
        assert!(table.get(525).is_some_and(|mount| mount.destination == "/data"));
        assert!(table.get(1).is_none());
    }

    #[test]
    fn fdinfo_names_the_mount() {
        assert_eq!(id_of("pos:\t0\nflags:\t02\nmnt_id:\t42\nino:\t7\n"), Some(42));
        assert_eq!(id_of(""), None);
        assert!(id_of_own(&fs::File::open("/proc/self/status").unwrap()).is_some());
    }
}
