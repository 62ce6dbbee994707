//! The end of a daemon that has no successor: everything is undone.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::attach::ungraft;
use super::daemon::Daemon;
use super::inspection_mounts::unmount_all;
use crate::service_manager;
use eci_fs_protocol::error::Kind;

/// The time that the end of the daemon waits for an operation that has begun.
const LAST_OPERATION: Duration = Duration::from_secs(10);

/// The time in which containers must let themselves be looked into, over all.
const KNOCKS_LIMIT: Duration = Duration::from_secs(15);

/// The time in which grafts are taken out, over all. Those of 10,000 containers take some 30 s.
const UNDO_LIMIT: Duration = Duration::from_secs(60);

/// The time after which it is looked again whether the server lives, at the end of the daemon.
const LOOK: Duration = Duration::from_millis(100);

/// Containers that are looked into at a time.
const AT_ONCE: usize = 64;

/// Takes everything out of all containers, ends the server, and removes what is in the runtime directory.
pub(super) fn shut_down(daemon: &Daemon) {
    daemon.containers.journal.remove_socket();
    undo_all(daemon);
    daemon.containers.isolation.end();
    daemon.containers.journal.remove_rest();
    if let Some(sockets) = daemon.vet.get() {
        sockets.remove();
    }
}

/// Returns the slots of the containers that let themselves be looked into within [`KNOCKS_LIMIT`]. Many are tried at a
/// time, so that those which hang do not add up. A thread that takes longer is left behind: the process ends soon.
fn answering(daemon: &Daemon, slots: &[u64]) -> BTreeSet<u64> {
    let waiting = {
        let state = daemon.shared.state();
        let subject = |slot: &u64| {
            let container = state.registry.get(*slot)?;
            Some((*slot, container.subject.duplicate().ok()?))
        };
        slots.iter().filter_map(subject).collect::<VecDeque<_>>()
    };
    let waiting = Arc::new(Mutex::new(waiting));
    let (done, answered) = mpsc::channel();
    for _ in 0..AT_ONCE.min(slots.len()) {
        let (waiting, done) = (Arc::clone(&waiting), done.clone());
        let grafter = daemon.containers.grafter.clone();
        let work = move || {
            loop {
                let Some((slot, subject)) = waiting.lock().pop_front() else {
                    return;
                };
                // What else is wrong than that it hangs is found again.
                let knocked = grafter.knock(&subject);
                let hangs = knocked.is_err_and(|error| error.kind == Kind::Busy);
                let _ = done.send((slot, !hangs));
            }
        };
        let thread = std::thread::Builder::new().name("knock".to_owned());
        if let Err(error) = thread.spawn(work) {
            tracing::warn!(%error, "a thread that looks into containers cannot be started");
        }
    }
    drop(done);
    let end = Instant::now() + KNOCKS_LIMIT;
    let mut all = BTreeSet::new();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match answered.recv_timeout(left) {
            Ok((slot, true)) => drop(all.insert(slot)),
            Ok((_, false)) => {}
            Err(_) => return all,
        }
    }
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
    std::thread::scope(|scope| {
        let (done, is_done) = mpsc::channel();
        scope.spawn(move || keep_server(daemon, &is_done));
        undo_each(daemon);
        drop::<mpsc::Sender<()>>(done);
    });
    if let Err(error) = daemon.containers.save(&mut daemon.shared.state()) {
        tracing::warn!(%error, "the list is out of date, ignoring");
    }
    // There is nothing left to serve, and no later daemon shall find a server waiting.
    daemon.supervision.let_go();
    service_manager::forget();
}

/// Starts another server when the one there is dies, until the sender of `is_done` is dropped. The event loop, which does
/// that otherwise, has ended; and who looks into a directory graft waits for a server.
fn keep_server(daemon: &Daemon, is_done: &mpsc::Receiver<()>) {
    while is_done.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
        let lives = {
            let state = daemon.shared.state();
            state.slot.present().is_some() && !state.slot.has_died()
        };
        if lives {
            continue;
        }
        tracing::error!("the server died; starting another one");
        daemon.supervision.let_go();
        if let Err(error) = daemon.supervision.start(true) {
            tracing::warn!(%error, "grafts in directories may stay behind");
        }
    }
}

/// Takes the grafts out of each container.
fn undo_each(daemon: &Daemon) {
    let slots: Vec<u64> = {
        let state = daemon.shared.state();
        state.registry.iter().map(|(slot, _)| slot).collect()
    };
    let answering = answering(daemon, &slots);
    let end = Instant::now() + UNDO_LIMIT;
    for slot in slots {
        // One that answered just now can hang all the same, for three seconds.
        if !answering.contains(&slot) || Instant::now() >= end {
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
}
