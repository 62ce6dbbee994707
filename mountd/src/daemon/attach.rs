//! Attaching and detaching containers, and opening what they see.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use super::asker::Asker;
use super::containers::{Asked, Containers};
use super::ended::remove_if_ended;
use super::state::vanished;
use crate::container::{describe, disks};
use crate::faults;
use crate::grafts::Progress;
use crate::registry;
use eci_fs_protocol::control::{Attach, Attached, CgroupChoice, Response, Selector};
use eci_fs_protocol::error::{Error, Kind, Reason, Result};
use eci_fs_protocol::link::Row;
use eci_fs_protocol::locks::Locks;

/// Grafts all views into the container of the process behind `pidfd`.
///
/// # Errors
/// As [`describe`] and [`grafts::attach`], and when the command has gone; the container is as before then.
pub(super) fn attach(
    containers: &Containers,
    asker: Asker<'_>,
    pidfd: BorrowedFd<'_>,
    wanted: Attach,
    locks: Option<Locks>,
    overlays: Option<[OwnedFd; 2]>,
) -> Result<Attached> {
    let received = Instant::now();
    let Attach {
        id,
        cgroup: choice,
        root,
        unmasked,
        choices,
        measures_cpus,
        engine_root,
    } = wanted;
    let progress = Progress {
        root,
        unmasked,
        locks,
        has_locks: false,
    };
    if let Some(id) = &id {
        registry::check_id(id)?;
    }
    let mut described = describe(&containers.proc, pidfd, id.clone(), choice, measures_cpus)?;
    let range = containers.isolation.join(&described.subject)?;
    if let Some(root) = &progress.root {
        // Its mount namespace is a copy of the host's, with the root of the container in it.
        let pid = described.subject.pid;
        described.facts.disks = disks(&containers.proc, pid, Some(root))?;
    }
    if progress.root.is_none() {
        // A container that runs may keep this waiting, and must not keep other operations waiting.
        containers.grafter.knock(&described.subject)?;
    }
    let _operation = containers.shared.begin_for(asker)?;
    faults::wait_at("attach-begun");
    // The loop may not have heard yet that the last one of this name has ended.
    remove_if_ended(containers, &described.facts.id)?;
    let mut state = containers.shared.state();
    let known = state.registry.find_subject(&described.subject);
    if let Some(container) = known.and_then(|slot| state.registry.get(slot)) {
        if let Some(id) = id.filter(|id| *id != container.id) {
            return Err(Error::new(
                Kind::Busy,
                format!(
                    "the container of process {} is attached already, as {}",
                    container.subject.pid, container.id
                ),
            )
            .remedy(format!("detach it before it is named {id}"))
            .because(Reason::OtherName));
        }
        if progress.locks.is_some() && !container.locked && !container.grafted.is_empty() {
            return Err(Error::refused(format!(
                "the views of {} were grafted before its mounts could be locked",
                container.id
            ))
            .remedy("take out the other hook of eci-fs that the engine has"));
        }
        if !container.grafted.is_empty() {
            return Ok(Attached {
                id: container.id.clone(),
                grafts: container.grafted.len(),
                took_usec: 0,
                already: true,
                range,
            });
        }
    }
    let prepared = match known {
        None => containers.prepared.lock().pop_front(),
        Some(_) => None,
    };
    let prepared = prepared.map(|next| (next.slot, next.generation));
    let asked = Asked {
        choice,
        choices,
        measures_cpus,
    };
    let slot = containers.enter(&mut state, described, asked, prepared)?;
    drop(state);
    let result = graft(containers, slot, progress);
    if result.is_err() {
        containers.remove_if_unused(slot);
    }
    let (id, grafts) = result?;
    if let Some([engine, container]) = overlays {
        watch_overlays(containers, slot, engine_root, engine, container);
    }
    let took_usec = u64::try_from(received.elapsed().as_micros()).unwrap_or(u64::MAX);
    tracing::info!(%id, slot, grafts, took_usec, "attached");
    Ok(Attached {
        id,
        grafts,
        took_usec,
        already: false,
        range,
    })
}

/// Locks the mounts of a container that is being made and gets no views. The container is not added to the list.
///
/// # Errors
/// When the kernel refuses a mount. The container must not be started then.
pub(super) fn lock(
    containers: &Containers,
    asker: Asker<'_>,
    pidfd: BorrowedFd<'_>,
    root: PathBuf,
    locks: Locks,
) -> Result<()> {
    let choice = CgroupChoice::Own;
    let subject = describe(&containers.proc, pidfd, None, choice, None)?.subject;
    containers.isolation.join(&subject)?;
    let _operation = containers.shared.begin_for(asker)?;
    let progress = Progress {
        root: Some(root),
        locks: Some(locks),
        ..Progress::default()
    };
    containers.grafter.lock(&subject, progress)
}

/// Keeps the engine's overlay of a container and the container's own in step.
fn watch_overlays(
    containers: &Containers,
    slot: u64,
    engine_root: Option<PathBuf>,
    engine: OwnedFd,
    container: OwnedFd,
) {
    if let Err(error) = containers.overlays.watch(slot, engine, container) {
        return tracing::warn!(slot, %error, "an engine may see old names in the files of its container");
    }
    let mut state = containers.shared.state();
    if let Some(container) = state.registry.get_mut(slot) {
        container.engine_root = engine_root;
    }
    if let Err(error) = containers.save(&mut state) {
        tracing::warn!(%error, "the list is out of date, ignoring");
    }
}

