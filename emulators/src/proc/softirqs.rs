//! /proc/softirqs: the kernel's soft interrupts, none of which were counted.
//!
//! Format: show_softirqs, fs/proc/softirqs.c.
//! Virtual: the columns are those of visible CPUs.
//! Passed through: the rows.
//! Invented: the zeros in all columns; the counts tell what others do.

use crate::model::{cpus, irq};
use crate::{Context, Emulator, Error, Facts, Pace};

/// /proc/softirqs.
#[derive(Debug)]
pub struct Softirqs;

impl Emulator for Softirqs {
    fn facts(&self) -> &'static Facts {
        &Facts {
            id: 32,
            path: "/proc/softirqs",
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
