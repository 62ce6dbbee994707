//! The expected views of a container, computed a second time from the files of its cgroup.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::time::{Duration, Instant};

use crate::Result;
use crate::cgroup::Cgroup;

/// How long a comparison is tried again while figures move.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes by which what is left may differ: reading a file takes some memory for a moment.
pub(crate) const SLACK: u64 = 128 << 10;

/// The machine's own file.
pub(crate) fn host(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|e| format!("read {path}: {e}"))
}

/// Figures that a view is computed from, and whether they have changed.
pub(crate) trait Still: Debug {
    fn is_still(&self, later: &Self) -> bool;
}

impl Still for String {
    fn is_still(&self, later: &Self) -> bool {
        self == later
    }
}

/// Reads sources, a view, and the sources again, until the sources have stood still meanwhile and
/// the view agrees with them. A view may be as old as its freshness, so one that disagrees is
/// looked at again, but not for long.
pub(crate) fn steady<S: Still>(
    mut sources: impl FnMut() -> Result<S>,
    mut view: impl FnMut() -> Result<String>,
    judge: impl Fn(&S, &str) -> Result<()>,
) -> Result<()> {
    let started = Instant::now();
    let (mut moved, mut wrong) = (None, None);
    while started.elapsed() < PATIENCE {
        let before = sources()?;
        let seen = view()?;
        let after = sources()?;
        if !before.is_still(&after) {
            moved = Some((before, after));
            continue;
        }
        match judge(&before, &seen) {
            Ok(()) => return Ok(()),
            Err(error) => wrong = Some(error),
        }
    }
    Err(wrong.unwrap_or_else(|| format!("its sources do not stand still: {moved:?}")))
}

/// Waits until a view agrees. One that was opened more than `bound` after now must agree at once.
pub(crate) fn within(
    bound: Duration,
    mut view: impl FnMut() -> Result<String>,
    judge: impl Fn(&str) -> Result<()>,
) -> Result<()> {
    let started = Instant::now();
    loop {
        let opened = started.elapsed();
        let seen = view()?;
        match judge(&seen) {
            Ok(()) => return Ok(()),
            Err(error) if opened > bound => {
                return Err(format!("{opened:?} after the change: {error}"));
            }
            Err(_) => {}
        }
    }
}

/// The figures of the memory controller that views of memory are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Memory {
    /// The amounts in memory.stat, in bytes.
    stat: BTreeMap<String, u64>,
    /// The events in memory.stat.
    pub(crate) events: BTreeMap<String, u64>,
    /// The smallest limit on the way up, at most the machine's memory, in bytes.
    pub(crate) total: u64,
    /// What is left under all limits, in bytes.
    pub(crate) free: u64,
    pub(crate) swap_total: u64,
    pub(crate) swap_free: u64,
    pub(crate) huge_total: u64,
    pub(crate) huge_free: u64,
}

/// The smallest limit, and the least that a limit leaves, on the way up.
fn narrowest(cgroup: &Cgroup, max: &str, current: &str) -> Result<(Option<u64>, Option<u64>)> {
    let (mut limit, mut left) = (None, None);
    for level in cgroup.line() {
        if let Some(here) = level.number(max)? {
            let used = level.number(current)?.unwrap_or(0);
            let rest = here.saturating_sub(used);
            limit = Some(limit.map_or(here, |limit: u64| limit.min(here)));
            left = Some(left.map_or(rest, |left: u64| left.min(rest)));
        }
    }
    Ok((limit, left))
}

impl Memory {
    pub(crate) fn read(cgroup: &Cgroup) -> Result<Self> {
        let machine = meminfo(&host("/proc/meminfo")?);
        let of_machine = |key: &str| machine.get(key).copied().unwrap_or(0);
        let whole = of_machine("MemTotal") * 1024;
        let (limit, left) = narrowest(cgroup, "memory.max", "memory.current")?;
        let total = limit.map_or(whole, |limit| limit.min(whole));
        let current = cgroup.number("memory.current")?.unwrap_or(0);
        let rest = total.saturating_sub(current);
        let free = left.map_or(rest, |left| left.min(rest));

        let whole = of_machine("SwapTotal") * 1024;
        let (limit, left) = narrowest(cgroup, "memory.swap.max", "memory.swap.current")?;
        let swap_total = limit.map_or(whole, |limit| limit.min(whole));
        let current = cgroup.number("memory.swap.current")?.unwrap_or(0);
        let rest = swap_total.saturating_sub(current);
        let swap_free = left.map_or(rest, |left| left.min(rest));

        let machine_pages = of_machine("HugePages_Total");
        let (mut huge_total, mut huge_free) = (0, 0);
        if cgroup.has("hugetlb.2MB.max") && machine_pages > 0 {
            let (limit, _) = narrowest(cgroup, "hugetlb.2MB.max", "hugetlb.2MB.current")?;
            let used = cgroup.number("hugetlb.2MB.current")?.unwrap_or(0) >> 21;
            huge_total = limit.map_or(machine_pages, |limit| (limit >> 21).min(machine_pages));
            huge_free = huge_total.saturating_sub(used);
        }
        let (events, stat) = cgroup
            .keys("memory.stat")?
            .into_iter()
            .partition(|(key, _)| is_event(key));
        Ok(Self {
            stat,
            events,
            total,
            free,
            swap_total,
            swap_free,
            huge_total,
            huge_free,
        })
    }

    /// A key of memory.stat; one that this kernel does not have is zero.
    pub(crate) fn stat(&self, key: &str) -> u64 {
        self.stat.get(key).copied().unwrap_or(0)
    }

    fn kib(&self, key: &str) -> u64 {
        self.stat(key) / 1024
    }

