//! Trees of mounts that are taken out of a container, locked, and put back.
//!
//! The mount at the top of a tree cannot be locked, as it is moved. It keeps "ro". So a container may unmount its /proc as
//! a whole: nothing comes to light by that, and the kernel lets it mount no other one.

use std::borrow::Cow;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_remount, move_mount, open_tree,
    unmount,
};

use super::super::open::{at, is_mount_root, open_root, open_top};
use super::super::source_mounts::do_mount;
use super::super::visits::Visit;
use super::covers::make_point;
use super::{STAGE, TOPS, stage_of};
use crate::container::mountinfo::Mount;
use crate::container::procfs::Proc;
use crate::container::{Subject, open_within};
use crate::faults;
use crate::isolation::copy_mounts;
use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::locks::ReadOnlyMount;

/// The most mounts that lie on one another at /proc or /sys.
const MOST_LAYERS: usize = 16;

/// A place in a container whose tree is locked.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// The path in the container.
    path: PathBuf,
    /// Mounts of the tree that become read-only, by their paths below `path`; with true, those below them too.
    read_only: Vec<(PathBuf, bool)>,
}

impl Place {
    fn is_top(&self) -> bool {
        TOPS.iter().any(|top| self.path == Path::new(top))
    }
}

/// Replaces the trees of mounts at /proc and /sys, and those of the read-only `mounts`, by locked copies. `root` is the root
/// file system of the container, which it has not entered.
///
/// # Errors
/// When a mount is refused, and when `mounts` has a path that is no mount. Trees may be missing then.
pub(super) fn lock(
    visit: &Visit,
    subject: &Subject,
    root: &Path,
    mounts: &[ReadOnlyMount],
) -> Result<()> {
    let places = places(mounts)?;
    let proc = &visit.mounts().proc;
    let root = visit.touch(|| {
        let above = proc.open_at(
            &format!("{}/root", subject.pid),
            OFlags::PATH | OFlags::DIRECTORY,
        )?;
        open_root(&above, root)
    })??;
    let mut trees = Vec::with_capacity(places.len());
    visit.mounts().inside(&subject.pidfd, || {
        for place in places {
            let taken = visit.touch(|| take(proc, &root, &place))??;
            trees.extend(taken.map(|tree| (place, tree)));
        }
        Ok(())
    })?;
    faults::kill_at("locks-taken");
    let locked = locked(visit, &trees)?;
    faults::kill_at("locks-made");
    visit.mounts().inside(&subject.pidfd, || {
        for ((place, _), tree) in trees.iter().zip(&locked) {
            visit.touch(|| put(&root, place, tree))??;
        }
        Ok(())
    })
}

/// Returns the places of all trees. None lies in another one.
fn places(mounts: &[ReadOnlyMount]) -> Result<Vec<Place>> {
    let mut places: Vec<Place> = TOPS
        .iter()
        .map(|top| Place {
            path: top.into(),
            read_only: Vec::new(),
        })
        .collect();
    let mut mounts: Vec<&ReadOnlyMount> = mounts.iter().collect();
    // What lies in another one comes after that.
    mounts.sort_unstable_by(|a, b| a.point.cmp(&b.point));
    for mount in mounts {
        let point = &mount.point;
        if !point.is_absolute() {
            return Err(Error::refused(format!(
                "the mount point {} is not absolute",
                point.display()
            )));
        }
        let around = places
            .iter_mut()
            .find(|place| point.starts_with(&place.path));
        match around {
            Some(place) => {
                let below = point.strip_prefix(&place.path).unwrap_or(point);
                let is_below = place.is_top() && !below.as_os_str().is_empty();
                // Cgroups of version 1 are several mounts.
                let recursive = mount.recursive || is_below;
                place.read_only.push((below.to_owned(), recursive));
            }
            None => places.push(Place {
                path: point.clone(),
                read_only: vec![(PathBuf::new(), mount.recursive)],
            }),
        }
    }
    Ok(places)
}

