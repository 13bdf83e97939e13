//! Where output goes: rotated and compressed files, syslog servers, the journal; and that it can be read back.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::requires::requires;
use crate::support::{Daemon, TempDir, eventually};

/// Numbered lines, as fast as a shell writes them.
fn count_to(last: u32) -> String {
    format!("i=0; while [ $i -lt {last} ]; do echo line $i; i=$((i+1)); done")
}

/// The files whose names have `part`, by name.
fn files(dir: &Path, part: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("the log's directory");
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.contains(part)).collect();
    names.sort();
    names
}

fn container_dir(daemon: &Daemon, id: &str) -> PathBuf {
    daemon.dir().join("data/containers").join(id)
}

/// The numbers of the lines, which must have no gap; the first and the last.
#[track_caller]
fn range(logs: &str) -> (u32, u32) {
    let numbers: Vec<u32> = logs
        .lines()
        .map(|line| line.strip_prefix("line ").and_then(|n| n.parse().ok()).expect(line))
        .collect();
    let jump = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
    assert!(jump.is_none(), "{jump:?} in {} lines", numbers.len());
    (numbers[0], numbers[numbers.len() - 1])
}

#[test]
fn rotated_files_are_compressed_and_read_back() {
    requires!(root, docker);
    let mut daemon = Daemon::start();
    let script = format!("{}; read line; echo line 4000", count_to(4000));
    let id = daemon
        .docker(&["run", "-di", "--name", "web", "--network", "none", "--label", "role=a b"])
        .args(["--log-opt", "max-size=30k", "--log-opt", "max-file=20", "--log-opt", "compress=true"])
        .args(["--log-opt", "labels=role", "--log-opt", "tag={{.Name}}", "busybox", "sh", "-c", &script])
        .ok();
    let dir = container_dir(&daemon, id.trimmed());
    let follow = daemon.dewar(&["logs", "-f", "web"]).spawn();
    eventually("every rotated file is compressed", || {
        let names = files(&dir, "-json.log.");
        names.len() > 5 && names.iter().all(|name| name.ends_with(".gz"))
    });
    // Another program unpacks what we packed.
    let names = files(&dir, "-json.log.2.gz");
    let unpacked = Command::new("gzip").arg("-dc").arg(dir.join(&names[0])).output().expect("gzip");
    let text = String::from_utf8(unpacked.stdout).expect("text");
    let line: serde_json::Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    assert_eq!(line["attrs"], serde_json::json!({"role": "a b", "tag": "web"}));
    assert_eq!(range(&daemon.logs("web")), (0, 3999));
    let tail = daemon.docker(&["logs", "--tail", "3000", "web"]).ok();
    assert_eq!(range(&tail.stdout), (1000, 3999));
    daemon.docker(&["logs", "--details", "-n", "1", "web"]).ok().stdout_is("role=a+b,tag=web line 3999\n");
    // The next daemon reads on.
    daemon.kill9();
    daemon.restart();
    assert_eq!(range(&daemon.logs("web")), (0, 3999));
    daemon.dewar(&["attach", "web"]).stdin("go\n").ok();
    assert_eq!(range(&daemon.logs("web")), (0, 4000));
    drop(follow);
}

#[test]
fn a_follower_sees_each_line_once_while_files_are_compressed() {
    requires!(root);
    let daemon = Daemon::start();
    let flags = ["-i", "--log-opt", "max-size=8k", "--log-opt", "max-file=90", "--log-opt", "compress=true"];
    daemon.run_detached("web", &flags, &format!("read go; {}", count_to(5000)));
    let mut follow = daemon.dewar(&["logs", "-f", "web"]).spawn();
    daemon.dewar(&["attach", "web"]).stdin("go\n").ok();
    let mut output = String::new();
    let mut stdout = follow.child.stdout.take().expect("piped");
    stdout.read_to_string(&mut output).expect("text");
    assert_eq!(range(&output), (0, 4999));
    assert_eq!(range(&daemon.logs("web")), (0, 4999));
}

