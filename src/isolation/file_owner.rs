//! The owner of files that this process makes.

use eci_fs_protocol::error::{Error, Result};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::thread::{
    CapabilitiesSecureBits, capabilities_secure_bits, set_capabilities_secure_bits,
};

/// Does `work` with the file system user and group `id`: user 0 of the host has no id on a mapped file system.
///
/// # Errors
/// When the capabilities of this process cannot be kept.
pub(super) fn with_owner<T>(id: u32, work: impl FnOnce() -> T) -> Result<T> {
    let trouble = |e| Error::io("change", "the user of file system checks", e);
    let bits = capabilities_secure_bits().map_err(trouble)?;
    // Without this bit a change of the user takes the capabilities that mounting needs.
    set_capabilities_secure_bits(bits | CapabilitiesSecureBits::NO_SETUID_FIXUP)
        .map_err(trouble)?;
    let (uid, gid) = (setfsuid(Uid::from_raw(id)), setfsgid(Gid::from_raw(id)));
    let done = work();
    setfsuid(uid);
    setfsgid(gid);
    set_capabilities_secure_bits(bits).map_err(trouble)?;
    Ok(done)
}
