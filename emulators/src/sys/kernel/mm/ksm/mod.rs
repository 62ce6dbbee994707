//! /sys/kernel/mm/ksm: the merging of equal pages.
//!
//! Format: mm/ksm.c.
//! Virtual: the counters, which are 0.
//! Passed through: the settings, read-only.
//! Invented: that nothing was merged: pages are merged across containers, so the counters tell what others have in memory.

use crate::directory::{Counters, Kind};

/// /sys/kernel/mm/ksm.
pub static KSM: Counters = Counters::new(166, "/sys/kernel/mm/ksm", COUNTERS, |rel| match COUNTERS
    .contains(&rel)
{
    true => Kind::Zero,
    false => Kind::Kernel,
});

const COUNTERS: &[&str] = &[
    "full_scans",
    "general_profit",
    "ksm_zero_pages",
    "pages_scanned",
    "pages_shared",
    "pages_sharing",
    "pages_skipped",
    "pages_unshared",
    "pages_volatile",
    "stable_node_chains",
    "stable_node_dups",
    "zero_pages_sharing",
];
