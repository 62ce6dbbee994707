//! The end of a daemon that has no successor: everything is undone.

use std::collections::BTreeSet;
use std::time::Duration;

use super::attach::ungraft;
use super::daemon::Daemon;
use super::inspection_mounts::unmount_all;
use crate::service_manager;
use eci_fs_protocol::error::Kind;

/// The time that the end of the daemon waits for an operation that has begun.
const LAST_OPERATION: Duration = Duration::from_secs(10);

/// Containers that are looked into at a time.
const AT_ONCE: usize = 64;

/// Takes everything out of all containers, ends the server, and removes what is in the runtime directory.
pub(super) fn shut_down(daemon: &Daemon) {
    daemon.containers.journal.remove_socket();
    undo_all(daemon);
    daemon.containers.isolation.end();
    daemon.containers.journal.remove_rest();
}

/// Returns the slots of the containers that do not let themselves be looked into. Many are tried at a time, so that
/// those which hang do not add up.
fn hanging(daemon: &Daemon, slots: &[u64]) -> BTreeSet<u64> {
    let hangs = |slot: u64| {
        let subject = {
            let state = daemon.shared.state();
            let container = state.registry.get(slot)?;
            container.subject.duplicate().ok()?
        };
        let knocked = daemon.containers.grafter.knock(&subject);
        knocked
            .is_err_and(|error| error.kind == Kind::Busy)
            .then_some(slot)
    };
    let all = slots.chunks(AT_ONCE).flat_map(|slots| {
        std::thread::scope(|scope| {
            let started = slots.iter().map(|slot| scope.spawn(move || hangs(*slot)));
            let started: Vec<_> = started.collect();
            let ended = started
                .into_iter()
                .map(|thread| thread.join().ok().flatten());
            ended.flatten().collect::<Vec<_>>()
        })
    });
    all.collect()
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
    let hanging = hanging(daemon, &slots);
    for slot in slots {
        if hanging.contains(&slot) {
            tracing::warn!(
                slot,
                "the container does not let itself be looked into: its grafts stay, and are dead"
            );
        } else if let Err(error) = ungraft(&daemon.containers, slot) {
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
