//! Whether requests wait in the kernel.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use eci_fs_protocol::link::Connection;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::server::fs::Backlog;

/// Looks at the `/dev/fuse` descriptors of both connections.
#[derive(Debug)]
pub struct KernelBacklog([OwnedFd; 2]);

impl KernelBacklog {
    /// Looks at these descriptors, in the order of [`Connection::ALL`].
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn new([cached, live]: &[OwnedFd; 2]) -> io::Result<Self> {
        Ok(Self([cached.try_clone()?, live.try_clone()?]))
    }
}

impl Backlog for KernelBacklog {
    fn is_waiting(&self, connection: Connection) -> bool {
        let fuse = match connection {
            Connection::Cached => &self.0[0],
            Connection::Live => &self.0[1],
        };
        let fuse = fuse.as_fd();
        let mut poll = [PollFd::new(&fuse, PollFlags::IN)];
        // If it cannot be known, the request is computed by a worker.
        !matches!(
            rustix::event::poll(&mut poll, Some(&Timespec::default())),
            Ok(0)
        )
    }
}
