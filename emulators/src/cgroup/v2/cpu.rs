//! cpu.max and cpu.stat of v2 (kernel/sched/core.c, kernel/cgroup/rstat.c).

use rustix::io::Errno;

use crate::Error;
use crate::cgroup::Hierarchy;
use crate::cgroup::cpu::{CpuUsage, PerCpu, Quota, Times};
use crate::text::{fields, lines, parse_key, parse_u64};

pub(crate) fn read_quota(hierarchy: &Hierarchy, level: u32) -> Result<Option<Quota>, Error> {
    let quota = hierarchy.limit(level, "cpu.max", parse_max)?;
    Ok(quota.flatten().map(|(quota_usec, period_usec)| Quota {
        quota_usec,
        period_usec,
        level,
    }))
}

/// Parses cpu.max. Returns `Some(None)` for `max 100000`, which is no quota.
fn parse_max(text: &[u8]) -> Option<Option<(u64, u64)>> {
    let mut fields = fields(text);
    let quota = fields.next()?;
    let period = parse_u64(fields.next()?)?;
    if quota == b"max" {
        return Some(None);
    }
    Some(Some((parse_u64(quota)?, period)))
}

pub(crate) fn read_throttled_nsec(hierarchy: &Hierarchy, level: u32) -> Result<u64, Error> {
    let text = hierarchy.read(level, "cpu.stat")?.unwrap_or_default();
    Ok(parse_key(&text, "throttled_usec")
        .unwrap_or(0)
        .saturating_mul(1000))
}

/// Reads the `full` total of cpu.pressure.
pub(crate) fn read_stalled_nsec(hierarchy: &Hierarchy) -> Result<Option<u64>, Error> {
    match hierarchy.read(0, "cpu.pressure") {
        Ok(text) => Ok(text.and_then(|text| parse_stalled(&text))),
        // The kernel has PSI, and it is switched off.
        Err(Error::Io {
            errno: Errno::OPNOTSUPP,
            ..
        }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Parses `full avg10=0.00 avg60=0.00 avg300=0.00 total=889036`, in microseconds. Linux has the line from 5.13 on.
fn parse_stalled(text: &[u8]) -> Option<u64> {
    let full = lines(text).find_map(|line| line.strip_prefix(b"full "))?;
    let total = fields(full).find_map(|field| field.strip_prefix(b"total="))?;
    Some(parse_u64(total)?.saturating_mul(1000))
}

pub(crate) fn read_usage(hierarchy: &Hierarchy) -> Result<CpuUsage, Error> {
    let file = "cpu.stat";
    let Some((level, text)) = hierarchy.read_nearest(file)? else {
        return Ok(CpuUsage::default());
    };
    parse_usage(&text)
        .ok_or_else(|| Error::malformed(&Hierarchy::name(level, file), "no usage_usec"))
}

/// Parses cpu.stat. From Linux 6.12 on user_usec includes nice_usec (kernel/cgroup/rstat.c), so that is subtracted.
fn parse_usage(text: &[u8]) -> Option<CpuUsage> {
    let key = |key: &str| parse_key(text, key);
    let usage = key("usage_usec")?;
    let system = key("system_usec").unwrap_or(0).min(usage);
    let user = usage.saturating_sub(system);
    let nice = key("nice_usec").unwrap_or(0).min(user);
    let unplaced = Times {
        user_nsec: user.saturating_sub(nice).saturating_mul(1000),
        nice_nsec: nice.saturating_mul(1000),
        system_nsec: system.saturating_mul(1000),
    };
    Some(CpuUsage {
        per_cpu: PerCpu::new(),
        unplaced,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quota_is_a_number_and_a_period() {
        assert_eq!(
            parse_max(b"150000 100000\n"),
            Some(Some((150_000, 100_000)))
        );
        assert_eq!(parse_max(b"max 100000\n"), Some(None));
        assert_eq!(parse_max(b"150000\n"), None);
        assert_eq!(parse_max(b""), None);
    }

    #[test]
    fn nice_time_is_not_counted_as_user_time_too() {
        let usage =
            parse_usage(b"usage_usec 100\nuser_usec 70\nsystem_usec 30\nnice_usec 20\n").unwrap();
        assert_eq!(
            usage.unplaced,
            Times {
                user_nsec: 50_000,
                nice_nsec: 20_000,
                system_nsec: 30_000
            }
        );
    }

    #[test]
    fn a_stall_is_the_total_of_the_line_that_is_full() {
        let some = "some avg10=1.00 avg60=0.00 avg300=0.00 total=9\n";
        let full = "full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let both = format!("{some}{full}");
        assert_eq!(parse_stalled(both.as_bytes()), Some(7000));
        assert_eq!(parse_stalled(some.as_bytes()), None);
        assert_eq!(parse_stalled(b"full total=x\n"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse_stalled(&bytes);
            let _ = parse_max(&bytes);
            let _ = parse_usage(&bytes);
        }
    }
}
