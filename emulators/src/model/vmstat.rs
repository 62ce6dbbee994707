//! The counters of /proc/vmstat, zoneinfo and a node's vmstat.

use crate::model::memory::Memory;
use crate::text::parse_u64;
use crate::{Context, Error};

/// Returns the number of bytes in a page, by libc: it knows it already. rustix would look for it in the auxiliary
/// vector, which it reads from /proc before Linux 6.4, and panics if it cannot.
fn page_size() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    size.ok()
        .flatten()
        .and_then(|size| u64::try_from(size).ok())
        .filter(|size| *size > 0)
        .unwrap_or(4096)
}

/// The counters in pages, each with its key in memory.stat, which is in bytes.
const PAGES: &[(&str, &str)] = &[
    ("nr_inactive_anon", "inactive_anon"),
    ("nr_active_anon", "active_anon"),
    ("nr_inactive_file", "inactive_file"),
    ("nr_active_file", "active_file"),
    ("nr_unevictable", "unevictable"),
    ("nr_zone_inactive_anon", "inactive_anon"),
    ("nr_zone_active_anon", "active_anon"),
    ("nr_zone_inactive_file", "inactive_file"),
    ("nr_zone_active_file", "active_file"),
    ("nr_zone_unevictable", "unevictable"),
    ("nr_slab_reclaimable", "slab_reclaimable"),
    ("nr_slab_unreclaimable", "slab_unreclaimable"),
    ("nr_anon_pages", "anon"),
    ("nr_mapped", "file_mapped"),
    ("nr_file_pages", "file"),
    ("nr_dirty", "file_dirty"),
    ("nr_writeback", "file_writeback"),
    ("nr_shmem", "shmem"),
    ("nr_page_table_pages", "pagetables"),
    ("nr_sec_page_table_pages", "sec_pagetables"),
    ("nr_swapcached", "swapcached"),
];

/// The counters of transparent huge pages. The kernel counts huge pages here, not small ones.
const HUGE_PAGES: &[(&str, &str)] = &[
    ("nr_anon_transparent_hugepages", "anon_thp"),
    ("nr_shmem_hugepages", "shmem_thp"),
    ("nr_file_hugepages", "file_thp"),
];

/// The events that have another name in memory.stat.
const EVENTS: &[(&str, &str)] = &[("pswpin", "swpin"), ("pswpout", "swpout")];

/// The sizes that a counter of pages depends on.
#[derive(Debug, Clone, Copy)]
pub struct Units {
    /// The number of bytes in a page.
    pub page: u64,
    /// The number of bytes in a transparent huge page; 0 if unknown.
    pub huge_page: u64,
}

/// Reads the sizes of this host.
pub fn read_units(cx: &Context<'_>) -> Result<Units, Error> {
    let text = cx
        .host
        .read_optional("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")?;
    // 2 MiB is the size on x86, and with small pages on arm64.
    let huge_page = text.as_deref().and_then(parse_u64).unwrap_or(2 << 20);
    Ok(Units {
        page: page_size(),
        huge_page,
    })
}

/// Returns the value of a counter; 0 if the cgroup has no such figure.
pub fn value(key: &str, memory: &Memory, units: &Units) -> u64 {
    let stat = &memory.stat;
    let find = |table: &[(&str, &'static str)]| {
        table
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, key)| *key)
    };
    let page = units.page.max(1);
    match key {
        "nr_free_pages" => return memory.free / page,
        // This counter is in KiB, as NR_KERNEL_STACK_KB.
        "nr_kernel_stack" => return stat.value("kernel_stack") / 1024,
        _ => {}
    }
    if let Some(key) = find(PAGES) {
        return stat.value(key).min(memory.totals.memory) / page;
    }
    if let Some(key) = find(HUGE_PAGES) {
        return stat.value(key).checked_div(units.huge_page).unwrap_or(0);
    }
    // With v1 these names count charges. In the kernel's file they are KiB of block I/O.
    if matches!(key, "pgpgin" | "pgpgout") || key.starts_with("nr_") {
        return 0;
    }
    stat.find(key)
        .or_else(|| stat.find(find(EVENTS)?))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::memory::{Keys, Stat};
    use crate::model::memory::Totals;

    #[test]
    fn bytes_become_pages_and_events_stay_events() {
        let stat =
            "anon 8192\nanon_thp 4194304\npgfault 77\npgpgin 9\nswpin 5\nkernel_stack 32768\n";
        let memory = Memory {
            totals: Totals {
                memory: 1 << 20,
                swap: 0,
            },
            free: 40960,
            available: 40960,
            swap_free: 0,
            stat: Stat::parse(stat.as_bytes().to_vec().into(), Keys::default()),
        };
        let units = Units {
            page: 4096,
            huge_page: 2 << 20,
        };
        let value = |key| value(key, &memory, &units);
        assert_eq!(value("nr_free_pages"), 10);
        assert_eq!(value("nr_anon_pages"), 2);
        assert_eq!(value("nr_anon_transparent_hugepages"), 2);
        assert_eq!(value("nr_kernel_stack"), 32);
        assert_eq!(value("pgfault"), 77);
        assert_eq!(value("pswpin"), 5);
        assert_eq!(value("pgpgin"), 0);
        assert_eq!(value("anything"), 0);
    }
}
