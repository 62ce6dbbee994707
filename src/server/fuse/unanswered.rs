//! Requests that were taken and not answered yet, by other threads than those that took them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many there are.
#[derive(Debug, Clone, Default)]
pub struct Unanswered(Arc<AtomicU64>);

/// One of them; it is answered when this is dropped.
#[derive(Debug)]
pub(super) struct Taken(Arc<AtomicU64>);

impl Unanswered {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// One more.
    pub(super) fn take(&self) -> Taken {
        self.0.fetch_add(1, Ordering::SeqCst);
        Taken(Arc::clone(&self.0))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
