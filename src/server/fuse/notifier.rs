//! Notifications: the server tells the kernel things unasked.

use std::io;
use std::os::fd::OwnedFd;

use eci_fs_protocol::link::Connection;
use fuser::{INodeNo, Notifier, PollHandle};
use parking_lot::RwLock;

use crate::server::fs::KernelCache;
use crate::server::ids::NodeId;

/// `FUSE_NOTIFY_RESEND` of include/uapi/linux/fuse.h (Linux 6.9).
const FUSE_NOTIFY_RESEND: i32 = 7;

/// Tells the kernel things by the sessions that there are at present.
#[derive(Debug, Default)]
pub struct KernelNotifier {
    cached: RwLock<Option<Notifier>>,
    live: RwLock<Option<Notifier>>,
}

impl KernelNotifier {
    /// Uses the session of this notifier from now on.
    pub(super) fn set(&self, connection: Connection, notifier: Notifier) {
        *self.notifier(connection).write() = Some(notifier);
    }

    /// Has the kernel ask again about the open file of the live connection to which it gave this number when it polled it.
    pub fn wake(&self, poll: u64) {
        let Some(notifier) = self.get(Connection::Live) else {
            return;
        };
        if let Err(error) = notifier.poll(PollHandle(poll)) {
            tracing::debug!(%error, "whoever polled is gone");
        }
    }

    fn get(&self, connection: Connection) -> Option<Notifier> {
        self.notifier(connection).read().clone()
    }

    fn notifier(&self, connection: Connection) -> &RwLock<Option<Notifier>> {
        match connection {
            Connection::Cached => &self.cached,
            Connection::Live => &self.live,
        }
    }
}

impl KernelCache for KernelNotifier {
    /// The kernel's pages stay until it has asked, so nothing is waited for here that waits for this server.
    fn distrust(&self, connection: Connection, id: NodeId) {
        let Some(notifier) = self.get(connection) else {
            return;
        };
        if let Err(error) = notifier.inval_inode(INodeNo(id.raw()), -1, 0) {
            // ENOENT: the kernel does not know the node, so there is nothing that it could believe.
            tracing::trace!(%error, "nothing to invalidate");
        }
    }
}

/// Has the kernel send again what a dead server had read and not answered.
///
/// # Errors
/// EINVAL from a kernel without this (before 6.9): then those requests are lost, and there is nothing that could be done
/// about it here.
pub fn resend(fuse: &OwnedFd) -> io::Result<()> {
    // struct fuse_out_header { u32 len; i32 error; u64 unique; } with the code in `error` and no unique.
    let mut header = [0; 16];
    header[..4].copy_from_slice(&16u32.to_ne_bytes());
    header[4..8].copy_from_slice(&FUSE_NOTIFY_RESEND.to_ne_bytes());
    rustix::io::write(fuse, &header)?;
    Ok(())
}