/// Killed together, as by a power cut, in the middle of rotations: every line that was written is there.
#[test]
fn rotation_and_compression_survive_being_killed() {
    requires!(root);
    let mut daemon = Daemon::start();
    let flags = ["--log-opt", "max-size=10k", "--log-opt", "max-file=1000", "--log-opt", "compress=true"];
    let id = daemon.run_detached("web", &flags, &count_to(100_000_000));
    let dir = container_dir(&daemon, &id);
    for round in 1..=3_usize {
        eventually("files are compressed in this life", || {
            let logs = daemon.logs("web");
            let lives = logs.lines().filter(|line| *line == "line 0").count();
            lives == round && !logs.ends_with(" 0\n") && files(&dir, ".gz").len() > 10 * round
        });
        let shim = shim_of(&daemon.state("web"));
        daemon.kill9();
        rustix::process::kill_process(shim, rustix::process::Signal::KILL).expect("the shim runs");
        daemon.restart();
        eventually("its end is known", || daemon.state("web")["Running"] == false);
        let logs = daemon.logs("web");
        // Each life counts from zero again, without a gap.
        let numbers = logs.lines().map(|line| line["line ".len()..].parse::<u32>().expect(line));
        let mut lives = 0;
        let mut next = 0;
        for number in numbers {
            lives += usize::from(number == 0);
            assert!(number == next || number == 0, "{number} instead of {next} in life {lives}");
            next = number + 1;
        }
        assert_eq!(lives, round);
        daemon.dewar(&["start", "web"]).ok();
    }
}

/// The process that watches over the container: its first process's parent.
fn shim_of(state: &serde_json::Value) -> rustix::process::Pid {
    let status = std::fs::read_to_string(format!("/proc/{}/status", state["Pid"])).expect("it runs");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    rustix::process::Pid::from_raw(parent.trim().parse().expect("a number")).expect("not zero")
}

#[test]
fn the_local_driver_is_read_like_the_others() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let id = daemon
        .docker(&["run", "-d", "--name", "web", "--network", "none", "--log-driver", "local"])
        .args([
            "--log-opt",
            "max-size=20k",
            "--log-opt",
            "max-file=3",
            "--log-opt",
            "tag=t",
            "busybox",
            "sh",
            "-c",
        ])
        .arg(format!("{}; printf '\\377 oops\\nend' >&2", count_to(3000)))
        .ok();
    daemon.docker(&["wait", "web"]).ok();
    let both = daemon.docker(&["logs", "web"]).ok();
    assert!(range(&both.stdout).1 == 2999 && both.stderr.ends_with(" oops\nend"), "{:?}", both.stderr);
    daemon.docker(&["logs", "--details", "--tail", "1", "web"]).ok().stderr_has("tag=t end");
    let stamped = daemon.docker(&["logs", "-t", "--tail", "5", "web"]).ok();
    assert_eq!(stamped.stdout.lines().count() + stamped.stderr.lines().count(), 5);
    assert!(stamped.stdout.lines().all(|line| line.contains("Z line ")), "{stamped}");
    let dir = container_dir(&daemon, id.trimmed()).join("local-logs");
    let names = files(&dir, "container.log");
    assert!(names.len() == 3 && names[0] == "container.log", "{names:?}");
    // Docker's readers must not come to rely on the format.
    assert_eq!(daemon.api("GET", "/containers/web/json").is(200).json()["LogPath"], "");
}

#[test]
fn a_thawed_container_goes_on_with_its_log() {
    requires!(root, criu);
    let daemon = Daemon::start_on_host();
    let server = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    server.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let option = format!("syslog-address=udp://{}", server.local_addr().expect("bound"));
    let flags = ["--log-driver", "syslog", "--log-opt", &option];
    daemon.run_detached("web", &flags, "i=0; while sleep 0.1; do echo line $i; i=$((i+1)); done");
    eventually("it counts", || daemon.logs("web").contains("line 3\n"));
    daemon.dewar(&["checkpoint", "create", "web", "cp"]).ok();
    let before = range(&daemon.logs("web"));
    daemon.dewar(&["start", "--checkpoint", "cp", "web"]).ok();
    eventually("it counts on", || range(&daemon.logs("web")).1 > before.1 + 2);
    daemon.dewar(&["kill", "web"]).ok();
    let mut buffer = [0; 1000];
    let mut heard = 0;
    while heard <= before.1 + 2 {
        let bytes = server.recv(&mut buffer).expect("a message");
        let text = said(std::str::from_utf8(&buffer[..bytes]).expect("text"));
        heard = text["line ".len()..].parse().expect("a number");
    }
}

