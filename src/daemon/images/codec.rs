//! Compression recognised by its first bytes, and digests taken while bytes pass.
//!
//! Decompression runs in this process, whatever the archive claims to be: no helper program is started.

use std::io::{self, BufRead, BufReader, Read, Write};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::daemon::error::{Error, Result};

/// A zstd frame or an xz block may ask for this much memory: what `zstd --long` writes and its decoder's own
/// limit, and twice the dictionary of `xz -9`. gzip and bzip2 have fixed needs, below 8 MiB.
const MAX_WINDOW: u64 = 128 << 20;
/// Memory is half zeros: what the quickest level leaves is not worth its time.
const ZSTD_LEVEL: i32 = 1;
/// An xz decoder counts its tables too.
const XZ_TABLES: u64 = 1 << 20;

/// `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Reads `sha256:<hex>`; no other algorithm is in use for images.
    pub fn parse(text: &str) -> Option<Digest> {
        let hex = text.strip_prefix("sha256:")?;
        is_full_hex(hex).then(|| Digest(text.to_owned()))
    }

    /// The digest whose hex digits these are.
    pub fn from_hex(hex: &str) -> Option<Digest> {
        is_full_hex(hex).then(|| Digest(format!("sha256:{hex}")))
    }

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest::from_ring(ring::digest::digest(&SHA256, bytes))
    }

    /// The 64 hex digits.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The first twelve hex digits, as people are shown.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn from_ring(digest: ring::digest::Digest) -> Digest {
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in digest.as_ref() {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
        }
        Digest(text)
    }
}

fn is_full_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl std::fmt::Display for Digest {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = String;
    fn try_from(text: String) -> Result<Digest, String> {
        Digest::parse(&text).ok_or_else(|| format!("{text:?} is no sha256 digest"))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

/// Passes bytes on and digests them.
pub struct Hashing<T> {
    inner: T,
    context: Context,
    bytes: u64,
}

impl<T> Hashing<T> {
    pub fn new(inner: T) -> Hashing<T> {
        Hashing { inner, context: Context::new(&SHA256), bytes: 0 }
    }

    /// The digest and count of what has passed.
    pub fn finish(self) -> (Digest, u64) {
        (Digest::from_ring(self.context.finish()), self.bytes)
    }

    /// As [`finish`](Hashing::finish), with what the bytes went through to.
    pub fn into_inner(self) -> (T, Digest, u64) {
        (self.inner, Digest::from_ring(self.context.finish()), self.bytes)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.context.update(&into[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.context.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Passes bytes on and tells how many have passed.
pub struct Counting<R, F> {
    inner: R,
    bytes: u64,
    tell: F,
}

impl<R: Read, F: FnMut(u64)> Counting<R, F> {
    pub fn new(inner: R, tell: F) -> Counting<R, F> {
        Counting { inner, bytes: 0, tell }
    }
}

impl<R: Read, F: FnMut(u64)> Read for Counting<R, F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.bytes += count as u64;
        (self.tell)(self.bytes);
        Ok(count)
    }
}

/// The uncompressed bytes of a plain, gzip, bzip2, xz or zstd stream. Damage is reported as `InvalidData`, and
/// so is a stream that asks for more memory than [`MAX_WINDOW`].
pub fn decompress<'a>(stream: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    // Ten bytes tell all formats apart; a reader may deliver them one by one.
    let mut stream = stream;
    let mut head = Vec::with_capacity(10);
    (&mut stream).take(10).read_to_end(&mut head).map_err(|cause| Error::system("read archive", cause))?;
    let kind = head.clone();
    let whole = BufReader::with_capacity(64 << 10, io::Cursor::new(head).chain(stream));
    match kind.as_slice() {
        [0x1f, 0x8b, ..] => Ok(Box::new(Damage(MultiGzDecoder::new(whole)))),
        // A skippable frame may come first.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let decoder = Zstd::new(whole).map_err(|cause| Error::system("start zstd", cause))?;
            Ok(Box::new(decoder))
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let limit = ((MAX_WINDOW + XZ_TABLES) >> 10) as u32;
            Ok(Box::new(Damage(XzReader::new_mem_limit(whole, true, limit))))
        }
        // A block, or the end of an empty stream: three letters alone may begin a file's name in a plain tar.
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59]
        | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90] => {
            Ok(Box::new(Damage(MultiBzDecoder::new(whole))))
        }
        _ => Ok(Box::new(whole)),
    }
}

