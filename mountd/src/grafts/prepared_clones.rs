//! Clones that are made before their container is there.
//!
//! A clone is of the mount at a path of a slot. To walk to it the kernel asks the server for each name, which is most
//! of the time that an attach takes. The walk depends on the slot alone, so it is done for the next slot while nobody
//! waits. The kernel asks for the content of files and their owners when they are used.

use std::os::fd::OwnedFd;

use super::open::at;
use super::rows::to_be_grafted;
use super::source_mounts::SourceMounts;
use eci_fs_protocol::error::Result;
use eci_fs_protocol::link::{Row, directory_name};

/// Clones for the container that is going to be in a slot.
#[derive(Debug)]
pub(super) struct PreparedClones {
    /// The slot.
    pub(super) slot: u64,
    /// The directory of the container in both connections.
    top: String,
    clones: Vec<(Row, Clone)>,
}

/// A clone of a source mount that is mounted nowhere yet.
#[derive(Debug)]
pub(super) struct Clone {
    /// The clone.
    pub(super) mount: OwnedFd,
    /// The id of the mount. It keeps that when it is moved.
    pub(super) id: u64,
}

impl Clone {
    /// Makes a clone of the mount of `row`, for the container with the directory `top`.
    ///
    /// # Errors
    /// As [`SourceMounts::clone_of`].
    pub(super) fn make(mounts: &SourceMounts, top: &str, row: &Row) -> Result<Self> {
        let mount = mounts.clone_of(top, row)?;
        let id = at(&mount, &row.path)?.mount;
        Ok(Self { mount, id })
    }
}

impl PreparedClones {
    /// Returns an empty list for the container that is going to be in `slot`, with this generation.
    pub(super) fn none(slot: u64, generation: u32) -> Self {
        Self {
            slot,
            top: directory_name(slot, generation),
            clones: Vec::new(),
        }
    }

    /// Makes as many clones as can be made, and are not there. `rows` are those of another container: the next one
    /// mostly gets the same. When `stops` returns true, the rest is left out, and the answer is false.
    pub(super) fn make(
        &mut self,
        mounts: &SourceMounts,
        rows: &[Row],
        stops: impl Fn() -> bool,
    ) -> bool {
        for row in to_be_grafted(rows) {
            if self.clones.iter().any(|(of, _)| of == row) {
                continue;
            }
            if stops() {
                tracing::info!(
                    slot = self.slot,
                    "a command waits: the rest is not prepared"
                );
                return false;
            }
            match Clone::make(mounts, &self.top, row) {
                Ok(clone) => self.clones.push((row.clone(), clone)),
                Err(error) => tracing::debug!(%error, path = row.path, "not ready"),
            }
        }
        true
    }

    /// Returns the clone for a row, once.
    pub(super) fn take(&mut self, row: &Row) -> Option<Clone> {
        let at = self.clones.iter().position(|(of, _)| of == row)?;
        Some(self.clones.swap_remove(at).1)
    }
}
