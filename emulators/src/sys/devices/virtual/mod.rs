//! Views in /sys/devices/virtual.

pub mod dmi;

use crate::directory::Empty;

/// Power readings tell what others compute.
pub static POWERCAP: Empty = Empty::new(135, "/sys/devices/virtual/powercap", 0o755);

/// One directory for each mounted file system and block device of the host, with a limit that follows the free memory.
/// Programs that mount file systems set how far these are read ahead.
pub static BDI: Empty = Empty::new(158, "/sys/devices/virtual/bdi", 0o755).unless_measuring();
/// Temperatures tell how busy the host is.
pub static THERMAL: Empty =
    Empty::new(159, "/sys/devices/virtual/thermal", 0o755).unless_measuring();