/// The text of a syslog message, without its head.
fn said(message: &str) -> String {
    message.split_once("]: ").expect(message).1.trim_end().to_owned()
}

#[test]
fn syslog_over_udp_has_head_text_and_tag() {
    requires!(root, docker);
    let daemon = Daemon::start_on_host();
    let server = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    server.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let address = format!("syslog-address=udp://{}", server.local_addr().expect("bound"));
    let run = |format: &str, script: &str| {
        daemon
            .docker(&["run", "--rm", "--name", "web", "--network", "none", "--log-driver", "syslog"])
            .args([
                "--log-opt",
                &address,
                "--log-opt",
                "tag={{.Name}}",
                "--log-opt",
                "syslog-facility=local1",
            ])
            .args(["--log-opt", &format!("syslog-format={format}"), "busybox", "sh", "-c", script])
            .ok();
    };
    let receive = || {
        let mut buffer = [0; 2000];
        let bytes = server.recv(&mut buffer).expect("a message");
        String::from_utf8(buffer[..bytes].to_vec()).expect("text")
    };
    run("rfc3164", "echo out; echo err >&2");
    let mut both = [receive(), receive()];
    both.sort();
    // local1 is 17; err 3, info 6.
    assert!(both[0].starts_with("<139>") && said(&both[0]) == "err", "{both:?}");
    assert!(both[1].starts_with("<142>") && both[1].contains(" web[") && said(&both[1]) == "out", "{both:?}");
    run("rfc5424micro", "echo out");
    let text = receive();
    let words: Vec<&str> = text.trim_end().split(' ').collect();
    assert!(words[0] == "<142>1" && words[1].len() >= 27, "{text}");
    assert_eq!([words[3], words[5], words[6], words[7]], ["web", "web", "-", "out"], "{text}");
}

#[test]
fn what_syslog_takes_can_be_read_back() {
    requires!(root, docker);
    let daemon = Daemon::start_on_host();
    let server = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let address = format!("syslog-address=udp://{}", server.local_addr().expect("bound"));
    let run = |name: &str, more: &[&str]| {
        daemon
            .docker(&["run", "-d", "--name", name, "--network", "none", "--log-driver", "syslog"])
            .args(["--log-opt", &address])
            .args(more)
            .args(["busybox", "echo", "hello"])
            .ok();
        daemon.docker(&["wait", name]).ok();
    };
    run("web", &[]);
    daemon.docker(&["logs", "web"]).ok().stdout_is("hello\n");
    run("dark", &["--log-opt", "cache-disabled=true"]);
    daemon
        .docker(&["logs", "dark"])
        .fails(1)
        .stderr_has("configured logging driver does not support reading");
}

#[test]
fn a_stream_server_that_comes_back_is_found_again() {
    requires!(root);
    let daemon = Daemon::start_on_host();
    let server = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = server.local_addr().expect("bound");
    let option = format!("syslog-address=tcp://{address}");
    let flags = ["-i", "--log-driver", "syslog", "--log-opt", &option];
    daemon.run_detached("web", &flags, "while read line; do echo $line; done");
    let mut input = daemon.dewar(&["attach", "web"]).spawn();
    let mut stdin = input.child.stdin.take().expect("piped");
    let mut say = |text: &str| std::io::Write::write_all(&mut stdin, text.as_bytes()).expect("attached");
    say("one\n");
    let next = |reader: &mut BufReader<std::net::TcpStream>| {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a message");
        said(&line)
    };
    let mut first = BufReader::new(server.accept().expect("connected").0);
    assert_eq!(next(&mut first), "one");
    drop((first, server));
    say("two\nthree\n");
    eventually("the container goes on", || daemon.logs("web").ends_with("three\n"));
    let server = std::net::TcpListener::bind(address).expect("the port is free again");
    let mut second = BufReader::new(server.accept().expect("connected again").0);
    assert_eq!([next(&mut second), next(&mut second)], ["two", "three"]);
    drop((second, server));
    drop(input);
    daemon.dewar(&["rm", "-f", "web"]).ok();
    let refused = daemon.dewar(&["run", "--rm", "--network", "none", "--log-driver", "syslog"]);
    refused
        .args(["--log-opt", &option, "busybox", "true"])
        .fails(125)
        .stderr_has("initialize logging driver: Connection refused");
}

