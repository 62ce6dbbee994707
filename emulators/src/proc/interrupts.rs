//! /proc/interrupts: the machine's interrupts, none of which were counted.
//!
//! Format: show_interrupts, kernel/irq/proc.c.
//! Virtual: the columns are those of visible CPUs.
//! Passed through: the rows.
//! Invented: the zeros in all columns; the counts tell what others do.

use crate::model::{cpus, irq};
use crate::{Context, Emulator, Error, Facts, Pace};

/// /proc/interrupts.
#[derive(Debug)]
pub struct Interrupts;

impl Emulator for Interrupts {
    fn facts(&self) -> &'static Facts {
        &Facts {
            id: 31,
            path: "/proc/interrupts",
            mode: 0o444,
            pace: Pace::Static,
            source_v1: "cpuset.effective_cpus, cpu.cfs_quota_us, cpu.cfs_period_us",
            source_v2: "cpuset.cpus.effective, cpu.max",
            invented: "zeros",
        }
    }

    fn render(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        irq::render(&cx.host.read(self.facts().path)?, &cpus::read(cx)?, out);
        Ok(())
    }

    fn bound(&self, cx: &Context<'_>) -> Result<Option<usize>, Error> {
        let mut out = Vec::new();
        self.render(cx, &mut out)?;
        Ok(Some(out.len()))
    }
}
