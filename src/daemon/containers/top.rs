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
    uid: u32,
    gid: u32,
    name: String,
    command: String,
    /// State and what follows it in /proc/PID/stat, as numbers; index 0 is the state itself.
    fields: Vec<u64>,
    state: String,
}

/// Where a field of proc_pid_stat(5) is in [`Entry::fields`]: its number there, less three.
mod field {
    pub const PPID: usize = 1;
    pub const PGRP: usize = 2;
    pub const SESSION: usize = 3;
    pub const TTY: usize = 4;
    pub const UTIME: usize = 11;
    pub const STIME: usize = 12;
    pub const PRIORITY: usize = 15;
    pub const NICE: usize = 16;
    pub const THREADS: usize = 17;
    pub const START: usize = 19;
    pub const VSIZE: usize = 20;
    pub const RSS: usize = 21;
    pub const PROCESSOR: usize = 36;
}

/// What the figures of a process are measured against.
struct Machine {
    /// Seconds since the epoch.
    boot: u64,
    /// Clock ticks since boot.
    uptime: u64,
    memory_kib: u64,
}

/// One column of ps(1).
#[derive(Clone)]
struct Column {
    title: String,
    show: fn(&Entry, &Machine) -> String,
}

/// Lists the processes as `ps` with these options would.
///
/// # Errors
/// InvalidParameter for options of ps that are not known here, and for columns without the PID, as Docker has
/// it; Conflict when the container does not run.
pub fn top(container: &Arc<Container>, ps_args: &str, cgroup_parent: &str) -> Result<ContainerTop> {
    let record = {
        let inner = container.lock();
        inner.check(Action::Top)?;
        inner.record.clone()
    };
    let columns = columns(ps_args)?;
    let mut pids = Cgroup::open(&spec::cgroup_path(&record, cgroup_parent))?.pids()?;
    pids.sort_unstable();
    let machine = Machine::look();
    Ok(ContainerTop {
        titles: columns.iter().map(|column| column.title.clone()).collect(),
        processes: pids
            .into_iter()
            .filter_map(read)
            .map(|entry| columns.iter().map(|column| (column.show)(&entry, &machine)).collect())
            .collect(),
    })
}

const FULL: &str = "user=UID,pid,ppid,c,stime,tty=TTY,time,cmd";
const USER: &str = "user,pid,%cpu,%mem,vsz,rss,tty=TTY,stat,stime=START,time,command";
const LONG: &str = "s,uid,pid,ppid,c,pri,ni,vsz=SZ,tty=TTY,time,comm=CMD";
const BARE: &str = "pid,tty=TTY,time,comm=CMD";
const BSD: &str = "pid,tty=TTY,stat,time,command";

/// The columns that options of ps ask for; which processes they ask for does not matter.
fn columns(ps_args: &str) -> Result<Vec<Column>> {
    let invalid = |word: &str| Error::invalid(format!("top: ps option {word:?} is not known to dewar"));
    let mut formats: Vec<String> = Vec::new();
    let mut style = if ps_args.trim().is_empty() { FULL } else { BARE };
    let mut words = ps_args.split_ascii_whitespace();
    while let Some(word) = words.next() {
        if let Some(format) = word.strip_prefix("--format=") {
            formats.push(format.to_owned());
            continue;
        }
        if word == "--format" {
            formats.push(words.next().ok_or_else(|| invalid(word))?.to_owned());
            continue;
        }
        let (is_bsd, letters) = match word.strip_prefix('-') {
            Some(letters) => (false, letters),
            None => (true, word),
        };
        if is_bsd && style == BARE {
            style = BSD;
        }
        for (at, letter) in letters.char_indices() {
            match (letter, is_bsd) {
                // What follows in the word, or the next word, is a list of columns.
                ('o', _) => {
                    let rest = &letters[at + 1..];
                    let format =
                        if rest.is_empty() { words.next().ok_or_else(|| invalid(word))? } else { rest };
                    formats.push(format.to_owned());
                    break;
                }
                ('f', false) => style = FULL,
                // Docker's own spelling of `aux` with a dash is common.
                ('u', true) => style = USER,
                ('u', false) if letters.starts_with('a') => style = USER,
                ('l', _) => style = LONG,
                ('e' | 'A' | 'a' | 'd' | 'x' | 'w' | 'H', _) | ('f' | 'g', true) => {}
                _ => return Err(invalid(word)),
            }
        }
    }
    let format = if formats.is_empty() { style.to_owned() } else { formats.join(",") };
    let mut columns = Vec::new();
    for item in format.split(',').filter(|item| !item.is_empty()) {
        let (name, title) = match item.split_once('=') {
            Some((name, title)) => (name, Some(title)),
            None => (item, None),
        };
        let mut column = column(name).ok_or_else(|| {
            Error::invalid(format!("top: error: unknown user-defined format specifier \"{name}\""))
        })?;
        if let Some(title) = title {
            column.title = title.to_owned();
        }
        columns.push(column);
    }
    if columns.iter().any(|column| column.title == "PID") {
        Ok(columns)
    } else {
        Err(Error::invalid("Couldn't find PID field in ps output"))
    }
}

