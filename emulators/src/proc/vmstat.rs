//! /proc/vmstat: counters of the container's memory.
//!
//! Format: vmstat_show, mm/vmstat.c: key and number on each line.
//! Virtual: what memory.stat has a figure for, in pages; see model/vmstat.rs.
//! Passed through: the keys and their order.
//! Invented: nothing; everything else is 0.

use crate::model::{memory, vmstat};
use crate::text::{fields, lines, put, trimmed};
use crate::{Context, Emulator, Error, Facts, Pace};

/// /proc/vmstat.
#[derive(Debug)]
pub struct Vmstat;

impl Emulator for Vmstat {
    fn facts(&self) -> &'static Facts {
        &Facts {
            id: 26,
            path: "/proc/vmstat",
            mode: 0o444,
            pace: Pace::Ticking,
            source_v1: "total_* of memory.stat, memory.limit_in_bytes, memory.usage_in_bytes",
            source_v2: "memory.stat, memory.max, memory.current",
            invented: "",
        }
    }

    fn render(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let machine = memory::parse_machine(&cx.host.read("/proc/meminfo")?)?;
        let memory = memory::read(cx, &machine)?;
        let units = vmstat::read_units(cx)?;
        for key in lines(&cx.host.read(self.facts().path)?).filter_map(|l| fields(l).next()) {
            let key = trimmed(key);
            put(
                out,
                format_args!("{key} {}\n", vmstat::value(key, &memory, &units)),
            );
        }
        Ok(())
    }

    /// None: the counters of events have no bound, and the file is larger than a page anyway.
    fn bound(&self, _cx: &Context<'_>) -> Result<Option<usize>, Error> {
        Ok(None)
    }
}
