//! The data of a daemon: its parts, the socket of the commands, and the flags that end it.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::containers::Containers;
use super::state::Shared;
use super::supervision::Supervision;
use crate::vet::Sockets;

/// A daemon. Operations are functions of other files, which take the parts that they need: most need only
/// [`Containers`].
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) containers: Arc<Containers>,
    pub(super) supervision: Supervision,
    /// The locks, which the parts have too.
    pub(super) shared: Arc<Shared>,
    /// None for a daemon of a single command.
    pub(super) endpoint: Option<ControlEndpoint>,
    /// The sockets of the supervisor of system calls. A daemon of a single command has none.
    pub(super) vet: OnceLock<Sockets>,
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
