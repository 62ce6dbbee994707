//! Views below /sys/devices/system.

pub mod cpu;
pub mod node;
