//! /sys/devices/system/node/nodeN/cpumap: the CPUs next to the node's memory.
//!
//! Format: node_read_cpumap, drivers/base/node.c.
//! Virtual: the mask, cut down to visible CPUs.
//! Passed through: nothing.
//! Invented: nothing.

use crate::model::cpus;
use crate::sys::devices::system::cpu::render_mask;
use crate::{Context, Error};

pub(super) fn render(cx: &Context<'_>, path: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    render_mask(cx, &cpus::read(cx)?, path, out)
}
