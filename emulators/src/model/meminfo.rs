//! The lines of /proc/meminfo. The meminfo of a node has the same lines.

use crate::model::hugepages::HugePages;
use crate::model::memory::{Memory, Totals};
use crate::text::{digits, fields, parse_u64, put};

/// The figures that do not come from the memory controller.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub(crate) overcommit: Overcommit,
    pub(crate) huge: Huge,
}

/// The ids of the two tunables that CommitLimit follows. A write of one makes the other 0 (overcommit_ratio_handler and
/// overcommit_kbytes_handler, mm/util.c).
pub(crate) const OVERCOMMIT_RATIO: u16 = 385;
pub(crate) const OVERCOMMIT_KBYTES: u16 = 395;

/// The memory that can be promised to programs, beside the swap: of the two settings the one that is not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overcommit {
    /// vm/overcommit_ratio, in percent of the memory.
    Ratio(u64),
    /// vm/overcommit_kbytes.
    Kbytes(u64),
}

impl Default for Overcommit {
    fn default() -> Overcommit {
        Overcommit::Ratio(0)
    }
}

/// Huge pages of the default size.
#[derive(Debug, Default)]
pub(crate) struct Huge {
    pub(crate) pages: HugePages,
    pub(crate) page_kib: u64,
}

/// The value of a line.
pub(crate) enum Value {
    /// KiB of memory, at most MemTotal.
    Memory(u64),
    /// KiB of swap, at most SwapTotal.
    Swap(u64),
    /// KiB of memory and swap.
    Both(u64),
    /// A number of huge pages.
    Pages(u64),
    /// The container has no such figure.
    Zero,
    /// The number of the host, which is a constant.
    Host,
}

/// Returns the value of a line. `key` has no colon. A line that is not known is 0.
pub(crate) fn value(key: &str, memory: &Memory, extra: &Extra) -> Value {
    let stat = &memory.stat;
    let kib = |key: &str| Value::Memory(stat.value(key) / 1024);
    let sum = |a: &str, b: &str| {
        // Each part is rounded on its own, so the lines of the parts add up.
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
        "CommitLimit" => Value::Both(commit_limit_kib(&memory.totals, extra.overcommit)),
        "Committed_AS" => Value::Both(committed_kib(memory)),
        "HugePages_Total" => Value::Pages(extra.huge.pages.total),
        "HugePages_Free" => Value::Pages(extra.huge.pages.free),
        "Hugetlb" => Value::Memory(extra.huge.pages.total.saturating_mul(extra.huge.page_kib)),
        "Hugepagesize" | "VmallocTotal" => Value::Host,
        _ => Value::Zero,
    }
}

/// SwapTotal + MemTotal * ratio / 100, or SwapTotal + kbytes (vm_commit_limit, mm/util.c).
pub(crate) fn commit_limit_kib(totals: &Totals, overcommit: Overcommit) -> u64 {
    let memory = match overcommit {
        Overcommit::Ratio(percent) => (totals.memory / 1024).saturating_mul(percent) / 100,
        // The kernel counts in pages.
        Overcommit::Kbytes(kib) => kib / PAGE_KIB * PAGE_KIB,
    };
    memory.saturating_add(totals.swap / 1024)
}

/// The smallest page that Linux has.
const PAGE_KIB: u64 = 4;

/// Returns a lower bound: the memory that is in use. The kernel has no such figure for a cgroup.
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

/// Returns the number that a line shows.
pub(crate) fn number(line: &Line<'_>, memory: &Memory, extra: &Extra) -> u64 {
    match value(line.key, memory, extra) {
        Value::Memory(kib) => kib.min(memory.totals.memory / 1024),
        Value::Swap(kib) => kib.min(memory.totals.swap / 1024),
        Value::Both(kib) => kib,
        Value::Pages(pages) => pages,
        Value::Zero => 0,
        Value::Host => line.number,
    }
}

/// Returns the number of a line of a node's meminfo, before it is scaled to the node: KiB of memory, or 0.
pub(crate) fn number_of_node(line: &Line<'_>, memory: &Memory) -> u64 {
    match line.key {
        "MemUsed" => memory.totals.memory.saturating_sub(memory.free) / 1024,
        "FilePages" => memory.stat.value("file").min(memory.totals.memory) / 1024,
        _ => number(line, memory, &Extra::default()),
    }
}

/// One line of the file: `%s` label padded to 16 columns, `%8lu`, and mostly " kB".
pub(crate) struct Line<'a> {
    pub(crate) key: &'a str,
    pub(crate) number: u64,
    unit: &'a [u8],
    /// The width of the label in columns.
    label: usize,
    /// The column in which the number ends, unless the number is longer.
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

    /// Parses a line of a node's meminfo, where "HugePages_Total: %5u" has fewer columns.
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

    /// Returns the length of the line with this number, newline included.
    pub(crate) fn len(&self, number: u64) -> usize {
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
    use super::*;

    #[test]
    fn huge_pages_have_fewer_columns_in_the_meminfo_of_a_node() {
        let host = b"HugePages_Total:       0";
        let mut out = Vec::new();
        Line::parse(host).unwrap().render(0, &mut out);
        Line::parse_of_node(host).unwrap().render(0, &mut out);
        assert_eq!(out, b"HugePages_Total:       0\nHugePages_Total:     0\n");
    }
}
