//! /sys/devices/system/node/nodeN/numastat: where allocations were placed.
//!
//! Format: node_read_numastat, drivers/base/node.c: key and number on each line.
//! Virtual: nothing: the kernel keeps no such figures per cgroup.
//! Passed through: the keys.
//! Invented: the zeros.

use crate::text::{fields, lines};
use crate::{Context, Error};

pub(super) fn render(cx: &Context<'_>, path: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    for key in lines(&cx.host.read(path)?).filter_map(|line| fields(line).next()) {
        out.extend_from_slice(key);
        out.extend_from_slice(b" 0\n");
    }
    Ok(())
}
