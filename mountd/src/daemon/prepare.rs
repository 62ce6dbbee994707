//! The preparation of the next attaches, while nobody waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use rustix::process::{Resource, getrlimit};

use super::containers::{Containers, next_of};
use super::prepared_slot::PreparedSlot;
use crate::threads::Mend;
use crate::{faults, threads};
use eci_fs_protocol::error::Result;
use eci_fs_protocol::link::Row;

/// The containers for which clones are prepared. A burst of so many is attached as fast as one.
const AHEAD: usize = 4;

/// The share of the daemon's descriptors that prepared clones may take.
const SHARE: u64 = 8;

/// The time after an attach in which nothing is prepared while something is left from before. The runtime goes on with the
/// container then, and its engine waits for that. The preparation takes as much of a CPU as the attach.
const QUIET: Duration = Duration::from_millis(100);

/// Starts the thread that prepares the next attaches.
///
/// # Errors
/// When there are no more threads.
pub(super) fn start(containers: &Arc<Containers>) -> Result<()> {
    let containers = Arc::clone(containers);
    threads::start("preparer", Mend::Again, move || {
        while containers.prepare_signal.wait(None) {
            while !containers.prepared.lock().is_empty()
                && containers.prepare_signal.wait(Some(Instant::now() + QUIET))
            {}
            faults::at("preparer");
            prepare(&containers);
            containers.isolation.prepare_next();
        }
    })
}

/// Prepares clones until there are enough for [`AHEAD`] containers. While an operation is under way, nothing is prepared:
/// it would take as long as it saves. An operation that begins meanwhile waits for one clone at most, and the rest is
/// prepared after it.
fn prepare(containers: &Containers) {
    while prepare_one(containers) {}
}

/// Prepares clones for one container. Returns false if nothing is left to do, or nothing could be prepared.
fn prepare_one(containers: &Containers) -> bool {
    let Some(operation) = containers.shared.operation.try_lock() else {
        return false;
    };
    let Some((at, next, rows)) = next_to_prepare(containers) else {
        return false;
    };
    let waiting = Arc::clone(&containers.shared.waiting);
    let made = containers
        .grafter
        .prepare(next.slot, next.generation, rows, waiting);
    let is_whole = matches!(made, Ok(true));
    if made.is_ok() {
        let mut prepared = containers.prepared.lock();
        prepared.truncate(at);
        prepared.push_back(PreparedSlot { is_whole, ..next });
    }
    // To an operation that waits.
    MutexGuard::unlock_fair(operation);
    is_whole
}

/// Returns the place of the slot for which clones are prepared next, that slot, and the rows that the last container
/// got. The server has been told of the slot. Only the last slot can lack clones, and then it comes first.
fn next_to_prepare(containers: &Containers) -> Option<(usize, PreparedSlot, Vec<Row>)> {
    let (count, last) = {
        let prepared = containers.prepared.lock();
        (prepared.len(), prepared.back().copied())
    };
    let unfinished = last.filter(|slot| !slot.is_whole);
    if unfinished.is_none() && count >= AHEAD {
        return None;
    }
    let mut state = containers.shared.state();
    let last = state.registry.last();
    let any = || state.registry.iter().last().map(|(_, container)| container);
    let rows = last.or_else(any)?.rows.clone();
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if state.ending || (rows.len() * AHEAD) as u64 > limit / SHARE {
        return None;
    }
    if let Some(slot) = unfinished {
        return Some((count - 1, slot, rows));
    }
    let expected = next_of(&mut state).and_then(|(slot, generation)| {
        state.slot.server()?.expect(slot, generation)?;
        Ok(PreparedSlot {
            slot,
            generation,
            is_whole: false,
        })
    });
    let expected = expected
        .inspect_err(|error| tracing::debug!(%error, "the next container is not expected"))
        .ok()?;
    Some((count, expected, rows))
}
