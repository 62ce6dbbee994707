//! The node ids of paths below directory grafts: hashes, and what each of them means.

use std::sync::Arc;

use dashmap::DashMap;

use super::{Node, NodeId};
use crate::server::error::Errno;

/// Paths that are known at most. Those of network devices are a container's to choose, so they would fill the memory one
/// after the other; what is forgotten is found again by walking.
const MOST_KNOWN: usize = 1 << 16;

/// What hashes mean; the same for all containers, because the paths are.
#[derive(Debug, Default)]
pub(in crate::server) struct Paths {
    pub(in crate::server) known: DashMap<u64, (u16, Arc<str>)>,
}

/// FNV-1a: the hash must be the same in every build of every version, which the library's is not.
pub(in crate::server) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

pub(in crate::server) fn hash(directory: u16, rel: &str) -> u64 {
    fnv(&[&directory.to_le_bytes(), rel.as_bytes()].concat())
}

impl Paths {
    /// The node of a path; EIO where its hash is another's, which would show one file as another.
    ///
    /// `learned` is called with its number when it was not known before.
    pub(in crate::server) fn node(
        &self,
        slot: u64,
        directory: u16,
        rel: &str,
        learned: impl FnOnce(u64),
    ) -> Result<NodeId, Errno> {
        if rel.is_empty() {
            return Ok(NodeId::view(slot, directory));
        }
        let id = NodeId::below(slot, hash(directory, rel));
        let Node::Below { path, .. } = id.node() else {
            return Err(Errno::IO);
        };
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
        }
        let mut is_new = false;
        let known = self.known.entry(path).or_insert_with(|| {
            is_new = true;
            (directory, rel.into())
        });
        if known.0 != directory || &*known.1 != rel {
            tracing::error!(rel, other = &*known.1, "two paths have one node id");
            return Err(Errno::IO);
        }
        drop(known);
        if is_new {
            learned(path);
        }
        Ok(id)
    }

    /// Know a path that a server before this one has looked up.
    pub(in crate::server) fn learn(&self, directory: u16, rel: &str) {
        // One that is in the way of another is not known.
        let _ = self.node(0, directory, rel, |_| ());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Grafts outlive servers: the hash of a path is part of what a release promises to the next.
    #[test]
    fn hashes_are_the_same_in_every_build() {
        assert_eq!(hash(128, "cpu0/topology/core_id"), 0xa17ad819b3938913);
    }

    #[test]
    fn no_more_paths_are_known_than_there_is_room_for() {
        let paths = Paths::default();
        for number in 0..=MOST_KNOWN + 1 {
            let node = paths.node(1, 137, &format!("veth{number}"), |_| ());
            assert!(node.is_ok() && paths.known.len() <= MOST_KNOWN);
        }
    }

    #[test]
    fn a_path_has_one_node_and_two_paths_have_two() {
        let paths = Paths::default();
        let node = |slot, directory, rel| paths.node(slot, directory, rel, |_| ());
        let a = node(1, 128, "cpu0").unwrap();
        assert_eq!(node(1, 128, "cpu0"), Ok(a));
        assert_ne!(node(1, 128, "cpu1"), Ok(a));
        assert_ne!(node(1, 129, "cpu0"), Ok(a));
        assert_eq!(node(1, 128, ""), Ok(NodeId::view(1, 128)));
    }
}
