//! Namespaces, capabilities, seccomp, no_new_privs, rlimits, sysctls, devices.

use crate::support::Daemon;
use crate::support::requires::requires;

#[test]
fn each_namespace_is_its_own() {
    requires!(root);
    let daemon = Daemon::start();
    for kind in ["mnt", "pid", "net", "ipc", "uts"] {
        let host = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a kernel with namespaces");
        let inside = daemon.run(&[], &format!("readlink /proc/self/ns/{kind}")).ok();
        assert_ne!(inside.trimmed(), host.to_string_lossy(), "{kind}");
    }
    daemon.run(&[], "echo $$; ls /proc | grep -c '^[0-9]'").ok().stdout_has("1\n");
    // The host's can be asked for.
    let host = std::fs::read_link("/proc/self/ns/pid").expect("a kernel with namespaces");
    let inside = daemon.run(&["--pid", "host"], "readlink /proc/self/ns/pid").ok();
    assert_eq!(inside.trimmed(), host.to_string_lossy());
}

/// `CapEff` as dewar's default gives it: Docker's fourteen.
const DEFAULT_CAPABILITIES: &str = "00000000a80425fb";

#[test]
fn capabilities_are_dockers() {
    requires!(root);
    let daemon = Daemon::start();
    let set = |flags: &[&str], name: &str| {
        let output = daemon.run(flags, &format!("sed -n 's/^{name}:.//p' /proc/self/status")).ok();
        u64::from_str_radix(output.trimmed(), 16).unwrap_or_else(|_| panic!("not a set: {output}"))
    };
    let default = u64::from_str_radix(DEFAULT_CAPABILITIES, 16).expect("hexadecimal");
    for name in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(set(&[], name), default, "{name}");
    }
    assert_eq!(set(&[], "CapInh"), 0);
    assert_eq!(set(&["--cap-drop", "ALL"], "CapEff"), 0);
    assert_eq!(set(&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"], "CapBnd"), 1 << 12);
    assert_eq!(set(&["--cap-drop", "chown"], "CapEff"), default & !1);
    assert_eq!(set(&["--cap-add", "CAP_SYS_PTRACE"], "CapEff"), default | 1 << 19);
    // A user that is not root has none in effect, but may gain those of the bounding set through a file.
    assert_eq!(set(&["-u", "1000"], "CapEff"), 0);
    assert_eq!(set(&["-u", "1000"], "CapBnd"), default);
    let full = set(&["--privileged"], "CapEff");
    assert!(full & default == default && full & 1 << 21 != 0, "{full:x}");
}

#[test]
fn seccomp_filters_and_can_be_turned_off() {
    requires!(root);
    let daemon = Daemon::start();
    let field = |flags: &[&str], name: &str| {
        daemon.run(flags, &format!("sed -n 's/^{name}:.//p' /proc/self/status")).ok().trimmed().to_owned()
    };
    assert_eq!(field(&[], "Seccomp"), "2");
    assert_eq!(field(&["--security-opt", "seccomp=unconfined"], "Seccomp"), "0");
    assert_eq!(field(&["--privileged"], "Seccomp"), "0");
    // Refused although the capability is there: seccomp gates by what the default profile says.
    daemon.run(&[], "unshare -m true 2>&1").run().stdout_has("not permitted");
    daemon
        .run(&[], "mount -t tmpfs none /mnt 2>&1 || mount -t tmpfs none /tmp 2>&1")
        .run()
        .stdout_has("ermi");
    assert_eq!(field(&["--security-opt", "no-new-privileges"], "NoNewPrivs"), "1");
    assert_eq!(field(&[], "NoNewPrivs"), "0");
    daemon.run(&["--security-opt", "nonsense=1"], "true").fails(125);
}

#[test]
fn ordinary_programs_are_not_hindered() {
    requires!(root);
    let daemon = Daemon::start();
    // fork, threads' clone, sockets, signals, files, time, chown, chmod, mknod of pipes, setuid
    let script = "set -e; mkdir /x; cd /x; echo a > f; chmod 600 f; chown 1000:1000 f; ln f g; ln -s f h; mkfifo p; \
                  (sleep 0.01 & wait); kill -0 $$; date > /dev/null; ls -l > /dev/null; su user -c 'id -u' | grep -q 1000; \
                  (nc -l -p 99 127.0.0.1 < /dev/null > got &) ; sleep 0.2; echo hello | nc -w 1 127.0.0.1 99; rm -r /x; echo fine";
    daemon.run(&[], script).run().stdout_has("fine");
}

#[test]
fn devices_are_the_usual_ones_and_no_others() {
    requires!(root);
    let daemon = Daemon::start();
    let list = daemon.run(&[], "cd /dev; for d in null zero full random urandom tty; do test -c $d || echo no $d; done; ls -l fd stdin ptmx").ok();
    list.stdout_lacks("no ").stdout_has("/proc/self/fd").stdout_has("pts/ptmx");
    daemon
        .run(&[], "echo x > /dev/null; head -c 3 /dev/zero | wc -c; echo x > /dev/full || echo full")
        .ok()
        .stdout_is("3\nfull\n");
    // A node of the host's disk can be made, but not opened.
    daemon
        .run(&[], "mknod /tmp/disk b 8 0 && head -c 1 /tmp/disk 2>&1")
        .run()
        .stdout_has("Operation not permitted");
    daemon.run(&["--device", "/dev/fuse"], "test -c /dev/fuse").run().no_panic();
}

#[test]
fn limits_and_sysctls_are_set() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run(&["--ulimit", "nofile=100:200"], "ulimit -n; ulimit -Hn").ok().stdout_is("100\n200\n");
    daemon
        .run(&["--sysctl", "net.ipv4.ip_forward=1"], "cat /proc/sys/net/ipv4/ip_forward")
        .ok()
        .stdout_is("1\n");
    // One that is the host's own.
    let output = daemon.run(&["--sysctl", "kernel.panic=1"], "true").run();
    assert_eq!(output.code, 125, "{output}");
    // A process cannot be frozen with MPTCP sockets: Go falls back to TCP when it is off.
    daemon.run(&[], "cat /proc/sys/net/mptcp/enabled 2> /dev/null || echo 0").ok().stdout_is("0\n");
}

