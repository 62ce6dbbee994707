//! Views below /sys/bus.

pub mod memory;
