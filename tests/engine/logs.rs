//! What a container has said.

use std::io::{BufRead, BufReader};

use crate::support::requires::requires;
use crate::support::{Daemon, eventually};

#[test]
fn logs_keep_streams_apart_and_lines_whole() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "echo out; echo err >&2; sleep 0.2; printf 'no newline'");
    daemon.dewar(&["wait", "web"]).ok();
    let output = daemon.dewar(&["logs", "web"]).ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\nno newline", "err\n"));
    daemon.dewar(&["logs", "--tail", "1", "web"]).ok().stdout_is("no newline");
    daemon.dewar(&["logs", "-n", "0", "web"]).ok().stdout_is("");
    let stamped = daemon.dewar(&["logs", "-t", "web"]).ok();
    assert!(stamped.stdout.lines().all(|line| line.contains("Z ")), "{stamped}");
}

#[test]
fn a_line_longer_than_a_buffer_comes_back_whole() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "head -c 100000 /dev/zero | tr '\\0' x; echo; echo after");
    daemon.dewar(&["wait", "web"]).ok();
    let logs = daemon.logs("web");
    let lines: Vec<_> = logs.lines().map(str::len).collect();
    assert_eq!(lines, [100_000, 5]);
    // Compat: --tail counts pieces of 16 KiB as Docker does; the last one ends the line.
    daemon.dewar(&["logs", "--tail", "1", "web"]).ok().stdout_is("after\n");
}

#[test]
fn bytes_that_are_no_text_survive() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "printf 'a\\tb \"quoted\" \\\\ back\\001\\n'");
    daemon.dewar(&["wait", "web"]).ok();
    assert_eq!(daemon.logs("web"), "a\tb \"quoted\" \\ back\u{1}\n");
}

#[test]
fn following_ends_with_the_container() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &["-i"], "echo first; read line; echo $line; read line");
    let mut follow = daemon.dewar(&["logs", "-f", "web"]).spawn();
    let mut reader = BufReader::new(follow.child.stdout.take().expect("piped"));
    let mut line = String::new();
    reader.read_line(&mut line).expect("the first line");
    assert_eq!(line, "first\n");
    daemon.dewar(&["attach", "web"]).stdin("second\nthird\n").ok();
    line.clear();
    reader.read_line(&mut line).expect("the second line");
    assert_eq!(line, "second\n");
    assert_eq!(follow.wait(), 0);
}

#[test]
fn the_log_file_is_rotated() {
    requires!(root);
    let daemon = Daemon::start();
    let flags = ["--log-opt", "max-size=20k", "--log-opt", "max-file=3"];
    daemon.run_detached("web", &flags, "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done");
    daemon.dewar(&["wait", "web"]).ok();
    let path = daemon.api("GET", "/containers/web/json").is(200).json()["LogPath"]
        .as_str()
        .expect("a path")
        .to_owned();
    let dir = std::path::Path::new(&path).parent().expect("a file in a directory").to_owned();
    let mut sizes = Vec::new();
    for entry in std::fs::read_dir(dir).expect("the container's directory").flatten() {
        if entry.file_name().to_string_lossy().contains("json.log") {
            sizes.push(entry.metadata().expect("a file").len());
        }
    }
    assert!(sizes.len() == 3 && sizes.iter().all(|size| *size < 21_000), "{sizes:?}");
    let logs = daemon.logs("web");
    assert!(logs.ends_with("line 2999\n"), "{}", &logs[logs.len().saturating_sub(40)..]);
    // What is left has no gap.
    let numbers: Vec<u32> =
        logs.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
}

#[test]
fn since_and_until_cut_by_time() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "echo old; sleep 1.2; echo new");
    daemon.dewar(&["wait", "web"]).ok();
    eventually("both lines", || daemon.logs("web") == "old\nnew\n");
    let stamped = daemon.dewar(&["logs", "-t", "web"]).ok();
    let second =
        stamped.stdout.lines().nth(1).and_then(|line| line.split(' ').next()).expect("a time").to_owned();
    daemon.dewar(&["logs", "--since", &second, "web"]).ok().stdout_is("new\n");
    daemon.dewar(&["logs", "--since", "1h", "web"]).ok().stdout_is("old\nnew\n");
}
