//! /proc/pressure/memory: how long threads of the container waited for memory.
//!
//! Format: psi_show, kernel/sched/psi.c.
//! Virtual: all of it, the file of the container's v2 cgroup.
//! Passed through: nothing.
//! Invented: zeros where the container has no v2 cgroup of its own.

use crate::{Context, Emulator, Error, Facts, Pace};

/// /proc/pressure/memory.
#[derive(Debug)]
pub struct Memory;

impl Emulator for Memory {
    fn facts(&self) -> &'static Facts {
        &Facts {
            id: 39,
            path: "/proc/pressure/memory",
            // The kernel's, for whoever may write a trigger.
            mode: 0o666,
            pace: Pace::Ticking,
            source_v1: "memory.pressure of the v2 cgroup, if the container has one",
            source_v2: "memory.pressure",
            invented: "zeros where there is no v2 cgroup",
        }
    }

    fn render(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        super::render(cx, "memory", out)
    }

    fn bound(&self, cx: &Context<'_>) -> Result<Option<usize>, Error> {
        super::bound(cx, "memory")
    }
}
