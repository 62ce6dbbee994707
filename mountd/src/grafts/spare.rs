//! Spares: clones of the container's own /proc and /sys without grafts, at a place where no path leads.
//!
//! A user namespace in a container may mount a procfs if its mount namespace has one already of which nothing is
//! hidden (`mnt_already_visible` of fs/namespace.c). The same holds for sysfs. A graft hides a file, so the kernel would
//! refuse what it allows without grafts: user namespaces in the container that mount one, as
//! `unshare -r --mount-proc` does. The kernel looks at all mounts, also at those that are covered. So there are three
//! layers on /proc/tty:
//!
//! 1. the base, a clone of /proc/tty,
//! 2. on two directories of the base, the spares: clones of /proc and of /sys, on which nothing lies,
//! 3. on the base, the cover: another clone of /proc/tty. A path to /proc/tty ends there, above the base.
//!
//! mountinfo shows the base and the spares, so programs like df(1) walk to their paths. These are paths of the cover too,
//! where they lead to directories of the kernel that say nothing of the host.
//!
//! If something is hidden from a container, as engines do unless they are told not to, it gets no spares. So no
//! container can mount more than it could without grafts.

use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, StatVfsMountFlags, fstatvfs};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsmount, fsopen, move_mount, open_tree,
};

use super::target::{Targets, Top};
use super::visits::Visit;
use crate::container::mountinfo::Mount;
use crate::container::{Subject, open_below};
use eci_fs_protocol::error::{Error, Result};

/// The directory of procfs on which the base is. Every kernel with terminals has it.
const POINT: &str = "tty";

/// Directories in it, on which the spares of /proc and of /sys are mounted.
const IN_BASE: [&str; 2] = ["ldisc", "driver"];

/// The directory on which version 0.1.0 had the base, which was a clone of /proc.
const POINT_BEFORE: &str = "fs";

/// Directories that are always empty, and made to be mounted on. A mount there hides nothing.
const EMPTY: &[&str] = &[
    "/fs/bpf",
    "/fs/cgroup",
    "/fs/fuse/connections",
    "/fs/nfsd",
    "/fs/pstore",
    "/fs/resctrl",
    "/fs/selinux",
    "/fs/smackfs",
    "/firmware/efi/efivars",
    "/kernel/config",
    "/kernel/debug",
    "/kernel/security",
    "/kernel/tracing",
    "/sys/fs/binfmt_misc",
];

/// Mounts the spares, if the container has none, and if nothing but grafts hides anything from it. Returns whether it did.
///
/// # Errors
/// When a mount is refused. No spare is mounted then.
pub(super) fn mount(visit: &Visit, subject: &Subject, targets: &Targets<'_>) -> Result<bool> {
    let Some(proc) = targets.proc()?.filter(is_whole) else {
        return Ok(false);
    };
    let sys = targets.sys()?.filter(is_whole);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let point = open_below(proc.dir, POINT, flags)
        .map_err(|e| Error::io("open the container's", "/proc/tty", e))?;
    visit.mounts().inside(&subject.pidfd, || {
        let (base, cover) = (clone(&point)?, clone(&point)?);
        put(&base, &point, "")?;
        let spares = [Some(&proc), sys.as_ref()];
        let mounted = IN_BASE
            .iter()
            .zip(spares)
            .filter_map(|(name, top)| Some((name, top?)))
            .try_for_each(|(name, top)| put(&spare(top)?, &base, name))
            .and_then(|()| put(&cover, &base, ""));
        mounted.inspect_err(|_| remove(&proc, POINT))
    })?;
    Ok(true)
}

/// Unmounts the spares that were just mounted.
///
/// # Errors
/// When the namespace cannot be entered.
pub(super) fn undo(visit: &Visit, subject: &Subject, targets: &Targets<'_>) -> Result<()> {
    visit.mounts().inside(&subject.pidfd, || {
        if let Some(proc) = targets.proc()? {
            remove_base(&proc, POINT);
        }
        Ok(())
    })
}

