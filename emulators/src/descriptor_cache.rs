//! A cache of open descriptors.
//!
//! To open and close a file of procfs or of a cgroup costs more than to read it. Descriptors are a bounded resource,
//! so the cache holds those that were used last. A reader takes the descriptor out and puts it back afterwards. So no
//! lock is held during a read, and no two threads read from the same descriptor.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;
use parking_lot::Mutex;
use rustix::io::Errno;

use crate::Text;
use crate::buffer::{Buffer, Pool};
use crate::limit_cache::LimitCache;
use crate::stall_cache::StallCache;

/// The cache.
#[derive(Debug)]
pub struct DescriptorCache {
    /// The value is `None` while a thread reads from the descriptor.
    files: Mutex<LruCache<Name, Option<OwnedFd>>>,
    owners: AtomicU64,
    pool: Arc<Pool>,
}

/// The key of a descriptor: the owner of the file, the number of directories above the owner's, and the name.
#[derive(Debug)]
struct Name {
    owner: u64,
    level: u32,
    file: Box<str>,
}

/// A key that is borrowed or owned, so a lookup does not allocate.
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

/// A function that reads a whole file.
type Read = fn(&OwnedFd, &mut Buffer) -> Result<(), Errno>;

impl DescriptorCache {
    /// Returns a cache for at most `most` descriptors.
    pub fn new(most: NonZeroUsize) -> DescriptorCache {
        DescriptorCache {
            files: Mutex::new(LruCache::new(most)),
            owners: AtomicU64::new(1),
            pool: Arc::default(),
        }
    }

    /// Sets the capacity.
    pub fn set_capacity(&self, most: NonZeroUsize) {
        self.files.lock().resize(most);
    }

    /// Calls `open`. If the process has no descriptor left, the cache closes its idle descriptors and calls `open`
    /// again. They are the reserve of a process that serves as many containers as it can.
    pub(crate) fn with_room<T>(&self, open: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        loop {
            match open() {
                Err(Errno::MFILE | Errno::NFILE) if self.close_idle() => {}
                other => return other,
            }
        }
    }

    /// Closes the descriptors that no thread reads from. Returns whether there were any.
    fn close_idle(&self) -> bool {
        let mut files = self.files.lock();
        let idle: Vec<OwnedFd> = files.iter_mut().filter_map(|(_, fd)| fd.take()).collect();
        drop(files);
        // The descriptors are closed when this is dropped, without the lock.
        !idle.is_empty()
    }

    /// Returns the number of files in the cache.
    pub fn open_count(&self) -> usize {
        self.files.lock().len()
    }

    /// Reads a file of the host. See [`DescriptorCache::read_owned`].
    pub(crate) fn read(
        &self,
        path: &str,
        open: impl Fn() -> Result<OwnedFd, Errno>,
        read: Read,
    ) -> Result<Text, Errno> {
        self.read_owned((0, 0, path), open, read)
    }

    /// Reads a file with its cached descriptor. If there is none, `open` opens the file, and the cache keeps the
    /// descriptor.
    ///
    /// A descriptor that cannot be read is closed, and the file is opened again: it may have been removed, and
    /// another file may have its name.
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
        // The descriptor is closed without the lock.
        drop(before);
    }
}

/// The cache of one hierarchy of a container: its descriptors in a [`DescriptorCache`], its limits, and how long its
/// threads waited for CPUs. Its descriptors leave the cache when it is dropped.
#[derive(Debug, Default)]
pub struct HierarchyCache {
    owner: Option<(Arc<DescriptorCache>, u64)>,
    pub(crate) limits: LimitCache,
    pub(crate) cpu_stall: StallCache,
}

impl HierarchyCache {
    /// Keeps the descriptors of the hierarchy in `cache` from now on.
    pub fn cache_descriptors_in(&mut self, cache: &Arc<DescriptorCache>) {
        let owner = cache.owners.fetch_add(1, Ordering::Relaxed);
        self.owner = Some((Arc::clone(cache), owner));
    }

    /// Reads a file as [`DescriptorCache::read_owned`] does. Without a cache the file is opened each time.
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
                1 => Err(Errno::MFILE),
                _ => file(),
            }
        };
        cache.read("b", open, |_, _| Ok(())).unwrap();
        assert_eq!(tries.get(), 2);
        // One idle descriptor is left, then none.
        let failed = cache.read("c", || Err(Errno::NFILE), |_, _| Ok(()));
        assert_eq!(failed.err(), Some(Errno::NFILE));
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
        let gone: Read = |_, _| Err(Errno::NODEV);
        let none = || Err(Errno::NOENT);
        assert_eq!(cache.read("a", none, gone).err(), Some(Errno::NOENT));
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
