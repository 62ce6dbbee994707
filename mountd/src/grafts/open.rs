//! Opens files that a container decides about: name by name, without following links.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::container::{open_below, open_within};
use eci_fs_protocol::error::{Error, Result};

/// Opens the root file system that a process is about to enter. The way there is the engine's, and may lead over
/// symbolic links. The container's part begins below it.
pub(super) fn open_root(above: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    open_within(above, path, flags, resolve)
        .map_err(|e| Error::io("open the container's root file system", path, e))
}

/// Opens a directory at the top of a root file system; none where there is none.
pub(super) fn open_top(root: &OwnedFd, name: &str) -> Result<Option<OwnedFd>> {
    match open_below(
        root,
        name,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
    ) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(link_or(e, &format!("/{name}"))),
    }
}

/// Returns the error for an errno on the way to `path`.
pub(super) fn link_or(errno: Errno, path: &str) -> Error {
    match errno {
        Errno::LOOP | Errno::NOTDIR => Error::refused(format!(
            "{path} of the container is a symbolic link or no directory where the kernel has one"
        ))
        .remedy("the container replaced it; mount procfs and sysfs anew in it"),
        e => Error::io("open the container's", path, e),
    }
}

/// The file behind a descriptor.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    /// The id of its mount.
    pub(super) mount: u64,
    /// True if it is a directory.
    pub(super) directory: bool,
    /// True if it is a symbolic link.
    pub(super) link: bool,
}

/// Asks the kernel, and not the file system, about the file behind a descriptor.
pub(super) fn at(fd: &OwnedFd, path: &str) -> Result<At> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(fd, "", flags, StatxFlags::TYPE | StatxFlags::MNT_ID)
        .map_err(|e| Error::io("look at", path, e))?;
    let kind = u32::from(stat.stx_mode) & libc::S_IFMT;
    Ok(At {
        mount: stat.stx_mnt_id,
        directory: kind == libc::S_IFDIR,
        link: kind == libc::S_IFLNK,
    })
}

/// Returns true if the file behind a descriptor is the root of a mount. It does not ask the file system.
pub(super) fn is_mount_root(fd: &OwnedFd, path: &str) -> Result<bool> {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(fd, "", flags, StatxFlags::TYPE)
        .map_err(|e| Error::io("look at the container's", path, e))?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
