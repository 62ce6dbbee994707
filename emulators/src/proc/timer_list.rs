//! /proc/timer_list: hidden: it lists the timers of the machine.
//!
//! Format: timer_list_show, kernel/time/timer_list.c.
//! Virtual: nothing.
//! Passed through: nothing.
//! Invented: empty, where the kernel has text.

use crate::{Context, Emulator, Error, Facts, Pace};

/// /proc/timer_list.
#[derive(Debug)]
pub struct TimerList;

impl Emulator for TimerList {
    fn facts(&self) -> &'static Facts {
        &Facts {
            id: 35,
            path: "/proc/timer_list",
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
