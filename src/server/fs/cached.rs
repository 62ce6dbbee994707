//! The cached connection: the kernel's page cache holds a view for as long as its freshness.
//!
//! Four rules keep readers from seeing torn text (design, "Two FUSE connections"):
//! 1. The size of a view does not change together with its text while somebody reads ([`SizeChange::InSteps`]), and what a
//!    page has beyond the text are newlines.
//! 2. A READ serves exactly the version that the last GETATTR announced, also when the page was only reclaimed.
//! 3. A GETATTR from an open refreshes after the freshness bound, one from a read (it carries a file handle) only
//!    after [`HELD_OPEN_FACTOR`] times that.
//! 4. No notification is sent while a request is served.
//!
//! [`SizeChange::InSteps`]: crate::server::container::SizeChange::InSteps

use std::sync::Arc;
use std::time::Duration;

use super::attr::Attr;
use super::containers::View;
use super::render::Renderer;
use crate::server::container::{Freshness, STATIC_BOUND, Version};
use crate::server::error::Errno;

/// The age that a view may have for a reader that holds it open, in multiples of the freshness. Shells read byte by byte
/// and the kernel asks before every read(2): without this a pass over a file would often mix two versions.
const HELD_OPEN_FACTOR: u32 = 10;

/// The views on the cached connection.
#[derive(Debug)]
pub(super) struct CachedViews {
    renderer: Arc<Renderer>,
}

/// The age that the versions of a view may have.
struct Age {
    /// True if the view only changes when its container is told so.
    rests: bool,
    freshness: Freshness,
}

impl Age {
    /// Returns the age that a version may have whose view rests.
    fn rested(&self) -> Duration {
        self.freshness.bound.max(STATIC_BOUND)
    }

    /// Returns whether the view rests. While the size changes, the next step comes after the freshness.
    fn is_rested(&self, version: &Version) -> bool {
        self.rests && !version.is_changing()
    }

    /// Returns the age that a version may have. A GETATTR from a read has the file open.
    fn limit(&self, version: &Version, from_read: bool) -> Duration {
        match from_read {
            _ if self.is_rested(version) => self.rested(),
            true if !self.rests => self.freshness.bound * HELD_OPEN_FACTOR,
            _ => self.freshness.bound,
        }
    }
}

impl CachedViews {
    /// Makes the part, which computes views by `renderer`.
    pub(super) fn new(renderer: Arc<Renderer>) -> Self {
        Self { renderer }
    }

    /// Returns the attributes of a view, and for how long the kernel may believe them.
    ///
    /// # Errors
    /// EIO when the view cannot be computed.
    pub(super) fn attr(&self, view: &View, from_read: bool) -> Result<(Attr, Duration), Errno> {
        let View {
            container, index, ..
        } = view;
        let age = self.age(view);
        let version = match container.fresh(*index, |version| age.limit(version, from_read)) {
            Some(version) => version,
            None => self.renderer.renew_cached(container, *index)?,
        };
        let timeout = match age.is_rested(&version) {
            true => age.rested(),
            false => age.freshness.timeout,
        };
        Ok((view.attr(version.size, version.mtime), timeout))
    }

    /// Returns whether the attributes of a view are known without computing it.
    pub(super) fn is_fresh(&self, view: &View, from_read: bool) -> bool {
        let age = self.age(view);
        let version = view.container.version(view.index);
        version.is_some_and(|version| version.age() < age.limit(&version, from_read))
    }

    fn age(&self, view: &View) -> Age {
        Age {
            rests: view.container.rests(view.index),
            freshness: self.renderer.freshness(&view.container),
        }
    }

    /// Returns the text of a view that the kernel was told of last.
    ///
    /// # Errors
    /// EIO when the view cannot be computed.
    pub(super) fn read(&self, view: &View) -> Result<Arc<[u8]>, Errno> {
        let View {
            container, index, ..
        } = view;
        match container.announced(*index) {
            Some(version) => Ok(version.text),
            // The server that announced the version is dead; this one announces a later one at the next GETATTR.
            None => Ok(self.renderer.renew_cached(container, *index)?.text),
        }
    }
}
