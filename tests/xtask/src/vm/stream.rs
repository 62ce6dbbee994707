//! Reading several streams of a running program at once, up to a time limit.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// One stream and what has come out of it.
#[derive(Debug)]
pub(super) struct Stream {
    file: Option<File>,
    /// All bytes so far.
    pub(super) bytes: Vec<u8>,
}

impl Stream {
    /// Takes over a descriptor of a pipe.
    pub(super) fn new(fd: impl Into<OwnedFd>) -> Result<Self> {
        let file = File::from(fd.into());
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("cannot set O_NONBLOCK")?;
        Ok(Self {
            file: Some(file),
            bytes: Vec::new(),
        })
    }

    /// Returns whether all writers have gone.
    pub(super) fn ended(&self) -> bool {
        self.file.is_none()
    }

    /// Takes what is there, and returns it as the end of `bytes`.
    pub(super) fn take(&mut self) -> Result<&[u8]> {
        let start = self.bytes.len();
        if let Some(file) = &mut self.file {
            match file.read_to_end(&mut self.bytes) {
                Ok(_) => self.file = None,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("cannot read what the guest said"),
            }
        }
        Ok(&self.bytes[start..])
    }
}

/// Waits until one of the streams has something or has ended. False when the time is up.
pub(super) fn wait(streams: &[&Stream], until: Instant) -> Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let files = streams.iter().filter_map(|stream| stream.file.as_ref());
        let mut fds: Vec<_> = files
            .map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN))
            .collect();
        // Rounded up, or the last millisecond would be spent spinning.
        let millis = left.as_millis().saturating_add(1);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno).context("cannot wait for the guest"),
        }
    }
}
