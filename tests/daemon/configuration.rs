//! Flags and the configuration file: what counts, what is refused, what containers get from it.

use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, TempDir, binary};

/// A configuration file in a directory of its own.
pub fn file(text: &str) -> (TempDir, String) {
    let dir = TempDir::new();
    let path = dir.path().join("daemon.json");
    std::fs::write(&path, text).expect("a fresh directory");
    let path = path.display().to_string();
    (dir, path)
}

/// `dewar daemon --validate --config-file …`
fn validate(text: &str, flags: &[&str]) -> crate::support::Output {
    let (_dir, path) = file(text);
    Cmd::new(binary()).args(["daemon", "--validate", "--config-file", &path]).args(flags).run()
}

#[test]
fn a_file_is_checked_without_a_daemon() {
    let good = validate(
        r#"{"debug": true, "labels": ["a=b"], "hosts": ["unix:///x"], "mtu": 1400, "containerd": "/c"}"#,
        &[],
    );
    assert_eq!(good.code, 0, "{good}");
    good.stderr_has("configuration OK").stderr_has("containerd (");
    for (text, flags, part) in [
        (r#"{"debgu": 1, "lables": []}"#, &[][..], "don't match any configuration option: debgu, lables"),
        (r#"{"debug": false}"#, &["-D"], "debug: (from flag: true, from file: false)"),
        ("{", &[], "daemon.json: EOF"),
        (r#"{"hosts": ["bogus://x"]}"#, &[], "bogus://x"),
        (r#"{"userns-remap": "default"}"#, &[], "user namespaces"),
        (r#"{"log-level": "loud"}"#, &[], "expected error, warn"),
    ] {
        let output = validate(text, flags);
        assert_eq!(output.code, 1, "{output}");
        output.stderr_has("failed to start daemon").stderr_has(part).no_panic();
    }
    let absent = Cmd::new(binary()).args(["daemon", "--validate", "--config-file", "/nowhere/x.json"]).run();
    assert_eq!(absent.code, 1, "{absent}");
    absent.stderr_has("/nowhere/x.json: No such file");
}

#[test]
fn a_file_configures_the_daemon_and_what_containers_get() {
    requires!(root, docker);
    let (_dir, path) = file(
        r#"{
            "debug": true,
            "labels": ["rack=7", "zone=b"],
            "live-restore": true,
            "registry-mirrors": ["https://mirror.example"],
            "insecure-registries": ["registry.example:5000", "10.0.0.0/8"],
            "proxies": {"https-proxy": "http://user:secret@proxy.example:3128", "no-proxy": "localhost"},
            "default-shm-size": "32M",
            "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 77, "Soft": 66}},
            "no-new-privileges": true,
            "init": true,
            "dns": ["192.0.2.53"],
            "dns-search": ["example.test"],
            "hosts": ["unix:///nonexistent/of-the-file.sock"],
            "exec-opts": ["x"]
        }"#,
    );
    // The test's daemon says -H: the trap in which dockerd refuses to start.
    let daemon = Daemon::with(&["--config-file", &path], &[]);
    daemon.dewar(&["import"]).arg(crate::support::busybox_tar()).arg("busybox").ok();
    let info = daemon.api("GET", "/info").is(200).json();
    assert_eq!(info["Labels"], serde_json::json!(["rack=7", "zone=b"]));
    assert_eq!((&info["Debug"], &info["LiveRestoreEnabled"]), (&true.into(), &true.into()));
    assert_eq!(info["RegistryConfig"]["Mirrors"][0], "https://mirror.example/");
    assert_eq!(info["RegistryConfig"]["InsecureRegistryCIDRs"][0], "10.0.0.0/8");
    assert_eq!(info["RegistryConfig"]["IndexConfigs"]["registry.example:5000"]["Secure"], false);
    assert_eq!(info["HttpsProxy"], "http://xxxxx:xxxxx@proxy.example:3128");
    daemon.docker(&["info"]).ok().stdout_has("rack=7").stdout_has("mirror.example");
    let log = daemon.log();
    assert!(log.contains("of-the-file.sock] of the configuration file does not"), "{log}");
    assert!(log.contains("exec-opts ("), "what is ignored is said: {log}");
    let script = "ulimit -n; df /dev/shm | tail -n1; cat /etc/resolv.conf; grep NoNewPrivs /proc/self/status; cat /proc/1/comm";
    let output = daemon.run(&[], script).ok().stdout;
    for part in
        ["66\n", "32768", "nameserver 192.0.2.53", "search example.test", "NoNewPrivs:\t1", "docker-init"]
    {
        assert!(output.contains(part), "{part:?} in {output}");
    }
    // What a container says for itself counts more.
    let flags = [
        "--ulimit",
        "nofile=55",
        "--shm-size",
        "16m",
        "--dns",
        "192.0.2.1",
        "--security-opt",
        "no-new-privileges=false",
    ];
    let output = daemon.run(&flags, script).ok().stdout;
    for part in ["55\n", "16384", "nameserver 192.0.2.1", "NoNewPrivs:\t0"] {
        assert!(output.contains(part), "{part:?} in {output}");
    }
}

#[test]
fn a_seccomp_profile_of_the_daemon_reaches_containers() {
    requires!(root);
    let dir = TempDir::new();
    let profile = dir.path().join("seccomp.json");
    let rule = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    std::fs::write(&profile, rule).expect("a fresh directory");
    let daemon = Daemon::with(&["--seccomp-profile", &profile.display().to_string()], &[]);
    daemon.dewar(&["import"]).arg(crate::support::busybox_tar()).arg("busybox").ok();
    daemon.run(&[], "mkdir /tmp/x").fails(1).stderr_has("not permitted");
    daemon.run(&["--security-opt", "seccomp=unconfined"], "mkdir -p /tmp/x").ok();
    daemon.run(&["--privileged"], "mkdir -p /tmp/x").ok();
}

#[test]
fn the_version_needs_no_daemon_and_words_are_refused() {
    Cmd::new(binary()).args(["daemon", "--version"]).ok().stdout_has("dewar version ");
    Cmd::new(binary()).args(["daemon", "run"]).fails(1).stderr_has("dewar daemon");
}
