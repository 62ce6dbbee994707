//! /sys/devices/system/cpu/offline: the CPUs that only a quota hides.
//!
//! Format: print_cpus_offline, drivers/base/cpu.c: a list of CPUs and a newline.
//! Virtual: the list.
//! Passed through: nothing.
//! Invented: nothing.

use crate::model::cpus;
use crate::{Context, Emulator, Error, Facts, Pace};

/// /sys/devices/system/cpu/offline.
#[derive(Debug)]
pub struct Offline;

impl Emulator for Offline {
    fn facts(&self) -> &'static Facts {
        &Facts {
            id: 25,
            path: "/sys/devices/system/cpu/offline",
            mode: 0o444,
            pace: Pace::Static,
            source_v1: "cpuset.effective_cpus, cpu.cfs_quota_us, cpu.cfs_period_us",
            source_v2: "cpuset.cpus.effective, cpu.max",
            invented: "",
        }
    }

    fn render(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let cpus = cpus::read(cx)?;
        cpus.shown(&cpus.allowed.difference(&cpus.visible), &cpus.allowed)
            .render_list(out);
        out.push(b'\n');
        Ok(())
    }

    fn bound(&self, cx: &Context<'_>) -> Result<Option<usize>, Error> {
        let mut out = Vec::new();
        self.render(cx, &mut out)?;
        Ok(Some(out.len()))
    }
}
