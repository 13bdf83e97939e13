//! What a cgroup has used: counters in one shape for both versions, enough for Docker's stats.
//!
//! Nothing fails: a missing file or controller leaves zeros, since a container may be going away meanwhile.
//!
//! Source: kernel Documentation/admin-guide/cgroup-v1, cgroup-v2.rst; Engine API `ContainerStats`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout::Version;
use super::{Cgroup, keyed, number};

/// One reading of a cgroup's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    pub pids: PidsStats,
    /// `Read`, `Write`, … per device, in bytes; empty when nothing was transferred.
    pub io_service_bytes: Vec<BlkioEntry>,
    /// As above, in operations.
    pub io_serviced: Vec<BlkioEntry>,
}

/// Processor time in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuStats {
    pub total_ns: u64,
    pub user_ns: u64,
    pub kernel_ns: u64,
    /// Per processor; v1 only.
    pub per_cpu_ns: Vec<u64>,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStats {
    pub usage_bytes: u64,
    /// v1 only.
    pub max_usage_bytes: Option<u64>,
    /// The machine's memory when there is no lower limit.
    pub limit_bytes: u64,
    /// Times the limit was hit: v1 `memory.failcnt`, v2 `oom` of `memory.events`.
    pub failures: u64,
    /// `memory.stat`, keys as the kernel names them.
    pub stats: BTreeMap<String, u64>,
}

/// Tasks, threads included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidsStats {
    pub current: u64,
    /// `None` is unlimited.
    pub limit: Option<u64>,
}

/// One device's counter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkioEntry {
    pub major: u64,
    pub minor: u64,
    /// `read`, `write`, `sync`, … in lower case, as Docker has them.
    pub op: String,
    pub value: u64,
}

impl Stats {
    pub(super) fn read(cgroup: &Cgroup) -> Stats {
        let mut stats = Stats {
            cpu: cpu(cgroup),
            memory: cgroup.home("memory").map(|(v, dir)| memory(v, &dir)).unwrap_or_default(),
            pids: PidsStats::default(),
            ..Stats::default()
        };
        if let Some((_, dir)) = cgroup.home("pids") {
            stats.pids.current = read_number(&dir, "pids.current");
            stats.pids.limit = number(&dir.join("pids.max")).ok().filter(|n| *n != u64::MAX);
        }
        match cgroup.home("blkio") {
            Some((Version::V1, dir)) => {
                stats.io_service_bytes = blkio(&dir, "io_service_bytes_recursive");
                stats.io_serviced = blkio(&dir, "io_serviced_recursive");
            }
            Some((Version::V2, dir)) => {
                let text = read(&dir, "io.stat");
                stats.io_service_bytes = io_stat(&text, "rbytes", "wbytes");
                stats.io_serviced = io_stat(&text, "rios", "wios");
            }
            None => {}
        }
        stats
    }
}

fn read(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_default()
}

fn read_number(dir: &Path, file: &str) -> u64 {
    number(&dir.join(file)).unwrap_or(0)
}

fn cpu(cgroup: &Cgroup) -> CpuStats {
    let mut cpu = CpuStats::default();
    let (usage, throttling) = (cgroup.home("cpuacct"), cgroup.home("cpu"));
    match usage {
        Some((Version::V1, dir)) => {
            cpu.total_ns = read_number(&dir, "cpuacct.usage");
            cpu.user_ns = read_number(&dir, "cpuacct.usage_user");
            cpu.kernel_ns = read_number(&dir, "cpuacct.usage_sys");
            cpu.per_cpu_ns = read(&dir, "cpuacct.usage_percpu")
                .split_ascii_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect();
        }
        Some((Version::V2, dir)) => {
            let text = read(&dir, "cpu.stat");
            let ns = |key| keyed(&text, key).unwrap_or(0).saturating_mul(1000);
            cpu.total_ns = ns("usage_usec");
            cpu.user_ns = ns("user_usec");
            cpu.kernel_ns = ns("system_usec");
        }
        None => {}
    }
    if let Some((version, dir)) = throttling {
        let text = read(&dir, "cpu.stat");
        let value = |key| keyed(&text, key).unwrap_or(0);
        cpu.periods = value("nr_periods");
        cpu.throttled_periods = value("nr_throttled");
        cpu.throttled_ns = match version {
            Version::V1 => value("throttled_time"),
            Version::V2 => value("throttled_usec").saturating_mul(1000),
        };
    }
    cpu
}

