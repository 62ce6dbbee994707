//! Device nodes that an engine gives a container, one by one (`--device`) or all of the host (`--privileged`).
//!
//! The host's nodes belong to ids that a container in a user namespace does not have. So each device that is given one by one
//! gets a node of its own, which is bound into the container. The cgroup decides about its use, as it does without isolation.
//! A privileged container gets nodes that belong to the host's root. crun would make such that belong to the container, and
//! the container could use all disks.

use std::path::Path;

use eci_fs_protocol::error::{Error, Result};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid, chmod, chownat, makedev, mknodat};

use crate::oci::isolation::Device;

/// Returns true if the runtime may make the node, whoever it belongs to then: everybody may do with it what its owner may.
pub(super) fn is_the_runtimes(device: &Device) -> bool {
    let [owner, group, others] = [6, 3, 0].map(|shift| device.mode >> shift & 0o7);
    !device.allowed_by_number && owner | group | others == others
}

/// Makes the node of `device` at `path`, for a container with `ids` ids from `first_id` on.
///
/// # Errors
/// When its owner is none of the container, and the kernel's.
pub(super) fn make(device: &Device, path: &Path, first_id: u32, ids: u32) -> Result<()> {
    let owner = match device.allowed_by_number {
        false => (0, 0),
        true => {
            for id in [device.uid, device.gid] {
                super::policy::check_id(id, ids).map_err(|error| {
                    error.context(format!("the device {}", device.path.display()))
                })?;
            }
            (first_id + device.uid, first_id + device.gid)
        }
    };
    let trouble = |e| Error::io("make the device", path, e);
    let kind = match device.block {
        true => FileType::BlockDevice,
        false => FileType::CharacterDevice,
    };
    let mode = Mode::from_raw_mode(device.mode);
    let number = makedev(device.major, device.minor);
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), number).map_err(trouble)?;
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(trouble)?;
    chmod(path, mode).map_err(trouble)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_makes_the_nodes_that_everybody_may_use_and_no_others() {
        let of_mode = |mode, allowed_by_number| Device {
            path: "/dev/x".into(),
            block: false,
            major: 1,
            minor: 3,
            mode,
            uid: 0,
            gid: 0,
            allowed_by_number,
        };
        for (mode, wanted) in [
            (0o666, true),
            (0o444, true),
            (0o644, false),
            (0o664, false),
            (0o660, false),
            (0o600, false),
        ] {
            assert_eq!(is_the_runtimes(&of_mode(mode, false)), wanted, "{mode:o}");
            assert!(!is_the_runtimes(&of_mode(mode, true)));
        }
    }
}
