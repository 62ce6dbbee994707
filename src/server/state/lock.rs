//! The lock of the state. The server that holds it serves. In an upgrade two servers have the same connections, and only
//! one of them may answer and write to the state.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// The lock of one process on the state. It belongs to the process and ends with it (`F_SETLK`), because both servers
/// share one open file description. Closing any descriptor of the file ends the lock too, so a server has only one.
#[derive(Debug)]
pub(super) struct Lock {
    file: OwnedFd,
}

impl Lock {
    /// Makes the lock of the state `file`. It is not taken yet.
    pub(super) fn new(file: OwnedFd) -> Self {
        Self { file }
    }

    /// Returns the file of the state.
    pub(super) fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Takes the lock. Returns false if another process has it.
    ///
    /// # Errors
    /// When the file has no locks.
    pub(super) fn take(&self) -> io::Result<bool> {
        match self.set(libc::F_WRLCK) {
            Ok(()) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Releases the lock.
    ///
    /// # Errors
    /// When the file has no locks.
    pub(super) fn release(&self) -> io::Result<()> {
        Ok(self.set(libc::F_UNLCK)?)
    }

    /// Sets the lock on one byte. The lock of rustix covers whole files only.
    fn set(&self, kind: libc::c_int) -> Result<(), Errno> {
        let lock = libc::flock {
            l_type: libc::c_short::try_from(kind).unwrap_or_default(),
            l_whence: 0,
            l_start: 0,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(self.file.as_fd(), FcntlArg::F_SETLK(&lock)).map(drop)
    }
}
