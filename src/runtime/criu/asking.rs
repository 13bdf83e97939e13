//! What `criu lazy-pages` asks of whoever has a container's memory, on the socket it was given, and the answers.
//!
//! ```text
//!  criu lazy-pages                                      us
//!    | --- {GET, pages, address, process} ------------> |   as processes touch them, and then all the others
//!    | <-- {ADD, pages, address, process} pages … ----- |   in the same order
//!    | --- {CLOSE} -----------------------------------> |   it has them all
//!    | <-- 0 ------------------------------------------ |
//!    |                                                  |
//!  its shim, when all is there, or not wanted any more  |
//!    | --- {WHOLE} -----------------------------------> |   an end without it: it is lost
//! ```
//!
//! Between the two stands a process that keeps the questions ([`relay`](super::relay)), and speaks the same to both.
//!
//! The fields are the machine's own. Up to CRIU 4.1 the number of pages has 32 bits, later 64: told apart by what
//! would be the address, which is never as low as a number of pages is.
//!
//! Source: CRIU's `criu/page-xfer.c`.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

const GET: u32 = 7;
const CLOSE: u32 = 0x1023;
const CLOSE_ALL: u32 = 0x1024;
const REST: u32 = 0;
/// ADD with flags, of which the pages' presence is one.
const ADD: u32 = 6 | 4 << 16;
/// Our own: nobody else's commands have this many bits.
const WHOLE: u32 = 0x6c61_7774;
const WORD_BYTES: usize = 8;
const NARROW_BYTES: usize = 24;
const WIDE_BYTES: usize = 32;
/// Below any address that can be mapped, above any number of pages that is asked for at once.
const LOWEST_ADDRESS: u64 = 65536;
/// CRIU asks for 4 MiB at most.
const MOST_BYTES: u64 = 64 << 20;

/// Pages that a process of a container waits for, or will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number in the container.
    pub process: u64,
    pub address: u64,
    pub bytes: usize,
    header: [u8; WIDE_BYTES],
    is_wide: bool,
}

impl Request {
    fn header_bytes(&self) -> usize {
        if self.is_wide { WIDE_BYTES } else { NARROW_BYTES }
    }
}

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Pages(Request),
    /// Nothing more is wanted.
    Whole,
}

/// Waits for the next word; `None` at the end.
///
/// # Errors
/// It makes no sense.
pub fn next(mut stream: &UnixStream) -> io::Result<Option<Asked>> {
    loop {
        let mut header = [0; WIDE_BYTES];
        match stream.read_exact(&mut header[..WORD_BYTES]) {
            Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(cause) if cause.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            result => result?,
        }
        let command = word(&header, 0);
        if command != REST {
            stream.read_exact(&mut header[WORD_BYTES..NARROW_BYTES])?;
        }
        match command {
            WHOLE => return Ok(Some(Asked::Whole)),
            GET => return request(stream, header).map(|request| Some(Asked::Pages(request))),
            // It has what it wants, and wants to hear that this is well; one that is gone already has said it all the same.
            CLOSE | CLOSE_ALL => drop(stream.write_all(&0_i32.to_ne_bytes())),
            // The end of a wide word that was read as a narrow one, for nothing in it tells.
            REST => {}
            _ => return Err(strange()),
        }
    }
}

fn request(mut stream: &UnixStream, mut header: [u8; WIDE_BYTES]) -> io::Result<Request> {
    let is_wide = long(&header, 8) < LOWEST_ADDRESS;
    if is_wide {
        stream.read_exact(&mut header[NARROW_BYTES..])?;
    }
    let (pages, address, process) = match is_wide {
        true => (long(&header, 8), long(&header, 16), long(&header, 24)),
        false => (u64::from(word(&header, 4)), long(&header, 8), long(&header, 16)),
    };
    let bytes =
        pages.checked_mul(super::memory::page_bytes()).filter(|bytes| (1..=MOST_BYTES).contains(bytes));
    let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(strange)?;
    Ok(Request { process, address, bytes, header, is_wide })
}

fn strange() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "criu asked for what is no page")
}

/// Gives the pages that were asked for: all of them, in the order of the requests.
///
/// # Errors
/// Nobody wants them any more.
pub fn answer(mut stream: &UnixStream, request: &Request, pages: &[u8]) -> io::Result<()> {
    let mut header = request.header;
    header[..4].copy_from_slice(&ADD.to_ne_bytes());
    stream.write_all(&header[..request.header_bytes()])?;
    stream.write_all(pages)
}

