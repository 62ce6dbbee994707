//! What is kept of one view of one container.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64};
use std::time::{Instant, SystemTime};

use eci_fs_protocol::link::Connection;
use parking_lot::Mutex;

use super::Version;

/// A view, in the order of `EMULATORS`.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) connection: Mutex<Option<Connection>>,
    pub(super) mode: AtomicU16,
    /// Whether the last attempt failed: each failure is logged once, not at every read.
    pub(super) failing: AtomicBool,
    /// A container has more than a hundred views, and few of them are ever read.
    used: OnceLock<Box<Used>>,
}

/// What there is of a view that somebody has read or written.
#[derive(Debug, Default)]
pub(super) struct Used {
    pub(super) version: Mutex<Option<Version>>,
    /// When it was written to last.
    pub(super) written: Mutex<Option<Instant>>,
    /// The size that the kernel believes at most; 0 where it is to ask first.
    pub(super) announced: AtomicU64,
    /// Of a tunable: how often it is open to be read from the page cache, and the version whose text that holds.
    pub(super) paged: Mutex<Paged>,
}

/// What the kernel's page cache has of a tunable.
#[derive(Debug, Default)]
pub(super) struct Paged {
    pub(super) open: u64,
    /// The time of the version that it holds.
    pub(super) holds: Option<SystemTime>,
    /// What it was opened with last, of the size that the kernel knew.
    pub(super) opened: Option<Version>,
}

impl View {
    /// It is read or written now.
    pub(super) fn used(&self) -> &Used {
        self.used.get_or_init(Box::default)
    }

    /// What there is of it, if it was ever read or written.
    pub(super) fn if_used(&self) -> Option<&Used> {
        self.used.get().map(|used| &**used)
    }
}
