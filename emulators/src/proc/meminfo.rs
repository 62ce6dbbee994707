//! /proc/meminfo: the container's memory.
//!
//! Format: meminfo_proc_show, fs/proc/meminfo.c; the lines and their order are the running kernel's.
//! Virtual: every line with a figure in the cgroup, see model/meminfo.rs.
//! Passed through: VmallocTotal and Hugepagesize, constants of the host.
//! Invented: CommitLimit and Committed_AS are estimates; what has no figure is 0.

use crate::cgroup::memory::Stat;
use crate::model::hugepages;
use crate::model::meminfo::{
    Extra, Huge, Line, OVERCOMMIT_KBYTES, OVERCOMMIT_RATIO, Overcommit, Value, commit_limit_kib,
    number, value,
};
use crate::model::memory::{self, Memory, Totals, meminfo_kib};
use crate::text::lines;
use crate::{Bound, Context, Error, Facts, Needs, View, tunable};

/// /proc/meminfo.
pub const VIEW: View = View::new(17, PATH, render_view)
    .sources(
        "memory.limit_in_bytes, memory.usage_in_bytes, memory.memsw.*, total_* of memory.stat, hugetlb.*",
        "memory.max, memory.current, memory.swap.*, memory.stat, hugetlb.*",
    )
    .invented("CommitLimit and Committed_AS are estimates")
    .needs(Needs::CGROUP);

const PATH: &str = "/proc/meminfo";

fn render_view(_: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    let host = cx.host.read(PATH)?;
    let memory = memory::read(cx, &memory::parse_host(&host)?)?;
    let extra = Extra {
        overcommit: read_overcommit(cx)?,
        huge: read_huge(cx, &host)?,
    };
    render(&host, &memory, &extra, out);
    Ok(Bound::Bytes(bound(&host, &memory.totals, extra.overcommit)))
}

/// Reads the container's settings, of which one is 0. The kernel's default is a ratio of 50.
fn read_overcommit(cx: &Context<'_>) -> Result<Overcommit, Error> {
    let number = |id| tunable(id).map_or(Ok(None), |tunable| tunable.number(cx));
    let ratio = number(OVERCOMMIT_RATIO)?.unwrap_or(50);
    if ratio > 0 {
        return Ok(Overcommit::Ratio(ratio));
    }
    Ok(Overcommit::Kbytes(number(OVERCOMMIT_KBYTES)?.unwrap_or(0)))
}

/// Reads the huge pages of the default size.
fn read_huge(cx: &Context<'_>, host: &[u8]) -> Result<Huge, Error> {
    let pool = meminfo_kib(host, "HugePages_Total:").unwrap_or(0);
    let page_kib = meminfo_kib(host, "Hugepagesize:").unwrap_or(0);
    Ok(Huge {
        pages: hugepages::read(cx, page_kib, pool)?,
        page_kib,
    })
}

fn render(host: &[u8], memory: &Memory, extra: &Extra, out: &mut Vec<u8>) {
    for line in lines(host) {
        if let Some(line) = Line::parse(line) {
            line.render(number(&line, memory, extra), out);
        }
    }
}

/// Returns the highest length of [`render`] with these limits. Each line has the digits of its highest number, and at
/// least the kernel's columns.
fn bound(host: &[u8], totals: &Totals, overcommit: Overcommit) -> usize {
    let memory = totals.memory / 1024;
    let swap = totals.swap / 1024;
    let host_pages = meminfo_kib(host, "HugePages_Total:").unwrap_or(0);
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
            // CommitLimit can be more, as it has no other limit than the container's tunables.
            Value::Both(_) => memory
                .saturating_add(swap)
                .max(commit_limit_kib(totals, overcommit)),
            Value::Pages(_) => host_pages,
            Value::Zero => 0,
            Value::Host => line.number,
        };
        sum.saturating_add(line.len(most))
    })
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
        assert_eq!(
            out.len(),
            bound(HOST, &memory.totals, Overcommit::default())
        );
        assert_eq!(out.len(), HOST.len());
    }

    proptest! {
        #[test]
        fn no_number_breaks_the_bound(
            total: u64,
            anon: u64,
            swap: u64,
            zswapped: u64,
            ratio: u64,
        ) {
            let mut memory = memory(total, &format!("anon {anon}\nshmem {anon}\nzswapped {zswapped}\n"));
            memory.totals.swap = swap;
            let mut out = Vec::new();
            let overcommit = Overcommit::Ratio(ratio);
            let extra = Extra { overcommit, huge: Huge::default() };
            render(HOST, &memory, &extra, &mut out);
            prop_assert!(out.len() <= bound(HOST, &memory.totals, overcommit));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            render(&bytes, &memory(1 << 30, ""), &Extra::default(), &mut Vec::new());
        }
    }
}
