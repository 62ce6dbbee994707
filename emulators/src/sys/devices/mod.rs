//! Views below /sys/devices.

pub mod system;
