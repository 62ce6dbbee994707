//! The memory and swap of a container: L is how much it has, F is how much is left.

use crate::cgroup::Limit;
use crate::cgroup::memory::{self, MemoryLimits, MemoryUsage, Stat, SwapLimit};
use crate::text::{fields, lines, parse_u64};
use crate::{Context, Controller, Error};

/// The memory of a container, in bytes.
#[derive(Debug)]
pub struct Memory {
    /// The figures that depend on limits only.
    pub totals: Totals,
    /// F: the memory that the container can still get.
    pub free: u64,
    /// The memory that it can get without swapping.
    pub available: u64,
    /// The swap that is left.
    pub swap_free: u64,
    /// memory.stat with v2's keys.
    pub(crate) stat: Stat,
}

/// Memory and swap in bytes. They change only with limits and hotplug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// L: the smallest limit, at most the host's memory.
    pub memory: u64,
    /// The swap, at most the host's.
    pub swap: u64,
}

/// The figures of the host's /proc/meminfo, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostMemory {
    /// MemTotal.
    pub total: u64,
    /// MemAvailable.
    pub available: u64,
    /// SwapTotal.
    pub swap_total: u64,
}

/// Parses the host's /proc/meminfo.
pub fn parse_host(meminfo: &[u8]) -> Result<HostMemory, Error> {
    let bytes = |key: &str| meminfo_kib(meminfo, key).map(|kib| kib.saturating_mul(1024));
    let malformed = || Error::malformed("/proc/meminfo", "no MemTotal");
    Ok(HostMemory {
        total: bytes("MemTotal:")
            .filter(|total| *total > 0)
            .ok_or_else(malformed)?,
        available: bytes("MemAvailable:").unwrap_or(0),
        swap_total: bytes("SwapTotal:").unwrap_or(0),
    })
}

/// Returns the number of a line of /proc/meminfo. The key includes its colon.
pub(crate) fn meminfo_kib(meminfo: &[u8], key: &str) -> Option<u64> {
    lines(meminfo).find_map(|line| {
        let rest = line.strip_prefix(key.as_bytes())?;
        parse_u64(fields(rest).next()?)
    })
}

/// Reads limits and usage of the container.
pub fn read(cx: &Context<'_>, host: &HostMemory) -> Result<Memory, Error> {
    let (limits, usage) = match cx.cgroup()?.of(Controller::Memory) {
        Some(hierarchy) => memory::read_usage(hierarchy)?,
        None => (UNLIMITED, MemoryUsage::default()),
    };
    Ok(combine(host, &limits, usage, cx.settings.host_clamp))
}

const UNLIMITED: MemoryLimits = MemoryLimits {
    memory: Limit::Max,
    swap: SwapLimit::Unaccounted,
};

fn totals(host: &HostMemory, limits: &MemoryLimits) -> Totals {
    let memory = limits.memory.at_most(host.total);
    let swap = match limits.swap {
        // The swap that the container uses is not known, so it is shown none.
        SwapLimit::Unaccounted => 0,
        SwapLimit::Swap(limit) => limit.at_most(host.swap_total),
        SwapLimit::MemorySwap(limit) => limit.minus(memory).at_most(host.swap_total),
    };
    Totals { memory, swap }
}

