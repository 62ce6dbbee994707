//! /sys/kernel/security: hidden.
//!
//! Format: an empty directory.
//! Virtual: nothing.
//! Passed through: nothing: securityfs holds the policy of the machine.
//! Invented: nothing.

use crate::directory::{DirectoryFacts, Empty};

/// /sys/kernel/security.
pub static SECURITY: Empty = Empty(&DirectoryFacts {
    id: 132,
    path: "/sys/kernel/security",
    mode: 0o755,
    views: &[],
});
