//! A pty with a command on it, for what only happens on terminals.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// A command whose controlling terminal is a pty of ours.
pub struct Terminal {
    child: Child,
    master: File,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts `program args` on a pty of 80 columns and 24 rows.
    #[track_caller]
    pub fn start(program: &std::path::Path, args: &[&str]) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pty");
        grantpt(&master).expect("a pty of ours");
        unlockpt(&master).expect("a pty of ours");
        let name = ptsname(&master, Vec::new()).expect("a pty has a name");
        let size = rustix::termios::Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).expect("a pty has a size");
        let slave = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().expect("a path under /dev/pts"))
            .expect("the other end of a pty");
        let end = || Stdio::from(slave.try_clone().expect("a descriptor can be copied"));
        // setsid(1) makes the pty the controlling terminal without unsafe code of ours.
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(program)
            .args(args)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("setsid from util-linux");
        let master = File::from(master);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut from, sink) = (master.try_clone().expect("a descriptor can be copied"), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO is how a pty says that its other end is closed.
            while let Ok(count) = from.read(&mut buffer) {
                if count == 0 {
                    break;
                }
                sink.lock().expect("no panic while held").extend_from_slice(&buffer[..count]);
            }
        });
        Terminal { child, master, seen }
    }

    /// Types `text`.
    #[track_caller]
    pub fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("a terminal takes input");
    }

    /// Everything printed so far.
    pub fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("no panic while held")).into_owned()
    }

    /// Waits until `part` has been printed.
    #[track_caller]
    pub fn expect(&self, part: &str) {
        let start = Instant::now();
        while !self.seen().contains(part) {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "no {part:?} on the terminal: {:?}",
                self.seen()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Changes the size, as a user dragging a window.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.master, size).expect("a pty has a size");
    }

    /// Waits for the command's end and gives its exit code.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("waiting for a child of ours") {
                return status.code().unwrap_or(-1);
            }
            assert!(start.elapsed() < Duration::from_secs(20), "hangs on its terminal: {:?}", self.seen());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
