//! The numbers of paths below directory grafts, and the paths that numbers stand for.
//!
//! A number is a hash of the path, so two servers compute the same one. If another path has that number already, or one
//! with the same inode number, the next hash of the path counts.
//!
//! The server has one table for the paths of the host, which no container chooses, and one for each container for the
//! names in its network namespace. The hash of these takes a key, so a container cannot predict it, and the slot, so a name
//! in one container changes no number of another.

mod table;

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use siphasher::sip::SipHasher24;

use super::node::{Owner, in_inode};
use crate::server::budget::Budget;
use crate::server::error::Errno;
use table::Table;
pub(in crate::server) use table::{BYTES, FLOOR};

/// The most names that the table of a container knows. It forgets the name that was not used for the longest time. That is
/// found again by walking.
const MOST_KNOWN: usize = 1 << 12;

/// The most inode numbers that the table of a container keeps for its names, in 9 bytes each. When there are more, those
/// of names that are not known are forgotten.
const MOST_TAKEN: usize = 1 << 18;

/// The most hashes of a path that are tried.
const TRIES: u8 = 8;

/// A path below a directory graft: the id of the directory's emulator, and the path below it.
pub(in crate::server) type Known = (u16, Arc<str>);

/// A number that a path has just got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct Learned {
    /// The number.
    pub(in crate::server) number: u64,
    /// The number that was forgotten for it.
    pub(in crate::server) forgotten: Option<u64>,
}

/// The paths of one owner, by number.
#[derive(Debug)]
pub(in crate::server) struct Paths {
    owner: Owner,
    key: [u8; 16],
    most_known: usize,
    most_taken: usize,
    table: Mutex<Table>,
}

impl Paths {
    /// Returns an empty table for the paths of the host. The host bounds their number, so all of them are kept.
    pub(in crate::server) fn of_host() -> Self {
        Self::new(Owner::Host, [0; 16], usize::MAX, usize::MAX)
    }

    /// Returns an empty table for the names that one container chooses. `secret` must be unknown to containers, and the
    /// same for every server that serves the container.
    pub(in crate::server) fn of_container(secret: &[u8; 32]) -> Self {
        let (key, _) = secret.split_at(16);
        let key = key.try_into().unwrap_or_default();
        Self::new(Owner::Container, key, MOST_KNOWN, MOST_TAKEN)
    }

    fn new(owner: Owner, key: [u8; 16], most_known: usize, most_taken: usize) -> Self {
        let table = Table {
            known: LruCache::unbounded(),
            taken: HashMap::new(),
            charge: None,
        };
        Self {
            owner,
            key,
            most_known,
            most_taken,
            table: Mutex::new(table),
        }
    }

    /// Has the table take no more memory from now on than its container's part of `budget`. Beyond that it forgets as it does
    /// when it is full.
    pub(in crate::server) fn charge_to(&self, budget: &Arc<Budget>) {
        let mut table = self.table.lock();
        table.charge = Some(budget.empty(&Arc::default()));
        table.charge_always();
    }

    /// Returns the number of a path of the container in `slot`. `learned` is called if the table did not know the path.
    ///
    /// # Errors
    /// EIO when each hash of the path is the number of another one.
    pub(in crate::server) fn number(
        &self,
        slot: u64,
        directory: u16,
        rel: &str,
        learned: impl FnOnce(Learned),
    ) -> Result<u64, Errno> {
        let mut table = self.table.lock();
        let (number, _) = self.take(&mut table, slot, directory, rel)?;
        if table.known.contains(&number) {
            return Ok(number);
        }
        let forgotten = self.insert(&mut table, number, (directory, rel.into()));
        drop(table);
        learned(Learned { number, forgotten });
        Ok(number)
    }

