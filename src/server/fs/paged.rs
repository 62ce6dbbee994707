//! Tunables that are read from the page cache, on the live connection.
//!
//! Who opens a tunable for reading only is answered without direct I/O, so that a read asks nobody while the cache holds
//! the present text. It is decided at each OPEN whether what the cache holds is that: if not, the kernel drops it. Who
//! holds such a file open while others write is served by the rules of the cached connection: the attributes are not
//! believed after a write, the next read asks for them, and another time has the kernel drop its page
//! (FUSE_AUTO_INVAL_DATA). Who can write reads by a snapshot of his own.

use std::sync::Arc;
use std::time::SystemTime;

use eci_fs_emulators::tunable;

use super::Tree;
use crate::server::container::{Attached, Version};
use crate::server::error::Errno;
use crate::server::ids::{Handle, Node, NodeId};

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// With a snapshot, or with nothing to read, and direct I/O.
    Direct(Handle),
    /// By way of the page cache. Whether that may keep what it holds.
    Paged {
        /// If not, the kernel drops that.
        keep: bool,
    },
}

impl Opened {
    /// The number that the kernel is given.
    pub fn handle(self) -> Handle {
        match self {
            Self::Direct(handle) => handle,
            Self::Paged { .. } => Handle::PAGED,
        }
    }
}

impl Tree {
    /// Open a tunable for reading by way of the page cache; none for what is no tunable, or when the kernel believes
    /// another size than that of the present text: a reader by sendfile(2) would stop there.
    ///
    /// # Errors
    /// EIO when it cannot be computed.
    pub(super) fn paged_open(&self, id: NodeId) -> Result<Option<Opened>, Errno> {
        let Some((container, index)) = self.paged(id)? else {
            return Ok(None);
        };
        let version = self.present_version(&container, index)?;
        if !container.is_announced(index, version.text.len() as u64) {
            return Ok(None);
        }
        let keep = container.open_paged(index, version);
        Ok(Some(Opened::Paged { keep }))
    }

    /// What the page cache gets of a tunable.
    pub(super) fn paged_read(&self, id: NodeId) -> Result<Arc<[u8]>, Errno> {
        let (container, index) = self.paged(id)?.ok_or(Errno::ISDIR)?;
        let present = self.present_version(&container, index)?;
        Ok(container.fill(index, present))
    }

    /// Forget such an open file.
    pub(super) fn paged_release(&self, id: NodeId) {
        if let Ok(Some((container, index))) = self.paged(id) {
            container.close_paged(index);
        }
    }

    /// The size and the time of the present text of a tunable; none for what is no tunable.
    pub(super) fn paged_attr(
        &self,
        container: &Attached,
        index: usize,
    ) -> Result<(usize, SystemTime), Errno> {
        let version = self.present_version(container, index)?;
        Ok((version.text.len(), version.mtime))
    }

    fn paged(&self, id: NodeId) -> Result<Option<(Arc<Attached>, usize)>, Errno> {
        let Node::View { slot, emulator } = id.node() else {
            return Ok(None);
        };
        if tunable(emulator).is_none() {
            return Ok(None);
        }
        let container = self.container(slot)?;
        let index = container.index(emulator)?;
        Ok(Some((container, index)))
    }

    /// The version, if it is no older than views may be.
    fn present_version(&self, container: &Attached, index: usize) -> Result<Version, Errno> {
        let bound = self.freshness_of(container).bound;
        match container.version(index) {
            Some(version) if version.age() < bound => Ok(version),
            _ => self.renew(container, index),
        }
    }
}
