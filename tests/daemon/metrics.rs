//! The metrics endpoint: a page Prometheus can read, with figures that are true, and nothing else.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::daemon::BUSYBOX;
use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, busybox_tar, eventually};

/// `127.0.0.1:PORT`, which the daemon has chosen.
#[track_caller]
fn address(daemon: &Daemon) -> String {
    let log = daemon.log();
    let place = log.split("metrics are served on http://").nth(1);
    place.and_then(|rest| rest.split('/').next()).unwrap_or_else(|| panic!("no address: {log}")).to_owned()
}

#[track_caller]
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the daemon listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers in text");
    answer
}

/// Every sample by its name and labels, as written. Panics at whatever Prometheus's parser would not take, and
/// at what `promtool check metrics` would complain of.
#[track_caller]
fn read(page: &str) -> BTreeMap<String, f64> {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    assert!(page.ends_with('\n'), "the last line has an end");
    let mut samples = BTreeMap::new();
    let mut families = BTreeMap::<String, String>::new();
    let (mut helped, mut family) = (String::new(), String::new());
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("help has a text");
            assert!(is_name(name) && !help.trim().is_empty(), "{line}");
            helped = name.to_owned();
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type is a word");
            assert_eq!(name, helped, "help, then type, then samples");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total") && kind != "gauge", "{line}");
            assert!(families.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
            family = name.to_owned();
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line:?}"));
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert!(is_name(name), "{line}");
        let suffix = name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("of no family: {line:?}"));
        let suffixes: &[&str] = match families[&family].as_str() {
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        assert!(suffixes.contains(&suffix), "{line}");
        let mut rest = labels;
        while rest != "}" {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line:?}"));
            assert!(is_name(label), "{line}");
            let mut characters = after.char_indices();
            let end = loop {
                match characters.next().unwrap_or_else(|| panic!("no end: {line:?}")) {
                    (_, '\\') => assert!(matches!(characters.next(), Some((_, '\\' | '"' | 'n'))), "{line}"),
                    (at, '"') => break at,
                    _ => {}
                }
            };
            rest = &after[end + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
    }
    // Buckets rise, and the last one has everything.
    for (series, count) in samples.iter().filter(|(series, _)| series.contains("_bucket{")) {
        let (start, le) = series.split_once("le=\"").expect("a bucket has a bound");
        let others = samples.iter().filter(|(other, _)| other.starts_with(&format!("{start}le=\"")));
        let bound = |text: &str| text.trim_end_matches("\"}").parse::<f64>().expect("a bound is a number");
        for (other, other_count) in others {
            let other_le = other.rsplit("le=\"").next().expect("chosen by it");
            assert!((bound(other_le) >= bound(le)) || other_count <= count, "{series} and {other}");
        }
        if le.starts_with("+Inf") {
            let labels = start.split_once("_bucket{").expect("chosen by it");
            let labels = (labels.0, labels.1.trim_end_matches(','));
            let total = match labels.1 {
                "" => format!("{}_count", labels.0),
                some => format!("{}_count{{{some}}}", labels.0),
            };
            assert_eq!(samples.get(&total), Some(count), "{total}");
        }
    }
    samples
}

#[track_caller]
fn figures(address: &str) -> BTreeMap<String, f64> {
    let answer = get(address, "/metrics");
    let (head, page) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    read(page)
}

#[test]
fn figures_follow_what_happens() {
    requires!(root);
    let daemon = Daemon::on_host(&["--metrics-addr", "127.0.0.1:0"], &[]);
    daemon.dewar(&["import"]).arg(busybox_tar()).arg(BUSYBOX).ok();
    let address = address(&daemon);
    let before = figures(&address);
    const ACTION: &str = "engine_daemon_container_actions_seconds_count";
    let actions = |figures: &BTreeMap<String, f64>| {
        ["create", "start", "stop", "changes", "commit", "delete"]
            .map(|action| figures[&format!("{ACTION}{{action=\"{action}\"}}")])
    };
    assert_eq!(actions(&before), [0.0; 6]);
    assert_eq!(before["dewar_images"], 1.0);
    assert_eq!(
        before["engine_daemon_engine_cpus_cpus"],
        daemon.api("GET", "/info").json()["NCPU"].as_f64().unwrap_or(0.0)
    );
    assert!(
        before["engine_daemon_engine_memory_bytes"] > 1e8 && before["process_resident_memory_bytes"] > 1e6
    );
    let info = before.keys().find(|series| series.starts_with("engine_daemon_engine_info{"));
    let id = daemon.api("GET", "/info").json()["ID"].as_str().unwrap_or_default().to_owned();
    assert!(info.is_some_and(|series| series.contains(&format!("daemon_id=\"{id}\""))), "{info:?}");

    let flags = ["--health-cmd", "false", "--health-interval", "100ms"];
    daemon.run_detached("web", &flags, "exec sleep 1000");
    daemon.dewar(&["create", "--network", "none", "--name", "other", BUSYBOX, "true"]).ok();
    const STATES: &str = "engine_daemon_container_states_containers";
    let states = |figures: &BTreeMap<String, f64>| {
        ["running", "paused", "stopped"].map(|state| figures[&format!("{STATES}{{state=\"{state}\"}}")])
    };
    assert_eq!(states(&figures(&address)), [1.0, 0.0, 1.0]);
    eventually("a failed check", || figures(&address)["engine_daemon_health_checks_failed_total"] >= 1.0);
    daemon.dewar(&["pause", "web"]).ok();
    assert_eq!(states(&figures(&address)), [0.0, 1.0, 1.0]);
    daemon.dewar(&["unpause", "web"]).ok();
    daemon.dewar(&["stop", "-t", "0", "web"]).ok();
    daemon.dewar(&["diff", "web"]).ok();
    daemon.dewar(&["commit", "web", "new"]).ok();
    daemon.dewar(&["rm", "web", "other"]).ok();

    let after = figures(&address);
    assert_eq!(actions(&after), [2.0, 1.0, 1.0, 1.0, 1.0, 2.0]);
    assert_eq!(states(&after), [0.0; 3]);
    assert_eq!(after["dewar_images"], 2.0);
    assert!(after["engine_daemon_container_actions_seconds_sum{action=\"start\"}"] > 0.0);
    assert!(after["engine_daemon_health_checks_total"] >= after["engine_daemon_health_checks_failed_total"]);
    assert!(after["engine_daemon_events_total"] >= before["engine_daemon_events_total"] + 8.0);
    assert!(after["process_cpu_seconds_total"] >= before["process_cpu_seconds_total"]);
}

