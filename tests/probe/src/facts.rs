//! The results of system calls that views must not contradict.

use std::fs;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde_json::json;

use crate::answer::{Answer, wrong};

/// Returns the affinity, the counts of sysconf(3), the clocks, and the identity of the process.
pub(crate) fn facts() -> Answer {
    let affinity = sched_getaffinity(Pid::from_raw(0))?;
    let affinity: Vec<usize> = (0..CpuSet::count())
        .filter(|cpu| affinity.is_set(*cpu).unwrap_or(false))
        .collect();
    let clock = |id| -> std::io::Result<f64> {
        let now = clock_gettime(id)?;
        Ok(now.tv_sec() as f64 + now.tv_nsec() as f64 / 1e9)
    };
    let sys = |variable| -> std::io::Result<i64> {
        sysconf(variable)?.ok_or_else(|| wrong("sysconf has no value"))
    };
    Ok(json!({
        "pid": std::process::id(),
        "uid": nix::unistd::getuid().as_raw(),
        "affinity": affinity,
        "boottime": clock(ClockId::CLOCK_BOOTTIME)?,
        "monotonic": clock(ClockId::CLOCK_MONOTONIC)?,
        "nprocessors_onln": sys(SysconfVar::_NPROCESSORS_ONLN)?,
        "nprocessors_conf": sys(SysconfVar::_NPROCESSORS_CONF)?,
        "phys_pages": sys(SysconfVar::_PHYS_PAGES)?,
        "avphys_pages": sys(SysconfVar::_AVPHYS_PAGES)?,
        "page_size": sys(SysconfVar::PAGE_SIZE)?,
        "cgroup": fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
    }))
}