/// A server that takes nothing must not stop a container for ever, nor what it said be lost to its readers.
#[test]
fn a_stalled_server_does_not_stop_a_container() {
    requires!(root);
    let daemon = Daemon::start_on_host();
    let server = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let option = format!("syslog-address=tcp://{}", server.local_addr().expect("bound"));
    let flags = [
        "--log-driver",
        "syslog",
        "--log-opt",
        &option,
        "--log-opt",
        "mode=non-blocking",
        "--log-opt",
        "max-buffer-size=100k",
    ];
    daemon.run_detached(
        "web",
        &flags,
        "head -c 9000000 /dev/zero | tr '\\0' x | fold -w 1000; echo; echo end",
    );
    let connection = server.accept().expect("connected").0;
    eventually("the container ends", || daemon.state("web")["Running"] == false);
    let logs = daemon.logs("web");
    assert!(logs.len() > 9_000_000 && logs.ends_with("\nend\n"), "{}", logs.len());
    drop(connection);
}

/// Killed on drop.
struct Busybox(Child);

impl Drop for Busybox {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// busybox's syslogd with its socket and file in `dir`; its /dev is its own.
fn syslogd(dir: &Path) -> Busybox {
    let script = "mount -t tmpfs none /dev && touch /dev/null && mkdir -p \"$0\" && cd \"$0\" && \
        ln -s \"$0/log.sock\" /dev/log && exec busybox syslogd -n -S -O \"$0/messages\"";
    let child = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(dir)
        .stdin(Stdio::null())
        .spawn()
        .expect("unshare of util-linux");
    Busybox(child)
}

#[test]
fn a_real_syslogd_may_be_restarted() {
    requires!(root);
    let daemon = Daemon::start();
    let dir = TempDir::new();
    let socket = dir.path().join("log.sock");
    let messages = || std::fs::read_to_string(dir.path().join("messages")).unwrap_or_default();
    let first = syslogd(dir.path());
    eventually("syslogd listens", || socket.exists());
    let option = format!("syslog-address=unixgram://{}", socket.display());
    let flags = ["-i", "--log-driver", "syslog", "--log-opt", &option, "--log-opt", "tag=web"];
    daemon.run_detached("web", &flags, &format!("{}; read line; echo after", count_to(200)));
    eventually("all lines arrive", || messages().contains("line 199"));
    assert_eq!(messages().lines().filter(|line| line.contains("line ")).count(), 200);
    drop(first);
    drop(std::fs::remove_file(&socket));
    let mut input = daemon.dewar(&["attach", "web"]).spawn();
    std::io::Write::write_all(&mut input.child.stdin.take().expect("piped"), b"go\n").expect("attached");
    eventually("it is said, and the container at its end", || daemon.logs("web").ends_with("after\n"));
    let _second = syslogd(dir.path());
    eventually("the line in between arrives", || messages().contains(": after"));
}

#[test]
fn options_are_refused_in_dockers_words() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let refused = |flags: &[&str], text: &str| {
        let run = daemon.docker(&["run", "--rm", "--network", "none"]);
        run.args(flags).args(["busybox", "true"]).fails(125).stderr_has(text);
    };
    refused(&["--log-driver", "gelf"], "logger: no log driver named 'gelf' is registered");
    refused(&["--log-driver", "local", "--log-opt", "x=1"], "unknown log opt 'x' for log driver local");
    refused(&["--log-driver", "syslog", "--log-opt", "x=1"], "unknown log opt 'x' for syslog log driver");
    refused(&["--log-opt", "compress=true"], "compress cannot be true when max-file is less than 2");
    refused(&["--log-opt", "tag={{.X}}"], "can't evaluate field X");
    let gone = "syslog-address=unixgram:///nowhere/log";
    refused(&["--log-driver", "syslog", "--log-opt", gone], "No such file or directory");
    if !Path::new("/run/systemd/journal/socket").exists() {
        refused(&["--log-driver", "journald"], "journald is not enabled on this host");
    }
    // Nothing is left of a start that failed so.
    daemon.docker(&["ps", "-aq"]).ok().stdout_is("");
}

