//! The rows of /proc/stat and the idle time of /proc/uptime, from the CPU time of the cgroup.

use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use crate::cgroup::cpu::{self, CpuUsage, PerCpu, Times, split};
use crate::container::history::Counters;
use crate::model::cpus::Cpus;
use crate::{Context, Controller, Error};

/// Nanoseconds per tick of USER_HZ, which is 100 on every architecture that runs containers.
const TICK_NSEC: u64 = 10_000_000;

/// The container's CPU time as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuTime {
    /// One row per visible CPU by the host's ids, ascending.
    pub rows: SmallVec<[(u32, Counters); 16]>,
    /// The sum of the rows, and what the history adds so that it does not fall.
    pub total: Counters,
}

/// Reads the CPU time, and records it in the history as shown.
pub fn read(cx: &Context<'_>, cpus: &Cpus) -> Result<CpuTime, Error> {
    let cgroup = cx.cgroup()?;
    let usage = match cgroup.of(Controller::Cpuacct) {
        Some(hierarchy) => cpu::read_usage(hierarchy)?,
        None => CpuUsage::default(),
    };
    let throttled_nsec = match (cgroup.of(Controller::Cpu), cpus.quota) {
        (Some(hierarchy), Some(quota)) => cpu::read_throttled_nsec(hierarchy, quota.level)?,
        _ => 0,
    };
    let stalled_nsec = cpu::read_stalled_nsec(cgroup, &usage, cx.host.hz(), cx.boottime)?;
    let visible: PerCpu<u32> = cpus.visible.iter().collect();
    let waited = Waited {
        throttled_nsec,
        stalled_nsec: stalled_nsec.unwrap_or(0),
    };
    let mut rows = distribute(&visible, &usage, waited, cx.age());
    let total = cx.history().show_rows(&mut rows);
    Ok(CpuTime { rows, total })
}

/// Returns the ticks of a duration, rounded down as in the kernel.
pub(crate) fn ticks(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos() / u128::from(TICK_NSEC)).unwrap_or(u64::MAX)
}

/// The time that the container wanted and did not get.
#[derive(Debug, Clone, Copy, Default)]
struct Waited {
    /// The time in which its quota throttled it, summed over CPUs.
    throttled_nsec: u64,
    /// The time in which it waited on a CPU, for whatever reason, as an average of the CPUs that it wanted.
    stalled_nsec: u64,
}

/// Distributes the container's time over the visible CPUs. The rest of `age` on each is idle.
///
/// On each CPU the stalled time is stolen, or its share of the throttled time, whichever is more: the one includes the
/// other.
fn distribute(
    visible: &[u32],
    usage: &CpuUsage,
    waited: Waited,
    age: Duration,
) -> PerCpu<(u32, Counters)> {
    let age_nsec = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
    let mut unplaced = usage.unplaced;
    let mut rows: PerCpu<Times> = smallvec![Times::default(); visible.len()];
    for (cpu, times) in &usage.per_cpu {
        match visible
            .binary_search(cpu)
            .ok()
            .and_then(|index| rows.get_mut(index))
        {
            Some(row) => row.add(*times),
            None => unplaced.add(*times),
        }
    }
    let room = |row: &Times| age_nsec.saturating_sub(row.total_nsec());
    let (mut shares, rest) = fill(unplaced.total_nsec(), rows.iter().map(room));
    // This is more time than the CPUs had. More CPUs were visible when it was used.
    spread(rest, &mut shares);
    for (row, share) in rows.iter_mut().zip(shares) {
        row.add(cut(unplaced, share));
    }
    let (mut steal, _) = fill(waited.throttled_nsec, rows.iter().map(room));
    for (steal, row) in steal.iter_mut().zip(&rows) {
        *steal = waited.stalled_nsec.min(room(row)).max(*steal);
    }
    let age_ticks = ticks(age);
    let row = |((cpu, times), steal_nsec): ((&u32, &Times), u64)| {
        let mut counters = Counters {
            user: times.user_nsec / TICK_NSEC,
            nice: times.nice_nsec / TICK_NSEC,
            system: times.system_nsec / TICK_NSEC,
            idle: 0,
            steal: steal_nsec / TICK_NSEC,
        };
        counters.idle = age_ticks.saturating_sub(counters.sum());
        (*cpu, counters)
    };
    visible.iter().zip(&rows).zip(steal).map(row).collect()
}

/// Returns a part of `times` with this length, in the same proportions.
fn cut(times: Times, share_nsec: u64) -> Times {
    let user_and_nice = times.user_nsec.saturating_add(times.nice_nsec);
    let (rest, system_nsec) = split(share_nsec, user_and_nice, times.system_nsec);
    let (user_nsec, nice_nsec) = split(rest, times.user_nsec, times.nice_nsec);
    Times {
        user_nsec,
        nice_nsec,
        system_nsec,
    }
}

/// Distributes an amount evenly, but gives no share that is more than its room. Returns the shares and the rest.
fn fill(amount: u64, rooms: impl Iterator<Item = u64>) -> (PerCpu<u64>, u64) {
    let rooms: PerCpu<u64> = rooms.collect();
    let mut order: PerCpu<usize> = (0..rooms.len()).collect();
    order.sort_unstable_by_key(|index| (rooms.get(*index), *index));
    let mut shares: PerCpu<u64> = smallvec![0; rooms.len()];
    let mut rest = amount;
    // The smallest room is first. Those after it share what does not fit.
    for (done, index) in order.iter().enumerate() {
        let left = u64::try_from(rooms.len().saturating_sub(done))
            .unwrap_or(u64::MAX)
            .max(1);
        if let (Some(share), Some(room)) = (shares.get_mut(*index), rooms.get(*index)) {
            *share = (rest / left).min(*room);
            rest = rest.saturating_sub(*share);
        }
    }
    (shares, rest)
}

