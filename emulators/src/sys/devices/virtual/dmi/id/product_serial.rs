//! /sys/devices/virtual/dmi/id/product_serial: no serial number.
//!
//! Format: sys_dmi_field_show, drivers/firmware/dmi-id.c: the string and a newline.
//! Virtual: nothing.
//! Passed through: nothing.
//! Invented: the empty string, as firmware without one has.

use crate::{Context, Emulator, Error, Facts, Pace};

/// /sys/devices/virtual/dmi/id/product_serial.
#[derive(Debug)]
pub struct ProductSerial;

impl Emulator for ProductSerial {
    fn facts(&self) -> &'static Facts {
        &Facts {
            id: 44,
            path: "/sys/devices/virtual/dmi/id/product_serial",
            mode: 0o400,
            pace: Pace::Static,
            source_v1: "none",
            source_v2: "none",
            invented: "the empty string, as firmware without one has",
        }
    }

    fn render(&self, _cx: &Context<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend_from_slice(TEXT);
        Ok(())
    }

    fn bound(&self, _cx: &Context<'_>) -> Result<Option<usize>, Error> {
        Ok(Some(TEXT.len()))
    }
}

const TEXT: &[u8] = b"\n";
