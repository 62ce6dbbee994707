//! Views below /sys/devices/system/cpu.

pub mod online;
pub mod possible;
pub mod present;