#[test]
fn the_daemon_has_defaults_for_new_containers() {
    requires!(root, docker);
    let daemon = Daemon::with(&["--log-driver", "local", "--log-opt", "max-size=7k"], &[]);
    daemon.dewar(&["import"]).arg(crate::support::busybox_tar()).arg("busybox").ok();
    let info = daemon.api("GET", "/info").is(200).json();
    assert_eq!(info["LoggingDriver"], "local");
    let drivers = info["Plugins"]["Log"].as_array().expect("a list");
    for name in ["json-file", "local", "none", "syslog"] {
        assert!(drivers.iter().any(|driver| driver == name), "{drivers:?}");
    }
    daemon.run_detached("one", &[], "echo a");
    daemon.run_detached("two", &["--log-driver", "json-file"], "echo b");
    let config = |name: &str| {
        daemon.api("GET", &format!("/containers/{name}/json")).is(200).json()["HostConfig"]["LogConfig"]
            .clone()
    };
    assert_eq!(config("one"), serde_json::json!({"Type": "local", "Config": {"max-size": "7k"}}));
    assert_eq!(config("two"), serde_json::json!({"Type": "json-file", "Config": {}}));
    daemon.dewar(&["wait", "one", "two"]).ok();
    assert_eq!([daemon.logs("one"), daemon.logs("two")], ["a\n", "b\n"]);
    daemon
        .again()
        .args(["--log-opt", "bogus=1", "--validate"])
        .fails(1)
        .stderr_has("failed to set log opts: unknown log opt 'bogus' for json-file log driver");
}

/// The journal's socket, as a container's shim finds it, in a mount namespace of the daemon's own.
#[test]
fn the_journal_gets_fields() {
    requires!(root);
    let dir = TempDir::new();
    let receiver = UnixDatagram::bind(dir.path().join("socket")).expect("a fresh directory");
    receiver.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let script = format!(
        "mkdir -p /run/systemd && mount -t tmpfs none /run/systemd && mkdir /run/systemd/journal && \
         mount --bind {} /run/systemd/journal && exec \"$0\" \"$@\"",
        dir.path().display()
    );
    let daemon = Daemon::inside(&["unshare", "-m", "sh", "-c", &script]);
    daemon.dewar(&["import"]).arg(crate::support::busybox_tar()).arg("busybox").ok();
    let flags = ["--log-driver", "journald", "--log-opt", "env=A_B", "-e", "A_B=1", "--log-opt", "tag=t"];
    let id = daemon.run_detached("web", &flags, "echo hello; head -c 20000 /dev/zero | tr '\\0' x; echo");
    let receive = || {
        let mut buffer = vec![0; 100_000];
        let bytes = receiver.recv(&mut buffer).expect("an entry");
        String::from_utf8(buffer[..bytes].to_vec()).expect("text")
    };
    let entry = receive();
    for field in [
        "PRIORITY=6",
        "MESSAGE=hello",
        "CONTAINER_NAME=web",
        &format!("CONTAINER_ID={}", &id[..12]),
        &format!("CONTAINER_ID_FULL={id}"),
        "CONTAINER_TAG=t",
        "SYSLOG_IDENTIFIER=t",
        "IMAGE_NAME=busybox",
        "A_B=1",
    ] {
        assert!(entry.lines().any(|line| line == field), "{field} in {entry}");
    }
    let (first, last) = (receive(), receive());
    assert!(first.contains("CONTAINER_PARTIAL_MESSAGE=true\n") && first.contains("_ORDINAL=1\n"), "{first}");
    assert!(last.contains("CONTAINER_PARTIAL_LAST=true\n"), "{last}");
    assert!(daemon.logs("web").starts_with("hello\nxxx"));
    let drivers = daemon.api("GET", "/info").is(200).json()["Plugins"]["Log"].clone();
    assert!(drivers.as_array().is_some_and(|names| names.iter().any(|name| name == "journald")), "{drivers}");
}
