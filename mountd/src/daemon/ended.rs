//! Containers that have ended: their grafts are gone with their namespaces, and all else is removed here.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use super::containers::Containers;
use super::inspection_mounts;
use super::state::vanished;
use crate::container::has_ended;
use crate::faults;
use crate::threads::{self, Mend};
use eci_fs_protocol::control::Response;
use eci_fs_protocol::error::Result;

/// Starts the thread that removes containers that have ended, by the slots that it is sent. The event loop may not do
/// that: it would wait for the grafter, which may wait for a server, which the loop starts.
///
/// # Errors
/// When there are no more threads.
pub(super) fn start_removing(containers: &Arc<Containers>) -> Result<Sender<u64>> {
    let (ended, slots) = mpsc::channel();
    let containers = Arc::clone(containers);
    // The slot whose removal is not done: it is tried again.
    let mut left = None;
    threads::start("ended", Mend::Again, move || {
        while let Some(slot) = left.or_else(|| slots.recv().ok()) {
            // Once more at most.
            left = (left != Some(slot)).then_some(slot);
            faults::at("ended");
            let operation = containers.shared.operation.lock();
            remove(&containers, slot);
            drop(operation);
            faults::wait_at("removed");
            containers.events.wake();
            left = None;
        }
    })?;
    Ok(ended)
}

fn remove(containers: &Containers, slot: u64) {
    let id = match containers.shared.state().registry.get_mut(slot) {
        Some(container) => {
            container.grafted.clear();
            container.id.clone()
        }
        None => return,
    };
    inspection_mounts::unmount_all(containers, slot);
    containers.remove_if_unused(slot);
    if let Err(error) = containers.save(&mut containers.shared.state()) {
        tracing::warn!(%error, "the list is out of date, ignoring");
    }
    tracing::info!(%id, slot, "the container has ended");
}

/// Removes the container that is named `id` if its process has ended, and returns whether that was so. The operation
/// lock is held.
///
/// # Errors
/// When the kernel does not say whether it has ended.
pub(super) fn remove_if_ended(containers: &Containers, id: &str) -> Result<bool> {
    let (slot, ended) = {
        let state = containers.shared.state();
        let Some(slot) = state.registry.find_id(id) else {
            return Ok(false);
        };
        let container = state.registry.get(slot).ok_or_else(vanished)?;
        (slot, has_ended(container.subject.pidfd.as_fd())?)
    };
    if ended {
        remove(containers, slot);
    }
    Ok(ended)
}

/// Answers [`eci_fs_protocol::control::Request::Forget`]. A hook does not wait for that, and it changes nothing that
/// lives: so it is done for a command that has gone, too.
///
/// # Errors
/// As [`remove_if_ended`].
pub(super) fn forget(containers: &Containers, id: &str) -> Result<Response> {
    let _operation = containers.shared.begin()?;
    let ended = remove_if_ended(containers, id)?;
    Ok(Response::Forgotten { ended })
}