/// A column by its name in ps(1).
fn column(name: &str) -> Option<Column> {
    let (title, show): (&str, fn(&Entry, &Machine) -> String) = match name {
        "pid" => ("PID", |entry, _| entry.pid.to_string()),
        "ppid" => ("PPID", |entry, _| entry.field(field::PPID).to_string()),
        "pgid" | "pgrp" => ("PGID", |entry, _| entry.field(field::PGRP).to_string()),
        "sid" | "sess" | "session" => ("SID", |entry, _| entry.field(field::SESSION).to_string()),
        "user" | "euser" | "uname" | "ruser" => ("USER", |entry, _| account("/etc/passwd", entry.uid)),
        "uid" | "euid" | "ruid" => ("UID", |entry, _| entry.uid.to_string()),
        "group" | "egroup" | "rgroup" => ("GROUP", |entry, _| account("/etc/group", entry.gid)),
        "gid" | "egid" | "rgid" => ("GID", |entry, _| entry.gid.to_string()),
        "cmd" => ("CMD", |entry, _| entry.command.clone()),
        "args" | "command" => ("COMMAND", |entry, _| entry.command.clone()),
        "comm" | "ucmd" | "ucomm" => ("COMMAND", |entry, _| entry.name.clone()),
        "stat" => ("STAT", |entry, _| entry.state.clone()),
        "s" | "state" => ("S", |entry, _| entry.state.clone()),
        "tty" | "tt" | "tname" => ("TT", |entry, _| entry.tty()),
        "time" | "cputime" => ("TIME", |entry, _| clock(entry.ticks() / TICKS_PER_SECOND)),
        "etime" => ("ELAPSED", |entry, machine| elapsed(machine.age(entry))),
        "etimes" => ("ELAPSED", |entry, machine| machine.age(entry).to_string()),
        "stime" | "start" | "bsdstart" => ("STIME", |entry, machine| machine.started(entry)),
        "c" => ("C", |entry, machine| (machine.permille(entry) / 10).to_string()),
        "%cpu" | "pcpu" => ("%CPU", |entry, machine| tenths(machine.permille(entry))),
        "%mem" | "pmem" => {
            ("%MEM", |entry, machine| tenths(entry.rss_kib() * 1000 / machine.memory_kib.max(1)))
        }
        "vsz" | "vsize" => ("VSZ", |entry, _| (entry.field(field::VSIZE) / 1024).to_string()),
        "rss" | "rssize" | "rsz" => ("RSS", |entry, _| entry.rss_kib().to_string()),
        "ni" | "nice" => ("NI", |entry, _| entry.field(field::NICE).cast_signed().to_string()),
        // Source: ps(1) shows the kernel's priority upside down.
        "pri" => ("PRI", |entry, _| (39 - entry.field(field::PRIORITY).cast_signed()).to_string()),
        "nlwp" | "thcount" => ("NLWP", |entry, _| entry.field(field::THREADS).to_string()),
        "psr" => ("PSR", |entry, _| entry.field(field::PROCESSOR).to_string()),
        _ => return None,
    };
    Some(Column { title: title.to_owned(), show })
}

impl Entry {
    fn field(&self, at: usize) -> u64 {
        self.fields.get(at).copied().unwrap_or(0)
    }

    /// Clock ticks of user and system time together.
    fn ticks(&self) -> u64 {
        self.field(field::UTIME) + self.field(field::STIME)
    }

    fn rss_kib(&self) -> u64 {
        // Source: pages are 4 KiB on every architecture dewar builds for.
        self.field(field::RSS) * 4
    }

    fn tty(&self) -> String {
        let tty = self.field(field::TTY);
        let (major, minor) = ((tty >> 8) & 0xfff, (tty & 0xff) | ((tty >> 12) & 0xfff00));
        match (tty, major) {
            (0, _) => "?".to_owned(),
            (_, 136..=143) => format!("pts/{minor}"),
            _ => format!("{major}:{minor}"),
        }
    }
}

impl Machine {
    fn look() -> Machine {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let number = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        let uptime = text("/proc/uptime");
        let seconds = uptime.split('.').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        Machine {
            boot: number(&text("/proc/stat"), "btime "),
            uptime: seconds * TICKS_PER_SECOND,
            memory_kib: number(&text("/proc/meminfo"), "MemTotal:"),
        }
    }

