//! /sys/devices/virtual/dmi/id/product_uuid: a UUID per container.
//!
//! Format: sys_dmi_field_show, drivers/firmware/dmi-id.c: `%pUl` and a newline.
//! Virtual: all of it.
//! Passed through: nothing.
//! Invented: a hash of a secret of this boot and the container's id, as a version 4 UUID.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::text::put_uuid;
use crate::{Bound, Context, Error, Facts, View};

/// /sys/devices/virtual/dmi/id/product_uuid.
pub const VIEW: View = View::new(43, "/sys/devices/virtual/dmi/id/product_uuid", render_view)
    .steady()
    .mode(0o400)
    .sources(
        "a hash of a secret of this boot and the container's id",
        "a hash of a secret of this boot and the container's id",
    )
    .invented("all of it");

fn render_view(facts: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    let identity = cx.identity();
    if identity.host_secret.iter().all(|byte| *byte == 0) {
        return Err(Error::malformed(facts.path, "the host has no secret"));
    }
    put_uuid(out, &derive(&identity.host_secret, &identity.id));
    out.push(b'\n');
    Ok(Bound::Exact)
}

/// Computes the UUID. SipHash is a pseudo-random function of its key: without the secret, a UUID tells nothing about
/// those of other containers.
fn derive(secret: &[u8; 32], id: &str) -> [u8; 16] {
    let (key, more) = secret.split_at(16);
    let mut hasher = SipHasher24::new_with_key(key.try_into().unwrap_or(&[0; 16]));
    hasher.write(more);
    hasher.write(b"product_uuid");
    hasher.write(id.as_bytes());
    let mut uuid = hasher.finish128().as_bytes();
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut uuid;
    *version = *version & 0x0f | 0x40;
    *variant = *variant & 0x3f | 0x80;
    uuid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_has_its_own_and_keeps_it() {
        let one = derive(&[7; 32], "one");
        assert_eq!(one, derive(&[7; 32], "one"));
        assert_ne!(one, derive(&[7; 32], "two"));
        assert_ne!(one, derive(&[8; 32], "one"));
        assert_eq!((one[6] >> 4, one[8] >> 6), (4, 2));
    }
}
