//! The time until a server that has died is started again: none, unless servers die in a loop.

use std::time::{Duration, Instant};

/// Deaths within [`WINDOW`] after which the next server is started at once.
const AT_ONCE: u32 = 5;

/// See [`AT_ONCE`].
const WINDOW: Duration = Duration::from_secs(10);

/// The first delay; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(100);

/// The longest delay: readers wait for it.
const LONGEST: Duration = Duration::from_secs(1);

/// The deaths of servers in the last seconds.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    deaths: Vec<Instant>,
    failures: u32,
}

impl Backoff {
    /// Counts a death, or a failed start, at `now`. Returns the time to wait before the next attempt.
    pub(super) fn delay(&mut self, now: Instant) -> Duration {
        self.deaths.retain(|at| now.duration_since(*at) < WINDOW);
        self.deaths.push(now);
        let lately = u32::try_from(self.deaths.len()).unwrap_or(u32::MAX);
        if lately <= AT_ONCE {
            self.failures = 0;
            return Duration::ZERO;
        }
        let delay = FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        delay.min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_dies_in_a_loop_is_waited_for_longer_and_longer() {
        let mut backoff = Backoff::default();
        let start = Instant::now();
        for _ in 0..AT_ONCE {
            assert_eq!(backoff.delay(start), Duration::ZERO);
        }
        assert_eq!(backoff.delay(start), FIRST);
        assert_eq!(backoff.delay(start), FIRST * 2);
        for _ in 0..10 {
            backoff.delay(start);
        }
        assert_eq!(backoff.delay(start), LONGEST);
        let later = start + WINDOW;
        assert_eq!(
            backoff.delay(later),
            Duration::ZERO,
            "it had lived for long"
        );
    }
}
