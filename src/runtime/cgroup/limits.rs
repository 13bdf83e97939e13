//! Limits as file contents: what to write where, in which order, for either version.
//!
//! In: [`spec::Resources`] in v1's units, as the runtime specification has them. Out: [`Write`]s, pure data
//! that [`super::Cgroup`] carries out; each says in Docker's words what is lost when the kernel lacks its file.
//!
//! Invariants: only what is asked for is written (an update leaves the rest alone); the order is one the
//! kernel accepts at every step.
//!
//! Source: kernel Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst; runtime-spec `config-linux.md`.

use super::layout::Version;
use crate::runtime::spec::{BlockIo, Cpu, Memory, Pids, Resources, Throttle, WeightDevice};

/// A controller whose limits are written together; `Blkio` is v2's `io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    Memory,
    Cpu,
    Cpuset,
    Pids,
    Blkio,
}

impl Controller {
    pub(super) const ALL: [Controller; 5] =
        [Controller::Memory, Controller::Cpu, Controller::Cpuset, Controller::Pids, Controller::Blkio];

    /// The v1 name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Cpuset => "cpuset",
            Controller::Pids => "pids",
            Controller::Blkio => "blkio",
        }
    }
}

/// One file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    /// The first of these that exists receives its value.
    pub files: Vec<(&'static str, String)>,
    /// What to tell the user when none exists; empty when nothing is lost.
    pub discarded: &'static str,
}

fn write(file: &'static str, value: impl ToString, discarded: &'static str) -> Write {
    Write { files: vec![(file, value.to_string())], discarded }
}

/// What an update must know of the state before it. A new cgroup has none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Current {
    /// v1: `memory.memsw.limit_in_bytes`.
    pub memsw_bytes: Option<u64>,
    /// v2: `memory.max` in bytes; `None` for `max`.
    pub memory_bytes: Option<u64>,
    /// v2: `cpu.max`, for instance `max 100000`.
    pub cpu_max: String,
}

/// The writes for one controller, in order.
pub(super) fn writes(
    controller: Controller,
    version: Version,
    resources: &Resources,
    current: &Current,
) -> Vec<Write> {
    use Version::{V1, V2};
    match (controller, version) {
        (Controller::Memory, V1) => memory_v1(&resources.memory, current.memsw_bytes),
        (Controller::Memory, V2) => memory_v2(&resources.memory, current.memory_bytes),
        (Controller::Cpu, V1) => cpu_v1(&resources.cpu),
        (Controller::Cpu, V2) => cpu_v2(&resources.cpu, &current.cpu_max),
        (Controller::Cpuset, _) => cpuset(&resources.cpu),
        (Controller::Pids, _) => pids(&resources.pids),
        (Controller::Blkio, V1) => blkio_v1(&resources.block_io),
        (Controller::Blkio, V2) => io_v2(&resources.block_io),
    }
}

const NO_MEMORY: &str = "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.";
const NO_SWAP: &str = "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.";
const NO_RESERVATION: &str = "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.";
const NO_SWAPPINESS: &str = "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.";
const NO_OOM_CONTROL: &str = "Your kernel does not support OomKillDisable. OomKillDisable discarded.";
const NO_SHARES: &str =
    "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.";
const NO_PERIOD: &str =
    "Your kernel does not support CPU cfs period or the cgroup is not mounted. Period discarded.";
const NO_QUOTA: &str =
    "Your kernel does not support CPU cfs quota or the cgroup is not mounted. Quota discarded.";
const NO_CPUSET: &str = "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.";
const NO_PIDS: &str = "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.";
const NO_WEIGHT: &str =
    "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.";
const NO_WEIGHT_DEVICE: &str = "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.";
const NO_READ_BPS: &str = "Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded.";
const NO_WRITE_BPS: &str = "Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded.";
const NO_READ_IOPS: &str = "Your kernel does not support IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded.";
const NO_WRITE_IOPS: &str = "Your kernel does not support IOPS Block I/O write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded.";