/// Takes the tree at a place out of the container, whose mount namespace the thread is in. Returns none if it has no such
/// top.
fn take(proc: &Proc, root: &OwnedFd, place: &Place) -> Result<Option<OwnedFd>> {
    let trouble = |e| Error::io("take out the mounts at", &place.path, e);
    let Some(opened) = open(root, place)? else {
        return Ok(None);
    };
    if !is_mount_root(&opened, &text(&place.path))? {
        if place.is_top() {
            return Ok(None);
        }
        return Err(nothing_at(&place.path));
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(&opened, "", flags).map_err(trouble)?;
    // Nothing that the tree hides may lie below it: the container can unmount the tree.
    let mut next = Some(opened);
    for _ in 0..MOST_LAYERS {
        let Some(opened) = next else {
            return Ok(Some(tree));
        };
        rustix::process::fchdir(proc.dir()).map_err(trouble)?;
        let path = format!("thread-self/fd/{}", opened.as_raw_fd());
        unmount(path, UnmountFlags::DETACH).map_err(trouble)?;
        next = match open(root, place)? {
            Some(below) if place.is_top() && is_mount_root(&below, &text(&place.path))? => {
                Some(below)
            }
            _ => None,
        };
    }
    Err(Error::refused(format!(
        "more than {MOST_LAYERS} mounts lie on one another at {}",
        place.path.display()
    )))
}

/// Opens the topmost file at a place; none if the container has no such top.
fn open(root: &OwnedFd, place: &Place) -> Result<Option<OwnedFd>> {
    if place.is_top() {
        let name = place.path.to_str().unwrap_or_default();
        return open_top(root, name.trim_start_matches('/'));
    }
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    open_within(root, &place.path, OFlags::PATH | OFlags::CLOEXEC, resolve)
        .map(Some)
        .map_err(|e| Error::io("open the container's", &place.path, e))
}

/// Returns locked copies of trees, detached. The thread is in the namespace of the source mounts.
fn locked(visit: &Visit, trees: &[(Place, OwnedFd)]) -> Result<Vec<OwnedFd>> {
    let mounts = visit.mounts();
    let copies = mounts.in_copy(|| {
        let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        do_mount("stage", STAGE, "tmpfs", plain, c"mode=0700,size=64k")?;
        for (number, (place, tree)) in trees.iter().enumerate() {
            let point = attach(number, place, tree)?;
            visit.touch(|| make_read_only(&mounts.proc, &point, place))??;
        }
        copy_mounts(&mounts.proc)
    })?;
    mounts.inside(&copies, || {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        let copy = |(number, (place, _)): (usize, &(Place, OwnedFd))| {
            open_tree(CWD, stage_of(number), flags)
                .map_err(|e| Error::io("clone the locked mounts of", &place.path, e))
        };
        trees.iter().enumerate().map(copy).collect()
    })
}

/// Attaches a tree in the copy of the namespace of the source mounts. Returns the path.
fn attach(number: usize, place: &Place, tree: &OwnedFd) -> Result<PathBuf> {
    let point = stage_of(number);
    let trouble = |e| Error::io("attach the mounts of", &place.path, e);
    let directory = at(tree, &text(&place.path))?.directory;
    make_point(&point, directory).map_err(trouble)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(tree, "", CWD, &point, flags).map_err(trouble)?;
    Ok(point)
}

/// Makes the mounts of a tree read-only that shall be.
fn make_read_only(proc: &Proc, point: &Path, place: &Place) -> Result<()> {
    if place.read_only.is_empty() {
        return Ok(());
    }
    let mounts = proc.mounts("thread-self/mountinfo")?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = rustix::fs::open(point, flags, Mode::empty())
        .map_err(|e| Error::io("open the mounts of", &place.path, e))?;
    for (below, recursive) in &place.read_only {
        let path = place.path.join(below);
        let inner = match below.as_os_str().is_empty() {
            true => None,
            false => Some(open_inner(&opened, below, &path)?),
        };
        let id = at(inner.as_ref().unwrap_or(&opened), &text(&path))?.mount;
        let first = mounts.iter().find(|mount| mount.id == id);
        let first = first.ok_or_else(|| nothing_at(&path))?;
        let is_meant = |mount: &&Mount| {
            mount.id == id || *recursive && Path::new(&mount.point).starts_with(&first.point)
        };
        for mount in mounts.iter().filter(is_meant) {
            let flags = mount.kept_flags() | MountFlags::RDONLY | MountFlags::BIND;
            mount_remount(mount.point.as_str(), flags, "")
                .map_err(|e| Error::io("make read-only the mounts at", &path, e))?;
        }
    }
    Ok(())
}

/// Opens the root of a mount in a tree.
fn open_inner(tree: &OwnedFd, below: &Path, path: &Path) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let inner = open_within(tree, below, OFlags::PATH | OFlags::CLOEXEC, resolve)
        .map_err(|e| Error::io("open the container's", path, e))?;
    match is_mount_root(&inner, &text(path))? {
        true => Ok(inner),
        false => Err(nothing_at(path)),
    }
}

fn text(path: &Path) -> Cow<'_, str> {
    path.to_string_lossy()
}

fn nothing_at(path: &Path) -> Error {
    Error::refused(format!(
        "the runtime has mounted nothing at {}",
        path.display()
    ))
}

/// Puts a tree into the container, whose mount namespace the thread is in.
fn put(root: &OwnedFd, place: &Place, tree: &OwnedFd) -> Result<()> {
    let trouble = |e| Error::io("put back the mounts at", &place.path, e);
    let opened = open(root, place)?
        .ok_or_else(|| Error::not_found(format!("{} of the container", place.path.display())))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", &opened, "", flags).map_err(trouble)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_tree_is_no_tree_of_its_own() {
        let mount = |point: &str, recursive| ReadOnlyMount {
            point: point.into(),
            recursive,
        };
        let mounts = [
            mount("/v/w", false),
            mount("/sys/fs/cgroup", false),
            mount("/sys", false),
            mount("/v", true),
            mount("/vw", false),
        ];
        let place = |path: &str, read_only: &[(&str, bool)]| Place {
            path: path.into(),
            read_only: read_only
                .iter()
                .map(|(path, recursive)| (path.into(), *recursive))
                .collect(),
        };
        let wanted = [
            place("/proc", &[]),
            place("/sys", &[("", false), ("fs/cgroup", true)]),
            place("/v", &[("", true), ("w", false)]),
            place("/vw", &[("", false)]),
        ];
        assert_eq!(places(&mounts).unwrap(), wanted);
        assert!(places(&[mount("v", false)]).is_err());
    }
}
