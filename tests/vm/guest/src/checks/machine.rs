//! Views of memory and devices beside meminfo: vmstat, zoneinfo, diskstats, interrupts and what is
//! empty.

use std::collections::BTreeMap;

use crate::Result;
use crate::cgroup::{Cgroup, keys};
use crate::container::Container;
use crate::expect::{Cpus, Memory, SLACK, Still, host, steady};
use crate::report::{Report, between, equal};

const MIB: usize = 1 << 20;
const PAGE: u64 = 4096;

/// Counters of pages in vmstat and zoneinfo, and the keys of memory.stat that have the bytes.
const PAGES: &[(&str, &str)] = &[
    ("nr_inactive_anon", "inactive_anon"),
    ("nr_active_anon", "active_anon"),
    ("nr_inactive_file", "inactive_file"),
    ("nr_active_file", "active_file"),
    ("nr_unevictable", "unevictable"),
    ("nr_slab_reclaimable", "slab_reclaimable"),
    ("nr_slab_unreclaimable", "slab_unreclaimable"),
    ("nr_anon_pages", "anon"),
    ("nr_mapped", "file_mapped"),
    ("nr_file_pages", "file"),
    ("nr_dirty", "file_dirty"),
    ("nr_writeback", "file_writeback"),
    ("nr_shmem", "shmem"),
    ("nr_page_table_pages", "pagetables"),
    ("nr_swapcached", "swapcached"),
];

/// Counters of events, and their names in memory.stat where these are others.
const EVENTS: &[(&str, &str)] = &[
    ("pgmajfault", "pgmajfault"),
    ("pgscan_direct", "pgscan_direct"),
    ("pgsteal_direct", "pgsteal_direct"),
    ("pgactivate", "pgactivate"),
    ("pgdeactivate", "pgdeactivate"),
    ("pgrefill", "pgrefill"),
    ("workingset_refault_anon", "workingset_refault_anon"),
    ("workingset_refault_file", "workingset_refault_file"),
    ("workingset_activate_anon", "workingset_activate_anon"),
    ("thp_fault_alloc", "thp_fault_alloc"),
    ("pswpin", "swpin"),
    ("pswpout", "swpout"),
];

pub(super) fn checks(report: &mut Report) {
    report.group("the machine", |report| {
        let cgroup = Cgroup::new("machine")?;
        cgroup.set("memory.max", &(96 * MIB).to_string())?;
        cgroup.set("cpuset.cpus", "1-2")?;
        let mut container = Container::attach(&cgroup, false)?;
        // Something of everything: memory of all kinds, swap, reads from a disk.
        container.tell(&["read-device", "/dev/vda", &(4 * MIB).to_string()])?;
        container.tell(&["hold", &(24 * MIB).to_string()])?;
        super::memory::swap_out(&cgroup)?;
        all(report, &mut container)?;
        container.end()?;
        cgroup.remove()
    });
}

fn all(report: &mut Report, container: &mut Container) -> Result<()> {
    let grafts = container.grafts()?;
    let mut check = |path: &str, check: fn(&mut Container) -> Result<()>| {
        if grafts.contains(path) {
            report.check(path, check(container));
        } else {
            report.skip(path, "no graft");
        }
    };
    check("/proc/vmstat", vmstat);
    check("/proc/zoneinfo", zoneinfo);
    check("/proc/buddyinfo", |container| {
        zeros(container, "/proc/buddyinfo")
    });
    check("/proc/pagetypeinfo", |container| {
        zeros(container, "/proc/pagetypeinfo")
    });
    check("/proc/slabinfo", |container| {
        let view = container.read("/proc/slabinfo")?;
        let kernel = host("/proc/slabinfo")?;
        let header: Vec<&str> = kernel.lines().take(2).collect();
        equal("the lines", &view.lines().collect(), &header)
    });
    check("/proc/interrupts", |container| {
        columns(container, "/proc/interrupts", true)
    });
    check("/proc/softirqs", |container| {
        columns(container, "/proc/softirqs", false)
    });
    check("/proc/diskstats", diskstats);
    for path in ["/proc/schedstat", "/proc/timer_list", "/proc/sched_debug"] {
        if grafts.contains(path) {
            report.check(path, empty(container, path));
        } else {
            report.skip(path, "no graft");
        }
    }
    Ok(())
}

