//! Attaching and detaching containers, and what commands ask about those that are attached.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use super::asker::Asker;
use super::containers::{Asked, Containers};
use super::ended::remove_if_ended;
use super::state::vanished;
use crate::container::{describe, disks, has_ended};
use crate::grafts::{self, Clones, PreparedClones, Progress};
use crate::registry::{self, Container};
use eci_fs_protocol::control::{Attach, Attached, LIST_PAGE, Response, Selector};
use eci_fs_protocol::error::{Error, Kind, Reason, Result};
use eci_fs_protocol::link::Row;

/// Grafts all views into the container of the process behind `pidfd`.
///
/// # Errors
/// As [`describe`] and [`grafts::attach`], and when the command has gone; the container is as before then.
pub(super) fn attach(
    containers: &Containers,
    asker: Asker<'_>,
    pidfd: BorrowedFd<'_>,
    wanted: Attach,
) -> Result<Attached> {
    let received = Instant::now();
    let Attach {
        id,
        cgroup: choice,
        root,
        unmasked,
        choices,
        measures_cpus,
    } = wanted;
    let progress = Progress { root, unmasked };
    if let Some(id) = &id {
        registry::check_id(id)?;
    }
    let mut described = describe(&containers.proc, pidfd, id.clone(), choice, measures_cpus)?;
    if let Some(root) = &progress.root {
        // Its mount namespace is a copy of the host's, with the root of the container in it.
        let pid = described.subject.pid;
        described.facts.disks = disks(&containers.proc, pid, Some(root))?;
    }
    let _operation = containers.shared.begin_for(asker)?;
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
        if !container.grafted.is_empty() {
            return Ok(Attached {
                id: container.id.clone(),
                grafts: container.grafted.len(),
                took_usec: 0,
                already: true,
            });
        }
    }
    let prepared = containers.prepared.lock().take_if(|_| known.is_none());
    let next = prepared.as_ref().map(|prepared| prepared.slot);
    let asked = Asked {
        choice,
        choices,
        measures_cpus,
    };
    let slot = containers.enter(&mut state, described, asked, next)?;
    drop(state);
    let result = graft(containers, slot, progress, prepared);
    if result.is_err() {
        containers.remove_if_unused(slot);
    }
    let (id, grafts) = result?;
    let took_usec = u64::try_from(received.elapsed().as_micros()).unwrap_or(u64::MAX);
    tracing::info!(%id, slot, grafts, took_usec, "attached");
    Ok(Attached {
        id,
        grafts,
        took_usec,
        already: false,
    })
}

/// Grafts the rows of the container in `slot`. Returns its name and the number of grafts.
///
/// # Errors
/// As [`grafts::attach`]; and when the list cannot be written. The container is as before then.
pub(super) fn graft(
    containers: &Containers,
    slot: u64,
    progress: Progress,
    prepared: Option<PreparedClones>,
) -> Result<(String, usize)> {
    if let Some(container) = containers.shared.state().registry.get_mut(slot) {
        container.root.clone_from(&progress.root);
    }
    let intent = containers.shared.state().registry.intent(slot);
    containers.journal.begin(intent)?;
    let done = graft_and_save(containers, slot, progress, prepared);
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
    prepared: Option<PreparedClones>,
) -> Result<(String, usize)> {
    let (rows, subject) = {
        let state = containers.shared.state();
        let container = state.registry.get(slot).ok_or_else(vanished)?;
        (container.rows.clone(), container.subject.duplicate()?)
    };
    let mut clones = Clones::new(slot, prepared);
    let outcome = containers
        .grafter
        .run(move |mounts| grafts::attach(mounts, &subject, &progress, &mut clones, &rows))?;
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
    containers
        .grafter
        .run(move |mounts| grafts::detach(mounts, &subject, root.as_deref(), Some(slot), &paths))
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

/// Returns one page of the list. A container that has ended is not on it, even if that has not been noticed yet.
pub(super) fn list(containers: &Containers, after: Option<u64>) -> Response {
    let there = |container: &Container| {
        let ended = has_ended(container.subject.pidfd.as_fd());
        !ended.unwrap_or(false)
    };
    let mut state = containers.shared.state();
    let (mut containers, more) = state.registry.list(after, LIST_PAGE, there);
    let slots = containers.iter().map(|listed| listed.slot).collect();
    // Without a server, or with one that takes long or is of another release, the list has no figures.
    let usage = state.slot.server().and_then(|server| server.usage(slots));
    match usage {
        Ok(usage) => {
            for listed in &mut containers {
                listed.usage = usage.get(&listed.slot).copied();
            }
        }
        Err(error) => tracing::debug!(%error, "the list has no figures of the server"),
    }
    Response::Containers { containers, more }
}

/// Opens one view as the container would, or a path at or below a directory graft. The descriptor of such a path is one
/// that the command opens for reading itself (`O_PATH`): a driver may take its time for that.
///
/// # Errors
/// [`Kind::NotFound`] when there is no such container, and [`Reason::NotAView`] when it has no such view.
pub(super) fn open(containers: &Containers, selector: &Selector, path: &str) -> Result<OwnedFd> {
    let (slot, row) = {
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
        (slot, row)
    };
    let path = path.to_owned();
    containers.grafter.run(move |mounts| match row.directory {
        true => mounts.open_in_directory(slot, &row, &path),
        false => mounts.open_view(slot, &row),
    })
}
