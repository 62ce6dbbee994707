//! The table of the paths of one owner, and the memory that it takes.

use std::collections::HashMap;

use lru::LruCache;

use super::{Known, tag};
use crate::server::budget::Charge;
use crate::server::ids::node::in_inode;

/// The names that the table of a container may know even when it can have no more memory.
pub(super) const LEAST_KNOWN: usize = 64;

/// The inode numbers of names that are not known that it may keep even then.
pub(super) const LEAST_TAKEN: usize = 1 << 10;

/// The bytes of a known name, with its entries in the tables here and in that of the state.
const KNOWN_BYTES: usize = 256;

/// The bytes of an inode number that is kept, at worst.
const TAKEN_BYTES: usize = 18;

/// The bytes of the tables of all containers together. A container alone gets 8 MiB, which is more than a full table takes.
pub(in crate::server) const BYTES: u64 = 64 << 20;

/// The bytes of its table that each container can have whatever the others have.
pub(in crate::server) const FLOOR: u64 =
    (LEAST_KNOWN * KNOWN_BYTES + (LEAST_KNOWN + LEAST_TAKEN) * TAKEN_BYTES) as u64;

#[derive(Debug)]
pub(super) struct Table {
    pub(super) known: LruCache<u64, Known>,
    /// The parts of numbers that are in inode numbers, and for each a hash of the path that has it ([`tag`]). More names
    /// are here than known: every name that was listed.
    pub(super) taken: HashMap<u32, u32>,
    /// The bytes of both; none where nobody else has to share memory with the owner.
    pub(super) charge: Option<Charge>,
}

impl Table {
    /// Charges the container for another inode number. Returns false if it can have no more.
    pub(super) fn has_room_to_take(&mut self) -> bool {
        let is_least = self.taken.len() < self.known.len() + LEAST_TAKEN;
        self.resize(self.known.len(), self.taken.len() + 1) || is_least
    }

    /// Charges the container for another known name. Returns false if it can have no more.
    pub(super) fn has_room_to_know(&mut self) -> bool {
        let is_least = self.known.len() < LEAST_KNOWN;
        self.resize(self.known.len() + 1, self.taken.len()) || is_least
    }

    fn resize(&mut self, known: usize, taken: usize) -> bool {
        let charge = self.charge.as_mut();
        charge.is_none_or(|charge| charge.resize(bytes(known, taken)))
    }

    /// Charges the container for what the table has.
    pub(super) fn charge_always(&mut self) {
        let bytes = bytes(self.known.len(), self.taken.len());
        if let Some(charge) = &mut self.charge {
            charge.resize_always(bytes);
        }
    }

    /// Forgets the inode numbers of names that are not known.
    pub(super) fn forget_taken(&mut self) {
        let known = self.known.iter();
        let tags = known.map(|(number, (at, path))| (in_inode(*number), tag(*at, path)));
        self.taken = tags.collect();
    }
}

/// Returns the bytes of a table with so many known names and inode numbers.
pub(super) fn bytes(known: usize, taken: usize) -> u64 {
    (known * KNOWN_BYTES + taken * TAKEN_BYTES) as u64
}
