//! Views in /proc/sys/kernel: the table of its tunables.

pub mod keys;
pub mod pty;
pub mod random;
pub mod yama;

use crate::cpulist::CpuSet;
use crate::tunable::{Capability, Handler, Namespace, Policy, Release, Tunable};
use crate::{Context, Error, Host};

/// The most seconds that a kernel with an HZ of 250 can wait.
const MOST_SECONDS: u64 = i64::MAX as u64 / 250;

/// FUTEX_TID_MASK: the highest thread id.
const MAX_THREADS: i32 = 0x3fff_ffff;

/// PID_MAX_LIMIT on machines of 64 bits.
const PID_MAX_LIMIT: i32 = 4 << 20;

/// The tunables of this directory.
pub static TUNABLES: &[Tunable] = &[
    Tunable::new(256, "/proc/sys/kernel/panic", Handler::ANY_INT),
    Tunable::new(257, "/proc/sys/kernel/panic_on_oops", Handler::ANY_INT),
    Tunable::new(258, "/proc/sys/kernel/panic_on_warn", Handler::int(0, 1)),
    Tunable::new(259, "/proc/sys/kernel/printk", Handler::ints(4)),
    Tunable::new(260, "/proc/sys/kernel/kptr_restrict", Handler::int(0, 2))
        .capability(Capability::SysAdmin),
    Tunable::new(261, "/proc/sys/kernel/dmesg_restrict", Handler::int(0, 1))
        .capability(Capability::SysAdmin),
    Tunable::new(262, "/proc/sys/kernel/sysrq", Handler::ANY_INT),
    Tunable::new(
        263,
        "/proc/sys/kernel/hung_task_timeout_secs",
        Handler::ulong(0, MOST_SECONDS),
    )
    .at_most(most_seconds),
    Tunable::new(264, "/proc/sys/kernel/softlockup_panic", Handler::int(0, 1)),
    Tunable::new(265, "/proc/sys/kernel/nmi_watchdog", Handler::int(0, 1)),
    Tunable::new(
        266,
        "/proc/sys/kernel/pid_max",
        Handler::int(0, PID_MAX_LIMIT),
    )
    .at_least(least_pid_max)
    .namespaced_by_kernel(Namespace::Pid, Release(6, 14)),
    Tunable::new(
        267,
        "/proc/sys/kernel/threads-max",
        Handler::int(1, MAX_THREADS),
    )
    .policy(Policy::LimitedByPids),
    // The host's value can name a program of the host.
    Tunable::constant(268, "/proc/sys/kernel/core_pattern", "core"),
];

/// hung_task_timeout_max: LONG_MAX / HZ (kernel/hung_task.c).
fn most_seconds(host: &Host) -> u64 {
    i64::MAX.unsigned_abs() / host.hz().max(1)
}

/// pid_max_min: RESERVED_PIDS + 1, or PIDS_PER_CPU_MIN for each possible CPU (pid_idr_init, kernel/pid.c).
fn least_pid_max(cx: &Context<'_>) -> Result<i32, Error> {
    const POSSIBLE: &str = "/sys/devices/system/cpu/possible";
    let possible = CpuSet::parse_list(&cx.host.read(POSSIBLE)?)
        .ok_or_else(|| Error::malformed(POSSIBLE, "not a list"))?;
    let cpus = i32::try_from(possible.len()).unwrap_or(i32::MAX);
    Ok(cpus.saturating_mul(8).max(301))
}
