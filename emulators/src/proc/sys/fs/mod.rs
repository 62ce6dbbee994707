//! Views in /proc/sys/fs: the table of its tunables.

pub mod inotify;

use crate::tunable::{Handler, HostSysctl, Policy, Tunable};

/// sysctl_nr_open_max: INT_MAX, rounded down to the bits of a long.
const NR_OPEN_MAX: i32 = i32::MAX & -64;

/// The tunables of this directory.
pub static TUNABLES: &[Tunable] = &[
    Tunable::new(320, "/proc/sys/fs/protected_hardlinks", Handler::int(0, 1)),
    Tunable::new(321, "/proc/sys/fs/protected_symlinks", Handler::int(0, 1)),
    Tunable::new(322, "/proc/sys/fs/protected_fifos", Handler::int(0, 2)),
    Tunable::new(323, "/proc/sys/fs/protected_regular", Handler::int(0, 2)),
    Tunable::new(324, "/proc/sys/fs/suid_dumpable", Handler::int(0, 2)),
    Tunable::new(
        325,
        "/proc/sys/fs/file-max",
        Handler::ulong(0, i64::MAX as u64),
    )
    .policy(Policy::Raise(HostSysctl::FileMax)),
    Tunable::new(326, "/proc/sys/fs/nr_open", Handler::int(64, NR_OPEN_MAX))
        .policy(Policy::Raise(HostSysctl::NrOpen)),
];