/// Errors of a decompressor are the stream's damage, unless reading it failed in a way of its own.
struct Damage<R>(R);

impl<R: Read> Read for Damage<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into).map_err(|cause| match cause.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => {
                io::Error::new(io::ErrorKind::InvalidData, cause)
            }
            io::ErrorKind::OutOfMemory => io::Error::new(
                io::ErrorKind::InvalidData,
                format!("its compression asks for more than {} MiB of memory", MAX_WINDOW >> 20),
            ),
            _ => cause,
        })
    }
}

/// One zstd frame after the other, skippable ones skipped.
struct Zstd<'a, R: BufRead>(zstd::stream::read::Decoder<'a, Watched<R>>);

impl<R: BufRead> Zstd<'_, R> {
    fn new(stream: R) -> io::Result<Self> {
        let mut decoder =
            zstd::stream::read::Decoder::with_buffer(Watched { inner: stream, has_failed: false })?;
        decoder.window_log_max(MAX_WINDOW.ilog2())?;
        Ok(Zstd(decoder))
    }
}

impl<R: BufRead> Read for Zstd<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // libzstd's errors are of no kind of their own.
        self.0.read(into).map_err(|cause| match self.0.get_ref().has_failed {
            true => cause,
            false => io::Error::new(io::ErrorKind::InvalidData, cause),
        })
    }
}

/// Remembers whether it could not be read.
struct Watched<R> {
    inner: R,
    has_failed: bool,
}

impl<R: BufRead> Read for Watched<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.inner.read(into).inspect_err(|_| self.has_failed = true)
    }
}

impl<R: BufRead> BufRead for Watched<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf().inspect_err(|_| self.has_failed = true)
    }

    fn consume(&mut self, count: usize) {
        self.inner.consume(count);
    }
}

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    #[default]
    Zstd,
}

impl Compression {
    /// Reads `zstd`, `gzip` or `none`; empty is the default.
    pub fn parse(text: &str) -> Option<Compression> {
        match text {
            "" | "zstd" => Some(Compression::Zstd),
            "gzip" => Some(Compression::Gzip),
            "none" => Some(Compression::None),
            _ => None,
        }
    }

