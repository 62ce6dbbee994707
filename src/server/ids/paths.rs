//! The numbers of paths below directory grafts, and the paths that numbers stand for.
//!
//! A number is a keyed hash of the path, so two servers compute the same one and a container cannot predict it. A number
//! that another path has already is passed over, and the next hash of the path is taken.
//!
//! The server has one table for the paths of the host, which no container chooses, and one for each container for the
//! names in its network namespace. So a name that one container chooses changes no number of another.

use std::hash::Hasher;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use siphasher::sip::SipHasher24;

use super::node::{NUMBER_BITS, Owner};
use crate::server::error::Errno;

/// The most paths that a table knows. The one that was not used for the longest time is forgotten, and found again by
/// walking.
const MOST_KNOWN: usize = 1 << 12;

/// The most hashes of a path that are tried. With a full table the next one is taken once in 260,000 times.
const TRIES: u8 = 8;

/// A path below a directory graft: the id of the directory's emulator, and the path below it.
pub(in crate::server) type Known = (u16, Arc<str>);

/// The paths of one owner, by number.
#[derive(Debug)]
pub(in crate::server) struct Paths {
    owner: Owner,
    key: [u8; 16],
    most: usize,
    known: Mutex<LruCache<u32, Known>>,
}

impl Paths {
    /// Returns an empty table for the paths of the host. Their number is the host's, so all of them are kept.
    pub(in crate::server) fn of_host() -> Self {
        Self::new(Owner::Host, [0; 16], usize::MAX)
    }

    /// Returns an empty table for the names that one container chooses. `secret` must be unknown to containers, and the
    /// same for every server that serves the container.
    pub(in crate::server) fn of_container(secret: &[u8; 32]) -> Self {
        let (key, _) = secret.split_at(16);
        Self::new(
            Owner::Container,
            key.try_into().unwrap_or_default(),
            MOST_KNOWN,
        )
    }

    fn new(owner: Owner, key: [u8; 16], most: usize) -> Self {
        Self {
            owner,
            key,
            most,
            known: Mutex::new(LruCache::unbounded()),
        }
    }

    /// Returns whose paths these are.
    pub(in crate::server) fn owner(&self) -> Owner {
        self.owner
    }

    /// Returns the number of a path of the container in `slot`. `learned` is called with it when the table did not know
    /// the path.
    ///
    /// # Errors
    /// EIO when each hash of the path is the number of another one.
    pub(in crate::server) fn number(
        &self,
        slot: u64,
        directory: u16,
        rel: &str,
        learned: impl FnOnce(u32),
    ) -> Result<u32, Errno> {
        let mut known = self.known.lock();
        for attempt in 0..TRIES {
            let number = self.hash(slot, directory, rel, attempt);
            match known.get(&number) {
                Some((at, path)) if *at == directory && &**path == rel => return Ok(number),
                Some(_) => {}
                None => {
                    self.insert(&mut known, number, (directory, rel.into()));
                    drop(known);
                    learned(number);
                    return Ok(number);
                }
            }
        }
        tracing::error!(rel, "a path has no free node id");
        Err(Errno::IO)
    }

    /// Returns the path with a number, if it is known.
    pub(in crate::server) fn path(&self, number: u32) -> Option<Known> {
        self.known.lock().get(&number).cloned()
    }

    /// Takes in a path that a server before this one has numbered.
    pub(in crate::server) fn restore(&self, number: u32, directory: u16, rel: &str) {
        if number < 1 << NUMBER_BITS {
            self.insert(&mut self.known.lock(), number, (directory, rel.into()));
        }
    }

    fn insert(&self, known: &mut LruCache<u32, Known>, number: u32, path: Known) {
        known.put(number, path);
        if known.len() > self.most {
            known.pop_lru();
        }
    }

    /// Returns a number for a path, which is the same in every build.
    fn hash(&self, slot: u64, directory: u16, rel: &str, attempt: u8) -> u32 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        if self.owner == Owner::Container {
            hasher.write(&slot.to_le_bytes());
        }
        hasher.write(&[attempt]);
        hasher.write(&directory.to_le_bytes());
        hasher.write(rel.as_bytes());
        (hasher.finish() as u32) & ((1 << NUMBER_BITS) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 32] = [7; 32];

    fn number(paths: &Paths, slot: u64, directory: u16, rel: &str) -> u32 {
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

    const HOST: u32 = 829_613_189;
    const OWN: u32 = 71_013_925;

    #[test]
    fn no_more_paths_are_known_than_there_is_room_for() {
        let paths = Paths::of_container(&SECRET);
        for index in 0..=MOST_KNOWN + 1 {
            let name = format!("veth{index}");
            let number = number(&paths, 1, 137, &name);
            assert_eq!(paths.path(number), Some((137, name.as_str().into())));
            assert!(paths.known.lock().len() <= MOST_KNOWN);
        }
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
        let number = paths.number(1, 128, "cpu0", |number| learned.set(Some(number)));
        let number = number.unwrap();
        assert_ne!(number, taken);
        assert_eq!(learned.take(), Some(number));
        assert_eq!(
            paths.number(1, 128, "cpu0", |number| learned.set(Some(number))),
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
    fn what_is_no_number_is_not_restored() {
        let paths = Paths::of_host();
        paths.restore(1 << NUMBER_BITS, 128, "cpu0");
        assert_eq!(paths.path(1 << NUMBER_BITS), None);
    }

    /// The numbers of two containers have nothing to do with each other, so a name that collides in one of them, found
    /// there by whatever work, collides in the other by chance alone. The key makes that work a search among 2^30.
    #[test]
    fn colliding_names_of_one_container_do_not_collide_in_another() {
        let (here, there) = (Paths::of_container(&SECRET), Paths::of_container(&[8; 32]));
        let mut seen = std::collections::HashMap::new();
        let mut pairs = Vec::new();
        for index in 0..200_000 {
            let name = format!("d{index}");
            let hash = here.hash(1, 137, &name, 0);
            if let Some(before) = seen.insert(hash, name.clone()) {
                pairs.push((before, name));
            }
        }
        assert!(!pairs.is_empty(), "among 200,000 names some collide");
        for (one, other) in pairs {
            assert_ne!(here.hash(2, 137, &one, 0), here.hash(2, 137, &other, 0));
            assert_ne!(there.hash(1, 137, &one, 0), there.hash(1, 137, &other, 0));
        }
    }
}