    /// Returns the number that a path has or gets, and does not learn the path. Returns none for a path that has to be
    /// learned: its number is not its first hash, so a server that does not know it could give it another one.
    ///
    /// # Errors
    /// As [`Self::number`].
    pub(in crate::server) fn number_in_listing(
        &self,
        slot: u64,
        directory: u16,
        rel: &str,
    ) -> Result<Option<u64>, Errno> {
        let (number, attempt) = self.take(&mut self.table.lock(), slot, directory, rel)?;
        Ok((attempt == 0).then_some(number))
    }

    /// Returns the path with a number, if it is known.
    pub(in crate::server) fn path(&self, number: u64) -> Option<Known> {
        self.table.lock().known.get(&number).cloned()
    }

    /// Takes in a path that a server before this one has numbered. Version 0.1.0 did not compare inode numbers, so two of
    /// its paths can have the same.
    pub(in crate::server) fn restore(&self, number: u64, directory: u16, rel: &str) {
        let mut table = self.table.lock();
        self.insert(&mut table, number, (directory, rel.into()));
        let tag = tag(directory, rel);
        table.taken.entry(in_inode(number)).or_insert(tag);
        table.charge_always();
    }

    /// Returns the number of a path, and which of its hashes that is: the one that it has already, or the first one of
    /// which no other path has the number or the inode number.
    fn take(
        &self,
        table: &mut Table,
        slot: u64,
        directory: u16,
        rel: &str,
    ) -> Result<(u64, u8), Errno> {
        let tag = tag(directory, rel);
        let numbers = |attempt| (self.hash(slot, directory, rel, attempt), attempt);
        let mut free = None;
        for (number, attempt) in (0..TRIES).map(numbers) {
            let known = table.known.get(&number);
            let is_its = match (known, table.taken.get(&in_inode(number))) {
                (Some((at, path)), _) => *at == directory && &**path == rel,
                (None, Some(taken)) => *taken == tag,
                (None, None) => {
                    free = free.or(Some((number, attempt)));
                    false
                }
            };
            if is_its {
                return Ok((number, attempt));
            }
        }
        let (number, attempt) = free.ok_or_else(|| {
            tracing::error!(rel, "a path has no free node id");
            Errno::IO
        })?;
        let is_full = table.taken.len() >= self.most_taken;
        if is_full || !table.has_room_to_take() {
            table.forget_taken();
        }
        table.taken.insert(in_inode(number), tag);
        table.charge_always();
        Ok((number, attempt))
    }

    /// Returns the number that is forgotten for this one.
    fn insert(&self, table: &mut Table, number: u64, path: Known) -> Option<u64> {
        let has_room = table.has_room_to_know();
        table.known.put(number, path);
        let is_full = table.known.len() > self.most_known || !has_room;
        let forgotten = match is_full {
            true => table.known.pop_lru(),
            false => None,
        };
        table.charge_always();
        forgotten.map(|(number, _)| number)
    }

    /// Returns a number for a path, which is the same in every build.
    fn hash(&self, slot: u64, directory: u16, rel: &str, attempt: u8) -> u64 {
        let hash = match (self.owner, attempt) {
            // Version 0.1.0 began with this one.
            (Owner::Host, 0) => path_hash(directory, rel),
            _ => {
                let mut hasher = SipHasher24::new_with_key(&self.key);
                if self.owner == Owner::Container {
                    hasher.write(&slot.to_le_bytes());
                }
                hasher.write(&[attempt]);
                hasher.write(&directory.to_le_bytes());
                hasher.write(rel.as_bytes());
                hasher.finish()
            }
        };
        hash % self.owner.first()
    }
}

/// Returns a hash of a path that tells paths with one inode number apart. A container that chooses two names with one
/// inode number and one tag gives its own files the same number.
fn tag(directory: u16, rel: &str) -> u32 {
    (path_hash(directory, rel) >> 32) as u32
}

fn path_hash(directory: u16, rel: &str) -> u64 {
    fnv(&[&directory.to_le_bytes(), rel.as_bytes()].concat())
}

/// FNV-1a. The hash must be the same in every build of every version, which the library's is not. It takes no key, so only
/// paths that no container chooses may be numbered by it.
pub(in crate::server) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
