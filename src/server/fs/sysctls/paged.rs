//! Tunables that are read from the page cache, on the live connection.
//!
//! A program that opens a tunable for reading only is answered without direct I/O, so that a read asks nobody while the
//! cache holds the present text. Each OPEN decides whether the cache holds that; if not, the kernel drops it. A program
//! that holds such a file open while others write is served by the rules of the cached connection: the attributes are not
//! believed after a write, the next read asks for them, and another time has the kernel drop its page
//! (FUSE_AUTO_INVAL_DATA). A program that can write reads by a snapshot of its own.

use std::sync::Arc;

use super::Sysctls;
use crate::server::container::Version;
use crate::server::error::Errno;
use crate::server::fs::containers::View;
use crate::server::fs::snapshots::Opened;

impl Sysctls {
    /// Opens a tunable for reading by way of the page cache; none when the kernel believes another size than that of the
    /// present text: a reader by sendfile(2) would stop there.
    ///
    /// # Errors
    /// EIO when it cannot be computed.
    pub(super) fn open_paged(&self, view: &View) -> Result<Option<Opened>, Errno> {
        let version = self.present_version(view)?;
        let View {
            container, index, ..
        } = view;
        if !container.is_announced(*index, version.text.len() as u64) {
            return Ok(None);
        }
        let keep = container.open_paged(*index, version);
        Ok(Some(Opened::Paged { keep }))
    }

    /// Returns the text that the page cache gets of a tunable.
    ///
    /// # Errors
    /// EIO when it cannot be computed.
    pub(in crate::server::fs) fn read_paged(&self, view: &View) -> Result<Arc<[u8]>, Errno> {
        let present = self.present_version(view)?;
        Ok(view.container.fill(view.index, present))
    }

    /// Closes a file that was opened by way of the page cache.
    pub(in crate::server::fs) fn close_paged(&self, view: &View) {
        view.container.close_paged(view.index);
    }

    /// Returns whether the last version is no older than views may be.
    pub(in crate::server::fs) fn is_fresh(&self, view: &View) -> bool {
        let bound = self.renderer.freshness(&view.container).bound;
        let version = view.container.version(view.index);
        version.is_some_and(|version| version.age() < bound)
    }

    /// Returns the last version if it is no older than views may be, or else a new one.
    pub(super) fn present_version(&self, view: &View) -> Result<Version, Errno> {
        let View {
            container, index, ..
        } = view;
        let bound = self.renderer.freshness(container).bound;
        match container.version(*index) {
            Some(version) if version.age() < bound => Ok(version),
            _ => self.renderer.renew(container, *index),
        }
    }
}
