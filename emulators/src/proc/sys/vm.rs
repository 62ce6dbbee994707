//! /proc/sys/vm: the table of its tunables.
//!
//! Format: vm_table, kernel/sysctl.c, and the handlers it names.
//! Virtual: what the container has written.
//! Passed through: the host's values until then.
//! Invented: nothing.

use crate::model::meminfo::{OVERCOMMIT_KBYTES, OVERCOMMIT_RATIO};
use crate::tunable::{Capability, Handler, Tunable};

/// The tunables of this directory.
pub static TUNABLES: &[Tunable] = &[
    Tunable::new(384, "/proc/sys/vm/overcommit_memory", Handler::int(0, 2)),
    Tunable::new(
        OVERCOMMIT_RATIO,
        "/proc/sys/vm/overcommit_ratio",
        Handler::ANY_INT,
    )
    .clears(OVERCOMMIT_KBYTES),
    Tunable::new(
        386,
        "/proc/sys/vm/mmap_min_addr",
        Handler::ulong(0, u64::MAX),
    )
    .capability(Capability::SysRawio),
    Tunable::new(387, "/proc/sys/vm/swappiness", Handler::int(0, 200)),
    Tunable::new(388, "/proc/sys/vm/max_map_count", COUNT),
    Tunable::new(389, "/proc/sys/vm/dirty_ratio", PERCENT),
    Tunable::new(390, "/proc/sys/vm/dirty_background_ratio", PERCENT),
    Tunable::new(391, "/proc/sys/vm/vfs_cache_pressure", COUNT),
    Tunable::new(392, "/proc/sys/vm/min_free_kbytes", COUNT),
    Tunable::new(393, "/proc/sys/vm/panic_on_oom", Handler::int(0, 2)),
    // A write says what to drop. There is no value that could be read.
    Tunable::new(394, "/proc/sys/vm/drop_caches", Handler::int(1, 4)).mode(0o200),
    Tunable::new(
        OVERCOMMIT_KBYTES,
        "/proc/sys/vm/overcommit_kbytes",
        Handler::ulong(0, u64::MAX),
    )
    .clears(OVERCOMMIT_RATIO),
];

const COUNT: Handler = Handler::int(0, i32::MAX);
const PERCENT: Handler = Handler::int(0, 100);
