//! Node ids: computed from what they name, never allocated.
//!
//! A graft holds its node id for as long as the container lives, over the deaths of servers; a server that
//! computes them needs no table to know what it is asked for. Bits 40 to 63 are the container's slot, bits 0 to
//! 39 the entry: the emulator's id for a view, above [`FIRST_DIRECTORY`] the directories on the way to it, and with bit
//! 39 set the hash of a path below a directory graft.

/// Entries from here on are directories. Emulator ids are 16 bits wide.
const FIRST_DIRECTORY: u64 = 1 << 16;

/// Entries from here on are hashes of paths below a directory graft.
const FIRST_BELOW: u64 = 1 << (ENTRY_BITS - 1);

/// Width of the entry.
const ENTRY_BITS: u32 = 40;

/// The number by which the kernel knows a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u64);

/// What a node id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// The root of a connection.
    Root,
    /// A directory in a container's part.
    Directory {
        /// The container's slot.
        slot: u64,
        /// Which directory.
        directory: u32,
    },
    /// A path below a directory graft.
    Below {
        /// The container's slot.
        slot: u64,
        /// What is kept of the hash of the path.
        path: u64,
    },
    /// A view, or a directory graft.
    View {
        /// The container's slot.
        slot: u64,
        /// The emulator's id.
        emulator: u16,
    },
}

impl NodeId {
    /// The root of a connection (`FUSE_ROOT_ID`).
    pub const ROOT: Self = Self(1);

    /// From what the kernel sent. Any number names something, if only something that is not there.
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// As the kernel knows it.
    pub fn raw(self) -> u64 {
        self.0
    }

    /// A directory of the container in `slot`.
    pub(in crate::server) fn directory(slot: u64, directory: u32) -> Self {
        Self(slot << ENTRY_BITS | (FIRST_DIRECTORY + u64::from(directory)))
    }

    /// A view of the container in `slot`.
    pub(in crate::server) fn view(slot: u64, emulator: u16) -> Self {
        Self(slot << ENTRY_BITS | u64::from(emulator))
    }

    /// A path below a directory graft of the container in `slot`.
    pub(in crate::server) fn below(slot: u64, hash: u64) -> Self {
        Self((slot << ENTRY_BITS) | FIRST_BELOW | (hash & (FIRST_BELOW - 1)))
    }

    /// Whether it is a directory on the way to the views, which only the daemon walks.
    pub fn is_walked(self) -> bool {
        matches!(self.node(), Node::Root | Node::Directory { .. })
    }

    /// The slot of its container; 0, which nobody has, for the root.
    pub fn slot(self) -> u64 {
        self.0 >> ENTRY_BITS
    }

    /// What it names.
    pub fn node(self) -> Node {
        let slot = self.0 >> ENTRY_BITS;
        let entry = self.0 & ((1 << ENTRY_BITS) - 1);
        if self == Self::ROOT {
            return Node::Root;
        }
        if entry >= FIRST_BELOW {
            return Node::Below {
                slot,
                path: entry - FIRST_BELOW,
            };
        }
        match u16::try_from(entry) {
            Ok(emulator) => Node::View { slot, emulator },
            Err(_) => Node::Directory {
                slot,
                directory: u32::try_from(entry - FIRST_DIRECTORY).unwrap_or(u32::MAX),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_what_they_name_are_one_to_one() {
        assert_eq!(NodeId::ROOT.node(), Node::Root);
        for slot in [1, 7, (1 << 24) - 1] {
            let (view, directory) = (NodeId::view(slot, 16), NodeId::directory(slot, 3));
            assert_eq!(view.node(), Node::View { slot, emulator: 16 });
            assert_eq!(directory.node(), Node::Directory { slot, directory: 3 });
            assert_eq!(NodeId::from_raw(view.raw()), view);
        }
    }

    /// Grafts outlive servers: what one release called a node, the next must call it too.
    #[test]
    fn the_numbers_themselves_are_kept() {
        assert_eq!(NodeId::view(1, 16).raw(), 0x100_0000_0010);
        assert_eq!(NodeId::directory(2, 0).raw(), 0x200_0001_0000);
    }
}
