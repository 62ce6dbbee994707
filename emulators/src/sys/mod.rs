//! Views in /sys.

pub mod block;
pub mod bus;
pub mod class;
pub mod devices;
pub mod fs;
pub mod kernel;
pub mod module;

use crate::directory::Empty;

/// Tables of the firmware hold serial numbers.
pub static FIRMWARE: Empty = Empty::new(134, "/sys/firmware", 0o755);
