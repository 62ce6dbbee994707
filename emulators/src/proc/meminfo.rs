//! /proc/meminfo: the container's memory.
//!
//! Format: meminfo_proc_show, fs/proc/meminfo.c; the lines and their order are the running kernel's.
//! Virtual: every line with a figure in the cgroup, see `value`.
//! Passed through: VmallocTotal and Hugepagesize, constants of the machine.
//! Invented: CommitLimit and Committed_AS are estimates; what has no figure is 0.

use crate::cgroup::Limit;
use crate::cgroup::memory::{Stat, read_hugetlb};
use crate::model::memory::{self, Memory, Totals, meminfo_kib};
use crate::text::{digits, fields, lines, parse_u64, put};
use crate::{Context, Controller, Emulator, Error, Facts, Pace};

/// /proc/meminfo.
#[derive(Debug)]
pub struct Meminfo;

impl Emulator for Meminfo {
    fn facts(&self) -> &'static Facts {
        &Facts {
            id: 17,
            path: "/proc/meminfo",
            mode: 0o444,
            pace: Pace::Ticking,
            source_v1: "memory.limit_in_bytes, memory.usage_in_bytes, memory.memsw.*, total_* of memory.stat, hugetlb.*",
            source_v2: "memory.max, memory.current, memory.swap.*, memory.stat, hugetlb.*",
            invented: "CommitLimit and Committed_AS are estimates",
        }
    }

    fn render(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        self.render_bounded(cx, out).map(drop)
    }

    fn bound(&self, cx: &Context<'_>) -> Result<Option<usize>, Error> {
        let host = cx.host.read(self.facts().path)?;
        let machine = memory::parse_machine(&host)?;
        let totals = memory::read_totals(cx, &machine)?;
        Ok(Some(bound(&host, &totals)))
    }

    fn render_bounded(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Option<usize>, Error> {
        let host = cx.host.read(self.facts().path)?;
        let machine = memory::parse_machine(&host)?;
        let memory = memory::read(cx, &machine)?;
        let extra = Extra {
            overcommit_ratio: read_overcommit_ratio(cx)?,
            huge: read_huge(cx, &host)?,
        };
        render(&host, &memory, &extra, out);
        Ok(Some(bound(&host, &memory.totals)))
    }
}

/// Figures beside those of the memory controller.
#[derive(Debug, Default)]
struct Extra {
    overcommit_ratio: u64,
    huge: Huge,
}

/// Huge pages of the default size.
#[derive(Debug, Default)]
struct Huge {
    total: u64,
    free: u64,
    page_kib: u64,
}

/// The machine's setting; 50 is the kernel's default.
fn read_overcommit_ratio(cx: &Context<'_>) -> Result<u64, Error> {
    let text = cx.host.read_optional("/proc/sys/vm/overcommit_ratio")?;
    Ok(text.as_deref().and_then(parse_u64).unwrap_or(50))
}

/// As many as the limit allows and the machine has, less those in use; none without the controller.
fn read_huge(cx: &Context<'_>, host: &[u8]) -> Result<Huge, Error> {
    let machine = meminfo_kib(host, "HugePages_Total:").unwrap_or(0);
    let page_kib = meminfo_kib(host, "Hugepagesize:").unwrap_or(0);
    let page = page_kib.saturating_mul(1024);
    if machine == 0 || page == 0 {
        return Ok(Huge {
            page_kib,
            ..Huge::default()
        });
    }
    let usage = match cx.container.cgroup.of(Controller::Hugetlb) {
        Some(hierarchy) => read_hugetlb(hierarchy, page_kib)?,
        None => None,
    };
    let Some((limit, current)) = usage else {
        return Ok(Huge {
            page_kib,
            ..Huge::default()
        });
    };
    let total = match limit {
        Limit::Bytes(bytes) => (bytes / page).min(machine),
        Limit::Max => machine,
    };
    Ok(Huge {
        total,
        free: total.saturating_sub(current / page),
        page_kib,
    })
}

/// What a line says.
enum Value {
    /// KiB of memory, at most MemTotal.
    Memory(u64),
    /// KiB of swap, at most SwapTotal.
    Swap(u64),
    /// KiB of both.
    Both(u64),
    /// Huge pages.
    Pages(u64),
    /// No figure of the container.
    Zero,
    /// The host's own number, a constant.
    Host,
}

