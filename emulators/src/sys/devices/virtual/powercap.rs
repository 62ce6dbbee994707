//! /sys/devices/virtual/powercap: hidden.
//!
//! Format: an empty directory.
//! Virtual: nothing.
//! Passed through: nothing: power readings tell what others compute.
//! Invented: nothing.

use crate::directory::{DirectoryFacts, Empty};

/// /sys/devices/virtual/powercap.
pub static POWERCAP: Empty = Empty(&DirectoryFacts {
    id: 135,
    path: "/sys/devices/virtual/powercap",
    mode: 0o755,
    views: &[],
});
