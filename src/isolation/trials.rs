//! Trials of what isolation needs of the kernel. They leave nothing behind: a mount is attached nowhere, or in a mount
//! namespace that ends with a thread.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, mkdir};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsmount, fsopen, mount, mount_change, move_mount, open_tree,
};

use super::mount_setattr::{Access, map_ids};

/// A directory that each host has. The trial of an overlay mounts over it in a mount namespace of its own.
const COVERED: &str = "/sys";

/// Maps the ids of a clone of the directory `path`.
///
/// # Errors
/// The kernel's: [`Errno::INVAL`] for a file system that cannot be mapped.
pub fn map_directory(path: &Path, user_namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    clone_and_map(path, user_namespace).map(drop)
}

/// Maps the ids of a new tmpfs.
///
/// # Errors
/// The kernel's: [`Errno::INVAL`] before Linux 6.3.
pub fn map_tmpfs(user_namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    let opened = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&opened)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let mounted = fsmount(&opened, flags, MountAttrFlags::empty())?;
    map_ids(&mounted, user_namespace, Access::Unchanged)
}

/// Mounts a read-only overlay with a mapped clone of the directory `path` as a layer.
///
/// # Errors
/// The kernel's: [`Errno::INVAL`] before Linux 5.19.
pub fn overlay_of_mapped(path: &Path, user_namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    std::thread::scope(|scope| {
        let tried = std::thread::Builder::new()
            .name("overlay-trial".to_owned())
            .spawn_scoped(scope, || in_own_namespace(path, user_namespace))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        tried.join().unwrap_or(Err(Errno::IO))
    })
}

fn in_own_namespace(path: &Path, user_namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS;
    unshare(flags).map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", slave)?;
    let layer = clone_and_map(path, user_namespace)?;
    mount("tmpfs", COVERED, "tmpfs", MountFlags::empty(), None)?;
    let at = |name: &str| Path::new(COVERED).join(name);
    for name in ["layer", "empty", "overlay"] {
        mkdir(at(name), Mode::from_raw_mode(0o755))?;
    }
    let empty_path = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&layer, "", CWD, at("layer"), empty_path)?;
    let options = std::ffi::CString::new(format!("lowerdir={COVERED}/layer:{COVERED}/empty"));
    let options = options.map_err(|_| Errno::INVAL)?;
    let flags = MountFlags::RDONLY;
    mount(
        "overlay",
        at("overlay"),
        "overlay",
        flags,
        options.as_c_str(),
    )
}

fn clone_and_map(path: &Path, user_namespace: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = open_tree(CWD, path, flags)?;
    map_ids(&clone, user_namespace, Access::ReadOnly)?;
    Ok(clone)
}