#[test]
fn a_privileged_container_can_do_what_root_can() {
    requires!(root);
    let daemon = Daemon::start();
    daemon
        .run(
            &["--privileged"],
            "mkdir -p /mnt && mount -t tmpfs none /mnt && mount | grep -q ' /mnt ' && echo yes",
        )
        .ok()
        .stdout_is("yes\n");
    daemon.run(&["--privileged"], "test -w /proc/sys/kernel/hostname && echo yes").ok().stdout_is("yes\n");
}

#[test]
fn no_descriptor_of_the_engine_leaks() {
    requires!(root);
    let daemon = Daemon::start();
    // 0, 1, 2 and the directory that ls reads.
    daemon.run(&[], "ls /proc/self/fd | wc -l").ok().stdout_is("4\n");
    daemon.run(&[], "ls -l /proc/1/fd").ok().stdout_lacks("/dewar");
    daemon.run_detached("web", &[], "exec sleep 1000");
    daemon.dewar(&["exec", "web", "sh", "-c", "ls /proc/self/fd | wc -l"]).ok().stdout_is("4\n");
}

#[test]
fn exec_is_confined_as_the_container() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached(
        "web",
        &["--cap-drop", "ALL", "--security-opt", "no-new-privileges"],
        "exec sleep 1000",
    );
    let status = daemon
        .dewar(&["exec", "web", "grep", "-E", "^(CapEff|CapBnd|Seccomp|NoNewPrivs):", "/proc/self/status"])
        .ok();
    status.stdout_has("CapEff:\t0000000000000000").stdout_has("CapBnd:\t0000000000000000");
    status.stdout_has("Seccomp:\t2").stdout_has("NoNewPrivs:\t1");
}
