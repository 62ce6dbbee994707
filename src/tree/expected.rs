//! Slots in which a container is going to be: the daemon walks to what it clones for it before it comes.
//!
//! Every name is there that any container could have, because what the next one has is not known. Nothing can be read:
//! a view of such a slot is no container's yet.

use std::time::{Duration, SystemTime};

use eci_fs_mountd::protocol::link::Connection;

use super::emulated::directory;
use super::{Attr, DIRECTORY_TIMEOUT, Kind, Node, NodeId, Tree};
use crate::error::Errno;

/// Slots that are expected at most: a daemon expects one at a time, but may be killed before that comes.
const MOST: usize = 16;

impl Tree {
    /// A container is going to be in `slot`.
    pub fn expect(&self, slot: u64) {
        if self.expected.len() >= MOST {
            self.expected.clear();
        }
        self.expected.insert(slot);
    }

    pub(super) fn is_expected(&self, slot: u64) -> bool {
        // Mostly none is.
        !self.expected.is_empty() && self.expected.contains(&slot)
    }

    /// The node named `name` in a directory of an expected slot.
    pub(super) fn expected_lookup(
        &self,
        connection: Connection,
        parent: NodeId,
        name: &str,
    ) -> Result<NodeId, Errno> {
        let Node::Directory { slot, directory } = parent.node() else {
            return Err(Errno::NOENT);
        };
        self.directories
            .any_child(slot, directory, name, connection)
            .ok_or(Errno::NOENT)
    }

    /// What a lookup tells of a node of an expected slot. Files have other attributes when they are looked at again,
    /// which the kernel does before it uses them.
    pub(super) fn expected_attr(&self, id: NodeId) -> Result<(Attr, Duration), Errno> {
        match id.node() {
            Node::Directory { .. } => Ok((Attr::directory(id, 0, 0), DIRECTORY_TIMEOUT)),
            Node::View { emulator, .. } => {
                let attr = Attr {
                    id,
                    kind: match directory(emulator) {
                        Some(_) => Kind::Directory,
                        None => Kind::File,
                    },
                    size: 0,
                    mode: 0,
                    uid: 0,
                    gid: 0,
                    mtime: SystemTime::UNIX_EPOCH,
                };
                Ok((attr, Duration::ZERO))
            }
            Node::Root | Node::Below { .. } => Err(Errno::NOENT),
        }
    }
}
