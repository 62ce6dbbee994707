//! The block of memory that a container has, for the files that name it.

use crate::Context;
use crate::model::nodes;

/// The directory of the blocks of memory.
pub(crate) const PATH: &str = "/sys/devices/system/memory";

/// The name of the container's block.
pub(crate) const BLOCK: &str = "memory0";

/// Returns the node of the block: the container's first. None where the host has no nodes.
pub(crate) fn node(cx: &Context<'_>) -> Option<u32> {
    nodes::read(cx).ok()?.allowed.iter().next()
}
