//! /proc/latency_stats: hidden: it tells what others wait for.
//!
//! Format: lstats_show, kernel/latencytop.c.
//! Virtual: the mode, 0400.
//! Passed through: nothing.
//! Invented: empty, where the kernel has text.

use crate::{Context, Emulator, Error, Facts, Pace};

/// /proc/latency_stats.
#[derive(Debug)]
pub struct LatencyStats;

impl Emulator for LatencyStats {
    fn facts(&self) -> &'static Facts {
        &Facts {
            id: 37,
            path: "/proc/latency_stats",
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
