//! The block devices that hold the mounts of a container.

use std::path::Path;

use super::mountinfo::{Mount, parse_mountinfo};
use super::procfs::Proc;
use eci_fs_protocol::error::Result;

/// The most devices that are told of. A container can mount as many file systems as it likes.
const MOST: usize = 64;

/// Returns the major and minor number of each block device that holds a mount of the process `pid`; below `root`, if
/// its root file system lies there while the process has not entered it. An overlay, and a file system that has no
/// single device (btrfs), does not say where it lies.
///
/// # Errors
/// When the process has ended.
pub(crate) fn disks(proc: &Proc, pid: i32, root: Option<&Path>) -> Result<Vec<(u32, u32)>> {
    let mounts = parse_mountinfo(&proc.read(&format!("{pid}/mountinfo"))?);
    Ok(devices(&mounts, root))
}

fn devices(mounts: &[Mount], root: Option<&Path>) -> Vec<(u32, u32)> {
    let is_inside =
        |mount: &&Mount| root.is_none_or(|root| Path::new(&mount.point).starts_with(root));
    let mut all: Vec<(u32, u32)> = mounts
        .iter()
        .filter(is_inside)
        .filter_map(|mount| {
            let (major, minor) = mount.dev.split_once(':')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        })
        // File systems without a device have the major number 0.
        .filter(|(major, _)| *major != 0)
        .collect();
    all.sort_unstable();
    all.dedup();
    all.truncate(MOST);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

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
