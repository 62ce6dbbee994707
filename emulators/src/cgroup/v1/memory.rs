//! The memory controller of v1 (mm/memcontrol-v1.c).

use crate::Error;
use crate::cgroup::memory::{Keys, MemoryLimits, MemoryUsage, Stat, SwapLimit, number};
use crate::cgroup::{Hierarchy, Limit};

const LIMIT: &str = "memory.limit_in_bytes";
const USAGE: &str = "memory.usage_in_bytes";
const MEMSW_LIMIT: &str = "memory.memsw.limit_in_bytes";
const MEMSW_USAGE: &str = "memory.memsw.usage_in_bytes";

/// The keys that v1 names differently. `rss` is NR_ANON_MAPPED and `cache` is NR_FILE_PAGES, as v2's keys are.
const RENAMED: &[(&[u8], &[u8])] = &[
    (b"cache", b"file"),
    (b"rss", b"anon"),
    (b"rss_huge", b"anon_thp"),
    (b"mapped_file", b"file_mapped"),
    (b"dirty", b"file_dirty"),
    (b"writeback", b"file_writeback"),
];

/// The `total_` lines include the whole subtree, as all lines of v2 do.
const KEYS: Keys = Keys {
    prefix: b"total_",
    renamed: RENAMED,
};

pub(crate) fn read_usage(hierarchy: &Hierarchy) -> Result<(MemoryLimits, MemoryUsage), Error> {
    let mut usage = MemoryUsage::default();
    if let Some((level, text)) = hierarchy.read_nearest(USAGE)? {
        usage.current_bytes = number(USAGE, &text)?;
        if let Some(text) = hierarchy.read(level, MEMSW_USAGE)? {
            usage.swap_current_bytes =
                number(MEMSW_USAGE, &text)?.saturating_sub(usage.current_bytes);
        }
        if let Some(text) = hierarchy.read(level, "memory.stat")? {
            usage.stat = Stat::parse(text, KEYS);
        }
    }
    let limits = walk(hierarchy, &mut usage)?;
    Ok((limits, usage))
}

/// Walks up the tree and returns the smallest limits. Adds to `usage` how much they leave.
fn walk(hierarchy: &Hierarchy, usage: &mut MemoryUsage) -> Result<MemoryLimits, Error> {
    let mut limits = MemoryLimits {
        memory: Limit::Max,
        swap: SwapLimit::Unaccounted,
    };
    let mut memsw: Option<Limit> = None;
    for level in hierarchy.levels() {
        if let Some(limit) = read_limit(hierarchy, level, LIMIT)? {
            limits.memory = limits.memory.min(limit);
            if let Limit::Bytes(_) = limit {
                let current = match level {
                    0 => usage.current_bytes,
                    _ => match hierarchy.read(level, USAGE)? {
                        Some(text) => number(&Hierarchy::name(level, USAGE), &text)?,
                        None => 0,
                    },
                };
                usage.headroom.narrow(limit, current);
            }
        }
        // Without swap accounting no level has the file.
        if (level == 0 || memsw.is_some())
            && let Some(limit) = read_limit(hierarchy, level, MEMSW_LIMIT)?
        {
            memsw = Some(memsw.map_or(limit, |smallest| smallest.min(limit)));
        }
    }
    if let Some(limit) = memsw {
        limits.swap = SwapLimit::MemorySwap(limit);
    }
    Ok(limits)
}

fn read_limit(
    hierarchy: &Hierarchy,
    level: u32,
    file: &'static str,
) -> Result<Option<Limit>, Error> {
    hierarchy.limit(level, file, Limit::parse_v1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_get_the_names_of_v2() {
        let text = b"cache 1\nrss 2\nhierarchical_memory_limit 9\ntotal_cache 10\ntotal_rss 20\n\
            total_rss_huge 30\ntotal_active_file 40\n";
        let stat = Stat::parse(text.to_vec().into(), KEYS);
        let value = |key| stat.find(key);
        assert_eq!((value("file"), value("anon")), (Some(10), Some(20)));
        assert_eq!(
            (value("anon_thp"), value("active_file")),
            (Some(30), Some(40))
        );
        for key in ["cache", "rss", "total_rss", "hierarchical_memory_limit"] {
            assert_eq!(value(key), None);
        }
    }
}
