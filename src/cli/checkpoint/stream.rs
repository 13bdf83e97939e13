//! `dewar checkpoint create -o`: a checkpoint that is written here while it is made there, and nowhere else.
//!
//! The container ends when the daemon has been told that all of it is here: a file is on disk by then and has its name,
//! what goes to standard output has been taken by whoever reads that.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::age::keys::{self, For};
use super::super::command::{Action, Flag, Matches};
use super::super::context::{Context, print};
use super::super::error::Error;
use super::super::image;
use super::{CHECKPOINT_DIR, create_request};
use crate::http::api::checkpoint_stream::{CHECKPOINT_STREAM, CheckpointStream, StreamWord};
use crate::http::api::migrate::{DATA, HEADER_BYTES, MESSAGE, header, parse};
use crate::http::hijack::ReadHalf;

pub static OUTPUT: Flag =
    Flag::value("output", "FILE|-", "Write the checkpoint into this file here, and none at the daemon's")
        .short('o');
pub static COMPRESS: Flag =
    Flag::value("output-compress", "HOW", "Compress what -o writes with zstd, gzip or none (zstd)");

/// What is to be done if the checkpoint goes to a file here.
pub fn plan(matches: &Matches) -> Result<Option<Action>, Error> {
    let to = For::of(matches)?;
    let compress = matches.text(&COMPRESS);
    if !matches!(compress.as_str(), "" | "zstd" | "gzip" | "none") {
        return Err(Error::Local(format!("--output-compress {compress}: there are zstd, gzip and none")));
    }
    let Some(output) = matches.get(&OUTPUT).map(str::to_owned) else {
        return match (to, compress.as_str()) {
            (None, "") => Ok(None),
            _ => {
                let text = "compression and encryption are for a file: -o names it, checkpoint export makes it later";
                Err(Error::Local(text.to_owned()))
            }
        };
    };
    if matches.get(&CHECKPOINT_DIR).is_some() {
        let text = "--output and --checkpoint-dir exclude one another: nothing is written at the daemon's";
        return Err(Error::Local(text.to_owned()));
    }
    let (container, create) = create_request(matches)?;
    if create.compress && compress == "none" {
        let text = "--compress and --output-compress none exclude one another";
        return Err(Error::Local(text.to_owned()));
    }
    let request = CheckpointStream {
        checkpoint_id: create.checkpoint_id,
        exit: create.exit,
        tcp_close: create.tcp_close,
        no_volumes: create.no_volumes,
        skip_volumes: create.skip_volumes,
        pre_check: create.pre_check,
        compress,
    };
    Action::call(move |context| run(context, &container, &request, &output, to.as_ref())).map(Some)
}

fn run(
    context: &Context,
    container: &str,
    request: &CheckpointStream,
    output: &str,
    to: Option<&For>,
) -> Result<u8, Error> {
    // Before anything stands still: a passphrase may have to be typed.
    let recipients = to.map(For::recipients).transpose()?;
    let path = if output == "-" { "" } else { output };
    let mut answer = None;
    let fetch = || {
        let stream = context.hijack(&CHECKPOINT_STREAM, &[container], &(), request)?;
        let (from, into) = stream.split();
        let words = Arc::new(Mutex::new(Words { from, left: 0, is_whole: false }));
        answer = Some((Arc::clone(&words), into));
        keys::encrypted(Box::new(Pieces(words)), recipients.as_ref())
    };
    image::write_archive(path, "Freezing - ", fetch)?;
    let Some((words, mut into)) = answer else {
        return Err(Error::Local("nothing was asked for".to_owned()));
    };
    if !path.is_empty() {
        sync(path)?;
    }
    // One that runs on does so without being told.
    if request.exit {
        let failed = |cause: io::Error| Error::local("tell the daemon that the checkpoint is here", cause);
        let text = serde_json::to_vec(&StreamWord::Accepted {}).map_err(|cause| failed(cause.into()))?;
        into.write_all(&header(MESSAGE, text.len())).and_then(|()| into.write_all(&text)).map_err(failed)?;
    }
    let heard = words.lock().unwrap_or_else(PoisonError::into_inner).word();
    let heard =
        heard.map_err(|cause| Error::local("hear from the daemon what became of the container", cause));
    match heard {
        Ok(StreamWord::Done {}) => {}
        Ok(StreamWord::Failed { message }) => return Err(Error::Local(message)),
        Ok(_) => return Err(Error::Local("the daemon says something else than how it went".to_owned())),
        Err(error) => return Err(error),
    }
    match path.is_empty() {
        true => Ok(0),
        false => print(&format!("{}\n", request.checkpoint_id)).map(|()| 0),
    }
}

