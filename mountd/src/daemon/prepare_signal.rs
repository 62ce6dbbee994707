//! The signal that the next attaches are to be prepared.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// The signal that the next attaches are to be prepared. Each attach gives it, and the thread that prepares waits for it.
#[derive(Debug, Default)]
pub(super) struct PrepareSignal {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl PrepareSignal {
    /// Has the next attaches prepared, soon.
    pub(super) fn notify(&self) {
        *self.is_set.lock() = true;
        self.changed.notify_one();
    }

    /// Waits for the signal, until `end` if that is given. Returns false if it did not come. A signal that came before counts.
    pub(super) fn wait(&self, end: Option<Instant>) -> bool {
        let mut is_set = self.is_set.lock();
        while !*is_set {
            match end {
                Some(end) if self.changed.wait_until(&mut is_set, end).timed_out() => break,
                Some(_) => {}
                None => self.changed.wait(&mut is_set),
            }
        }
        std::mem::take(&mut *is_set)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_signal_is_kept_until_somebody_waits_and_is_one_however_often_it_was_given() {
        let signal = PrepareSignal::default();
        signal.notify();
        signal.notify();
        assert!(signal.wait(None));
        assert!(!signal.wait(Some(Instant::now())));
        signal.notify();
        assert!(signal.wait(Some(Instant::now())));
    }

    #[test]
    fn a_thread_that_waits_gets_the_signal() {
        let signal = Arc::new(PrepareSignal::default());
        let others = Arc::clone(&signal);
        let waits = std::thread::spawn(move || others.wait(None));
        signal.notify();
        assert!(waits.join().unwrap());
    }
}
