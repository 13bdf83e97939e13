//! What runs, as whom, where, and under which name.

use super::{BOTH, file, inside, inspect, refused, shows};
use crate::support::requires::requires;
use crate::support::{Daemon, busybox_tar, eventually};

#[test]
fn entrypoint_and_command() {
    requires!(root, docker);
    let daemon = Daemon::start();
    for client in BOTH {
        let run = |args: &[&str]| client.on(&daemon, &["run", "--rm", "--network", "none"]).args(args);
        run(&["--entrypoint", "/bin/echo", "busybox", "hi"]).ok().stdout_is("hi\n");
        run(&["--entrypoint", "", "busybox", "echo", "hi"]).ok().stdout_is("hi\n");
        run(&["busybox"]).fails(125).stderr_has("no command specified");
        run(&["--init", "busybox", "cat", "/proc/1/cmdline"])
            .ok()
            .stdout_is("/sbin/docker-init\0--\0cat\0/proc/1/cmdline\0");
    }
    // An init is for a pid namespace of one's own.
    inside(&daemon, "--init --pid host", "grep -c docker-init /proc/mounts || true", "0\n");
}

#[test]
fn users_and_groups() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let id = "echo $(id -u):$(id -g) $(id -G) $HOME";
    for (flags, expected) in [
        ("-u user", "1000:1000 1000 50 /home\n"),
        ("-u 1000", "1000:1000 1000 50 /home\n"),
        ("-u user:staff", "1000:50 50 /home\n"),
        ("-u 1000:77", "1000:77 77 /home\n"),
        ("-u 4242", "4242:0 0 /\n"),
        ("-u user --group-add staff --group-add 77", "1000:1000 1000 50 77 /home\n"),
        ("-u 1000:1000 --group-add staff", "1000:1000 1000 50 /home\n"),
    ] {
        for client in BOTH {
            let output = client.run(&daemon, flags, id).ok();
            // The order of the supplementary groups is the kernel's.
            let sorted = |text: &str| {
                let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
                words[1..].sort();
                words
            };
            assert_eq!(sorted(&output.stdout), sorted(expected), "{flags}: {output}");
        }
    }
    refused(&daemon, "-u nosuch", "unable to find user nosuch: no matching entries in passwd file");
    refused(&daemon, "-u root:nosuch", "unable to find group nosuch: no matching entries in group file");
    refused(&daemon, "--group-add nosuch", "unable to find group nosuch: no matching entries in group file");
    refused(&daemon, "-u 99999999999", "uids and gids must be in range 0-2147483647");
}

#[test]
fn working_directory_and_names() {
    requires!(root, docker);
    let daemon = Daemon::start();
    inside(&daemon, "-w /made/here -u user", "pwd; stat -c '%a %u' /made/here", "/made/here\n755 0\n");
    inside(
        &daemon,
        "--hostname a.b --domainname dom.ain",
        "hostname; cat /etc/hostname /proc/sys/kernel/domainname; echo $HOSTNAME",
        "a.b\na.b\ndom.ain\na.b\n",
    );
    refused(
        &daemon,
        "-w relative",
        "the working directory 'relative' is invalid, it needs to be an absolute path",
    );
    refused(&daemon, "-w /etc/passwd", "not a directory");
    for client in BOTH {
        let cid = daemon.dir().join(format!("cid-{client:?}"));
        let flags = format!("--name web --cidfile {}", cid.display());
        client.run(&daemon, &flags, "true").ok();
        let id = std::fs::read_to_string(&cid).expect("written by the client");
        assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        client.run(&daemon, &flags, "true").fails(125).stderr_has("container ID file found");
        std::fs::remove_file(&cid).expect("it is there");
        // Nothing was created, so nothing is written.
        client.run(&daemon, &format!("{flags} --memory 1m"), "true").fails(125);
        assert!(!cid.exists() || std::fs::read(&cid).expect("readable").is_empty());
    }
}

