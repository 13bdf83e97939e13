//! The files of contrib/, each under the supervisor it is for: starts and is ready, reloads, is started again after
//! kill -9 where the supervisor does that, stops with code 0 and leaves nothing, or leaves the containers when told.

mod host;

use crate::support::requires::requires;
use crate::support::{Cmd, TempDir, source};
use host::Host;

/// How a user of the supervisor does it, in shell. A start and a stop return when they are done.
struct Ways<'a> {
    start: &'a str,
    stop: &'a str,
    reload: &'a str,
    /// Whether a daemon that is killed is started again.
    is_watched: bool,
    /// Succeeds when the daemon's last end had exit code 0; empty where nobody keeps that.
    ended_well: &'a str,
}

/// The daemon's life under a supervisor; the host is up, the daemon not started.
#[track_caller]
fn lives(host: &Host, ways: &Ways) {
    host.ok(ways.start);
    host.ok("dewar ping");
    host.ok("dewar import /root/busybox.tar busybox");
    let trap = "trap 'exit 7' TERM; while :; do sleep 0.1; done";
    host.ok(&format!("dewar run -d --name web --network none busybox sh -c \"{trap}\""));

    host.ok("echo '{\"labels\": [\"new=1\"]}' > /etc/dewar/daemon.json");
    host.ok(ways.reload);
    host.until("dewar info --format '{{.Labels}}' | grep -qF '[new=1]'");

    let web = host.ok("dewar inspect --format '{{.State.Pid}}' web");
    if ways.is_watched {
        let daemon = host.ok("cat /run/dewar.pid");
        host.ok(&format!("kill -9 {daemon}"));
        host.until(&format!("test $(cat /run/dewar.pid) != {daemon} && dewar ping"));
        assert_eq!(host.ok("dewar inspect --format '{{.State.Pid}}' web"), web, "the container runs on");
    }

    host.ok(ways.stop);
    host.ok("test ! -e /run/dewar.sock && test ! -e /run/dewar.pid");
    assert!(host.run(&format!("kill -0 {web}")).run().code != 0, "the container is stopped");
    host.ok(ways.ended_well);

    host.ok(ways.start);
    assert_eq!(host.ok("dewar inspect --format '{{.State.ExitCode}}' web"), "7");
    host.ok("echo '{\"live-restore\": true}' > /etc/dewar/daemon.json");
    host.ok(ways.reload);
    host.until("dewar info --format '{{.LiveRestoreEnabled}}' | grep -q true");
    host.ok("dewar start web");
    let web = host.ok("dewar inspect --format '{{.State.Pid}}' web");
    host.ok(ways.stop);
    host.ok(&format!("kill -0 {web}"));
    host.ok(ways.start);
    assert_eq!(host.ok("dewar inspect --format '{{.State.Pid}}' web"), web, "the container was left alone");
    host.ok("dewar rm -f web");
    host.ok(ways.stop);
}

fn runit(packages: Option<&str>) {
    let mut host = Host::build(packages, "runit");
    host.write("etc/sv/dewar/conf", &format!("DEWAR_OPTS='{}'\n", host.options()));
    // Not to be started before the test says so.
    host.write("etc/sv/dewar/down", "");
    host.boot(&["runsvdir", "/etc/sv"]);
    host.until("sv status /etc/sv/dewar");
    let ways = Ways {
        start: "sv -w 60 start /etc/sv/dewar",
        stop: "sv -w 60 stop /etc/sv/dewar",
        reload: "sv hup /etc/sv/dewar",
        is_watched: true,
        ended_well: "until tail -n 1 /var/log/dewar/current | grep -q 'the daemon ended with code 0$'; do sleep 0.1; done",
    };
    lives(&host, &ways);
    host.ok("grep -q 'the daemon was ended by signal 9' /var/log/dewar/current");
    host.ok("sv exit /etc/sv/dewar; sv exit /etc/sv/dewar/log");
}

#[test]
fn runits_runsvdir() {
    requires!(supervisors);
    runit(Some("runit"));
}

