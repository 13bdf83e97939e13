//! Variables, the files under /etc, what is in /dev and /proc, and the limits a process begins with.

use super::{BOTH, file, inside, refused, shows};
use crate::support::Daemon;
use crate::support::requires::requires;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[test]
fn variables_are_dockers_in_dockers_order() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let list = file(&daemon, "env", "# comment\n\nF=from file\nA=0\nDEWAR_SURELY_UNSET\nDEWAR_GIVEN\n");
    for client in BOTH {
        let run = client
            .on(&daemon, &["run", "--rm", "--network", "none", "-h", "box", "--env-file", &list])
            .args(["-e", "A=1", "-e", "B=two words", "-e", "A=2", "-e", "E=", "-e", "DEWAR_SURELY_UNSET"])
            .env("DEWAR_GIVEN", "by the client");
        let expected = format!(
            "{PATH}\nHOSTNAME=box\nF=from file\nA=2\nDEWAR_GIVEN=by the client\nB=two words\nE=\nHOME=/root\n"
        );
        let output = run.args(["busybox", "env"]).ok();
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&output.stdout), sorted(&expected), "{client:?}");
        assert!(output.stdout.starts_with(&format!("{PATH}\nHOSTNAME=box\n")), "{output}");
        let run = |flags: &[&str]| client.on(&daemon, &["run", "--rm", "--network", "none"]).args(flags);
        run(&["-t", "busybox", "sh", "-c", "echo $TERM"]).ok().stdout_is("xterm\r\n");
        run(&["-t", "-e", "TERM=dumb", "busybox", "sh", "-c", "echo $TERM"]).ok().stdout_is("dumb\r\n");
        run(&["-e", "HOME=/elsewhere", "-e", "PATH=/bin", "busybox", "env"])
            .ok()
            .stdout_has("HOME=/elsewhere\n")
            .stdout_has("PATH=/bin\n")
            .stdout_lacks("/usr/local");
        run(&["-e", "=x", "busybox", "env"]).fails(125).stderr_has("invalid environment variable: =x");
    }
}

#[test]
fn a_process_begins_as_dockers() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let script = "umask; readlink /proc/self/fd/0; cat /proc/self/oom_score_adj; pwd; \
                  grep -E '^(SigIgn|SigBlk)' /proc/self/status | tr -d '\\t'; ls /proc/self/fd | wc -l";
    let expected = "0022\n/dev/null\n0\n/\nSigBlk:0000000000000000\nSigIgn:0000000000000000\n4\n";
    inside(&daemon, "", script, expected);
    let script = "cd /dev; ls | grep -v console | tr '\\n' ' '; for l in fd stdin stdout stderr ptmx; do readlink $l; done; stat -c '%a %t:%T' null full tty";
    let expected = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero \
                    /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n\
                    666 1:3\n666 1:7\n666 5:0\n";
    inside(&daemon, "", script, expected);
    // Mounts in order, without those that depend on the host's cgroups and kernel.
    let script = "awk '$2 !~ /cgroup|^\\/proc\\/./ && $2 != \"/sys/firmware\" && $2 !~ /^\\/sys\\/devices/ { print $3, $2, $4 }' /proc/mounts \
                  | sed -e 's/,relatime.*//' -e 's/,size.*//' -e 's/^ext4 /disk /'";
    for client in BOTH {
        let output = client.run(&daemon, "", script).ok();
        for part in [
            "proc /proc rw,nosuid,nodev,noexec\n",
            "tmpfs /dev rw,nosuid\n",
            "devpts /dev/pts rw,nosuid,noexec\n",
            "sysfs /sys ro,nosuid,nodev,noexec\n",
            "mqueue /dev/mqueue rw,nosuid,nodev,noexec\n",
            "tmpfs /dev/shm rw,nosuid,nodev,noexec\n",
            " /etc/resolv.conf rw\n",
            " /etc/hostname rw\n",
            " /etc/hosts rw\n",
        ] {
            output.stdout_has(part);
        }
        assert_eq!(output.stdout.lines().count(), 10, "{output}");
    }
    let script = "for p in /proc/bus /proc/fs /proc/irq /proc/sys; do grep -q \" $p proc ro\" /proc/mounts || echo $p; done; \
                  for f in kcore timer_list keys; do head -c 1 /proc/$f; done 2> /dev/null | wc -c";
    inside(&daemon, "", script, "0\n");
}

