//! `cp` into and out of containers.

use crate::support::requires::requires;
use crate::support::{Cmd, Daemon};

#[test]
fn files_go_in_and_out() {
    requires!(root);
    let daemon = Daemon::start();
    let host = daemon.dir().join("host");
    std::fs::create_dir_all(host.join("tree/sub")).expect("a fresh directory");
    std::fs::write(host.join("file"), "content\n").expect("a fresh directory");
    std::fs::write(host.join("tree/sub/leaf"), "leaf\n").expect("a fresh directory");
    let path = |name: &str| host.join(name).display().to_string();
    for running in [true, false] {
        daemon.run_detached("web", &[], if running { "exec sleep 1000" } else { "true" });
        if !running {
            daemon.dewar(&["wait", "web"]).ok();
        }
        daemon.dewar(&["cp", &path("file"), "web:/tmp/"]).ok();
        daemon.dewar(&["cp", &path("file"), "web:/tmp/renamed"]).ok();
        daemon.dewar(&["cp", &path("tree"), "web:/tmp"]).ok();
        daemon.dewar(&["cp", "web:/tmp/renamed", &path("back")]).ok();
        assert_eq!(std::fs::read_to_string(host.join("back")).expect("copied"), "content\n");
        daemon.dewar(&["cp", "web:/tmp/tree", &path("tree-back")]).ok();
        assert_eq!(std::fs::read_to_string(host.join("tree-back/sub/leaf")).expect("copied"), "leaf\n");
        // To standard output as a tar, and from standard input.
        let tar = daemon.dewar(&["cp", "web:/tmp/file", "-"]).ok();
        assert!(
            tar.stdout.contains("content\n") && tar.stdout.len().is_multiple_of(512),
            "{} bytes",
            tar.stdout.len()
        );
        daemon.dewar(&["cp", "-", "web:/var/tmp"]).stdin(tar.stdout.into_bytes()).ok();
        daemon.dewar(&["cp", "web:/var/tmp/file", "-"]).ok();
        if running {
            daemon
                .dewar(&["exec", "web", "cat", "/tmp/file", "/tmp/tree/sub/leaf"])
                .ok()
                .stdout_is("content\nleaf\n");
        }
        for name in ["back", "tree-back"] {
            Cmd::new("rm").arg("-r").arg(host.join(name)).ok();
        }
        daemon.dewar(&["rm", "-f", "web"]).ok();
    }
}

#[test]
fn what_is_not_there_is_named() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.dewar(&["create", "--name", "web", "--network", "none", "busybox", "true"]).ok();
    let out = daemon.dir().join("out").display().to_string();
    daemon.dewar(&["cp", "web:/nope", &out]).fails(1).stderr_has("/nope");
    daemon.dewar(&["cp", "none:/etc/passwd", &out]).fails(1).stderr_has("No such container: none");
    daemon.dewar(&["cp", "/nonexistent/file", "web:/tmp"]).fails(1).stderr_has("/nonexistent/file");
    daemon.dewar(&["cp", "/etc/hostname", "web:/nope/nope/x"]).fails(1).stderr_has("/nope");
    daemon.dewar(&["cp", &out, &out]).run().no_panic();
}
