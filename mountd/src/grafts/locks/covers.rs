//! Covers of locked grafts. Nobody can unmount such a graft, so a container that is detached gets the kernel's own file on
//! top of it.
//!
//! The kernel clones no file of a mount with something locked on it, so the file comes from a procfs or sysfs that is mounted
//! anew. The cover is as read-only as what it lies on, and that is locked too.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsmount, fsopen, mount_remount, move_mount, open_tree,
};

use super::super::source_mounts::do_mount;
use super::super::target::{Target, Targets};
use super::super::visits::Visit;
use super::{STAGE, TOPS, stage_of};
use crate::container::Subject;
use crate::container::in_namespace::{NamespaceKind, in_namespace};
use crate::isolation::copy_mounts;
use eci_fs_protocol::error::{Error, Result};

/// Covers grafts by the kernel's own files. The thread is in the network namespace of the container.
///
/// # Errors
/// When the container has no such file, or a mount is refused.
pub(in super::super) fn cover(
    visit: &Visit,
    subject: &Subject,
    targets: &Targets<'_>,
    grafts: &[(&str, &Target)],
) -> Result<()> {
    if grafts.is_empty() {
        return Ok(());
    }
    let covers = covers(visit, subject, targets, grafts)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    visit.mounts().inside(&subject.pidfd, || {
        for ((path, target), cover) in grafts.iter().zip(&covers) {
            visit
                .touch(|| move_mount(cover, "", &target.entry, "", flags))?
                .map_err(|e| Error::io("cover the locked graft over", *path, e))?;
        }
        Ok(())
    })
}

/// Returns a cover for each graft, detached.
fn covers(
    visit: &Visit,
    subject: &Subject,
    targets: &Targets<'_>,
    grafts: &[(&str, &Target)],
) -> Result<Vec<OwnedFd>> {
    let mounts = visit.mounts();
    let fresh = [procfs(visit, subject)?, file_system("sysfs")?];
    let copies = mounts.in_copy(|| {
        let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        do_mount("stage", STAGE, "tmpfs", plain, c"mode=0700,size=256k")?;
        for (top, fresh) in TOPS.iter().zip(&fresh) {
            let point = format!("{STAGE}{top}");
            let trouble = |e| Error::io("attach a new", *top, e);
            rustix::fs::mkdir(&point, Mode::from_raw_mode(0o700)).map_err(trouble)?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(fresh, "", CWD, &point, flags).map_err(trouble)?;
        }
        for (number, (path, target)) in grafts.iter().enumerate() {
            let options = targets.options_at(&target.parent, path)?;
            put(number, path, target.directory, options)
                .map_err(|e| Error::io("clone the kernel's", *path, e))?;
        }
        copy_mounts(&mounts.proc)
    })?;
    mounts.inside(&copies, || {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let copy = |(number, (path, _)): (usize, &(&str, &Target))| {
            open_tree(CWD, stage_of(number), flags)
                .map_err(|e| Error::io("clone the kernel's", *path, e))
        };
        grafts.iter().enumerate().map(copy).collect()
    })
}

/// Puts the kernel's file at `path` on the stage, with these options.
fn put(
    number: usize,
    path: &str,
    directory: bool,
    options: MountFlags,
) -> std::result::Result<(), Errno> {
    let point = stage_of(number);
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let clone = open_tree(CWD, format!("{STAGE}{path}"), flags)?;
    make_point(&point, directory)?;
    move_mount(
        &clone,
        "",
        CWD,
        &point,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    mount_remount(&point, options | MountFlags::BIND, "")
}

/// Makes a directory or an empty file to mount on.
pub(super) fn make_point(point: &Path, directory: bool) -> std::result::Result<(), Errno> {
    if directory {
        return rustix::fs::mkdir(point, Mode::from_raw_mode(0o700));
    }
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, point, FileType::RegularFile, mode, 0)
}

/// Mounts a procfs of the container's pid namespace, detached.
fn procfs(visit: &Visit, subject: &Subject) -> Result<OwnedFd> {
    let home = visit
        .mounts()
        .proc
        .open_at("thread-self/ns/pid", OFlags::RDONLY)?;
    // Processes that this thread starts would be in there: it starts none.
    in_namespace(NamespaceKind::Pid, &subject.pidfd, &home, || {
        file_system("proc")
    })?
}

/// Mounts a file system of the kernel, detached.
fn file_system(kind: &str) -> Result<OwnedFd> {
    let options = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
        .and_then(|context| {
            fsconfig_create(&context)?;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, options)
        })
        .map_err(|e| Error::io("mount a new", kind, e))
}
