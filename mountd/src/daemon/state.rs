//! Everything that changes in a daemon, behind one lock.

use super::server_slot::ServerSlot;
use crate::registry::Registry;

/// Everything that changes.
#[derive(Debug)]
pub(super) struct DaemonState {
    pub(super) registry: Registry,
    pub(super) slot: ServerSlot,
    /// Set once, when the daemon ends: nothing new is begun.
    pub(super) ending: bool,
}
