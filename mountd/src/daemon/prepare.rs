//! The preparation of the next attach, while nobody waits.

use rustix::process::{Resource, getrlimit};

use super::containers::{Containers, next_of};
use eci_fs_protocol::link::Row;

/// The share of the daemon's descriptors that prepared clones may take.
const SHARE: u64 = 8;

/// Prepares clones for the next container, after one was attached. If anybody waits, that is not done: it would take as
/// long as it saves.
pub(super) fn prepare(containers: &Containers) {
    if containers.prepared.lock().is_some() {
        return;
    }
    let Some(_operation) = containers.shared.operation.try_lock() else {
        return;
    };
    let Some((slot, generation, rows)) = expect_next(containers) else {
        return;
    };
    let made = containers.grafter.prepare(slot, generation, rows);
    *containers.prepared.lock() = made.ok().map(|()| (slot, generation));
}

/// Tells the server of the slot of the next container. Returns the slot, its generation, and the rows that the last
/// container got.
fn expect_next(containers: &Containers) -> Option<(u64, u32, Vec<Row>)> {
    let mut state = containers.shared.state();
    let last = state.registry.last();
    let any = || state.registry.iter().last().map(|(_, container)| container);
    let rows = last.or_else(any)?.rows.clone();
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if state.ending || rows.len() as u64 > limit / SHARE {
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
