//! Reaping the processes of execs while the shim's loop waits for a dump.
//!
//! A dump that ends the container ends with its first process waiting, in the kernel, until every other
//! process of its pid namespace has been reaped. Those an exec started are the shim's children, and the shim
//! waits for CRIU, which waits for that first process: without help from aside nobody would ever move.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

use super::reap;

/// A child to look after: its pidfd and its pid.
pub(super) type Child<'a> = (BorrowedFd<'a>, i32);

/// Runs `work`; meanwhile `children` are reaped as they end. Returns what `work` did, and for each child
/// its exit code if it was reaped.
///
/// # Errors
/// No descriptor or thread is to be had; `work` has not been begun.
pub(super) fn reaping<T>(
    children: &[Child<'_>],
    work: impl FnOnce() -> T,
) -> io::Result<(T, Vec<Option<i32>>)> {
    let stop: OwnedFd = eventfd(0, EventfdFlags::CLOEXEC)?;
    let builder = std::thread::Builder::new().name("reaper".to_owned()).stack_size(64 * 1024);
    std::thread::scope(|scope| {
        let reaper = builder.spawn_scoped(scope, || reap_until(children, stop.as_fd()))?;
        let done = work();
        // Writing one to a counter that is zero cannot fail.
        let _ = rustix::io::write(&stop, &1_u64.to_ne_bytes());
        let codes = reaper.join().unwrap_or_else(|_| vec![None; children.len()]);
        Ok((done, codes))
    })
}

fn reap_until(children: &[Child<'_>], stop: BorrowedFd<'_>) -> Vec<Option<i32>> {
    let mut codes = vec![None; children.len()];
    loop {
        let waiting: Vec<usize> = (0..children.len()).filter(|at| codes[*at].is_none()).collect();
        let mut fds = vec![PollFd::from_borrowed_fd(stop, PollFlags::IN)];
        fds.extend(waiting.iter().map(|at| PollFd::from_borrowed_fd(children[*at].0, PollFlags::IN)));
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return codes,
            Ok(_) => {}
        }
        for (fd, at) in fds[1..].iter().zip(&waiting) {
            if !fd.revents().is_empty() {
                codes[*at] = Some(reap(children[*at].1));
            }
        }
        if !fds[0].revents().is_empty() {
            return codes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::runtime::sys::process::pidfd_open;

    #[test]
    fn children_that_end_meanwhile_are_reaped_and_the_others_left() {
        let start = |script: &str| Command::new("sh").args(["-c", script]).spawn().unwrap();
        let (ends, mut stays) = (start("exit 3"), start("exec sleep 60"));
        let pids = [&ends, &stays].map(|child| i32::try_from(child.id()).unwrap());
        let pidfds = pids.map(|pid| pidfd_open(pid).unwrap());
        let children: Vec<Child<'_>> = pidfds.iter().map(AsFd::as_fd).zip(pids).collect();
        let gone = || !std::path::Path::new(&format!("/proc/{}", pids[0])).exists();
        let work = || {
            for _ in 0..5000 {
                if gone() {
                    return true;
                }
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            false
        };
        let (was_reaped, codes) = reaping(&children, work).unwrap();
        assert!(was_reaped, "the work saw a zombie");
        assert_eq!(codes, [Some(3), None]);
        stays.kill().unwrap();
        stays.wait().unwrap();
    }
}
