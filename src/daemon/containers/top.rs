//! `top`: the processes of a container, read from /proc, because a small host has no ps.

use std::sync::Arc;

use super::container::Container;
use super::spec;
use super::state::Action;
use crate::daemon::error::{Error, Result};
use crate::http::api::container::ContainerTop;
use crate::runtime::cgroup::Cgroup;

/// One process as proc(5) shows it.
struct Entry {
    pid: i32,
    ppid: i32,
    uid: u32,
    tty: String,
    /// Clock ticks of user and system time together.
    ticks: u64,
    /// Clock ticks after boot.
    started: u64,
    rss_kib: u64,
    vsz_kib: u64,
    stat: String,
    command: String,
}

/// Lists the processes. `-ef` (the default) and `aux` are known.
pub fn top(container: &Arc<Container>, ps_args: &str, cgroup_parent: &str) -> Result<ContainerTop> {
    let record = {
        let inner = container.lock();
        inner.check(Action::Top)?;
        inner.record.clone()
    };
    let mut pids = Cgroup::open(&spec::cgroup_path(&record, cgroup_parent))?.pids()?;
    pids.sort_unstable();
    let entries: Vec<Entry> = pids.into_iter().filter_map(read).collect();
    let titled = |titles: &[&str], row: &dyn Fn(&Entry) -> Vec<String>| ContainerTop {
        titles: titles.iter().map(|&title| title.to_owned()).collect(),
        processes: entries.iter().map(row).collect(),
    };
    match ps_args.trim() {
        "" | "-ef" | "ef" => {
            Ok(titled(&["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"], &|entry| {
                vec![
                    user(entry.uid),
                    entry.pid.to_string(),
                    entry.ppid.to_string(),
                    "0".to_owned(),
                    started(entry.started),
                    entry.tty.clone(),
                    cpu_time(entry.ticks),
                    entry.command.clone(),
                ]
            }))
        }
        "aux" | "-aux" | "faux" => Ok(titled(
            &["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"],
            &|entry| {
                vec![
                    user(entry.uid),
                    entry.pid.to_string(),
                    "0.0".to_owned(),
                    "0.0".to_owned(),
                    entry.vsz_kib.to_string(),
                    entry.rss_kib.to_string(),
                    entry.tty.clone(),
                    entry.stat.clone(),
                    started(entry.started),
                    cpu_time(entry.ticks),
                    entry.command.clone(),
                ]
            },
        )),
        other => Err(Error::invalid(format!("top: ps arguments {other:?}: only -ef and aux are known"))),
    }
}

/// `None` when the process is gone.
fn read(pid: i32) -> Option<Entry> {
    use std::os::unix::fs::MetadataExt;
    let dir = format!("/proc/{pid}");
    let stat = std::fs::read_to_string(format!("{dir}/stat")).ok()?;
    // proc_pid_stat(5): the command is in parentheses and may contain any byte but its end is the last one.
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1;
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let cmdline = std::fs::read(format!("{dir}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&cmdline).trim_end_matches('\0').replace('\0', " ");
    let tty = number(4);
    let (major, minor) = ((tty >> 8) & 0xfff, (tty & 0xff) | ((tty >> 12) & 0xfff00));
    Some(Entry {
        pid,
        ppid: fields.get(1)?.parse().ok()?,
        uid: std::fs::metadata(&dir).ok()?.uid(),
        tty: match (tty, major) {
            (0, _) => "?".to_owned(),
            (_, 136..=143) => format!("pts/{minor}"),
            _ => format!("{major}:{minor}"),
        },
        ticks: number(11) + number(12),
        started: number(19),
        vsz_kib: number(20) / 1024,
        rss_kib: number(21) * 4,
        stat: fields.first().copied().unwrap_or("?").to_owned(),
        command: if command.is_empty() { format!("[{name}]") } else { command },
    })
}

/// The host's name for a uid, as ps shows it; the number where there is none.
fn user(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    passwd
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
            (id.parse() == Ok(uid)).then(|| name.to_owned())
        })
        .unwrap_or_else(|| uid.to_string())
}

/// Source: USER_HZ is 100 on every architecture dewar builds for.
const TICKS_PER_SECOND: u64 = 100;

fn cpu_time(ticks: u64) -> String {
    let seconds = ticks / TICKS_PER_SECOND;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// The time of day (UTC) a process began, from the boot time.
fn started(ticks: u64) -> String {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot =
        stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<u64>().ok()).unwrap_or(0);
    let of_day = (boot + ticks / TICKS_PER_SECOND) % 86_400;
    format!("{:02}:{:02}", of_day / 3600, of_day / 60 % 60)
}