/// Unmounts the spares. The thread is inside of the container's namespace.
pub(super) fn unmount(targets: &Targets<'_>) {
    let Ok(Some(proc)) = targets.proc() else {
        return;
    };
    for point in [POINT, POINT_BEFORE] {
        if has_base(targets, &proc, point) {
            remove_base(&proc, point);
        }
    }
}

/// Unmounts the cover, and then the base with the spares. The thread is inside of the container's namespace.
fn remove_base(proc: &Top<'_>, point: &str) {
    remove(proc, point);
    remove(proc, point);
}

/// Returns true if nothing is hidden of the mount, and no peer of it gets what is mounted on it.
fn is_whole(top: &Top<'_>) -> bool {
    top.mount.shared.is_none()
        && top
            .others
            .iter()
            .all(|other| !hides_something(top.mount, other))
}

/// Returns true if a mount that lies on `top` hides something of it: it does not lie on a directory that is always empty.
pub fn hides_something(top: &Mount, mount: &Mount) -> bool {
    below(top, &mount.point).is_none_or(|path| !EMPTY.contains(&path))
}

/// Returns true if a base lies on its directory `point`, and the cover on that.
fn has_base(targets: &Targets<'_>, proc: &Top<'_>, point: &str) -> bool {
    let name = |path: &str| path.strip_prefix('/') == Some(point);
    let is_there =
        |mount: &Mount| mount.fstype == "proc" && below(proc.mount, &mount.point).is_some_and(name);
    let is_base = |mount: &Mount| is_there(mount) && (mount.root == "/" || name(&mount.root));
    let is_cover = |mount: &Mount| is_there(mount) && name(&mount.root);
    proc.others
        .iter()
        .filter(|other| is_base(other))
        .any(|base| targets.on(base).iter().any(|cover| is_cover(cover)))
}

/// A mount point as a path below the one of `top`.
fn below<'a>(top: &Mount, point: &'a str) -> Option<&'a str> {
    point.strip_prefix(top.point.as_str())
}

/// A detached clone of the mount that a directory is in, from there on, without what is mounted on it.
fn clone(dir: &OwnedFd) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(dir, "", flags).map_err(|e| Error::io("clone", "a mount of the container", e))
}

/// Returns a detached mount of the same file system as that of `top`, with the same options, on which nothing lies.
///
/// In a container whose user namespace has the mounts of the host, as `eci-fs run --userns` makes it, what lies on /sys
/// is locked. The kernel does not clone such a mount alone (EINVAL, `has_locked_children` of fs/namespace.c). So sysfs is
/// mounted anew there: the file system is the same, that of the network namespace.
fn spare(top: &Top<'_>) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    match open_tree(top.dir, "", flags) {
        Err(Errno::INVAL) if top.mount.fstype == "sysfs" => mount_sysfs(top.dir),
        made => made,
    }
    .map_err(|e| Error::io("clone", "a mount of the container", e))
}

/// Mounts sysfs, detached, with the options of the mount that a directory is in.
fn mount_sysfs(like: &OwnedFd) -> std::result::Result<OwnedFd, Errno> {
    let options = fstatvfs(like)?.f_flag;
    let attributes = [
        (StatVfsMountFlags::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (StatVfsMountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (StatVfsMountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
        (StatVfsMountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
    ];
    let attributes = attributes
        .into_iter()
        .filter(|(option, _)| options.contains(*option))
        .fold(MountAttrFlags::empty(), |all, (_, attribute)| {
            all | attribute
        });
    let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Moves a clone onto a directory of the kernel's.
fn put(clone: &OwnedFd, dir: &OwnedFd, name: &str) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(clone, "", dir, name, flags)
        .map_err(|e| Error::io("mount", "a spare in the container", e))
}

/// Unmounts the topmost mount on the directory `point`.
fn remove(proc: &Top<'_>, point: &str) {
    let gone = rustix::process::fchdir(proc.dir).and_then(|()| {
        rustix::mount::unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
    });
    if let Err(error) = gone {
        tracing::warn!(%error, "a spare stays in the container, ignoring");
    }
}
