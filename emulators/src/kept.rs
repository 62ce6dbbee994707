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
use crate::remembered::Remembered;

/// Open files.
#[derive(Debug)]
pub struct Kept {
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

impl Kept {
    /// Keeps at most this many.
    pub fn new(most: NonZeroUsize) -> Kept {
        Kept {
            files: Mutex::new(LruCache::new(most)),
            owners: AtomicU64::new(1),
            pool: Arc::default(),
        }
    }

    /// Keeps at most this many from now on.
    pub fn keep_at_most(&self, most: NonZeroUsize) {
        self.files.lock().resize(most);
    }

    /// Opens a file; where there are no descriptors left, those that are kept and that nobody reads by are given up
    /// for it. They are the reserve of a process that has taken in as many containers as it can.
    pub(crate) fn make_room<T>(&self, open: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        loop {
            match open() {
                Err(Errno::EMFILE | Errno::ENFILE) if self.give_up() => {}
                other => return other,
            }
        }
    }

    /// Whether any was closed.
    fn give_up(&self) -> bool {
        let mut files = self.files.lock();
        let idle: Vec<OwnedFd> = files.iter_mut().filter_map(|(_, fd)| fd.take()).collect();
        drop(files);
        // Closed without the lock, when this is dropped.
        !idle.is_empty()
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.files.lock().len()
    }

    /// Reads a file that is nobody's; see [`Kept::read_of`].
    pub(crate) fn read(
        &self,
        path: &str,
        open: impl Fn() -> Result<OwnedFd, Errno>,
        read: Read,
    ) -> Result<Text, Errno> {
        self.read_of((0, 0, path), open, read)
    }

    /// Reads by the kept descriptor of a file, or by one that `open` opens, which is kept then.
    ///
    /// A descriptor by which nothing can be read is given up: the file behind it may have been removed, and
    /// another one have its name now.
    fn read_of(
        &self,
        name: (u64, u32, &str),
        open: impl Fn() -> Result<OwnedFd, Errno>,
        read: Read,
    ) -> Result<Text, Errno> {
        let mut buffer = self.pool.take();
        let kept = {
            let mut files = self.files.lock();
            files.get_mut::<dyn Named>(&name).and_then(Option::take)
        };
        if let Some(fd) = kept {
            if read(&fd, &mut buffer).is_ok() {
                self.put(name, fd);
                return Ok(Text::new(buffer, Some(&self.pool)));
            }
            self.files.lock().pop::<dyn Named>(&name);
        }
        let fd = self.make_room(open)?;
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

/// The part of one cgroup in [`Kept`], and its limits. What it has there goes with it.
#[derive(Debug, Default)]
pub struct KeptFiles {
    owner: Option<(Arc<Kept>, u64)>,
    pub(crate) limits: Remembered,
}

impl KeptFiles {
    /// Has its files kept from now on.
    pub fn keep_in(&mut self, kept: &Arc<Kept>) {
        let owner = kept.owners.fetch_add(1, Ordering::Relaxed);
        self.owner = Some((Arc::clone(kept), owner));
    }

    /// As [`Kept::read_of`]; without a place to keep them, files are opened each time.
    pub(crate) fn read(
        &self,
        level: u32,
        file: &str,
        open: impl Fn() -> Result<OwnedFd, Errno>,
        read: Read,
    ) -> Result<Text, Errno> {
        match &self.owner {
            Some((kept, owner)) => kept.read_of((*owner, level, file), open, read),
            None => {
                let mut buffer = Buffer::default();
                read(&open()?, &mut buffer)?;
                Ok(Text::new(buffer, None))
            }
        }
    }
}

impl Drop for KeptFiles {
    fn drop(&mut self) {
        let Some((kept, owner)) = self.owner.take() else {
            return;
        };
        let mut files = kept.files.lock();
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

    fn kept(most: usize) -> Arc<Kept> {
        Arc::new(Kept::new(NonZeroUsize::new(most).unwrap()))
    }

    fn null() -> Result<OwnedFd, Errno> {
        Ok(File::open("/dev/null").unwrap().into())
    }

    fn nothing(_: &OwnedFd, _: &mut Buffer) -> Result<(), Errno> {
        Ok(())
    }

    #[test]
    fn where_there_are_no_descriptors_those_that_are_kept_are_given_up() {
        let kept = kept(4);
        let file = || Ok(File::open("/dev/null").unwrap().into());
        kept.read("a", file, |_, _| Ok(())).unwrap();
        let tries = Cell::new(0);
        let open = || {
            tries.set(tries.get() + 1);
            match tries.get() {
                1 => Err(Errno::EMFILE),
                _ => file(),
            }
        };
        kept.read("b", open, |_, _| Ok(())).unwrap();
        assert_eq!(tries.get(), 2);
        // There is one left to give up, and then none.
        let failed = kept.read("c", || Err(Errno::ENFILE), |_, _| Ok(()));
        assert_eq!(failed.err(), Some(Errno::ENFILE));
    }

    #[test]
    fn a_file_is_opened_once_and_the_bound_holds() {
        let kept = kept(2);
        let opened = Cell::new(0);
        let open = || {
            opened.set(opened.get() + 1);
            null()
        };
        for name in ["a", "a", "b", "c", "c"] {
            kept.read(name, open, nothing).unwrap();
        }
        assert_eq!((opened.get(), kept.count()), (3, 2));
        kept.read("a", open, nothing).unwrap();
        assert_eq!(opened.get(), 4, "a was the one that was used first");
    }

    #[test]
    fn a_descriptor_of_a_removed_file_is_given_up() {
        let kept = kept(2);
        kept.read("a", null, nothing).unwrap();
        let gone: Read = |_, _| Err(Errno::ENODEV);
        let none = || Err(Errno::ENOENT);
        assert_eq!(kept.read("a", none, gone).err(), Some(Errno::ENOENT));
        assert_eq!(kept.count(), 0);
    }

    #[test]
    fn what_a_cgroup_had_open_goes_with_it() {
        let kept = kept(8);
        let (mut one, mut other) = (KeptFiles::default(), KeptFiles::default());
        one.keep_in(&kept);
        other.keep_in(&kept);
        for files in [&one, &other] {
            files.read(0, "memory.max", null, nothing).unwrap();
        }
        assert_eq!(kept.count(), 2);
        drop(one);
        assert_eq!(kept.count(), 1);
    }
}
