//! /proc/sys/kernel/random/boot_id: a UUID for the life of the container.
//!
//! Format: proc_do_uuid, drivers/char/random.c: `%pU` and a newline.
//! Virtual: the UUID, drawn when the container was attached.
//! Passed through: nothing.
//! Invented: nothing.

use crate::text::put_uuid;
use crate::{Bound, Context, Error, Facts, View};

/// /proc/sys/kernel/random/boot_id.
pub const VIEW: View = View::new(42, "/proc/sys/kernel/random/boot_id", render_view)
    .steady()
    .sources(
        "a random number per container",
        "a random number per container",
    );

fn render_view(facts: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    let boot_id = &cx.identity().boot_id;
    // With zeros all containers would have the same id.
    if boot_id.iter().all(|byte| *byte == 0) {
        return Err(Error::malformed(facts.path, "the container has no boot id"));
    }
    put_uuid(out, boot_id);
    out.push(b'\n');
    Ok(Bound::Exact)
}
