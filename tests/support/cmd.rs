//! Runs a command to its end and says what it did, in words a failed test can be understood from.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any command of a test takes on a loaded machine; what runs longer hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// A command to run. Its standard input is empty unless [`Cmd::stdin`] gives some.
pub struct Cmd {
    command: Command,
    line: String,
    stdin: Vec<u8>,
    limit: Duration,
}

impl Cmd {
    pub fn new(program: impl AsRef<OsStr>) -> Cmd {
        let program = program.as_ref();
        let mut command = Command::new(program);
        // A developer's own settings must not decide a test.
        for name in [
            "DOCKER_HOST",
            "DOCKER_CONTEXT",
            "DOCKER_TLS",
            "DOCKER_TLS_VERIFY",
            "DOCKER_CERT_PATH",
            "DOCKER_API_VERSION",
            "DOCKER_CONFIG",
        ] {
            command.env_remove(name);
        }
        Cmd { command, line: program.to_string_lossy().into_owned(), stdin: Vec::new(), limit: LIMIT }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Cmd {
        self.line.push(' ');
        self.line.push_str(&arg.as_ref().to_string_lossy());
        self.command.arg(arg);
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Cmd {
        for arg in args {
            self = self.arg(arg);
        }
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Cmd {
        self.command.env(name, value);
        self
    }

    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Cmd {
        self.stdin = bytes.into();
        self
    }

    /// Starts it and leaves it to the caller, who sees its standard output.
    #[track_caller]
    pub fn spawn(mut self) -> Running {
        let child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|cause| panic!("starting `{}`: {cause}", self.line));
        Running { child, line: self.line }
    }

    /// Runs it to its end, whatever its exit code.
    #[track_caller]
    pub fn run(mut self) -> Output {
        let mut child = self
            .command
            .stdin(if self.stdin.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|cause| panic!("starting `{}`: {cause}", self.line));
        let input = child.stdin.take();
        let bytes = std::mem::take(&mut self.stdin);
        let feeder = std::thread::spawn(move || {
            if let Some(mut input) = input {
                // It may end without reading; that is its business.
                drop(input.write_all(&bytes));
            }
        });
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("waiting for a child of ours") {
                break status;
            }
            if start.elapsed() > self.limit {
                drop(child.kill());
                drop(child.wait());
                let output = Output { line: self.line, code: -1, stdout: text(stdout), stderr: text(stderr) };
                panic!("hangs, killed after {:?}: {output}", self.limit);
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        drop(feeder.join());
        use std::os::unix::process::ExitStatusExt;
        // As a shell would say it: 128 + signal.
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
        Output { line: self.line, code, stdout: text(stdout), stderr: text(stderr) }
    }

    /// Runs it; the test fails unless it exits with 0.
    #[track_caller]
    pub fn ok(self) -> Output {
        self.fails(0)
    }

    /// Runs it; the test fails unless it exits with `code`.
    #[track_caller]
    pub fn fails(self, code: i32) -> Output {
        let output = self.run();
        assert!(output.code == code, "expected exit code {code}: {output}");
        output
    }
}

type Collected = std::thread::JoinHandle<Vec<u8>>;

fn drain(from: Option<impl Read + Send + 'static>) -> Collected {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            drop(from.read_to_end(&mut bytes));
        }
        bytes
    })
}

fn text(collected: Collected) -> String {
    String::from_utf8_lossy(&collected.join().unwrap_or_default()).into_owned()
}

/// What a command did.
#[derive(Debug, Clone)]
pub struct Output {
    pub line: String,
    /// 128 + signal for a death by signal.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl std::fmt::Display for Output {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "`{}` exited with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.line, self.code, self.stdout, self.stderr
        )
    }
}

impl Output {
    /// Standard output without the white space around it.
    pub fn trimmed(&self) -> &str {
        self.stdout.trim()
    }

    #[track_caller]
    pub fn stdout_is(&self, expected: &str) -> &Output {
        assert!(self.stdout == expected, "expected stdout {expected:?}: {self}");
        self
    }

    #[track_caller]
    pub fn stdout_has(&self, part: &str) -> &Output {
        assert!(self.stdout.contains(part), "expected {part:?} in stdout: {self}");
        self
    }

    #[track_caller]
    pub fn stdout_lacks(&self, part: &str) -> &Output {
        assert!(!self.stdout.contains(part), "did not expect {part:?} in stdout: {self}");
        self
    }

    #[track_caller]
    pub fn stderr_has(&self, part: &str) -> &Output {
        assert!(self.stderr.contains(part), "expected {part:?} in stderr: {self}");
        self
    }

    /// Compat: an exec that cannot start says so in its own output stream, as Docker's does.
    #[track_caller]
    pub fn says(&self, part: &str) -> &Output {
        assert!(self.stdout.contains(part) || self.stderr.contains(part), "expected {part:?}: {self}");
        self
    }

    /// No command may answer bad input with a panic.
    #[track_caller]
    pub fn no_panic(&self) -> &Output {
        assert!(self.code != 101 && !self.stderr.contains("panicked"), "it panicked: {self}");
        self
    }
}

/// A command under way. Killed on drop.
pub struct Running {
    pub child: std::process::Child,
    line: String,
}

impl Running {
    /// Waits for its end and gives its exit code.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("waiting for a child of ours") {
                return status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
            }
            assert!(start.elapsed() < LIMIT, "`{}` hangs", self.line);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
