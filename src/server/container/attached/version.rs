//! A version of a view.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// A text, the size that the kernel is told of it, and the time at which it was computed.
#[derive(Debug, Clone)]
pub struct Version {
    /// The text of the view.
    pub text: Arc<[u8]>,
    /// The size in bytes that the kernel is told: that of the text, or more while the size of a cached view changes.
    pub size: usize,
    /// The time at which this text and size were announced first. The kernel drops its pages when that changes.
    pub mtime: SystemTime,
    /// The time at which this server last found the view to say this; none if a server before this one did.
    looked: Option<Instant>,
    /// True if a limit has changed since then.
    stale: bool,
    /// The time at which this server announced this text and size first.
    announced: Instant,
    /// The time of the last answer from this version.
    answered: Instant,
    /// A text that was computed later, and is longer than the size was then.
    next: Option<Arc<[u8]>>,
}

/// The content of the version after another one.
struct Step {
    /// The text.
    text: Arc<[u8]>,
    /// The size in bytes that the kernel is told.
    size: usize,
    /// The text that has to wait for its size.
    next: Option<Arc<[u8]>>,
}

/// The way in which the size of a view may change.
#[derive(Debug, Clone, Copy)]
pub enum SizeChange {
    /// With the text: each open file has a text of its own.
    AtOnce,
    /// Never together with the text while somebody reads, because readers share the kernel's page and size.
    InSteps {
        /// The least time between two steps.
        apart: Duration,
        /// Nobody is in the middle of the view when it was not answered for this long.
        silence: Duration,
    },
}

impl Version {
    /// Returns the version that a server before this one announced last. It is believed no more, but it is what readers
    /// have.
    pub(super) fn restored(text: Arc<[u8]>, size: usize, mtime: SystemTime) -> Self {
        let now = Instant::now();
        Self {
            text,
            size,
            mtime,
            looked: None,
            stale: false,
            announced: now,
            answered: now,
            next: None,
        }
    }

    /// Returns the time since the view was last found to say this; the longest time when a limit has changed since.
    pub fn age(&self) -> Duration {
        match self.looked {
            Some(looked) if !self.stale => looked.elapsed(),
            _ => Duration::MAX,
        }
    }

    /// Returns whether the next version may have another size although the view says the same.
    pub fn is_changing(&self) -> bool {
        self.size != self.text.len()
    }

    /// Has the version believed no more, because a limit has changed.
    pub(super) fn set_stale(&mut self) {
        self.stale = true;
    }

    /// Notes that a request is answered from this version.
    pub(super) fn set_answered(&mut self) {
        self.answered = Instant::now();
    }

    /// Makes `text`, whose computation began at `started`, the version after the present one, and returns it. `save` is
    /// called with a version that says something else than the one before.
    pub(super) fn follow(
        present: &mut Option<Version>,
        text: &[u8],
        started: Instant,
        stale: bool,
        change: SizeChange,
        save: impl FnOnce(&Version),
    ) -> Version {
        if let Some(now) = present.as_mut() {
            let is_later = now.looked.is_some_and(|looked| looked > started) && !now.stale;
            if is_later || now.must_wait(text, change) {
                now.set_answered();
                return now.clone();
            }
            if *now.text == *text && now.size == text.len() {
                (now.looked, now.stale, now.next) = (Some(started), stale, None);
                now.set_answered();
                return now.clone();
            }
        }
        let mtime = SystemTime::now();
        // Two versions in one instant of the clock would look like one to the kernel.
        let mtime = match present.as_ref() {
            Some(before) if before.mtime >= mtime => before.mtime + Duration::from_nanos(1),
            _ => mtime,
        };
        let Step { text, size, next } = match present.take() {
            Some(before) => before.step(text, change),
            None => Step {
                text: text.into(),
                size: text.len(),
                next: None,
            },
        };
        let now = Instant::now();
        let version = present.insert(Version {
            text,
            size,
            mtime,
            looked: Some(started),
            stale,
            announced: now,
            answered: now,
            next,
        });
        save(version);
        version.clone()
    }

    /// Returns whether a version with `text` would change the size sooner after the last step than it may. A changed limit
    /// does not wait.
    fn must_wait(&self, text: &[u8], change: SizeChange) -> bool {
        match change {
            SizeChange::AtOnce => false,
            SizeChange::InSteps { apart, .. } => {
                let changes = self.size != text.len() || self.is_changing();
                changes && !self.stale && self.announced.elapsed() < apart
            }
        }
    }

    /// Returns what follows this version when the view says `text` by now.
    ///
    /// A reader gets the page of one version and the size of this one or the next, and the end of a pass from the next
    /// version. So in steps, the next text is no longer than this size, and this text is no longer than the next size:
    /// then nothing is cut, and what is beyond a text are newlines. A view that grows shows its present text with its next
    /// size first; one that shrinks shows its next text with its present size first.
    fn step(self, text: &[u8], change: SizeChange) -> Step {
        let at_once = match change {
            SizeChange::AtOnce => true,
            // The next open after a changed limit shows it.
            SizeChange::InSteps { silence, .. } => {
                self.answered.elapsed() >= silence || (self.stale && text.len() > self.size)
            }
        };
        let size = match at_once {
            true => text.len(),
            false => text.len().max(self.text.len()),
        };
        if at_once || text.len() <= self.size {
            return Step {
                text: self.reuse(text),
                size,
                next: None,
            };
        }
        // A view that grows at each step shows the text of the step before.
        Step {
            text: self.next.unwrap_or(self.text),
            size,
            next: Some(text.into()),
        }
    }

    /// Returns `text`. It takes the memory of the text before, if that has the same length and no reader uses it.
    fn reuse(self, text: &[u8]) -> Arc<[u8]> {
        let mut before = self.text;
        if before.len() == text.len()
            && let Some(place) = Arc::get_mut(&mut before)
        {
            place.copy_from_slice(text);
            return before;
        }
        text.into()
    }
}

#[cfg(test)]
#[path = "version_tests.rs"]
mod tests;
