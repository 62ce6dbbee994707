//! /sys/kernel/config: hidden.
//!
//! Format: an empty directory.
//! Virtual: nothing.
//! Passed through: nothing: configfs configures the machine.
//! Invented: nothing.

use crate::directory::{DirectoryFacts, Empty};

/// /sys/kernel/config.
pub static CONFIG: Empty = Empty(&DirectoryFacts {
    id: 133,
    path: "/sys/kernel/config",
    mode: 0o755,
    views: &[],
});
