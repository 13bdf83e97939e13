//! Input that means harm. Each test looks for the harm itself, on the host.

mod program;
mod requests;

use std::path::Path;

use crate::support::requires::requires;
use crate::support::{Cmd, Daemon};

/// A tar made by Python's tarfile, which writes what it is told: `body` adds to `tar`.
fn tar(dir: &Path, body: &str) -> Vec<u8> {
    let path = dir.join("hostile.tar");
    let script = format!(
        "import tarfile, io, sys\n\
         def add(name, kind=tarfile.REGTYPE, link='', data=b'', mode=0o755, **more):\n\
         \x20   entry = tarfile.TarInfo(name); entry.type = kind; entry.linkname = link; entry.size = len(data); entry.mode = mode\n\
         \x20   for key, value in more.items(): setattr(entry, key, value)\n\
         \x20   tar.addfile(entry, io.BytesIO(data))\n\
         tar = tarfile.open(sys.argv[1], 'w', format=tarfile.GNU_FORMAT)\n\
         {body}\n\
         tar.close()\n"
    );
    Cmd::new("python3").arg("-c").arg(script).arg(&path).ok();
    std::fs::read(path).expect("written above")
}

/// Imports it; whether it is refused or not, nothing may have been written outside.
fn import(daemon: &Daemon, body: &str) -> i32 {
    let tar = tar(daemon.dir(), body);
    let output = daemon.dewar(&["import", "-", "hostile"]).stdin(tar).run();
    output.no_panic();
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    output.code
}

#[test]
fn archives_cannot_write_outside() {
    requires!(root);
    let daemon = Daemon::empty();
    let target = daemon.dir().join("escaped");
    let up = "../".repeat(20);
    let absolute = target.display();
    for body in [
        format!("add('{up}{}', data=b'x')", absolute.to_string().trim_start_matches('/')),
        format!("add('{absolute}', data=b'x')"),
        format!("add('link', tarfile.SYMTYPE, '{}'); add('link/escaped', data=b'x')", daemon.dir().display()),
        format!(
            "add('link', tarfile.SYMTYPE, '{up}{}'); add('link/escaped', data=b'x')",
            daemon.dir().display()
        ),
        format!(
            "add('a', tarfile.DIRTYPE); add('a/l', tarfile.SYMTYPE, '/'); add('a/l/{}', data=b'x')",
            absolute.to_string().trim_start_matches('/')
        ),
        format!("add('f', tarfile.SYMTYPE, '{absolute}'); add('f', data=b'x')"),
        format!(
            "add('d', tarfile.SYMTYPE, '{}'); add('d', tarfile.DIRTYPE, mode=0o700); add('d/escaped', data=b'x')",
            daemon.dir().display()
        ),
    ] {
        import(&daemon, &body);
        assert!(!target.exists(), "{body} wrote outside");
    }
}

#[test]
fn archives_cannot_link_to_the_hosts_files() {
    requires!(root);
    let daemon = Daemon::start();
    let secret = daemon.dir().join("secret");
    std::fs::write(&secret, "secret\n").expect("a fresh directory");
    let up = "../".repeat(20);
    for link in
        [secret.display().to_string(), format!("{up}{}", secret.display()), "../../../../secret".to_owned()]
    {
        let body = format!("add('stolen', tarfile.LNKTYPE, '{link}')");
        if import(&daemon, &body) == 0 {
            daemon.dewar(&["create", "--name", "thief", "--network", "none", "hostile", "true"]).ok();
            let out = daemon.dewar(&["cp", "thief:/stolen", "-"]).run();
            out.stdout_lacks("secret\n");
            daemon.dewar(&["rm", "thief"]).ok();
        }
        use std::os::unix::fs::MetadataExt;
        assert_eq!(std::fs::metadata(&secret).expect("made above").nlink(), 1);
    }
}

#[test]
fn whiteouts_cannot_delete_outside() {
    requires!(root);
    let daemon = Daemon::empty();
    let victim = daemon.dir().join("victim");
    std::fs::write(&victim, "alive").expect("a fresh directory");
    for name in [
        ".wh.",
        ".wh...",
        ".wh../victim",
        "../.wh.victim",
        "../../../../.wh.victim",
        ".wh..wh..opq",
        "a/.wh..wh.plnk",
    ] {
        import(&daemon, &format!("add('{name}')"));
        assert!(victim.exists() && daemon.dir().join("data").exists(), "{name} deleted something");
    }
}

#[test]
fn lies_about_sizes_are_noticed() {
    requires!(root);
    let daemon = Daemon::empty();
    // An entry that claims a terabyte, one that claims a negative size, and names that are not text.
    let mut claim = tar(daemon.dir(), "add('big', data=b'x' * 100)");
    claim[124..136].copy_from_slice(b"77777777777\0");
    let sum = |header: &mut [u8]| {
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    };
    sum(&mut claim);
    daemon.dewar(&["import", "-", "big"]).stdin(claim.clone()).fails(1).no_panic();
    claim[124..136].fill(0xff);
    sum(&mut claim);
    daemon.dewar(&["import", "-", "negative"]).stdin(claim).fails(1).no_panic();
    import(&daemon, "add('n' * 5000, data=b'x')");
    import(&daemon, "add('\\udcff\\udcfe'); add('new\\nline')");
    import(&daemon, "add('dev', tarfile.BLKTYPE, devmajor=8, devminor=0); add('fifo', tarfile.FIFOTYPE)");
    daemon.api("GET", "/_ping").is(200);
}

