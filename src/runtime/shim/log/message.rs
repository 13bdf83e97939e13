//! Output as messages of syslog and of systemd's journal.
//!
//! - syslog: `<priority>` and a head in one of Docker's four forms, the text, a newline. Standard error is severity
//!   `err`, standard output `info`.
//! - journal: fields, one per line; a value that may hold a newline has its length before it instead.
//!
//! Sources: RFC 3164, RFC 5424, systemd's JOURNAL_NATIVE_PROTOCOL, moby `daemon/logger/{syslog,journald}`.

use std::io::Write as _;

use super::Stream;
use super::entry::Entry;
use crate::runtime::sys::time::utc_offset_secs;
use crate::runtime::{LogForm, SyslogForm};

/// Severities of syslog(3), which the journal has as well.
const ERR: u8 = 3;
const INFO: u8 = 6;

/// The entry as its receiver wants it; `number` counts the messages of this life of the container.
pub fn encode(form: &LogForm, entry: &Entry<'_>, number: u64) -> Vec<u8> {
    let severity = match entry.stream {
        Stream::Stdout => INFO,
        Stream::Stderr => ERR,
    };
    let mut out = Vec::with_capacity(entry.text.len() + 256);
    match form {
        LogForm::Syslog { facility, form, tag, hostname } => {
            let at = entry.time.at;
            let (local, secs) = local(at);
            let priority = u16::from(*facility) << 3 | u16::from(severity);
            let pid = std::process::id();
            let stamp = || stamp(at);
            let (sign, minutes) = (if secs < 0 { '-' } else { '+' }, secs.unsigned_abs() / 60);
            let zone = format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60);
            // Go writes a zone without an offset so.
            let zone = if secs == 0 { "Z".to_owned() } else { zone };
            // Writing to memory does not fail.
            let _ = match form {
                SyslogForm::Unix => write!(out, "<{priority}>{} {tag}[{pid}]: ", stamp()),
                SyslogForm::Rfc3164 => write!(out, "<{priority}>{} {hostname} {tag}[{pid}]: ", stamp()),
                SyslogForm::Rfc5424 => write!(
                    out,
                    "<{priority}>1 {}{zone} {hostname} {tag} {pid} {tag} - ",
                    local.strftime("%Y-%m-%dT%H:%M:%S")
                ),
                SyslogForm::Rfc5424Micro => write!(
                    out,
                    "<{priority}>1 {}{zone} {hostname} {tag} {pid} {tag} - ",
                    local.strftime("%Y-%m-%dT%H:%M:%S.%6f")
                ),
            };
            out.extend_from_slice(entry.text);
            out.push(b'\n');
        }
        LogForm::Journal { fields } => {
            field(&mut out, "PRIORITY", severity.to_string().as_bytes());
            for (name, value) in fields {
                field(&mut out, name, value.as_bytes());
            }
            field(&mut out, "SYSLOG_TIMESTAMP", entry.time.text.as_bytes());
            field(&mut out, "CONTAINER_LOG_ORDINAL", number.to_string().as_bytes());
            if let Some(partial) = entry.partial {
                field(&mut out, "CONTAINER_PARTIAL_ID", partial.id.as_bytes());
                field(&mut out, "CONTAINER_PARTIAL_ORDINAL", partial.ordinal.to_string().as_bytes());
                field(&mut out, "CONTAINER_PARTIAL_LAST", partial.is_last.to_string().as_bytes());
                if !partial.is_last {
                    field(&mut out, "CONTAINER_PARTIAL_MESSAGE", b"true");
                }
            }
            field(&mut out, "MESSAGE", entry.text);
        }
    }
    out
}

/// A moment in the host's time zone, and how many seconds that is ahead of UTC.
fn local(at: jiff::Timestamp) -> (jiff::civil::DateTime, i32) {
    let secs = utc_offset_secs(at.as_second());
    let offset = jiff::tz::Offset::from_seconds(secs).unwrap_or(jiff::tz::Offset::UTC);
    (offset.to_datetime(at), secs)
}

/// `Jan  2 03:04:05`, in the host's time zone.
pub fn stamp(at: jiff::Timestamp) -> String {
    local(at).0.strftime("%b %e %H:%M:%S").to_string()
}

/// One field of a journal entry.
fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Moment, Partial};
    use super::*;

    fn syslog(form: SyslogForm, stream: Stream) -> String {
        let time = Moment::from("2026-01-02T03:04:05.000006Z".parse::<jiff::Timestamp>().unwrap());
        let entry = Entry { stream, text: b"said", partial: None, time: &time };
        let form = LogForm::Syslog { facility: 3, form, tag: "web".into(), hostname: "box".into() };
        String::from_utf8(encode(&form, &entry, 1)).unwrap()
    }

    #[test]
    fn syslog_messages_have_dockers_forms() {
        let pid = std::process::id();
        // Whatever zone the tests run in.
        let hour = |text: &str| text.replacen("03:04", "HH:MM", 1);
        if utc_offset_secs(1_767_323_045) != 0 {
            assert!(syslog(SyslogForm::Unix, Stream::Stdout).starts_with("<30>Jan"));
            return;
        }
        assert_eq!(
            hour(&syslog(SyslogForm::Unix, Stream::Stdout)),
            format!("<30>Jan  2 HH:MM:05 web[{pid}]: said\n")
        );
        let text = syslog(SyslogForm::Rfc3164, Stream::Stderr);
        assert_eq!(hour(&text), format!("<27>Jan  2 HH:MM:05 box web[{pid}]: said\n"));
        let text = syslog(SyslogForm::Rfc5424, Stream::Stdout);
        assert_eq!(hour(&text), format!("<30>1 2026-01-02THH:MM:05Z box web {pid} web - said\n"));
        let text = syslog(SyslogForm::Rfc5424Micro, Stream::Stdout);
        assert_eq!(hour(&text), format!("<30>1 2026-01-02THH:MM:05.000006Z box web {pid} web - said\n"));
    }

    #[test]
    fn journal_fields_are_lines_or_counted() {
        let time = Moment::from("2026-01-02T03:04:05Z".parse::<jiff::Timestamp>().unwrap());
        let partial = Partial { id: "i".into(), ordinal: 1, is_last: false };
        let entry = Entry { stream: Stream::Stderr, text: b"x", partial: Some(&partial), time: &time };
        let fields =
            vec![("CONTAINER_NAME".to_owned(), "web".to_owned()), ("A".to_owned(), "1\n2".to_owned())];
        let got = encode(&LogForm::Journal { fields }, &entry, 7);
        let expected = b"PRIORITY=3\nCONTAINER_NAME=web\nA\n\x03\0\0\0\0\0\0\x001\n2\n\
            SYSLOG_TIMESTAMP=2026-01-02T03:04:05.000000000Z\nCONTAINER_LOG_ORDINAL=7\nCONTAINER_PARTIAL_ID=i\n\
            CONTAINER_PARTIAL_ORDINAL=1\nCONTAINER_PARTIAL_LAST=false\nCONTAINER_PARTIAL_MESSAGE=true\nMESSAGE=x\n";
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(expected));
    }
}
