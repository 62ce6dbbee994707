//! /proc/sys/net/ipv4/neigh. Each network device has a directory in it, and `default` is for devices that come later.
//!
//! Format: neigh_sysctl_register, net/core/neighbour.c.
//! Passed through: the directories of the devices, which are the kernel's own.
//! Invented: nothing. `default` has the thresholds alone, which are the only ones that no network namespace keeps itself.

pub mod default;

use crate::directory::Namespaced;

/// /proc/sys/net/ipv4/neigh.
pub static NEIGH: Namespaced = Namespaced::new(137, "/proc/sys/net/ipv4/neigh", default::TUNABLES);
