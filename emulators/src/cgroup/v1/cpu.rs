//! The cpu and cpuacct controllers of v1 (kernel/sched/core.c, kernel/sched/cpuacct.c).

use crate::Error;
use crate::cgroup::Hierarchy;
use crate::cgroup::cpu::{CpuUsage, Quota, Times, split};
use crate::text::{fields, lines, parse_key, parse_u64, trimmed};

pub(crate) fn read_quota(hierarchy: &Hierarchy, level: u32) -> Result<Option<Quota>, Error> {
    // A negative number is no quota.
    let quota = hierarchy.limit(level, "cpu.cfs_quota_us", |text| {
        if trimmed(text).starts_with('-') {
            Some(None)
        } else {
            parse_u64(text).map(Some)
        }
    })?;
    let Some(quota_usec) = quota.flatten() else {
        return Ok(None);
    };
    let period = hierarchy.limit(level, "cpu.cfs_period_us", parse_u64)?;
    Ok(period.map(|period_usec| Quota {
        quota_usec,
        period_usec,
        level,
    }))
}

pub(crate) fn read_throttled_nsec(hierarchy: &Hierarchy, level: u32) -> Result<u64, Error> {
    let text = hierarchy.read(level, "cpu.stat")?.unwrap_or_default();
    Ok(parse_key(&text, "throttled_time").unwrap_or(0))
}

/// Reads the CPU time of each CPU. usage_percpu is the time; usage_all has its parts. The parts do not add up to the
/// time in the kernel either: it measures the time, and samples the parts at ticks.
pub(crate) fn read_usage(hierarchy: &Hierarchy) -> Result<CpuUsage, Error> {
    let file = "cpuacct.usage_percpu";
    let Some((level, percpu)) = hierarchy.read_nearest(file)? else {
        return Ok(CpuUsage::default());
    };
    let all = hierarchy
        .read(level, "cpuacct.usage_all")?
        .unwrap_or_default();
    parse_usage(&percpu, &all)
        .ok_or_else(|| Error::malformed(&Hierarchy::name(level, file), "not numbers"))
}

/// Parses both files. They list the possible CPUs in the same order; only usage_all names them.
fn parse_usage(percpu: &[u8], all: &[u8]) -> Option<CpuUsage> {
    let mut rows = lines(all).skip(1).map(|line| {
        let mut row = fields(line).map(parse_u64);
        let cpu = row.next().flatten().and_then(|cpu| u32::try_from(cpu).ok());
        (
            cpu,
            row.next().flatten().unwrap_or(0),
            row.next().flatten().unwrap_or(0),
        )
    });
    let mut usage = CpuUsage::default();
    for (index, field) in fields(percpu).enumerate() {
        let total_nsec = parse_u64(field)?;
        let (cpu, user, system) = rows.next().unwrap_or((None, 0, 0));
        let cpu = cpu.or_else(|| u32::try_from(index).ok())?;
        let (user_nsec, system_nsec) = split(total_nsec, user, system);
        usage.per_cpu.push((
            cpu,
            Times {
                user_nsec,
                nice_nsec: 0,
                system_nsec,
            },
        ));
    }
    Some(usage)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_cpu_is_split_in_its_own_ratio() {
        let usage = parse_usage(b"400 1000 \n", b"cpu user system\n0 300 100\n3 0 0\n").unwrap();
        let times = |user_nsec, system_nsec| Times {
            user_nsec,
            nice_nsec: 0,
            system_nsec,
        };
        assert_eq!(
            usage.per_cpu.as_slice(),
            [(0, times(300, 100)), (3, times(1000, 0))]
        );
    }

    #[test]
    fn a_missing_usage_all_makes_all_of_it_user_time() {
        let usage = parse_usage(b"5 7 \n", b"").unwrap();
        assert_eq!(usage.per_cpu[1].1.user_nsec, 7);
        assert_eq!(usage.per_cpu[1].0, 1);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(percpu: Vec<u8>, all: Vec<u8>) {
            let _ = parse_usage(&percpu, &all);
        }
    }
}
