//! /sys/kernel/debug: hidden.
//!
//! Format: an empty directory.
//! Virtual: nothing.
//! Passed through: nothing: debugfs is about the machine, and dangerous.
//! Invented: nothing.

use crate::directory::{DirectoryFacts, Empty};

/// /sys/kernel/debug.
pub static DEBUG: Empty = Empty(&DirectoryFacts {
    id: 130,
    path: "/sys/kernel/debug",
    mode: 0o700,
    views: &[],
});
