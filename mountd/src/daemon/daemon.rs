//! The data of a daemon.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::containers::Containers;
use super::event_set::EventSet;
use super::journal::Journal;
use super::state::DaemonState;
use super::supervision::Supervision;
use crate::broker::Broker;
use crate::container::procfs::Proc;
use crate::grafts::{Grafter, PreparedClones};
use eci_fs_protocol::error::{Error, Result};

/// The parts of a daemon. Operations on them are functions of other files, which take the parts that they need.
///
/// One operation runs at a time: they all end in the one grafter anyway, and so each sees the list as the one before
/// left it. The lock of the state is not held while the grafter works: the grafter may wait for a server that has just
/// died, and the next one is started under that lock.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) proc: Arc<Proc>,
    pub(super) grafter: Grafter,
    pub(super) journal: Arc<Journal>,
    pub(super) events: Arc<EventSet>,
    pub(super) broker: Broker,
    pub(super) containers: Containers,
    pub(super) supervision: Supervision,
    /// None for a daemon of a single command.
    pub(super) endpoint: Option<ControlEndpoint>,
    /// Clones for the next container, once there are any.
    pub(super) prepared: Mutex<Option<PreparedClones>>,
    /// Held by the one operation that runs. It is taken before the lock of the state.
    pub(super) operation: Mutex<()>,
    pub(super) state: Mutex<DaemonState>,
    pub(super) end: End,
}

/// The socket of the commands, and the lock of the runtime directory. A daemon keeps the lock for its successor alone.
#[derive(Debug)]
pub(super) struct ControlEndpoint {
    pub(super) lock: OwnedFd,
    pub(super) listener: OwnedFd,
}

/// The flags that end the daemon. Signals end it too.
#[derive(Debug, Default)]
pub(super) struct End {
    /// The command that a private daemon serves is gone; or the command that asked for a successor has been answered.
    over: AtomicBool,
    /// Another daemon has taken the place of this one.
    handed_over: AtomicBool,
}

impl Daemon {
    /// Waits for the operation before, and keeps the next one waiting.
    ///
    /// # Errors
    /// [`Error::ending`] when the daemon ends.
    pub(super) fn begin(&self) -> Result<MutexGuard<'_, ()>> {
        let operation = self.operation.lock();
        if self.state.lock().ending {
            return Err(Error::ending());
        }
        Ok(operation)
    }

    /// Returns true if nothing is attached or mounted. If so, and `claim` is set, nothing new is begun any more.
    pub(super) fn is_idle(&self, claim: bool) -> bool {
        let mut state = self.state.lock();
        let idle = state.registry.is_empty();
        state.ending |= idle && claim;
        idle
    }
}

impl End {
    pub(super) fn set_over(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub(super) fn set_handed_over(&self) {
        self.handed_over.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_handed_over(&self) -> bool {
        self.handed_over.load(Ordering::SeqCst)
    }
}

/// The error of an operation whose container has been removed from the list meanwhile.
pub(super) fn vanished() -> Error {
    Error::not_found("the container has ended")
}
