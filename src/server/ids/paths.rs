//! The numbers of paths below directory grafts, and the paths that numbers stand for.
//!
//! A number is a hash of the path, so two servers compute the same one. If another path has that number already, the next
//! hash of the path counts.
//!
//! The server has one table for the paths of the host, which no container chooses, and one for each container for the
//! names in its network namespace. The hash of these takes a key, so a container cannot predict it, and the slot, so a name
//! in one container changes no number of another.

use std::hash::Hasher;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use siphasher::sip::SipHasher24;

use super::node::Owner;
use crate::server::error::Errno;

/// The most names that the table of a container knows. It forgets the name that was not used for the longest time. That is
/// found again by walking.
const MOST_KNOWN: usize = 1 << 12;

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
    most: usize,
    known: Mutex<LruCache<u64, Known>>,
}

impl Paths {
    /// Returns an empty table for the paths of the host. The host bounds their number, so all of them are kept.
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
        let mut known = self.known.lock();
        let number = self.find(&mut known, slot, directory, rel)?;
        if known.contains(&number) {
            return Ok(number);
        }
        let forgotten = self.insert(&mut known, number, (directory, rel.into()));
        drop(known);
        learned(Learned { number, forgotten });
        Ok(number)
    }

    /// Returns the number that a path has or would get, and learns nothing.
    ///
    /// # Errors
    /// As [`Self::number`].
    pub(in crate::server) fn number_in_listing(
        &self,
        slot: u64,
        directory: u16,
        rel: &str,
    ) -> Result<u64, Errno> {
        self.find(&mut self.known.lock(), slot, directory, rel)
    }

    /// Returns the path with a number, if it is known.
    pub(in crate::server) fn path(&self, number: u64) -> Option<Known> {
        self.known.lock().get(&number).cloned()
    }

    /// Takes in a path that a server before this one has numbered.
    pub(in crate::server) fn restore(&self, number: u64, directory: u16, rel: &str) {
        self.insert(&mut self.known.lock(), number, (directory, rel.into()));
    }

    /// Returns the first hash of a path that is its number, or nobody's.
    fn find(
        &self,
        known: &mut LruCache<u64, Known>,
        slot: u64,
        directory: u16,
        rel: &str,
    ) -> Result<u64, Errno> {
        let mut hashes = (0..TRIES).map(|attempt| self.hash(slot, directory, rel, attempt));
        let is_free = |number: &u64| {
            let path = known.get(number);
            path.is_none_or(|(at, path)| *at == directory && &**path == rel)
        };
        hashes.find(is_free).ok_or_else(|| {
            tracing::error!(rel, "a path has no free node id");
            Errno::IO
        })
    }

    /// Returns the number that is forgotten for this one.
    fn insert(&self, known: &mut LruCache<u64, Known>, number: u64, path: Known) -> Option<u64> {
        known.put(number, path);
        let is_full = known.len() > self.most;
        let forgotten = if is_full { known.pop_lru() } else { None };
        forgotten.map(|(number, _)| number)
    }

    /// Returns a number for a path, which is the same in every build.
    fn hash(&self, slot: u64, directory: u16, rel: &str, attempt: u8) -> u64 {
        let directory = directory.to_le_bytes();
        let hash = match (self.owner, attempt) {
            // Version 0.1.0 began with this one.
            (Owner::Host, 0) => fnv(&[&directory, rel.as_bytes()].concat()),
            _ => {
                let mut hasher = SipHasher24::new_with_key(&self.key);
                if self.owner == Owner::Container {
                    hasher.write(&slot.to_le_bytes());
                }
                hasher.write(&[attempt]);
                hasher.write(&directory);
                hasher.write(rel.as_bytes());
                hasher.finish()
            }
        };
        hash % self.owner.first()
    }
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
        let listed = paths.number_in_listing(1, 137, "eth0").unwrap();
        assert_eq!(paths.path(listed), None);
        assert_eq!(number(&paths, 1, 137, "eth0"), listed);
        assert_eq!(paths.number_in_listing(1, 137, "eth0"), Ok(listed));
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