/// Adds an amount evenly.
fn spread(amount: u64, shares: &mut [u64]) {
    let mut left = u64::try_from(shares.len()).unwrap_or(u64::MAX);
    let mut rest = amount;
    for share in shares {
        let part = rest / left.max(1);
        *share = share.saturating_add(part);
        rest = rest.saturating_sub(part);
        left = left.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEC: u64 = 1_000_000_000;

    fn user(user_nsec: u64) -> Times {
        Times {
            user_nsec,
            ..Times::default()
        }
    }

    #[test]
    fn time_of_no_known_cpu_is_spread_evenly() {
        let usage = CpuUsage {
            per_cpu: smallvec![],
            unplaced: user(4 * SEC),
        };
        let rows = distribute(&[2, 3], &usage, Waited::default(), Duration::from_secs(10));
        let counters = Counters {
            user: 200,
            idle: 800,
            ..Counters::default()
        };
        assert_eq!(rows.as_slice(), [(2, counters), (3, counters)]);
    }

    #[test]
    fn time_on_invisible_cpus_goes_where_there_is_room() {
        let per_cpu = smallvec![(0, user(9 * SEC)), (1, user(0)), (2, user(5 * SEC))];
        let usage = CpuUsage {
            per_cpu,
            unplaced: Times::default(),
        };
        let rows = distribute(&[0, 1], &usage, Waited::default(), Duration::from_secs(10));
        assert_eq!((rows[0].1.user, rows[0].1.idle), (1000, 0));
        assert_eq!((rows[1].1.user, rows[1].1.idle), (400, 600));
    }

    #[test]
    fn throttled_time_is_stolen_but_only_from_idle() {
        let usage = CpuUsage {
            per_cpu: smallvec![],
            unplaced: user(4 * SEC),
        };
        let waited = Waited {
            throttled_nsec: 100 * SEC,
            stalled_nsec: 0,
        };
        let rows = distribute(&[0], &usage, waited, Duration::from_secs(10));
        assert_eq!(
            (rows[0].1.user, rows[0].1.steal, rows[0].1.idle),
            (400, 600, 0)
        );
    }

    #[test]
    fn a_container_that_is_starved_sees_it_on_each_cpu_and_throttled_time_once() {
        let per_cpu = smallvec![(0, user(SEC)), (1, user(9 * SEC))];
        let usage = CpuUsage {
            per_cpu,
            unplaced: Times::default(),
        };
        let steal = |throttled_sec, stalled_sec| {
            let waited = Waited {
                throttled_nsec: throttled_sec * SEC,
                stalled_nsec: stalled_sec * SEC,
            };
            let rows = distribute(&[0, 1], &usage, waited, Duration::from_secs(10));
            assert!(rows.iter().all(|(_, row)| row.sum() == 1000), "{rows:?}");
            [rows[0].1.steal, rows[1].1.steal]
        };
        assert_eq!(steal(0, 3), [300, 100]);
        // The quota took it away on both CPUs, and the kernel tells it as the average of them.
        assert_eq!(steal(2, 1), [100, 100]);
        assert_eq!(steal(2, 3), [300, 100]);
        assert_eq!(steal(0, u64::MAX / SEC), [900, 100]);
    }

    proptest! {
        #[test]
        fn a_row_is_as_long_as_the_container_is_old(
            per_cpu in proptest::collection::btree_map(0u32..8, 0u64..1 << 40, 0..8),
            unplaced in 0u64..1 << 40,
            throttled_nsec: u64,
            stalled_nsec: u64,
            age_nsec in 0u64..1 << 50,
            visible in proptest::collection::btree_set(0u32..8, 1..8),
        ) {
            let age = Duration::from_nanos(age_nsec);
            let visible: Vec<u32> = visible.into_iter().collect();
            let per_cpu: PerCpu<_> = per_cpu.into_iter().map(|(cpu, t)| (cpu, user(t))).collect();
            let busy: u64 = per_cpu.iter().map(|(_, t)| t.user_nsec).sum::<u64>() + unplaced;
            let usage = CpuUsage { per_cpu, unplaced: user(unplaced) };
            let waited = Waited { throttled_nsec, stalled_nsec };
            let rows = distribute(&visible, &usage, waited, age);
            let shown: u64 = rows.iter().map(|(_, row)| row.user).sum();
            prop_assert!(shown <= busy / TICK_NSEC);
            prop_assert!(busy / TICK_NSEC <= shown + rows.len() as u64);
            for (_, row) in rows {
                prop_assert!(row.sum() >= ticks(age));
                prop_assert!(row.sum() == ticks(age) || row.idle == 0);
            }
        }

        #[test]
        fn nothing_overflows(a: u64, b: u64, c: u64, throttled_nsec: u64, age_nsec: u64) {
            let unplaced = Times { user_nsec: a, nice_nsec: b, system_nsec: c };
            let usage = CpuUsage { per_cpu: smallvec![(0, unplaced), (9, unplaced)], unplaced };
            let waited = Waited { throttled_nsec, stalled_nsec: a };
            let rows = distribute(&[0, 1], &usage, waited, Duration::from_nanos(age_nsec));
            prop_assert_eq!(rows.len(), 2);
        }
    }
}
