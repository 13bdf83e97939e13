//! Stdout and stderr over one stream: frames of an 8 byte header and a payload.
//!
//! ```text
//!   0       1 2 3    4 5 6 7          8 ...
//!  +--------+-------+----------------+---------
//!  | stream | 0 0 0 | length, big-end | payload
//!  +--------+-------+----------------+---------
//! ```
//!
//! The decoder is incremental and holds no payload: whatever part of a frame has arrived is passed on, so a
//! hostile length costs nothing.
//!
//! Source: Engine API, "Attach to a container", stream format.

use std::io::{self, Write};

/// The length of a frame's header in bytes.
pub const HEADER_BYTES: usize = 8;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Never sent by a daemon; read because the format has it.
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    /// The daemon's own words about a failure in mid-stream.
    SystemError = 3,
}

/// The header of a frame of `length` payload bytes.
pub fn header(stream: Stream, length: u32) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = length.to_be_bytes();
    [stream as u8, 0, 0, 0, a, b, c, d]
}

/// Writes `payload` as one frame (or more, past 4 GiB). Does not flush.
pub fn write_frame(out: &mut impl Write, stream: Stream, payload: &[u8]) -> io::Result<()> {
    for part in payload.chunks(u32::MAX as usize) {
        // `chunks` bounds the length, so the conversion cannot lose anything.
        out.write_all(&header(stream, u32::try_from(part.len()).unwrap_or(u32::MAX)))?;
        out.write_all(part)?;
    }
    Ok(())
}

/// An incremental decoder.
#[derive(Debug, Default)]
pub struct Decoder {
    header: [u8; HEADER_BYTES],
    /// How many bytes of the header are there; 8 while in a payload.
    have: usize,
    left: u32,
}

impl Decoder {
    /// Decodes `input` completely, calling `each` with the pieces of payload in it, in order.
    ///
    /// Fails with `InvalidData` at a stream number that does not exist, and with what `each` fails with.
    pub fn feed(
        &mut self,
        mut input: &[u8],
        mut each: impl FnMut(Stream, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        while !input.is_empty() {
            if self.have < HEADER_BYTES {
                let count = input.len().min(HEADER_BYTES - self.have);
                self.header[self.have..self.have + count].copy_from_slice(&input[..count]);
                self.have += count;
                input = &input[count..];
                if self.have < HEADER_BYTES {
                    return Ok(());
                }
                let [_, _, _, _, a, b, c, d] = self.header;
                self.left = u32::from_be_bytes([a, b, c, d]);
            }
            let stream = self.stream()?;
            let count = input.len().min(self.left as usize);
            if count > 0 {
                each(stream, &input[..count])?;
                self.left -= count as u32;
                input = &input[count..];
            }
            if self.left == 0 {
                self.have = 0;
            }
        }
        Ok(())
    }

    /// Whether the input so far ends with a frame, and not inside of one.
    #[cfg(test)]
    pub fn is_complete(&self) -> bool {
        self.have == 0
    }

    fn stream(&self) -> io::Result<Stream> {
        match self.header[0] {
            0 => Ok(Stream::Stdin),
            1 => Ok(Stream::Stdout),
            2 => Ok(Stream::Stderr),
            3 => Ok(Stream::SystemError),
            other => {
                Err(io::Error::new(io::ErrorKind::InvalidData, format!("unknown stream {other} in a frame")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_every_cut() {
        let mut wire = Vec::new();
        write_frame(&mut wire, Stream::Stdout, b"hello\n").unwrap();
        write_frame(&mut wire, Stream::Stderr, b"oh").unwrap();
        wire.extend_from_slice(&header(Stream::Stdout, 0));
        write_frame(&mut wire, Stream::SystemError, &[7; 300]).unwrap();
        for step in 1..=wire.len() {
            let (mut decoder, mut out, mut err, mut system) = (Decoder::default(), vec![], vec![], vec![]);
            for piece in wire.chunks(step) {
                decoder
                    .feed(piece, |stream, bytes| {
                        match stream {
                            Stream::Stdout => out.extend_from_slice(bytes),
                            Stream::Stderr => err.extend_from_slice(bytes),
                            Stream::SystemError => system.extend_from_slice(bytes),
                            Stream::Stdin => panic!("no stdin was sent"),
                        }
                        Ok(())
                    })
                    .unwrap();
            }
            assert!(decoder.is_complete(), "{step}");
            assert_eq!((&out[..], &err[..], system.len()), (&b"hello\n"[..], &b"oh"[..], 300));
        }
    }

    #[test]
    fn unknown_streams_and_huge_lengths() {
        let mut decoder = Decoder::default();
        assert!(decoder.feed(&[9, 0, 0, 0, 0, 0, 0, 1, b'x'], |_, _| Ok(())).is_err());
        let mut decoder = Decoder::default();
        let mut seen = 0;
        decoder
            .feed(&[1, 0, 0, 0, 255, 255, 255, 255, b'x'], |_, bytes| {
                seen += bytes.len();
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, 1);
        assert!(!decoder.is_complete());
    }
}