    /// What a line of /proc/meminfo has to say, in KiB or pages; none for constants of the machine.
    pub(crate) fn line(&self, key: &str) -> Option<u64> {
        let kib = |key| self.kib(key);
        let used = kib("anon") + kib("shmem");
        let swapped = (self.swap_total - self.swap_free) / 1024;
        Some(match key {
            "MemTotal" => self.total / 1024,
            "MemFree" => self.free / 1024,
            "MemAvailable" => {
                let cache = ["active_file", "inactive_file", "slab_reclaimable"];
                let cache: u64 = cache.iter().map(|key| self.stat(key)).sum();
                (self.free + cache).min(self.total) / 1024
            }
            "Cached" => kib("file"),
            "SwapCached" => kib("swapcached"),
            "Active" => kib("active_anon") + kib("active_file"),
            "Inactive" => kib("inactive_anon") + kib("inactive_file"),
            "Active(anon)" => kib("active_anon"),
            "Inactive(anon)" => kib("inactive_anon"),
            "Active(file)" => kib("active_file"),
            "Inactive(file)" => kib("inactive_file"),
            "Unevictable" => kib("unevictable"),
            "SwapTotal" => self.swap_total / 1024,
            "SwapFree" => self.swap_free / 1024,
            "Zswap" => kib("zswap"),
            "Zswapped" => kib("zswapped"),
            "Dirty" => kib("file_dirty"),
            "Writeback" => kib("file_writeback"),
            "AnonPages" => kib("anon"),
            "Mapped" => kib("file_mapped"),
            "Shmem" => kib("shmem"),
            "KReclaimable" | "SReclaimable" => kib("slab_reclaimable"),
            "Slab" => kib("slab_reclaimable") + kib("slab_unreclaimable"),
            "SUnreclaim" => kib("slab_unreclaimable"),
            "KernelStack" => kib("kernel_stack"),
            "PageTables" => kib("pagetables"),
            "SecPageTables" => kib("sec_pagetables"),
            "Percpu" => kib("percpu"),
            "VmallocUsed" => kib("vmalloc"),
            "AnonHugePages" => kib("anon_thp"),
            "ShmemHugePages" => kib("shmem_thp"),
            "FileHugePages" => kib("file_thp"),
            // The machine's overcommit_ratio is the kernel's default.
            "CommitLimit" => self.total / 1024 * 50 / 100 + self.swap_total / 1024,
            "Committed_AS" => used.min(self.total / 1024) + swapped,
            "HugePages_Total" => self.huge_total,
            "HugePages_Free" => self.huge_free,
            "Hugetlb" => self.huge_total * 2048,
            "Hugepagesize" | "VmallocTotal" => return None,
            _ => 0,
        })
    }
}

impl Still for Memory {
    /// Events are counted all the time, and some bytes are in use only while a file is read. Views show whole KiB.
    fn is_still(&self, later: &Self) -> bool {
        let coarse = |memory: &Self| Self {
            stat: memory
                .stat
                .iter()
                .map(|(key, bytes)| (key.clone(), bytes / 1024))
                .collect(),
            events: self.events.clone(),
            free: memory.free - memory.free % SLACK,
            ..memory.clone()
        };
        coarse(self) == coarse(later)
    }
}

/// Keys of memory.stat that count what has happened.
fn is_event(key: &str) -> bool {
    [
        "pg",
        "thp_",
        "workingset_",
        "swp",
        "zswp",
        "numa_",
        "hugetlb",
    ]
    .iter()
    .any(|start| key.starts_with(start))
}

/// The numbers of /proc/meminfo.
pub(crate) fn meminfo(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (key, rest) = line.split_once(':')?;
            let number = rest.split_ascii_whitespace().next()?;
            Some((key.to_owned(), number.parse().ok()?))
        })
        .collect()
}

/// The CPUs of a cgroup: those it may run on, and those that its quota amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cpus {
    pub(crate) allowed: Vec<u32>,
    pub(crate) visible: Vec<u32>,
    /// The cgroup whose quota binds, nearest first.
    pub(crate) level: Option<usize>,
}

impl Cpus {
    pub(crate) fn read(cgroup: &Cgroup) -> Result<Self> {
        let allowed = parse_list(&cgroup.read("cpuset.cpus.effective")?)?;
        let mut least: Option<(f64, usize)> = None;
        for (level, cgroup) in cgroup.line().iter().enumerate() {
            if let Some((quota, period)) = cgroup.quota()? {
                let cpus = quota as f64 / period as f64;
                if least.is_none_or(|(least, _)| cpus < least) {
                    least = Some((cpus, level));
                }
            }
        }
        let count = least.map_or(allowed.len(), |(cpus, _)| cpus.ceil().max(1.0) as usize);
        let visible = allowed.iter().copied().take(count.max(1)).collect();
        Ok(Self {
            allowed,
            visible,
            level: least.map(|(_, level)| level),
        })
    }
}

/// `0-2,5` as numbers.
pub(crate) fn parse_list(text: &str) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let wrong = || format!("{text:?} is no list of CPUs");
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: u32 = first.parse().map_err(|_| wrong())?;
        let last: u32 = last.parse().map_err(|_| wrong())?;
        all.extend(first..=last);
    }
    Ok(all)
}

/// A row of /proc/stat.
pub(crate) fn row(stat: &str, name: &str) -> Result<Vec<u64>> {
    let line = stat.lines().find_map(|line| {
        let (label, rest) = line.split_once(' ')?;
        (label == name).then_some(rest)
    });
    let line = line.ok_or_else(|| format!("no {name} in {stat:?}"))?;
    line.split_ascii_whitespace()
        .map(|word| word.parse().map_err(|_| format!("{line:?} are no numbers")))
        .collect()
}
