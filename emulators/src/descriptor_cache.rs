//! Descriptors that stay open between reads.
//!
//! Opening and closing a file of procfs or of a cgroup costs more than reading it. Descriptors are a bounded
//! resource, so only those are kept that were used last. Whoever reads takes the descriptor out and puts it back
//! afterwards: no lock is held meanwhile, and no two threads read by the same one.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;
use nix::errno::Errno;
use parking_lot::Mutex;

use crate::Text;
use crate::buffer::{Buffer, Pool};
use crate::limit_cache::LimitCache;

/// Open files.
#[derive(Debug)]
pub struct DescriptorCache {
    /// None while somebody reads by it.
    files: Mutex<LruCache<Name, Option<OwnedFd>>>,
    owners: AtomicU64,
    pool: Arc<Pool>,
}

/// Whose file it is, of which level above the owner's directory, and its name.
#[derive(Debug)]
struct Name {
    owner: u64,
    level: u32,
    file: Box<str>,
}

/// A name in whatever form: what is looked up is not allocated for it.
trait Named {
    fn parts(&self) -> (u64, u32, &str);
}

impl Named for Name {
    fn parts(&self) -> (u64, u32, &str) {
        (self.owner, self.level, &self.file)
    }
}

impl Named for (u64, u32, &str) {
    fn parts(&self) -> (u64, u32, &str) {
        *self
    }
}

impl Hash for dyn Named + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialEq for dyn Named + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn Named + '_ {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Name {}

impl<'a> Borrow<dyn Named + 'a> for Name {
    fn borrow(&self) -> &(dyn Named + 'a) {
        self
    }
}

/// How a whole file is read.
type Read = fn(&OwnedFd, &mut Buffer) -> Result<(), Errno>;

impl DescriptorCache {
    /// Keeps at most this many.
    pub fn new(most: NonZeroUsize) -> DescriptorCache {
        DescriptorCache {
            files: Mutex::new(LruCache::new(most)),
            owners: AtomicU64::new(1),
            pool: Arc::default(),
        }
    }

    /// Keeps at most this many from now on.
    pub fn set_capacity(&self, most: NonZeroUsize) {
        self.files.lock().resize(most);
    }

    /// Opens a file; where there are no descriptors left, those that are kept and that nobody reads by are given up
    /// for it. They are the reserve of a process that has taken in as many containers as it can.
    pub(crate) fn with_room<T>(&self, open: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        loop {
            match open() {
                Err(Errno::EMFILE | Errno::ENFILE) if self.close_idle() => {}
                other => return other,
            }
        }
    }

    /// Whether any was closed.
    fn close_idle(&self) -> bool {
        let mut files = self.files.lock();
        let idle: Vec<OwnedFd> = files.iter_mut().filter_map(|(_, fd)| fd.take()).collect();
        drop(files);
        // Closed without the lock, when this is dropped.
        !idle.is_empty()
    }

    /// How many are open.
    pub fn open_count(&self) -> usize {
        self.files.lock().len()
    }

    /// Reads a file that is nobody's; see [`DescriptorCache::read_owned`].
    pub(crate) fn read(
        &self,
        path: &str,
        open: impl Fn() -> Result<OwnedFd, Errno>,
        read: Read,
    ) -> Result<Text, Errno> {
        self.read_owned((0, 0, path), open, read)
    }

    /// Reads by the kept descriptor of a file, or by one that `open` opens, which is kept then.
    ///
    /// A descriptor by which nothing can be read is given up: the file behind it may have been removed, and
    /// another one have its name now.
    fn read_owned(
        &self,
        name: (u64, u32, &str),
        open: impl Fn() -> Result<OwnedFd, Errno>,
        read: Read,
    ) -> Result<Text, Errno> {
        let mut buffer = self.pool.take();
        let cached = {
            let mut files = self.files.lock();
            files.get_mut::<dyn Named>(&name).and_then(Option::take)
        };
        if let Some(fd) = cached {
            if read(&fd, &mut buffer).is_ok() {
                self.put(name, fd);
                return Ok(Text::new(buffer, Some(&self.pool)));
            }
            self.files.lock().pop::<dyn Named>(&name);
        }
        let fd = self.with_room(open)?;
        read(&fd, &mut buffer)?;
        self.put(name, fd);
        Ok(Text::new(buffer, Some(&self.pool)))
    }

    fn put(&self, name: (u64, u32, &str), fd: OwnedFd) {
        let mut files = self.files.lock();
        let before = match files.get_mut::<dyn Named>(&name) {
            Some(place) => place.replace(fd),
            None => {
                let (owner, level, file) = name;
                let file = file.into();
                let name = Name { owner, level, file };
                files.push(name, Some(fd)).and_then(|(_, before)| before)
            }
        };
        drop(files);
        // Closed without the lock.
        drop(before);
    }
}

