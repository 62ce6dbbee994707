//! Inspection mounts: directories of the host under which a container's views are shown (`eci-fs mount` and `unmount`).

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;

use super::asker::Asker;
use super::containers::{Asked, Containers};
use super::state::vanished;
use crate::container::describe;
use crate::grafts;
use crate::registry::InspectionMount;
use eci_fs_protocol::control::{CgroupChoice, Response};
use eci_fs_protocol::error::{Error, Kind, Result};

/// Shows the views of the container of the process behind `pidfd` on the directory `dir`, in the mount namespace of
/// the process of `asker`. `created` says whether the directory was made for this.
///
/// # Errors
/// As [`describe`] and [`grafts::mount_inspection`].
pub(super) fn mount(
    containers: &Containers,
    pidfd: BorrowedFd<'_>,
    dir: OwnedFd,
    path: &Path,
    created: bool,
    asker: Asker<'_>,
) -> Result<Response> {
    let choice = CgroupChoice::NamespaceRoot;
    let described = describe(&containers.proc, pidfd, None, choice, None)?;
    let namespace = containers
        .proc
        .open_at(&format!("{}/ns/mnt", asker.pid), OFlags::RDONLY)?;
    let _operation = containers.shared.begin_for(asker)?;
    let mut state = containers.shared.state();
    if state.registry.find_mount(path).is_some() {
        return Err(Error::new(
            Kind::Busy,
            format!("{} shows a container already", path.display()),
        )
        .remedy("unmount it first, or name another directory"));
    }
    let asked = Asked {
        choice,
        ..Asked::default()
    };
    let slot = containers.enter(&mut state, described, asked, None)?;
    drop(state);
    let inspection = InspectionMount {
        dir: path.to_owned(),
        created,
        namespace,
    };
    let result = show(containers, slot, dir, inspection);
    if result.is_err() {
        containers.remove_if_unused(slot);
    }
    result
}

/// Mounts the views of the container in `slot` on the directory `dir`, and puts that on the list.
///
/// # Errors
/// As [`grafts::mount_inspection`]; and when the list cannot be written. Then the directory is as before.
pub(super) fn show(
    containers: &Containers,
    slot: u64,
    dir: OwnedFd,
    inspection: InspectionMount,
) -> Result<Response> {
    let (rows, top) = {
        let state = containers.shared.state();
        let container = state.registry.get(slot).ok_or_else(vanished)?;
        (container.rows.clone(), container.directory_name(slot))
    };
    let namespace = inspection
        .namespace
        .try_clone()
        .map_err(|e| Error::io("duplicate", "a namespace", e))?;
    let grafts = containers
        .grafter
        .run(move |mounts| grafts::mount_inspection(mounts, &top, &rows, &dir, namespace))?;
    let path = inspection.dir.clone();
    let (id, saved) = {
        let mut state = containers.shared.state();
        let container = state.registry.get_mut(slot).ok_or_else(vanished)?;
        container.mounts.push(inspection);
        (container.id.clone(), containers.save(&mut state))
    };
    if let Err(error) = saved {
        let unmounted = hide(containers, slot, &path);
        tracing::warn!(?unmounted, "the list cannot be written: unmounting again");
        return Err(error);
    }
    tracing::info!(%id, slot, grafts, dir = %path.display(), "mounted");
    Ok(Response::Mounted { id, grafts })
}

/// Unmounts a directory that shows the container in `slot`, and removes it from the list in memory.
fn hide(containers: &Containers, slot: u64, dir: &Path) -> Result<()> {
    let inspection = {
        let mut state = containers.shared.state();
        let container = state.registry.get_mut(slot).ok_or_else(vanished)?;
        let at = container
            .mounts
            .iter()
            .position(|mount| mount.dir == dir)
            .ok_or_else(vanished)?;
        container.mounts.remove(at)
    };
    containers
        .grafter
        .run(move |mounts| {
            grafts::unmount_inspection(mounts, &inspection.dir, &inspection.namespace)?;
            Ok(inspection)
        })
        .map(|inspection| {
            if inspection.created {
                // It can only fail because somebody has put something there, and then it shall stay.
                let _ = std::fs::remove_dir(&inspection.dir);
            }
        })
}

/// Unmounts a directory that shows a container.
///
/// # Errors
/// [`Kind::NotFound`] when there is no such directory.
pub(super) fn unmount(containers: &Containers, asker: Asker<'_>, dir: &Path) -> Result<Response> {
    let _operation = containers.shared.begin_for(asker)?;
    let slot = containers.shared.state().registry.find_mount(dir);
    let slot = slot.ok_or_else(|| {
        Error::not_found(format!("{} shows no container", dir.display()))
            .remedy("see `eci-fs list`")
    })?;
    hide(containers, slot, dir)?;
    containers.remove_if_unused(slot);
    containers.save(&mut containers.shared.state())?;
    Ok(Response::Unmounted)
}

/// Unmounts all directories that show the container in `slot`. One that stays is logged: nobody waits for an answer.
pub(super) fn unmount_all(containers: &Containers, slot: u64) {
    let dirs: Vec<_> = match containers.shared.state().registry.get(slot) {
        Some(container) => container.mounts.iter().map(|m| m.dir.clone()).collect(),
        None => return,
    };
    for dir in dirs {
        if let Err(error) = hide(containers, slot, &dir) {
            tracing::warn!(%error, "a directory stays mounted, ignoring");
        }
    }
}
