//! Node ids: computed from what they name, never allocated.
//!
//! A graft holds its node id as long as the container lives, also when servers die. A server that computes node ids needs
//! no table to know the file of a request.
//!
//! Bits 40 to 63 are the container's slot, and bits 0 to 39 are the *entry*:
//!
//! | entry | names |
//! |---|---|
//! | 16 to 0xffff | a view or a directory graft, by the id of its emulator |
//! | 0x1_0000 to 0x1_0000_ffff | a directory on the way to the views, by its number |
//! | bit 38 | a name in the container's network namespace below a directory graft, by its number |
//! | bit 39 | a path of the host below a directory graft, by its number |
//!
//! The kernel detaches what is mounted on a name whose node id has changed. So a release must keep the numbers of the one
//! before it.
//!
//! A program in a container sees an *inode number* instead, by stat(2) and readdir(3). It has 32 bits, as that of a file of
//! procfs has: a 32-bit program cannot take more. It has no slot, because that tells how many containers were there before.
//! All files of one container have different inode numbers:
//!
//! | inode number | names |
//! |---|---|
//! | 1 | the root of a connection |
//! | 16 to 0xffff | a view or a directory graft, by the id of its emulator |
//! | 0x4000_0000 to 0x7fff_ffff | a directory on the way to the views, by 30 bits of its number |
//! | 0x8000_0000 to 0xbfff_ffff | a path of the host below a directory graft, by 30 bits of its number |
//! | 0xc000_0000 to 0xffff_ffff | a name in the container's network namespace, by 30 bits of its number |
//!
//! No two paths get numbers of which these 30 bits are the same (`paths.rs`).

/// The lowest entry of directories on the way. Emulator ids are 16 bits wide.
const FIRST_DIRECTORY: u64 = 1 << 16;

/// The lowest entry of names in the container's network namespace below a directory graft.
const FIRST_OF_CONTAINER: u64 = 1 << 38;

/// The lowest entry of paths of the host below a directory graft.
const FIRST_OF_HOST: u64 = 1 << 39;

/// The id of no emulator: a number that no server gives out names its view, which is not there.
const NO_EMULATOR: u16 = 0;

/// The width of the entry.
const ENTRY_BITS: u32 = 40;

/// The number of bits of a directory's or path's number that are in its inode number.
const INODE_BITS: u32 = 30;

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

impl Owner {
    /// Returns the lowest entry of its paths, which is the number of numbers that there are for them.
    pub(in crate::server) fn first(self) -> u64 {
        match self {
            Self::Host => FIRST_OF_HOST,
            Self::Container => FIRST_OF_CONTAINER,
        }
    }

    /// Returns the lowest inode number of its paths.
    fn first_inode(self) -> u32 {
        match self {
            Self::Host => 2 << INODE_BITS,
            Self::Container => 3 << INODE_BITS,
        }
    }
}

/// Returns the part of the number of a directory or a path that is in its inode number.
pub(super) fn in_inode(number: u64) -> u32 {
    (number % (1 << INODE_BITS)) as u32
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
        number: u64,
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

    fn of(slot: u64, entry: u64) -> Self {
        Self(slot << ENTRY_BITS | entry)
    }

    /// Returns the id of a directory of the container in `slot`.
    pub(in crate::server) fn directory(slot: u64, directory: u32) -> Self {
        Self::of(slot, FIRST_DIRECTORY + u64::from(directory))
    }

    /// Returns the id of a view of the container in `slot`.
    pub(in crate::server) fn view(slot: u64, emulator: u16) -> Self {
        Self::of(slot, u64::from(emulator))
    }

    /// Returns the id of a path below a directory graft of the container in `slot`.
    pub(in crate::server) fn below(slot: u64, owner: Owner, number: u64) -> Self {
        Self::of(slot, owner.first() | (number % owner.first()))
    }

    /// Returns whether it is a directory on the way to the views, which only the daemon walks.
    pub fn is_walked(self) -> bool {
        matches!(self.node(), Node::Root | Node::Directory { .. })
    }

    /// Returns the slot of its container; 0, which no container has, for the root.
    pub fn slot(self) -> u64 {
        self.0 >> ENTRY_BITS
    }

    /// Returns the inode number that programs see.
    pub fn inode(self) -> u32 {
        match self.node() {
            Node::Root => 1,
            Node::View { emulator, .. } => u32::from(emulator),
            Node::Directory { directory, .. } => 1 << INODE_BITS | in_inode(u64::from(directory)),
            Node::Below { owner, number, .. } => owner.first_inode() | in_inode(number),
        }
    }

    /// Returns what it names.
    pub fn node(self) -> Node {
        let slot = self.slot();
        if self == Self::ROOT {
            return Node::Root;
        }
        let entry = self.0 % (1 << ENTRY_BITS);
        if let Ok(emulator) = u16::try_from(entry) {
            return Node::View { slot, emulator };
        }
        for owner in [Owner::Host, Owner::Container] {
            if let Some(number) = entry.checked_sub(owner.first()) {
                return Node::Below {
                    slot,
                    owner,
                    number,
                };
            }
        }
        match u32::try_from(entry - FIRST_DIRECTORY) {
            Ok(directory) => Node::Directory { slot, directory },
            Err(_) => Node::View {
                slot,
                emulator: NO_EMULATOR,
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
                for number in [0, 5, owner.first() - 1] {
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
    fn a_number_that_no_server_gives_out_names_nothing() {
        let id = NodeId::from_raw(1 << 37 | 3 << 40);
        let nothing = Node::View {
            slot: 3,
            emulator: NO_EMULATOR,
        };
        assert_eq!(id.node(), nothing);
        let highest = NodeId::directory(3, u32::MAX);
        let directory = u32::MAX;
        assert_eq!(highest.node(), Node::Directory { slot: 3, directory });
    }

    #[test]
    fn inode_numbers_have_no_slot_and_are_the_same_in_every_release() {
        for slot in [1, 7, (1 << 24) - 1] {
            assert_eq!(NodeId::view(slot, 16).inode(), 16);
            assert_eq!(NodeId::directory(slot, 0).inode(), 0x4000_0000);
            let below = |owner, number| NodeId::below(slot, owner, number).inode();
            assert_eq!(below(Owner::Host, 0), 0x8000_0000);
            assert_eq!(below(Owner::Host, 0x7f_ffff_ffff), 0xbfff_ffff);
            assert_eq!(below(Owner::Container, 0), 0xc000_0000);
            assert_eq!(below(Owner::Container, 0x3f_ffff_ffff), 0xffff_ffff);
        }
        assert_eq!(NodeId::directory(1, u32::MAX).inode(), 0x7fff_ffff);
        assert_eq!(NodeId::ROOT.inode(), 1);
    }

    /// Grafts outlive servers, so the next release must keep the ids of this one.
    #[test]
    fn the_numbers_themselves_are_kept() {
        assert_eq!(NodeId::view(1, 16).raw(), 0x100_0000_0010);
        assert_eq!(NodeId::directory(2, 0).raw(), 0x200_0001_0000);
        assert_eq!(NodeId::below(3, Owner::Host, 1).raw(), 0x380_0000_0001);
        assert_eq!(NodeId::below(3, Owner::Container, 1).raw(), 0x340_0000_0001);
    }
}
