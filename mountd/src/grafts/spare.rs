//! Spares: the container's own /proc and /sys without grafts, where no path leads.
//!
//! A user namespace in a container may mount a procfs if its mount namespace has one already of which nothing is
//! hidden (`mnt_already_visible` of fs/namespace.c); so for sysfs. A graft hides a file, and would make the kernel
//! refuse what it allows without grafts: containers with user namespaces in the container, `unshare -r --mount-proc`.
//! The kernel looks at all mounts, at those too that are covered. So, on /proc/fs,
//!
//! 1. a clone of /proc is mounted, the room,
//! 2. in it, spares: clones of /proc and of /sys, on which nothing lies,
//! 3. and on the room what was at /proc/fs before: whoever walks there is above the room.
//!
//! A container for which something is hidden, as engines do unless they are told not to, gets none. So no container
//! can mount more than it could without grafts.

use std::os::fd::OwnedFd;

use nix::mount::{MntFlags, umount2};
use rustix::fs::OFlags;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::source_mounts::SourceMounts;
use super::target::{Targets, Top};
use crate::container::mountinfo::Mount;
use crate::container::{Subject, open_below};
use eci_fs_protocol::error::{Error, Result};

/// The directory of procfs on which the room is: every kernel has it.
const POINT: &str = "fs";

/// The part of procfs that covers the room.
const COVER: &str = "/fs";

/// Directories of procfs in which spares of /proc and of /sys are mounted, in the room.
const IN_ROOM: [&str; 2] = ["sys", "tty"];

/// Directories that are always empty, and made to be mounted on: what lies there hides nothing.
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

/// Lay them, if the container has none, and if nothing but grafts hides anything from it.
///
/// # Errors
/// When a mount is refused. Nothing is laid then.
pub(super) fn lay(mounts: &SourceMounts, subject: &Subject, targets: &Targets<'_>) -> Result<()> {
    let Some(proc) = targets.proc()?.filter(is_whole) else {
        return Ok(());
    };
    let sys = targets.sys()?.filter(is_whole);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let point = open_below(proc.dir, POINT, flags)
        .map_err(|e| Error::io("open the container's", "/proc/fs", e))?;
    mounts.inside(&subject.pidfd, || {
        let (room, cover) = (clone(proc.dir)?, clone(&point)?);
        put(&room, &point, "")?;
        let spares = [Some(&proc), sys.as_ref()];
        let furnished = IN_ROOM
            .iter()
            .zip(spares)
            .filter_map(|(name, top)| Some((name, top?)))
            .try_for_each(|(name, top)| put(&clone(top.dir)?, &room, name))
            .and_then(|()| put(&cover, &room, ""));
        furnished.inspect_err(|_| remove(&proc))
    })
}

/// Take them away. Only inside of the container's namespace.
pub(super) fn take_away(targets: &Targets<'_>) {
    if let Ok(Some(proc)) = targets.proc()
        && has_room(targets, &proc)
    {
        // First what covers the room, then the room and all that is in it.
        remove(&proc);
        remove(&proc);
    }
}

/// Whether nothing is hidden of what is mounted there, and no peer of it gets what is mounted on it.
fn is_whole(top: &Top<'_>) -> bool {
    top.mount.shared.is_none()
        && top
            .others
            .iter()
            .all(|other| below(top, &other.point).is_some_and(|path| EMPTY.contains(&path)))
}

/// Whether a room lies on it, and its cover on that.
fn has_room(targets: &Targets<'_>, proc: &Top<'_>) -> bool {
    let is_point = |path: &str| path.strip_prefix('/') == Some(POINT);
    let is_part = |mount: &Mount, root: &str| {
        mount.fstype == "proc"
            && mount.root == root
            && below(proc, &mount.point).is_some_and(is_point)
    };
    proc.others
        .iter()
        .filter(|other| is_part(other, "/"))
        .any(|room| targets.on(room).iter().any(|cover| is_part(cover, COVER)))
}

/// A mount point as a path below the one of `top`.
fn below<'a>(top: &Top<'_>, point: &'a str) -> Option<&'a str> {
    point.strip_prefix(top.mount.point.as_str())
}

/// A detached clone of the mount that a directory is in, from there on, without what is mounted on it.
fn clone(dir: &OwnedFd) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(dir, "", flags).map_err(|e| Error::io("clone", "a mount of the container", e))
}

/// Move a clone onto a directory of the kernel's.
fn put(clone: &OwnedFd, dir: &OwnedFd, name: &str) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(clone, "", dir, name, flags)
        .map_err(|e| Error::io("mount", "a spare in the container", e))
}

/// Unmount what lies on top at the point.
fn remove(proc: &Top<'_>) {
    let gone = nix::unistd::fchdir(proc.dir)
        .and_then(|()| umount2(POINT, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW));
    if let Err(error) = gone {
        tracing::warn!(%error, "a spare stays in the container, ignoring");
    }
}
