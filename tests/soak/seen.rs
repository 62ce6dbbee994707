//! The results of all readers, and the figures of a run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Failures that are told in full; the others are counted.
const TOLD: usize = 20;

/// Tallies of all readers together.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Texts that were judged, by the way in which they were read.
    pub(crate) whole: AtomicU64,
    pub(crate) held: AtomicU64,
    pub(crate) byte_wise: AtomicU64,
    pub(crate) sendfile: AtomicU64,
    pub(crate) halves: AtomicU64,
    /// Texts that a process in a container has read.
    pub(crate) inside: AtomicU64,
    pub(crate) listings: AtomicU64,
    pub(crate) triggers: AtomicU64,
    /// Writes to tunables.
    pub(crate) writes: AtomicU64,
    /// System calls that read.
    pub(crate) reads: AtomicU64,
    /// Byte-wise passes of two versions: allowed where somebody else opens the same view meanwhile.
    pub(crate) mixed: AtomicU64,
    /// The longest that one text took, in microseconds.
    longest: AtomicU64,
    failed: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Seen {
    pub(crate) fn count(&self, what: &AtomicU64) {
        what.fetch_add(1, Ordering::Relaxed);
    }

    /// How long something took.
    pub(crate) fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.longest.fetch_max(micros, Ordering::Relaxed);
    }

    /// A read that failed or a text that is wrong.
    pub(crate) fn fail(&self, what: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut failures = self.failures.lock();
        if failures.len() < TOLD {
            failures.push(what);
        }
    }

    /// How many have failed.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Those that are told in full.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.failures.lock().clone()
    }

    /// The figures, on one line each.
    pub(crate) fn print(&self) {
        let of = |what: &AtomicU64| what.load(Ordering::Relaxed);
        println!(
            "{} texts read whole, {} held, {} byte-wise, {} by sendfile, {} in halves, {} inside, in {} reads",
            of(&self.whole),
            of(&self.held),
            of(&self.byte_wise),
            of(&self.sendfile),
            of(&self.halves),
            of(&self.inside),
            of(&self.reads),
        );
        println!(
            "{} listings, {} writes, {} triggers; {} byte-wise passes of two versions; the longest took {:?}; {} failed",
            of(&self.listings),
            of(&self.writes),
            of(&self.triggers),
            of(&self.mixed),
            Duration::from_micros(of(&self.longest)),
            self.failed(),
        );
    }
}
