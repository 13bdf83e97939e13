//! A minimal host in a virtual machine (scripts/boot.sh), driven by the shell on its console.
//!
//! One command at a time: it is typed, what it prints is collected, and a line with its exit code ends it. What
//! the console has shown is printed when the test fails. A command that hangs fails the test; the machine ends
//! with the value, and with the test's process.

use std::fmt;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{binary, source};

/// The longest that booting, one command, or powering off may take: the processor is emulated, and shared.
const LIMIT: Duration = Duration::from_secs(60);
/// Reads a line, runs it, tells how it ended: no editing, no echo, no prompt between a command and its output.
const LOOP: &str =
    r#"stty -echo -onlcr; echo begin; while read -r line; do eval "$line" </dev/null; echo "<$?>"; done"#;

/// A host that runs.
pub struct Host {
    machine: Child,
    keyboard: ChildStdin,
    seen: Arc<Mutex<Vec<u8>>>,
    /// How much of `seen` earlier commands have accounted for.
    read: usize,
}

/// What a command printed, on either stream, and its exit code.
pub struct Output {
    line: String,
    pub code: i32,
    pub text: String,
}

impl Host {
    /// Boots the host whose disk is in `dir`, which is made if there is none, and waits for its shell.
    #[track_caller]
    pub fn boot(dir: &Path) -> Host {
        // A test that is killed must not leave a machine that burns a processor.
        let mut machine = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(source().join("scripts/boot.sh"))
            .arg(binary())
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("setpriv from util-linux");
        let keyboard = machine.stdin.take().expect("piped above");
        let mut screen = machine.stdout.take().expect("piped above");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                sink.lock().expect("no panic while held").extend_from_slice(&buffer[..count]);
            }
        });
        let mut host = Host { machine, keyboard, seen, read: 0 };
        host.until("minimal# ");
        host.type_line(LOOP);
        host.until("\nbegin\n");
        host
    }

    /// Everything the console has shown.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("no panic while held")).replace('\r', "")
    }

    /// Runs a line of shell to its end, whatever its exit code.
    #[track_caller]
    pub fn run(&mut self, line: &str) -> Output {
        self.type_line(line);
        let mut text = self.until(">\n");
        loop {
            // Output may have angle brackets of its own.
            let end = text.trim_end_matches(">\n").rfind('<');
            let code = end.and_then(|at| text[at + 1..].trim_end_matches(">\n").parse().ok());
            if let (Some(at), Some(code)) = (end, code) {
                text.truncate(at);
                return Output { line: line.to_owned(), code, text };
            }
            text += &self.until(">\n");
        }
    }

    /// Runs a line of shell; the test fails unless it exits with 0. Gives what it printed, trimmed.
    #[track_caller]
    pub fn ok(&mut self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.code == 0, "expected exit code 0: {output}");
        output.text.trim().to_owned()
    }

    /// Runs a line again and again until it exits with 0.
    #[track_caller]
    pub fn eventually(&mut self, line: &str) {
        let start = Instant::now();
        loop {
            let output = self.run(line);
            if output.code == 0 {
                return;
            }
            assert!(start.elapsed() < LIMIT, "does not come true: {output}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs a line that ends the host, and waits for that. Gives what the console showed meanwhile.
    #[track_caller]
    pub fn last(&mut self, line: &str) -> String {
        self.type_line(line);
        let start = Instant::now();
        while self.machine.try_wait().expect("waiting for a child of ours").is_none() {
            assert!(start.elapsed() < LIMIT, "the machine does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        let code = self.machine.wait().expect("it has ended").code();
        assert_eq!(code, Some(0), "the emulator's exit code");
        // What the reader has not got by now, it gets at once: the pipe is closed.
        std::thread::sleep(Duration::from_millis(50));
        self.screen().split_off(self.read)
    }

    fn type_line(&mut self, line: &str) {
        assert!(line.len() < 4000, "a terminal's line has 4096 bytes");
        self.keyboard.write_all(format!("{line}\n").as_bytes()).expect("the machine runs");
    }

    /// Waits until `part` has been shown after what was read; reads up to its end.
    #[track_caller]
    fn until(&mut self, part: &str) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if let Some(at) = screen[self.read..].find(part) {
                let end = self.read + at + part.len();
                let text = screen[self.read..end].to_owned();
                self.read = end;
                return text;
            }
            let ended = self.machine.try_wait().expect("waiting for a child of ours");
            assert!(ended.is_none(), "the machine has ended before {part:?} was shown");
            assert!(start.elapsed() < LIMIT, "not shown: {part:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.machine.kill());
        drop(self.machine.wait());
        if std::thread::panicking() {
            eprintln!("--- the console\n{}", self.screen());
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{}` exited with {}:\n{}", self.line, self.code, self.text)
    }
}
