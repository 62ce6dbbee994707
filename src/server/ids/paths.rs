//! The numbers of paths below directory grafts, and the paths that numbers stand for.
//!
//! A number is a hash of the path, so two servers compute the same one. If another path has that number already, or one
//! with the same inode number, the next hash of the path counts.
//!
//! The server has one table for the paths of the host, which no container chooses, and one for each container for the
//! names in its network namespace. The hash of these takes a key, so a container cannot predict it, and the slot, so a name
//! in one container changes no number of another.

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use siphasher::sip::SipHasher24;

use super::node::{Owner, in_inode};
use crate::server::budget::{Budget, Charge};
use crate::server::error::Errno;

/// The most names that the table of a container knows. It forgets the name that was not used for the longest time. That is
/// found again by walking.
const MOST_KNOWN: usize = 1 << 12;

/// The most inode numbers that the table of a container keeps for its names, in 9 bytes each. When there are more, those
/// of names that are not known are forgotten.
const MOST_TAKEN: usize = 1 << 18;

/// The names that the table of a container may know even when it can have no more memory.
const LEAST_KNOWN: usize = 64;

/// The inode numbers of names that are not known that it may keep even then.
const LEAST_TAKEN: usize = 1 << 10;

/// The bytes of a known name, with its entries in the tables here and in that of the state.
const KNOWN_BYTES: usize = 256;

/// The bytes of an inode number that is kept, at worst.
const TAKEN_BYTES: usize = 18;

/// The bytes of the tables of all containers together. A container alone gets 8 MiB, which is more than a full table takes.
pub(in crate::server) const BYTES: u64 = 64 << 20;

/// The bytes of its table that each container can have whatever the others have.
pub(in crate::server) const FLOOR: u64 =
    (LEAST_KNOWN * KNOWN_BYTES + (LEAST_KNOWN + LEAST_TAKEN) * TAKEN_BYTES) as u64;

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

#[derive(Debug)]
struct Table {
    known: LruCache<u64, Known>,
    /// The parts of numbers that are in inode numbers, and for each a hash of the path that has it ([`tag`]). More names
    /// are here than known: every name that was listed.
    taken: HashMap<u32, u32>,
    /// The bytes of both; none where nobody else has to share memory with the owner.
    charge: Option<Charge>,
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

impl Table {
    /// Charges the container for another inode number. Returns false if it can have no more.
    fn has_room_to_take(&mut self) -> bool {
        let is_least = self.taken.len() < self.known.len() + LEAST_TAKEN;
        self.resize(self.known.len(), self.taken.len() + 1) || is_least
    }

    /// Charges the container for another known name. Returns false if it can have no more.
    fn has_room_to_know(&mut self) -> bool {
        let is_least = self.known.len() < LEAST_KNOWN;
        self.resize(self.known.len() + 1, self.taken.len()) || is_least
    }

    fn resize(&mut self, known: usize, taken: usize) -> bool {
        let charge = self.charge.as_mut();
        charge.is_none_or(|charge| charge.resize(bytes(known, taken)))
    }

    /// Charges the container for what the table has.
    fn charge_always(&mut self) {
        let bytes = bytes(self.known.len(), self.taken.len());
        if let Some(charge) = &mut self.charge {
            charge.resize_always(bytes);
        }
    }

