//! CPU time and quota of a cgroup, as one type for both versions.

use smallvec::SmallVec;

use crate::Error;
use crate::cgroup::{Hierarchy, Version, v1, v2};

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

    proptest! {
        #[test]
        fn a_split_loses_nothing(total: u64, first: u64, second: u64) {
            let (a, b) = split(total, first, second);
            prop_assert_eq!(a.checked_add(b), Some(total));
        }
    }
}
