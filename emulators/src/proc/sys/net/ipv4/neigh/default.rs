//! /proc/sys/net/ipv4/neigh/default: the table of its tunables.
//!
//! Format: neigh_sysctl_template, net/core/neighbour.c.
//! Virtual: what the container has written.
//! Passed through: the host's values until then.
//! Invented: nothing.

use crate::tunable::{Handler, Tunable};

/// The tunables of this directory: the bounds of the one table of neighbours that all network namespaces share.
pub static TUNABLES: &[Tunable] = &[
    Tunable::new(440, "/proc/sys/net/ipv4/neigh/default/gc_thresh1", COUNT).in_network(),
    Tunable::new(441, "/proc/sys/net/ipv4/neigh/default/gc_thresh2", COUNT).in_network(),
    Tunable::new(442, "/proc/sys/net/ipv4/neigh/default/gc_thresh3", COUNT).in_network(),
];

const COUNT: Handler = Handler::int(0, i32::MAX);
