//! /sys/module/nf_conntrack/parameters: the table of its tunables.
//!
//! Format: nf_conntrack_set_hashsize, net/netfilter/nf_conntrack_core.c.
//! Virtual: what the container has written.
//! Passed through: the host's value until then.
//! Invented: nothing.

use crate::tunable::{Handler, HostSysctl, Policy, Tunable};

/// The tunables of this directory. The kernel's file cannot be set from another network namespace than the host's.
pub static TUNABLES: &[Tunable] = &[Tunable::new(
    464,
    "/sys/module/nf_conntrack/parameters/hashsize",
    Handler::Buckets,
)
.mode(0o600)
.policy(Policy::Raise(HostSysctl::ConntrackHashsize))
.in_network()];