#[test]
fn freezing_and_thawing_is_timed() {
    requires!(root, criu);
    let criu = crate::support::requires::criu_path().expect("required above").display().to_string();
    let daemon = Daemon::on_host(&["--criu", &criu, "--metrics-addr", ":0"], &[]);
    daemon.dewar(&["import"]).arg(busybox_tar()).arg(BUSYBOX).ok();
    daemon.run_detached("web", &[], "exec sleep 1000");
    daemon.dewar(&["checkpoint", "create", "web", "cp"]).ok();
    daemon.dewar(&["start", "--checkpoint", "cp", "web"]).ok();
    let figures = figures(&address(&daemon));
    assert_eq!(
        (figures["dewar_checkpoint_seconds_count"], figures["dewar_restore_seconds_count"]),
        (1.0, 1.0)
    );
    assert!(figures["dewar_checkpoint_seconds_sum"] > 0.0 && figures["dewar_restore_seconds_sum"] > 0.0);
}

#[test]
fn the_listener_has_nothing_else() {
    requires!(root, curl);
    let daemon = Daemon::on_host(&["--metrics-addr", "localhost:0"], &[]);
    let address = address(&daemon);
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    for path in ["/", "/containers/json", "/v1.51/containers/json", "/_ping", "/metrics/"] {
        assert!(get(&address, path).starts_with("HTTP/1.1 404 "), "{path}");
    }
    let page = Cmd::new("curl").args(["-sSf", &format!("http://{address}/metrics")]).ok().stdout;
    assert!(read(&page).contains_key("engine_daemon_events_total"));
    Cmd::new("curl").args(["-sSfI", &format!("http://{address}/metrics")]).ok().stdout_has("200 OK");
    daemon.api("GET", "/metrics").is(404);
}

#[test]
fn an_address_that_is_none_or_taken_is_refused() {
    requires!(root);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let taken = taken.local_addr().map(|address| (taken, address.to_string())).expect("it is bound");
    let dir = crate::support::TempDir::new();
    let path = |name: &str| dir.path().join(name).display().to_string();
    for (address, part) in [
        ("9323", "expected ADDRESS:PORT"),
        ("127.0.0.1", "expected ADDRESS:PORT"),
        (taken.1.as_str(), "for metrics"),
    ] {
        let output = Cmd::new(crate::support::binary())
            .args(["daemon", "--metrics-addr", address, "-H", &format!("unix://{}", path("x.sock"))])
            .args(["--data-root", &path("data"), "--exec-root", &path("run")])
            .run();
        assert_eq!(output.code, 1, "{output}");
        output.stderr_has("failed to start daemon").stderr_has(part).no_panic();
    }
}

/// A reader that took everything would prove nothing.
#[test]
fn the_reader_of_these_tests_is_strict() {
    read("# HELP a_total h\n# TYPE a_total counter\na_total{b=\"c\\\"\"} 1\n");
    for page in [
        "a 1\n",
        "# HELP a h\n# TYPE a gauge\na 1",
        "# TYPE a gauge\na 1\n",
        "# HELP a h\n# TYPE a gauge\nb 1\n",
        "# HELP a h\n# TYPE a gauge\na x\n",
        "# HELP a h\n# TYPE a gauge\na 1\na 1\n",
        "# HELP a h\n# TYPE a gauge\na{b=c} 1\n",
        "# HELP a h\n# TYPE a gauge\na{b=\"\\x\"} 1\n",
        "# HELP a h\n# TYPE a counter\na 1\n",
        "# HELP a h\n# TYPE a histogram\na_bucket{le=\"+Inf\"} 2\na_sum 1\na_count 1\n",
        "# HELP a h\n# TYPE a histogram\na_bucket{le=\"1\"} 3\na_bucket{le=\"+Inf\"} 2\na_sum 1\na_count 2\n",
    ] {
        assert!(std::panic::catch_unwind(|| read(page)).is_err(), "taken: {page}");
    }
}
