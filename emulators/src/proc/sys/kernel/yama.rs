//! /proc/sys/kernel/yama: the table of its tunables.
//!
//! Format: yama_sysctl_table, security/yama/yama_lsm.c.
//! Virtual: what the container has written.
//! Passed through: the host's value until then.
//! Invented: nothing.

use crate::tunable::{Capability, Handler, Tunable};

/// The tunables of this directory.
pub static TUNABLES: &[Tunable] = &[
    // When all tracing is forbidden, it cannot be allowed again (yama_dointvec_minmax).
    Tunable::new(
        304,
        "/proc/sys/kernel/yama/ptrace_scope",
        Handler::int(0, 3),
    )
    .capability(Capability::SysPtrace)
    .highest_is_final(),
];
