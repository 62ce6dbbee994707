//! /sys/devices/system/node/nodeN/vmstat: counters of the node.
//!
//! Format: node_read_vmstat, drivers/base/node.c: key and number on each line.
//! Virtual: what /proc/vmstat has a figure for, the node's share of it.
//! Passed through: the keys.
//! Invented: that the share of each node is that of its memory.

use crate::model::nodes::{Nodes, Share};
use crate::model::{memory, vmstat};
use crate::text::{fields, lines, put, trimmed};
use crate::{Context, Error};

pub(super) fn render(
    cx: &Context<'_>,
    nodes: &Nodes,
    node: u32,
    path: &str,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let host = memory::parse_host(&cx.host.read("/proc/meminfo")?)?;
    let memory = memory::read(cx, &host)?;
    let share = Share::read(cx, nodes, node)?;
    let units = vmstat::read_units(cx)?;
    for key in lines(&cx.host.read(path)?).filter_map(|line| fields(line).next()) {
        let key = trimmed(key);
        put(
            out,
            format_args!("{key} {}\n", share.of(vmstat::value(key, &memory, &units))),
        );
    }
    Ok(())
}
