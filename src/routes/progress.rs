//! Long work that tells how far it has come: a stream of JSON messages, one per line.
//!
//! A refusal before the first message is a status; one after it can only be the last message. So the work
//! begins before the head is sent, on a thread of its own, and its first word decides.
//!
//! ```text
//!  handler ── starts ──▶ work ── messages, thinned out ──▶ channel ──▶ stream
//!     └── waits for the first: a message → 200 and the stream; a failure → its status
//! ```
//!
//! A client that goes away does not end the work of [`stream`]: what it asked for is worth finishing, and an upload
//! that breaks off ends by itself. It ends the work of [`stream_while_wanted`], which somebody else's line pays for.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::daemon::error::{Error, Result};
use crate::http::api::image::JsonMessage;
use crate::http::connection::Peer;
use crate::http::reply::{Outgoing, Reply};

/// Source: Docker sends one message per object and tenth of a second.
const INTERVAL: Duration = Duration::from_millis(100);
/// A reader that falls behind slows the work down only when so many messages wait.
const WAITING: usize = 64;
/// How often a client that hears nothing is looked for.
const LOOK_UP: Duration = Duration::from_millis(250);

/// What comes out of the work.
enum Word {
    Message(JsonMessage),
    End(Result<()>),
}

/// Runs `work`, which is given a function to tell its progress to, and answers with what it tells.
pub fn stream(
    name: &str,
    work: impl FnOnce(&mut dyn FnMut(JsonMessage)) -> Result<()> + Send + 'static,
) -> Result<Reply> {
    let receiver = begin(name, work)?;
    let first = match receiver.recv().map_err(|_| panicked())? {
        Word::End(result) => return result.map(|()| Reply::stream(JSON, |_| Ok(()))),
        Word::Message(message) => message,
    };
    Ok(Reply::stream(JSON, move |out| {
        send(out, &first)?;
        while forward(out, receiver.recv().ok())? {}
        Ok(())
    }))
}

/// As [`stream`], but calls `give_up` when the client goes away, after which the work should end soon.
pub fn stream_while_wanted(
    name: &str,
    peer: &Peer,
    give_up: impl Fn() + Send + 'static,
    work: impl FnOnce(&mut dyn FnMut(JsonMessage)) -> Result<()> + Send + 'static,
) -> Result<Reply> {
    let receiver = begin(name, work)?;
    let wanted = Wanted(give_up);
    let first = match wanted.word(&receiver, peer) {
        None => return Err(Error::invalid(format!("{name}: the client has gone"))),
        Some(Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout)) => return Err(panicked()),
        Some(Ok(Word::End(result))) => return result.map(|()| Reply::stream(JSON, |_| Ok(()))),
        Some(Ok(Word::Message(message))) => message,
    };
    Ok(Reply::stream(JSON, move |out| {
        let peer = out.peer();
        send(out, &first)?;
        // Nobody is there to be told that nobody is there.
        while let Some(word) = wanted.word(&receiver, &peer) {
            if !forward(out, word.ok())? {
                break;
            }
        }
        Ok(())
    }))
}

/// Gives up when it is dropped: at the end, where it changes nothing, and when the client is gone.
struct Wanted<F: Fn()>(F);

impl<F: Fn()> Wanted<F> {
    /// The next word; `None` when the client has gone.
    fn word(&self, receiver: &Receiver<Word>, peer: &Peer) -> Option<Result<Word, RecvTimeoutError>> {
        loop {
            match receiver.recv_timeout(LOOK_UP) {
                Err(RecvTimeoutError::Timeout) if peer.wait(&[], Some(Duration::ZERO)) => {}
                Err(RecvTimeoutError::Timeout) => return None,
                word => return Some(word),
            }
        }
    }
}