/// The part of one cgroup in [`DescriptorCache`], and its limits. What it has there goes with it.
#[derive(Debug, Default)]
pub struct HierarchyCache {
    owner: Option<(Arc<DescriptorCache>, u64)>,
    pub(crate) limits: LimitCache,
}

impl HierarchyCache {
    /// Has its files kept from now on.
    pub fn cache_descriptors_in(&mut self, cache: &Arc<DescriptorCache>) {
        let owner = cache.owners.fetch_add(1, Ordering::Relaxed);
        self.owner = Some((Arc::clone(cache), owner));
    }

    /// As [`DescriptorCache::read_owned`]; without a place to keep them, files are opened each time.
    pub(crate) fn read(
        &self,
        level: u32,
        file: &str,
        open: impl Fn() -> Result<OwnedFd, Errno>,
        read: Read,
    ) -> Result<Text, Errno> {
        match &self.owner {
            Some((cache, owner)) => cache.read_owned((*owner, level, file), open, read),
            None => {
                let mut buffer = Buffer::default();
                read(&open()?, &mut buffer)?;
                Ok(Text::new(buffer, None))
            }
        }
    }
}

impl Drop for HierarchyCache {
    fn drop(&mut self) {
        let Some((cache, owner)) = self.owner.take() else {
            return;
        };
        let mut files = cache.files.lock();
        let names: Vec<(u32, Box<str>)> = files
            .iter()
            .filter(|(name, _)| name.owner == owner)
            .map(|(name, _)| (name.level, name.file.clone()))
            .collect();
        let closed: Vec<_> = names
            .iter()
            .filter_map(|(level, file)| files.pop::<dyn Named>(&(owner, *level, &**file)))
            .collect();
        drop(files);
        drop(closed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs::File;

    use super::*;

    fn cache(most: usize) -> Arc<DescriptorCache> {
        Arc::new(DescriptorCache::new(NonZeroUsize::new(most).unwrap()))
    }

    fn null() -> Result<OwnedFd, Errno> {
        Ok(File::open("/dev/null").unwrap().into())
    }

    fn nothing(_: &OwnedFd, _: &mut Buffer) -> Result<(), Errno> {
        Ok(())
    }

    #[test]
    fn where_there_are_no_descriptors_those_that_are_kept_are_given_up() {
        let cache = cache(4);
        let file = || Ok(File::open("/dev/null").unwrap().into());
        cache.read("a", file, |_, _| Ok(())).unwrap();
        let tries = Cell::new(0);
        let open = || {
            tries.set(tries.get() + 1);
            match tries.get() {
                1 => Err(Errno::EMFILE),
                _ => file(),
            }
        };
        cache.read("b", open, |_, _| Ok(())).unwrap();
        assert_eq!(tries.get(), 2);
        // There is one left to give up, and then none.
        let failed = cache.read("c", || Err(Errno::ENFILE), |_, _| Ok(()));
        assert_eq!(failed.err(), Some(Errno::ENFILE));
    }

    #[test]
    fn a_file_is_opened_once_and_the_bound_holds() {
        let cache = cache(2);
        let opened = Cell::new(0);
        let open = || {
            opened.set(opened.get() + 1);
            null()
        };
        for name in ["a", "a", "b", "c", "c"] {
            cache.read(name, open, nothing).unwrap();
        }
        assert_eq!((opened.get(), cache.open_count()), (3, 2));
        cache.read("a", open, nothing).unwrap();
        assert_eq!(opened.get(), 4, "a was the one that was used first");
    }

    #[test]
    fn a_descriptor_of_a_removed_file_is_given_up() {
        let cache = cache(2);
        cache.read("a", null, nothing).unwrap();
        let gone: Read = |_, _| Err(Errno::ENODEV);
        let none = || Err(Errno::ENOENT);
        assert_eq!(cache.read("a", none, gone).err(), Some(Errno::ENOENT));
        assert_eq!(cache.open_count(), 0);
    }

    #[test]
    fn what_a_cgroup_had_open_goes_with_it() {
        let cache = cache(8);
        let (mut one, mut other) = (HierarchyCache::default(), HierarchyCache::default());
        one.cache_descriptors_in(&cache);
        other.cache_descriptors_in(&cache);
        for files in [&one, &other] {
            files.read(0, "memory.max", null, nothing).unwrap();
        }
        assert_eq!(cache.open_count(), 2);
        drop(one);
        assert_eq!(cache.open_count(), 1);
    }
}
