//! The end of a daemon that has no successor: everything is undone.

use std::time::Duration;

use super::attach::ungraft;
use super::daemon::Daemon;
use super::inspection_mounts::unmount_all;
use crate::service_manager;

/// The time that the end of the daemon waits for an operation that has begun.
const LAST_OPERATION: Duration = Duration::from_secs(10);

/// Takes everything out of all containers, ends the server, and removes what is in the runtime directory.
pub(super) fn shut_down(daemon: &Daemon) {
    daemon.journal.remove_socket();
    undo_all(daemon);
    daemon.journal.remove_rest();
}

fn undo_all(daemon: &Daemon) {
    daemon.state.lock().ending = true;
    // What lies in a directory graft is only found with a server that answers.
    let dead = daemon.state.lock().slot.present().is_none();
    if dead && let Err(error) = daemon.supervision.start(&daemon.state, true) {
        tracing::warn!(%error, "grafts in directories may stay behind");
    }
    // Held until all is undone.
    let operation = daemon.operation.try_lock_for(LAST_OPERATION);
    if operation.is_none() {
        tracing::warn!("an operation does not come to its end, ignoring");
    }
    let slots: Vec<u64> = {
        let state = daemon.state.lock();
        state.registry.iter().map(|(slot, _)| slot).collect()
    };
    for slot in slots {
        if let Err(error) = ungraft(daemon, slot) {
            tracing::debug!(%error, slot, "its grafts are gone with it");
        }
        unmount_all(daemon, slot);
        daemon.containers.remove_if_unused(&daemon.state, slot);
    }
    if let Err(error) = daemon.containers.save(&mut daemon.state.lock()) {
        tracing::warn!(%error, "the list is out of date, ignoring");
    }
    // There is nothing left to serve, and no later daemon shall find a server waiting.
    daemon.supervision.let_go(&daemon.state);
    service_manager::forget();
}
