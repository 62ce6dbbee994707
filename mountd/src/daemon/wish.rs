//! The wish that the next attaches are prepared.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// The wish that the next attaches are prepared. Each attach makes it, and the thread that prepares takes it.
#[derive(Debug, Default)]
pub(super) struct Wish {
    is_there: Mutex<bool>,
    came: Condvar,
}

impl Wish {
    /// Has the next attaches prepared, soon.
    pub(super) fn make(&self) {
        *self.is_there.lock() = true;
        self.came.notify_one();
    }

    /// Waits for a wish, until `end` if there is one. Returns false if none came.
    pub(super) fn take(&self, end: Option<Instant>) -> bool {
        let mut is_there = self.is_there.lock();
        while !*is_there {
            match end {
                Some(end) if self.came.wait_until(&mut is_there, end).timed_out() => break,
                Some(_) => {}
                None => self.came.wait(&mut is_there),
            }
        }
        std::mem::take(&mut *is_there)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_wish_is_kept_until_it_is_taken_and_is_one_however_often_it_was_made() {
        let wish = Wish::default();
        wish.make();
        wish.make();
        assert!(wish.take(None));
        assert!(!wish.take(Some(Instant::now())));
        wish.make();
        assert!(wish.take(Some(Instant::now())));
    }

    #[test]
    fn a_thread_that_waits_for_a_wish_hears_of_it() {
        let wish = Arc::new(Wish::default());
        let others = Arc::clone(&wish);
        let waits = std::thread::spawn(move || others.take(None));
        wish.make();
        assert!(waits.join().unwrap());
    }
}
