//! Long work tells how far it has come: load and import, on terminals and elsewhere.

use crate::support::http::Connection;
use crate::support::requires::requires;
use crate::support::terminal::Terminal;
use crate::support::{Cmd, Daemon, binary, eventually};

/// The resident size of the daemon in KiB.
fn resident(daemon: &Daemon) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("a process of ours");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

/// A tar of one file of `megabytes`, written without ever being in memory.
fn big_tar(daemon: &Daemon, megabytes: u32) -> std::path::PathBuf {
    let dir = daemon.dir().join("big");
    std::fs::create_dir_all(&dir).expect("a fresh directory");
    Cmd::new("truncate").args(["-s", &format!("{megabytes}M")]).arg(dir.join("zeros")).ok();
    let tar = daemon.dir().join("big.tar");
    Cmd::new("tar").arg("-C").arg(&dir).arg("-cf").arg(&tar).arg("zeros").ok();
    tar
}

#[test]
fn a_large_upload_is_streamed_and_told_of() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let tar = big_tar(&daemon, 300);
    // Once, so that what a first import needs for good is not counted.
    daemon.dewar(&["import"]).arg(crate::support::busybox_tar()).arg("warm").ok();
    let before = resident(&daemon);
    let mut most = 0;
    let file = std::fs::File::open(&tar).expect("made above");
    let mut connection = Connection::open(&daemon.socket());
    let length = file.metadata().expect("made above").len().to_string();
    let headers = [("Content-Length", length.as_str()), ("Content-Type", "application/x-tar")];
    connection.request("POST", "/images/create?fromSrc=-&repo=big", &headers, None);
    let mut out = connection.stream().try_clone().expect("a descriptor can be copied");
    let upload = std::thread::spawn(move || {
        let mut file = file;
        std::io::copy(&mut file, &mut out).expect("the daemon reads what is sent")
    });
    assert_eq!(connection.head().expect("an answer").status, 200);
    let mut messages = Vec::new();
    while let Some(chunk) = connection.chunk() {
        most = most.max(resident(&daemon));
        assert!(chunk.ends_with(b"\r\n"), "a message is a line");
        messages.push(serde_json::from_slice::<serde_json::Value>(&chunk).expect("one message per chunk"));
    }
    upload.join().expect("sent");
    let (last, progress) = messages.split_last().expect("messages");
    assert!(last["status"].as_str().is_some_and(|status| status.starts_with("sha256:")), "{last}");
    assert!(progress.iter().all(|message| message["status"] == "Importing"), "{progress:?}");
    let current =
        |message: &serde_json::Value| message["progressDetail"]["current"].as_u64().expect("a count");
    assert!(progress.windows(2).all(|pair| current(&pair[0]) < current(&pair[1])), "{progress:?}");
    assert!(most < before + 30_000, "{before} KiB before, {most} KiB during");

    // Loading is told layer by layer, in numbers a bar can be drawn from.
    let saved = daemon.dir().join("saved.tar");
    daemon.dewar(&["save", "-o"]).arg(&saved).arg("big").ok();
    daemon.dewar(&["rmi", "big"]).ok();
    let mut connection = Connection::open(&daemon.socket());
    let mut file = std::fs::File::open(&saved).expect("saved");
    let length = file.metadata().expect("saved").len().to_string();
    let headers = [("Content-Length", length.as_str()), ("Content-Type", "application/x-tar")];
    connection.request("POST", "/images/load?quiet=0", &headers, None);
    std::io::copy(&mut file, &mut connection.stream()).expect("the daemon reads what is sent");
    assert_eq!(connection.head().expect("an answer").status, 200);
    let mut text = String::new();
    while let Some(chunk) = connection.chunk() {
        most = most.max(resident(&daemon));
        text += &String::from_utf8_lossy(&chunk);
    }
    let messages: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("one message per line")).collect();
    let (last, progress) = messages.split_last().expect("messages");
    assert_eq!(last["stream"], "Loaded image: big:latest\n");
    assert!(
        progress.len() >= 2 && progress.iter().all(|message| message["status"] == "Loading layer"),
        "{text}"
    );
    let detail = &progress.last().expect("two at least")["progressDetail"];
    assert!(detail["current"] == detail["total"] && detail["total"].as_u64() > Some(300 << 20), "{detail}");
    assert!(most < before + 30_000, "{before} KiB before, {most} KiB during");
}

