//! What is done for the next container while nobody waits.

use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};

use super::operations::Daemon;
use crate::grafts::Ready;
use eci_fs_protocol::link::Row;

/// The share of the daemon's descriptors that may be spent on this.
const SHARE: u64 = 8;

/// Clones for the next container, once there are any.
#[derive(Debug, Default)]
pub(super) struct Next {
    ready: Mutex<Option<Ready>>,
}

impl Next {
    /// They are taken, if they are `wanted`.
    pub(super) fn take_if(&self, wanted: bool) -> Option<Ready> {
        self.ready.lock().take_if(|_| wanted)
    }
}

impl Daemon {
    /// Get ready for the next container, after one was attached. If anybody waits, that is not done: it would take as
    /// long as it saves.
    pub(super) fn get_ready(&self) {
        // A daemon of a single command has no next one.
        if self.handles.is_none() || self.ready.ready.lock().is_some() {
            return;
        }
        let Some(_turn) = self.turn.try_lock() else {
            return;
        };
        let Some((slot, rows)) = self.expect_next() else {
            return;
        };
        let made = self
            .grafter
            .run(move |place| Ok(Ready::make(place, slot, &rows)));
        *self.ready.ready.lock() = made.ok();
    }

    /// The slot of the next container, of which the server knows then; and what the last one got.
    fn expect_next(&self) -> Option<(u64, Vec<Row>)> {
        let mut state = self.state.lock();
        let rows = state.registry.iter().last()?.1.rows.clone();
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        if state.ending || rows.len() as u64 > limit / SHARE {
            return None;
        }
        let slot = state.registry.take_slot();
        let expected = state.server().and_then(|server| server.expect(slot));
        expected
            .inspect_err(|error| tracing::debug!(%error, "the next container is not expected"))
            .ok()?;
        Some((slot, rows))
    }
}
