//! How old a view may be.

use std::time::Duration;

use eci_fs_emulators::{EMULATORS, Tunable};
use eci_fs_protocol::link::Connection;

use super::Tree;
use crate::server::ids::NodeId;

/// How the views are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// How old a view may be when it is opened.
    pub bound: Duration,
    /// The same, as the kernel is told: whole jiffies, rounded down, because it rounds up.
    pub timeout: Duration,
}

impl Freshness {
    /// Of views that may be as old as `bound`.
    pub fn of(bound: Duration) -> Self {
        Self {
            bound,
            timeout: whole_jiffies(bound),
        }
    }
}

impl Tree {
    /// The nodes of a container that the kernel may hold attributes of which change with its limits.
    pub fn limited_nodes(&self, slot: u64) -> Vec<(Connection, NodeId)> {
        let Ok(container) = self.container(slot) else {
            return Vec::new();
        };
        let limited = |index: usize| {
            let connection = container.connection(index)?;
            let emulator = EMULATORS[index];
            let is_limited = match connection {
                Connection::Cached => true,
                Connection::Live => emulator.tunable().is_some_and(Tunable::follows_limits),
            };
            is_limited.then(|| (connection, NodeId::view(slot, emulator.facts().id)))
        };
        (0..EMULATORS.len()).filter_map(limited).collect()
    }
}

/// Round down to whole jiffies. A timeout is rounded up to jiffies by the kernel, and ends with the jiffy after
/// it, so what is sent must not be more than what is promised.
fn whole_jiffies(freshness: Duration) -> Duration {
    let jiffy = jiffy();
    let jiffies = freshness.as_nanos() / jiffy.as_nanos();
    jiffy.saturating_mul(u32::try_from(jiffies).unwrap_or(u32::MAX))
}

/// One jiffy, which is the resolution of the coarse clocks (KTIME_LOW_RES).
fn jiffy() -> Duration {
    nix::time::clock_getres(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)
        .map(Duration::from)
        .unwrap_or(Duration::from_millis(1))
        .max(Duration::from_nanos(1))
}

/// How many jiffies there are in a second: a jiffy is a second by that number, rounded to nanoseconds (TICK_NSEC).
pub(super) fn hz() -> u64 {
    let jiffy = u64::try_from(jiffy().as_nanos()).unwrap_or(1);
    1_000_000_000u64.saturating_add(jiffy / 2) / jiffy
}
