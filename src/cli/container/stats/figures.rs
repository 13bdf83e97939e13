//! One sample as the numbers people look at.
//!
//! Compat: the formulas are docker's, so that both clients show the same figures of one sample.

use crate::cli::format::{self, Row};
use crate::http::api::stats::{ContainerStats, CpuStats, MemoryStats};

/// What a row shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    id: String,
    name: String,
    cpu_percent: f64,
    /// Bytes.
    memory: u64,
    memory_limit: u64,
    net_read: u64,
    net_written: u64,
    block_read: u64,
    block_written: u64,
    pids: u64,
}

impl Figures {
    pub fn new(sample: &ContainerStats) -> Figures {
        let sum = |letter: char| {
            let entries = sample.blkio_stats.io_service_bytes_recursive.iter().flatten();
            let wanted = entries
                .filter(|entry| entry.op.chars().next().map(|c| c.to_ascii_lowercase()) == Some(letter));
            wanted.map(|entry| entry.value).sum()
        };
        Figures {
            id: sample.id.clone(),
            name: sample.name.trim_start_matches('/').to_owned(),
            cpu_percent: cpu_percent(&sample.precpu_stats, &sample.cpu_stats),
            memory: memory_without_cache(&sample.memory_stats),
            memory_limit: sample.memory_stats.limit,
            net_read: sample.networks.values().map(|one| one.rx_bytes).sum(),
            net_written: sample.networks.values().map(|one| one.tx_bytes).sum(),
            block_read: sum('r'),
            block_written: sum('w'),
            pids: sample.pids_stats.current,
        }
    }

    /// The row of a container that was asked for as `asked`.
    pub fn row(&self, asked: &str, no_trunc: bool) -> Row {
        let decimal = |bytes: u64| format::size_decimal(i64::try_from(bytes).unwrap_or(i64::MAX));
        let binary = |bytes: u64| format::size_binary(i64::try_from(bytes).unwrap_or(i64::MAX));
        let memory_percent = match self.memory_limit {
            0 => 0.0,
            limit => self.memory as f64 / limit as f64 * 100.0,
        };
        let cut = |id: &str| if no_trunc { id.to_owned() } else { format::short_id(id) };
        fields([
            ("Container", if asked == self.id { cut(asked) } else { asked.to_owned() }),
            ("ID", cut(&self.id)),
            ("Name", self.name.clone()),
            ("CPUPerc", format!("{:.2}%", self.cpu_percent)),
            ("MemUsage", format!("{} / {}", binary(self.memory), binary(self.memory_limit))),
            ("MemPerc", format!("{memory_percent:.2}%")),
            ("NetIO", format!("{} / {}", decimal(self.net_read), decimal(self.net_written))),
            ("BlockIO", format!("{} / {}", decimal(self.block_read), decimal(self.block_written))),
            ("PIDs", self.pids.to_string()),
        ])
    }
}

/// The row of a container that has said nothing (any more).
pub fn unknown(asked: &str, no_trunc: bool) -> Row {
    let is_id = asked.len() == 64 && asked.bytes().all(|byte| byte.is_ascii_hexdigit());
    let asked = if is_id && !no_trunc { format::short_id(asked) } else { asked.to_owned() };
    let id = if is_id { asked.clone() } else { "--".to_owned() };
    let dashes = || "--".to_owned();
    let pair = || "-- / --".to_owned();
    fields([
        ("Container", asked),
        ("ID", id),
        ("Name", dashes()),
        ("CPUPerc", dashes()),
        ("MemUsage", pair()),
        ("MemPerc", dashes()),
        ("NetIO", dashes()),
        ("BlockIO", dashes()),
        ("PIDs", dashes()),
    ])
}

fn fields<const N: usize>(fields: [(&str, String); N]) -> Row {
    let mut row: Row = fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    row.insert(" type".to_owned(), "*container.statsContext".into());
    row
}

/// Of one CPU: 200 % are two CPUs busy all the time.
fn cpu_percent(before: &CpuStats, now: &CpuStats) -> f64 {
    let used = now.cpu_usage.total_usage as f64 - before.cpu_usage.total_usage as f64;
    let all = now.system_cpu_usage as f64 - before.system_cpu_usage as f64;
    let cpus = match now.online_cpus {
        0 => now.cpu_usage.percpu_usage.len() as f64,
        cpus => f64::from(cpus),
    };
    if used > 0.0 && all > 0.0 { used / all * cpus * 100.0 } else { 0.0 }
}

/// The page cache that nobody has touched lately is not counted: the kernel gives it back when asked.
fn memory_without_cache(memory: &MemoryStats) -> u64 {
    let inactive = memory.stats.get("total_inactive_file").or_else(|| memory.stats.get("inactive_file"));
    match inactive {
        Some(inactive) if *inactive < memory.usage => memory.usage - inactive,
        _ => memory.usage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api::stats::{BlkioEntry, NetworkStats};

    #[test]
    fn figures_are_dockers() {
        let mut sample =
            ContainerStats { id: "0123456789abcdef".into(), name: "/web".into(), ..Default::default() };
        sample.cpu_stats.cpu_usage.total_usage = 3_000;
        sample.cpu_stats.system_cpu_usage = 20_000;
        sample.cpu_stats.online_cpus = 2;
        sample.precpu_stats.cpu_usage.total_usage = 1_000;
        sample.precpu_stats.system_cpu_usage = 10_000;
        sample.memory_stats.usage = 3 << 20;
        sample.memory_stats.limit = 64 << 20;
        sample.memory_stats.stats.insert("total_inactive_file".into(), 1 << 20);
        let network = NetworkStats { rx_bytes: 1_500, tx_bytes: 20, ..NetworkStats::default() };
        sample.networks = [("eth0".to_owned(), network.clone()), ("eth1".to_owned(), network)].into();
        let entry = |op: &str, value| BlkioEntry { op: op.into(), value, ..BlkioEntry::default() };
        sample.blkio_stats.io_service_bytes_recursive =
            Some(vec![entry("Read", 4_096), entry("Write", 1), entry("Total", 9)]);
        sample.pids_stats.current = 7;
        let row = Figures::new(&sample).row("web", false);
        let field = |name: &str| row[name].as_str().unwrap().to_owned();
        assert_eq!(
            (field("Container"), field("ID"), field("Name")),
            ("web".into(), "0123456789ab".into(), "web".into())
        );
        assert_eq!((field("CPUPerc"), field("MemPerc")), ("40.00%".into(), "3.12%".into()));
        assert_eq!(field("MemUsage"), "2MiB / 64MiB");
        assert_eq!((field("NetIO"), field("BlockIO")), ("3kB / 40B".into(), "4.1kB / 1B".into()));
        assert_eq!(field("PIDs"), "7");
    }

    #[test]
    fn a_first_sample_has_no_rate() {
        let mut sample = ContainerStats::default();
        sample.cpu_stats.cpu_usage.total_usage = 5;
        assert_eq!(Figures::new(&sample).cpu_percent, 0.0);
        sample.memory_stats.usage = 5;
        sample.memory_stats.stats.insert("inactive_file".into(), 9);
        assert_eq!(Figures::new(&sample).memory, 5);
    }
}
