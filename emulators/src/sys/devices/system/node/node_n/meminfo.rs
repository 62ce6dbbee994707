//! /sys/devices/system/node/nodeN/meminfo: the container's memory on the node.
//!
//! Format: node_read_meminfo, drivers/base/node.c: "Node N " before each line.
//! Virtual: what /proc/meminfo says, the node's share of it.
//! Passed through: the lines and their order.
//! Invented: that the share of each node is that of its memory, since limits are not per node.

use crate::model::meminfo::number_of_node;
use crate::model::memory;
use crate::model::nodes::{Nodes, Share, parse_line};
use crate::text::{lines, put};
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
    // A container without a limit that has some of the nodes must not get more than these have. If it has all nodes,
    // their sum is that of /proc/meminfo, also where the kernel's figures differ (hotplugged memory).
    let most = if nodes.allowed == nodes.online {
        u64::MAX
    } else {
        share.node_kib
    };
    for line in lines(&cx.host.read(path)?).filter_map(parse_line) {
        put(out, format_args!("Node {node} "));
        line.render(share.of(number_of_node(&line, &memory)).min(most), out);
    }
    Ok(())
}
