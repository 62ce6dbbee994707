//! Views in /sys/devices/virtual.

pub mod dmi;

use crate::directory::Empty;

/// Power readings tell what others compute.
pub static POWERCAP: Empty = Empty::new(135, "/sys/devices/virtual/powercap", 0o755);
