//! The views of a container under a directory of the host, for looking at them from outside.
//!
//! The directory becomes a small read-only tmpfs whose files are the points at which the views are mounted:
//! DIR/proc/meminfo and so on, and nothing else. It is built in the grafter's own namespace and moved as one
//! tree, so it is either there as a whole or not at all, and one `umount` takes it away.

use std::ffi::CStr;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_remount, move_mount, open_tree,
    unmount,
};

use super::source_mounts::{SOURCE, SourceMounts, do_mount, open_dir};
use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::link::Row;

/// The options of the tmpfs.
const OPTIONS: &CStr = c"size=1m,mode=0755";

/// Recursive clone: `AT_RECURSIVE`, which open_tree takes beside its own flags.
const RECURSIVE: OpenTreeFlags = OpenTreeFlags::AT_RECURSIVE;

/// Mounts the views `rows` of the container with the directory `top` in both connections on the directory `dir`, in the
/// mount namespace that `pidfd` leads to. Returns the number of views.
///
/// # Errors
/// When a mount is refused; then nothing is left of it.
pub fn mount_inspection(
    mounts: &SourceMounts,
    top: &str,
    rows: &[Row],
    dir: &OwnedFd,
    pidfd: impl AsFd,
) -> Result<usize> {
    let stage = PathBuf::from(format!("/mounts/{top}"));
    fs::create_dir_all(&stage).map_err(|e| Error::io("create", &stage, e))?;
    let result = build(mounts, top, rows, &stage).and_then(|tree| {
        mounts.inside(pidfd, || {
            let flags =
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(&tree, "", dir, "", flags)
                .map_err(|e| Error::io("mount on", "the directory", e))
        })
    });
    // The stage is needed no more, whatever the result is.
    let _ = unmount(&stage, UnmountFlags::DETACH);
    let _ = fs::remove_dir(&stage);
    result.map(|()| rows.len())
}

fn build(mounts: &SourceMounts, top: &str, rows: &[Row], stage: &Path) -> Result<OwnedFd> {
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let text = stage.display().to_string();
    do_mount(SOURCE, &text, "tmpfs", plain, OPTIONS)?;
    for row in rows {
        let point = stage.join(row.path.trim_start_matches('/'));
        // It may be in a directory that is mounted already, and exist there.
        if fs::symlink_metadata(&point).is_err() {
            let parent = if row.directory {
                Some(point.as_path())
            } else {
                point.parent()
            };
            let parent = parent.unwrap_or(stage);
            fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))?;
            if !row.directory {
                fs::File::create(&point).map_err(|e| Error::io("create", &point, e))?;
            }
        }
        let at = rustix::fs::open(
            &point,
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(|e| Error::io("open", &point, e))?;
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(mounts.clone_of(top, row)?, "", at, "", flags)
            .map_err(|e| Error::io("mount on", &point, e))?;
    }
    mount_remount(stage, plain | MountFlags::RDONLY, OPTIONS)
        .map_err(|e| Error::io("mount", stage, e))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | RECURSIVE;
    open_tree(open_dir(stage)?, ".", flags).map_err(|e| Error::io("clone", stage, e))
}

/// Unmounts such a directory in the mount namespace that `pidfd` leads to.
///
/// # Errors
/// When something else is mounted there by now, or nothing is.
pub fn unmount_inspection(mounts: &SourceMounts, dir: &Path, pidfd: impl AsFd) -> Result<()> {
    let dir = dir.to_owned();
    mounts.inside(pidfd, || {
        unmount(&dir, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            .map_err(|e| Error::io("unmount", &dir, e))
    })
}