#[test]
fn a_bomb_of_directories_is_survived() {
    requires!(root);
    let daemon = Daemon::empty();
    let deep =
        "path = ''\nfor i in range(300):\n    path += 'd/'\n    add(path.rstrip('/'), tarfile.DIRTYPE)";
    import(&daemon, deep);
    daemon.api("GET", "/_ping").is(200);
}

#[test]
fn a_container_cannot_lead_cp_to_the_host() {
    requires!(root);
    let daemon = Daemon::start();
    let secret = daemon.dir().join("secret");
    std::fs::write(&secret, "secret\n").expect("a fresh directory");
    let script = format!(
        "ln -s {} /link; ln -s / /root-link; ln -s {} /dir-link; exec sleep 1000",
        secret.display(),
        daemon.dir().display()
    );
    daemon.run_detached("web", &[], &script);
    crate::support::eventually("the links", || {
        daemon.dewar(&["exec", "web", "test", "-L", "/dir-link"]).run().code == 0
    });
    for path in [
        "/link".to_owned(),
        format!("/root-link{}", secret.display()),
        "/dir-link/secret".to_owned(),
        "/proc/1/root/../../link".to_owned(),
    ] {
        for follow in [&[][..], &["-L"]] {
            let output = daemon.dewar(&["cp"]).args(follow).args([&format!("web:{path}"), "-"]).run();
            output.stdout_lacks("secret\n").no_panic();
        }
    }
    // And inwards: a copy through the link stays inside.
    let file = daemon.dir().join("file");
    std::fs::write(&file, "planted\n").expect("a fresh directory");
    daemon.dewar(&["cp"]).arg(&file).arg("web:/dir-link/planted").run();
    daemon.dewar(&["cp"]).arg(&file).arg("web:/dir-link/").run();
    assert!(!daemon.dir().join("planted").exists());
}

#[test]
fn an_archive_put_into_a_container_stays_in_it() {
    requires!(root, docker_py);
    let daemon = Daemon::start();
    daemon.dewar(&["create", "--name", "web", "--network", "none", "busybox", "true"]).ok();
    let target = daemon.dir().join("escaped");
    let up = "../".repeat(20);
    for body in [
        format!("add('{up}{}', data=b'x')", target.display().to_string().trim_start_matches('/')),
        format!("add('l', tarfile.SYMTYPE, '{}'); add('l/escaped', data=b'x')", daemon.dir().display()),
        "add('l', tarfile.LNKTYPE, '/etc/shadow')".to_owned(),
    ] {
        let tar = tar(daemon.dir(), &body);
        daemon.dewar(&["cp", "-", "web:/tmp"]).stdin(tar).run().no_panic();
        assert!(!target.exists(), "{body} wrote outside");
    }
}

#[test]
fn mount_targets_are_resolved_inside_the_container() {
    requires!(root);
    let daemon = Daemon::empty();
    // The image's /data is a link to the host's /etc; a bind on /data must not land there.
    let body = format!(
        "import subprocess\nadd('data', tarfile.SYMTYPE, '/../../../../../..{}/victim')",
        daemon.dir().display()
    );
    std::fs::create_dir(daemon.dir().join("victim")).expect("a fresh directory");
    assert_eq!(import(&daemon, &body), 0);
    let source = daemon.dir().join("source");
    std::fs::create_dir(&source).expect("a fresh directory");
    std::fs::write(source.join("marker"), "x").expect("a fresh directory");
    let bind = format!("{}:/data", source.display());
    daemon.dewar(&["run", "--rm", "--network", "none", "-v", &bind, "hostile", "/nope"]).run().no_panic();
    assert!(!daemon.dir().join("victim/marker").exists());
    assert_eq!(std::fs::read_dir(daemon.dir().join("victim")).expect("made above").count(), 0);
}

#[test]
fn output_without_end_does_not_fill_memory() {
    requires!(root);
    let daemon = Daemon::start();
    // A line that never ends, to a client that goes away.
    daemon.run_detached(
        "web",
        &["--log-opt", "max-size=1m"],
        "head -c 50000000 /dev/zero | tr '\\0' x; sleep 1000",
    );
    std::thread::sleep(std::time::Duration::from_secs(1));
    let rss = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of ours");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number")
    };
    for (pid, line) in daemon.leftovers().processes {
        if !line.contains("sleep") && !line.contains("head") && !line.contains("tr ") {
            assert!(rss(pid) < 40_000, "{line}: {} KiB", rss(pid));
        }
    }
    daemon.dewar(&["rm", "-f", "web"]).ok();
}
