//! The directories on the way to the views: `/`, `/proc`, `/sys/devices/system/cpu`.
//!
//! The daemon walks them when it clones a mount, and nobody else does.

mod layout;
mod prepared;

use std::sync::Arc;
use std::time::Duration;

use eci_fs_emulators::{DIRECTORIES, Directory, EMULATORS};
use eci_fs_protocol::link::{Connection, directory_name};

use super::attr::{Attr, Listing};
use super::containers::Containers;
use crate::server::error::Errno;
use crate::server::ids::{Node, NodeId};
use crate::server::state::NO_SLOT;
use layout::{Layout, TOP};
pub(super) use prepared::PreparedSlots;

/// The kernel may believe these directories for this long. Only the daemon walks them, to clone mounts, and their names
/// never change; a slot that is gone is not given out again.
pub(super) const DIRECTORY_TIMEOUT: Duration = Duration::from_secs(1);

/// The directories on the way, of all containers and prepared slots.
#[derive(Debug)]
pub(super) struct Directories {
    containers: Arc<Containers>,
    layout: Layout,
    prepared: PreparedSlots,
}

impl Directories {
    /// Lays out the directories that lead to all views.
    pub(super) fn new(containers: Arc<Containers>) -> Self {
        let views = EMULATORS.iter().map(|emulator| emulator.facts().path);
        let directories = DIRECTORIES
            .iter()
            .map(|directory| (directory.facts().path, directory.is_by_file()));
        Self {
            containers,
            layout: Layout::of(views, directories),
            prepared: PreparedSlots::default(),
        }
    }

    /// Prepares a slot for a container with this generation that is going to be there.
    pub(super) fn prepare(&self, slot: u64, generation: u32) {
        self.prepared.insert(slot, generation);
    }

    /// Returns the generation of all nodes of a slot; 0 for the root of a connection, which has none.
    ///
    /// # Errors
    /// ENOENT when nothing is in the slot.
    pub(super) fn generation(&self, slot: u64) -> Result<u32, Errno> {
        if slot == NO_SLOT {
            return Ok(0);
        }
        match self.prepared.generation(slot) {
            Some(generation) => Ok(generation),
            None => Ok(self.containers.get(slot)?.generation),
        }
    }

    /// Prepares a slot no more, because it has its container.
    pub(super) fn has_come(&self, slot: u64) {
        self.prepared.remove(slot);
    }

    /// Returns the directory of a container by its name in the root of a connection.
    ///
    /// # Errors
    /// ENOENT when no container has it.
    pub(super) fn lookup_slot(&self, name: &str) -> Result<NodeId, Errno> {
        let slot = name.split('-').next().and_then(|slot| slot.parse().ok());
        let slot = slot.filter(|slot| *slot != NO_SLOT).ok_or(Errno::NOENT)?;
        // "007" is not the name of 7.
        match directory_name(slot, self.generation(slot)?) == name {
            true => Ok(NodeId::directory(slot, TOP)),
            false => Err(Errno::NOENT),
        }
    }

    /// Returns the directory of the container in a slot.
    ///
    /// # Errors
    /// ENOENT when there is none.
    pub(super) fn top(&self, slot: u64) -> Result<NodeId, Errno> {
        self.containers.get(slot)?;
        Ok(NodeId::directory(slot, TOP))
    }

    /// Returns the node at `name` in the directory numbered `directory` of the container in `slot`.
    ///
    /// # Errors
    /// ENOENT.
    pub(super) fn lookup(
        &self,
        connection: Connection,
        slot: u64,
        directory: u32,
        name: &str,
    ) -> Result<NodeId, Errno> {
        let container = match self.prepared.contains(slot) {
            true => None,
            false => Some(self.containers.get(slot)?),
        };
        self.layout
            .child(slot, directory, name, container.as_deref(), connection)
            .map(|(_, id)| id)
            .ok_or(Errno::NOENT)
    }

    /// Returns the emulator of single files that the other names of a directory are up to, and the path of the directory
    /// relative to it.
    pub(super) fn by_file(&self, directory: u32) -> Option<(&'static dyn Directory, &str)> {
        let (index, rel) = self.layout.by_file(directory)?;
        Some((*DIRECTORIES.get(index)?, rel))
    }

    /// Returns the directory of the container in `slot` that is at the path `rel` below the emulator of single files with the
    /// id `emulator`; none if that leads to no view and no graft.
    pub(super) fn way(&self, slot: u64, emulator: u16, rel: &str) -> Option<NodeId> {
        let number = self.layout.way(emulator, rel)?;
        Some(NodeId::directory(slot, number))
    }

    /// Returns whether a container is going to be in `slot`.
    pub(super) fn is_prepared(&self, slot: u64) -> bool {
        self.prepared.contains(slot)
    }

    /// Returns what a container has in a directory.
    ///
    /// # Errors
    /// ENOENT when the container is gone.
    pub(super) fn entries(
        &self,
        connection: Connection,
        slot: u64,
        directory: u32,
    ) -> Result<Listing, Errno> {
        let container = self.containers.get(slot)?;
        let above = self.layout.parent(directory);
        Ok(Listing {
            own: NodeId::directory(slot, directory).inode(),
            parent: above
                .map_or(NodeId::ROOT, |above| NodeId::directory(slot, above))
                .inode(),
            entries: self.layout.entries(slot, directory, &container, connection),
        })
    }

    /// Returns the directory that holds the directory graft with the id `graft` of the container in `slot`.
    pub(super) fn parent_of_graft(&self, slot: u64, graft: u16) -> NodeId {
        let above = self.layout.parent_of_graft(graft).unwrap_or(TOP);
        NodeId::directory(slot, above)
    }

    /// Returns the attributes of a directory.
    ///
    /// # Errors
    /// ENOENT when its container is gone; ENOTDIR for other nodes.
    pub(super) fn attr(&self, id: NodeId) -> Result<Attr, Errno> {
        match id.node() {
            Node::Root => Ok(Attr::directory(id, 0, 0)),
            Node::Directory { slot, .. } if self.prepared.contains(slot) => {
                Ok(Attr::directory(id, 0, 0))
            }
            Node::Directory { slot, .. } => {
                let container = self.containers.get(slot)?;
                Ok(Attr::directory(id, container.uid, container.gid))
            }
            Node::View { .. } | Node::Below { .. } => Err(Errno::NOTDIR),
        }
    }
}
