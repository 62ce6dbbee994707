//! The records that this server leaves to the next: it writes each of them before it tells a container what they say.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use eci_fs_emulators::EMULATORS;

use crate::server::clock;
use crate::server::container::{Attached, Version};
use crate::server::ids::NodeId;
use crate::server::state::{Begin, Key, Record, Snapshot, State};

/// A program reads an open file from its beginning within this time. A file that was opened before that may have been
/// read already, and a read at its beginning may be a rewind.
pub(super) const READ_WITHIN: Duration = Duration::from_secs(1);

/// Writes to the state, where there is one.
#[derive(Debug, Clone)]
pub(super) struct Persistence(Option<Arc<State>>);

impl Persistence {
    /// Writes to `state`; without one, to nothing.
    pub(super) fn new(state: Option<Arc<State>>) -> Self {
        Self(state)
    }

    /// Returns the state, if there is one.
    pub(super) fn state(&self) -> Option<Arc<State>> {
        self.0.clone()
    }

    /// Takes the state over from the server before this one, and returns the records of slots that `is_served`.
    ///
    /// # Errors
    /// When the state cannot be locked.
    pub(super) fn begin(&self, is_served: impl Fn(u64) -> bool) -> io::Result<Begin> {
        match &self.0 {
            Some(state) => state.begin(is_served),
            None => Ok(Begin::Already),
        }
    }

    /// Writes a record, which is made only where there is a state.
    pub(super) fn put(&self, record: impl FnOnce() -> Record, text: &[u8]) {
        if let Some(state) = &self.0 {
            state.put(&record(), text);
        }
    }

    /// Writes the counters that a view of a container has just been computed with.
    pub(super) fn put_history(&self, container: &Attached) {
        if let Some(state) = &self.0 {
            state.put_history(container.slot(), container.history());
        }
    }

    /// Writes the version of a cached view that is about to be announced.
    pub(super) fn put_version(&self, container: &Attached, index: usize, version: &Version) {
        let record = || Record::Version {
            slot: container.slot(),
            emulator: EMULATORS[index].facts().id,
            size: version.size as u64,
            mtime: version.mtime.duration_since(UNIX_EPOCH).unwrap_or_default(),
        };
        self.put(record, &version.text);
    }

    /// Writes the snapshot of an open file. One that `is_read` is written as if it had been opened [`READ_WITHIN`] before:
    /// the next read at its beginning is a rewind, at whichever server.
    pub(super) fn put_snapshot(
        &self,
        handle: u64,
        id: NodeId,
        request: u64,
        text: &[u8],
        is_read: bool,
    ) {
        let record = || {
            let before = if is_read { READ_WITHIN } else { Duration::ZERO };
            let now = clock::to_nsec(Instant::now());
            Record::Snapshot(Snapshot {
                handle,
                node: id.raw(),
                request,
                taken_nsec: now.saturating_sub(u64::try_from(before.as_nanos()).unwrap_or(0)),
            })
        };
        self.put(record, text);
    }

    /// Removes a record.
    pub(super) fn forget(&self, key: Key) {
        if let Some(state) = &self.0 {
            state.forget(key);
        }
    }

    /// Removes all records of a container.
    pub(super) fn forget_slot(&self, slot: u64) {
        if let Some(state) = &self.0 {
            state.forget_slot(slot);
        }
    }
}
