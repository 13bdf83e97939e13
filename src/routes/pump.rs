//! Two streams joined: a client's hijacked connection and the shim's end of a process's streams.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};

use crate::http::hijack::{Hijacked, ReadHalf, WriteHalf};

/// What one read takes at most; also what lies on the thread's stack.
const BLOCK: usize = 16 * 1024;

/// Carries bytes both ways until the process's side ends or the client is gone.
///
/// The client's half-close becomes the process's end of input and nothing else. Blocks; the input side
/// runs on a thread of its own that ends with this call. `before_end` is called when the output is over,
/// before the client can see it.
pub fn pump(client: Hijacked, process: &UnixStream, before_end: impl FnOnce()) {
    let (reader, writer) = client.split();
    pump_halves(reader, writer, process, before_end);
}

/// [`pump`] for a connection that is split already.
pub fn pump_halves(
    mut reader: ReadHalf,
    mut writer: WriteHalf,
    process: &UnixStream,
    before_end: impl FnOnce(),
) {
    std::thread::scope(|scope| {
        let input = std::thread::Builder::new()
            .name("input".to_owned())
            .stack_size(128 * 1024)
            .spawn_scoped(scope, move || carry_input(&mut reader, process));
        if let Err(cause) = &input {
            // Output without input is better than nothing; the process sees an end of input.
            log::warn!("start a thread for a client's input: {cause}");
            let _ = process.shutdown(Shutdown::Write);
        }
        carry_output(process, &mut writer);
        before_end();
        // Both ends are over: wake the input thread wherever it waits.
        let _ = process.shutdown(Shutdown::Both);
        writer.shutdown();
    });
}

fn carry_input(client: &mut ReadHalf, process: &UnixStream) {
    let mut process = process;
    let mut block = [0u8; BLOCK];
    loop {
        match client.read(&mut block) {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                if process.write_all(&block[..count]).is_err() {
                    return;
                }
            }
        }
    }
    // The client's end of input is the process's; a process that is gone has no use for it.
    let _ = process.shutdown(Shutdown::Write);
}

fn carry_output(process: &UnixStream, client: &mut WriteHalf) {
    let mut process = process;
    let mut block = [0u8; BLOCK];
    loop {
        let gone = {
            let mut fds = [
                PollFd::new(process, PollFlags::IN),
                // Only the hang-up of both directions: a client that has ended its input still listens.
                PollFd::from_borrowed_fd(client.fd(), PollFlags::empty()),
            ];
            match poll(&mut fds, None) {
                Ok(_) => !fds[1].revents().is_empty() && !fds[0].revents().contains(PollFlags::IN),
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => true,
            }
        };
        if gone {
            return;
        }
        match process.read(&mut block) {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if client.write_all(&block[..count]).and_then(|()| client.flush()).is_err() {
                    return;
                }
            }
        }
    }
}
