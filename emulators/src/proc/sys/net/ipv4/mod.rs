//! Views below /proc/sys/net/ipv4.

pub mod neigh;
pub mod vs;