    /// Forgets the inode numbers of names that are not known.
    fn forget_taken(&mut self) {
        let known = self.known.iter();
        let tags = known.map(|(number, (at, path))| (in_inode(*number), tag(*at, path)));
        self.taken = tags.collect();
    }
}

/// Returns the bytes of a table with so many known names and inode numbers.
fn bytes(known: usize, taken: usize) -> u64 {
    (known * KNOWN_BYTES + taken * TAKEN_BYTES) as u64
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
mod tests {
    use super::*;

    const SECRET: [u8; 32] = [7; 32];

    fn number(paths: &Paths, slot: u64, directory: u16, rel: &str) -> u64 {
        paths.number(slot, directory, rel, |_| ()).unwrap()
    }

    /// Grafts outlive servers: the number of a path is part of what a release promises to the next.
    #[test]
    fn hashes_are_the_same_in_every_build() {
        let host = Paths::of_host();
        assert_eq!(number(&host, 1, 128, "cpu0/topology/core_id"), HOST);
        assert_eq!(number(&host, 2, 128, "cpu0/topology/core_id"), HOST);
        let own = Paths::of_container(&SECRET);
        assert_eq!(number(&own, 1, 137, "eth0"), OWN);
    }

    /// Version 0.1.0 had 0xa17a_d819_b393_8913, of which 39 bits count.
    const HOST: u64 = 0x19_b393_8913;
    const OWN: u64 = 50_536_879_653;

    #[test]
    fn no_more_paths_are_known_than_there_is_room_for() {
        let paths = Paths::of_container(&SECRET);
        for index in 0..=MOST_KNOWN + 1 {
            let name = format!("veth{index}");
            let number = number(&paths, 1, 137, &name);
            assert_eq!(paths.path(number), Some((137, name.as_str().into())));
            assert!(paths.table.lock().known.len() <= MOST_KNOWN);
        }
    }

    /// Lists more names than there is room for, and returns the most that were kept.
    fn list_many(paths: &Paths) -> usize {
        (0..10_000).fold(0, |most, index| {
            paths
                .number_in_listing(1, 137, &format!("d{index}"))
                .unwrap();
            most.max(paths.table.lock().taken.len())
        })
    }

    #[test]
    fn the_tables_of_all_containers_together_are_bounded_and_each_has_its_least() {
        let budget = Budget::new(1 << 20, FLOOR);
        let tables: Vec<Paths> = (0..20)
            .map(|_| {
                let paths = Paths::of_container(&SECRET);
                paths.charge_to(&budget);
                paths
            })
            .collect();
        let least = LEAST_KNOWN + LEAST_TAKEN;
        for (before, paths) in tables.iter().enumerate() {
            for index in 0..1000 {
                number(paths, 1, 137, &format!("veth{index}"));
            }
            let known = paths.table.lock().known.len();
            assert!((LEAST_KNOWN..1000).contains(&known), "{known}");
            let most = list_many(paths);
            assert!(most >= LEAST_TAKEN, "{most}");
            let one = bytes(known + 1, most + 1);
            assert!(one <= (1 << 20) / 8 + bytes(1, least), "{before}: {one}");
        }
        assert!(budget.taken() <= (1 << 20) + 20 * 2 * FLOOR);
        drop(tables);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn a_container_alone_has_all_names_that_a_table_can_have() {
        let budget = Budget::new(BYTES, FLOOR);
        let full = bytes(MOST_KNOWN + 1, MOST_TAKEN + 1);
        assert!(budget.take(&Arc::default(), full).is_some());
    }

    #[test]
    fn a_path_has_one_node_and_two_paths_have_two() {
        let paths = Paths::of_container(&SECRET);
        let a = number(&paths, 1, 128, "cpu0");
        assert_eq!(number(&paths, 1, 128, "cpu0"), a);
        assert_ne!(number(&paths, 1, 128, "cpu1"), a);
        assert_ne!(number(&paths, 1, 129, "cpu0"), a);
        assert_ne!(number(&paths, 2, 128, "cpu0"), a);
    }

    #[test]
    fn a_path_whose_number_is_taken_gets_another_one_and_is_learned_once() {
        let (paths, other) = (Paths::of_host(), Paths::of_host());
        let taken = number(&other, 1, 128, "cpu0");
        paths.restore(taken, 128, "cpu1");
        let learned = std::cell::Cell::new(None);
        let number = paths.number(1, 128, "cpu0", |one| learned.set(Some(one.number)));
        let number = number.unwrap();
        assert_ne!(number, taken);
        assert_eq!(learned.take(), Some(number));
        assert_eq!(
            paths.number(1, 128, "cpu0", |one| learned.set(Some(one.number))),
            Ok(number)
        );
        assert_eq!(learned.take(), None);
    }

    #[test]
    fn a_path_that_has_no_free_number_is_an_error() {
        let paths = Paths::of_host();
        for attempt in 0..TRIES {
            let taken = paths.hash(1, 128, "cpu0", attempt);
            paths.restore(taken, 128, "other");
        }
        assert_eq!(paths.number(1, 128, "cpu0", |_| ()), Err(Errno::IO));
    }

    #[test]
    fn a_name_that_is_forgotten_is_told() {
        let paths = Paths::of_container(&SECRET);
        let first = number(&paths, 1, 137, "veth0");
        let mut forgotten = None;
        for index in 1..=MOST_KNOWN {
            let name = format!("veth{index}");
            let learned = |learned: Learned| forgotten = learned.forgotten;
            paths.number(1, 137, &name, learned).unwrap();
        }
        assert_eq!(forgotten, Some(first));
        assert_eq!(paths.path(first), None);
    }

    #[test]
    fn a_listing_learns_nothing_and_has_the_numbers_of_later() {
        let paths = Paths::of_container(&SECRET);
        let listed = || paths.number_in_listing(1, 137, "eth0").unwrap().unwrap();
        let first = listed();
        assert_eq!(paths.path(first), None);
        assert_eq!(number(&paths, 1, 137, "eth0"), first);
        assert_eq!(listed(), first);
    }

    /// As many names as some 10,000 devices have. Of 200,000 numbers of 30 bits some are the same by chance.
    #[test]
    fn all_names_have_different_inode_numbers_also_those_that_are_only_listed_or_forgotten() {
        let paths = Paths::of_container(&SECRET);
        let names: Vec<String> = (0..200_000).map(|index| format!("d{index}")).collect();
        let list = |paths: &Paths, name: &str| {
            let listed = paths.number_in_listing(1, 137, name).unwrap();
            listed.unwrap_or_else(|| number(paths, 1, 137, name))
        };
        let listed: Vec<u64> = names.iter().map(|name| list(&paths, name)).collect();
        let first = |name: &String| in_inode(paths.hash(1, 137, name, 0));
        let hashes: std::collections::HashSet<u32> = names.iter().map(first).collect();
        assert!(hashes.len() < names.len(), "some hashes are the same");
        let inodes = listed.iter().map(|number| in_inode(*number));
        let inodes: std::collections::HashSet<u32> = inodes.collect();
        assert_eq!(inodes.len(), names.len());
        // In another order, which forgets nearly all of them.
        for (name, listed) in names.iter().zip(&listed).rev() {
            assert_eq!(number(&paths, 1, 137, name), *listed);
        }
        // Another server learns first which paths have other numbers than their first hash.
        let next = Paths::of_container(&SECRET);
        for (name, number) in names.iter().zip(&listed) {
            if *number != paths.hash(1, 137, name, 0) {
                next.restore(*number, 137, name);
            }
        }
        for (name, listed) in names.iter().zip(&listed).rev() {
            assert_eq!(list(&next, name), *listed);
        }
    }

    #[test]
    fn paths_of_the_host_have_different_inode_numbers_too() {
        let (one, other) = ("d8ea5f53", "84403a76");
        let (paths, next) = (Paths::of_host(), Paths::of_host());
        let hash = |rel| paths.hash(1, 128, rel, 0);
        assert_ne!(hash(one), hash(other));
        assert_eq!(in_inode(hash(one)), in_inode(hash(other)));
        let first = number(&paths, 1, 128, one);
        assert_eq!(first, hash(one));
        let second = number(&paths, 2, 128, other);
        assert_ne!(in_inode(second), in_inode(first));
        // Whatever the next server is asked for first.
        next.restore(second, 128, other);
        assert_eq!(number(&next, 1, 128, other), second);
        assert_eq!(number(&next, 1, 128, one), first);
    }

    /// Version 0.1.0 can have given out two numbers with one inode number. Node ids must stay.
    #[test]
    fn paths_keep_their_numbers_in_an_upgrade() {
        let paths = Paths::of_host();
        let numbers = ["d8ea5f53", "84403a76"].map(|rel| (rel, paths.hash(1, 128, rel, 0)));
        for (rel, number) in numbers {
            paths.restore(number, 128, rel);
        }
        for (rel, before) in numbers {
            assert_eq!(number(&paths, 1, 128, rel), before);
        }
    }

    #[test]
    fn the_inode_numbers_that_are_kept_are_bounded() {
        let paths = Paths::new(Owner::Container, [7; 16], 2, 8);
        for index in 0..100 {
            let name = format!("veth{index}");
            let number = number(&paths, 1, 137, &name);
            let table = paths.table.lock();
            assert!(table.taken.len() <= 8 && table.taken.contains_key(&in_inode(number)));
        }
    }

    /// The numbers of two containers have nothing to do with each other: two names that collide in one of them collide in
    /// the other by chance alone. Here 32 bits of the numbers count, so that some collide.
    #[test]
    fn colliding_names_of_one_container_do_not_collide_in_another() {
        let (here, there) = (Paths::of_container(&SECRET), Paths::of_container(&[8; 32]));
        let low = |hash: u64| hash as u32;
        let mut seen = std::collections::HashMap::new();
        let mut pairs = Vec::new();
        for index in 0..200_000 {
            let name = format!("d{index}");
            let hash = low(here.hash(1, 137, &name, 0));
            if let Some(before) = seen.insert(hash, name.clone()) {
                pairs.push((before, name));
            }
        }
        assert!(!pairs.is_empty(), "among 200,000 names some collide");
        for (one, other) in pairs {
            assert_ne!(
                low(here.hash(2, 137, &one, 0)),
                low(here.hash(2, 137, &other, 0))
            );
            assert_ne!(
                low(there.hash(1, 137, &one, 0)),
                low(there.hash(1, 137, &other, 0))
            );
        }
    }
}
