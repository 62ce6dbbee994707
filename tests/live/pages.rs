//! The views of pages: vmstat, zoneinfo, buddyinfo, pagetypeinfo, slabinfo.

use crate::source::{Cpus, Memory, Verdict, equal, file, keys, steady};
use crate::{LIMITS, Live};

pub(crate) const VIEWS: &[&str] = &[
    "/proc/vmstat",
    "/proc/zoneinfo",
    "/proc/buddyinfo",
    "/proc/pagetypeinfo",
    "/proc/slabinfo",
];

const PAGE: u64 = 4096;

/// Counters of pages, and the keys of memory.stat that are bytes of them.
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
    ("nr_anon_pages", "rss"),
    ("nr_mapped", "mapped_file"),
    ("nr_file_pages", "cache"),
    ("nr_dirty", "dirty"),
    ("nr_writeback", "writeback"),
    ("nr_shmem", "shmem"),
    ("nr_swapcached", "swapcached"),
];

/// Events that v1 counts for a cgroup under the same name.
const EVENTS: &[&str] = &[
    "pgfault",
    "pgmajfault",
    "workingset_refault_anon",
    "workingset_refault_file",
];

/// What a counter has to say.
fn counter(key: &str, memory: &Memory) -> u64 {
    if let Some((_, source)) = PAGES.iter().find(|(name, _)| *name == key) {
        return memory.stat(source) / PAGE;
    }
    match key {
        "nr_free_pages" => memory.free / PAGE,
        "nr_anon_transparent_hugepages" => memory.stat("rss_huge") >> 21,
        _ if EVENTS.contains(&key) => memory.stat(key),
        _ => 0,
    }
}

#[test]
fn privileged_vmstat_has_the_counters_of_the_cgroup_and_otherwise_zeros() {
    let Some(mut live) = Live::start(&LIMITS) else {
        return;
    };
    live.use_memory();
    let kernel = file("/proc/vmstat");
    let judge = |memory: &Memory, view: &str| -> Verdict {
        equal("keys", view.lines().count(), kernel.lines().count())?;
        for (ours, theirs) in view.lines().zip(kernel.lines()) {
            let key = theirs.split(' ').next().unwrap();
            let line = format!("{key} {}", counter(key, memory));
            equal("line", ours.trim_end(), &line)?;
        }
        Ok(())
    };
    let sources = || Memory::read(&live.cgroup);
    steady(sources, || live.seen("/proc/vmstat"), judge);
    let view = keys(&live.seen("/proc/vmstat"));
    assert!(view["nr_anon_pages"] >= 48 << 8, "{view:?}");
    assert!(view["pgfault"] > 0, "{view:?}");
}

#[test]
fn privileged_zoneinfo_is_one_zone_of_the_size_of_the_limit() {
    let Some(mut live) = Live::start(&LIMITS) else {
        return;
    };
    live.use_memory();
    let cpus = Cpus::read(&live.cgroup);
    let judge = |memory: &Memory, view: &str| -> Verdict {
        let zones = view.lines().filter(|line| line.starts_with("Node "));
        equal("zones", zones.count(), 1)?;
        let ids = view
            .lines()
            .filter_map(|line| line.trim().strip_prefix("cpu: "));
        let ids: Vec<u64> = ids.map(|id| id.trim().parse().unwrap()).collect();
        equal("CPUs", &ids, &cpus.visible)?;
        for line in view.lines().filter(|line| !line.contains("cpu: ")) {
            let Some((key, number)) = line.trim().rsplit_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            let key = key.trim().trim_end_matches(':');
            let expected = match key {
                "spanned" | "present" | "managed" => memory.total / PAGE,
                "pages free" => memory.free / PAGE,
                _ => counter(key, memory),
            };
            equal(key, number, expected)?;
        }
        Ok(())
    };
    let sources = || Memory::read(&live.cgroup);
    steady(sources, || live.seen("/proc/zoneinfo"), judge);
    let number = |key: &str| support::number_after(&live.seen("/proc/zoneinfo"), key);
    assert_eq!(number("managed"), (256 << 20) / PAGE);
}

#[test]
fn privileged_buddyinfo_has_the_rows_of_the_kernel_without_pages() {
    let Some(live) = Live::start(&LIMITS) else {
        return;
    };
    let (view, kernel) = (live.seen("/proc/buddyinfo"), file("/proc/buddyinfo"));
    // "Node 0, zone    DMA32" and then a number for each order.
    let expected = kernel.lines().map(|row| {
        let orders = row.split_whitespace().count() - 4;
        let at = row.find("zone").unwrap() + "zone ".len() + 8;
        format!("{} {}", &row[..at], "     0 ".repeat(orders))
    });
    let expected: Vec<String> = expected.map(|row| row.trim_end().to_owned()).collect();
    let rows: Vec<&str> = view.trim_end().lines().map(str::trim_end).collect();
    assert_eq!(rows, expected);
}

#[test]
fn privileged_pagetypeinfo_and_slabinfo_are_the_headers_of_the_kernel() {
    let Some(mut live) = Live::start(&LIMITS) else {
        return;
    };
    let headers = |path: &str, is_header: fn(&&str) -> bool| {
        let (view, kernel) = (live.seen(path), file(path));
        let ours: Vec<&str> = view.lines().collect();
        let theirs: Vec<&str> = kernel.lines().filter(is_header).collect();
        assert_eq!(ours, theirs, "{path}");
    };
    headers("/proc/pagetypeinfo", |line| !line.starts_with("Node "));
    headers("/proc/slabinfo", |line| {
        line.starts_with("slabinfo") || line.starts_with('#')
    });
    for path in ["/proc/pagetypeinfo", "/proc/slabinfo"] {
        let stat = live.container.ask(&["stat", path]);
        assert_eq!(stat[path]["mode"], "400", "{path}");
    }
}
