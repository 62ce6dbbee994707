//! /proc/meminfo line by line, and /proc/swaps.

use crate::source::{Memory, Verdict, dir, equal, file, steady};
use crate::{LIMITS, Live, ONE_CPU};

pub(crate) const VIEWS: &[&str] = &["/proc/meminfo", "/proc/swaps"];

/// What a line has to say, in KiB; none for constants of the machine.
fn expected(key: &str, memory: &Memory) -> Option<u64> {
    let kib = |key: &str| memory.stat(key) / 1024;
    Some(match key {
        "MemTotal" => memory.total / 1024,
        "MemFree" => memory.free / 1024,
        "MemAvailable" => {
            let cache = memory.stat("active_file") + memory.stat("inactive_file");
            (memory.free + cache).min(memory.total) / 1024
        }
        "Cached" => kib("cache"),
        "SwapCached" => kib("swapcached"),
        "Active" => kib("active_anon") + kib("active_file"),
        "Inactive" => kib("inactive_anon") + kib("inactive_file"),
        "Active(anon)" => kib("active_anon"),
        "Inactive(anon)" => kib("inactive_anon"),
        "Active(file)" => kib("active_file"),
        "Inactive(file)" => kib("inactive_file"),
        "Unevictable" => kib("unevictable"),
        "Dirty" => kib("dirty"),
        "Writeback" => kib("writeback"),
        "AnonPages" => kib("rss"),
        "Mapped" => kib("mapped_file"),
        "Shmem" => kib("shmem"),
        "AnonHugePages" => kib("rss_huge"),
        "CommitLimit" => {
            let ratio: u64 = file("/proc/sys/vm/overcommit_ratio")
                .trim()
                .parse()
                .unwrap();
            memory.total / 1024 * ratio / 100 + memory.swap_total / 1024
        }
        "Committed_AS" => {
            let swapped = (memory.swap_total - memory.swap_free) / 1024;
            (memory.stat("rss") + memory.stat("shmem")) / 1024 + swapped
        }
        "SwapTotal" => memory.swap_total / 1024,
        "SwapFree" => memory.swap_free / 1024,
        "Hugepagesize" | "VmallocTotal" => return None,
        _ => 0,
    })
}

/// Every line, in the order and with the unit of the kernel.
pub(crate) fn judge(memory: &Memory, view: &str) -> Verdict {
    let kernel = file("/proc/meminfo");
    equal("lines", view.lines().count(), kernel.lines().count())?;
    for (ours, theirs) in view.lines().zip(kernel.lines()) {
        let (key, machine) = theirs.split_once(':').unwrap();
        let words: Vec<&str> = machine.split_whitespace().collect();
        let number = expected(key, memory).map_or_else(|| words[0].to_owned(), |n| n.to_string());
        let unit = words
            .get(1)
            .map_or(String::new(), |unit| format!(" {unit}"));
        let line = format!("{:<16}{number:>8}{unit}", format!("{key}:"));
        equal(key, ours.trim_end(), &line)?;
    }
    Ok(())
}

#[track_caller]
fn same(live: &Live) {
    let sources = || Memory::read(&live.cgroup);
    steady(sources, || live.seen("/proc/meminfo"), judge);
}

#[test]
fn privileged_each_line_of_meminfo_is_the_figure_of_the_cgroup() {
    let Some(mut live) = Live::start(&LIMITS) else {
        return;
    };
    same(&live);
    live.use_memory();
    let memory = Memory::read(&live.cgroup);
    assert_eq!(memory.total, 256 << 20);
    same(&live);
    // The container reads the same as the test does from outside.
    let sources = || Memory::read(&live.cgroup);
    let container = std::cell::RefCell::new(&mut live.container);
    let view = || container.borrow_mut().read("/proc/meminfo");
    let of_memory = |memory: &Memory, view: &str| {
        let used = memory.total - memory.free;
        let seen =
            support::number_after(view, "MemTotal:") - support::number_after(view, "MemFree:");
        // To read takes some memory for a moment.
        equal(
            "used, in MiB",
            (seen + 512) >> 10,
            (used / 1024 + 512) >> 10,
        )
    };
    steady(sources, view, of_memory);
}

#[test]
fn privileged_meminfo_follows_a_limit_that_changes() {
    let Some(mut live) = Live::start(&LIMITS) else {
        return;
    };
    live.use_memory();
    for mib in [128u64, 512] {
        let limit = dir(&live.cgroup, "memory").join("memory.limit_in_bytes");
        std::fs::write(limit, (mib << 20).to_string()).unwrap();
        assert_eq!(Memory::read(&live.cgroup).total, mib << 20);
        same(&live);
    }
}

#[test]
fn privileged_without_a_limit_the_memory_is_the_machines_less_what_the_cgroup_uses() {
    let Some(live) = Live::start(&ONE_CPU) else {
        return;
    };
    let view = live.seen("/proc/meminfo");
    let machine = file("/proc/meminfo");
    let number = |text: &str, key: &str| support::number_after(text, key);
    assert_eq!(number(&view, "MemTotal:"), number(&machine, "MemTotal:"));
    // The one figure of the host that may show: what the machine has left.
    let most = Memory::read(&live.cgroup).free / 1024;
    assert!(number(&view, "MemFree:") <= most, "{view}");
    assert!(
        number(&view, "MemAvailable:") <= number(&view, "MemTotal:"),
        "{view}"
    );
}

#[test]
fn privileged_swaps_has_a_row_only_where_there_is_swap() {
    let Some(live) = Live::start(&LIMITS) else {
        return;
    };
    let (view, kernel) = (live.seen("/proc/swaps"), file("/proc/swaps"));
    let mut rows = view.trim_end().lines();
    assert_eq!(rows.next(), kernel.lines().next());
    let total = support::number_after(&live.seen("/proc/meminfo"), "SwapTotal:");
    match rows.next() {
        Some(row) => {
            let words: Vec<&str> = row.split_whitespace().collect();
            assert_eq!(words[..2], ["none", "partition"], "{row}");
            assert_eq!(words[2], total.to_string(), "{row}");
            assert_eq!(words[4], "-2", "{row}");
        }
        None => assert_eq!(total, 0),
    }
    assert_eq!(rows.next(), None);
}
