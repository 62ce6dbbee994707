//! Views below /sys.

pub mod devices;
pub mod firmware;
pub mod kernel;
pub mod module;