fn vmstat(container: &mut Container) -> Result<()> {
    let cgroup = container.cgroup.clone();
    let kernel = host("/proc/vmstat")?;
    let names = |text: &str| -> Vec<String> {
        let words = text.lines().filter_map(|line| line.split(' ').next());
        words.map(str::to_owned).collect()
    };
    let expected = names(&kernel);
    steady(
        || Memory::read(&cgroup),
        || container.read("/proc/vmstat"),
        |memory, view| {
            equal("the keys", &names(view), &expected)?;
            counters(memory, &keys(view))
        },
    )
}

fn counters(memory: &Memory, view: &BTreeMap<String, u64>) -> Result<()> {
    for (key, source) in PAGES {
        if let Some(got) = view.get(*key) {
            equal(key, got, &(memory.stat(source) / PAGE))?;
        }
    }
    for (key, source) in EVENTS {
        if let (Some(got), Some(expected)) = (view.get(*key), memory.events.get(*source)) {
            // Events are counted between the two readings.
            between(key, *got, *expected, expected + 64)?;
        }
    }
    if let Some(got) = view.get("nr_free_pages") {
        let (free, slack) = (memory.free / PAGE, SLACK / PAGE);
        between(
            "nr_free_pages",
            *got,
            free.saturating_sub(slack),
            free + slack,
        )?;
    }
    if let Some(got) = view.get("nr_kernel_stack") {
        equal(
            "nr_kernel_stack",
            got,
            &(memory.stat("kernel_stack") / 1024),
        )?;
    }
    // Nothing of the machine's own.
    for key in [
        "numa_hit",
        "nr_dirtied",
        "nr_written",
        "pgalloc_normal",
        "pgfree",
    ] {
        equal(key, &view.get(key).copied().unwrap_or(0), &0)?;
    }
    Ok(())
}

fn zoneinfo(container: &mut Container) -> Result<()> {
    let cgroup = container.cgroup.clone();
    let cpus = Cpus::read(&cgroup)?;
    steady(
        || Memory::read(&cgroup),
        || container.read("/proc/zoneinfo"),
        |memory, view| {
            let zones = view.lines().filter(|line| line.starts_with("Node "));
            equal("zones", &zones.count(), &1)?;
            let lines: BTreeMap<String, u64> = view
                .lines()
                .filter_map(|line| {
                    let (key, value) = line.trim().rsplit_once(' ')?;
                    let key = key.trim().trim_end_matches(':').to_owned();
                    Some((key, value.parse().ok()?))
                })
                .collect();
            let line = |key: &str| lines.get(key).copied().unwrap_or(u64::MAX);
            for key in ["managed", "present", "spanned"] {
                equal(key, &line(key), &(memory.total / PAGE))?;
            }
            let (free, slack) = (memory.free / PAGE, SLACK / PAGE);
            let least = free.saturating_sub(slack);
            between("free", line("pages free"), least, free + slack)?;
            let ids: Vec<u32> = view
                .lines()
                .filter_map(|line| line.trim().strip_prefix("cpu: ")?.parse().ok())
                .collect();
            equal("the CPUs", &ids, &cpus.visible)?;
            for (key, source) in PAGES {
                if let Some(got) = lines.get(*key) {
                    equal(key, got, &(memory.stat(source) / PAGE))?;
                }
            }
            Ok(())
        },
    )
}

/// The rows of the kernel, and nothing in them.
fn zeros(container: &mut Container, path: &str) -> Result<()> {
    let view = container.read(path)?;
    let rows = view.lines().filter(|line| line.starts_with("Node "));
    for row in rows {
        // "Node 0, zone    DMA32 ", and in pagetypeinfo ", type  Unmovable " too.
        let words = row.split_whitespace();
        let numbers = words.skip(if row.contains(", type") { 6 } else { 4 });
        let sum: u64 = numbers
            .filter_map(|number| number.parse::<u64>().ok())
            .sum();
        equal(row, &sum, &0)?;
    }
    let kernel = host(path)?;
    equal(
        "the first line's words",
        &view
            .lines()
            .next()
            .map(|line| line.split_whitespace().count()),
        &kernel
            .lines()
            .next()
            .map(|line| line.split_whitespace().count()),
    )
}