#[test]
fn the_files_under_etc() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
                 ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";
    inside(
        &daemon,
        "--add-host db:10.0.0.1 --add-host six:::1",
        "cat /etc/hosts",
        &format!("{hosts}10.0.0.1\tdb\n::1\tsix\n"),
    );
    inside(
        &daemon,
        "--dns 9.9.9.9 --dns 149.112.112.112 --dns-search a.b --dns-search c.d --dns-option ndots:3",
        "cat /etc/resolv.conf",
        "nameserver 9.9.9.9\nnameserver 149.112.112.112\nsearch a.b c.d\noptions ndots:3\n",
    );
    inside(&daemon, "--dns 9.9.9.9 --dns-search .", "grep -c search /etc/resolv.conf || true", "0\n");
    // One's own until the next start.
    inside(&daemon, "", "echo '10.9.9.9 x' >> /etc/hosts && grep -c 10.9.9.9 /etc/hosts", "1\n");
    refused(&daemon, "--add-host db", "bad format for add-host");
    let nodename = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let of_host = std::fs::read_to_string("/etc/hosts").expect("a host has one");
    for client in BOTH {
        client.run(&daemon, "--add-host db:x", "true").fails(125).says("x");
        client.run(&daemon, "--dns bogus", "true").fails(125).says("bogus");
        client
            .run(&daemon, "--mac-address bogus", "true")
            .fails(125)
            .says("bogus is not a valid mac address");
        let script = "hostname; cat /etc/hostname; echo $HOSTNAME; cat /etc/hosts";
        client
            .on(
                &daemon,
                &[
                    "run",
                    "--rm",
                    "--network",
                    "host",
                    "--add-host",
                    "gw:host-gateway",
                    "busybox",
                    "sh",
                    "-c",
                    script,
                ],
            )
            .ok()
            .stdout_is(&format!("{nodename}\n{nodename}\n{nodename}\n{of_host}127.0.0.1\tgw\n"));
        client
            .on(&daemon, &["run", "--rm", "--network", "host", "--hostname", "mine", "busybox", "hostname"])
            .ok()
            .stdout_is("mine\n");
    }
    inside(&daemon, "--add-host gw:host-gateway", "grep -c '[0-9]\tgw$' /etc/hosts", "1\n");
}

#[test]
fn logging_is_as_asked_for() {
    requires!(root, docker);
    let daemon = Daemon::start();
    shows(&daemon, "--log-driver none", "echo unlogged", &["unlogged"]);
    for client in BOTH {
        client
            .on(
                &daemon,
                &[
                    "run",
                    "--name",
                    "mute",
                    "--network",
                    "none",
                    "--log-driver",
                    "none",
                    "busybox",
                    "echo",
                    "x",
                ],
            )
            .ok();
        client
            .on(&daemon, &["logs", "mute"])
            .fails(1)
            .stderr_has("configured logging driver does not support reading");
        client.on(&daemon, &["rm", "mute"]).ok();
        let options = [
            "max-size=1k",
            "max-file=2",
            "mode=non-blocking",
            "max-buffer-size=4m",
            "labels=l",
            "env=E",
            "tag=t",
            "compress=false",
        ];
        let run = client
            .on(&daemon, &["run", "--name", "web", "--network", "none", "-l", "l=label", "-e", "E=env"]);
        let run = options.iter().fold(run, |run, option| run.args(["--log-opt", option]));
        run.args(["busybox", "sh", "-c", "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done"])
            .ok();
        let output = client.on(&daemon, &["logs", "web"]).ok();
        output.stdout_has("line 99\n").stdout_lacks("line 1\n");
        client.on(&daemon, &["rm", "web"]).ok();
    }
    refused(&daemon, "--log-driver bogus", "logger: no log driver named 'bogus' is registered");
    refused(&daemon, "--log-opt bogus=1", "unknown log opt 'bogus' for json-file log driver");
    refused(&daemon, "--log-opt max-size=zz", "max-size");
    refused(&daemon, "--log-opt mode=bogus", "logging mode not supported: bogus");
    refused(&daemon, "--log-opt max-buffer-size=1m", "only supported with 'mode=non-blocking'");
}
