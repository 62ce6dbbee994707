//! The age that a view may have.

use std::time::Duration;

/// The age that a static view may have. The server hears of each change of such a view, but not of CPUs of the host
/// that come and go.
pub const STATIC_BOUND: Duration = Duration::from_secs(1);

/// The freshness of views.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// The age that a view may have when it is opened.
    pub bound: Duration,
    /// The same as the kernel is told it: whole jiffies, rounded down, because the kernel rounds up.
    pub timeout: Duration,
}

impl Freshness {
    /// Returns the freshness of views that may be as old as `bound`.
    pub fn of(bound: Duration) -> Self {
        Self {
            bound,
            timeout: whole_jiffies(bound),
        }
    }
}

/// Rounds down to whole jiffies. The kernel rounds a timeout up to jiffies and ends it with the jiffy after that, so the
/// server must not send more than it promises.
fn whole_jiffies(freshness: Duration) -> Duration {
    let jiffy = jiffy();
    let jiffies = freshness.as_nanos() / jiffy.as_nanos();
    jiffy.saturating_mul(u32::try_from(jiffies).unwrap_or(u32::MAX))
}

/// Returns the length of a jiffy, which is the resolution of the coarse clocks (KTIME_LOW_RES).
fn jiffy() -> Duration {
    Duration::try_from(rustix::time::clock_getres(
        rustix::time::ClockId::MonotonicCoarse,
    ))
    .unwrap_or(Duration::from_millis(1))
    .max(Duration::from_nanos(1))
}

/// Returns the number of jiffies in a second. A jiffy is a second divided by that number, rounded to nanoseconds
/// (TICK_NSEC).
pub fn hz() -> u64 {
    let jiffy = u64::try_from(jiffy().as_nanos()).unwrap_or(1);
    1_000_000_000u64.saturating_add(jiffy / 2) / jiffy
}
