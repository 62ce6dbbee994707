//! Views below /sys.

pub mod devices;
