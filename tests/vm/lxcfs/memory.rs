//! The rows about memory.

use super::table::{Table, number};
use super::{CGROUP, MACHINE, MEMINFO};

/// Kibibytes by which the cgroup's usage may be ahead of what it uses.
const BATCHES: u64 = 2 * 64 * 4;

pub(crate) fn rows(table: &mut Table<'_>) {
    let stat = table.text("cgroup", "/memory.stat");
    let machine = table.text("machine", MEMINFO);
    let (lxcfs, ours) = table.texts(MEMINFO);
    let both = |key: &str| (number(&lxcfs, key), number(&ours, key));
    for (key, source) in [
        ("Dirty", "file_dirty"),
        ("Mapped", "file_mapped"),
        ("AnonHugePages", "anon_thp"),
    ] {
        let cgroup = number(&stat, source) / 1024;
        let found = both(key);
        table.row(
            ["meminfo", key, "0", CGROUP],
            found == (0, cgroup) && cgroup > 0,
            (found, cgroup),
        );
    }
    for (key, source) in [
        ("KReclaimable", "slab_reclaimable"),
        ("KernelStack", "kernel_stack"),
        ("PageTables", "pagetables"),
        ("VmallocUsed", "vmalloc"),
        ("Percpu", "percpu"),
    ] {
        let cgroup = number(&stat, source) / 1024;
        let (found, of_machine) = (both(key), number(&machine, key));
        let holds = found.1 == cgroup && found.0.abs_diff(of_machine) <= of_machine / 2;
        table.row(
            ["meminfo", key, MACHINE, CGROUP],
            holds,
            (found, cgroup, of_machine),
        );
    }
    let found = both("CommitLimit");
    let of_machine = number(&machine, "CommitLimit");
    // Half of the memory, and the swap.
    let holds = found == (of_machine, (128 + 32) << 10);
    table.row(
        ["meminfo", "CommitLimit", MACHINE, "of its limits"],
        holds,
        found,
    );
    let found = both("Committed_AS");
    let used = (number(&stat, "anon") + number(&stat, "shmem")) / 1024;
    let swapped = number(&ours, "SwapTotal") - number(&ours, "SwapFree");
    let holds = found.1 == used + swapped && found.0 > found.1;
    table.row(
        ["meminfo", "Committed_AS", MACHINE, "what it uses"],
        holds,
        (found, used),
    );
    for key in ["DirectMap4k", "DirectMap2M"] {
        let found = both(key);
        table.row(
            ["meminfo", key, MACHINE, "0"],
            found.1 == 0 && found.0 == number(&machine, key),
            found,
        );
    }
    let found = both("Slab");
    let parts = number(&ours, "SReclaimable") + number(&ours, "SUnreclaim");
    let holds = found == (number(&stat, "slab") / 1024, parts);
    table.row(
        [
            "meminfo",
            "Slab",
            "rounded as a whole",
            "the sum of its lines",
        ],
        holds,
        (found, parts),
    );
    // It may well be 0 for both.
    let (found, cgroup) = (both("SwapCached"), number(&stat, "swapcached") / 1024);
    let cells = ["meminfo", "SwapCached", "0", CGROUP];
    table.row(cells, found == (0, cgroup), (found, cgroup));
    let lists = number(&stat, "active_anon") + number(&stat, "inactive_anon");
    let rest = lists.saturating_sub(number(&stat, "shmem")) / 1024;
    let (found, cgroup) = (both("AnonPages"), number(&stat, "anon") / 1024);
    let cells = [
        "meminfo",
        "AnonPages",
        "with those in the swap cache",
        CGROUP,
    ];
    table.row(cells, found == (rest, cgroup), (found, rest, cgroup));
    // What both take from the cgroup.
    for (key, source) in [("Shmem", "shmem"), ("Cached", "file")] {
        let (found, cgroup) = (both(key), number(&stat, source) / 1024);
        if found != (cgroup, cgroup) {
            table.fail(format!("{key}: {found:?}, the cgroup's {cgroup}"));
        }
    }
    // Reading takes some for a moment, and each of the two CPUs charges it 64 pages at a time.
    let free = (256 << 10) - number(&table.text("cgroup", "/memory.current"), "") / 1024;
    let lists = number(&stat, "active_file") + number(&stat, "inactive_file");
    let available = free + (lists + number(&stat, "slab_reclaimable")) / 1024;
    for (key, cgroup) in [("MemFree", free), ("MemAvailable", available)] {
        let found = both(key);
        if found.0.abs_diff(cgroup) > BATCHES || found.1.abs_diff(cgroup) > BATCHES {
            table.fail(format!("{key}: {found:?}, the cgroup's {cgroup}"));
        }
    }
    let swapped = number(&table.text("cgroup", "/memory.swap.current"), "") / 1024;
    let found = both("SwapFree");
    if swapped == 0 || found != ((32 << 10) - swapped, (32 << 10) - swapped) {
        table.fail(format!("SwapFree: {found:?} with {swapped} in use"));
    }
}
