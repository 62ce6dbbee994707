//! The cached connection: the kernel's page cache holds a view for as long as its freshness.
//!
//! Four rules keep readers from seeing torn text (design, "Two FUSE connections"):
//! 1. The size of a view does not change while its container's limits and CPUs do not.
//! 2. A READ serves exactly the version that the last GETATTR announced, also when the page was only reclaimed.
//! 3. A GETATTR from an open refreshes after the freshness bound, one from a read (it carries a file handle) only
//!    after [`HELD_OPEN_FACTOR`] times that.
//! 4. No notification is sent while a request is served.

use std::sync::Arc;
use std::time::Duration;

use super::{Attr, DIRECTORY_TIMEOUT, HELD_OPEN_FACTOR, Tree};
use crate::server::container::STATIC_BOUND;
use crate::server::error::Errno;
use crate::server::ids::{Node, NodeId};

impl Tree {
    /// The attributes of a node on the cached connection, and how long the kernel may believe them.
    ///
    /// # Errors
    /// ENOENT when the container is gone; EIO when the view cannot be computed.
    pub fn cached_attr(&self, id: NodeId, from_read: bool) -> Result<(Attr, Duration), Errno> {
        let Node::View { slot, emulator } = id.node() else {
            return Ok((self.directory_attr(id)?, DIRECTORY_TIMEOUT));
        };
        let container = self.container(slot)?;
        let index = container.index(emulator)?;
        let rests = container.rests(index);
        let freshness = self.freshness_of(&container);
        let (bound, timeout) = if rests {
            let bound = freshness.bound.max(STATIC_BOUND);
            (bound, bound)
        } else {
            (freshness.bound, freshness.timeout)
        };
        let limit = if from_read && !rests {
            bound * HELD_OPEN_FACTOR
        } else {
            bound
        };
        let version = match container.version(index) {
            Some(version) if version.age() < limit => version,
            _ => self.renew(&container, index)?,
        };
        let attr = Attr::view(id, &container, index, version.text.len(), version.mtime);
        Ok((attr, timeout))
    }

    /// Bytes of a view on the cached connection.
    ///
    /// # Errors
    /// ENOENT when the container is gone; EIO when the view cannot be computed; EISDIR.
    pub fn cached_read(&self, id: NodeId) -> Result<Arc<[u8]>, Errno> {
        let Node::View { slot, emulator } = id.node() else {
            return Err(Errno::ISDIR);
        };
        let container = self.container(slot)?;
        let index = container.index(emulator)?;
        match container.version(index) {
            Some(version) => Ok(version.text),
            // The server that announced the version is dead; this one announces a later one at the next GETATTR.
            None => Ok(self.renew(&container, index)?.text),
        }
    }
}
