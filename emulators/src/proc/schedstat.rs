//! /proc/schedstat: hidden: it tells when others ran.
//!
//! Format: show_schedstat, kernel/sched/stats.c.
//! Virtual: the mode, 0400.
//! Passed through: nothing.
//! Invented: empty, where the kernel has text.

use crate::{Context, Emulator, Error, Facts, Pace};

/// /proc/schedstat.
#[derive(Debug)]
pub struct Schedstat;

impl Emulator for Schedstat {
    fn facts(&self) -> &'static Facts {
        &Facts {
            id: 34,
            path: "/proc/schedstat",
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
