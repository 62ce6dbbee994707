//! /sys/kernel/tracing: hidden.
//!
//! Format: an empty directory.
//! Virtual: nothing.
//! Passed through: nothing: tracefs shows what others do.
//! Invented: nothing.

use crate::directory::{DirectoryFacts, Empty};

/// /sys/kernel/tracing.
pub static TRACING: Empty = Empty(&DirectoryFacts {
    id: 131,
    path: "/sys/kernel/tracing",
    mode: 0o700,
    views: &[],
});
