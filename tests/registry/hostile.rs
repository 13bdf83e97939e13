//! A registry of our own for what a good one never does: it serves what it is given, and its `fault` may spoil any
//! answer.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::Namespace;

/// What happens instead of the answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The answer as it should be.
    None,
    /// The connection ends after so many bytes of the body.
    CutAfter(usize),
    /// Another status, with headers and a body.
    Answer(u16, String, String),
    /// Another body of the same promised length, or of another length.
    Body(Vec<u8>),
    /// A body that never ends, of no promised length.
    Endless,
    /// So many bytes, then a pause, and so on.
    Slowly(usize, Duration),
}

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GET /v2/a/blobs/sha256:…`
    pub line: String,
    pub headers: String,
    /// How often this line was asked before.
    pub before: usize,
}

type Decide = Box<dyn Fn(&Asked) -> Fault + Send + Sync>;

/// A registry under way. It ends with the test's process.
pub struct Hostile {
    pub port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Connections that ended before we had sent everything.
    broken: Arc<Mutex<usize>>,
}

/// What there is: target to media type and bytes.
pub type Content = HashMap<String, (String, Vec<u8>)>;

impl Hostile {
    #[track_caller]
    pub fn new(
        network: &Namespace,
        content: Content,
        fault: impl Fn(&Asked) -> Fault + Send + Sync + 'static,
    ) -> Hostile {
        Hostile::at(network, "127.0.0.1:0", content, fault)
    }

    #[track_caller]
    pub fn at(
        network: &Namespace,
        address: &str,
        content: Content,
        fault: impl Fn(&Asked) -> Fault + Send + Sync + 'static,
    ) -> Hostile {
        let listener = network.within(|| TcpListener::bind(address)).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let hostile = Hostile { port, asked: Arc::default(), broken: Arc::default() };
        let (asked, broken) = (Arc::clone(&hostile.asked), Arc::clone(&hostile.broken));
        let fault: Arc<Decide> = Arc::new(Box::new(fault));
        let content = Arc::new(content);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (asked, broken) = (Arc::clone(&asked), Arc::clone(&broken));
                let (content, fault) = (Arc::clone(&content), Arc::clone(&fault));
                std::thread::spawn(move || {
                    if serve(&stream, &content, &fault, &asked).is_err() {
                        *broken.lock().expect("no panic") += 1;
                    }
                });
            }
        });
        hostile
    }

    pub fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// Everything that was asked, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }

    /// How often something was asked.
    pub fn count(&self, line: &str) -> usize {
        self.asked().iter().filter(|asked| asked.line == line).count()
    }

    pub fn broken(&self) -> usize {
        *self.broken.lock().expect("no panic")
    }
}

fn serve(
    stream: &TcpStream,
    content: &Content,
    fault: &Decide,
    log: &Mutex<Vec<Asked>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    // Go's answer to who speaks TLS to it; all of the greeting is read, or the answer is lost.
    let greeting = reader.fill_buf()?;
    if greeting.first() == Some(&0x16) {
        let length = greeting.len();
        reader.consume(length);
        (&*stream).write_all(
            b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
        )?;
        return Ok(());
    }
    loop {
        let (mut line, mut headers) = (String::new(), String::new());
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header == "\r\n" {
                break;
            }
            headers.push_str(&header);
        }
        if let Some((_, rest)) = headers.to_ascii_lowercase().split_once("content-length: ") {
            let length = rest.lines().next().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
        }
        let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
        let asked = {
            let mut log = log.lock().expect("no panic");
            let before = log.iter().filter(|other| other.line == line).count();
            let asked = Asked { line, headers, before };
            log.push(asked.clone());
            asked
        };
        if !answer(stream, content, fault(&asked), &asked)? {
            return Ok(());
        }
    }
}

/// Answers; false when the connection ends with it.
fn answer(mut stream: &TcpStream, content: &Content, fault: Fault, asked: &Asked) -> std::io::Result<bool> {
    let (method, target) = asked.line.split_once(' ').unwrap_or(("", ""));
    if let Fault::Answer(status, headers, body) = fault {
        let text = format!("HTTP/1.1 {status} x\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(text.as_bytes())?;
        stream.write_all(if method == "HEAD" { b"" } else { body.as_bytes() })?;
        return Ok(true);
    }
    if target == "/v2/" {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")?;
        return Ok(true);
    }
    let Some((media_type, bytes)) = content.get(target) else {
        let code = if target.contains("/manifests/") { "MANIFEST_UNKNOWN" } else { "BLOB_UNKNOWN" };
        let body =
            format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"{}\"}}]}}", code.to_lowercase());
        let text = format!("HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(text.as_bytes())?;
        stream.write_all(if method == "HEAD" { b"" } else { body.as_bytes() })?;
        return Ok(true);
    };
    let lower = asked.headers.to_ascii_lowercase();
    let from = lower
        .split_once("range: bytes=")
        .map_or(0, |(_, rest)| rest.split('-').next().and_then(|text| text.parse().ok()).unwrap_or(0));
    let mut head = match from {
        0 => "HTTP/1.1 200 OK\r\n".to_owned(),
        from => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{}\r\n",
            bytes.len() - 1,
            bytes.len()
        ),
    };
    let digest = digest(bytes);
    head.push_str(&format!("Content-Type: {media_type}\r\nDocker-Content-Digest: {digest}\r\n"));
    let bytes = &bytes[from..];
    let length = |head: &str, length: usize| format!("{head}Content-Length: {length}\r\n\r\n");
    if method == "HEAD" {
        stream.write_all(length(&head, bytes.len()).as_bytes())?;
        return Ok(true);
    }
    match fault {
        Fault::None | Fault::Answer(..) => {
            stream.write_all(length(&head, bytes.len()).as_bytes())?;
            stream.write_all(bytes)?;
        }
        Fault::CutAfter(count) => {
            stream.write_all(length(&head, bytes.len()).as_bytes())?;
            stream.write_all(&bytes[..count.min(bytes.len())])?;
            return Ok(false);
        }
        Fault::Body(other) => {
            stream.write_all(length(&head, other.len()).as_bytes())?;
            stream.write_all(&other)?;
        }
        Fault::Endless => {
            stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
            stream.write_all(bytes)?;
            loop {
                stream.write_all(&[0; 4096])?;
            }
        }
        Fault::Slowly(count, pause) => {
            stream.write_all(length(&head, bytes.len()).as_bytes())?;
            for part in bytes.chunks(count.max(1)) {
                stream.write_all(part)?;
                std::thread::sleep(pause);
            }
        }
    }
    Ok(true)
}

pub fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image made by hand.
pub struct Made {
    pub content: Content,
    pub manifest: Vec<u8>,
    /// The layers as they are sent, with their digests.
    pub layers: Vec<(String, Vec<u8>)>,
}

/// An image of plain layers, one file each, in `repository` under `tag`.
pub fn image(repository: &str, tag: &str, files: &[(&str, Vec<u8>)]) -> Made {
    image_for(repository, tag, files, "amd64", OCI_LAYER)
}

/// The same for an architecture, its layers called `layer_type`.
pub fn image_for(
    repository: &str,
    tag: &str,
    files: &[(&str, Vec<u8>)],
    architecture: &str,
    layer_type: &str,
) -> Made {
    let mut content = Content::new();
    let mut layers = Vec::new();
    let mut diff_ids = Vec::new();
    let mut descriptors = Vec::new();
    for (name, bytes) in files {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, name, bytes.as_slice()).expect("memory takes it");
        let layer = builder.into_inner().expect("memory takes it");
        let digest = digest(&layer);
        diff_ids.push(digest.clone());
        descriptors.push(serde_json::json!({"mediaType": layer_type, "digest": digest, "size": layer.len()}));
        content.insert(format!("/v2/{repository}/blobs/{digest}"), (OCI_LAYER.to_owned(), layer.clone()));
        layers.push((digest, layer));
    }
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = config.to_string().into_bytes();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": digest(&config), "size": config.len()},
        "layers": descriptors,
    });
    let manifest = manifest.to_string().into_bytes();
    content.insert(format!("/v2/{repository}/blobs/{}", digest(&config)), (OCI_CONFIG.to_owned(), config));
    for reference in [tag.to_owned(), digest(&manifest)] {
        let target = format!("/v2/{repository}/manifests/{reference}");
        content.insert(target, (OCI_MANIFEST.to_owned(), manifest.clone()));
    }
    Made { content, manifest, layers }
}

/// Bytes that no compressor shrinks and that are the same every time.
pub fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state as u8
    };
    (0..count).map(|_| step(&mut state)).collect()
}
