//! /proc/sys/net/netfilter: the table of its tunables.
//!
//! Format: nf_ct_sysctl_table, net/netfilter/nf_conntrack_standalone.c.
//! Virtual: what the container has written.
//! Passed through: the host's value until then.
//! Invented: nothing.

use crate::tunable::{Handler, HostSysctl, Policy, Release, Tunable};

/// The tunables of this directory that all network namespaces share. They can be read in each, and written only in
/// the host's.
pub static TUNABLES: &[Tunable] = &[Tunable::new(
    432,
    "/proc/sys/net/netfilter/nf_conntrack_max",
    Handler::int(0, i32::MAX),
)
.before(BOUNDED, Handler::ANY_INT)
.policy(Policy::Raise(HostSysctl::ConntrackMax))
.in_network()];

/// Since this version negative numbers are refused: since 6.15, and since the stable releases of that time from 6.1
/// on.
const BOUNDED: Release = Release(6, 1);
