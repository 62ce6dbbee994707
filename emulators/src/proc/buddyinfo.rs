//! /proc/buddyinfo: how fragmented free memory is, which no container can know.
//!
//! Format: frag_show_print, mm/vmstat.c: "Node %d, zone %8s " and `%6lu ` for each order.
//! Virtual: only the container's nodes.
//! Passed through: the names of the zones.
//! Invented: the zeros.

use crate::cpulist::CpuSet;
use crate::model::nodes;
use crate::text::{fields, lines, parse_u64, put, trimmed};
use crate::{Bound, Context, Error, Facts, Needs, View};

/// /proc/buddyinfo.
pub const VIEW: View = View::new(28, "/proc/buddyinfo", render_view)
    .steady()
    .sources("cpuset.effective_mems", "cpuset.mems.effective")
    .invented("zeros")
    .needs(Needs::CGROUP);

fn render_view(facts: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    // Without NUMA support there is no /sys/devices/system/node, and one node, 0.
    let nodes = if cx.host.exists(nodes::PATH) {
        nodes::read(cx)?.allowed
    } else {
        CpuSet::from_iter([0])
    };
    render(&cx.host.read(facts.path)?, &nodes, out);
    Ok(Bound::Exact)
}

fn render(host: &[u8], nodes: &CpuSet, out: &mut Vec<u8>) {
    for line in lines(host) {
        // Node 0, zone   Normal   1   2 ...
        let mut row = fields(line).skip(1);
        let node = row.next().and_then(|node| node.strip_suffix(b","));
        let zone = row.nth(1).map(trimmed);
        let node = node
            .and_then(parse_u64)
            .and_then(|node| u32::try_from(node).ok());
        if let (Some(node), Some(zone)) = (node, zone)
            && nodes.contains(node)
        {
            put(out, format_args!("Node {node}, zone {zone:>8} "));
            row.for_each(|_| out.extend_from_slice(b"     0 "));
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn zones_of_other_nodes_and_all_counts_are_gone() {
        let host = b"Node 0, zone      DMA      1      2 \nNode 1, zone   Normal 1234567      2 \n";
        let mut out = Vec::new();
        render(host, &CpuSet::from_iter([1]), &mut out);
        assert_eq!(out, b"Node 1, zone   Normal      0      0 \n");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            render(&bytes, &CpuSet::from_iter([0]), &mut Vec::new());
        }
    }
}
