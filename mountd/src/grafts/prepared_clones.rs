//! Clones that are made before their container is there.
//!
//! A clone is of the mount at a path of a slot, and to walk to it the kernel asks the server for each name: most of the
//! time that an attach takes. What is walked to depends on the slot alone, so it is done for the next one while nobody
//! waits. What the files say, who owns them, and whether the container gets them at all is asked when they are used.

use std::os::fd::OwnedFd;

use super::rows::to_be_grafted;
use super::source_mounts::SourceMounts;
use eci_fs_protocol::link::Row;

/// Clones for the container that is going to be in a slot.
#[derive(Debug)]
pub struct PreparedClones {
    /// The slot.
    pub slot: u64,
    clones: Vec<(Row, OwnedFd)>,
}

impl PreparedClones {
    /// Make as many of them as can be made; `rows` are those that another container got, and the next one mostly gets.
    pub fn make(mounts: &SourceMounts, slot: u64, rows: &[Row]) -> Self {
        let clones = to_be_grafted(rows).filter_map(|row| {
            let clone = mounts.clone_of(slot, row);
            let clone =
                clone.inspect_err(|error| tracing::debug!(%error, path = row.path, "not ready"));
            Some((row.clone(), clone.ok()?))
        });
        let clones = clones.collect();
        Self { slot, clones }
    }

    /// The clone for a row, once.
    pub(super) fn take(&mut self, row: &Row) -> Option<OwnedFd> {
        let at = self.clones.iter().position(|(of, _)| of == row)?;
        Some(self.clones.swap_remove(at).1)
    }
}