/// The value of a line; `key` is without its colon. Everything unknown is 0.
fn value(key: &str, memory: &Memory, extra: &Extra) -> Value {
    let stat = &memory.stat;
    let kib = |key: &str| Value::Memory(stat.value(key) / 1024);
    let sum = |a: &str, b: &str| {
        // Each rounded on its own, so that the lines of the parts add up.
        Value::Memory((stat.value(a) / 1024).saturating_add(stat.value(b) / 1024))
    };
    match key {
        "MemTotal" => Value::Memory(memory.totals.memory / 1024),
        "MemFree" => Value::Memory(memory.free / 1024),
        "MemAvailable" => Value::Memory(memory.available / 1024),
        "Cached" => kib("file"),
        "SwapCached" => kib("swapcached"),
        "Active" => sum("active_anon", "active_file"),
        "Inactive" => sum("inactive_anon", "inactive_file"),
        "Active(anon)" => kib("active_anon"),
        "Inactive(anon)" => kib("inactive_anon"),
        "Active(file)" => kib("active_file"),
        "Inactive(file)" => kib("inactive_file"),
        "Unevictable" => kib("unevictable"),
        "SwapTotal" => Value::Swap(memory.totals.swap / 1024),
        "SwapFree" => Value::Swap(memory.swap_free / 1024),
        "Zswap" => kib("zswap"),
        "Zswapped" => Value::Swap(stat.value("zswapped") / 1024),
        "Dirty" => kib("file_dirty"),
        "Writeback" => kib("file_writeback"),
        "AnonPages" => kib("anon"),
        "Mapped" => kib("file_mapped"),
        "Shmem" => kib("shmem"),
        "KReclaimable" | "SReclaimable" => kib("slab_reclaimable"),
        "Slab" => sum("slab_reclaimable", "slab_unreclaimable"),
        "SUnreclaim" => kib("slab_unreclaimable"),
        "KernelStack" => kib("kernel_stack"),
        "PageTables" => kib("pagetables"),
        "SecPageTables" => kib("sec_pagetables"),
        "Percpu" => kib("percpu"),
        "VmallocUsed" => kib("vmalloc"),
        "AnonHugePages" => kib("anon_thp"),
        "ShmemHugePages" => kib("shmem_thp"),
        "FileHugePages" => kib("file_thp"),
        "CommitLimit" => Value::Both(commit_limit_kib(&memory.totals, extra.overcommit_ratio)),
        "Committed_AS" => Value::Both(committed_kib(memory)),
        "HugePages_Total" => Value::Pages(extra.huge.total),
        "HugePages_Free" => Value::Pages(extra.huge.free),
        "Hugetlb" => Value::Memory(extra.huge.total.saturating_mul(extra.huge.page_kib)),
        "Hugepagesize" | "VmallocTotal" => Value::Host,
        _ => Value::Zero,
    }
}

/// SwapTotal + MemTotal * ratio / 100 (vm_commit_limit, mm/util.c).
fn commit_limit_kib(totals: &Totals, overcommit_ratio: u64) -> u64 {
    let memory = (totals.memory / 1024).saturating_mul(overcommit_ratio) / 100;
    memory.saturating_add(totals.swap / 1024)
}

/// A lower bound: what is in use. The kernel keeps no such figure for a cgroup.
fn committed_kib(memory: &Memory) -> u64 {
    let used = memory
        .stat
        .value("anon")
        .saturating_add(memory.stat.value("shmem"))
        / 1024;
    let totals = &memory.totals;
    let swapped = totals.swap.saturating_sub(memory.swap_free) / 1024;
    used.min(totals.memory / 1024).saturating_add(swapped)
}

fn render(host: &[u8], memory: &Memory, extra: &Extra, out: &mut Vec<u8>) {
    for line in lines(host) {
        if let Some(line) = Line::parse(line) {
            line.render(number(&line, memory, extra), out);
        }
    }
}

/// The number that a line shows.
fn number(line: &Line<'_>, memory: &Memory, extra: &Extra) -> u64 {
    match value(line.key, memory, extra) {
        Value::Memory(kib) => kib.min(memory.totals.memory / 1024),
        Value::Swap(kib) => kib.min(memory.totals.swap / 1024),
        Value::Both(kib) => kib,
        Value::Pages(pages) => pages,
        Value::Zero => 0,
        Value::Host => line.number,
    }
}

/// The number of a line of a node's meminfo, before it is scaled to the node: KiB of memory, or 0.
pub(crate) fn number_of_node(line: &Line<'_>, memory: &Memory) -> u64 {
    match line.key {
        "MemUsed" => memory.totals.memory.saturating_sub(memory.free) / 1024,
        "FilePages" => memory.stat.value("file").min(memory.totals.memory) / 1024,
        _ => number(line, memory, &Extra::default()),
    }
}

/// The longest that [`render`] gets with these limits: every line has the number of digits of the
/// most it can say, but not less than the kernel's columns.
fn bound(host: &[u8], totals: &Totals) -> usize {
    let memory = totals.memory / 1024;
    let swap = totals.swap / 1024;
    let machine_pages = meminfo_kib(host, "HugePages_Total:").unwrap_or(0);
    let nothing = Memory {
        totals: *totals,
        free: 0,
        available: 0,
        swap_free: 0,
        stat: Stat::default(),
    };
    lines(host).filter_map(Line::parse).fold(0, |sum, line| {
        let most = match value(line.key, &nothing, &Extra::default()) {
            Value::Memory(_) => memory,
            Value::Swap(_) => swap,
            // With an overcommit_ratio up to 100.
            Value::Both(_) => memory.saturating_add(swap),
            Value::Pages(_) => machine_pages,
            Value::Zero => 0,
            Value::Host => line.number,
        };
        sum.saturating_add(line.len(most))
    })
}

