//! The path at which an engine keeps a namespace.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use eci_fs_mountd::container::mountinfo::Mount;
use eci_fs_protocol::error::{Error, Result};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

/// Checks that one namespace is mounted at `path`, and nothing on it.
///
/// # Errors
/// When it is not.
pub(super) fn check(path: &Path, mounts: &[Mount]) -> Result<()> {
    let here = mounts
        .iter()
        .filter(|mount| Path::new(&mount.point) == path);
    let kinds: Vec<&str> = here.map(|mount| mount.fstype.as_str()).collect();
    if kinds == ["nsfs"] {
        return Ok(());
    }
    Err(Error::refused(format!(
        "{} is not the mount of a namespace that can be replaced",
        path.display()
    )))
}

/// Mounts `namespace` at `path` in the place of the namespace there. The engine unmounts once and then removes the file, so
/// nothing may stay below.
///
/// # Errors
/// The kernel's.
pub(super) fn replace(path: &Path, namespace: impl AsFd) -> Result<()> {
    let own = format!("/proc/self/fd/{}", namespace.as_fd().as_raw_fd());
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, own, flags).map_err(|e| Error::io("clone", path, e))?;
    let attach = |flags| {
        let flags = flags | MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&tree, "", CWD, path, flags)
    };
    let detach = || {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        unmount(path, flags).map_err(|e| Error::io("unmount", path, e))
    };
    // From Linux 6.5 on there is no moment without a namespace at the path.
    if attach(MoveMountFlags::MOVE_MOUNT_BENEATH).is_ok() {
        return detach();
    }
    detach()?;
    attach(MoveMountFlags::empty()).map_err(|e| Error::io("mount at", path, e))
}
