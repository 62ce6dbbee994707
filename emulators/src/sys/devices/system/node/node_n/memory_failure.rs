//! /sys/devices/system/node/nodeN/memory_failure/*: broken pages of the node.
//!
//! Format: mm/memory-failure.c: one number.
//! Virtual: nothing.
//! Passed through: the names.
//! Invented: the 0 that every file says.

pub(super) fn is_view(below: &str) -> bool {
    !below.is_empty()
}

pub(super) fn render(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\n");
}