/// One line of the file: `%s` label padded to 16 columns, `%8lu`, and mostly " kB".
pub(crate) struct Line<'a> {
    pub(crate) key: &'a str,
    pub(crate) number: u64,
    unit: &'a [u8],
    /// Columns of the label.
    label: usize,
    /// Columns up to the end of the number, unless that is longer.
    end: usize,
}

impl<'a> Line<'a> {
    pub(crate) fn parse(line: &'a [u8]) -> Option<Line<'a>> {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (key, rest) = line.split_at_checked(colon)?;
        let number = fields(rest.get(1..)?).next()?;
        let start = line
            .iter()
            .rposition(|byte| byte.is_ascii_digit())?
            .checked_add(1)?;
        let key = std::str::from_utf8(key).ok()?;
        // All numbers end in column 24, but "HugePages_Total:   %5lu" and "HardwareCorrupted: %5lu
        // kB" leave less room for a longer one.
        let narrow = key == "HardwareCorrupted" || key.starts_with("HugePages_");
        Some(Line {
            key,
            number: parse_u64(number)?,
            unit: line.get(start..)?,
            label: if narrow { 19 } else { 16 },
            end: 24,
        })
    }

    /// The line as a node's meminfo has it, where "HugePages_Total: %5u" is shorter.
    pub(crate) fn parse_of_node(line: &'a [u8]) -> Option<Line<'a>> {
        let line = Line::parse(line)?;
        let (label, end) = if line.key.starts_with("HugePages_") {
            (17, 22)
        } else {
            (line.label, line.end)
        };
        Some(Line { label, end, ..line })
    }

    pub(crate) fn render(&self, number: u64, out: &mut Vec<u8>) {
        let width = self.end.saturating_sub(self.label);
        let padding = self.label.saturating_sub(self.key.len()).saturating_sub(1);
        put(
            out,
            format_args!("{}:{:padding$}{number:width$}", self.key, ""),
        );
        out.extend_from_slice(self.unit);
        out.push(b'\n');
    }

    /// The length of the line with this number, newline included.
    fn len(&self, number: u64) -> usize {
        let label = self.label.max(self.key.len().saturating_add(1));
        let width = self.end.saturating_sub(self.label).max(digits(number));
        label
            .saturating_add(width)
            .saturating_add(self.unit.len())
            .saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cgroup::memory::Keys;

    const HOST: &[u8] = b"MemTotal:       24684092 kB\n\
        MemAvailable:   24348340 kB\n\
        SwapTotal:             0 kB\n\
        Committed_AS:      53164 kB\n\
        VmallocTotal:   34359738367 kB\n\
        HardwareCorrupted:     0 kB\n\
        ShmemPmdMapped:        0 kB\n\
        HugePages_Total:       0\n\
        Hugepagesize:       2048 kB\n";

    fn memory(memory: u64, stat: &str) -> Memory {
        Memory {
            totals: Totals { memory, swap: 0 },
            free: memory,
            available: memory,
            swap_free: 0,
            stat: Stat::parse(stat.as_bytes().to_vec().into(), Keys::default()),
        }
    }

    #[test]
    fn every_line_of_the_kernel_keeps_its_columns() {
        for line in lines(HOST) {
            let parsed = Line::parse(line).unwrap();
            let mut out = Vec::new();
            parsed.render(parsed.number, &mut out);
            assert_eq!(out.strip_suffix(b"\n"), Some(line));
            assert_eq!(out.len(), parsed.len(parsed.number));
        }
    }

    #[test]
    fn the_size_is_the_bound_as_long_as_memory_has_eight_digits() {
        let memory = memory(64 << 30, "anon 12345678\n");
        let mut out = Vec::new();
        render(HOST, &memory, &Extra::default(), &mut out);
        assert_eq!(out.len(), bound(HOST, &memory.totals));
        assert_eq!(out.len(), HOST.len());
    }

    proptest! {
        #[test]
        fn no_number_breaks_the_bound(total: u64, anon: u64, swap: u64, zswapped: u64) {
            let mut memory = memory(total, &format!("anon {anon}\nshmem {anon}\nzswapped {zswapped}\n"));
            memory.totals.swap = swap;
            let mut out = Vec::new();
            let extra = Extra { overcommit_ratio: 100, huge: Huge::default() };
            render(HOST, &memory, &extra, &mut out);
            prop_assert!(out.len() <= bound(HOST, &memory.totals));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            render(&bytes, &memory(1 << 30, ""), &Extra::default(), &mut Vec::new());
        }
    }
}
