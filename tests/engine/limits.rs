//! What containers use and may use: `stats` and `update`.

use serde_json::json;

use crate::support::requires::requires;
use crate::support::{Daemon, eventually};

/// The value of the first of a cgroup's files that exists, v1's or v2's, as the container sees it.
fn limit(daemon: &Daemon, name: &str, v1: &str, v2: &str) -> String {
    let script = format!("cd /sys/fs/cgroup; cat {v1} 2>/dev/null || cat {v2}");
    daemon.docker(&["exec", name, "sh", "-c", &script]).ok().trimmed().to_owned()
}

#[test]
fn figures_are_those_of_what_runs() {
    requires!(root, docker, docker_py);
    let daemon = Daemon::start();
    daemon.run_detached("busy", &["--cpus", "0.5"], "while :; do :; done");
    let fill = "dd if=/dev/zero of=/dev/shm/f bs=1M count=30 2>/dev/null; echo full; exec sleep 1000";
    daemon.run_detached("full", &["--memory", "128m", "--pids-limit", "40"], fill);
    daemon.docker(&["create", "--name", "idle", "--network", "none", "busybox", "true"]).ok();
    eventually("it being full", || daemon.logs("full").contains("full"));
    let lines = daemon.docker(&["stats", "--no-stream", "--format", "json"]).ok().stdout;
    let row = |name: &str| {
        lines
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("an object"))
            .find(|row| row["Name"] == name)
            .unwrap_or_else(|| panic!("no row of {name} in {lines}"))
    };
    let percent = |text: &serde_json::Value| -> f64 {
        text.as_str().and_then(|text| text.trim_end_matches('%').parse().ok()).expect("a percentage")
    };
    // Half a processor; less on a machine that is busy with other things.
    let busy = percent(&row("busy")["CPUPerc"]);
    assert!((2.0..70.0).contains(&busy), "{busy} % of a processor");
    let full = row("full");
    assert!((23.0..35.0).contains(&percent(&full["MemPerc"])), "{full}");
    assert!(full["MemUsage"].as_str().is_some_and(|text| text.ends_with("/ 128MiB")), "{full}");
    assert_eq!(full["PIDs"], "1");
    assert!(!lines.contains("idle"), "what does not run is shown with --all only");
    daemon.docker(&["stats", "--no-stream", "--all"]).ok().stdout_has("idle");
    let script = r#"
import os
stats = client.containers.get('busy').stats(stream=False)
cpu, before = stats['cpu_stats'], stats['precpu_stats']
assert stats['name'] == '/busy' and stats['id'] and stats['read'] > stats['preread'], stats
used = cpu['cpu_usage']['total_usage'] - before['cpu_usage']['total_usage']
machine = cpu['system_cpu_usage'] - before['system_cpu_usage']
assert 0 < used < machine, (used, machine)
assert cpu['online_cpus'] == os.cpu_count(), cpu
usage = cpu['cpu_usage']
assert usage['usage_in_usermode'] > usage['usage_in_kernelmode'] >= 0, usage
if 'percpu_usage' in usage:
    assert len(usage['percpu_usage']) >= os.cpu_count() and 0 < sum(usage['percpu_usage']), usage
assert cpu['throttling_data']['periods'] > 0, cpu
memory = client.containers.get('full').stats(stream=False)
assert memory['pids_stats'] == {'current': 1, 'limit': 40}, memory['pids_stats']
memory = memory['memory_stats']
assert memory['limit'] == 128 << 20, memory['limit']
assert 30 << 20 <= memory['usage'] < 60 << 20, memory['usage']
stream = client.containers.get('full').stats(stream=True, decode=True)
first = next(stream)
assert first['precpu_stats']['cpu_usage']['total_usage'] == 0, first['precpu_stats']
second = next(stream)
assert second['precpu_stats'] == first['cpu_stats'], second
idle = client.containers.get('idle').stats(stream=False)
assert idle['name'] == '/idle' and idle['cpu_stats']['cpu_usage']['total_usage'] == 0, idle
client.containers.get('full').remove(force=True)
for _ in stream: pass
"#;
    daemon.python(script).ok();
    let once = daemon.api("GET", "/containers/busy/stats?stream=false&one-shot=true").is(200).json();
    assert_eq!(once["precpu_stats"]["cpu_usage"]["total_usage"], 0);
    assert_ne!(once["cpu_stats"]["cpu_usage"]["total_usage"], 0);
}

#[test]
fn limits_change_under_a_running_container_and_stay() {
    requires!(root, docker, docker_py);
    let daemon = Daemon::start();
    daemon.run_detached("web", &["--memory", "64m"], "exec sleep 1000");
    let memory = |name| limit(&daemon, name, "memory/memory.limit_in_bytes", "memory.max");
    let pids = |name| limit(&daemon, name, "pids/pids.max", "pids.max");
    assert_eq!(memory("web"), (64 << 20).to_string());
    let update = |flags: &[&str]| daemon.docker(&["update"]).args(flags).arg("web");
    update(&["--memory", "96m", "--memory-swap", "200m", "--pids-limit", "77", "--cpu-shares", "512"])
        .ok()
        .stdout_is("web\n");
    assert_eq!((memory("web"), pids("web")), ((96 << 20).to_string(), "77".to_owned()));
    // More than memory and swap together.
    update(&["--memory", "300m"]).fails(1).stderr_has(
        "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
    );
    update(&["--memory", "1m"]).fails(1).stderr_has("Minimum memory limit allowed is 6MB");
    update(&["--cpus", "0.5"]).ok();
    update(&["--cpu-quota", "40000"])
        .fails(1)
        .stderr_has("Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set");
    // Refused by the kernel or before: nothing of it holds.
    update(&["--pids-limit", "55", "--cpuset-cpus", "4090"]).fails(1);
    assert_eq!(pids("web"), "77");
    let shown = daemon.api("GET", "/containers/web/json").is(200).json()["HostConfig"].clone();
    assert_eq!(
        (
            &shown["Memory"],
            &shown["MemorySwap"],
            &shown["PidsLimit"],
            &shown["NanoCpus"],
            &shown["CpuShares"]
        ),
        (&json!(96 << 20), &json!(200 << 20), &json!(77), &json!(500_000_000), &json!(512)),
        "{shown}"
    );
    daemon.docker(&["restart", "-t", "0", "web"]).ok();
    assert_eq!((memory("web"), pids("web")), ((96 << 20).to_string(), "77".to_owned()));
    update(&["--pids-limit", "-1"]).ok();
    assert_eq!(pids("web"), "max");
    let script = "
web = client.containers.get('web')
assert web.update(cpu_shares=256, mem_limit='80m', cpuset_cpus='0') == {'Warnings': []}
web.reload()
host = web.attrs['HostConfig']
assert (host['CpuShares'], host['Memory'], host['CpusetCpus']) == (256, 80 << 20, '0'), host
try:
    web.update(mem_limit='1g')
    raise SystemExit('accepted')
except docker.errors.APIError as error:
    assert error.status_code == 409, error
";
    daemon.python(script).ok();
    // What is stopped is changed on paper.
    daemon.docker(&["stop", "-t", "0", "web"]).ok();
    update(&["--memory", "72m"]).ok();
    daemon.docker(&["start", "web"]).ok();
    assert_eq!(memory("web"), (72 << 20).to_string());
    let told = super::events::told(&daemon, &["--filter", "event=update", "--format", "{{.Action}}"]);
    assert_eq!(told.len(), 5);
    daemon.docker(&["update", "--memory", "72m", "nope"]).fails(1).stderr_has("No such container: nope");
}
