//! Figures for whoever watches many daemons: what was done, how often, and how long it took.
//!
//! Counting is a few atomic additions; what can be asked for when somebody wants to know (states, memory) is not
//! counted. Names and labels are Docker's where it has the figure; the others begin with `dewar_`, or with
//! `process_`, as in every Prometheus client.
//!
//! Not here: the format (`text`), the listener (`listeners`), the route (`routes::metrics`).
//!
//! Source: dockerd's metrics; Prometheus's guide to client libraries.

mod text;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::containers::State;
use super::engine::Engine;
use super::info;
use text::{Kind, Page};

/// What containers go through, as Docker counts it, and freezing and thawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Changes,
    Commit,
    Create,
    Delete,
    Start,
    Stop,
    Checkpoint,
    Restore,
}

/// In the order of [`Action`].
const DOCKERS: [&str; 6] = ["changes", "commit", "create", "delete", "start", "stop"];
/// Bounds of the buckets in milliseconds. Source: Prometheus's default ones, which Docker has.
const BOUNDS: [u64; 11] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];
/// Source: proc_stat(5) counts in USER_HZ, which is 100 on x86_64 and aarch64.
const TICKS_PER_SECOND: f64 = 100.0;
/// Source: the base page of x86_64 and of the aarch64 kernels dewar is built for.
const PAGE_BYTES: u64 = 4096;

/// How long things took.
#[derive(Debug, Default)]
struct Histogram {
    /// Each has what is above the bound before and not above its own; the last has the rest.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl Histogram {
    fn add(&self, time: Duration) {
        let bucket = BOUNDS.iter().position(|bound| time <= Duration::from_millis(*bound));
        self.buckets[bucket.unwrap_or(BOUNDS.len())].fetch_add(1, Ordering::Relaxed);
        // Wraps after five centuries.
        self.nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn write(&self, page: &mut Page, labels: &[(&str, &str)]) {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let bounds = BOUNDS.iter().map(|bound| (*bound as f64 / 1000.0).to_string());
        let mut total = 0;
        for (count, bound) in counts.iter().zip(bounds.chain(["+Inf".to_owned()])) {
            total += count;
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            page.sample("_bucket", &labels, total as f64);
        }
        page.sample("_sum", labels, Duration::from_nanos(self.nanos.load(Ordering::Relaxed)).as_secs_f64());
        page.sample("_count", labels, total as f64);
    }
}

/// What is counted while it happens.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By [`Action`].
    actions: [Histogram; DOCKERS.len() + 2],
    health_checks: AtomicU64,
    failed_health_checks: AtomicU64,
}

impl Metrics {
    /// Counts what has just succeeded and began then.
    pub fn done(&self, action: Action, began: Instant) {
        self.actions[action as usize].add(began.elapsed());
    }

    /// Counts a probe.
    pub fn probed(&self, is_healthy: bool) {
        self.health_checks.fetch_add(1, Ordering::Relaxed);
        self.failed_health_checks.fetch_add(u64::from(!is_healthy), Ordering::Relaxed);
    }
}

/// All figures as they are now, in Prometheus's text format.
pub fn page(engine: &Engine) -> String {
    let mut page = Page::default();
    let metrics = &engine.metrics;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;

    page.family(
        "engine_daemon_container_actions_seconds",
        Kind::Histogram,
        "The number of seconds it takes to process each container action",
    );
    for (name, histogram) in DOCKERS.iter().zip(&metrics.actions) {
        histogram.write(&mut page, &[("action", name)]);
    }
    let (mut running, mut paused, mut stopped) = (0, 0, 0);
    for container in engine.containers.all() {
        match container.lock().record.state {
            State::Running | State::Restarting => running += 1,
            State::Paused => paused += 1,
            State::Created | State::Removing | State::Exited | State::Dead => stopped += 1,
        }
    }
    page.family(
        "engine_daemon_container_states_containers",
        Kind::Gauge,
        "The count of containers in various states",
    );
    for (state, count) in [("paused", paused), ("running", running), ("stopped", stopped)] {
        page.sample("", &[("state", state)], f64::from(count));
    }
    let host = info::host();
    page.family(
        "engine_daemon_engine_info",
        Kind::Gauge,
        "The information related to the engine and the OS it is running on",
    );
    page.sample(
        "",
        &[
            ("architecture", &host.architecture),
            ("commit", ""),
            ("daemon_id", &engine.id),
            ("graphdriver", "overlay2"),
            ("kernel", &host.kernel),
            ("os", &host.os),
            ("os_type", "linux"),
            ("os_version", &host.os_version),
            ("version", env!("CARGO_PKG_VERSION")),
        ],
        1.0,
    );
    for (name, kind, help, value) in [
        (
            "engine_daemon_engine_cpus_cpus",
            Kind::Gauge,
            "The number of cpus that the host system of the engine has",
            host.cpus as f64,
        ),
        (
            "engine_daemon_engine_memory_bytes",
            Kind::Gauge,
            "The number of bytes of memory that the host system of the engine has",
            host.memory_bytes as f64,
        ),
        (
            "engine_daemon_events_subscribers_total",
            Kind::Gauge,
            "The number of current subscribers to events",
            engine.events.subscribers() as f64,
        ),
        (
            "engine_daemon_events_total",
            Kind::Counter,
            "The number of events logged",
            engine.events.published() as f64,
        ),
        (
            "engine_daemon_health_checks_failed_total",
            Kind::Counter,
            "The total number of failed health checks",
            count(&metrics.failed_health_checks),
        ),
        (
            "engine_daemon_health_checks_total",
            Kind::Counter,
            "The total number of health checks",
            count(&metrics.health_checks),
        ),
        (
            "dewar_images",
            Kind::Gauge,
            "The number of images in the store",
            engine.images.images().len() as f64,
        ),
        (
            "dewar_authorization_plugins",
            Kind::Gauge,
            "The number of plugins that are asked about each request",
            engine.authorization.names().len() as f64,
        ),
    ] {
        page.family(name, kind, help);
        page.sample("", &[], value);
    }
    for (action, name, help) in [
        (
            Action::Checkpoint,
            "dewar_checkpoint_seconds",
            "The number of seconds it takes to freeze a container",
        ),
        (Action::Restore, "dewar_restore_seconds", "The number of seconds it takes to thaw a container"),
    ] {
        page.family(name, Kind::Histogram, help);
        metrics.actions[action as usize].write(&mut page, &[]);
    }
    process(&mut page);
    page.finish()
}