fn memory_v1(memory: &Memory, memsw_bytes: Option<u64>) -> Vec<Write> {
    let limit = memory.limit.map(|bytes| write("memory.limit_in_bytes", bytes, NO_MEMORY));
    // Without the file, "no swap limit" is what one gets anyway.
    let lost = if memory.swap == Some(-1) { "" } else { NO_SWAP };
    let swap = memory.swap.map(|bytes| write("memory.memsw.limit_in_bytes", bytes, lost));
    // The kernel keeps limit <= memsw at every step: growing past the old memsw moves memsw first.
    let grows = match (memory.limit, memsw_bytes) {
        (_, None) => false,
        (Some(-1), Some(_)) => true,
        (limit, Some(memsw)) => {
            memory.swap == Some(-1)
                || limit.and_then(|bytes| u64::try_from(bytes).ok()).is_some_and(|bytes| bytes > memsw)
        }
    };
    let swap = match (swap, memory.limit) {
        // Lifting the limit lifts memsw with it, as runc does: limit <= memsw must hold.
        (None, Some(-1)) => Some(write("memory.memsw.limit_in_bytes", -1, "")),
        (swap, _) => swap,
    };
    let mut writes = Vec::new();
    if grows {
        writes.extend(swap);
        writes.extend(limit);
    } else {
        writes.extend(limit);
        writes.extend(swap);
    }
    writes.extend(memory.reservation.map(|bytes| write("memory.soft_limit_in_bytes", bytes, NO_RESERVATION)));
    writes.extend(memory.swappiness.map(|percent| write("memory.swappiness", percent, NO_SWAPPINESS)));
    writes.extend(
        memory
            .disable_oom_killer
            .map(|disable| write("memory.oom_control", u8::from(disable), NO_OOM_CONTROL)),
    );
    writes
}

fn memory_v2(memory: &Memory, memory_bytes: Option<u64>) -> Vec<Write> {
    let mut writes = Vec::new();
    let swap = memory.swap.or((memory.limit == Some(-1)).then_some(-1)).and_then(|total| {
        let limit = memory.limit.or_else(|| memory_bytes.and_then(|bytes| i64::try_from(bytes).ok()));
        swap_max(total, limit)
    });
    if let Some(value) = swap {
        // "no swap" and "any swap" are both what a kernel without the file does.
        let lost = if value == "max" || value == "0" { "" } else { NO_SWAP };
        writes.push(write("memory.swap.max", value, lost));
    }
    writes.extend(memory.limit.map(|bytes| write("memory.max", or_max(bytes), NO_MEMORY)));
    writes.extend(memory.reservation.map(|bytes| write("memory.low", or_max(bytes), NO_RESERVATION)));
    if memory.swappiness.is_some() {
        writes.push(discard(NO_SWAPPINESS));
    }
    if memory.disable_oom_killer == Some(true) {
        writes.push(discard(NO_OOM_CONTROL));
    }
    writes
}

fn discard(discarded: &'static str) -> Write {
    Write { files: Vec::new(), discarded }
}

/// v2's swap limit from v1's memory-and-swap; `None` when it cannot be known.
pub(super) fn swap_max(total: i64, limit: Option<i64>) -> Option<String> {
    match (total, limit) {
        (..0, _) => Some("max".to_owned()),
        // Swap limited together with unlimited memory has no meaning on v2.
        (_, None | Some(..0)) => None,
        (total, Some(limit)) => Some(total.saturating_sub(limit).max(0).to_string()),
    }
}

/// A negative number lifts the limit.
pub(super) fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

fn cpu_v1(cpu: &Cpu) -> Vec<Write> {
    let mut writes = Vec::new();
    if let Some(shares) = cpu.shares.filter(|shares| *shares > 0) {
        writes.push(write("cpu.shares", shares, NO_SHARES));
    }
    writes.extend(
        cpu.period.filter(|period| *period > 0).map(|period| write("cpu.cfs_period_us", period, NO_PERIOD)),
    );
    writes.extend(
        cpu.quota.filter(|quota| *quota != 0).map(|quota| write("cpu.cfs_quota_us", quota, NO_QUOTA)),
    );
    writes
}

fn cpu_v2(cpu: &Cpu, current: &str) -> Vec<Write> {
    let mut writes = Vec::new();
    let weight = cpu.shares.map_or(0, cpu_weight);
    if weight > 0 {
        writes.push(write("cpu.weight", weight, NO_SHARES));
    }
    if cpu.quota.is_some_and(|quota| quota != 0) || cpu.period.is_some_and(|period| period > 0) {
        writes.push(write("cpu.max", cpu_max(cpu.quota, cpu.period, current), NO_QUOTA));
    }
    writes
}

/// `cpu.max`: what is not asked for keeps its current value.
pub(super) fn cpu_max(quota: Option<i64>, period: Option<u64>, current: &str) -> String {
    let mut words = current.split_ascii_whitespace();
    let old_quota = words.next().unwrap_or("max");
    let old_period = words.next().unwrap_or("100000");
    let quota = match quota {
        Some(quota) if quota != 0 => or_max(quota),
        _ => old_quota.to_owned(),
    };
    match period.filter(|period| *period > 0) {
        Some(period) => format!("{quota} {period}"),
        None => format!("{quota} {old_period}"),
    }
}

