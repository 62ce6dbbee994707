//! The state of a daemon, and the locks that all its parts share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::asker::Asker;
use super::server_slot::ServerSlot;
use crate::registry::Registry;
use eci_fs_protocol::error::{Error, Kind, Result};

/// The time that an operation waits for those before it. An upgrade, which takes longest, mostly takes less than ten.
const BEGIN_LIMIT: Duration = Duration::from_secs(30);

/// Everything that changes.
#[derive(Debug)]
pub(super) struct DaemonState {
    pub(super) registry: Registry,
    pub(super) slot: ServerSlot,
    /// Set once, when the daemon ends: nothing new is begun.
    pub(super) ending: bool,
}

/// The state behind its lock, and the lock of operations, which is taken first.
///
/// One operation runs at a time: they all end in the one grafter anyway, and so each sees the list as the one before
/// left it. The lock of the state is not held while the grafter works: the grafter may wait for a server that has just
/// died, and the next one is started under that lock.
#[derive(Debug)]
pub(super) struct Shared {
    /// Held by the one operation that runs.
    pub(super) operation: Mutex<()>,
    /// The number of operations that wait to begin. What is done while nobody waits looks at it.
    pub(super) waiting: Arc<AtomicUsize>,
    state: Mutex<DaemonState>,
}

impl Shared {
    pub(super) fn new(state: DaemonState) -> Self {
        Self {
            operation: Mutex::new(()),
            waiting: Arc::default(),
            state: Mutex::new(state),
        }
    }

    /// Waits for the operation before, and keeps the next one waiting.
    ///
    /// # Errors
    /// [`Error::ending`] when the daemon ends; [`Kind::Busy`] when operations keep this one waiting for too long.
    pub(super) fn begin(&self) -> Result<MutexGuard<'_, ()>> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let operation = self.operation.try_lock_for(BEGIN_LIMIT);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let operation = operation.ok_or_else(|| {
            Error::new(
                Kind::Busy,
                format!(
                    "eci-mountd was busy with other commands for {} s",
                    BEGIN_LIMIT.as_secs()
                ),
            )
            .remedy("try again; `eci-fs doctor` names containers that hang")
        })?;
        if self.state().ending {
            return Err(Error::ending());
        }
        Ok(operation)
    }

    /// Begins an operation like [`Self::begin`], for a command that must still wait for it.
    ///
    /// A command that goes after this has its request carried out: it has begun.
    ///
    /// # Errors
    /// As [`Self::begin`] and [`Asker::check`].
    pub(super) fn begin_for(&self, asker: Asker<'_>) -> Result<MutexGuard<'_, ()>> {
        let operation = self.begin()?;
        asker.check()?;
        Ok(operation)
    }

    /// Locks the state.
    pub(super) fn state(&self) -> MutexGuard<'_, DaemonState> {
        self.state.lock()
    }

    /// Locks the state, if nobody holds it for longer than `limit`.
    pub(super) fn try_state(&self, limit: Duration) -> Option<MutexGuard<'_, DaemonState>> {
        self.state.try_lock_for(limit)
    }

    /// Returns true if nothing is attached or mounted. If so, and `claim` is set, nothing new is begun any more.
    pub(super) fn is_idle(&self, claim: bool) -> bool {
        let mut state = self.state();
        let idle = state.registry.is_empty();
        state.ending |= idle && claim;
        idle
    }
}

/// The error of an operation whose container has been removed from the list meanwhile.
pub(super) fn vanished() -> Error {
    Error::not_found("the container has ended")
}
