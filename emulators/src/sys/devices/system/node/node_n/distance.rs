//! /sys/devices/system/node/nodeN/distance: how far the other nodes are.
//!
//! Format: node_read_distance, drivers/base/node.c: one number per online node.
//! Virtual: the numbers of the container's nodes only.
//! Passed through: the numbers.
//! Invented: nothing.

use crate::model::nodes::Nodes;
use crate::text::fields;
use crate::{Context, Error};

pub(super) fn render(
    cx: &Context<'_>,
    nodes: &Nodes,
    path: &str,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let text = cx.host.read(path)?;
    let shown = nodes
        .online
        .iter()
        .zip(fields(&text))
        .filter(|(node, _)| nodes.allowed.contains(*node));
    for (index, (_, distance)) in shown.enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(distance);
    }
    out.push(b'\n');
    Ok(())
}
