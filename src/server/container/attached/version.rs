//! A version of a view.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// A text and the time at which it was computed.
#[derive(Debug, Clone)]
pub struct Version {
    /// The text of the view, padded.
    pub text: Arc<[u8]>,
    /// The time at which this text was computed first. The kernel drops its pages when that changes.
    pub mtime: SystemTime,
    /// The time at which the view was last found to say this.
    looked: Instant,
    /// True if a limit has changed since then.
    stale: bool,
}

impl Version {
    /// Returns the time since the view was last found to say this; the longest time when a limit has changed since.
    pub fn age(&self) -> Duration {
        if self.stale {
            Duration::MAX
        } else {
            self.looked.elapsed()
        }
    }

    /// Has the version believed no more, because a limit has changed.
    pub(super) fn set_stale(&mut self) {
        self.stale = true;
    }

    /// Makes `text`, whose computation began at `started`, the version after the present one, and returns it.
    pub(super) fn follow(
        present: &mut Option<Version>,
        text: &[u8],
        started: Instant,
        stale: bool,
    ) -> Version {
        match present.as_mut() {
            Some(now) if now.looked > started && !now.stale => now.clone(),
            Some(now) if *now.text == *text => {
                now.looked = started;
                now.stale = stale;
                now.clone()
            }
            _ => {
                let mtime = SystemTime::now();
                // Two versions in one instant of the clock would look like one to the kernel.
                let mtime = match present.as_ref() {
                    Some(before) if before.mtime >= mtime => before.mtime + Duration::from_nanos(1),
                    _ => mtime,
                };
                // The size seldom changes, and seldom does a reader still have the old text: then its memory is used
                // again.
                let text = match present.take().map(|before| before.text) {
                    Some(mut before) if before.len() == text.len() => {
                        match Arc::get_mut(&mut before) {
                            Some(place) => {
                                place.copy_from_slice(text);
                                before
                            }
                            None => text.into(),
                        }
                    }
                    _ => text.into(),
                };
                present
                    .insert(Version {
                        text,
                        mtime,
                        looked: started,
                        stale,
                    })
                    .clone()
            }
        }
    }
}
