//! Views below /sys/devices/virtual.

pub mod dmi;
pub mod powercap;
