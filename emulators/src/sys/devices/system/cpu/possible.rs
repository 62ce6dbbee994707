//! /sys/devices/system/cpu/possible: the CPUs that its threads may run on, which a quota does not change.
//!
//! Format: show_cpus_attr, drivers/base/cpu.c: a list of CPUs and a newline.
//! Virtual: the list.
//! Passed through: nothing.
//! Invented: nothing.

use crate::model::cpus;
use crate::{Context, Emulator, Error, Facts, Pace};

/// /sys/devices/system/cpu/possible.
#[derive(Debug)]
pub struct Possible;

impl Emulator for Possible {
    fn facts(&self) -> &'static Facts {
        &Facts {
            id: 23,
            path: "/sys/devices/system/cpu/possible",
            mode: 0o444,
            pace: Pace::Static,
            source_v1: "cpuset.effective_cpus",
            source_v2: "cpuset.cpus.effective",
            invented: "",
        }
    }

    fn render(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        cpus::read(cx)?.shown_allowed().render_list(out);
        out.push(b'\n');
        Ok(())
    }

    fn bound(&self, cx: &Context<'_>) -> Result<Option<usize>, Error> {
        let mut out = Vec::new();
        self.render(cx, &mut out)?;
        Ok(Some(out.len()))
    }
}
