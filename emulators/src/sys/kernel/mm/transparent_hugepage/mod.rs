//! /sys/kernel/mm/transparent_hugepage: huge pages that the kernel makes of small ones.
//!
//! Format: mm/huge_memory.c, mm/khugepaged.c.
//! Virtual: the counters of `khugepaged`, which are 0.
//! Passed through: the settings, read-only.
//! Invented: that khugepaged did nothing. The directory `stats` of each size is hidden, as before Linux 6.10: it counts the
//! allocations of the host.

use crate::directory::{Counters, Kind};

/// /sys/kernel/mm/transparent_hugepage.
pub static TRANSPARENT_HUGEPAGE: Counters = Counters::new(
    165,
    "/sys/kernel/mm/transparent_hugepage",
    &["full_scans", "pages_collapsed"],
    |rel| match rel.split_once('/') {
        Some(("khugepaged", "full_scans" | "pages_collapsed")) => Kind::Zero,
        Some((size, below))
            if size.starts_with("hugepages-")
                && (below == "stats" || below.starts_with("stats/")) =>
        {
            Kind::Hidden
        }
        _ => Kind::Kernel,
    },
);