fn combine(
    host: &HostMemory,
    limits: &MemoryLimits,
    usage: MemoryUsage,
    host_clamp: bool,
) -> Memory {
    let totals = totals(host, limits);
    let most = if host_clamp { host.available } else { u64::MAX };
    // The second term matters when the limit is above the host's memory, or missing.
    let free = usage
        .headroom
        .0
        .at_most(totals.memory.saturating_sub(usage.current_bytes))
        .min(most);
    let stat = usage.stat;
    let available = ["active_file", "inactive_file", "slab_reclaimable"]
        .iter()
        .fold(free, |sum, key| sum.saturating_add(stat.value(key)))
        .min(totals.memory)
        .min(most);
    let swap_free = usage
        .swap_headroom
        .0
        .at_most(totals.swap.saturating_sub(usage.swap_current_bytes));
    Memory {
        totals,
        free,
        available,
        swap_free,
        stat,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cgroup::memory::{Headroom, Keys};

    const GIB: u64 = 1 << 30;

    fn host() -> HostMemory {
        HostMemory {
            total: 8 * GIB,
            available: 6 * GIB,
            swap_total: 2 * GIB,
        }
    }

    fn usage(current: u64, headroom: Limit) -> MemoryUsage {
        MemoryUsage {
            current_bytes: current,
            headroom: Headroom(headroom),
            ..MemoryUsage::default()
        }
    }

    #[test]
    fn without_a_limit_the_machine_is_the_limit() {
        let memory = combine(&host(), &UNLIMITED, usage(GIB, Limit::Max), false);
        assert_eq!(
            memory.totals,
            Totals {
                memory: 8 * GIB,
                swap: 0
            }
        );
        assert_eq!(memory.free, 7 * GIB);
    }

    #[test]
    fn free_is_never_more_than_the_machine_has_left_unless_configured() {
        let memory = combine(&host(), &UNLIMITED, usage(GIB, Limit::Max), true);
        assert_eq!((memory.free, memory.available), (6 * GIB, 6 * GIB));
    }

    #[test]
    fn a_limit_shared_with_a_sibling_leaves_less() {
        let limits = MemoryLimits {
            memory: Limit::Bytes(GIB),
            ..UNLIMITED
        };
        let memory = combine(
            &host(),
            &limits,
            usage(GIB / 4, Limit::Bytes(GIB / 8)),
            true,
        );
        assert_eq!(memory.free, GIB / 8);
    }

    #[test]
    fn swap_of_v1_is_what_the_common_limit_leaves_beyond_memory() {
        let swap = |memory, memsw| {
            let swap = SwapLimit::MemorySwap(memsw);
            totals(&host(), &MemoryLimits { memory, swap }).swap
        };
        assert_eq!(
            swap(Limit::Bytes(GIB), Limit::Bytes(GIB + GIB / 2)),
            GIB / 2
        );
        assert_eq!(swap(Limit::Bytes(GIB), Limit::Bytes(GIB)), 0);
        assert_eq!(swap(Limit::Bytes(GIB), Limit::Max), 2 * GIB);
        assert_eq!(swap(Limit::Max, Limit::Bytes(GIB)), 0);
    }

    fn limit() -> impl Strategy<Value = Limit> {
        prop_oneof![Just(Limit::Max), any::<u64>().prop_map(Limit::Bytes)]
    }

    proptest! {
        #[test]
        fn parts_are_never_more_than_the_whole(
            host in any::<(u64, u64, u64)>(),
            memory in limit(),
            memsw in limit(),
            is_v1: bool,
            used in any::<(u64, u64)>(),
            headrooms in (limit(), limit()),
            file: u64,
            host_clamp: bool,
        ) {
            let host = HostMemory { total: host.0, available: host.1, swap_total: host.2 };
            let swap = if is_v1 { SwapLimit::MemorySwap(memsw) } else { SwapLimit::Swap(memsw) };
            let usage = MemoryUsage {
                current_bytes: used.0,
                swap_current_bytes: used.1,
                headroom: Headroom(headrooms.0),
                swap_headroom: Headroom(headrooms.1),
                stat: Stat::parse(format!("active_file {file}\ninactive_file {file}\n").into_bytes().into(), Keys::default()),
            };
            let memory = combine(&host, &MemoryLimits { memory, swap }, usage, host_clamp);
            prop_assert!(memory.totals.memory <= host.total);
            prop_assert!(memory.totals.swap <= host.swap_total);
            prop_assert!(memory.free <= memory.available);
            prop_assert!(memory.available <= memory.totals.memory);
            prop_assert!(memory.swap_free <= memory.totals.swap);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse_host(&bytes);
        }
    }
}
