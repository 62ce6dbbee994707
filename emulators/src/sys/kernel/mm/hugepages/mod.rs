//! /sys/kernel/mm/hugepages: the huge pages of each size.
//!
//! Format: mm/hugetlb.c.
//! Virtual: the pages that the container's limit allows and the host has, and how many of them are free, as in
//! /proc/meminfo.
//! Passed through: the settings, read-only.
//! Invented: that nothing is reserved, and nothing beyond the host's pool is in use.

use crate::cgroup::memory::number;
use crate::directory::{Counters, Kind};
use crate::model::hugepages::{self, HugePages};
use crate::{Context, Error};

/// /sys/kernel/mm/hugepages.
pub static HUGEPAGES: Counters = Counters::new(
    164,
    "/sys/kernel/mm/hugepages",
    &[
        "nr_hugepages",
        "nr_hugepages_mempolicy",
        "free_hugepages",
        "resv_hugepages",
        "surplus_hugepages",
    ],
    |rel| match rel.split_once('/') {
        Some((_, "nr_hugepages" | "nr_hugepages_mempolicy")) => {
            Kind::Number(0o644, |cx, path| Ok(read(cx, path)?.total))
        }
        Some((_, "free_hugepages")) => Kind::Number(0o444, |cx, path| Ok(read(cx, path)?.free)),
        Some((_, "resv_hugepages" | "surplus_hugepages")) => Kind::Zero,
        // It gives orders, and cannot be read.
        Some((_, "demote")) => Kind::Hidden,
        _ => Kind::Kernel,
    },
);

/// Reads the huge pages of the size in whose directory the file at `path` is: hugepages-2048kB.
fn read(cx: &Context<'_>, path: &str) -> Result<HugePages, Error> {
    let (directory, _) = path.rsplit_once('/').unwrap_or_default();
    let (_, name) = directory.rsplit_once('/').unwrap_or_default();
    let kib = name
        .strip_prefix("hugepages-")
        .and_then(|size| size.strip_suffix("kB")?.parse().ok())
        .ok_or_else(|| Error::malformed(directory, "not a size of huge pages"))?;
    let pool = format!("{directory}/nr_hugepages");
    let pages = number(&pool, &cx.host.read(&pool)?)?;
    hugepages::read(cx, kib, pages)
}
