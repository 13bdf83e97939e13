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

#[test]
fn following_across_rotations_loses_nothing() {
    requires!(root);
    let daemon = Daemon::start();
    let flags = ["-i", "--log-opt", "max-size=4k", "--log-opt", "max-file=20"];
    let script = "read go; i=0; while [ $i -lt 600 ]; do echo line $i; i=$((i+1)); done; printf 'the end'";
    daemon.run_detached("web", &flags, script);
    let mut follow = daemon.dewar(&["logs", "-f", "web"]).spawn();
    daemon.dewar(&["attach", "web"]).stdin("go\n").ok();
    let mut output = String::new();
    let mut stdout = follow.child.stdout.take().expect("piped");
    std::io::Read::read_to_string(&mut stdout, &mut output).expect("text");
    let expected: String =
        (0..600).map(|number| format!("line {number}\n")).chain(["the end".to_owned()]).collect();
    assert!(
        output == expected,
        "{} of {} bytes: …{:?}",
        output.len(),
        expected.len(),
        &output[output.len().saturating_sub(60)..]
    );
    assert_eq!(follow.wait(), 0);
}

#[test]
fn following_lasts_for_one_run() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &["-i"], "echo run; read line; exit 1");
    let mut follow = daemon.dewar(&["logs", "-f", "web"]).spawn();
    let mut reader = BufReader::new(follow.child.stdout.take().expect("piped"));
    let mut line = String::new();
    reader.read_line(&mut line).expect("the first line");
    daemon.dewar(&["restart", "-t", "0", "web"]).ok();
    let rest = std::io::read_to_string(reader).expect("text");
    // The second run may have begun to write before the follower has read the end of the first.
    assert!(line == "run\n" && (rest.is_empty() || rest == "run\n"), "{line:?}, {rest:?}");
    assert_eq!(follow.wait(), 0);
    assert_eq!(daemon.state("web")["Running"], true, "it runs, and the follower has ended");
    eventually("the second run's line", || daemon.logs("web") == "run\nrun\n");
    daemon.dewar(&["kill", "web"]).ok();
    daemon.dewar(&["logs", "-f", "web"]).ok().stdout_is("run\nrun\n");
    daemon.dewar(&["logs", "-f", "--tail", "0", "web"]).ok().stdout_is("");
}

#[test]
fn details_and_times_stand_before_the_line() {
    requires!(root);
    let daemon = Daemon::start();
    let flags =
        ["--label", "role=a b", "-e", "STAGE=x", "--log-opt", "labels=role", "--log-opt", "env=STAGE,NONE"];
    daemon.run_detached("web", &flags, "echo out");
    daemon.dewar(&["wait", "web"]).ok();
    daemon.dewar(&["logs", "--details", "web"]).ok().stdout_is("STAGE=x,role=a+b out\n");
    let both = daemon.dewar(&["logs", "--details", "-t", "web"]).ok().stdout;
    assert!(both.ends_with("Z STAGE=x,role=a+b out\n"), "{both:?}");
    daemon.run_detached("plain", &[], "echo out");
    daemon.dewar(&["wait", "plain"]).ok();
    // Compat: the space is there without any.
    daemon.dewar(&["logs", "--details", "plain"]).ok().stdout_is(" out\n");
}

#[test]
fn bounds_in_time_have_fractions() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "for word in a b c; do echo $word; sleep 0.05; done");
    daemon.dewar(&["wait", "web"]).ok();
    let stamped = daemon.dewar(&["logs", "-t", "web"]).ok().stdout;
    let times: Vec<String> = stamped
        .lines()
        .map(|line| {
            let time: jiff::Timestamp =
                line.split(' ').next().and_then(|time| time.parse().ok()).expect("a time");
            format!("{}.{:09}", time.as_second(), time.subsec_nanosecond())
        })
        .collect();
    let logs = |query: &str| {
        let body = daemon.api("GET", &format!("/containers/web/logs?stdout=1&{query}")).is(200).body;
        crate::support::http::demultiplex(&body).0
    };
    assert_eq!(logs(&format!("since={}", times[1])), "b\nc\n");
    assert_eq!(logs(&format!("until={}", times[1])), "a\nb\n");
    assert_eq!(logs(&format!("since={0}&until={0}", times[1])), "b\n");
    assert_eq!(logs(&format!("since={}&tail=2", times[0])), "b\nc\n");
    assert_eq!(logs("tail=-1"), "a\nb\nc\n");
    // A follower with an end in the future comes back by itself.
    daemon.run_detached("on", &[], "echo a; exec sleep 1000");
    let soon = jiff::Timestamp::now().as_second() + 2;
    let body = daemon.api("GET", &format!("/containers/on/logs?stdout=1&follow=1&until={soon}")).is(200).body;
    assert_eq!(crate::support::http::demultiplex(&body).0, "a\n");
    daemon.api("GET", "/containers/web/logs?stdout=1&since=yesterday").refuses(400, "since");
}

#[test]
fn a_container_without_a_log_says_so() {
    requires!(root, docker);
    let daemon = Daemon::start();
    daemon.run_detached("web", &["--log-driver", "none"], "echo lost");
    daemon
        .api("GET", "/containers/web/logs?stdout=1")
        .refuses(501, "configured logging driver does not support reading");
    daemon.docker(&["logs", "web"]).fails(1).stderr_has("configured logging driver does not support reading");
    daemon.api("GET", "/containers/web/logs").refuses(400, "you must choose at least one stream");
}

#[test]
fn long_lines_come_in_pieces_and_carriage_returns_stay() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached(
        "web",
        &[],
        "printf 'a\\r\\n'; head -c 40000 /dev/zero | tr '\\0' x; printf '\\r\\nb'",
    );
    daemon.dewar(&["wait", "web"]).ok();
    let body = daemon.api("GET", "/containers/web/logs?stdout=1&timestamps=1").is(200).body;
    // Each piece of 16 KiB is a frame with a time of its own, as Docker's.
    let mut lengths = Vec::new();
    let mut rest = &body[..];
    while let [_, _, _, _, a, b, c, d, more @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        lengths.push(length - 31);
        rest = &more[length..];
    }
    assert_eq!(lengths, [3, 16384, 16384, 40_002 - 32_768, 1]);
    assert!(daemon.logs("web").starts_with("a\r\nxx"));
}
