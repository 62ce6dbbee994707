//! The versions of a view.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// A text and when it was computed.
#[derive(Debug, Clone)]
pub struct Version {
    /// The view, padded.
    pub text: Arc<[u8]>,
    /// When this text was computed first; the kernel drops its pages when this changes.
    pub mtime: SystemTime,
    /// When it was last found to be so.
    looked: Instant,
    /// Whether a limit has changed since.
    stale: bool,
}

impl Version {
    /// How long ago it was last found to be so; for ever, when a limit has changed since.
    pub fn age(&self) -> Duration {
        if self.stale {
            Duration::MAX
        } else {
            self.looked.elapsed()
        }
    }

    /// A limit has changed: it is not believed any more.
    pub(super) fn set_stale(&mut self) {
        self.stale = true;
    }

    /// Have `text`, whose computation began at `started`, follow the present version.
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
                // Its size seldom changes, and seldom does anybody still have it: then its memory is used again.
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
