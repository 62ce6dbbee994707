//! /sys/kernel/notes: hidden: the build id of the kernel.
//!
//! Format: ELF notes, notes_read in kernel/ksysfs.c.
//! Virtual: nothing.
//! Passed through: nothing.
//! Invented: empty, where the kernel has its notes.

use crate::{Context, Emulator, Error, Facts, Pace};

/// /sys/kernel/notes.
#[derive(Debug)]
pub struct Notes;

impl Emulator for Notes {
    fn facts(&self) -> &'static Facts {
        &Facts {
            id: 47,
            path: "/sys/kernel/notes",
            mode: 0o444,
            pace: Pace::Static,
            source_v1: "none",
            source_v2: "none",
            invented: "empty, where the kernel has its notes",
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
