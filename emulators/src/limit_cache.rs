//! A cache of limits. It reads a limit again only after one was written.
//!
//! Limits change seldom, and inotify reports each write to the server. Until then a view need not read the limits of
//! the cgroup and its ancestors.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::{Error, Text};

/// The cached limits of one hierarchy.
#[derive(Debug, Default)]
pub(crate) struct LimitCache {
    /// True if the server reports each write of a limit. Without that nothing is cached.
    enabled: AtomicBool,
    /// The number of reported writes.
    changes: AtomicU64,
    limits: Mutex<Vec<Limit>>,
}

#[derive(Debug)]
struct Limit {
    level: u32,
    file: &'static str,
    /// The text is `None` if there is no such file.
    text: Option<Box<[u8]>>,
    /// The number of reported writes before the limit was read.
    changes: u64,
}

impl LimitCache {
    /// Caches limits from now on, each until [`LimitCache::invalidate`].
    pub(crate) fn enable(&self) {
        self.enabled.store(true, Ordering::Release);
    }

    /// Reports that a limit was written, or may have been.
    pub(crate) fn invalidate(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns the result of `parse` for a limit. `read` reads the limit if it is not cached.
    pub(crate) fn limit<T>(
        &self,
        level: u32,
        file: &'static str,
        read: impl FnOnce() -> Result<Option<Text>, Error>,
        parse: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, Error> {
        if !self.enabled.load(Ordering::Acquire) {
            return Ok(read()?.map(|text| parse(&text)));
        }
        // What is read from here on is at least as new as this change.
        let changes = self.changes.load(Ordering::Acquire);
        let is_it = |limit: &Limit| limit.level == level && limit.file == file;
        let limits = self.limits.lock();
        if let Some(known) = limits.iter().find(|limit| is_it(limit))
            && known.changes == changes
        {
            return Ok(known.text.as_deref().map(parse));
        }
        drop(limits);
        let text = read()?;
        let mut limits = self.limits.lock();
        match limits.iter_mut().find(|limit| is_it(limit)) {
            // Another thread may have read the limit after a later change.
            Some(known) if known.changes > changes => {}
            Some(known) => {
                known.changes = changes;
                if known.text.as_deref() != text.as_deref() {
                    known.text = text.as_deref().map(Box::from);
                }
            }
            None => limits.push(Limit {
                level,
                file,
                text: text.as_deref().map(Box::from),
                changes,
            }),
        }
        drop(limits);
        Ok(text.map(|text| parse(&text)))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_limit_is_read_again_when_one_was_written_and_not_before() {
        let cache = LimitCache::default();
        let reads = Cell::new(0u8);
        let limit = |file| {
            let read = || {
                reads.set(reads.get() + 1);
                Ok((file == "memory.max").then(|| Text::from(vec![reads.get()])))
            };
            cache.limit(1, file, read, <[u8]>::to_vec).unwrap()
        };
        assert_eq!(limit("memory.max"), Some(vec![1]));
        assert_eq!(limit("memory.max"), Some(vec![2]), "nobody is told");
        cache.enable();
        assert_eq!(limit("memory.max"), Some(vec![3]));
        assert_eq!(limit("memory.max"), Some(vec![3]));
        assert_eq!(limit("memory.swap.max"), None);
        assert_eq!(limit("memory.swap.max"), None);
        assert_eq!(reads.get(), 4);
        cache.invalidate();
        assert_eq!(limit("memory.max"), Some(vec![5]));
    }

    #[test]
    fn what_was_read_before_a_write_is_not_remembered_after_it() {
        let cache = LimitCache::default();
        cache.enable();
        let old = || {
            cache.invalidate();
            Ok(Some(Text::from(b"old".to_vec())))
        };
        let new = || Ok(Some(Text::from(b"new".to_vec())));
        let text = <[u8]>::to_vec;
        assert_eq!(
            cache.limit(0, "cpu.max", old, text),
            Ok(Some(b"old".to_vec()))
        );
        assert_eq!(
            cache.limit(0, "cpu.max", new, text),
            Ok(Some(b"new".to_vec()))
        );
    }
}
