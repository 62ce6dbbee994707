//! /proc/sys/net/ipv4/vs: the table of its tunables, and the directory.
//!
//! Format: vs_vars, net/netfilter/ipvs/ip_vs_ctl.c.
//! Virtual: what the container has written.
//! Passed through: the host's values until then; what the container's network namespace has itself is the kernel's.
//! Invented: a mode of defence 2 stays, where the kernel makes it 1 while there is memory enough (update_defense_level).
//!
//! Before Linux 6.11 a network namespace that belongs to another user namespace than the host's has none of these.
//! Since then it has some that nobody can set. The directory exists if the host has loaded the module.

use crate::Host;
use crate::directory::Namespaced;
use crate::tunable::{Handler, Tunable};

/// The tunables of this directory that a network namespace can lack.
pub static TUNABLES: &[Tunable] = &[
    any(480, "/proc/sys/net/ipv4/vs/amemthresh"),
    any(481, "/proc/sys/net/ipv4/vs/am_droprate"),
    defence(482, "/proc/sys/net/ipv4/vs/drop_entry"),
    defence(483, "/proc/sys/net/ipv4/vs/drop_packet"),
    any(484, "/proc/sys/net/ipv4/vs/conntrack"),
    defence(485, "/proc/sys/net/ipv4/vs/secure_tcp"),
    any(486, "/proc/sys/net/ipv4/vs/snat_reroute"),
    // proc_do_sync_mode
    Tunable::new(
        487,
        "/proc/sys/net/ipv4/vs/sync_version",
        Handler::int(0, 1),
    )
    .in_network(),
    Tunable::new(
        488,
        "/proc/sys/net/ipv4/vs/sync_ports",
        Handler::Checked {
            count: 1,
            check: are_sync_ports,
        },
    )
    .in_network(),
    any(489, "/proc/sys/net/ipv4/vs/sync_persist_mode"),
    Tunable::new(
        490,
        "/proc/sys/net/ipv4/vs/sync_qlen_max",
        Handler::ulong(0, u64::MAX),
    )
    .in_network(),
    any(491, "/proc/sys/net/ipv4/vs/sync_sock_size"),
    any(492, "/proc/sys/net/ipv4/vs/cache_bypass"),
    any(493, "/proc/sys/net/ipv4/vs/expire_nodest_conn"),
    any(494, "/proc/sys/net/ipv4/vs/sloppy_tcp"),
    any(495, "/proc/sys/net/ipv4/vs/sloppy_sctp"),
    any(496, "/proc/sys/net/ipv4/vs/expire_quiescent_template"),
    Tunable::new(
        497,
        "/proc/sys/net/ipv4/vs/sync_threshold",
        Handler::Checked {
            count: 2,
            check: are_thresholds,
        },
    )
    .in_network(),
    // proc_dointvec_jiffies: seconds, which the kernel stores as jiffies of 32 bits.
    Tunable::new(
        498,
        "/proc/sys/net/ipv4/vs/sync_refresh_period",
        Handler::ANY_INT,
    )
    .at_most(most_seconds)
    .in_network(),
    Tunable::new(
        499,
        "/proc/sys/net/ipv4/vs/sync_retries",
        Handler::int(0, 3),
    )
    .in_network(),
    any(500, "/proc/sys/net/ipv4/vs/nat_icmp_send"),
    any(501, "/proc/sys/net/ipv4/vs/pmtu_disc"),
    any(502, "/proc/sys/net/ipv4/vs/backup_only"),
    any(503, "/proc/sys/net/ipv4/vs/conn_reuse_mode"),
    any(504, "/proc/sys/net/ipv4/vs/schedule_icmp"),
    any(505, "/proc/sys/net/ipv4/vs/ignore_tunneled"),
];

/// /proc/sys/net/ipv4/vs.
pub static VS: Namespaced = Namespaced::new(138, "/proc/sys/net/ipv4/vs", TUNABLES);

const fn any(id: u16, path: &'static str) -> Tunable {
    Tunable::new(id, path, Handler::ANY_INT).in_network()
}

/// proc_do_defense_mode.
const fn defence(id: u16, path: &'static str) -> Tunable {
    Tunable::new(id, path, Handler::int(0, 3)).in_network()
}

/// proc_do_sync_ports.
fn are_sync_ports(numbers: &[i32]) -> bool {
    numbers
        .iter()
        .all(|ports| u32::try_from(*ports).is_ok_and(u32::is_power_of_two))
}

/// proc_do_sync_threshold: the first is below the second, unless that is 0.
fn are_thresholds(numbers: &[i32]) -> bool {
    match numbers {
        [threshold, period] => {
            *threshold >= 0 && *period >= 0 && (threshold < period || *period == 0)
        }
        _ => false,
    }
}

fn most_seconds(host: &Host) -> u64 {
    u64::from(i32::MAX.unsigned_abs()) / host.hz().max(1)
}
