//! /proc/slabinfo: a header without caches.
//!
//! Format: print_slabinfo_header, mm/slab_common.c; the file is for root alone, so the server does not read it.
//! Virtual: nothing.
//! Passed through: nothing.
//! Invented: that there are no caches: the kernel keeps no list per cgroup.

use crate::{Context, Emulator, Error, Facts, Pace};

/// /proc/slabinfo.
#[derive(Debug)]
pub struct Slabinfo;

impl Emulator for Slabinfo {
    fn facts(&self) -> &'static Facts {
        &Facts {
            id: 30,
            path: "/proc/slabinfo",
            mode: 0o400,
            pace: Pace::Static,
            source_v1: "none",
            source_v2: "none",
            invented: "that there are no caches: the kernel keeps no list per cgroup",
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

const TEXT: &[u8] = b"slabinfo - version: 2.1\n\
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> \
: tunables <limit> <batchcount> <sharedfactor> \
: slabdata <active_slabs> <num_slabs> <sharedavail>\n";