/// The daemon's own process; what the kernel does not tell is left out.
fn process(page: &mut Page) {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/self/stat");
    // The second field is the name in parentheses, which may hold anything.
    let fields: Vec<f64> = stat
        .rsplit_once(") ")
        .map(|(_, rest)| rest.split(' ').map(|field| field.trim().parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    // Source: proc_stat(5), counted from the third field on.
    let [utime, stime, start, virtual_bytes, resident_pages] =
        [11, 12, 19, 20, 21].map(|index| fields.get(index).copied());
    let boot =
        read("/proc/stat").lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    let sum = |one: Option<f64>, other: Option<f64>| Some(one? + other?);
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
    let threads = std::fs::read_dir("/proc/self/task").ok().map(|entries| entries.count() as f64);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let seconds = |ticks: Option<f64>| ticks.map(|ticks| ticks / TICKS_PER_SECOND);
    for (name, kind, help, value) in [
        (
            "process_cpu_seconds_total",
            Kind::Counter,
            "Total user and system CPU time spent in seconds.",
            seconds(sum(utime, stime)),
        ),
        (
            "process_max_fds",
            Kind::Gauge,
            "Maximum number of open file descriptors.",
            limit.map(|fds| fds as f64),
        ),
        ("process_open_fds", Kind::Gauge, "Number of open file descriptors.", open),
        (
            "process_resident_memory_bytes",
            Kind::Gauge,
            "Resident memory size in bytes.",
            resident_pages.map(|pages| pages * PAGE_BYTES as f64),
        ),
        (
            "process_start_time_seconds",
            Kind::Gauge,
            "Start time of the process since unix epoch in seconds.",
            sum(boot, seconds(start)),
        ),
        ("process_threads", Kind::Gauge, "Number of OS threads in the process.", threads),
        ("process_virtual_memory_bytes", Kind::Gauge, "Virtual memory size in bytes.", virtual_bytes),
    ] {
        if let Some(value) = value {
            page.family(name, kind, help);
            page.sample("", &[], value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_their_buckets() {
        let histogram = Histogram::default();
        for millis in [0, 5, 6, 10_000, 10_001] {
            histogram.add(Duration::from_millis(millis));
        }
        let mut page = Page::default();
        page.family("x", Kind::Histogram, "h");
        histogram.write(&mut page, &[("action", "a")]);
        let text = page.finish();
        for line in [
            "x_bucket{action=\"a\",le=\"0.005\"} 2",
            "x_bucket{action=\"a\",le=\"0.01\"} 3",
            "x_bucket{action=\"a\",le=\"5\"} 3",
            "x_bucket{action=\"a\",le=\"10\"} 4",
            "x_bucket{action=\"a\",le=\"+Inf\"} 5",
            "x_sum{action=\"a\"} 20.012",
            "x_count{action=\"a\"} 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn each_action_has_its_own() {
        let metrics = Metrics::default();
        let began = Instant::now();
        metrics.done(Action::Stop, began);
        metrics.done(Action::Restore, began);
        assert_eq!(DOCKERS[Action::Stop as usize], "stop");
        let counts: Vec<u64> = metrics
            .actions
            .iter()
            .map(|histogram| histogram.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum())
            .collect();
        assert_eq!(counts, [0, 0, 0, 0, 0, 1, 0, 1]);
    }

    #[test]
    fn the_process_is_this_one() {
        let mut page = Page::default();
        process(&mut page);
        let text = page.finish();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_default()
        };
        let now = jiff::Timestamp::now().as_second() as f64;
        assert!((now - 3600.0..=now + 1.0).contains(&value("process_start_time_seconds")), "{text}");
        assert!(value("process_resident_memory_bytes") > 1e6, "{text}");
        assert!(value("process_open_fds") >= 3.0 && value("process_threads") >= 1.0, "{text}");
    }
}
