//! How old a view may be.

use eci_fs_emulators::{EMULATORS, Tunable};
use eci_fs_protocol::link::Connection;

use super::Tree;
use crate::server::ids::NodeId;

impl Tree {
    /// The nodes of a container that the kernel may hold attributes of which change with its limits.
    pub fn limited_nodes(&self, slot: u64) -> Vec<(Connection, NodeId)> {
        let Ok(container) = self.container(slot) else {
            return Vec::new();
        };
        let limited = |index: usize| {
            let connection = container.connection(index)?;
            let emulator = EMULATORS[index];
            let is_limited = match connection {
                Connection::Cached => true,
                Connection::Live => emulator.tunable().is_some_and(Tunable::follows_limits),
            };
            is_limited.then(|| (connection, NodeId::view(slot, emulator.facts().id)))
        };
        (0..EMULATORS.len()).filter_map(limited).collect()
    }
}
