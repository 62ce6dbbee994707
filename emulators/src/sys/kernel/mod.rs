//! Views below /sys/kernel.

pub mod config;
pub mod debug;
pub mod notes;
pub mod security;
pub mod tracing;
