//! The last versions of the views of one container, and what the kernel believes of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use eci_fs_emulators::{EMULATORS, Pace};
use parking_lot::Mutex;

use super::{Attached, SizeChange, Version};

impl Attached {
    /// Returns the last version of the view of `EMULATORS[index]`.
    pub fn version(&self, index: usize) -> Option<Version> {
        self.views[index].if_used()?.version.lock().clone()
    }

    /// Returns the text of the last version if it is no older than `limit`, for an open to serve it.
    pub fn take_measured(&self, index: usize, limit: Duration) -> Option<Arc<[u8]>> {
        self.version(index)
            .filter(|version| version.age() <= limit)
            .map(|version| version.text)
    }

    /// Returns the last version of the view of `EMULATORS[index]` if it is younger than its `limit`, to answer a request.
    pub fn fresh(&self, index: usize, limit: impl Fn(&Version) -> Duration) -> Option<Version> {
        let mut version = self.views[index].if_used()?.version.lock();
        let fresh = version
            .as_mut()
            .filter(|version| version.age() < limit(version))?;
        fresh.set_answered();
        Some(fresh.clone())
    }

    /// Returns the version of the view of `EMULATORS[index]` that was announced last, to answer a READ.
    pub fn announced(&self, index: usize) -> Option<Version> {
        let mut version = self.views[index].if_used()?.version.lock();
        let announced = version.as_mut()?;
        announced.set_answered();
        Some(announced.clone())
    }

    /// Makes `text`, whose computation began at `started`, the version of the view of `EMULATORS[index]`.
    ///
    /// A text that says the same keeps the time of the version before, so that the kernel keeps its pages. A
    /// text that was begun before the present version was is dropped: a view never goes back in time.
    pub fn replace(&self, index: usize, text: &[u8], started: Instant) -> Version {
        self.follow(index, text, started, SizeChange::AtOnce, |_| {})
    }

    /// Makes `text`, whose computation began at `started`, what the view of `EMULATORS[index]` says, and returns the next
    /// version, which need not show it yet: the size changes as `change` says. `save` is called with a version that says
    /// something else than the one before, before anybody is answered from it.
    pub fn follow(
        &self,
        index: usize,
        text: &[u8],
        started: Instant,
        change: SizeChange,
        save: impl FnOnce(&Version),
    ) -> Version {
        let used = self.views[index].used();
        let mut version = used.version.lock();
        // A computation that was begun before a change may not show it.
        let since =
            |changed: &Mutex<Option<Instant>>| changed.lock().is_some_and(|at| started <= at);
        let stale = since(&self.expired) || since(&used.written);
        Version::follow(&mut version, text, started, stale, change, save)
    }

    /// Takes over the version of the view of `EMULATORS[index]` that a server before this one announced last.
    pub fn restore_version(&self, index: usize, text: Arc<[u8]>, size: usize, mtime: SystemTime) {
        let restored = Version::restored(text, size, mtime);
        *self.views[index].used().version.lock() = Some(restored);
    }

    /// Returns whether the view of `EMULATORS[index]` only changes when [`Self::expire`] is called, or a CPU of the host
    /// comes or goes.
    pub fn rests(&self, index: usize) -> bool {
        EMULATORS[index].facts().pace == Pace::Static && self.is_watched()
    }

    /// Has the version of the view of `EMULATORS[index]` believed no more.
    pub fn outdate(&self, index: usize) {
        if let Some(used) = self.views[index].if_used()
            && let Some(version) = used.version.lock().as_mut()
        {
            version.set_stale();
        }
    }

    /// Notes a write to the view of `EMULATORS[index]`: no version from before it is believed any more.
    pub fn rewritten(&self, index: usize) {
        *self.views[index].used().written.lock() = Some(Instant::now());
        self.outdate(index);
    }

    /// Notes that a tunable is opened to be read from the page cache, and returns whether that holds this version already.
    pub fn open_paged(&self, index: usize, version: Version) -> bool {
        let mut paged = self.views[index].used().paged.lock();
        paged.open += 1;
        let holds = paged.holds == Some(version.mtime);
        paged.opened = Some(version);
        // The kernel drops what the page cache holds when the open is answered.
        if !holds {
            paged.holds = None;
        }
        holds
    }

    /// Returns the text that the page cache gets of a tunable: that of the present version, or of the one that it was
    /// opened with as long as the kernel knows no other size than that of the latter.
    pub fn fill(&self, index: usize, present: Version) -> Arc<[u8]> {
        let knows = self.is_announced(index, present.text.len() as u64);
        let mut paged = self.views[index].used().paged.lock();
        let version = match &paged.opened {
            Some(opened) if !knows => opened.clone(),
            _ => present,
        };
        paged.holds = Some(version.mtime);
        version.text
    }

    /// Notes that a tunable is closed which was opened to be read from the page cache.
    pub fn close_paged(&self, index: usize) {
        let mut paged = self.views[index].used().paged.lock();
        // The file may have been opened at a server before this one.
        paged.open = paged.open.saturating_sub(1);
    }

    /// Returns whether a program can read a tunable from the page cache without asking.
    pub fn is_paged(&self, index: usize) -> bool {
        let used = self.views[index].if_used();
        used.is_some_and(|used| used.paged.lock().open > 0)
    }

    /// Returns whether the kernel believes this size of the view of `EMULATORS[index]`.
    pub fn is_announced(&self, index: usize, size: u64) -> bool {
        self.views[index].used().announced.load(Ordering::Relaxed) == size
    }

    /// Notes that the kernel is told to believe this size of the view of `EMULATORS[index]`.
    pub fn announce(&self, index: usize, size: u64) {
        self.views[index]
            .used()
            .announced
            .store(size, Ordering::Relaxed);
    }

    /// Returns whether the size that the kernel believes of the view of `EMULATORS[index]` is wrong after a write up to
    /// `end` that made it `size`, or left it as it was. If so, the kernel is to ask again.
    pub fn is_resized(&self, index: usize, size: Option<u64>, end: u64) -> bool {
        let announced = &self.views[index].used().announced;
        let believed = announced.load(Ordering::Relaxed);
        let is_resized = end > believed || size.is_some_and(|size| size != believed);
        if is_resized {
            announced.store(0, Ordering::Relaxed);
        }
        is_resized
    }

    /// Has no version believed any more, because a limit has changed.
    pub fn expire(&self) {
        self.forget_limits();
        // The computation of a version may have begun before the change and end after it.
        *self.expired.lock() = Some(Instant::now());
        for index in 0..self.views.len() {
            self.outdate(index);
        }
    }
}