fn memory(version: Version, dir: &Path) -> MemoryStats {
    let machine = rustix::system::sysinfo();
    // `totalram` and `mem_unit` are as wide as the machine's words.
    #[allow(clippy::useless_conversion, reason = "u32 on some machines")]
    let machine_bytes = u64::from(machine.totalram).saturating_mul(u64::from(machine.mem_unit));
    let limit = |file| number(&dir.join(file)).unwrap_or(u64::MAX).min(machine_bytes);
    let stats = read(dir, "memory.stat")
        .lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect();
    match version {
        Version::V1 => MemoryStats {
            usage_bytes: read_number(dir, "memory.usage_in_bytes"),
            max_usage_bytes: number(&dir.join("memory.max_usage_in_bytes")).ok(),
            limit_bytes: limit("memory.limit_in_bytes"),
            failures: read_number(dir, "memory.failcnt"),
            stats,
        },
        Version::V2 => MemoryStats {
            usage_bytes: read_number(dir, "memory.current"),
            max_usage_bytes: None,
            limit_bytes: limit("memory.max"),
            failures: keyed(&read(dir, "memory.events"), "oom").unwrap_or(0),
            stats,
        },
    }
}

/// The scheduler that counts differs between hosts: the throttle layer always exists but counts only where
/// throttling is used on older kernels, bfq counts only its own devices. The first with entries wins.
fn blkio(dir: &Path, what: &str) -> Vec<BlkioEntry> {
    let files: [PathBuf; 3] =
        ["blkio.throttle.", "blkio.bfq.", "blkio."].map(|prefix| dir.join(format!("{prefix}{what}")));
    files
        .iter()
        .map(|file| blkio_lines(&fs::read_to_string(file).unwrap_or_default()))
        .find(|entries| !entries.is_empty())
        .unwrap_or_default()
}

/// v1: `8:0 Read 4096`; the closing `Total 4096` has no device.
fn blkio_lines(text: &str) -> Vec<BlkioEntry> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (major, minor) = device(words.next()?)?;
            let (op, value) = (words.next()?.to_ascii_lowercase(), words.next()?.parse().ok()?);
            Some(BlkioEntry { major, minor, op, value })
        })
        .collect()
}

/// v2: `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 …`.
fn io_stat(text: &str, read: &str, write: &str) -> Vec<BlkioEntry> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let op = match key {
                _ if key == read => "read",
                _ if key == write => "write",
                _ => continue,
            };
            if let Ok(value) = value.parse() {
                entries.push(BlkioEntry { major, minor, op: op.to_owned(), value });
            }
        }
    }
    entries
}

fn device(word: &str) -> Option<(u64, u64)> {
    let (major, minor) = word.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_stat_lines_become_reads_and_writes() {
        let text =
            "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n7:1\nx\n259:3 rbytes=zz wbytes=5\n";
        let entries = io_stat(text, "rbytes", "wbytes");
        let flat: Vec<_> = entries.iter().map(|e| (e.major, e.op.as_str(), e.value)).collect();
        assert_eq!(flat, [(8, "read", 10), (8, "write", 20), (259, "write", 5)]);
        assert_eq!(io_stat(text, "rios", "wios")[1].value, 2);
    }

    #[test]
    fn blkio_lines_skip_the_total() {
        let entries = blkio_lines("8:16 Read 4096\n8:16 Total 4096\nTotal 4096\n");
        assert_eq!(entries.len(), 2);
        assert_eq!((entries[0].minor, entries[0].op.as_str(), entries[0].value), (16, "read", 4096));
    }
}
