//! One view of one container, as far as the server keeps anything of it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64};
use std::time::{Instant, SystemTime};

use eci_fs_protocol::link::Connection;
use parking_lot::Mutex;

use super::Version;

/// A view of a container.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The connection that serves it; none where the container does not have it.
    pub(super) connection: Mutex<Option<Connection>>,
    /// Permission bits.
    pub(super) mode: AtomicU16,
    /// True if the last attempt failed: each failure is logged once, not at every read.
    pub(super) failing: AtomicBool,
    /// The rest, once it is needed: a container has more than a hundred views, and few of them are ever read.
    used: OnceLock<Box<Used>>,
}

/// A view that somebody has read or written.
#[derive(Debug, Default)]
pub(super) struct Used {
    /// The last version.
    pub(super) version: Mutex<Option<Version>>,
    /// The time of the last write.
    pub(super) written: Mutex<Option<Instant>>,
    /// The size that the kernel may believe; 0 where it is to ask first.
    pub(super) announced: AtomicU64,
    /// The part that the page cache has, if this is a tunable.
    pub(super) paged: Mutex<Paged>,
}

/// A tunable in the kernel's page cache.
#[derive(Debug, Default)]
pub(super) struct Paged {
    /// The number of files that are open to be read from the page cache.
    pub(super) open: u64,
    /// The time of the version that the page cache holds.
    pub(super) holds: Option<SystemTime>,
    /// The version that it was opened with last, of the size that the kernel knew.
    pub(super) opened: Option<Version>,
}

impl View {
    /// Returns the rest of it, which it has from now on.
    pub(super) fn used(&self) -> &Used {
        self.used.get_or_init(Box::default)
    }

    /// Returns the rest of it, if it was ever read or written.
    pub(super) fn if_used(&self) -> Option<&Used> {
        self.used.get().map(|used| &**used)
    }
}
