//! /proc/sys/kernel/keys: the table of its tunables.
//!
//! Format: key_sysctls, security/keys/sysctl.c.
//! Virtual: what the container has written.
//! Passed through: the host's values until then.
//! Invented: nothing.

use crate::tunable::{Handler, Tunable};

/// The tunables of this directory.
pub static TUNABLES: &[Tunable] = &[
    Tunable::new(288, "/proc/sys/kernel/keys/maxkeys", SOME),
    Tunable::new(289, "/proc/sys/kernel/keys/maxbytes", SOME),
    Tunable::new(290, "/proc/sys/kernel/keys/root_maxkeys", SOME),
    Tunable::new(291, "/proc/sys/kernel/keys/root_maxbytes", SOME),
    Tunable::new(292, "/proc/sys/kernel/keys/gc_delay", COUNT),
    Tunable::new(
        293,
        "/proc/sys/kernel/keys/persistent_keyring_expiry",
        COUNT,
    ),
];

const SOME: Handler = Handler::int(1, i32::MAX);
const COUNT: Handler = Handler::int(0, i32::MAX);
