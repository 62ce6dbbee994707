//! The block devices that hold the mounts of a container.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use super::mountinfo::{self, Mount};
use super::procfs::Proc;
use eci_fs_protocol::error::{Kind, Result};

/// The most devices that are told of. A container can mount as many file systems as it likes.
const MOST: usize = 64;

/// Returns the major and minor number of each block device that holds a mount of the process `pid`; below `root`, if
/// its root file system lies there while the process has not entered it. An overlay, and a file system that has no
/// single device (btrfs), does not say where it lies.
///
/// # Errors
/// When the process has ended.
pub(crate) fn disks(proc: &Proc, pid: i32, root: Option<&Path>) -> Result<Vec<(u32, u32)>> {
    let mut all = BTreeSet::new();
    let seen = proc.each_mount(&format!("{pid}/mountinfo"), mountinfo::LIMIT, |mount| {
        all.extend(device(&mount, root));
        ControlFlow::<()>::Continue(())
    });
    match seen {
        // The container sees fewer disks than it could.
        Err(error) if error.kind == Kind::Refused => tracing::debug!(%error, pid, "ignoring"),
        other => drop(other?),
    }
    Ok(all.into_iter().take(MOST).collect())
}

/// Returns the device of a mount, if it has one, and the mount lies below `root`.
fn device(mount: &Mount, root: Option<&Path>) -> Option<(u32, u32)> {
    let is_inside = root.is_none_or(|root| Path::new(&mount.point).starts_with(root));
    let (major, minor) = mount.dev.split_once(':').filter(|_| is_inside)?;
    // File systems without a device have the major number 0.
    let major = major.parse().ok().filter(|major| *major != 0)?;
    Some((major, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::mountinfo::parse_mountinfo;
    use super::*;

    fn devices(mounts: &[Mount], root: Option<&Path>) -> Vec<(u32, u32)> {
        let all: BTreeSet<_> = mounts.iter().filter_map(|one| device(one, root)).collect();
        all.into_iter().collect()
    }

    #[test]
    fn the_devices_of_the_mounts_below_the_root_are_those_of_the_container() {
        let text = "1 0 254:1 / / rw - ext4 /dev/vda1 rw\n\
                    2 1 8:16 / /data rw - xfs /dev/sdb rw\n\
                    3 1 0:50 / /run/c/rootfs rw - overlay overlay rw\n\
                    4 3 254:1 /hosts /run/c/rootfs/etc/hosts rw - ext4 /dev/vda1 rw\n\
                    5 3 254:1 /name /run/c/rootfs/etc/hostname rw - ext4 /dev/vda1 rw\n";
        let mounts = parse_mountinfo(text);
        assert_eq!(devices(&mounts, None), [(8, 16), (254, 1)]);
        let root = Some(Path::new("/run/c/rootfs"));
        assert_eq!(devices(&mounts, root), [(254, 1)]);
        assert_eq!(devices(&mounts, Some(Path::new("/run/c/root"))), []);
    }
}
