//! Mounts that hide an entry of a container's /proc or /sys, or make it read-only.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, makedev, mkdirat, mknodat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, mount_remount, move_mount, open_tree,
};

use super::super::open::is_mount_root;
use super::super::target::{Target, Targets};
use super::super::visits::Visit;
use crate::container::Subject;
use crate::container::procfs::Proc;
use eci_fs_protocol::error::{Error, Result};

/// The device that lies over a masked file, in the namespace of the source mounts: reading it gives nothing.
const NULL: &str = "/null";

/// The directory that lies over a masked directory, in the namespace of the source mounts.
const EMPTY: &str = "/empty";

/// The device numbers of /dev/null (Documentation/admin-guide/devices.txt).
const NULL_DEVICE: (u32, u32) = (1, 3);

/// Covers the entries at `paths`, as far as the container has them, by an empty directory or a device without content.
///
/// # Errors
/// When a mount is refused, or a path leads over a symbolic link.
pub(super) fn mask(
    visit: &Visit,
    subject: &Subject,
    targets: &Targets<'_>,
    paths: &[&str],
) -> Result<()> {
    let targets = find(targets, paths)?;
    if targets.is_empty() {
        return Ok(());
    }
    make_sources()?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mut work = Vec::with_capacity(targets.len());
    for (target, path) in targets {
        let source = if target.directory { EMPTY } else { NULL };
        let mask = open_tree(CWD, source, flags).map_err(|e| Error::io("clone", source, e))?;
        work.push((target, mask, path));
    }
    visit.mounts().inside(&subject.pidfd, || {
        for (target, mask, path) in &work {
            let options = match target.directory {
                true => MountFlags::RDONLY | MountFlags::NODEV,
                // A device without its driver cannot be opened.
                false => MountFlags::empty(),
            };
            let options = options | MountFlags::NOSUID | MountFlags::NOEXEC;
            put(visit, mask, target, options).map_err(|e| Error::io("mask", *path, e))?;
        }
        Ok(())
    })
}

/// Makes the entries at `paths` read-only, as far as the container has them, with everything that is mounted below them
/// as it is.
///
/// # Errors
/// When a mount is refused, or a path leads over a symbolic link.
pub(super) fn make_read_only(
    visit: &Visit,
    subject: &Subject,
    targets: &Targets<'_>,
    paths: &[&str],
) -> Result<()> {
    // What lies in a directory comes before it, so no path leads over what was mounted here.
    for path in paths.iter().rev() {
        let Some(target) = targets.find(path)? else {
            continue;
        };
        let options = targets.options_at(&target.entry, path)? | MountFlags::RDONLY;
        visit.mounts().inside(&subject.pidfd, || {
            // A graft, mostly.
            if is_mount_root(&target.entry, path)? {
                return set_options(&visit.mounts().proc, &target.entry, options)
                    .map_err(|e| Error::io("make read-only", *path, e));
            }
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_EMPTY_PATH
                | OpenTreeFlags::AT_RECURSIVE;
            let clone = open_tree(&target.entry, "", flags)
                .map_err(|e| Error::io("clone the container's", *path, e))?;
            put(visit, &clone, &target, options).map_err(|e| Error::io("make read-only", *path, e))
        })?;
    }
    Ok(())
}

fn find<'a>(targets: &Targets<'_>, paths: &[&'a str]) -> Result<Vec<(Target, &'a str)>> {
    let found = paths
        .iter()
        .map(|path| Ok(targets.find(path)?.map(|target| (target, *path))));
    found.filter_map(Result::transpose).collect()
}

/// Moves a clone onto a target, and gives it these options and no others. The thread is inside of the container.
fn put(
    visit: &Visit,
    clone: &OwnedFd,
    target: &Target,
    options: MountFlags,
) -> std::result::Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    // A mount waits for the lock of the directory or file, which a process of the container may hold.
    visit
        .touch(|| move_mount(clone, "", &target.entry, "", flags))
        .map_err(|_| Errno::TIMEDOUT)??;
    set_options(&visit.mounts().proc, clone, options)
}

/// Gives a mount of this thread's namespace these options and no others. Its times of access are as they were.
fn set_options(
    proc: &Proc,
    mount: &OwnedFd,
    options: MountFlags,
) -> std::result::Result<(), Errno> {
    // The call takes a path. The host's /proc is the same directory in every mount namespace.
    rustix::process::fchdir(proc.dir())?;
    let path = format!("thread-self/fd/{}", mount.as_raw_fd());
    mount_remount(path, options | MountFlags::BIND, "")
}

/// Makes what masks are clones of. The thread is in the namespace of the source mounts.
fn make_sources() -> Result<()> {
    let trouble = |path: &'static str| move |e| Error::io("create", path, e);
    let mode = Mode::from_raw_mode(0o666);
    let (major, minor) = NULL_DEVICE;
    match mknodat(
        CWD,
        NULL,
        FileType::CharacterDevice,
        mode,
        makedev(major, minor),
    ) {
        // Its mode depends on the umask.
        Ok(()) => rustix::fs::chmod(NULL, mode).map_err(trouble(NULL))?,
        Err(Errno::EXIST) => {}
        Err(e) => return Err(trouble(NULL)(e)),
    }
    let mode = Mode::from_raw_mode(0o555);
    match mkdirat(CWD, EMPTY, mode) {
        Ok(()) => rustix::fs::chmod(EMPTY, mode).map_err(trouble(EMPTY)),
        Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(trouble(EMPTY)(e)),
    }
}