/// Asks once more, as CRIU has.
///
/// # Errors
/// Nobody hears it.
pub fn ask(mut stream: &UnixStream, request: &Request) -> io::Result<()> {
    stream.write_all(&request.header[..request.header_bytes()])
}

/// Waits for the next whole answer; `None` at the end. `first` gives the question that has waited longest, once an answer
/// has begun to come.
///
/// # Errors
/// It is not an answer to that question; it ended half-way.
pub fn answered(
    mut stream: &UnixStream,
    first: impl FnOnce() -> Option<Request>,
) -> io::Result<Option<(Request, Vec<u8>)>> {
    let mut header = [0; WIDE_BYTES];
    match stream.read_exact(&mut header[..WORD_BYTES]) {
        Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let strange = || io::Error::new(io::ErrorKind::InvalidData, "an answer to what was not asked");
    let request = first().ok_or_else(strange)?;
    let bytes = request.header_bytes();
    stream.read_exact(&mut header[WORD_BYTES..bytes])?;
    if word(&header, 0) != ADD || header[4..bytes] != request.header[4..bytes] {
        return Err(strange());
    }
    let mut pages = vec![0; request.bytes];
    stream.read_exact(&mut pages)?;
    Ok(Some((request, pages)))
}

/// Says that nothing more is wanted. One whom nobody hears any more needs not say it.
pub fn is_whole(mut stream: &UnixStream) {
    let mut header = [0; NARROW_BYTES];
    header[..4].copy_from_slice(&WHOLE.to_ne_bytes());
    let _ = stream.write_all(&header);
}

fn word(header: &[u8; WIDE_BYTES], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&header[at..at + 4]);
    u32::from_ne_bytes(bytes)
}

fn long(header: &[u8; WIDE_BYTES], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&header[at..at + 8]);
    u64::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It does not wait for the answer to its last word, which was taken for a failure once.
    #[test]
    fn one_that_is_gone_has_said_that_it_has_all() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut close = [0; NARROW_BYTES];
        close[..4].copy_from_slice(&CLOSE.to_ne_bytes());
        (&theirs).write_all(&close).unwrap();
        is_whole(&theirs);
        drop(theirs);
        assert_eq!(next(&ours).unwrap(), Some(Asked::Whole));
        assert_eq!(next(&ours).unwrap(), None);
    }

    #[test]
    fn both_widths_are_understood_and_answered_alike() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let page = usize::try_from(super::super::memory::page_bytes()).unwrap();
        let narrow = [
            &GET.to_ne_bytes()[..],
            &2_u32.to_ne_bytes(),
            &0x7f00_0000_u64.to_ne_bytes(),
            &9_u64.to_ne_bytes(),
        ];
        let wide = [
            // The hole is whatever it was.
            &GET.to_ne_bytes()[..],
            &[0xee; 4],
            &2_u64.to_ne_bytes(),
            &0x7f00_0000_u64.to_ne_bytes(),
            &9_u64.to_ne_bytes(),
        ];
        for said in [narrow.concat(), wide.concat()] {
            (&theirs).write_all(&said).unwrap();
            let Some(Asked::Pages(request)) = next(&ours).unwrap() else { panic!("no request") };
            assert_eq!((request.process, request.address, request.bytes), (9, 0x7f00_0000, 2 * page));
            answer(&ours, &request, &vec![5; request.bytes]).unwrap();
            let mut heard = vec![0; said.len() + request.bytes];
            (&theirs).read_exact(&mut heard).unwrap();
            assert_eq!(heard[..4], [6, 0, 4, 0]);
            assert_eq!(heard[8..said.len()], said[8..]);
            assert!(heard[said.len()..].iter().all(|byte| *byte == 5));
        }
        for bytes in [NARROW_BYTES, WIDE_BYTES] {
            let mut said = vec![0; bytes];
            said[..4].copy_from_slice(&CLOSE_ALL.to_ne_bytes());
            (&theirs).write_all(&said).unwrap();
        }
        is_whole(&theirs);
        assert_eq!(next(&ours).unwrap(), Some(Asked::Whole));
        let mut heard = [1; 8];
        (&theirs).read_exact(&mut heard).unwrap();
        assert_eq!(heard, [0; 8]);
        (&theirs).write_all(&[1; NARROW_BYTES]).unwrap();
        assert!(next(&ours).is_err());
        drop(theirs);
        assert_eq!(next(&ours).unwrap(), None);
    }
}
