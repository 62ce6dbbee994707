//! How old a view may be.

use eci_fs_emulators::tunable::Policy;
use eci_fs_emulators::{EMULATORS, tunable};
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
            let id = EMULATORS[index].facts().id;
            let is_limited = match connection {
                Connection::Cached => true,
                Connection::Live => {
                    tunable(id).is_some_and(|it| it.policy == Policy::LimitedByPids)
                }
            };
            is_limited.then(|| (connection, NodeId::view(slot, id)))
        };
        (0..EMULATORS.len()).filter_map(limited).collect()
    }
}
