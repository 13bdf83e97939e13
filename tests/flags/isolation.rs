//! Namespaces, privileges, devices, and what of the root can be written to.

use super::{BOTH, file, inside, refused, shows};
use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, eventually};

#[test]
fn what_can_be_written_to() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let script = "for f in /x /etc/hosts /dev/shm/x /dev/x /run/x; do ( : > $f ) 2> /dev/null && echo $f; done; \
                  grep -E ' (/run|/dev/shm) ' /proc/mounts | sed 's/,relatime//' | sort";
    let expected = "/dev/shm/x\n/dev/x\n/run/x\nshm /dev/shm tmpfs rw,nosuid,nodev,noexec,size=8192k 0 0\n\
                    tmpfs /run tmpfs rw,nosuid,nodev,size=1024k,mode=700,uid=1000 0 0\n";
    inside(
        &daemon,
        "--read-only --shm-size 8m --tmpfs /run:size=1m,mode=700,uid=1000,exec",
        script,
        expected,
    );
    inside(
        &daemon,
        "--tmpfs /t",
        "stat -c %a /t; grep ' /t ' /proc/mounts | grep -c nosuid,nodev,noexec",
        "1777\n1\n",
    );
    refused(&daemon, "--tmpfs /t:bogus=1", "invalid tmpfs option \"bogus=1\"");
    refused(&daemon, "--tmpfs /t:size=zz", "size=zz");
    refused(&daemon, "--tmpfs rel", "must be absolute");
    refused(&daemon, "--shm-size -1", "invalid size: '-1'");
    refused(&daemon, "--storage-opt size=1g", "--storage-opt is supported only for");
}

const STATUS: &str = "grep -E '^(CapEff|CapBnd|Seccomp|NoNewPrivs):' /proc/self/status | tr -d '\\t' | sort";

#[test]
fn capabilities_and_privileges() {
    requires!(root, docker);
    let daemon = Daemon::start();
    for (flags, expected) in [
        ("", "CapBnd:00000000a80425fb\nCapEff:00000000a80425fb\nNoNewPrivs:0\nSeccomp:2\n"),
        (
            "--cap-drop ALL --cap-add net_admin",
            "CapBnd:0000000000001000\nCapEff:0000000000001000\nNoNewPrivs:0\nSeccomp:2\n",
        ),
        (
            "--cap-drop CHOWN --security-opt no-new-privileges -u user",
            "CapBnd:00000000a80425fa\nCapEff:0000000000000000\nNoNewPrivs:1\nSeccomp:2\n",
        ),
        (
            "--security-opt seccomp=unconfined --security-opt no-new-privileges:false --security-opt label=disable \
             --security-opt apparmor=unconfined",
            "CapBnd:00000000a80425fb\nCapEff:00000000a80425fb\nNoNewPrivs:0\nSeccomp:0\n",
        ),
    ] {
        inside(&daemon, flags, STATUS, expected);
    }
    // All that the host's root has, no filter, no masks, everything writable, every device.
    let script = "grep -E '^Seccomp:' /proc/self/status | tr -d '\\t'; test -w /proc/sys/kernel/hostname && echo proc; \
                  grep -q ' /sys sysfs rw' /proc/mounts && echo sys; grep -c firmware /proc/mounts; \
                  grep -q cgroup.*rw /proc/mounts && echo cgroup; ls /dev | wc -l | awk '{ print ($1 > 15) }'";
    inside(&daemon, "--privileged", script, "Seccomp:0\nproc\nsys\n0\ncgroup\n1\n");
    let script = "test -w /proc/sys/kernel/hostname && echo w; grep -c firmware /proc/mounts";
    for client in BOTH {
        client.run(&daemon, "--security-opt systempaths=unconfined", script).fails(1).stdout_is("w\n0\n");
    }
    // A profile of one's own: everything but mkdir.
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    let profile = file(&daemon, "profile.json", profile);
    let flags = format!("--security-opt seccomp={profile}");
    shows(&daemon, &flags, "mkdir /x; touch /y && echo touched", &["Operation not permitted", "touched"]);
    refused(&daemon, "--cap-add bogus", "unknown capability");
    refused(&daemon, "--cap-drop bogus", "unknown capability");
    refused(&daemon, "--security-opt bogus", "nvalid --security-opt");
    refused(&daemon, "--security-opt seccomp=/nonexistent", "/nonexistent");
    refused(&daemon, "--security-opt apparmor=some-profile", "apparmor");
}

