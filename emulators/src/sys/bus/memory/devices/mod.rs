//! /sys/bus/memory/devices: links to the blocks of memory, of which the container has one.
//!
//! Format: bus_add_device, drivers/base/bus.c.
//! Virtual: that there is one block.
//! Passed through: nothing.
//! Invented: nothing.

use crate::directory::{Decision, Directory, DirectoryFacts, hidden};
use crate::model::memory_block::BLOCK;
use crate::{Context, Error};

/// /sys/bus/memory/devices.
#[derive(Debug)]
pub struct Devices;

const PATH: &str = "/sys/bus/memory/devices";

impl Directory for Devices {
    fn facts(&self) -> &DirectoryFacts {
        &DirectoryFacts {
            id: 142,
            path: PATH,
            mode: 0o755,
            views: &[BLOCK],
        }
    }

    fn entry(&self, _cx: &Context<'_>, rel: &str) -> Result<Decision, Error> {
        Ok(match rel {
            "" => Decision::Passthrough(PATH.to_owned()),
            BLOCK => Decision::Link(format!("../../../devices/system/memory/{BLOCK}")),
            _ => Decision::Hidden,
        })
    }

    fn names(&self, _cx: &Context<'_>, rel: &str) -> Result<Vec<String>, Error> {
        match rel {
            "" => Ok(vec![BLOCK.to_owned()]),
            _ => Err(hidden(rel)),
        }
    }

    fn render(&self, _cx: &Context<'_>, rel: &str, _out: &mut Vec<u8>) -> Result<(), Error> {
        Err(hidden(rel))
    }
}
