//! /proc/sys/net/core: the table of its tunables, and the directory.
//!
//! Format: net_core_table, net/core/sysctl_net_core.c.
//! Virtual: what the container has written.
//! Passed through: the host's values until then; what the container's network namespace has itself is the kernel's.
//! Invented: which queueing disciplines there are.

use crate::directory::Namespaced;
use crate::tunable::{Capability, Handler, Tunable};

/// The tunables of this directory that a network namespace lacks.
pub static TUNABLES: &[Tunable] = &[
    Tunable::new(416, "/proc/sys/net/core/default_qdisc", Handler::Qdisc)
        .capability(Capability::NetAdmin)
        .in_network(),
    Tunable::new(
        417,
        "/proc/sys/net/core/rmem_max",
        Handler::int(SOCK_MIN_RCVBUF, i32::MAX),
    )
    .in_network(),
    Tunable::new(
        418,
        "/proc/sys/net/core/wmem_max",
        Handler::int(2 * SOCK_MIN_RCVBUF, i32::MAX),
    )
    .in_network(),
    Tunable::new(
        419,
        "/proc/sys/net/core/netdev_max_backlog",
        Handler::ANY_INT,
    )
    .in_network(),
];

/// TCP_SKB_MIN_TRUESIZE of include/net/sock.h: 2048 and a struct sk_buff, in whole cache lines.
const SOCK_MIN_RCVBUF: i32 = 2048 + 256;

/// /proc/sys/net/core.
pub static CORE: Namespaced = Namespaced::new(136, "/proc/sys/net/core", TUNABLES);
