//! Samples of what a container uses, from its cgroup and its network namespace.
//!
//! Nothing fails: a container may end between two files, and what cannot be read is zero.

use std::collections::BTreeMap;

use super::container::{Container, Record};
use super::create::now;
use super::{spec, state::State};
use crate::http::api::stats::{
    BlkioEntry, BlkioStats, ContainerStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats,
    ThrottlingData,
};
use crate::runtime::cgroup::{self, Cgroup};

/// Reads one sample; `before` is the sample that rates are counted from.
pub fn sample(container: &Container, cgroup_parent: &str, before: Option<&ContainerStats>) -> ContainerStats {
    let record = container.record();
    let mut stats = ContainerStats {
        id: record.id.clone(),
        name: format!("/{}", record.name),
        ..ContainerStats::default()
    };
    if !matches!(record.state, State::Running | State::Paused) {
        return stats;
    }
    let Ok(cgroup) = Cgroup::open(&spec::cgroup_path(&record, cgroup_parent)) else { return stats };
    let used = cgroup.stats();
    stats.read = now();
    stats.cpu_stats = cpu(&used.cpu);
    if let Some(before) = before {
        stats.preread.clone_from(&before.read);
        stats.precpu_stats.clone_from(&before.cpu_stats);
    }
    stats.memory_stats = MemoryStats {
        usage: used.memory.usage_bytes,
        max_usage: used.memory.max_usage_bytes.unwrap_or(0),
        stats: used.memory.stats,
        failcnt: used.memory.failures,
        limit: used.memory.limit_bytes,
    };
    stats.pids_stats = PidsStats { current: used.pids.current, limit: used.pids.limit.unwrap_or(0) };
    stats.blkio_stats = BlkioStats {
        io_service_bytes_recursive: entries(used.io_service_bytes),
        io_serviced_recursive: entries(used.io_serviced),
        ..BlkioStats::default()
    };
    stats.networks = networks(&record);
    stats
}

fn cpu(used: &cgroup::CpuStats) -> CpuStats {
    let (system_cpu_usage, online_cpus) = machine(&std::fs::read_to_string("/proc/stat").unwrap_or_default());
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: used.total_ns,
            percpu_usage: used.per_cpu_ns.clone(),
            usage_in_kernelmode: used.kernel_ns,
            usage_in_usermode: used.user_ns,
        },
        system_cpu_usage,
        online_cpus,
        throttling_data: ThrottlingData {
            periods: used.periods,
            throttled_periods: used.throttled_periods,
            throttled_time: used.throttled_ns,
        },
    }
}

/// Nanoseconds spent by all processors, and how many there are, from proc_stat(5).
fn machine(stat: &str) -> (u64, u32) {
    /// Source: USER_HZ is 100 on every architecture dewar builds for.
    const NS_PER_TICK: u64 = 10_000_000;
    let (mut ticks, mut count) = (0_u64, 0);
    for line in stat.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            // Guest time is part of user time already: the first seven are the whole.
            Some("cpu") => ticks = words.take(7).filter_map(|word| word.parse::<u64>().ok()).sum(),
            Some(word) if word.starts_with("cpu") => count += 1,
            _ => {}
        }
    }
    (ticks.saturating_mul(NS_PER_TICK), count)
}

fn entries(read: Vec<cgroup::BlkioEntry>) -> Option<Vec<BlkioEntry>> {
    let entry =
        |e: cgroup::BlkioEntry| BlkioEntry { major: e.major, minor: e.minor, op: e.op, value: e.value };
    (!read.is_empty()).then(|| read.into_iter().map(entry).collect())
}

/// The interfaces of the container's own namespace; with the host's there is nothing to count to it.
fn networks(record: &Record) -> BTreeMap<String, NetworkStats> {
    if record.host_config.network_mode == "host" || record.pid <= 0 {
        return BTreeMap::new();
    }
    interfaces(&std::fs::read_to_string(format!("/proc/{}/net/dev", record.pid)).unwrap_or_default())
}

/// proc_pid_net(5): two lines of headings, then `name: rx… tx…`, eight columns each.
fn interfaces(text: &str) -> BTreeMap<String, NetworkStats> {
    text.lines()
        .skip(2)
        .filter_map(|line| {
            let (name, columns) = line.split_once(':')?;
            let column: Vec<u64> =
                columns.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
            let at = |index: usize| column.get(index).copied();
            let stats = NetworkStats {
                rx_bytes: at(0)?,
                rx_packets: at(1)?,
                rx_errors: at(2)?,
                rx_dropped: at(3)?,
                tx_bytes: at(8)?,
                tx_packets: at(9)?,
                tx_errors: at(10)?,
                tx_dropped: at(11)?,
            };
            let name = name.trim();
            (name != "lo").then(|| (name.to_owned(), stats))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_without_loopback_and_broken_lines() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n  \
                    eth0: 10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\n  bad: 1 2\n";
        let read = interfaces(text);
        assert_eq!(read.keys().collect::<Vec<_>>(), ["eth0"]);
        let eth0 = &read["eth0"];
        assert_eq!((eth0.rx_bytes, eth0.rx_dropped, eth0.tx_bytes, eth0.tx_dropped), (10, 4, 50, 8));
    }

    #[test]
    fn guest_time_is_not_counted_twice() {
        let stat = "cpu  1 1 1 1 1 1 1 100 100 100\ncpu0 1 1\ncpu1 1 1\nintr 5\n";
        assert_eq!(machine(stat), (70_000_000, 2));
        assert_eq!(machine(""), (0, 0));
    }

    #[test]
    fn a_container_that_does_not_run_is_a_row_of_zeros() {
        let record = Record { id: "ab".to_owned(), name: "web".to_owned(), ..Record::default() };
        let stats = sample(&Container::new("/nonexistent".into(), record), "/dewar", None);
        let zeros = ContainerStats { id: "ab".to_owned(), name: "/web".to_owned(), ..Default::default() };
        assert_eq!(stats, zeros);
    }
}
