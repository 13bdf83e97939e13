//! Starts that fail: the right words, the right code, and nothing left behind.

use crate::support::requires::requires;
use crate::support::{Cmd, Daemon};

#[test]
fn commands_that_cannot_run_have_their_codes() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run(&[], "true").ok();
    let before = daemon.leftovers();
    let run = |command: &[&str]| daemon.dewar(&["run", "--rm", "--network", "none", "busybox"]).args(command);
    run(&["nope"]).fails(127).stderr_has("\"nope\"").stderr_has("executable file not found");
    run(&["/nope/nope"]).fails(127).stderr_has("no such file or directory");
    run(&["/etc/passwd"]).fails(126).stderr_has("permission denied");
    run(&["/etc"]).fails(126);
    daemon.run(&["-u", "stranger"], "true").fails(125).stderr_has("stranger");
    daemon
        .dewar(&["run", "--rm", "--network", "none", "no-such-image", "true"])
        .fails(125)
        .stderr_has("no-such-image");
    // Compat: as with docker, it is the start that tells, and the container stays.
    daemon
        .dewar(&["run", "--name", "lost", "--network", "no-such-network", "busybox", "true"])
        .fails(125)
        .stderr_has("failed to set up container networking: network no-such-network not found");
    daemon.dewar(&["rm", "lost"]).ok();
    daemon.run(&["--memory", "1k"], "true").fails(125);
    daemon.dewar(&["ps", "-aq"]).ok().stdout_is("");
    before.assert_same_now();
}

#[test]
fn a_failed_start_is_told_by_inspect() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.dewar(&["create", "--name", "web", "--network", "none", "busybox", "nope"]).ok();
    let before = daemon.leftovers();
    daemon.dewar(&["start", "web"]).fails(1).stderr_has("executable file not found");
    let state = daemon.state("web");
    assert_eq!(state["ExitCode"], 127, "{state}");
    assert!(state["Error"].as_str().is_some_and(|error| error.contains("nope")), "{state}");
    assert_eq!(state["Running"], false);
    before.assert_same_now();
}

#[test]
fn scripts_without_their_interpreter_are_127() {
    requires!(root);
    let daemon = Daemon::start();
    let script = daemon.dir().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").expect("a fresh directory");
    Cmd::new("chmod").arg("755").arg(&script).ok();
    let bind = format!("{}:/script:ro", script.display());
    let output =
        daemon.dewar(&["run", "--rm", "--network", "none", "-v", &bind, "busybox", "/script"]).fails(127);
    output.stderr_has("no such file or directory");
    // And a file that is no program at all.
    std::fs::write(&script, "\u{7f}ELF and nothing else").expect("a fresh directory");
    let output = daemon.dewar(&["run", "--rm", "--network", "none", "-v", &bind, "busybox", "/script"]).run();
    assert!((125..=127).contains(&output.code), "{output}");
    output.stderr_has("exec format error");
}

#[test]
fn a_busy_name_is_said_with_its_owner() {
    requires!(root);
    let daemon = Daemon::start();
    let id = daemon.run_detached("web", &[], "exec sleep 1000");
    let output =
        daemon.dewar(&["run", "-d", "--name", "web", "--network", "none", "busybox", "true"]).fails(125);
    output.stderr_has("\"/web\" is already in use").stderr_has(&id);
    let output = daemon.dewar(&["create", "--name", "we/b", "busybox", "true"]).fails(1);
    output.stderr_has("we/b");
}

#[test]
fn a_broken_archive_leaves_nothing() {
    requires!(root);
    let daemon = Daemon::start();
    let files = || Cmd::new("find").arg(daemon.dir().join("data")).ok().stdout.lines().count();
    let before = files();
    let tar = std::fs::read(crate::support::busybox_tar()).expect("made before");
    daemon.dewar(&["import", "-", "cut"]).stdin(&tar[..tar.len() / 2]).fails(1);
    daemon.dewar(&["import", "-", "noise"]).stdin("this is not a tar\n".repeat(1000)).fails(1);
    daemon.dewar(&["load"]).stdin(&tar[..tar.len() / 3]).fails(1);
    daemon.dewar(&["load"]).stdin(tar.clone()).fails(1);
    daemon.dewar(&["load"]).stdin("noise").fails(1);
    let mut flipped = tar.clone();
    for byte in &mut flipped[148..156] {
        *byte = b'7';
    }
    daemon.dewar(&["import", "-", "flipped"]).stdin(flipped).fails(1);
    assert_eq!(daemon.dewar(&["images", "-q"]).ok().stdout.lines().count(), 1);
    assert_eq!(files(), before, "files of refused archives are left");
}

#[test]
fn a_full_disk_is_said_so_and_survived() {
    requires!(root);
    let daemon = Daemon::empty();
    let dir = crate::support::TempDir::new();
    // A data root on a file system of 3 MiB: the image fits, a second does not.
    Cmd::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(dir.path()).ok();
    struct Unmount<'a>(&'a std::path::Path);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            drop(Cmd::new("umount").arg("-l").arg(self.0).run());
        }
    }
    let unmount = Unmount(dir.path());
    drop(daemon);
    {
        let at = |name: &str| dir.path().join(name).display().to_string();
        let run_dir = crate::support::TempDir::new();
        let run = run_dir.path().join("run").display().to_string();
        let host = format!("unix://{}", run_dir.path().join("s").display());
        let mut running = Cmd::new(crate::support::binary())
            .args(["daemon", "-H", &host, "--exec-root", &run, "--data-root", &at("data")])
            .spawn();
        let dewar = |args: &[&str]| Cmd::new(crate::support::binary()).args(["-H", &host]).args(args);
        crate::support::eventually("the daemon", || dewar(&["version"]).run().code == 0);
        let tar = std::fs::read(crate::support::busybox_tar()).expect("made before");
        let import = dewar(&["import", "-", "one"]).stdin(tar.clone()).run();
        let other: Vec<u8> = tar.iter().copied().chain([0; 1024]).collect();
        let second = dewar(&["import", "--message", "two", "-", "two"]).stdin(other).run();
        let filler = vec![b'x'; 4 << 20];
        let mut big = tar_header("big", filler.len());
        big.extend(&filler);
        big.extend([0; 1024]);
        let full = dewar(&["import", "-", "big"]).stdin(big).fails(1);
        full.stderr_has("No space left on device");
        // It still answers, and what was there is still there.
        if import.code == 0 {
            dewar(&["images"]).ok().stdout_has("one");
        }
        second.no_panic();
        let pid = rustix::process::Pid::from_child(&running.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a child of ours");
        assert_eq!(running.wait(), 0);
    }
    drop(unmount);
}

/// A ustar header for a file of `size` bytes.
fn tar_header(name: &str, size: usize) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}