/// Has a file on disk: what it is a copy of is about to go.
fn sync(path: &str) -> Result<(), Error> {
    let failed = |cause: io::Error| Error::local(format!("write {path:?}"), cause);
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Ok(());
    }
    File::open(path).map_err(failed)?.sync_all().map_err(failed)?;
    let parent = std::path::Path::new(path).parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(".".as_ref())).and_then(|dir| dir.sync_all()).map_err(failed)
}

/// What comes from the daemon.
struct Words {
    from: ReadHalf,
    /// Of the frame that is being read.
    left: usize,
    is_whole: bool,
}

impl Words {
    /// The next frame's kind; its length is left.
    fn frame(&mut self) -> io::Result<u8> {
        let mut header = [0; HEADER_BYTES];
        self.from.read_exact(&mut header).map_err(|cause| match cause.kind() {
            io::ErrorKind::UnexpectedEof => {
                io::Error::new(cause.kind(), "the connection to the daemon broke: the container runs on")
            }
            _ => cause,
        })?;
        let strange =
            || io::Error::new(io::ErrorKind::InvalidData, "the daemon sends something else than frames");
        let (kind, length) = parse(header).ok_or_else(strange)?;
        self.left = length;
        Ok(kind)
    }

    fn content(&mut self) -> io::Result<StreamWord> {
        let mut text = vec![0; std::mem::take(&mut self.left)];
        self.from.read_exact(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// The next word.
    fn word(&mut self) -> io::Result<StreamWord> {
        match self.frame()? {
            MESSAGE => self.content(),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "more comes behind the end")),
        }
    }
}

/// The archive among it, up to its end.
struct Pieces(Arc<Mutex<Words>>);

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while words.left == 0 && !words.is_whole {
            if words.frame()? == DATA {
                continue;
            }
            match words.content()? {
                StreamWord::End {} => words.is_whole = true,
                StreamWord::Failed { message } => return Err(io::Error::other(message)),
                _ => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the daemon is done before its end",
                    ));
                }
            }
        }
        let most = into.len().min(words.left);
        if most == 0 {
            return Ok(0);
        }
        let count = words.from.read(&mut into[..most])?;
        if count == 0 {
            let text = "the connection to the daemon broke: the container runs on";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        words.left -= count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;

    #[test]
    fn flags_that_do_not_go_together_are_refused() {
        let refusal = |line: &str| match plan(&matches_of(line)) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{line} is no mistake"),
        };
        assert!(plan(&matches_of("checkpoint create web cp1")).is_ok_and(|action| action.is_none()));
        assert!(plan(&matches_of("checkpoint create -o - web cp1")).is_ok_and(|action| action.is_some()));
        assert!(refusal("checkpoint create --output-compress zstd web cp1").contains("-o names it"));
        assert!(refusal("checkpoint create --passphrase web cp1").contains("-o names it"));
        assert!(refusal("checkpoint create -o x --output-compress xz web cp1").contains("there are zstd"));
        assert!(
            refusal("checkpoint create -o x --checkpoint-dir /c web cp1").contains("exclude one another")
        );
    }
}