    /// Writes to `out` what `write` writes, compressed.
    pub fn write(
        self,
        out: &mut dyn Write,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        match self {
            Compression::None => write(out),
            Compression::Gzip => {
                // Memory is half zeros: what the fastest level leaves is not worth its time.
                let mut packer = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
                write(&mut packer)?;
                packer.finish().map(drop)
            }
            Compression::Zstd => {
                let mut packer = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?;
                write(&mut packer)?;
                packer.finish()?.flush()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn through(program: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child =
            Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feed = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        feed.join().unwrap().unwrap();
        output.stdout
    }

    fn all(stream: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(stream).unwrap().read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn every_supported_format_is_recognised_and_read() {
        let plain: Vec<u8> = (0..300_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        assert_eq!(all(&plain).unwrap(), plain);
        assert_eq!(all(b"").unwrap(), b"");
        assert_eq!(all(b"abc").unwrap(), b"abc");
        for (program, args) in [
            ("gzip", &["-c"][..]),
            ("zstd", &["-qc"]),
            ("zstd", &["-qc", "--ultra", "-22"]),
            ("bzip2", &["-c"]),
            ("xz", &["-c", "-T1"]),
            ("xz", &["-c", "-9e", "--check=sha256", "--x86", "--lzma2"]),
            ("xz", &["-c", "--block-size=100000", "--check=none"]),
        ] {
            let packed = through(program, args, &plain);
            assert_eq!(all(&packed).unwrap(), plain, "{program}");
            let twice = [packed.as_slice(), &packed].concat();
            assert_eq!(all(&twice).unwrap(), [plain.as_slice(), &plain].concat(), "{program} twice");
            let cut = all(&packed[..packed.len() / 2]).unwrap_err().kind();
            assert!(
                matches!(cut, io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData),
                "{program}: {cut}"
            );
        }
        let skippable =
            [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3], through("zstd", &["-qc"], b"x").as_slice()]
                .concat();
        assert_eq!(all(&skippable).unwrap(), b"x");
        // Nothing, compressed, and names that only begin like a compressed stream.
        for program in ["gzip", "zstd", "bzip2", "xz"] {
            assert_eq!(all(&through(program, &["-c"], b"")).unwrap(), b"", "{program}");
        }
        assert_eq!(all(b"BZh9.txt").unwrap(), b"BZh9.txt");
    }

    #[test]
    fn what_is_compressed_here_is_read_here_and_elsewhere() {
        let mut plain: Vec<u8> = (0..900_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        plain.resize(9 << 20, 0);
        // Nothing to be found in it.
        plain.extend((0..300_000_u64).flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()));
        for content in [&plain[..], b"", b"x", &plain[..4096]] {
            for (name, program) in [("zstd", "zstd"), ("gzip", "gzip"), ("none", "cat")] {
                let mut packed = Vec::new();
                let compression = Compression::parse(name).unwrap();
                compression.write(&mut packed, |out| out.write_all(content)).unwrap();
                assert!(all(&packed).unwrap() == content, "{name}, {} bytes", content.len());
                let args: &[&str] = if program == "cat" { &[] } else { &["-dc"] };
                assert!(through(program, args, &packed) == content, "{program}, {} bytes", content.len());
            }
        }
        assert_eq!(Compression::parse("xz"), None);
    }

    /// Who cut a transfer off is asked for by the error's own kind.
    #[test]
    fn what_cannot_be_read_is_no_damage() {
        struct Cut;
        impl Read for Cut {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("cut off"))
            }
        }
        for program in ["gzip", "zstd", "bzip2", "xz"] {
            let packed = through(program, &["-c"], &[7; 100_000]);
            let mut plain = decompress(packed[..packed.len() / 2].chain(Cut)).unwrap();
            let failure = io::copy(&mut plain, &mut io::sink()).unwrap_err();
            assert_eq!(
                (failure.kind(), failure.to_string().as_str()),
                (io::ErrorKind::Other, "cut off"),
                "{program}"
            );
        }
    }

    #[test]
    fn streams_that_ask_for_too_much_memory_are_refused() {
        for (program, args) in
            [("xz", &["-c", "--lzma2=preset=1,dict=192MiB"][..]), ("zstd", &["-qc", "--long=28"])]
        {
            // zstd makes the window no larger than what it is told comes, and a pipe tells nothing.
            let packed = through(program, args, b"small");
            let failure = all(&packed).unwrap_err();
            assert_eq!(failure.kind(), io::ErrorKind::InvalidData, "{program}: {failure}");
        }
    }

    #[test]
    fn no_flipped_bit_panics() {
        let plain: Vec<u8> = (0..2000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for program in ["gzip", "zstd", "bzip2", "xz"] {
            let packed = through(program, &["-c"], &plain);
            for at in 0..packed.len() {
                for bit in [0x01, 0x80] {
                    let mut damaged = packed.clone();
                    damaged[at] ^= bit;
                    let mut out = Vec::new();
                    let _ = decompress(damaged.as_slice()).unwrap().take(1 << 20).read_to_end(&mut out);
                }
            }
        }
    }

    #[test]
    fn digests_are_read_and_taken() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        let mut hashing = Hashing::new(&b"abc"[..]);
        io::copy(&mut hashing, &mut io::sink()).unwrap();
        assert_eq!(hashing.finish(), (Digest::of(b"abc"), 3));
        assert!(Digest::parse(&empty.to_uppercase()).is_none());
        assert!(Digest::parse(&empty[..70]).is_none());
        assert!(
            Digest::parse("sha256:../../../../../../../../../../../../../../../../../../etc/passwd")
                .is_none()
        );
    }
}
