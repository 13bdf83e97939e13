//! HTTP by hand over the daemon's unix socket: what a test sends is exactly what it wrote.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// A connection. Reads give up after 20 s: a daemon that answers slower than that hangs.
pub struct Connection {
    reader: BufReader<UnixStream>,
    /// Of the reply under way.
    chunked: bool,
}

/// A reply with its body read.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|cause| panic!("not JSON: {cause}: {self:?} {}", self.text()))
    }

    /// The test fails unless the status is `status`.
    #[track_caller]
    pub fn is(self, status: u16) -> Reply {
        assert!(self.status == status, "expected {status}, got {}: {}", self.status, self.text());
        self
    }

    /// An error as Docker's clients understand it: JSON with a message, and the exact content type.
    #[track_caller]
    pub fn refuses(self, status: u16, part: &str) -> Reply {
        let reply = self.is(status);
        assert_eq!(reply.header("content-type"), Some("application/json"), "{}", reply.text());
        let message = reply.json()["message"].as_str().map(str::to_owned).unwrap_or_default();
        assert!(message.contains(part), "expected {part:?} in the message {message:?}");
        reply
    }
}

impl Connection {
    #[track_caller]
    pub fn open(socket: &Path) -> Connection {
        let stream =
            UnixStream::connect(socket).unwrap_or_else(|cause| panic!("connecting to {socket:?}: {cause}"));
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout that is not zero");
        stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a timeout that is not zero");
        Connection { reader: BufReader::new(stream), chunked: false }
    }

    pub fn stream(&self) -> &UnixStream {
        self.reader.get_ref()
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("the daemon reads what is sent");
    }

    /// Sends a request head and body, with `Content-Length` and, for a body, JSON's type.
    #[track_caller]
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: docker\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = body {
            if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
                head.push_str("Content-Type: application/json\r\n");
            }
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body.unwrap_or_default());
        self.send(&bytes);
    }

    /// The status and headers of the next reply; `None` at end of file.
    #[track_caller]
    pub fn head(&mut self) -> Option<Reply> {
        let mut line = String::new();
        if self.reader.read_line(&mut line).expect("the daemon answers in time") == 0 {
            return None;
        }
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("not a status line: {line:?}"));
        let mut headers = Vec::new();
        loop {
            line.clear();
            self.reader.read_line(&mut line).expect("a head ends with an empty line");
            let trimmed = line.trim_end();
            if trimmed.is_empty() {
                break;
            }
            let (name, value) = trimmed.split_once(':').unwrap_or_else(|| panic!("not a header: {line:?}"));
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        self.chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        Some(Reply { status, headers, body: Vec::new() })
    }

    /// One chunk of a chunked body; `None` when it has ended.
    #[track_caller]
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("a chunk arrives in time");
        let size = usize::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16)
            .unwrap_or_else(|_| panic!("not a chunk size: {line:?}"));
        let mut bytes = vec![0; size + 2];
        self.reader.read_exact(&mut bytes).expect("a whole chunk");
        bytes.truncate(size);
        (size > 0).then_some(bytes)
    }

    /// The next reply with its whole body. `method` HEAD has none.
    #[track_caller]
    pub fn reply(&mut self, method: &str) -> Reply {
        let mut reply = self.head().expect("an answer, not a closed connection");
        let length = reply.header("content-length").and_then(|length| length.parse::<usize>().ok());
        if method == "HEAD" || matches!(reply.status, 100..=199 | 204 | 304) {
        } else if self.chunked {
            while let Some(chunk) = self.chunk() {
                reply.body.extend(chunk);
            }
        } else if let Some(length) = length {
            reply.body = vec![0; length];
            self.reader.read_exact(&mut reply.body).expect("a body as long as announced");
        } else {
            self.reader.read_to_end(&mut reply.body).expect("a body that ends");
        }
        reply
    }

    /// The next `count` bytes of an upgraded connection; `None` if it ends before.
    pub fn exact(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).ok().map(|()| bytes)
    }

    /// Bytes of an upgraded connection until the daemon closes it.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes).expect("the daemon closes the connection in time");
        bytes
    }
}

/// Splits Docker's multiplexed stream: (stdout, stderr).
#[track_caller]
pub fn demultiplex(mut bytes: &[u8]) -> (String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while bytes.len() >= 8 {
        let length = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
        assert!(bytes[0] <= 2 && bytes[1..4] == [0, 0, 0], "not a frame header: {:?}", &bytes[..8]);
        let payload = &bytes[8..8 + length];
        if bytes[0] == 2 {
            stderr.extend_from_slice(payload)
        } else {
            stdout.extend_from_slice(payload)
        }
        bytes = &bytes[8 + length..];
    }
    assert!(bytes.is_empty(), "half a frame header: {bytes:?}");
    (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}
