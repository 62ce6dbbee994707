//! Spares: clones of the container's own /proc and /sys without grafts, at a place where no path leads.
//!
//! A user namespace in a container may mount a procfs if its mount namespace has one already of which nothing is
//! hidden (`mnt_already_visible` of fs/namespace.c). The same holds for sysfs. A graft hides a file, so the kernel would
//! refuse what it allows without grafts: user namespaces in the container that mount one, as
//! `unshare -r --mount-proc` does. The kernel looks at all mounts, also at those that are covered. So there are three
//! layers on /proc/fs:
//!
//! 1. the base, a clone of /proc,
//! 2. in the base, the spares: clones of /proc and of /sys, on which nothing lies,
//! 3. on the base, the cover: a clone of /proc/fs as it was. A path to /proc/fs ends there, above the base.
//!
//! If something is hidden from a container, as engines do unless they are told not to, it gets no spares. So no
//! container can mount more than it could without grafts.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree};

use super::source_mounts::SourceMounts;
use super::target::{Targets, Top};
use crate::container::mountinfo::Mount;
use crate::container::{Subject, open_below};
use eci_fs_protocol::error::{Error, Result};

/// The directory of procfs on which the base is. Every kernel has it.
const POINT: &str = "fs";

/// The part of procfs that covers the base.
const COVER: &str = "/fs";

/// Directories of the base on which the spares of /proc and of /sys are mounted.
const IN_BASE: [&str; 2] = ["sys", "tty"];

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

/// Mounts the spares, if the container has none, and if nothing but grafts hides anything from it.
///
/// # Errors
/// When a mount is refused. No spare is mounted then.
pub(super) fn mount(mounts: &SourceMounts, subject: &Subject, targets: &Targets<'_>) -> Result<()> {
    let Some(proc) = targets.proc()?.filter(is_whole) else {
        return Ok(());
    };
    let sys = targets.sys()?.filter(is_whole);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let point = open_below(proc.dir, POINT, flags)
        .map_err(|e| Error::io("open the container's", "/proc/fs", e))?;
    mounts.inside(&subject.pidfd, || {
        let (base, cover) = (clone(proc.dir)?, clone(&point)?);
        put(&base, &point, "")?;
        let spares = [Some(&proc), sys.as_ref()];
        let mounted = IN_BASE
            .iter()
            .zip(spares)
            .filter_map(|(name, top)| Some((name, top?)))
            .try_for_each(|(name, top)| put(&clone(top.dir)?, &base, name))
            .and_then(|()| put(&cover, &base, ""));
        mounted.inspect_err(|_| remove(&proc))
    })
}

/// Unmounts the spares. The thread is inside of the container's namespace.
pub(super) fn unmount(targets: &Targets<'_>) {
    if let Ok(Some(proc)) = targets.proc()
        && has_base(targets, &proc)
    {
        // First the cover, then the base with the spares.
        remove(&proc);
        remove(&proc);
    }
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

/// Returns true if a base lies on it, and the cover on that.
fn has_base(targets: &Targets<'_>, proc: &Top<'_>) -> bool {
    let is_point = |path: &str| path.strip_prefix('/') == Some(POINT);
    let is_part = |mount: &Mount, root: &str| {
        mount.fstype == "proc"
            && mount.root == root
            && below(proc.mount, &mount.point).is_some_and(is_point)
    };
    proc.others
        .iter()
        .filter(|other| is_part(other, "/"))
        .any(|base| targets.on(base).iter().any(|cover| is_part(cover, COVER)))
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

/// Moves a clone onto a directory of the kernel's.
fn put(clone: &OwnedFd, dir: &OwnedFd, name: &str) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(clone, "", dir, name, flags)
        .map_err(|e| Error::io("mount", "a spare in the container", e))
}

/// Unmounts the topmost mount on the point.
fn remove(proc: &Top<'_>) {
    let gone = rustix::process::fchdir(proc.dir).and_then(|()| {
        rustix::mount::unmount(POINT, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
    });
    if let Err(error) = gone {
        tracing::warn!(%error, "a spare stays in the container, ignoring");
    }
}
