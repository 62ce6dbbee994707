//! /proc/vmstat: counters of the container's memory.
//!
//! Format: vmstat_show, mm/vmstat.c: key and number on each line.
//! Virtual: what memory.stat has a figure for, in pages; see model/vmstat.rs.
//! Passed through: the keys and their order.
//! Invented: nothing; everything else is 0.

use crate::model::{memory, vmstat};
use crate::text::{fields, lines, put, trimmed};
use crate::{Bound, Context, Error, Facts, Needs, View};

/// /proc/vmstat.
pub const VIEW: View = View::new(26, "/proc/vmstat", render_view)
    .sources(
        "total_* of memory.stat, memory.limit_in_bytes, memory.usage_in_bytes",
        "memory.stat, memory.max, memory.current",
    )
    .needs(Needs::CGROUP)
    .resizing();

/// The counters of events have no bound, and the file is larger than a page anyway.
fn render_view(facts: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    let host = memory::parse_host(&cx.host.read("/proc/meminfo")?)?;
    let memory = memory::read(cx, &host)?;
    let units = vmstat::read_units(cx)?;
    for key in lines(&cx.host.read(facts.path)?).filter_map(|l| fields(l).next()) {
        let key = trimmed(key);
        put(
            out,
            format_args!("{key} {}\n", vmstat::value(key, &memory, &units)),
        );
    }
    Ok(Bound::None)
}
