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
    daemon.containers.journal.remove_socket();
    undo_all(daemon);
    daemon.containers.journal.remove_rest();
}

fn undo_all(daemon: &Daemon) {
    daemon.shared.state().ending = true;
    // What lies in a directory graft is only found with a server that answers.
    let dead = daemon.shared.state().slot.present().is_none();
    if dead && let Err(error) = daemon.supervision.start(true) {
        tracing::warn!(%error, "grafts in directories may stay behind");
    }
    // Held until all is undone.
    let operation = daemon.shared.operation.try_lock_for(LAST_OPERATION);
    if operation.is_none() {
        tracing::warn!("an operation does not come to its end, ignoring");
    }
    let slots: Vec<u64> = {
        let state = daemon.shared.state();
        state.registry.iter().map(|(slot, _)| slot).collect()
    };
    for slot in slots {
        if let Err(error) = ungraft(&daemon.containers, slot) {
            tracing::debug!(%error, slot, "its grafts are gone with it");
        }
        unmount_all(&daemon.containers, slot);
        daemon.containers.remove_if_unused(slot);
    }
    if let Err(error) = daemon.containers.save(&mut daemon.shared.state()) {
        tracing::warn!(%error, "the list is out of date, ignoring");
    }
    // There is nothing left to serve, and no later daemon shall find a server waiting.
    daemon.supervision.let_go();
    service_manager::forget();
}