/// Columns of visible CPUs, with nothing in them, in the rows of the kernel.
/// The rows and columns are the kernel's. With `marked`, the first row has a 1 for each CPU of V.
fn columns(container: &mut Container, path: &str, marked: bool) -> Result<()> {
    let cpus = Cpus::read(&container.cgroup)?;
    let view = container.read(path)?;
    let header = view.lines().next().unwrap_or_default();
    let ids: Vec<u32> = header
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("CPU")?.parse().ok())
        .collect();
    let kernel = host(path)?;
    equal("the CPUs", &Some(header), &kernel.lines().next())?;
    let labels = |text: &str| -> Vec<String> {
        let labels = text
            .lines()
            .skip(1)
            .filter_map(|line| line.split(':').next());
        labels.map(|label| label.trim().to_owned()).collect()
    };
    equal("the rows", &labels(&view), &labels(&kernel))?;
    for (index, row) in view.lines().skip(1).enumerate() {
        let counts = row.split_whitespace().skip(1).take(ids.len());
        let counts = counts.filter_map(|count| count.parse::<u64>().ok());
        for (count, id) in counts.zip(&ids) {
            let mark = marked && index == 0 && cpus.visible.contains(id);
            equal(row, &count, &u64::from(mark))?;
        }
    }
    Ok(())
}

/// What a cgroup did with disks.
#[derive(Debug)]
struct Io(String);

impl Still for Io {
    fn is_still(&self, later: &Self) -> bool {
        self.0 == later.0
    }
}

fn diskstats(container: &mut Container) -> Result<()> {
    let cgroup = container.cgroup.clone();
    let kernel = host("/proc/diskstats")?;
    steady(
        || cgroup.read("io.stat").map(Io),
        || container.read("/proc/diskstats"),
        |io, view| {
            let mut rows = 0;
            for line in io.0.lines() {
                let Some((device, counters)) = line.split_once(' ') else {
                    continue;
                };
                let id: Vec<&str> = device.split(':').collect();
                let row = |text: &str| -> Option<Vec<String>> {
                    let rows = text
                        .lines()
                        .map(|row| row.split_whitespace().map(str::to_owned));
                    let mut rows = rows.map(Iterator::collect::<Vec<String>>);
                    rows.find(|row| {
                        row.iter()
                            .map(String::as_str)
                            .take(2)
                            .eq(id.iter().copied())
                    })
                };
                let Some(theirs) = row(&kernel) else { continue };
                let ours = row(view).ok_or_else(|| format!("no row of {device} in {view:?}"))?;
                rows += 1;
                equal("the name", &ours.get(2), &theirs.get(2))?;
                equal("columns", &ours.len(), &theirs.len())?;
                let counter = |name: &str| -> u64 {
                    let values = counters.split(' ').filter_map(|word| word.split_once('='));
                    let mut values = values.filter(|(key, _)| *key == name);
                    values
                        .next()
                        .and_then(|(_, value)| value.parse().ok())
                        .unwrap_or(0)
                };
                let expected = |column: usize| match column {
                    3 => counter("rios"),
                    5 => counter("rbytes") / 512,
                    7 => counter("wios"),
                    9 => counter("wbytes") / 512,
                    14 => counter("dios"),
                    16 => counter("dbytes") / 512,
                    _ => 0,
                };
                for (column, value) in ours.iter().enumerate().skip(3) {
                    equal(
                        &format!("column {column}"),
                        value,
                        &expected(column).to_string(),
                    )?;
                }
            }
            // It read a disk, and no other has a row.
            equal(
                "rows",
                &view.lines().filter(|row| !row.trim().is_empty()).count(),
                &rows,
            )?;
            between("rows", rows as u64, 1, 10)
        },
    )
}

/// Nobody but root may read it, and there is nothing to read.
fn empty(container: &mut Container, path: &str) -> Result<()> {
    let stat = container.tell(&["stat", path])?;
    equal("mode, owner, group, size", &stat.as_str(), &"400 0 0 0")?;
    equal("the text", &container.read(path)?.as_str(), &"")
}
