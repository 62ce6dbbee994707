//! The memory controller of v2 (mm/memcontrol.c).

use crate::Error;
use crate::cgroup::memory::{Keys, MemoryLimits, MemoryUsage, Stat, SwapLimit, number};
use crate::cgroup::{Hierarchy, Limit};

const MAX: &str = "memory.max";
const CURRENT: &str = "memory.current";
const SWAP_MAX: &str = "memory.swap.max";
const SWAP_CURRENT: &str = "memory.swap.current";

pub(crate) fn read_usage(hierarchy: &Hierarchy) -> Result<(MemoryLimits, MemoryUsage), Error> {
    let mut usage = MemoryUsage::default();
    let mut own = 0;
    if let Some((level, text)) = hierarchy.read_nearest(CURRENT)? {
        own = level;
        usage.current_bytes = number(CURRENT, &text)?;
        if let Some(text) = hierarchy.read(level, SWAP_CURRENT)? {
            usage.swap_current_bytes = number(SWAP_CURRENT, &text)?;
        }
        if let Some(text) = hierarchy.read(level, "memory.stat")? {
            usage.stat = Stat::parse(text, Keys::default());
        }
    }
    let limits = walk(hierarchy, own, &mut usage)?;
    Ok((limits, usage))
}

/// Walks up the tree and returns the smallest limits. Adds to `usage` how much they leave. The usage itself is that of
/// the level `own`.
fn walk(hierarchy: &Hierarchy, own: u32, usage: &mut MemoryUsage) -> Result<MemoryLimits, Error> {
    let mut limits = MemoryLimits {
        memory: Limit::Max,
        swap: SwapLimit::Unaccounted,
    };
    let mut swap: Option<Limit> = None;
    for level in hierarchy.levels() {
        if let Some(limit) = read_limit(hierarchy, level, MAX)? {
            limits.memory = limits.memory.min(limit);
            if let Limit::Bytes(_) = limit {
                let current = if level == own {
                    usage.current_bytes
                } else {
                    read_current(hierarchy, level, CURRENT)?
                };
                usage.headroom.narrow(limit, current);
            }
        }
        if let Some(limit) = read_limit(hierarchy, level, SWAP_MAX)? {
            swap = Some(swap.map_or(limit, |smallest| smallest.min(limit)));
            if let Limit::Bytes(_) = limit {
                let current = if level == own {
                    usage.swap_current_bytes
                } else {
                    read_current(hierarchy, level, SWAP_CURRENT)?
                };
                usage.swap_headroom.narrow(limit, current);
            }
        }
    }
    if let Some(limit) = swap {
        limits.swap = SwapLimit::Swap(limit);
    }
    Ok(limits)
}

fn read_limit(
    hierarchy: &Hierarchy,
    level: u32,
    file: &'static str,
) -> Result<Option<Limit>, Error> {
    hierarchy.limit(level, file, Limit::parse_v2)
}

fn read_current(hierarchy: &Hierarchy, level: u32, file: &str) -> Result<u64, Error> {
    match hierarchy.read(level, file)? {
        Some(text) => number(&Hierarchy::name(level, file), &text),
        None => Ok(0),
    }
}
