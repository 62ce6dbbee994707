//! Slots in which a container is going to be: the daemon walks to what it clones for it before it comes.
//!
//! Every name is there that any container could have, because what the next one has is not known. Nothing can be read:
//! a view of such a slot is no container's yet.

use std::time::{Duration, SystemTime};

use super::emulated::directory;
use super::{Attr, DIRECTORY_TIMEOUT, Kind, Tree};
use crate::server::error::Errno;
use crate::server::ids::{Node, NodeId};

/// Slots that are expected at most: a daemon expects one at a time, but may be killed before that comes.
const MOST: usize = 16;

impl Tree {
    /// A container is going to be in `slot`.
    pub fn expect(&self, slot: u64) {
        if self.expected.len() >= MOST {
            self.expected.clear();
        }
        self.expected.insert(slot);
    }

    pub(super) fn is_expected(&self, slot: u64) -> bool {
        // Mostly none is.
        !self.expected.is_empty() && self.expected.contains(&slot)
    }

    /// What a lookup tells of a node of an expected slot. Files have other attributes when they are looked at again,
    /// which the kernel does before it uses them.
    pub(super) fn expected_attr(&self, id: NodeId) -> Result<(Attr, Duration), Errno> {
        match id.node() {
            Node::Directory { .. } => Ok((Attr::directory(id, 0, 0), DIRECTORY_TIMEOUT)),
            Node::View { emulator, .. } => {
                let attr = Attr {
                    id,
                    kind: match directory(emulator) {
                        Some(_) => Kind::Directory,
                        None => Kind::File,
                    },
                    size: 0,
                    mode: 0,
                    uid: 0,
                    gid: 0,
                    mtime: SystemTime::UNIX_EPOCH,
                };
                Ok((attr, Duration::ZERO))
            }
            Node::Root | Node::Below { .. } => Err(Errno::NOENT),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use eci_fs_emulators::{Host, Settings};
    use eci_fs_protocol::link::Connection;

    use super::*;
    use crate::server::container::Attached;

    fn tree() -> Arc<Tree> {
        let (settings, freshness) = (Settings::default(), Duration::from_millis(10));
        Tree::new(Host::open().unwrap(), None, settings, true, freshness)
    }

    /// Walk to a path of a slot.
    fn walk(tree: &Tree, connection: Connection, path: &str) -> Result<NodeId, Errno> {
        let mut names = path.split('/');
        names.try_fold(NodeId::ROOT, |at, name| {
            let id = tree.lookup(connection, at, name)?;
            tree.looked_up(id).map(|_| id)
        })
    }

    #[test]
    fn what_is_expected_is_walked_to_by_the_nodes_that_it_has_later_and_not_read() {
        let tree = tree();
        let cached = |path| walk(&tree, Connection::Cached, path);
        let live = |path| walk(&tree, Connection::Live, path);
        assert_eq!(cached("7/proc/meminfo"), Err(Errno::NOENT));
        tree.expect(7);
        let (view, tunable) = (cached("7/proc/meminfo"), live("7/proc/sys/kernel/panic"));
        let directory = live("7/sys/devices/system/cpu");
        let beside = cached("7/sys/devices/system/cpu/online");
        for id in [view, tunable, directory, beside] {
            let (attr, timeout) = tree.looked_up(id.unwrap()).unwrap();
            assert_eq!((attr.size, timeout), (0, Duration::ZERO));
            assert_eq!(attr.kind == Kind::Directory, id == directory);
        }
        assert_eq!(
            tree.cached_attr(view.unwrap(), false).err(),
            Some(Errno::NOENT)
        );
        assert_eq!(
            tree.live_attr(tunable.unwrap(), None).err(),
            Some(Errno::NOENT)
        );
        assert_eq!(live("7/proc/none"), Err(Errno::NOENT));
        assert_eq!(live("8/proc/meminfo"), Err(Errno::NOENT));

        tree.add(7, Attached::unlimited());
        assert_eq!(cached("7/proc/meminfo"), view);
        assert_eq!(live("7/proc/sys/kernel/panic"), tunable);
        assert_eq!(live("7/sys/devices/system/cpu"), directory);
        // It is on one connection now.
        assert_eq!(live("7/proc/meminfo"), Err(Errno::NOENT));
        tree.remove(7);
        assert_eq!(cached("7/proc/meminfo"), Err(Errno::NOENT));
    }

    #[test]
    fn daemons_that_are_killed_before_their_container_comes_leave_a_few_slots() {
        let tree = tree();
        for slot in 1..100 {
            tree.expect(slot);
            assert!(tree.expected.len() <= MOST && tree.is_expected(slot));
        }
    }
}
