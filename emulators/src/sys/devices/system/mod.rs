//! Views below /sys/devices/system.

pub mod cpu;
pub mod memory;
pub mod node;
