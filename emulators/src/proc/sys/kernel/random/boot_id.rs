//! /proc/sys/kernel/random/boot_id: a UUID for the life of the container.
//!
//! Format: proc_do_uuid, drivers/char/random.c: `%pU` and a newline.
//! Virtual: the UUID, drawn when the container was attached.
//! Passed through: nothing.
//! Invented: nothing.

use crate::text::put_uuid;
use crate::{Context, Emulator, Error, Facts, Pace};

/// /proc/sys/kernel/random/boot_id.
#[derive(Debug)]
pub struct BootId;

impl Emulator for BootId {
    fn facts(&self) -> &'static Facts {
        &Facts {
            id: 42,
            path: "/proc/sys/kernel/random/boot_id",
            mode: 0o444,
            pace: Pace::Static,
            source_v1: "a random number per container",
            source_v2: "a random number per container",
            invented: "",
        }
    }

    fn render(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let boot_id = &cx.container.identity.boot_id;
        // All containers would have the same one.
        if boot_id.iter().all(|byte| *byte == 0) {
            return Err(Error::malformed(
                self.facts().path,
                "the container has no boot id",
            ));
        }
        put_uuid(out, boot_id);
        out.push(b'\n');
        Ok(())
    }

    fn bound(&self, _cx: &Context<'_>) -> Result<Option<usize>, Error> {
        Ok(Some(37))
    }
}
