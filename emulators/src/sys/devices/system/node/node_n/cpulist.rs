//! /sys/devices/system/node/nodeN/cpulist: the CPUs next to the node's memory.
//!
//! Format: node_read_cpulist, drivers/base/node.c.
//! Virtual: the list, cut down to visible CPUs.
//! Passed through: nothing.
//! Invented: nothing.

use crate::model::cpus;
use crate::sys::devices::system::cpu::render_list;
use crate::{Context, Error};

pub(super) fn render(cx: &Context<'_>, path: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    let cpus = cpus::read(cx)?;
    render_list(cx, &cpus, path, &cpus.visible, out)
}