/// `cpu.weight` from v1's shares: 2 → 1, 1024 → 100, 262144 → 10000, and smooth between; 0 is unset.
///
/// Source: `10^((log2(s)^2 + 125 log2(s)) / 612 - 7/34)`, which runc and crun moved to because the older
/// linear formula put the default of 1024 at 39, below every other cgroup's default.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "2 < shares < 2^18 keeps the result within 1..=10000"
)]
pub(super) fn cpu_weight(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            // 1024 must be exactly 100: floating point may land a hair above it.
            (10f64.powf(exponent) - 1e-9).ceil() as u64
        }
    }
}

fn cpuset(cpu: &Cpu) -> Vec<Write> {
    let files = [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)];
    files
        .into_iter()
        .filter_map(|(file, value)| {
            let value = value.as_ref().filter(|value| !value.is_empty())?;
            Some(write(file, value, NO_CPUSET))
        })
        .collect()
}

fn pids(pids: &Pids) -> Vec<Write> {
    pids.limit
        .map(|limit| {
            let value = if limit <= 0 { "max".to_owned() } else { limit.to_string() };
            // "unlimited" is what a kernel without the controller gives.
            let lost = if limit <= 0 { "" } else { NO_PIDS };
            write("pids.max", value, lost)
        })
        .into_iter()
        .collect()
}

fn blkio_v1(io: &BlockIo) -> Vec<Write> {
    let mut writes = Vec::new();
    if let Some(weight) = io.weight.filter(|weight| *weight > 0) {
        writes.push(Write {
            files: vec![("blkio.weight", weight.to_string()), ("blkio.bfq.weight", weight.to_string())],
            discarded: NO_WEIGHT,
        });
    }
    for WeightDevice { major, minor, weight } in &io.weight_device {
        let value = format!("{major}:{minor} {weight}");
        writes.push(Write {
            files: vec![("blkio.weight_device", value.clone()), ("blkio.bfq.weight_device", value)],
            discarded: NO_WEIGHT_DEVICE,
        });
    }
    let groups: [(&[Throttle], &'static str, &'static str); 4] = [
        (&io.throttle_read_bps_device, "blkio.throttle.read_bps_device", NO_READ_BPS),
        (&io.throttle_write_bps_device, "blkio.throttle.write_bps_device", NO_WRITE_BPS),
        (&io.throttle_read_iops_device, "blkio.throttle.read_iops_device", NO_READ_IOPS),
        (&io.throttle_write_iops_device, "blkio.throttle.write_iops_device", NO_WRITE_IOPS),
    ];
    for (throttles, file, lost) in groups {
        for Throttle { major, minor, rate } in throttles {
            writes.push(write(file, format!("{major}:{minor} {rate}"), lost));
        }
    }
    writes
}

