//! Flags that mean nothing here, or nothing anywhere: told, never passed over.

use super::{BOTH, refused};
use crate::support::Daemon;
use crate::support::requires::requires;

#[test]
fn flags_that_cannot_be_honoured() {
    requires!(root, docker);
    let daemon = Daemon::start();
    for (flags, part) in [
        ("--bogus", "unknown flag: --bogus"),
        ("--link other", "could not get container for other: No such container: other"),
        ("--runtime bogus", "unknown or invalid runtime name: bogus"),
        ("--isolation hyperv", "invalid isolation 'hyperv' on linux"),
        ("--restart always", "conflicting options: cannot specify both --restart and --rm"),
        ("--stop-timeout x", "invalid argument \"x\" for \"--stop-timeout\" flag"),
    ] {
        refused(&daemon, flags, part);
    }
    daemon.dewar(&["create", "--name", "web", "--network", "none", "busybox", "true"]).ok();
    for client in BOTH {
        client
            .on(&daemon, &["run", "--rm", "--link", "web:alias", "busybox", "true"])
            .fails(125)
            .stderr_has("Cannot link to a non running container: /web AS");
        client
            .on(&daemon, &["run", "--network", "host", "--link", "web", "busybox", "true"])
            .fails(125)
            .stderr_has("host type networking can't be used with links");
        let run = |flags: &[&str]| {
            client.on(&daemon, &["run", "--network", "none"]).args(flags).args(["busybox", "true"])
        };
        run(&["--restart", "bogus"]).fails(125).stderr_has("bogus");
        run(&["--restart", "on-failure:x"]).fails(125).says("maximum retry count must be");
        run(&["--restart", "no:1"])
            .fails(125)
            .stderr_has("maximum retry count can only be used with 'on-failure'");
        run(&["--no-healthcheck", "--health-cmd", "true"])
            .fails(125)
            .stderr_has("--no-healthcheck conflicts with --health-* options");
        client.on(&daemon, &["run"]).fails(1).stderr_has("requires at least 1 argument");
        client
            .on(&daemon, &["run", "--network", "none", "UPPER", "true"])
            .fails(125)
            .stderr_has("must be lowercase");
    }
    daemon.dewar(&["ps", "-a", "--format", "{{.Names}}"]).ok().stdout_is("web\n");
}
