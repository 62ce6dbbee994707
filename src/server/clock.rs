//! Moments as numbers that another process understands.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Returns the nanoseconds of CLOCK_MONOTONIC at a moment of the past.
pub fn to_nsec(moment: Instant) -> u64 {
    let past = now(ClockId::CLOCK_MONOTONIC).saturating_sub(moment.elapsed());
    u64::try_from(past.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the moment again; none when this process cannot name it. A moment of the future is now.
pub fn from_nsec(nsec: u64) -> Option<Instant> {
    let ago = now(ClockId::CLOCK_MONOTONIC).saturating_sub(Duration::from_nanos(nsec));
    Instant::now().checked_sub(ago)
}

/// Returns the nanoseconds since the host booted, which are never the same or less in a later process.
pub fn since_boot_nsec() -> u64 {
    u64::try_from(now(ClockId::CLOCK_BOOTTIME).as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the CPU time that this thread has used.
pub fn of_this_thread() -> Duration {
    now(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// Returns the CPU time that all threads of this process have used.
pub fn of_this_process() -> Duration {
    now(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

/// Returns the time of a clock, by libc: it knows the vDSO already. rustix would look for it in the auxiliary vector,
/// which it reads from /proc before Linux 6.4.
fn now(clock: ClockId) -> Duration {
    // The kernel always has these clocks.
    clock_gettime(clock).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_the_same_again() {
        let moment = Instant::now();
        let again = from_nsec(to_nsec(moment)).unwrap();
        let apart = again.max(moment) - again.min(moment);
        assert!(apart < Duration::from_secs(1), "{apart:?}");
        assert!(from_nsec(u64::MAX).unwrap() <= Instant::now());
    }
}