#[test]
fn a_refusal_is_a_status_and_a_late_failure_a_message() {
    requires!(root);
    let daemon = Daemon::empty();
    let post = |path: &str, body: &[u8]| {
        let mut connection = Connection::open(&daemon.socket());
        connection.request("POST", path, &[("Content-Type", "application/x-tar")], Some(body));
        connection.reply("POST")
    };
    post("/images/load", b"no archive").refuses(400, "");
    post("/images/create?fromSrc=-&repo=UPPER", b"").refuses(400, "UPPER");
    post("/images/create?fromSrc=-&changes=RUN%20x", b"").refuses(400, "RUN is not a valid change command");
    post("/images/create?fromSrc=-", &[b'x'; 1024]).refuses(400, "not a tar archive");
    // Cut off when progress had been told already.
    let tar = big_tar(&daemon, 20);
    let mut connection = Connection::open(&daemon.socket());
    let bytes = std::fs::read(&tar).expect("made above");
    let headers = [("Transfer-Encoding", "chunked"), ("Content-Type", "application/x-tar")];
    connection.request("POST", "/images/create?fromSrc=-&repo=cut", &headers, None);
    let mut send = |bytes: &[u8]| {
        connection.send(format!("{:x}\r\n", bytes.len()).as_bytes());
        connection.send(bytes);
        connection.send(b"\r\n");
    };
    send(&bytes[..1 << 20]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    send(&bytes[1 << 20..2 << 20]);
    connection.send(b"0\r\n\r\n");
    let reply = connection.reply("POST").is(200);
    let last: serde_json::Value =
        serde_json::from_str(reply.text().lines().last().expect("messages")).expect("JSON");
    assert!(last["errorDetail"]["message"].as_str().is_some_and(|text| text.contains("truncated")), "{last}");
    assert_eq!(last["error"], last["errorDetail"]["message"]);
    daemon.dewar(&["images", "-aq"]).ok().stdout_is("");
    eventually("its layer to be gone", || {
        std::fs::read_dir(daemon.dir().join("data/images/layers")).expect("the store").count() == 0
    });
}

#[test]
fn terminals_see_bars_and_pipes_see_results() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let saved = daemon.dir().join("saved.tar");
    daemon.dewar(&["save", "-o"]).arg(&saved).arg("busybox").ok().stdout_is("");
    let remove = || drop(daemon.dewar(&["rmi", "-f", "busybox"]).ok());
    remove();
    let (host, path) = (daemon.host(), saved.display().to_string());
    let docker = crate::support::requires::docker_path().expect("required above");
    for program in [binary(), docker] {
        let mut terminal = Terminal::start(&program, &["-H", &host, "load", "-i", &path]);
        terminal.expect("Loading layer");
        terminal.expect("MB/");
        terminal.expect("Loaded image: busybox:latest");
        assert_eq!(terminal.wait(), 0);
        remove();
        let mut terminal = Terminal::start(&program, &["-H", &host, "load", "-q", "-i", &path]);
        terminal.expect("Loaded image: busybox:latest");
        assert_eq!(terminal.wait(), 0);
        remove();
        Cmd::new(&program)
            .args(["-H", &host, "load", "-i", &path])
            .ok()
            .stdout_is("Loaded image: busybox:latest\n");
        for words in [["save", "busybox"], ["export", "web"]] {
            let mut terminal = Terminal::start(&program, &["-H", &host, words[0], words[1]]);
            terminal.expect("cowardly refusing to save to a terminal. Use the -o flag or redirect");
            assert_eq!(terminal.wait(), 1);
        }
        let mut terminal = Terminal::start(
            &program,
            &["-H", &host, "create", "--name", "web", "--network", "none", "busybox", "true"],
        );
        assert_eq!(terminal.wait(), 0);
        let mut terminal = Terminal::start(&program, &["-H", &host, "cp", &path, "web:/tmp/saved"]);
        terminal.expect("Successfully copied");
        terminal.expect("MB to web:/tmp/saved");
        assert_eq!(terminal.wait(), 0);
        daemon.dewar(&["rm", "web"]).ok();
        remove();
    }
}
