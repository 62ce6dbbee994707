//! Directories of /sys/class: links to devices below /sys/devices.

use crate::directory::Empty;

/// The links to the directories in /sys/devices/virtual/bdi.
pub static BDI: Empty = Empty::new(156, "/sys/class/bdi", 0o755).unless_measuring();
/// The links to the directories in /sys/devices/virtual/thermal.
pub static THERMAL: Empty = Empty::new(157, "/sys/class/thermal", 0o755).unless_measuring();