fn io_v2(io: &BlockIo) -> Vec<Write> {
    let mut writes = Vec::new();
    if let Some(weight) = io.weight.filter(|weight| *weight > 0) {
        writes.push(Write {
            files: vec![("io.bfq.weight", weight.to_string()), ("io.weight", io_weight(weight).to_string())],
            discarded: NO_WEIGHT,
        });
    }
    for WeightDevice { major, minor, weight } in &io.weight_device {
        writes.push(Write {
            files: vec![
                ("io.bfq.weight", format!("{major}:{minor} {weight}")),
                ("io.weight", format!("{major}:{minor} {}", io_weight(*weight))),
            ],
            discarded: NO_WEIGHT_DEVICE,
        });
    }
    let groups: [(&[Throttle], &str, &'static str); 4] = [
        (&io.throttle_read_bps_device, "rbps", NO_READ_BPS),
        (&io.throttle_write_bps_device, "wbps", NO_WRITE_BPS),
        (&io.throttle_read_iops_device, "riops", NO_READ_IOPS),
        (&io.throttle_write_iops_device, "wiops", NO_WRITE_IOPS),
    ];
    for (throttles, key, lost) in groups {
        for Throttle { major, minor, rate } in throttles {
            // Zero removes a v1 limit; v2 spells that "max".
            let rate = if *rate == 0 { "max".to_owned() } else { rate.to_string() };
            writes.push(write("io.max", format!("{major}:{minor} {key}={rate}"), lost));
        }
    }
    writes
}

/// `io.weight` (1..=10000) from blkio's weight (10..=1000).
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.clamp(10, 1000) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(writes: &[Write]) -> Vec<String> {
        writes
            .iter()
            .map(|w| {
                let files: Vec<_> = w.files.iter().map(|(f, v)| format!("{f}={v}")).collect();
                files.join("|")
            })
            .collect()
    }

    fn memory(limit: Option<i64>, swap: Option<i64>) -> Memory {
        Memory { limit, swap, ..Memory::default() }
    }

    #[test]
    fn weights_meet_their_fixed_points_and_only_grow() {
        let points = [(0, 0), (1, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)];
        for (shares, weight) in points {
            assert_eq!(cpu_weight(shares), weight, "shares {shares}");
        }
        let mut last = 0;
        for shares in 2..262_144 {
            let weight = cpu_weight(shares);
            assert!(weight >= last && (1..=10_000).contains(&weight), "shares {shares}");
            last = weight;
        }
    }

    #[test]
    fn io_weight_spans_its_range() {
        assert_eq!([io_weight(0), io_weight(10), io_weight(1000)], [1, 1, 10_000]);
        assert_eq!(io_weight(505), 5000);
    }

    #[test]
    fn swap_is_counted_without_memory_on_v2() {
        assert_eq!(swap_max(-1, Some(5)).as_deref(), Some("max"));
        assert_eq!(swap_max(100, Some(100)).as_deref(), Some("0"));
        assert_eq!(swap_max(300, Some(100)).as_deref(), Some("200"));
        assert_eq!(swap_max(300, None), None);
        assert_eq!(swap_max(300, Some(-1)), None);
        let current = Current { memory_bytes: Some(100), ..Current::default() };
        assert_eq!(lines(&memory_v2(&memory(None, Some(150)), current.memory_bytes)), ["memory.swap.max=50"]);
        assert_eq!(
            lines(&memory_v2(&memory(Some(-1), None), None)),
            ["memory.swap.max=max", "memory.max=max"]
        );
    }

    #[test]
    fn v1_moves_memsw_first_only_when_growing_past_it() {
        let limit = "memory.limit_in_bytes";
        let memsw = "memory.memsw.limit_in_bytes";
        let order = |m: Memory, current| lines(&memory_v1(&m, current));
        assert_eq!(order(memory(Some(10), Some(20)), None), [format!("{limit}=10"), format!("{memsw}=20")]);
        assert_eq!(
            order(memory(Some(10), Some(20)), Some(40)),
            [format!("{limit}=10"), format!("{memsw}=20")]
        );
        assert_eq!(
            order(memory(Some(50), Some(90)), Some(40)),
            [format!("{memsw}=90"), format!("{limit}=50")]
        );
        assert_eq!(
            order(memory(Some(50), Some(-1)), Some(40)),
            [format!("{memsw}=-1"), format!("{limit}=50")]
        );
        assert_eq!(order(memory(Some(-1), None), Some(40)), [format!("{memsw}=-1"), format!("{limit}=-1")]);
        assert_eq!(order(memory(None, None), Some(40)), Vec::<String>::new());
    }

    #[test]
    fn cpu_max_keeps_what_is_not_asked_for() {
        assert_eq!(cpu_max(Some(50_000), Some(100_000), ""), "50000 100000");
        assert_eq!(cpu_max(Some(-1), None, "50000 20000"), "max 20000");
        assert_eq!(cpu_max(None, Some(20_000), "50000 100000"), "50000 20000");
        assert_eq!(cpu_max(None, Some(20_000), ""), "max 20000");
    }

    #[test]
    fn throttles_name_device_and_rate() {
        let io = BlockIo {
            weight: Some(500),
            throttle_read_bps_device: vec![Throttle { major: 8, minor: 0, rate: 1024 }],
            throttle_write_iops_device: vec![Throttle { major: 8, minor: 16, rate: 0 }],
            ..BlockIo::default()
        };
        assert_eq!(
            lines(&io_v2(&io)),
            ["io.bfq.weight=500|io.weight=4950", "io.max=8:0 rbps=1024", "io.max=8:16 wiops=max"]
        );
        assert_eq!(
            lines(&blkio_v1(&io)),
            [
                "blkio.weight=500|blkio.bfq.weight=500",
                "blkio.throttle.read_bps_device=8:0 1024",
                "blkio.throttle.write_iops_device=8:16 0"
            ]
        );
    }

    #[test]
    fn asking_for_nothing_writes_nothing() {
        for controller in Controller::ALL {
            for version in [Version::V1, Version::V2] {
                let none = writes(controller, version, &Resources::default(), &Current::default());
                assert_eq!(none, [], "{controller:?} {version:?}");
            }
        }
    }

    #[test]
    fn v2_says_what_it_cannot_do() {
        let asked = Memory { swappiness: Some(10), disable_oom_killer: Some(true), ..Memory::default() };
        let lost: Vec<_> = memory_v2(&asked, None).iter().map(|w| w.discarded).collect();
        assert_eq!(lost, [NO_SWAPPINESS, NO_OOM_CONTROL]);
    }
}