#[test]
fn s6s_svscan() {
    requires!(supervisors);
    let mut host = Host::build(Some("s6"), "s6");
    host.write("etc/s6/dewar/conf", &format!("DEWAR_OPTS='{}'\n", host.options()));
    host.write("etc/s6/dewar/down", "");
    host.boot(&["s6-svscan", "/etc/s6"]);
    host.until("s6-svstat /etc/s6/dewar");
    let ways = Ways {
        start: "s6-svc -wU -T 60000 -u /etc/s6/dewar",
        stop: "s6-svc -wD -T 60000 -d /etc/s6/dewar",
        reload: "s6-svc -h /etc/s6/dewar",
        is_watched: true,
        ended_well: "test $(s6-svstat -o exitcode /etc/s6/dewar) = 0",
    };
    lives(&host, &ways);
    host.ok("grep -q 'the daemon was ended by signal 9' /var/log/dewar/current");
}

#[test]
fn openrcs_supervise_daemon() {
    requires!(supervisors);
    let mut host = Host::build(Some("openrc"), "openrc");
    host.write("etc/conf.d/dewar", &format!("DEWAR_OPTS='{}'\n", host.options()));
    host.write("etc/fstab", "");
    host.write("etc/inittab", "::sysinit:true\n");
    host.boot(&["/bin/init"]);
    // What the boot of an OpenRC host leaves.
    host.ok(
        "cd /run && mkdir openrc && cd openrc && touch softlevel && mkdir daemons exclusive failed hotplugged inactive \
         options scheduled started starting stopping tmp wasinactive",
    );
    let ways = Ways {
        start: "/etc/init.d/dewar --nodeps start",
        stop: "/etc/init.d/dewar --nodeps stop",
        reload: "/etc/init.d/dewar --nodeps reload",
        is_watched: true,
        ended_well: "true",
    };
    lives(&host, &ways);
}

#[test]
fn sysvs_init_and_its_runlevels() {
    requires!(supervisors);
    let mut host = Host::build(Some("sysv"), "sysv");
    host.write("etc/default/dewar", &format!("DEWAR_OPTS='{}'\n", host.options()));
    host.write(
        "etc/inittab",
        "id:2:initdefault:\nl2:2:wait:/etc/init.d/dewar start\nl3:3:wait:/etc/init.d/dewar stop\n",
    );
    host.boot(&["/sbin/init"]);
    host.until("dewar ping && /etc/init.d/dewar status");
    host.ok("telinit 3");
    host.until("test ! -e /run/dewar.pid");
    assert_eq!(host.run("/etc/init.d/dewar status").run().code, 3);
    let ways = Ways {
        start: "/etc/init.d/dewar start && /etc/init.d/dewar start",
        stop: "/etc/init.d/dewar stop && /etc/init.d/dewar stop",
        reload: "/etc/init.d/dewar reload",
        is_watched: false,
        ended_well: "true",
    };
    lives(&host, &ways);
    // A daemon that was killed does not keep the next one from starting.
    host.ok("/etc/init.d/dewar start && kill -9 $(cat /run/dewar.pid)");
    host.until("/etc/init.d/dewar status; test $? = 1");
    host.ok("/etc/init.d/dewar restart && dewar ping && /etc/init.d/dewar stop");
}

#[test]
fn busyboxs_start_stop_daemon() {
    requires!(supervisors);
    let mut host = Host::build(None, "busybox");
    host.write("etc/default/dewar", &format!("DEWAR_OPTS='{}'\n", host.options()));
    host.write("etc/inittab", "::sysinit:true\n");
    host.boot(&["/bin/init"]);
    let ways = Ways {
        start: "/etc/init.d/S60dewar start && /etc/init.d/S60dewar start && /etc/init.d/S60dewar status",
        stop: "/etc/init.d/S60dewar stop && /etc/init.d/S60dewar stop",
        reload: "/etc/init.d/S60dewar reload",
        is_watched: false,
        ended_well: "true",
    };
    lives(&host, &ways);
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    requires!(supervisors, systemd_analyze);
    let dir = TempDir::new();
    let root = dir.path().display();
    // Where the units look for the program, there must be one.
    std::fs::create_dir(dir.path().join("bin")).expect("a fresh directory");
    std::os::unix::fs::symlink("/bin/true", dir.path().join("bin/dewar")).expect("a fresh directory");
    let make = Cmd::new("make").arg("-sC").arg(source());
    make.args(["install-systemd", &format!("DESTDIR={root}"), &format!("PREFIX={root}")]).ok();
    let units = dir.path().join("lib/systemd/system");
    let verify = Cmd::new("systemd-analyze").args(["verify", "--man=no"]);
    let output = verify.arg(units.join("dewar.service")).arg(units.join("dewar.socket")).ok();
    assert!(output.stderr.is_empty(), "{output}");
}
