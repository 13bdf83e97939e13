//! The daemon's own log: to standard error, to a file that rotates itself, or to this host's syslog.
//!
//! env_logger chooses what is written; here is how it looks and where it goes. One record is one write. What a file
//! or syslog does not take goes to standard error, so that a full disk hides nothing; nobody waits long for syslog.
//! A file that was moved away (logrotate) is noticed with the next record.
//!
//! Not here: the level, which a reload changes; containers' logs.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use env_logger::{Builder, Target};
use log::{Level, Record};

use super::config::Config;
use super::error::{Error, Result};
use crate::runtime::shim::log::compress::Names;
use crate::runtime::shim::log::message;

/// How records look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    /// Docker's: an object per line with `level`, `msg` and `time`.
    Json,
}

/// Where they go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Destination {
    #[default]
    Stderr,
    Syslog,
    File(PathBuf),
}

/// Where a syslog daemon listens.
const SYSLOG: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
/// How long a record waits for a syslog daemon that is behind.
const PATIENCE: Duration = Duration::from_millis(200);
/// The facility of daemons in syslog(3), shifted.
const FACILITY: u8 = 3 << 3;

/// Gives `builder` the format and the destination, and panics the log.
///
/// # Errors
/// The file cannot be opened.
pub fn prepare(builder: &mut Builder, config: &Config) -> Result<()> {
    let format = config.log_format;
    match &config.log_to {
        Destination::Stderr if format == Format::Text => {
            builder.format_target(false);
        }
        Destination::Stderr => {
            builder.format(|out, record| out.write_all(&json(record)));
        }
        Destination::Syslog => {
            builder.format(move |out, record| out.write_all(&syslog(record, format)));
            builder.target(Target::Pipe(Box::new(Syslog { socket: None })));
        }
        Destination::File(path) => {
            let file = Rotated::open(path, config.log_file_max_bytes, config.log_file_max_files);
            let file = file.map_err(|cause| Error::system(format!("open the log {path:?}"), cause))?;
            builder.format(move |out, record| match format {
                Format::Text => out.write_all(&text(record)),
                Format::Json => out.write_all(&json(record)),
            });
            builder.target(Target::Pipe(Box::new(file)));
        }
    }
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        // Only there when RUST_BACKTRACE asks for it.
        let trace = std::backtrace::Backtrace::capture();
        let trace = match trace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("\n{trace}"),
            _ => String::new(),
        };
        log::error!("thread {:?} {panic}{trace}", thread.name().unwrap_or("unnamed"));
    }));
    Ok(())
}

/// As on standard error, with the time, which no supervisor adds to a file.
fn text(record: &Record<'_>) -> Vec<u8> {
    let now = jiff::Timestamp::now();
    format!("{now:.3} [{:<5}] {}\n", record.level(), record.args()).into_bytes()
}

fn json(record: &Record<'_>) -> Vec<u8> {
    // logrus's words, in its order.
    let level = match record.level() {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let now = format!("{:.9}", jiff::Timestamp::now());
    let mut line =
        serde_json::json!({"level": level, "msg": record.args().to_string(), "time": now}).to_string();
    line.push('\n');
    line.into_bytes()
}

fn syslog(record: &Record<'_>, format: Format) -> Vec<u8> {
    let severity = match record.level() {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let stamp = message::stamp(jiff::Timestamp::now());
    let mut out = format!("<{}>{stamp} dewar[{}]: ", FACILITY | severity, std::process::id()).into_bytes();
    match format {
        Format::Text => out.extend_from_slice(format!("{}\n", record.args()).as_bytes()),
        Format::Json => out.extend_from_slice(&json(record)),
    }
    out
}

/// Where a record goes that its destination does not take.
fn instead(record: &[u8]) {
    // Nobody is left to be told when standard error is closed too.
    let _ = io::stderr().write_all(record);
}

/// A file that is set aside when it has grown to its limit.
struct Rotated {
    path: PathBuf,
    names: Names,
    max_bytes: u64,
    /// And its device and inode.
    file: Option<(File, (u64, u64))>,
}

impl Rotated {
    fn open(path: &Path, max_bytes: u64, max_files: u32) -> io::Result<Rotated> {
        let names = Names::new(path, max_files);
        let mut rotated = Rotated { path: path.to_owned(), names, max_bytes, file: None };
        rotated.reopen()?;
        Ok(rotated)
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
        let meta = file.metadata()?;
        self.file = Some((file, (meta.dev(), meta.ino())));
        Ok(())
    }

    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let found = std::fs::metadata(&self.path).ok();
        let is_ours = |of: &(u64, u64)| found.as_ref().is_some_and(|meta| (meta.dev(), meta.ino()) == *of);
        if !self.file.as_ref().is_some_and(|(_, of)| is_ours(of)) {
            self.reopen()?;
        } else if found
            .is_some_and(|meta| meta.len() > 0 && meta.len() + record.len() as u64 > self.max_bytes)
        {
            self.names.rotate();
            self.reopen()?;
        }
        match &mut self.file {
            Some((file, _)) => file.write_all(record),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Write for Rotated {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        if self.append(record).is_err() {
            instead(record);
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// This host's syslog daemon, whichever is there at the moment.
struct Syslog {
    socket: Option<UnixDatagram>,
}

impl Syslog {
    fn send(&mut self, record: &[u8]) -> io::Result<()> {
        if let Some(socket) = &self.socket
            && socket.send(record).is_ok()
        {
            return Ok(());
        }
        // It was restarted, or is not there yet.
        self.socket = None;
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let connected = SYSLOG.iter().find_map(|path| socket.connect(path).ok());
        connected.ok_or(io::ErrorKind::NotFound)?;
        socket.send(record)?;
        self.socket = Some(socket);
        Ok(())
    }
}

impl Write for Syslog {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        if self.send(record).is_err() {
            instead(record);
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<T>(level: Level, args: std::fmt::Arguments<'_>, read: impl Fn(&Record<'_>) -> T) -> T {
        read(&Record::builder().level(level).args(args).build())
    }

    #[test]
    fn records_have_logrus_shape_or_a_time() {
        let line = record(Level::Warn, format_args!("a \"b\"\nc"), json);
        let text = String::from_utf8(line).unwrap();
        assert!(
            text.starts_with("{\"level\":\"warning\",\"msg\":\"a \\\"b\\\"\\nc\",\"time\":\"2"),
            "{text}"
        );
        assert!(text.ends_with("Z\"}\n") && text.lines().count() == 1, "{text}");
        let text = String::from_utf8(record(Level::Info, format_args!("x"), self::text)).unwrap();
        assert!(text.ends_with("Z [INFO ] x\n"), "{text}");
        let text = record(Level::Error, format_args!("x"), |record| syslog(record, Format::Text));
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("<27>") && text.ends_with(&format!("dewar[{}]: x\n", std::process::id())));
    }

    #[test]
    fn a_file_rotates_and_is_made_again_when_it_was_moved() {
        let dir = std::env::temp_dir().join(format!("dewar-logger-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("log");
        let mut log = Rotated::open(&path, 10, 3).unwrap();
        for number in 0..5 {
            log.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        assert_eq!([read("log"), read("log.1"), read("log.2")], ["line 4\n", "line 3\n", "line 2\n"]);
        assert!(!dir.join("log.3").exists());
        std::fs::rename(&path, dir.join("moved")).unwrap();
        log.write_all(b"new\n").unwrap();
        assert_eq!([read("log"), read("moved")], ["new\n", "line 4\n"]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
