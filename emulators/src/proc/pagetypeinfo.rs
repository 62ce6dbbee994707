//! /proc/pagetypeinfo: headers without pages.
//!
//! Format: pagetypeinfo_show, mm/vmstat.c; the file is for root alone, so the server does not read it.
//! Virtual: nothing.
//! Passed through: nothing.
//! Invented: that there are no pages, in blocks of 2 MiB.

use crate::{Context, Emulator, Error, Facts, Pace};

/// /proc/pagetypeinfo.
#[derive(Debug)]
pub struct Pagetypeinfo;

impl Emulator for Pagetypeinfo {
    fn facts(&self) -> &'static Facts {
        &Facts {
            id: 29,
            path: "/proc/pagetypeinfo",
            mode: 0o400,
            pace: Pace::Static,
            source_v1: "none",
            source_v2: "none",
            invented: "that there are no pages, in blocks of 2 MiB",
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

const TEXT: &[u8] = concat!(
    "Page block order: 9\n",
    "Pages per block:  512\n",
    "\n",
    "Free pages count per migrate type at order ",
    "      0      1      2      3      4      5      6      7      8      9     10 \n",
    "\n",
    "Number of blocks type ",
    "    Unmovable      Movable  Reclaimable   HighAtomic      Isolate \n",
)
.as_bytes();