    /// Seconds since the process began.
    fn age(&self, entry: &Entry) -> u64 {
        self.uptime.saturating_sub(entry.field(field::START)) / TICKS_PER_SECOND
    }

    /// The share of one CPU over its life, in thousandths.
    fn permille(&self, entry: &Entry) -> u64 {
        entry.ticks() * 1000 / (self.age(entry) * TICKS_PER_SECOND).max(1)
    }

    /// The time of day (UTC) it began; the date, when that was not within a day.
    fn started(&self, entry: &Entry) -> String {
        let at = self.boot + entry.field(field::START) / TICKS_PER_SECOND;
        if self.age(entry) >= 86_400
            && let Ok(time) = jiff::Timestamp::from_second(i64::try_from(at).unwrap_or(0))
        {
            return time.strftime("%b%d").to_string();
        }
        let of_day = at % 86_400;
        format!("{:02}:{:02}", of_day / 3600, of_day / 60 % 60)
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
    let mut fields = tail.split_ascii_whitespace();
    let state = fields.next()?.to_owned();
    // Priority and nice may be negative; they are read back as signed.
    let number =
        |field: &str| field.parse::<i64>().map_or_else(|_| field.parse().unwrap_or(0), i64::cast_unsigned);
    let cmdline = std::fs::read(format!("{dir}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&cmdline).trim_end_matches('\0').replace('\0', " ");
    let meta = std::fs::metadata(&dir).ok()?;
    Some(Entry {
        pid,
        uid: meta.uid(),
        gid: meta.gid(),
        name: name.to_owned(),
        command: if command.is_empty() { format!("[{name}]") } else { command },
        fields: std::iter::once(0).chain(fields.map(number)).collect(),
        state,
    })
}

/// The host's name for a uid or gid, as ps shows it; the number where there is none.
fn account(file: &str, id: u32) -> String {
    let accounts = std::fs::read_to_string(file).unwrap_or_default();
    accounts
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
            (number.parse() == Ok(id)).then(|| name.to_owned())
        })
        .unwrap_or_else(|| id.to_string())
}

/// Source: USER_HZ is 100 on every architecture dewar builds for.
const TICKS_PER_SECOND: u64 = 100;

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// `[[DD-]hh:]mm:ss`
fn elapsed(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let rest = format!("{:02}:{:02}", seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) => rest,
        (0, _) => format!("{hours:02}:{rest}"),
        _ => format!("{days}-{hours:02}:{rest}"),
    }
}

fn tenths(value: u64) -> String {
    format!("{}.{}", value / 10, value % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(args: &str) -> String {
        columns(args).unwrap().iter().map(|column| column.title.clone()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn options_of_ps_name_columns() {
        assert_eq!(titles(""), "UID PID PPID C STIME TTY TIME CMD");
        assert_eq!(titles("-ef"), titles(""));
        assert_eq!(titles("aux"), "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND");
        assert_eq!(titles("-aux"), titles("aux"));
        assert_eq!(titles("-e"), "PID TTY TIME CMD");
        assert_eq!(titles("ax"), "PID TTY STAT TIME COMMAND");
        assert_eq!(titles("-o pid,cmd"), "PID CMD");
        assert_eq!(titles("-eo pid,user -o args=WHAT"), "PID USER WHAT");
        assert_eq!(titles("-opid,etime"), "PID ELAPSED");
        assert_eq!(titles("--format pid"), "PID");
        for bad in ["-o", "-o cmd", "-o pid,bogus", "-Z", "--bogus"] {
            assert!(columns(bad).is_err(), "{bad}");
        }
        assert_eq!(columns("-o cmd").err().unwrap().message, "Couldn't find PID field in ps output");
    }

    #[test]
    fn a_process_is_read_as_the_kernel_shows_it() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let (own, machine) = (read(pid).unwrap(), Machine::look());
        let show = |name: &str| (column(name).unwrap().show)(&own, &machine);
        assert_eq!(show("pid"), pid.to_string());
        assert_eq!(show("ppid"), std::os::unix::process::parent_id().to_string());
        assert!(show("rss").parse::<u64>().unwrap() > 100 && show("%mem").contains('.'));
        assert!(show("ni").parse::<i64>().unwrap() >= -20, "{}", show("ni"));
        assert_eq!(
            (elapsed(61), elapsed(3661), elapsed(90_061)),
            ("01:01".into(), "01:01:01".into(), "1-01:01:01".into())
        );
        assert!(read(i32::MAX).is_none());
    }
}
