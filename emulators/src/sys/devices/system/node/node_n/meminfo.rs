//! /sys/devices/system/node/nodeN/meminfo: the container's memory on the node.
//!
//! Format: node_read_meminfo, drivers/base/node.c: "Node N " before each line.
//! Virtual: what /proc/meminfo says, the node's share of it.
//! Passed through: the lines and their order.
//! Invented: that the share of each node is that of its memory, since limits are not per node.

use super::Share;
use crate::model::memory;
use crate::model::nodes::Nodes;
use crate::proc::meminfo::{Line, number_of_node};
use crate::text::{lines, put};
use crate::{Context, Error};

pub(super) fn render(
    cx: &Context<'_>,
    nodes: &Nodes,
    node: u32,
    path: &str,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let machine = memory::parse_machine(&cx.host.read("/proc/meminfo")?)?;
    let memory = memory::read(cx, &machine)?;
    let share = Share::read(cx, nodes, node)?;
    // Without a limit, some of the machine's nodes have less than the machine. All of them together
    // have what /proc/meminfo says, even where the kernel's own figures differ (hotplugged memory).
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

/// "Node 0 MemTotal:       24684092 kB".
fn parse_line(line: &[u8]) -> Option<Line<'_>> {
    let rest = line.strip_prefix(b"Node ")?;
    let space = rest.iter().position(|&byte| byte == b' ')?;
    Line::parse_of_node(rest.get(space.checked_add(1)?..)?)
}

/// The node's memory on the machine.
pub(super) fn parse_total_kib(text: &[u8]) -> Option<u64> {
    lines(text)
        .filter_map(parse_line)
        .find(|line| line.key == "MemTotal")
        .map(|line| line.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &[u8] = b"Node 0 MemTotal:         989880 kB\nNode 0 Active(anon):      20732 kB\n\
        Node 0 HugePages_Total:     0\n";

    #[test]
    fn the_columns_are_the_kernels() {
        let mut out = Vec::new();
        for line in lines(NODE).filter_map(parse_line) {
            put(&mut out, format_args!("Node 0 "));
            line.render(line.number, &mut out);
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            String::from_utf8(NODE.into()).unwrap()
        );
        assert_eq!(parse_total_kib(NODE), Some(989_880));
    }
}
