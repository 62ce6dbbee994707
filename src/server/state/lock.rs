//! Who serves: the server that has the lock of the state. In an upgrade two servers have the same connections, and
//! only one may answer and write down what it answered.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// The lock of one process on the state. It is of the kind that belongs to the process and ends with it
/// (`F_SETLK`), because both servers have the file by one open file description. Closing any descriptor of the
/// file ends it too, so there is one.
#[derive(Debug)]
pub(super) struct Lock {
    file: OwnedFd,
}

impl Lock {
    /// Of the state `file`; not taken yet.
    pub(super) fn new(file: OwnedFd) -> Self {
        Self { file }
    }

    /// The state.
    pub(super) fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Take it; false when another process has it.
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

    /// Let go of it.
    ///
    /// # Errors
    /// When the file has no locks.
    pub(super) fn release(&self) -> io::Result<()> {
        Ok(self.set(libc::F_UNLCK)?)
    }

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
