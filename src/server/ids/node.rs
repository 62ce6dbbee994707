//! Node ids: computed from what they name, never allocated.
//!
//! A graft holds its node id as long as the container lives, also when servers die. A server that computes node ids needs
//! no table to know the file of a request.
//!
//! Bits 40 to 63 are the container's slot, bits 32 to 39 are 0, and bits 0 to 31 are the *entry*:
//!
//! | entry | names |
//! |---|---|
//! | 16 to 0xffff | a view or a directory graft, by the id of its emulator |
//! | 0x1_0000 and above | a directory on the way to the views |
//! | 0x8000_0000 and above | a path of the host below a directory graft, by its number |
//! | 0xc000_0000 and above | a name in the container's network namespace below one, by its number |
//!
//! An entry fits an inode number of 32 bits, and says within one container which file it is.

/// The lowest entry of directories on the way. Emulator ids are 16 bits wide.
const FIRST_DIRECTORY: u32 = 1 << 16;

/// The lowest entry of paths of the host below a directory graft.
const FIRST_OF_HOST: u32 = 0b10 << NUMBER_BITS;

/// The lowest entry of names in the container's network namespace below one.
const FIRST_OF_CONTAINER: u32 = 0b11 << NUMBER_BITS;

/// The width of the number of a path, and of a directory on the way.
pub(in crate::server) const NUMBER_BITS: u32 = 30;

/// The id of no emulator: a number that no server gives out names its view, which is not there.
const NO_EMULATOR: u16 = 0;

/// The place of the slot.
const SLOT_SHIFT: u32 = 40;

/// The number by which the kernel knows a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u64);

/// The owner of the names in a path below a directory graft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The host's kernel. The path is the same for all containers.
    Host,
    /// The container, which names the devices in its network namespace.
    Container,
}

/// The thing that a node id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// The root of a connection.
    Root,
    /// A directory in a container's part.
    Directory {
        /// The container's slot.
        slot: u64,
        /// The number of the directory.
        directory: u32,
    },
    /// A path below a directory graft.
    Below {
        /// The container's slot.
        slot: u64,
        /// The owner of its names.
        owner: Owner,
        /// The number of the path among those of its owner.
        number: u32,
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

    /// Makes an id of the number that the kernel sent. A number that no server gives out names a view that does not exist.
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Returns the number by which the kernel knows it.
    pub fn raw(self) -> u64 {
        self.0
    }

    fn of(slot: u64, entry: u32) -> Self {
        Self(slot << SLOT_SHIFT | u64::from(entry))
    }

    /// Returns the id of a directory of the container in `slot`. Only [`NUMBER_BITS`] of its number count.
    pub(in crate::server) fn directory(slot: u64, directory: u32) -> Self {
        Self::of(slot, FIRST_DIRECTORY + directory % (1 << NUMBER_BITS))
    }

    /// Returns the id of a view of the container in `slot`.
    pub(in crate::server) fn view(slot: u64, emulator: u16) -> Self {
        Self::of(slot, u32::from(emulator))
    }

    /// Returns the id of a path below a directory graft of the container in `slot`.
    pub(in crate::server) fn below(slot: u64, owner: Owner, number: u32) -> Self {
        let first = match owner {
            Owner::Host => FIRST_OF_HOST,
            Owner::Container => FIRST_OF_CONTAINER,
        };
        Self::of(slot, first | (number % (1 << NUMBER_BITS)))
    }

    /// Returns whether it is a directory on the way to the views, which only the daemon walks.
    pub fn is_walked(self) -> bool {
        matches!(self.node(), Node::Root | Node::Directory { .. })
    }

    /// Returns the slot of its container; 0, which no container has, for the root.
    pub fn slot(self) -> u64 {
        self.0 >> SLOT_SHIFT
    }

    /// Returns what it names.
    pub fn node(self) -> Node {
        let slot = self.slot();
        if self == Self::ROOT {
            return Node::Root;
        }
        let Ok(entry) = u32::try_from(self.0 & ((1 << SLOT_SHIFT) - 1)) else {
            return Node::View {
                slot,
                emulator: NO_EMULATOR,
            };
        };
        if let Ok(emulator) = u16::try_from(entry) {
            return Node::View { slot, emulator };
        }
        let below = |owner, first| Node::Below {
            slot,
            owner,
            number: entry - first,
        };
        match entry {
            FIRST_OF_CONTAINER.. => below(Owner::Container, FIRST_OF_CONTAINER),
            FIRST_OF_HOST.. => below(Owner::Host, FIRST_OF_HOST),
            _ => Node::Directory {
                slot,
                directory: entry - FIRST_DIRECTORY,
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
            for owner in [Owner::Host, Owner::Container] {
                for number in [0, 5, (1 << NUMBER_BITS) - 1] {
                    let below = NodeId::below(slot, owner, number);
                    assert_eq!(
                        below.node(),
                        Node::Below {
                            slot,
                            owner,
                            number
                        }
                    );
                }
            }
        }
    }

    #[test]
    fn within_a_container_an_id_fits_an_inode_number_of_32_bits() {
        let highest = (1 << NUMBER_BITS) - 1;
        for id in [
            NodeId::view(0, u16::MAX),
            NodeId::directory(0, highest),
            NodeId::below(0, Owner::Container, highest),
        ] {
            assert!(u32::try_from(id.raw()).is_ok());
        }
        // A number that no server gives out names nothing.
        let other = NodeId::from_raw(1 << 39 | 3 << 40);
        assert_eq!(
            other.node(),
            Node::View {
                slot: 3,
                emulator: NO_EMULATOR
            }
        );
    }

    /// Grafts outlive servers, so the next release must keep the ids of this one.
    #[test]
    fn the_numbers_themselves_are_kept() {
        assert_eq!(NodeId::view(1, 16).raw(), 0x100_0000_0010);
        assert_eq!(NodeId::directory(2, 0).raw(), 0x200_0001_0000);
        assert_eq!(NodeId::below(3, Owner::Host, 1).raw(), 0x300_8000_0001);
        assert_eq!(NodeId::below(3, Owner::Container, 1).raw(), 0x300_c000_0001);
    }
}
