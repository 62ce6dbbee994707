//! Slots that are prepared: a container is going to be there, and the daemon walks to what it clones for it before it
//! comes.
//!
//! Such a slot has every name that any container could have, because it is not known what the next container has. Nothing
//! can be read: a view of such a slot is no container's yet.

use std::time::{Duration, SystemTime};

use dashmap::DashMap;

use super::DIRECTORY_TIMEOUT;
use crate::server::error::Errno;
use crate::server::fs::attr::{Attr, Kind};
use crate::server::fs::containers::directory;
use crate::server::ids::{Node, NodeId};

/// The most slots that are prepared. A daemon prepares four, but may be killed before their containers come.
const MOST: usize = 16;

/// The slots that are prepared, each with the generation of its container.
#[derive(Debug, Default)]
pub(in crate::server::fs) struct PreparedSlots(DashMap<u64, u32>);

impl PreparedSlots {
    /// Prepares a slot.
    pub(super) fn insert(&self, slot: u64, generation: u32) {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(slot, generation);
    }

    /// Returns the generation of the container that is going to be in a slot; none if the slot is not prepared.
    pub(super) fn generation(&self, slot: u64) -> Option<u32> {
        // Mostly none is.
        match self.0.is_empty() {
            true => None,
            false => self.0.get(&slot).map(|generation| *generation),
        }
    }

    /// Returns whether a slot is prepared.
    pub(super) fn contains(&self, slot: u64) -> bool {
        // Mostly none is.
        !self.0.is_empty() && self.0.contains_key(&slot)
    }

    /// Forgets a slot, which has its container now.
    pub(super) fn remove(&self, slot: u64) {
        self.0.remove(&slot);
    }

    /// Returns what a lookup tells of a node of a prepared slot, and for how long the kernel may believe the name. Files have
    /// other attributes when they are looked at again, which the kernel does before it uses them. `below` is what the node
    /// is, if it lies on the way to single files or is one of these.
    ///
    /// # Errors
    /// ENOENT for what no container has at once.
    pub(in crate::server::fs) fn entry(
        id: NodeId,
        below: Option<Kind>,
    ) -> Result<(Attr, Duration), Errno> {
        let unknown = |kind| Attr {
            id,
            ino: id.inode(),
            kind,
            size: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: SystemTime::UNIX_EPOCH,
        };
        match (id.node(), below) {
            (Node::Directory { .. }, _) | (Node::Below { .. }, Some(Kind::Directory)) => {
                Ok((Attr::directory(id, 0, 0), DIRECTORY_TIMEOUT))
            }
            (Node::View { emulator, .. }, _) => {
                let kind = match directory(emulator) {
                    Some(_) => Kind::Directory,
                    None => Kind::File,
                };
                Ok((unknown(kind), Duration::ZERO))
            }
            (Node::Below { .. }, Some(kind)) => Ok((unknown(kind), Duration::ZERO)),
            (Node::Root | Node::Below { .. }, _) => Err(Errno::NOENT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_that_are_killed_before_their_container_comes_leave_a_few_slots() {
        let slots = PreparedSlots::default();
        for slot in 1..100 {
            slots.insert(slot, 1);
            assert!(slots.0.len() <= MOST && slots.contains(slot));
        }
    }
}
