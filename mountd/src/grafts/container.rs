//! Covers and uncovers entries of a container: all or none.
//!
//! 1. The targets are opened and checked, outside of the container.
//! 2. A clone of each source mount is made, in the grafter's namespace.
//! 3. The container's mount namespace is entered, and each clone moved onto its target.
//! 4. The same with what lies in a directory that has just been covered: its targets are only there now.
//! 5. If one fails, those before it are taken away again before anybody hears of it.
//!
//! A daemon and a server that died together leave dead grafts. Such a graft is never uncovered: ours goes beneath it
//! (Linux 6.5) before it is removed, or over it, so that at no moment the kernel's own file is seen.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};

use super::locks;
use super::prepared_clones::{Clone, PreparedClones};
use super::rows::{inside_another, to_be_grafted};
use super::source_mounts::SourceMounts;
use super::spare;
use super::target::{Occupant, Target, Targets};
use super::visits::Visit;
use crate::container::{Subject, network};
use eci_fs_protocol::error::{Error, Kind, Result};
use eci_fs_protocol::link::Row;
use eci_fs_protocol::locks::Locks;

/// `MOVE_MOUNT_BENEATH` of include/uapi/linux/mount.h (Linux 6.5).
const MOVE_MOUNT_BENEATH: MoveMountFlags = MoveMountFlags::from_bits_retain(0x200);

/// The most layers of dead grafts that are taken off. A daemon that dies with its server leaves one; a container can make
/// mounts that pass for more.
const MOST_LAYERS: usize = 64;

/// The result of an attach.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The paths that are covered now.
    pub grafted: Vec<String>,
}

/// The stage of the container when it is attached. By default its engine has finished it.
#[derive(Debug, Default, Clone)]
pub struct Progress {
    /// The path of its root file system, if that is not its root directory yet.
    pub root: Option<PathBuf>,
    /// With a root: true if nothing of its /proc and /sys is going to be masked or made read-only.
    pub unmasked: bool,
    /// With a root: the mounts that the kernel locks. The container gets no spares then: of a procfs without grafts the
    /// kernel would make others for it.
    pub locks: Option<Locks>,
    /// True if the kernel has locked mounts of it before. It gets no spares either.
    pub has_locks: bool,
}

impl Progress {
    /// Returns the root of a container that is being made and its locks, if it gets any.
    fn locks(&self) -> Option<(&Path, &Locks)> {
        self.root.as_deref().zip(self.locks.as_ref())
    }
}

/// Grafts `rows` into the container. Entries that the container does not have are left out. If nothing of its /proc is
/// hidden, it gets spare mounts.
///
/// # Errors
/// As [`Targets::open`]; and when a mount is refused. Then nothing is grafted.
pub(super) fn attach(
    visit: &Visit,
    subject: &Subject,
    progress: &Progress,
    slot: u64,
    top: String,
    rows: &[Row],
) -> Result<Outcome> {
    let ready = visit.take_prepared(slot);
    let mut clones = Clones { top, ready };
    in_network(visit, subject, || {
        attach_there(visit, subject, progress, &mut clones, rows)
    })
}

/// Locks the mounts of a container without grafting anything.
///
/// # Errors
/// As [`attach`]. The container must not be started then.
pub(super) fn lock(visit: &Visit, subject: &Subject, progress: &Progress) -> Result<()> {
    let mut none = Clones {
        top: String::new(),
        ready: None,
    };
    in_network(visit, subject, || {
        attach_there(visit, subject, progress, &mut none, &[]).map(drop)
    })
}

/// The clones of source mounts for the container in a slot.
#[derive(Debug)]
struct Clones {
    /// The directory of the container in both connections.
    top: String,
    ready: Option<PreparedClones>,
}

impl Clones {
    fn of(&mut self, mounts: &SourceMounts, row: &Row) -> Result<Clone> {
        let ready = self.ready.as_mut().and_then(|ready| ready.take(row));
        ready.map_or_else(|| Clone::make(mounts, &self.top, row), Ok)
    }
}

/// Does `work` in the network namespace of a container. Each namespace has another directory below /proc/sys/net, and a
/// mount on the directory of another namespace would not be seen.
fn in_network<T>(visit: &Visit, subject: &Subject, work: impl FnOnce() -> Result<T>) -> Result<T> {
    match subject.network_namespace {
        Some(_) => network::inside(&visit.mounts().proc, &subject.pidfd, work)?,
        None => work(),
    }
}

