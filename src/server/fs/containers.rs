//! The containers that are attached, and their views by node id.

use std::sync::Arc;
use std::time::SystemTime;

use dashmap::DashMap;
use dashmap::mapref::multiple::RefMulti;
use eci_fs_emulators::{DIRECTORIES, Directory, EMULATORS, Tunable};

use super::attr::{Attr, Kind};
use crate::server::container::Attached;
use crate::server::error::Errno;
use crate::server::ids::{Node, NodeId};

/// The attached containers by slot.
#[derive(Debug, Default)]
pub(super) struct Containers(DashMap<u64, Arc<Attached>>);

/// A view of an attached container.
#[derive(Debug)]
pub(super) struct View {
    /// The node.
    pub(super) id: NodeId,
    /// The container.
    pub(super) container: Arc<Attached>,
    /// The index of its emulator in [`EMULATORS`].
    pub(super) index: usize,
}

impl Containers {
    /// Returns the container in `slot`, or ENOENT.
    pub(super) fn get(&self, slot: u64) -> Result<Arc<Attached>, Errno> {
        self.0
            .get(&slot)
            .map(|entry| Arc::clone(&entry))
            .ok_or(Errno::NOENT)
    }

    /// Returns whether a container is in `slot`.
    pub(super) fn contains(&self, slot: u64) -> bool {
        self.0.contains_key(&slot)
    }

    /// Puts a container into `slot`.
    pub(super) fn insert(&self, slot: u64, container: Arc<Attached>) {
        self.0.insert(slot, container);
    }

    /// Forgets the container in `slot`.
    pub(super) fn remove(&self, slot: u64) {
        self.0.remove(&slot);
    }

    /// Returns all containers with their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = RefMulti<'_, u64, Arc<Attached>>> {
        self.0.iter()
    }

    /// Returns the view that a node names: ENOENT when the container is gone or does not have it, EISDIR when the node is
    /// no file.
    pub(super) fn view(&self, id: NodeId) -> Result<View, Errno> {
        let Node::View { slot, emulator } = id.node() else {
            return Err(Errno::ISDIR);
        };
        let container = self.get(slot)?;
        let index = container.index(emulator)?;
        Ok(View {
            id,
            container,
            index,
        })
    }
}

impl View {
    /// Returns the tunable that the view shows, if it shows one.
    pub(super) fn tunable(&self) -> Option<&'static Tunable> {
        EMULATORS[self.index].tunable()
    }

    /// Returns the attributes of the view with a text of `size` bytes from `mtime`.
    pub(super) fn attr(&self, size: usize, mtime: SystemTime) -> Attr {
        Attr {
            id: self.id,
            ino: self.id.inode(),
            kind: Kind::File,
            size: size as u64,
            mode: self.container.mode(self.index),
            uid: self.container.uid,
            gid: self.container.gid,
            mtime,
        }
    }
}

/// Returns the directory emulator with `id`.
pub(super) fn directory(id: u16) -> Option<&'static dyn Directory> {
    DIRECTORIES
        .iter()
        .copied()
        .find(|directory| directory.facts().id == id)
}
