//! The preparation of the next attaches, while nobody waits.

use parking_lot::MutexGuard;
use rustix::process::{Resource, getrlimit};

use super::containers::{Containers, next_of};
use eci_fs_protocol::link::Row;

/// The containers for which clones are prepared. A burst of so many is attached as fast as one.
const AHEAD: usize = 4;

/// The share of the daemon's descriptors that prepared clones may take.
const SHARE: u64 = 8;

/// Prepares clones for the next containers, after one was attached, until there are enough for [`AHEAD`] of them. While
/// an operation is under way, nothing is prepared: it would take as long as it saves. So an operation waits for the clones
/// of one container at most, and the command after it goes on.
pub(super) fn prepare(containers: &Containers) {
    let Some(_preparing) = containers.preparing.try_lock() else {
        return;
    };
    while containers.prepared.lock().len() < AHEAD && prepare_one(containers) {}
}

/// Prepares clones for one container. Returns false if nothing could be prepared.
fn prepare_one(containers: &Containers) -> bool {
    let Some(operation) = containers.shared.operation.try_lock() else {
        return false;
    };
    let Some((slot, generation, rows)) = expect_next(containers) else {
        return false;
    };
    let made = containers.grafter.prepare(slot, generation, rows);
    if made.is_ok() {
        let mut prepared = containers.prepared.lock();
        prepared.push_back((slot, generation));
    }
    // To an operation that waits.
    MutexGuard::unlock_fair(operation);
    made.is_ok()
}

/// Tells the server of the slot of the next container. Returns the slot, its generation, and the rows that the last
/// container got.
fn expect_next(containers: &Containers) -> Option<(u64, u32, Vec<Row>)> {
    let mut state = containers.shared.state();
    let last = state.registry.last();
    let any = || state.registry.iter().last().map(|(_, container)| container);
    let rows = last.or_else(any)?.rows.clone();
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if state.ending || (rows.len() * AHEAD) as u64 > limit / SHARE {
        return None;
    }
    let expected = next_of(&mut state).and_then(|(slot, generation)| {
        state.slot.server()?.expect(slot, generation)?;
        Ok((slot, generation))
    });
    let (slot, generation) = expected
        .inspect_err(|error| tracing::debug!(%error, "the next container is not expected"))
        .ok()?;
    Some((slot, generation, rows))
}