fn attach_there(
    visit: &Visit,
    subject: &Subject,
    progress: &Progress,
    clones: &mut Clones,
    rows: &[Row],
) -> Result<Outcome> {
    let root = progress.root.as_deref();
    if let Some((root, locks)) = progress.locks() {
        locks::prepare(visit, subject, root, locks, rows)?;
    }
    let targets = Targets::open(visit, subject, root)?;
    let (later, first): (Vec<&Row>, Vec<&Row>) =
        to_be_grafted(rows).partition(|row| inside_another(row, rows, |_| true));
    let work = prepare(visit, subject, clones, &first, &targets)?;
    cover(visit, subject, &work)?;
    let inner = prepare(visit, subject, clones, &later, &targets)
        .and_then(|inner| cover(visit, subject, &inner).map(|()| inner));
    let inner = inner.inspect_err(|_| uncover_all(visit, subject, &work))?;
    if let Some((root, locks)) = progress.locks() {
        locks::apply(visit, subject, root, &targets, locks, rows)?;
    }
    // Before the visit is done: a thread of the container can hold the directory on which the spares are mounted.
    let locked = progress.has_locks || progress.locks.is_some();
    let seen = !locked && (root.is_none() || progress.unmasked);
    let spares = match seen {
        true => visit
            .touch(|| spare::mount(visit, subject, &targets))
            .and_then(|mounted| mounted),
        false => Ok(false),
    };
    let spares = spares.unwrap_or_else(|error| {
        tracing::warn!(%error, pid = subject.pid, "user namespaces in it cannot mount a procfs, ignoring");
        false
    });
    if let Err(error) = visit.finish() {
        if spares && let Err(error) = spare::undo(visit, subject, &targets) {
            tracing::debug!(%error, "the spares of a visit that was given up stay");
        }
        uncover_all(visit, subject, &inner);
        uncover_all(visit, subject, &work);
        return Err(error);
    }
    let grafted = work
        .iter()
        .chain(&inner)
        .map(|(row, _, _)| row.path.clone())
        .collect();
    Ok(Outcome { grafted })
}

/// A row, the target of its mount, and the mount.
type Work<'a> = (&'a Row, Target, OwnedFd);

/// Finds the targets of `rows` and clones their mounts.
fn prepare<'a>(
    visit: &Visit,
    subject: &Subject,
    clones: &mut Clones,
    rows: &[&'a Row],
    targets: &Targets<'_>,
) -> Result<Vec<Work<'a>>> {
    let mounts = visit.mounts();
    let mut work = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(target) = targets.find(&row.path)? else {
            continue;
        };
        // A dead graft does not say which daemon made it.
        let dead = target.occupant == Occupant::Foreign;
        if dead && !visit.is_dead(&target.entry)? {
            return Err(Error::new(
                Kind::Busy,
                format!(
                    "{} of process {} has a graft of another eci-mountd",
                    row.path, subject.pid
                ),
            )
            .remedy("detach it there first, with the --runtime-dir of that one"));
        }
        if target.directory == row.directory {
            let clone = clones.of(mounts, row)?;
            // So it is recognized when a path leads into it.
            targets.add_fresh(clone.id);
            work.push((*row, target, clone.mount));
        }
    }
    Ok(work)
}

/// Moves the mounts onto their targets: all, or none.
fn cover(visit: &Visit, subject: &Subject, work: &[Work<'_>]) -> Result<()> {
    visit.mounts().inside(&subject.pidfd, || {
        for (done, (row, target, clone)) in work.iter().enumerate() {
            // A mount waits for the lock of the directory or file, which a process of the container may hold.
            let moved = visit.touch(|| match target.occupant {
                Occupant::Foreign => replace_dead(clone, target),
                _ => move_onto(clone, target, MoveMountFlags::empty()),
            });
            match moved {
                Ok(Ok(())) => {}
                Ok(Err(e)) => {
                    uncover_here(subject, &work[..done]);
                    return Err(Error::io("graft over the container's", &row.path, e));
                }
                Err(given_up) => {
                    uncover_here(subject, &work[..done]);
                    return Err(given_up);
                }
            }
        }
        Ok(())
    })
}

fn move_onto(
    clone: &OwnedFd,
    target: &Target,
    how: MoveMountFlags,
) -> std::result::Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(clone, "", &target.entry, "", flags | how)
}

/// Puts a mount beneath a dead graft, and removes the dead one. A kernel that cannot do this (before 6.5) says EINVAL.
/// There the mount goes on top, and the dead graft is removed when ours is.
fn replace_dead(clone: &OwnedFd, target: &Target) -> std::result::Result<(), Errno> {
    match move_onto(clone, target, MOVE_MOUNT_BENEATH) {
        Err(Errno::INVAL) => move_onto(clone, target, MoveMountFlags::empty()),
        Err(other) => Err(other),
        Ok(()) => {
            if let Err(error) = uncover(target) {
                tracing::warn!(%error, "a dead graft stays over ours, ignoring");
            }
            Ok(())
        }
    }
}

