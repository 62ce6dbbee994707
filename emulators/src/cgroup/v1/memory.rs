//! The memory controller of v1 (mm/memcontrol-v1.c).

use crate::Error;
use crate::cgroup::memory::{MemoryLimits, MemoryUsage, Stat, SwapLimit, number};
use crate::cgroup::{Hierarchy, Limit};
use crate::text::lines;

const LIMIT: &str = "memory.limit_in_bytes";
const USAGE: &str = "memory.usage_in_bytes";
const MEMSW_LIMIT: &str = "memory.memsw.limit_in_bytes";
const MEMSW_USAGE: &str = "memory.memsw.usage_in_bytes";

/// What v1 calls differently. `rss` is NR_ANON_MAPPED, `cache` NR_FILE_PAGES, as v2's keys are.
const RENAMED: &[(&[u8], &[u8])] = &[
    (b"cache", b"file"),
    (b"rss", b"anon"),
    (b"rss_huge", b"anon_thp"),
    (b"mapped_file", b"file_mapped"),
    (b"dirty", b"file_dirty"),
    (b"writeback", b"file_writeback"),
];

pub(crate) fn read_limits(hierarchy: &Hierarchy) -> Result<MemoryLimits, Error> {
    walk(hierarchy, None)
}

pub(crate) fn read_usage(hierarchy: &Hierarchy) -> Result<(MemoryLimits, MemoryUsage), Error> {
    let mut usage = MemoryUsage::default();
    if let Some((level, text)) = hierarchy.read_nearest(USAGE)? {
        usage.current_bytes = number(USAGE, &text)?;
        if let Some(text) = hierarchy.read(level, MEMSW_USAGE)? {
            usage.swap_current_bytes =
                number(MEMSW_USAGE, &text)?.saturating_sub(usage.current_bytes);
        }
        if let Some(text) = hierarchy.read(level, "memory.stat")? {
            usage.stat = Stat::parse(translate(&text));
        }
    }
    let limits = walk(hierarchy, Some(&mut usage))?;
    Ok((limits, usage))
}

/// Goes up the tree for the smallest limits, and for what they leave where that is asked for.
fn walk(hierarchy: &Hierarchy, mut usage: Option<&mut MemoryUsage>) -> Result<MemoryLimits, Error> {
    let mut limits = MemoryLimits {
        memory: Limit::Max,
        swap: SwapLimit::Unaccounted,
    };
    let mut memsw: Option<Limit> = None;
    for level in hierarchy.levels() {
        if let Some(limit) = read_limit(hierarchy, level, LIMIT)? {
            limits.memory = limits.memory.min(limit);
            if let (Some(usage), Limit::Bytes(_)) = (usage.as_deref_mut(), limit) {
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
        // Without swap accounting no level has the file: one look is enough.
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

fn read_limit(hierarchy: &Hierarchy, level: u32, file: &str) -> Result<Option<Limit>, Error> {
    let Some(text) = hierarchy.read(level, file)? else {
        return Ok(None);
    };
    let malformed = || Error::malformed(&Hierarchy::name(level, file), "not a number");
    Limit::parse_v1(&text).ok_or_else(malformed).map(Some)
}

/// memory.stat with v2's keys: the `total_` lines, which count the whole subtree as v2 does.
fn translate(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for line in lines(text) {
        let Some(line) = line.strip_prefix(b"total_") else {
            continue;
        };
        let end = line
            .iter()
            .position(|&byte| byte == b' ')
            .unwrap_or(line.len());
        let (key, value) = line.split_at_checked(end).unwrap_or((line, b""));
        let renamed = RENAMED
            .iter()
            .find(|(old, _)| *old == key)
            .map_or(key, |(_, new)| *new);
        out.extend_from_slice(renamed);
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_get_the_names_of_v2() {
        let text = b"cache 1\nrss 2\nhierarchical_memory_limit 9\ntotal_cache 10\ntotal_rss 20\n\
            total_rss_huge 30\ntotal_active_file 40\n";
        assert_eq!(
            translate(text),
            b"file 10\nanon 20\nanon_thp 30\nactive_file 40\n"
        );
    }
}
