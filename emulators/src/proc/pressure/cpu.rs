//! /proc/pressure/cpu: how long threads of the container waited for a CPU.
//!
//! Format: psi_show, kernel/sched/psi.c.
//! Virtual: all of it, the file of the container's v2 cgroup.
//! Passed through: nothing.
//! Invented: zeros where the container has no v2 cgroup of its own.

use crate::{Context, Emulator, Error, Facts, Pace};

/// /proc/pressure/cpu.
#[derive(Debug)]
pub struct Cpu;

impl Emulator for Cpu {
    fn facts(&self) -> &'static Facts {
        &Facts {
            id: 38,
            path: "/proc/pressure/cpu",
            // The kernel's, for whoever may write a trigger.
            mode: 0o666,
            pace: Pace::Ticking,
            source_v1: "cpu.pressure of the v2 cgroup, if the container has one",
            source_v2: "cpu.pressure",
            invented: "zeros where there is no v2 cgroup",
        }
    }

    fn render(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        super::render(cx, "cpu", out)
    }

    fn bound(&self, cx: &Context<'_>) -> Result<Option<usize>, Error> {
        super::bound(cx, "cpu")
    }
}