fn uncover_all(visit: &Visit, subject: &Subject, work: &[Work<'_>]) {
    let result = visit.mounts().inside(&subject.pidfd, || {
        uncover_here(subject, work);
        Ok(())
    });
    if let Err(error) = result {
        tracing::warn!(%error, pid = subject.pid, "grafts stay behind, ignoring");
    }
}

/// Unmounts what has been mounted, the last first. The thread is inside of the container.
fn uncover_here(subject: &Subject, work: &[Work<'_>]) {
    for (_, target, _) in work.iter().rev() {
        if let Err(error) = uncover(target) {
            tracing::warn!(%error, pid = subject.pid, "a graft stays behind, ignoring");
        }
    }
}

/// Takes the grafts at `paths` out of a container, and returns their number. With a `slot` they are the grafts of that
/// container; without one, those of a daemon that is dead. Any other mount there stays. `root` is as
/// [`Progress::root`].
///
/// # Errors
/// As [`Targets::open`], but for a container that is gone: nothing is left to remove then.
pub(super) fn detach(
    visit: &Visit,
    subject: &Subject,
    root: Option<&Path>,
    slot: Option<u64>,
    paths: &[String],
) -> Result<usize> {
    in_network(visit, subject, || {
        let (count, mut more) = uncover_layer(visit, subject, root, slot, paths)?;
        // Ours may have covered dead grafts. Where the kernel cannot put a mount beneath another, there may be layers of
        // them.
        for _ in 0..MOST_LAYERS {
            if !more {
                return Ok(count);
            }
            more = uncover_layer(visit, subject, root, None, paths)?.1;
        }
        tracing::warn!(
            pid = subject.pid,
            "more than {MOST_LAYERS} layers of dead grafts: the others stay, ignoring"
        );
        Ok(count)
    })
}

/// Takes the topmost grafts at `paths` out of a container, as [`detach`], and covers those that are locked. Returns their
/// number, and true if there may be dead grafts below them.
fn uncover_layer(
    visit: &Visit,
    subject: &Subject,
    root: Option<&Path>,
    slot: Option<u64>,
    paths: &[String],
) -> Result<(usize, bool)> {
    let open = |root| Targets::open(visit, subject, root);
    // Mostly the container has entered its root since, and then the path leads nowhere.
    let before = root.and_then(|root| open(Some(root)).ok());
    let targets = match before.filter(Targets::has_proc) {
        Some(targets) => targets,
        None => open(None)?,
    };
    let mut work = Vec::new();
    for path in paths.iter().rev() {
        let target = match targets.look(path) {
            Ok(Some(target)) => target,
            // In a directory of a dead daemon nothing is found. Mounts there go with it.
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(%error, pid = subject.pid, "a graft cannot be removed, ignoring");
                continue;
            }
        };
        let its = match slot {
            Some(slot) => target.occupant == Occupant::Graft(slot),
            None => target.occupant == Occupant::Foreign && visit.is_dead(&target.entry)?,
        };
        if its {
            work.push((path.as_str(), target));
        } else if slot.is_some() {
            tracing::warn!(
                path,
                pid = subject.pid,
                "there is no graft of ours any more, ignoring"
            );
        }
    }
    let mut locked = Vec::new();
    visit.mounts().inside(&subject.pidfd, || {
        visit.touch(|| spare::unmount(&targets))?;
        for (path, target) in &work {
            match visit.touch(|| uncover(target))? {
                Err(error) if error.errno == Some(Errno::INVAL.raw_os_error()) => {
                    locked.push((*path, target));
                }
                done => done?,
            }
        }
        Ok(())
    })?;
    locks::cover(visit, subject, &targets, &locked)?;
    let more = (slot.is_some() || !work.is_empty()) && targets.has_foreign();
    Ok((work.len(), more))
}

/// Unmounts the mount at a target. The thread is inside of the container. For a mount that is locked the kernel says EINVAL.
fn uncover(target: &Target) -> Result<()> {
    // umount2 takes a path. The only one that cannot be redirected is a name in a directory that is held open.
    rustix::process::fchdir(&*target.parent)
        .map_err(|e| Error::io("enter the directory of", &target.name, e))?;
    unmount(
        target.name.as_str(),
        UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
    )
    .map_err(|e| Error::io("remove the graft over", &target.name, e))
}
