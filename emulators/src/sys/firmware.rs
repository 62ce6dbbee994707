//! /sys/firmware: hidden.
//!
//! Format: an empty directory.
//! Virtual: nothing.
//! Passed through: nothing: tables of the firmware hold serial numbers.
//! Invented: nothing.

use crate::directory::{DirectoryFacts, Empty};

/// /sys/firmware.
pub static FIRMWARE: Empty = Empty(&DirectoryFacts {
    id: 134,
    path: "/sys/firmware",
    mode: 0o755,
    views: &[],
});
