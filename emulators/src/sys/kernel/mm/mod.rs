//! /sys/kernel/mm: settings of memory management, and counters of the host beside them.

pub mod hugepages;
pub mod ksm;
pub mod transparent_hugepage;

use crate::directory::Empty;

/// The monitors of the host's memory, and the cgroups and processes that they look at.
pub static DAMON: Empty = Empty::new(167, "/sys/kernel/mm/damon", 0o755).unless_measuring();
/// The pages of the host that are in use.
pub static PAGE_IDLE: Empty = Empty::new(168, "/sys/kernel/mm/page_idle", 0o755).unless_measuring();
/// The allocations of contiguous memory.
pub static CMA: Empty = Empty::new(169, "/sys/kernel/mm/cma", 0o755).unless_measuring();
