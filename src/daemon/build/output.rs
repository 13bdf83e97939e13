//! What a build tells, from several threads: whole lines, none torn by another's.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::http::api::image::JsonMessage;

/// Messages on their way to the client; the build waits when there are more.
const WAITING: usize = 64;

/// What a build's threads tell.
#[derive(Clone, Debug)]
pub struct Output(SyncSender<JsonMessage>);

impl Output {
    /// The other end has what is told, until all of these are dropped.
    pub fn new() -> (Output, Receiver<JsonMessage>) {
        let (sender, receiver) = sync_channel(WAITING);
        (Output(sender), receiver)
    }

    pub fn say(&self, text: impl Into<String>) {
        self.tell(JsonMessage::stream(text));
    }

    pub fn tell(&self, message: JsonMessage) {
        // Nobody listens any more: the build is about to be called off.
        let _ = self.0.send(message);
    }
}

/// One stream of a command, told as text.
pub struct Stream<'a> {
    output: &'a Output,
    is_error: bool,
    /// Several stages are at work: what a command writes is told line by line.
    by_lines: bool,
    /// Neither a whole letter nor, where that is wanted, a whole line.
    rest: Vec<u8>,
}

impl<'a> Stream<'a> {
    pub fn new(output: &'a Output, is_error: bool, by_lines: bool) -> Stream<'a> {
        Stream { output, is_error, by_lines, rest: Vec::new() }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let end = match self.by_lines && self.rest.len() < MAX_LINE {
            true => self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1),
            false => whole(&self.rest),
        };
        let rest = self.rest.split_off(end);
        let text = std::mem::replace(&mut self.rest, rest);
        self.say(&text);
    }

    /// Tells what is left.
    pub fn finish(mut self) {
        let mut rest = std::mem::take(&mut self.rest);
        if self.by_lines && !rest.is_empty() {
            rest.push(b'\n');
        }
        self.say(&rest);
    }

    fn say(&self, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(text);
        // Compat: Docker shows a command's errors in red.
        self.output.say(if self.is_error { format!("\x1b[91m{text}\x1b[0m") } else { text.into_owned() });
    }
}

/// A line without an end is told all the same when it has so many bytes.
const MAX_LINE: usize = 64 << 10;

/// Bytes that do not end within a letter.
fn whole(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(cause) if cause.error_len().is_none() => cause.valid_up_to(),
        // Bytes that are no text at all: the last may be the start of a letter.
        Err(_) => {
            let tail = bytes.len().saturating_sub(3);
            let start = bytes[tail..].iter().rposition(|byte| *byte >= 0xc0).map(|at| tail + at);
            match start {
                Some(at) if matches!(std::str::from_utf8(&bytes[at..]), Err(cause) if cause.error_len().is_none()) => {
                    at
                }
                _ => bytes.len(),
            }
        }
        Ok(_) => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(by_lines: bool, pieces: &[&[u8]]) -> Vec<String> {
        let (output, receiver) = Output::new();
        let mut stream = Stream::new(&output, false, by_lines);
        pieces.iter().for_each(|piece| stream.write(piece));
        stream.finish();
        drop(output);
        receiver.iter().filter_map(|message| message.stream).collect()
    }

    #[test]
    fn letters_stay_whole_and_where_it_matters_lines() {
        let euro = "\u{20ac}".as_bytes();
        assert_eq!(told(false, &[b"a", &euro[..1], &euro[1..], b"b"]), ["a", "\u{20ac}", "b"]);
        assert_eq!(told(false, &[b"\xff\xfe", &euro[..2], &euro[2..]]), ["\u{fffd}\u{fffd}", "\u{20ac}"]);
        assert_eq!(told(true, &[b"one\ntw", b"o\nthr", b"ee"]), ["one\n", "two\n", "three\n"]);
        assert_eq!(told(true, &[]), [""; 0]);
    }
}
