//! The root filesystem and what is mounted over it.

use crate::support::requires::requires;
use crate::support::{Cmd, Daemon};

#[test]
fn the_root_is_an_overlay_that_can_be_watched() {
    requires!(root);
    let daemon = Daemon::start();
    let root = daemon
        .run(&[], "grep ' / / ' /proc/self/mountinfo || grep ' / ' /proc/self/mountinfo | head -n 1")
        .ok();
    // Without both, a program that uses inotify cannot be frozen.
    root.stdout_has("overlay").stdout_has("index=on").stdout_has("nfs_export=on");
}

#[test]
fn the_host_cannot_be_seen() {
    requires!(root);
    let daemon = Daemon::start();
    let mounts = daemon.run(&[], "cat /proc/self/mountinfo").ok();
    // The overlay names its layers; nothing else names the host's directories.
    let dir = daemon.dir().display().to_string();
    for line in mounts.stdout.lines().filter(|line| line.contains(&dir)) {
        let point = line.split(' ').nth(4).unwrap_or_default();
        assert!(["/", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"].contains(&point), "{line}");
    }
    daemon
        .run(&[], "ls -a / | grep -c pivot || true; ls -a / | grep -c old || true")
        .ok()
        .stdout_is("0\n0\n");
}

#[test]
fn writes_stay_in_the_container() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run(&[], "echo x > /bin/new; rm /bin/ls; echo y > /etc/passwd").ok();
    daemon
        .run(&[], "ls /bin/new 2>&1; test -e /bin/ls && grep -c root /etc/passwd")
        .ok()
        .stdout_has("No such file")
        .stdout_has("1\n");
}

#[test]
fn proc_and_sys_are_masked() {
    requires!(root);
    let daemon = Daemon::start();
    daemon
        .run(&[], "cat /proc/kcore | wc -c; cat /proc/keys 2> /dev/null | wc -c; ls /sys/firmware | wc -l")
        .ok()
        .stdout_is("0\n0\n0\n");
    daemon.run(&[], "echo x > /proc/sys/kernel/hostname 2>&1 || echo refused").ok().stdout_has("refused");
    daemon.run(&[], "echo b > /proc/sysrq-trigger 2>&1 || echo refused").ok().stdout_has("refused");
    daemon
        .run(&[], "mkdir /sys/fs/x 2>&1 || echo refused; touch /sys/kernel/x 2>&1 || echo refused")
        .ok()
        .stdout_has("refused");
}

#[test]
fn dev_shm_and_mqueue_and_pts_are_there() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run(&[], "df -k /dev/shm | tail -n 1 | awk '{print $2}'").ok().stdout_is("65536\n");
    daemon
        .run(&["--shm-size", "8m"], "df -k /dev/shm | tail -n 1 | awk '{print $2}'")
        .ok()
        .stdout_is("8192\n");
    daemon
        .run(&[], "echo x > /dev/shm/file && cat /dev/shm/file; grep -c ' /dev/mqueue ' /proc/self/mountinfo")
        .ok()
        .stdout_is("x\n1\n");
    daemon.run(&["-t"], "tty").ok().stdout_has("/dev/pts/0");
}

#[test]
fn tmpfs_can_be_asked_for() {
    requires!(root);
    let daemon = Daemon::start();
    let output = daemon
        .run(
            &["--tmpfs", "/scratch:size=1m,mode=1777"],
            "df -k /scratch | tail -n 1 | awk '{print $2}'; grep ' /scratch ' /proc/self/mountinfo",
        )
        .ok();
    output.stdout_has("1024\n").stdout_has("nosuid").stdout_has("noexec");
}

#[test]
fn mounts_do_not_come_back_to_the_host() {
    requires!(root);
    let daemon = Daemon::start();
    let shared = daemon.dir().join("shared");
    std::fs::create_dir(&shared).expect("a fresh directory");
    let bind = format!("{}:/data", shared.display());
    daemon.run_detached(
        "web",
        &["--privileged", "-v", &bind],
        "mkdir /data/m; mount -t tmpfs none /data/m; touch /data/m/inside; exec sleep 1000",
    );
    crate::support::eventually("the mount", || {
        daemon.dewar(&["exec", "web", "test", "-e", "/data/m/inside"]).run().code == 0
    });
    assert!(!shared.join("m/inside").exists());
    Cmd::new("grep").arg("-q").arg(shared.join("m")).arg("/proc/self/mountinfo").fails(1);
}

#[test]
fn names_are_resolved_inside_the_container() {
    requires!(root);
    let daemon = Daemon::start();
    // The image's own links must not lead a mount to the host.
    let script = "rm -rf /data; ln -s /etc /data";
    daemon.dewar(&["run", "--name", "web", "--network", "none", "busybox", "sh", "-c", script]).ok();
    daemon.run(&[], "cat /etc/hosts; cat /etc/resolv.conf; cat /etc/hostname").ok().stdout_has("localhost");
    let before = std::fs::read_to_string("/etc/passwd").expect("the host has users");
    daemon.dewar(&["start", "-a", "web"]).run();
    assert_eq!(std::fs::read_to_string("/etc/passwd").expect("the host has users"), before);
}
