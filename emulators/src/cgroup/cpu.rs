//! CPU time and quota of a cgroup, as one type for both versions.

use std::time::Duration;

use smallvec::SmallVec;

use crate::Error;
use crate::cgroup::{Cgroup, Hierarchy, Version, v1, v2};

/// The CPU quota that binds a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The CPU time per period, in microseconds.
    pub quota_usec: u64,
    /// The period, in microseconds.
    pub period_usec: u64,
    /// The level of the cgroup that has the quota: 0 is the container's own, 1 its parent, and so on.
    pub level: u32,
}

impl Quota {
    /// Returns the number of CPUs that the quota amounts to, rounded up, at least one.
    pub fn cpus(&self) -> u64 {
        self.quota_usec.div_ceil(self.period_usec.max(1)).max(1)
    }

    /// Returns whether this quota is smaller than another, as a fraction of its period.
    fn is_less(&self, other: &Quota) -> bool {
        let ours = u128::from(self.quota_usec).saturating_mul(u128::from(other.period_usec));
        let theirs = u128::from(other.quota_usec).saturating_mul(u128::from(self.period_usec));
        ours < theirs
    }
}

/// CPU time in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) user_nsec: u64,
    pub(crate) nice_nsec: u64,
    pub(crate) system_nsec: u64,
}

impl Times {
    /// Returns the sum.
    pub(crate) fn total_nsec(&self) -> u64 {
        self.user_nsec
            .saturating_add(self.nice_nsec)
            .saturating_add(self.system_nsec)
    }

    pub(crate) fn add(&mut self, other: Times) {
        self.user_nsec = self.user_nsec.saturating_add(other.user_nsec);
        self.nice_nsec = self.nice_nsec.saturating_add(other.nice_nsec);
        self.system_nsec = self.system_nsec.saturating_add(other.system_nsec);
    }
}

/// A value for each CPU, without an allocation on hosts with up to 16 CPUs.
pub(crate) type PerCpu<T> = SmallVec<[T; 16]>;

/// The CPU time that a cgroup has used since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CpuUsage {
    /// The time on each CPU by the host's ids; empty with v2, which has no such figure.
    pub(crate) per_cpu: PerCpu<(u32, Times)>,
    /// The time whose CPU is not known.
    pub(crate) unplaced: Times,
}

impl CpuUsage {
    /// Returns the time on all CPUs.
    fn total_nsec(&self) -> u64 {
        let placed = self.per_cpu.iter().map(|(_, times)| times.total_nsec());
        placed.fold(self.unplaced.total_nsec(), u64::saturating_add)
    }
}

/// Reads the binding quota: the smallest fraction on the way up, and the nearest of equal ones.
pub(crate) fn read_quota(hierarchy: &Hierarchy) -> Result<Option<Quota>, Error> {
    let mut binding: Option<Quota> = None;
    for level in hierarchy.levels() {
        let quota = match hierarchy.version {
            Version::V1 => v1::cpu::read_quota(hierarchy, level)?,
            Version::V2 => v2::cpu::read_quota(hierarchy, level)?,
        };
        if let Some(quota) = quota
            && binding.is_none_or(|binding| quota.is_less(&binding))
        {
            binding = Some(quota);
        }
    }
    Ok(binding)
}

/// Reads how long the cgroup at `level` was throttled, in nanoseconds, summed over CPUs.
pub(crate) fn read_throttled_nsec(hierarchy: &Hierarchy, level: u32) -> Result<u64, Error> {
    match hierarchy.version {
        Version::V1 => v1::cpu::read_throttled_nsec(hierarchy, level),
        Version::V2 => v2::cpu::read_throttled_nsec(hierarchy, level),
    }
}

/// The least time between two reads of cpu.pressure, in jiffies.
///
/// At each read the kernel adds up the stalls since the read before, weighted by the whole jiffies in which each CPU had
/// something to do (collect_percpu_times, kernel/sched/psi.c). What is shorter than a jiffy is lost for ever: to everybody
/// who reads the file, and to the averages. Reads a millisecond apart lost half of it on Linux 6.18.
const STALL_JIFFIES: u32 = 12;

