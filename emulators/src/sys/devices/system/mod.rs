//! Views below /sys/devices/system.

pub mod cpu;
pub mod memory;
pub mod node;

use crate::directory::Empty;

/// The memory errors of the host.
pub static EDAC: Empty = Empty::new(160, "/sys/devices/system/edac", 0o755).unless_measuring();
