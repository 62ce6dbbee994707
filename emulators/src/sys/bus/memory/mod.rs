//! Views below /sys/bus/memory.

pub mod devices;