#[test]
fn devices() {
    requires!(root, docker);
    let daemon = Daemon::start();
    // The kernel log: not among the devices every container has, and writable by whoever may open it.
    let dir = daemon.dir().join("devices");
    std::fs::create_dir(&dir).expect("a fresh directory");
    for name in ["k", "l"] {
        Cmd::new("mknod").args(["-m", "600"]).arg(dir.join(name)).args(["c", "1", "11"]).ok();
    }
    let dir = dir.display().to_string();
    let script = "stat -c '%t:%T' /dev/x; ( : > /dev/x ) 2> /dev/null && echo w; test -e /dev/y || echo none";
    inside(&daemon, &format!("--device {dir}/k:/dev/x"), script, "1:b\nw\nnone\n");
    inside(&daemon, &format!("--device {dir}/k:/dev/x:rm"), script, "1:b\nnone\n");
    inside(&daemon, &format!("--device {dir}:/dev/all"), "ls /dev/all", "k\nl\n");
    inside(&daemon, &format!("--device {dir}/k"), &format!("stat -c %a {dir}/k"), "600\n");
    let script = "mknod /k c 1 11; ( : > /k ) 2> /dev/null && echo open || echo closed";
    inside(&daemon, "", script, "closed\n");
    for client in BOTH {
        client
            .on(&daemon, &["run", "--rm", "--network", "none", "--device-cgroup-rule", "c 1:* rw"])
            .args(["busybox", "sh", "-c", script])
            .ok()
            .stdout_is("open\n");
    }
    refused(
        &daemon,
        "--device /dev/nosuch",
        "error gathering device information while adding custom device \"/dev/nosuch\"",
    );
    refused(&daemon, "--device /etc/passwd", "not a device node");
    refused(&daemon, &format!("--device {dir}/k:/dev/x:zz"), "zz");
    refused(&daemon, "--device-cgroup-rule bogus", "bogus");
}

fn of_host(kind: &str) -> String {
    let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a kernel with namespaces");
    format!("{}\n", link.display())
}

#[test]
fn namespaces_of_the_host() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let script = "cd /proc/self/ns; for n in pid ipc uts cgroup; do readlink $n; done; grep -c ' /dev/mqueue ' /proc/mounts";
    let expected = of_host("pid") + &of_host("ipc") + &of_host("uts") + &of_host("cgroup") + "1\n";
    inside(&daemon, "--pid host --ipc host --uts host --cgroupns host --userns host", script, &expected);
    for client in BOTH {
        let output = client.run(&daemon, "--cgroupns private", script).ok();
        for kind in ["pid", "ipc", "uts", "cgroup"] {
            output.stdout_lacks(of_host(kind).trim());
        }
        client
            .on(&daemon, &["run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net"])
            .ok()
            .stdout_is(&format!("{}\n", daemon.network().link()));
    }
    inside(
        &daemon,
        "--ipc none",
        "ls -d /dev/shm 2> /dev/null; grep -c ' /dev/shm ' /proc/mounts || true",
        "0\n",
    );
    refused(&daemon, "--uts host --hostname x", "conflicting options: hostname and the UTS mode");
    for flag in ["--ipc", "--pid", "--uts", "--cgroupns", "--userns"] {
        for client in BOTH {
            client.run(&daemon, &format!("{flag} bogus"), "true").fails(125).no_panic();
        }
    }
}

#[test]
fn namespaces_of_another_container() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let script = "echo shared > /dev/shm/f; exec sleep 1000";
    daemon.run_detached("donor", &["--ipc", "shareable", "--shm-size", "5m", "-h", "donor"], script);
    daemon.run_detached("private", &[], "exec sleep 1000");
    daemon.dewar(&["create", "--name", "idle", "--network", "none", "busybox", "true"]).ok();
    eventually("the donor", || daemon.dewar(&["exec", "donor", "test", "-s", "/dev/shm/f"]).run().code == 0);
    let script = "cat /dev/shm/f; grep ' /dev/shm ' /proc/mounts | grep -c size=5120k; tr '\\0' ' ' < /proc/1/cmdline; echo";
    inside(&daemon, "--ipc container:donor --pid container:donor", script, "shared\n1\nsleep 1000 \n");
    refused(
        &daemon,
        "--ipc container:private",
        "non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
    );
    refused(&daemon, "--ipc container:idle", "IPC");
    refused(&daemon, "--pid container:idle", "cannot join namespace of a non running container");
    for client in BOTH {
        let run =
            |flags: &[&str]| client.on(&daemon, &["run", "--rm", "--network", "container:donor"]).args(flags);
        run(&["busybox", "sh", "-c", "hostname; cat /etc/hostname; readlink /proc/self/ns/net"])
            .ok()
            .stdout_is(&format!(
                "donor\ndonor\n{}",
                daemon.dewar(&["exec", "donor", "readlink", "/proc/self/ns/net"]).ok().stdout
            ));
        run(&["--hostname", "x", "busybox", "true"])
            .fails(125)
            .stderr_has("conflicting options: hostname and the network mode");
        run(&["--dns", "9.9.9.9", "busybox", "true"])
            .fails(125)
            .stderr_has("conflicting options: dns and the network mode");
        run(&["-p", "80:80", "busybox", "true"])
            .fails(125)
            .stderr_has("conflicting options: port publishing");
        run(&["--add-host", "a:10.0.0.1", "busybox", "true"])
            .fails(125)
            .stderr_has("custom host-to-IP mapping");
    }
}
