//! /proc/uptime: how long the container runs, and how long its CPUs were idle.
//!
//! Format: uptime_proc_show, fs/proc/uptime.c: seconds and hundredths, twice.
//! Virtual: both fields; the second is the idle column of the `cpu` row of /proc/stat.
//! Passed through: nothing; in a time namespace the first is the kernel's own.
//! Invented: nothing.

use std::time::Duration;

use crate::model::{cpu_time, cpus};
use crate::text::{digits, put};
use crate::{Bound, Context, Error, Facts, Needs, View};

/// /proc/uptime.
pub const VIEW: View = View::new(16, "/proc/uptime", render_view)
    .sources(
        "start of the container's first process; idle time of /proc/stat",
        "start of the container's first process; idle time of /proc/stat",
    )
    .needs(Needs::CGROUP);

/// The highest number of digits of seconds: those of the longest age, which is as many nanoseconds as 64 bits count. A
/// time namespace can begin with an age of 146 years.
const SECONDS_DIGITS: usize = 11;

fn render_view(_: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    let cpus = cpus::read(cx)?;
    let idle_ticks = cpu_time::read(cx, &cpus)?.total.idle;
    render(cx.age(), idle_ticks, out);
    Ok(Bound::Bytes(bound(cpus.visible.len())))
}

fn bound(cpus: usize) -> usize {
    let cpus = digits(u64::try_from(cpus).unwrap_or(u64::MAX));
    2 * (SECONDS_DIGITS + ".00 ".len()) + cpus
}

fn render(age: Duration, idle_ticks: u64, out: &mut Vec<u8>) {
    let age_ticks = cpu_time::ticks(age);
    put(
        out,
        format_args!(
            "{}.{:02} {}.{:02}\n",
            age_ticks / 100,
            age_ticks % 100,
            idle_ticks / 100,
            idle_ticks % 100
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hundredths_are_cut_off_as_in_the_kernel() {
        let mut out = Vec::new();
        render(Duration::from_nanos(1_009_999_999), 123, &mut out);
        assert_eq!(out, b"1.00 1.23\n");
    }

    #[test]
    fn the_bound_holds_for_31_years_of_idleness() {
        let mut out = Vec::new();
        render(
            Duration::from_secs(999_999_999),
            64 * 99_999_999_900,
            &mut out,
        );
        assert!(out.len() <= bound(64), "{} > {}", out.len(), bound(64));
    }

    #[test]
    fn the_bound_holds_for_the_age_that_a_time_namespace_begins_with() {
        // The kernel takes offsets up to KTIME_SEC_MAX / 2 (proc_timens_set_offset).
        for seconds in [4_611_686_018, u64::MAX / 1_000_000_000] {
            let mut out = Vec::new();
            render(Duration::from_secs(seconds), 64 * seconds * 100, &mut out);
            assert!(out.len() <= bound(64), "{} > {}", out.len(), bound(64));
        }
    }
}