/// Grafts the rows of the container in `slot`. Returns its name and the number of grafts.
///
/// # Errors
/// As [`grafts::attach`]; and when the list cannot be written. The container is as before then.
pub(super) fn graft(
    containers: &Containers,
    slot: u64,
    progress: Progress,
) -> Result<(String, usize)> {
    if let Some(container) = containers.shared.state().registry.get_mut(slot) {
        container.root.clone_from(&progress.root);
        container.locked = progress.locks.is_some();
    }
    let intent = containers.shared.state().registry.intent(slot);
    containers.journal.begin(intent)?;
    let done = graft_and_save(containers, slot, progress);
    if let Err(error) = containers.journal.finish() {
        // The next daemon finds the container on the list, or nothing to undo.
        tracing::debug!(%error, "ignoring");
    }
    done
}

fn graft_and_save(
    containers: &Containers,
    slot: u64,
    progress: Progress,
) -> Result<(String, usize)> {
    let (rows, subject, top) = {
        let state = containers.shared.state();
        let container = state.registry.get(slot).ok_or_else(vanished)?;
        let subject = container.subject.duplicate()?;
        let top = container.directory_name(slot);
        (container.rows.clone(), subject, top)
    };
    let outcome = containers
        .grafter
        .attach(&subject, progress, slot, top, rows)?;
    let (done, saved) = {
        let mut state = containers.shared.state();
        let container = state.registry.get_mut(slot).ok_or_else(vanished)?;
        container.grafted = outcome.grafted;
        let done = (container.id.clone(), container.grafted.len());
        (done, containers.save(&mut state))
    };
    // Written before the answer: what the caller believes is attached is found again after a crash.
    if let Err(error) = saved {
        let ungrafted = ungraft(containers, slot);
        tracing::warn!(
            ?ungrafted,
            "the list cannot be written: taking the grafts out again"
        );
        return Err(error);
    }
    Ok(done)
}

/// Takes all grafts out of the container in `slot`. Returns their number. The container stays on the list.
///
/// # Errors
/// As [`grafts::detach`].
pub(super) fn ungraft(containers: &Containers, slot: u64) -> Result<usize> {
    let (paths, subject, root) = {
        let mut state = containers.shared.state();
        let container = state.registry.get_mut(slot).ok_or_else(vanished)?;
        (
            std::mem::take(&mut container.grafted),
            container.subject.duplicate()?,
            container.root.clone(),
        )
    };
    if paths.is_empty() {
        return Ok(0);
    }
    let done = containers
        .grafter
        .detach(&subject, root, Some(slot), paths.clone());
    // They are gone if the container is. Otherwise they are still there, and can be taken out when the container lets itself
    // be looked into.
    let stay = matches!(&done, Err(error) if error.kind != Kind::NotFound);
    if stay && let Some(container) = containers.shared.state().registry.get_mut(slot) {
        container.grafted = paths;
    }
    done
}

/// Takes all grafts out of a container again.
///
/// # Errors
/// [`Kind::NotFound`] when no such container is attached.
pub(super) fn detach(
    containers: &Containers,
    asker: Asker<'_>,
    selector: &Selector,
) -> Result<Response> {
    // The container may keep this waiting, and must not keep other operations waiting.
    let subject = {
        let state = containers.shared.state();
        let slot = containers.select(&state, selector)?;
        let container = state.registry.get(slot).ok_or_else(vanished)?;
        container.subject.duplicate()?
    };
    match containers.grafter.knock(&subject) {
        Err(error) if error.kind == Kind::Busy => return Err(error),
        // What else is wrong is found again.
        _ => {}
    }
    let _operation = containers.shared.begin_for(asker)?;
    let (slot, id) = {
        let state = containers.shared.state();
        let slot = containers.select(&state, selector)?;
        let container = state.registry.get(slot).ok_or_else(vanished)?;
        if container.grafted.is_empty() {
            return Err(Error::not_found(format!(
                "{} has no grafts; it is only mounted",
                container.id
            ))
            .remedy("see `eci-fs list`, and `eci-fs unmount`"));
        }
        (slot, container.id.clone())
    };
    let grafts = ungraft(containers, slot)?;
    containers.remove_if_unused(slot);
    containers
        .save(&mut containers.shared.state())
        .map_err(|error| error.context(format!("{id} is detached, but")))?;
    tracing::info!(%id, slot, grafts, "detached");
    Ok(Response::Detached { id, grafts })
}

/// Opens one view as the container would, or a path at or below a directory graft. The descriptor of such a path is one
/// that the command opens for reading itself (`O_PATH`): a driver may take its time for that.
///
/// # Errors
/// [`Kind::NotFound`] when there is no such container, and [`Reason::NotAView`] when it has no such view.
pub(super) fn open(containers: &Containers, selector: &Selector, path: &str) -> Result<OwnedFd> {
    let (top, row) = {
        let _operation = containers.shared.begin()?;
        let state = containers.shared.state();
        let slot = containers.select(&state, selector)?;
        let container = state.registry.get(slot).ok_or_else(vanished)?;
        let is_view = |row: &&Row| row.path == path && !row.directory;
        let holds_it = |row: &&Row| {
            let below = path.strip_prefix(row.path.as_str());
            row.directory && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mut rows = container.rows.iter();
        let found = rows.find(is_view).or_else(|| {
            let above = container.rows.iter().filter(holds_it);
            above.max_by_key(|row| row.path.len())
        });
        let row = found.cloned().ok_or_else(|| {
            Error::not_found(format!("{} has no view of {path}", container.id))
                .remedy("what is not a view is the kernel's own file")
                .because(Reason::NotAView)
        })?;
        (container.directory_name(slot), row)
    };
    let path = path.to_owned();
    containers.grafter.run(move |mounts| match row.directory {
        true => mounts.open_in_directory(&top, &row, &path),
        false => mounts.open_view(&top, &row),
    })
}