impl<F: Fn()> Drop for Wanted<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Sends what a word says; false after the last. No word at all means that the work has panicked.
fn forward(out: &mut Outgoing, word: Option<Word>) -> io::Result<bool> {
    match word {
        Some(Word::Message(message)) => send(out, &message).map(|()| true),
        Some(Word::End(Ok(()))) => Ok(false),
        Some(Word::End(Err(error))) => send(out, &JsonMessage::failure(error.message)).map(|()| false),
        None => send(out, &JsonMessage::failure(panicked().message)).map(|()| false),
    }
}

fn panicked() -> Error {
    Error::system("tell the progress", "the thread at work panicked")
}

/// Starts the work on a thread of its own.
fn begin(
    name: &str,
    work: impl FnOnce(&mut dyn FnMut(JsonMessage)) -> Result<()> + Send + 'static,
) -> Result<Receiver<Word>> {
    let (sender, receiver) = sync_channel(WAITING);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let mut throttle = Throttle::new(INTERVAL);
            let result = work(&mut |message| {
                if throttle.is_due(&message) {
                    tell(&sender, Word::Message(message));
                }
            });
            tell(&sender, Word::End(result));
        })
        .map_err(|cause| Error::system(format!("start a thread to {name}"), cause))?;
    Ok(receiver)
}

const JSON: &str = "application/json";

/// Nobody may be listening any more, which changes nothing.
fn tell(sender: &SyncSender<Word>, word: Word) {
    let _ = sender.send(word);
}

fn send(out: &mut Outgoing, message: &JsonMessage) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    // Source: Docker's stream formatter.
    line.extend_from_slice(b"\r\n");
    out.write_all(&line)?;
    out.flush()
}

/// Lets through what says something new: one message in an interval for each object, but every change of
/// its status, its end, and whatever is no progress.
struct Throttle {
    interval: Duration,
    last: HashMap<String, (String, Instant)>,
}

impl Throttle {
    fn new(interval: Duration) -> Throttle {
        Throttle { interval, last: HashMap::new() }
    }

    fn is_due(&mut self, message: &JsonMessage) -> bool {
        let (Some(detail), Some(status)) = (&message.progress_detail, &message.status) else { return true };
        let is_end = detail.total > 0 && detail.current >= detail.total;
        let now = Instant::now();
        match self.last.get(&message.id) {
            Some((before, at)) if before == status && !is_end && now.duration_since(*at) < self.interval => {
                false
            }
            _ => {
                self.last.insert(message.id.clone(), (status.clone(), now));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api::image::ProgressDetail;

    #[test]
    fn progress_is_thinned_out_and_news_are_not() {
        let progress = |id: &str, status: &str, current| {
            let detail = ProgressDetail { current, total: 100, ..ProgressDetail::default() };
            JsonMessage::progress(id, status, detail)
        };
        let mut throttle = Throttle::new(Duration::from_secs(3600));
        for (message, wanted) in [
            (progress("a", "Loading", 0), true),
            (progress("a", "Loading", 1), false),
            (progress("b", "Loading", 1), true),
            (progress("a", "Extracting", 1), true),
            (progress("a", "Extracting", 99), false),
            (progress("a", "Extracting", 100), true),
            (JsonMessage::stream("x"), true),
            (JsonMessage::stream("x"), true),
        ] {
            assert_eq!(throttle.is_due(&message), wanted, "{message:?}");
        }
        let mut eager = Throttle::new(Duration::ZERO);
        assert!(eager.is_due(&progress("a", "Loading", 0)) && eager.is_due(&progress("a", "Loading", 1)));
    }

    #[test]
    fn the_first_word_decides_between_a_status_and_a_stream() {
        let refused = stream("test", |_| Err(Error::not_found("nothing there"))).unwrap_err();
        assert_eq!(refused.message, "nothing there");
        assert!(stream("test", |_| Ok(())).is_ok());
        let late = stream("test", |tell| {
            tell(JsonMessage::status("begun"));
            Err(Error::system("go on", "no space left"))
        });
        assert_eq!(late.unwrap().status(), 200);
        assert!(stream("test", |_| panic!("on purpose")).unwrap_err().message.contains("panicked"));
    }
}
