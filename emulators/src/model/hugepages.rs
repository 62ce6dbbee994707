//! The huge pages of a container, for the files that show them.

use crate::cgroup::Limit;
use crate::cgroup::memory::read_hugetlb;
use crate::{Context, Controller, Error};

/// Huge pages of one size.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HugePages {
    pub(crate) total: u64,
    pub(crate) free: u64,
}

/// Reads the number of huge pages of a size that the limit allows and the host has, and how many of them are free. The host
/// has `pool` of them. Without the controller there are none.
pub(crate) fn read(cx: &Context<'_>, page_kib: u64, pool: u64) -> Result<HugePages, Error> {
    let page = page_kib.saturating_mul(1024);
    if pool == 0 || page == 0 {
        return Ok(HugePages::default());
    }
    let usage = match cx.cgroup()?.of(Controller::Hugetlb) {
        Some(hierarchy) => read_hugetlb(hierarchy, page_kib)?,
        None => None,
    };
    let Some((limit, current)) = usage else {
        return Ok(HugePages::default());
    };
    let total = match limit {
        Limit::Bytes(bytes) => (bytes / page).min(pool),
        Limit::Max => pool,
    };
    Ok(HugePages {
        total,
        free: total.saturating_sub(current / page),
    })
}
