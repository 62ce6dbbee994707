//! Views below /sys/devices.

pub mod system;
#[path = "virtual/mod.rs"]
pub mod virtual_;
