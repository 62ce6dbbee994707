//! Descriptors that stay open between reads.
//!
//! Opening and closing a file of procfs or of a cgroup costs more than reading it. Descriptors are a bounded
//! resource, so only those are kept that were used last. Whoever reads takes the descriptor out and puts it back
//! afterwards: no lock is held meanwhile, and no two threads read by the same one.

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;
use nix::errno::Errno;
use parking_lot::Mutex;

/// Open files, by a name that the caller gives.
#[derive(Debug)]
pub struct Kept {
    files: Mutex<LruCache<String, OwnedFd>>,
    owners: AtomicU64,
}

impl Kept {
    /// Keeps at most this many.
    pub fn new(most: NonZeroUsize) -> Kept {
        Kept {
            files: Mutex::new(LruCache::new(most)),
            owners: AtomicU64::new(0),
        }
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.files.lock().len()
    }

    /// Reads by the kept descriptor of `name`, or by one that `open` opens, which is kept then.
    ///
    /// A descriptor by which nothing can be read is given up: the file behind it may have been removed, and
    /// another one have its name now.
    pub(crate) fn read(
        &self,
        name: String,
        open: impl FnOnce() -> Result<OwnedFd, Errno>,
        read: impl Fn(&OwnedFd) -> Result<Vec<u8>, Errno>,
    ) -> Result<Vec<u8>, Errno> {
        let kept = self.files.lock().pop(&name);
        if let Some(fd) = kept
            && let Ok(text) = read(&fd)
        {
            self.put(name, fd);
            return Ok(text);
        }
        let fd = open()?;
        let text = read(&fd)?;
        self.put(name, fd);
        Ok(text)
    }

    fn put(&self, name: String, fd: OwnedFd) {
        let before = self.files.lock().push(name, fd);
        // Closed without the lock.
        drop(before);
    }
}

/// The part of one cgroup in [`Kept`]. What it has there goes with it.
#[derive(Debug, Default)]
pub struct KeptFiles {
    owner: Option<(Arc<Kept>, u64)>,
}

impl KeptFiles {
    /// Has its files kept from now on.
    pub fn keep_in(&mut self, kept: &Arc<Kept>) {
        let owner = kept.owners.fetch_add(1, Ordering::Relaxed);
        self.owner = Some((Arc::clone(kept), owner));
    }

    /// As [`Kept::read`]; without a place to keep them, files are opened each time.
    pub(crate) fn read(
        &self,
        name: &str,
        open: impl FnOnce() -> Result<OwnedFd, Errno>,
        read: impl Fn(&OwnedFd) -> Result<Vec<u8>, Errno>,
    ) -> Result<Vec<u8>, Errno> {
        match &self.owner {
            Some((kept, owner)) => kept.read(format!("{owner}/{name}"), open, read),
            None => read(&open()?),
        }
    }
}

impl Drop for KeptFiles {
    fn drop(&mut self) {
        let Some((kept, owner)) = self.owner.take() else {
            return;
        };
        let ours = format!("{owner}/");
        let mut files = kept.files.lock();
        let names: Vec<String> = files
            .iter()
            .filter(|(name, _)| name.starts_with(&ours))
            .map(|(name, _)| name.clone())
            .collect();
        let closed: Vec<OwnedFd> = names.iter().filter_map(|name| files.pop(name)).collect();
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

    fn nothing(_: &OwnedFd) -> Result<Vec<u8>, Errno> {
        Ok(Vec::new())
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
            kept.read(name.to_owned(), open, nothing).unwrap();
        }
        assert_eq!((opened.get(), kept.count()), (3, 2));
        kept.read("a".to_owned(), open, nothing).unwrap();
        assert_eq!(opened.get(), 4, "a was the one that was used first");
    }

    #[test]
    fn a_descriptor_of_a_removed_file_is_given_up() {
        let kept = kept(2);
        kept.read("a".to_owned(), null, nothing).unwrap();
        let gone = |_: &OwnedFd| Err(Errno::ENODEV);
        let none = || Err(Errno::ENOENT);
        assert_eq!(kept.read("a".to_owned(), none, gone), Err(Errno::ENOENT));
        assert_eq!(kept.count(), 0);
    }

    #[test]
    fn what_a_cgroup_had_open_goes_with_it() {
        let kept = kept(8);
        let (mut one, mut other) = (KeptFiles::default(), KeptFiles::default());
        one.keep_in(&kept);
        other.keep_in(&kept);
        for files in [&one, &other] {
            files.read("memory.max", null, nothing).unwrap();
        }
        assert_eq!(kept.count(), 2);
        drop(one);
        assert_eq!(kept.count(), 1);
    }
}