#[test]
fn what_is_only_written_down() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let labels = file(&daemon, "labels", "# no label\nfile=1\nboth=file\n");
    for client in BOTH {
        let flags = format!(
            "create --name web --network none -l a=b -l bare --label both=flag --label-file {labels} \
             --annotation note=x --restart on-failure:3 --stop-signal INT --stop-timeout 7 --expose 80-81 \
             --health-cmd true --health-interval 5s --health-timeout 2s --health-retries 4 \
             --health-start-period 1s --health-start-interval 500ms --mac-address 02:42:ac:11:00:02 \
             --runtime runc --isolation default --userns host"
        );
        let flags: Vec<&str> = flags.split_whitespace().collect();
        client.on(&daemon, &flags).args(["busybox", "true"]).ok();
        let shown = |format: &str| inspect(&daemon, "web", format);
        let text = shown("{{json .Config.Labels}}");
        for part in ["\"a\":\"b\"", "\"bare\":\"\"", "\"both\":\"flag\"", "\"file\":\"1\""] {
            assert!(text.contains(part), "{client:?}: no {part} in {text}");
        }
        assert_eq!(shown("{{index .HostConfig.Annotations \"note\"}}"), "x");
        assert_eq!(
            shown("{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}"),
            "on-failure 3"
        );
        assert_eq!(shown("{{.Config.StopSignal}} {{.Config.StopTimeout}}"), "INT 7");
        let check: serde_json::Value =
            serde_json::from_str(&shown("{{json .Config.Healthcheck}}")).expect("JSON as asked for");
        assert_eq!(check["Test"], serde_json::json!(["CMD-SHELL", "true"]));
        assert_eq!((check["Interval"].as_i64(), check["Retries"].as_i64()), (Some(5_000_000_000), Some(4)));
        assert_eq!(
            (check["StartPeriod"].as_i64(), check["StartInterval"].as_i64()),
            (Some(1_000_000_000), Some(500_000_000))
        );
        assert_eq!(shown("{{json .Config.ExposedPorts}}"), r#"{"80/tcp":{},"81/tcp":{}}"#);
        client.on(&daemon, &["rm", "web"]).ok();
        client
            .on(
                &daemon,
                &["create", "--name", "web", "--no-healthcheck", "--network", "none", "busybox", "true"],
            )
            .ok();
        assert_eq!(inspect(&daemon, "web", "{{json .Config.Healthcheck.Test}}"), r#"["NONE"]"#);
        client.on(&daemon, &["rm", "web"]).ok();
    }
}

#[test]
fn the_images_settings_are_inherited() {
    requires!(root, docker);
    let daemon = Daemon::empty();
    let mut import = daemon.dewar(&["import"]);
    for change in
        ["ENV X=image", "ENV Y=image", "USER user", "WORKDIR /tmp", "STOPSIGNAL USR1", "CMD [\"env\"]"]
    {
        import = import.args(["-c", change]);
    }
    import.arg(busybox_tar()).arg("busybox").ok();
    for client in BOTH {
        let output = client.on(&daemon, &["run", "--rm", "--network", "none", "-e", "X", "busybox"]).ok();
        output.stdout_has("Y=image\n").stdout_lacks("X=");
        client
            .run(&daemon, "-e Y=mine", "echo $X $Y; id -un; pwd")
            .ok()
            .stdout_is("image mine\nuser\n/tmp\n");
        client.on(&daemon, &["create", "--name", "web", "--network", "none", "busybox"]).ok();
        assert_eq!(inspect(&daemon, "web", "{{.Config.StopSignal}} {{.Config.User}}"), "USR1 user");
        client.on(&daemon, &["rm", "web"]).ok();
    }
}

#[test]
fn stopping_is_by_the_signal_and_the_time_asked_for() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let script = "trap 'exit 9' USR1; trap '' TERM; echo ready; while :; do sleep 0.05; done";
    for client in BOTH {
        for (flags, code) in [
            (["--stop-signal", "SIGUSR1", "--stop-timeout", "20"], "9"),
            (["--stop-signal", "TERM", "--stop-timeout", "0"], "137"),
        ] {
            let run = client.on(&daemon, &["run", "-d", "--name", "web", "--network", "none"]).args(flags);
            run.args(["busybox", "sh", "-c", script]).ok();
            eventually("it being ready", || daemon.logs("web").contains("ready"));
            client.on(&daemon, &["stop", "web"]).ok().stdout_is("web\n");
            assert_eq!(inspect(&daemon, "web", "{{.State.ExitCode}}"), code);
            client.on(&daemon, &["rm", "web"]).ok();
        }
    }
    refused(&daemon, "--stop-signal BOGUS", "Invalid signal: BOGUS");
}

#[test]
fn images_are_pulled_when_asked_and_fit_their_platform() {
    requires!(root, docker);
    let daemon = Daemon::start();
    inside(&daemon, "--pull never --platform linux/amd64", "echo fine", "fine\n");
    for client in BOTH {
        let run = |args: &[&str]| client.on(&daemon, &["run", "--rm", "--network", "none"]).args(args);
        run(&["--pull", "never", "nosuch", "true"]).fails(125).stderr_has("No such image: nosuch:latest");
        run(&["nosuch", "true"]).fails(125).stderr_has("Unable to find image 'nosuch:latest' locally");
        run(&["--pull", "bogus", "busybox", "true"]).fails(125).stderr_has("bogus");
        // Asked for before anything is created.
        run(&["--pull", "always", "--name", "never", "busybox", "true"]).fails(125);
        run(&["--pull", "never", "--platform", "linux/arm64", "busybox", "true"])
            .fails(125)
            .stderr_has("was found but its platform (linux/amd64)")
            .stderr_has("does not match the specified platform (linux/arm64)");
        run(&["--platform", "bogus", "busybox", "true"])
            .fails(125)
            .stderr_has("unknown operating system or architecture");
    }
    shows(&daemon, "--quiet", "echo quiet", &["quiet"]);
    daemon.dewar(&["ps", "-aq"]).ok().stdout_is("");
}
