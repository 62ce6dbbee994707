//! /proc/pressure/irq: how long threads of the container were kept from running by interrupts.
//!
//! Format: psi_show, kernel/sched/psi.c.
//! Virtual: all of it, the file of the container's v2 cgroup.
//! Passed through: nothing.
//! Invented: zeros where the container has no v2 cgroup of its own.

use crate::{Context, Emulator, Error, Facts, Pace};

/// /proc/pressure/irq.
#[derive(Debug)]
pub struct Irq;

impl Emulator for Irq {
    fn facts(&self) -> &'static Facts {
        &Facts {
            id: 41,
            path: "/proc/pressure/irq",
            // The kernel's, for whoever may write a trigger.
            mode: 0o666,
            pace: Pace::Ticking,
            source_v1: "irq.pressure of the v2 cgroup, if the container has one",
            source_v2: "irq.pressure",
            invented: "zeros where there is no v2 cgroup",
        }
    }

    fn render(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        super::render(cx, "irq", out)
    }

    fn bound(&self, cx: &Context<'_>) -> Result<Option<usize>, Error> {
        super::bound(cx, "irq")
    }
}