/// Reads how long the container wanted a CPU and had none, in nanoseconds: the `full` total of cpu.pressure. The kernel
/// takes it as the average of the CPUs on which the container had something to run. Time in which its quota throttles it
/// is included.
///
/// Returns `None` if the kernel does not tell: before Linux 5.13, without PSI, and where the container has no v2 cgroup
/// of its own.
pub(crate) fn read_stalled_nsec(
    cgroup: &Cgroup,
    usage: &CpuUsage,
    hz: u64,
    boottime: Duration,
) -> Result<Option<u64>, Error> {
    let Some(hierarchy) = cgroup.unified().filter(|hierarchy| hierarchy.depth > 0) else {
        return Ok(None);
    };
    let jiffy = Duration::from_secs(1) / u32::try_from(hz).unwrap_or(u32::MAX).max(1);
    let age = jiffy.saturating_mul(STALL_JIFFIES);
    hierarchy.cache.cpu_stall.total(boottime, age, || {
        let total = v2::cpu::read_stalled_nsec(hierarchy)?;
        let hybrid = cgroup
            .hierarchies()
            .iter()
            .any(|one| one.version == Version::V1);
        if total.is_some() && hybrid && !is_of_same(&v2::cpu::read_usage(hierarchy)?, usage) {
            return Ok(None);
        }
        Ok(total)
    })
}

/// Returns whether a v2 cgroup is the container's own, by the CPU time that v1 has for the container. On a host with both,
/// the v2 cgroup may be that of the engine, with all its containers, and has used more then.
fn is_of_same(v2: &CpuUsage, v1: &CpuUsage) -> bool {
    /// The time that may have been used between the moves into the two cgroups.
    const SLACK_NSEC: u64 = 1_000_000_000;
    v2.total_nsec() <= v1.total_nsec().saturating_add(SLACK_NSEC)
}

/// Reads the CPU time of the cgroup from the hierarchy of cpuacct.
pub(crate) fn read_usage(hierarchy: &Hierarchy) -> Result<CpuUsage, Error> {
    match hierarchy.version {
        Version::V1 => v1::cpu::read_usage(hierarchy),
        Version::V2 => v2::cpu::read_usage(hierarchy),
    }
}

/// Splits `total` in the ratio of two parts. If both are 0, the first gets all of it.
pub(crate) fn split(total: u64, first: u64, second: u64) -> (u64, u64) {
    let parts = u128::from(first).saturating_add(u128::from(second));
    if parts == 0 {
        return (total, 0);
    }
    let share = u128::from(total).saturating_mul(u128::from(second)) / parts;
    let share = u64::try_from(share).unwrap_or(total).min(total);
    (total.saturating_sub(share), share)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quota(quota_usec: u64, period_usec: u64) -> Quota {
        Quota {
            quota_usec,
            period_usec,
            level: 0,
        }
    }

    #[test]
    fn a_quota_below_one_cpu_is_one_cpu() {
        assert_eq!(quota(1000, 100_000).cpus(), 1);
        assert_eq!(quota(0, 100_000).cpus(), 1);
        assert_eq!(quota(100_000, 100_000).cpus(), 1);
        assert_eq!(quota(100_001, 100_000).cpus(), 2);
        assert_eq!(quota(5, 0).cpus(), 5);
    }

    #[test]
    fn quotas_compare_as_fractions() {
        assert!(quota(50_000, 100_000).is_less(&quota(6_000, 10_000)));
        assert!(!quota(5_000, 10_000).is_less(&quota(50_000, 100_000)));
    }

    #[test]
    fn the_v2_cgroup_of_an_engine_is_not_the_containers() {
        let usage = |user_nsec| CpuUsage {
            per_cpu: PerCpu::new(),
            unplaced: Times {
                user_nsec,
                ..Times::default()
            },
        };
        let sec = 1_000_000_000;
        assert!(is_of_same(&usage(100 * sec), &usage(99 * sec)));
        assert!(is_of_same(&usage(1), &usage(50 * sec)));
        assert!(!is_of_same(&usage(100 * sec), &usage(98 * sec)));
    }

    proptest! {
        #[test]
        fn a_split_loses_nothing(total: u64, first: u64, second: u64) {
            let (a, b) = split(total, first, second);
            prop_assert_eq!(a.checked_add(b), Some(total));
        }
    }
}
