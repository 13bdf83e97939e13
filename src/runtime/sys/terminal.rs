//! The terminal of the person at the keyboard: raw mode for the length of an attachment, and its size.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::termios::{self, OptionalActions, Termios, Winsize};

/// Characters per column and row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

/// Whether `fd` is a terminal.
pub fn is_terminal(fd: impl AsFd) -> bool {
    termios::isatty(fd)
}

/// The size of the terminal `fd`.
///
/// # Errors
/// `ENOTTY` when it is none.
pub fn size(fd: impl AsFd) -> io::Result<Size> {
    let size = termios::tcgetwinsize(fd)?;
    Ok(Size { rows: size.ws_row, columns: size.ws_col })
}

/// Sets the size of the terminal `fd`; its foreground processes get SIGWINCH if that changes it.
///
/// # Errors
/// `ENOTTY` when it is none.
pub fn set_size(fd: impl AsFd, size: Size) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(termios::tcsetwinsize(fd, size)?)
}

/// A terminal in raw mode: bytes pass unedited, signal keys included. Dropping it restores the terminal.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    saved: Termios,
}

impl RawMode {
    /// Puts `fd` into raw mode. A duplicate is kept, so the guard works after `fd` is closed.
    ///
    /// # Errors
    /// `ENOTTY` when it is no terminal.
    pub fn enter(fd: impl AsFd) -> io::Result<RawMode> {
        let terminal = fd.as_fd().try_clone_to_owned()?;
        let saved = termios::tcgetattr(&terminal)?;
        let mut raw = saved.clone();
        raw.make_raw();
        termios::tcsetattr(&terminal, OptionalActions::Drain, &raw)?;
        Ok(RawMode { terminal, saved })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that has gone away has nothing to restore.
        let _ = termios::tcsetattr(&self.terminal, OptionalActions::Drain, &self.saved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::OpenptFlags;
    use rustix::termios::LocalModes;

    fn pty() -> (OwnedFd, OwnedFd) {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        (master, slave)
    }

    #[test]
    fn raw_mode_ends_with_its_guard() {
        let (_master, slave) = pty();
        let echoes = || termios::tcgetattr(&slave).unwrap().local_modes.contains(LocalModes::ECHO);
        assert!(echoes());
        let guard = RawMode::enter(&slave).unwrap();
        assert!(!echoes());
        drop(guard);
        assert!(echoes());
    }

    #[test]
    fn the_size_set_on_one_side_is_seen_on_the_other() {
        let (master, slave) = pty();
        set_size(&master, Size { rows: 31, columns: 99 }).unwrap();
        assert_eq!(size(&slave).unwrap(), Size { rows: 31, columns: 99 });
        assert!(is_terminal(&slave));
        assert!(size(std::io::pipe().unwrap().0).is_err());
    }
}
