//! /sys/devices/system/node/nodeN/hugepages/*/*_hugepages: huge pages of the node.
//!
//! Format: drivers/base/node.c, mm/hugetlb.c: one number.
//! Virtual: nothing: the kernel keeps no figure per cgroup and node.
//! Passed through: the directories, one per size.
//! Invented: the 0 that every file says.

use crate::directory::split_first;

pub(super) fn is_view(below: &str) -> bool {
    split_first(below).1.ends_with("_hugepages")
}

pub(super) fn render(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\n");
}
