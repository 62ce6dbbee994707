//! Views below /sys/devices/virtual/dmi/id: serial numbers of the machine.

pub mod board_serial;
pub mod chassis_serial;
pub mod product_serial;
pub mod product_uuid;
