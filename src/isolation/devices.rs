//! Device nodes that an engine gives a container one by one (`--device`).
//!
//! The host's nodes belong to ids that a container in a user namespace does not have. So each gets a node of its own, which
//! is bound into the container. The cgroup decides about its use, as it does without isolation.

use std::path::Path;

use eci_fs_protocol::error::{Error, Result};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid, chmod, chownat, makedev, mknodat};

use crate::oci::isolation::Device;

/// Makes the node of `device` at `path`, for a container with `ids` ids from `first_id` on.
///
/// # Errors
/// When its owner is none of the container, and the kernel's.
pub(super) fn make(device: &Device, path: &Path, first_id: u32, ids: u32) -> Result<()> {
    for id in [device.uid, device.gid] {
        super::policy::check_id(id, ids)
            .map_err(|error| error.context(format!("the device {}", device.path.display())))?;
    }
    let trouble = |e| Error::io("make the device", path, e);
    let kind = match device.block {
        true => FileType::BlockDevice,
        false => FileType::CharacterDevice,
    };
    let mode = Mode::from_raw_mode(device.mode);
    let number = makedev(device.major, device.minor);
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), number).map_err(trouble)?;
    let (uid, gid) = (first_id + device.uid, first_id + device.gid);
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(trouble)?;
    chmod(path, mode).map_err(trouble)
}
