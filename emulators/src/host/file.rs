//! Reading whole files of the kernel.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::read;

/// Room for one read. Most files of the kernel fit, and one read of a seq_file is one version.
const CHUNK: usize = 16384;

/// Everything from the descriptor's offset to the end.
pub(crate) fn read_whole(fd: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut out = Vec::new();
    loop {
        let filled = out.len();
        out.resize(filled.saturating_add(CHUNK), 0);
        let room = out.get_mut(filled..).unwrap_or_default();
        match read(fd, room) {
            Ok(0) => {
                out.truncate(filled);
                return Ok(out);
            }
            Ok(count) => out.truncate(filled.saturating_add(count)),
            Err(Errno::EINTR) => out.truncate(filled),
            Err(errno) => return Err(errno),
        }
    }
}

/// A file relative to a directory; `None` if it does not exist.
pub(crate) fn read_at(dir: impl AsFd, name: &str) -> Result<Option<Vec<u8>>, Errno> {
    match openat(dir, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(fd) => read_whole(&fd).map(Some),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}
