//! Views in /sys/devices/virtual/dmi/id, which identifies a host.
//!
//! Format of the serial numbers: sys_dmi_field_show, drivers/firmware/dmi-id.c: the string and a newline.

pub mod product_uuid;

use crate::View;

/// The files of this directory.
pub static VIEWS: &[View] = &[
    product_uuid::VIEW,
    serial(44, "/sys/devices/virtual/dmi/id/product_serial"),
    serial(45, "/sys/devices/virtual/dmi/id/board_serial"),
    serial(46, "/sys/devices/virtual/dmi/id/chassis_serial"),
];

const fn serial(id: u16, path: &'static str) -> View {
    View::constant(
        id,
        path,
        0o400,
        b"\n",
        "the empty string, as firmware without one has",
    )
}
