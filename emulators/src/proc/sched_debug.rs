//! /proc/sched_debug: hidden: it lists the tasks of the machine. Gone since Linux 5.13.
//!
//! Format: sched_debug_show, kernel/sched/debug.c.
//! Virtual: the mode, 0400.
//! Passed through: nothing.
//! Invented: empty, where the kernel has text.

use crate::{Context, Emulator, Error, Facts, Pace};

/// /proc/sched_debug.
#[derive(Debug)]
pub struct SchedDebug;

impl Emulator for SchedDebug {
    fn facts(&self) -> &'static Facts {
        &Facts {
            id: 36,
            path: "/proc/sched_debug",
            mode: 0o400,
            pace: Pace::Static,
            source_v1: "none",
            source_v2: "none",
            invented: "empty, where the kernel has text",
        }
    }

    fn render(&self, _cx: &Context<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend_from_slice(TEXT);
        Ok(())
    }

    fn bound(&self, _cx: &Context<'_>) -> Result<Option<usize>, Error> {
        Ok(Some(TEXT.len()))
    }
}

const TEXT: &[u8] = b"";
