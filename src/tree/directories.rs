//! The directories on the way to the views: `/`, `/proc`, `/sys/devices/system/cpu`.
//!
//! They are walked by the daemon when it clones a mount, and by nobody else.

use std::collections::BTreeMap;

use eci_fs_emulators::EMULATORS;
use eci_fs_mountd::protocol::link::Connection;

use super::{Kind, NodeId};
use crate::container::Attached;

/// The number of a container's own directory.
pub(super) const TOP: u32 = 0;

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its node.
    pub id: NodeId,
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

/// The directories, numbered; the same for every container.
#[derive(Debug)]
pub(super) struct Directories {
    children: Vec<BTreeMap<String, Child>>,
}

/// What lies in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Child {
    Directory(u32),
    /// An index into [`EMULATORS`].
    View(usize),
}

impl Directories {
    /// Those that lead to `paths`, which are absolute and in the order of [`EMULATORS`].
    pub(super) fn of<'a>(paths: impl IntoIterator<Item = &'a str>) -> Self {
        let mut children = vec![BTreeMap::new()];
        for (index, path) in paths.into_iter().enumerate() {
            let mut at = TOP as usize;
            let (dirs, name) = path.rsplit_once('/').unwrap_or(("", path));
            for part in dirs.split('/').filter(|part| !part.is_empty()) {
                let next = children.len();
                let number = u32::try_from(next).unwrap_or(u32::MAX);
                let child = children[at]
                    .entry(part.to_owned())
                    .or_insert(Child::Directory(number));
                at = match *child {
                    Child::Directory(known) if known as usize != next => known as usize,
                    _ => {
                        children.push(BTreeMap::new());
                        next
                    }
                };
            }
            children[at].insert(name.to_owned(), Child::View(index));
        }
        Self { children }
    }

    /// What lies at `name` in the directory numbered `directory`.
    pub(super) fn child(&self, directory: u32, name: &str) -> Option<Child> {
        self.children.get(directory as usize)?.get(name).copied()
    }

    /// All that a container has in a directory, on one connection.
    pub(super) fn entries(
        &self,
        slot: u64,
        directory: u32,
        container: &Attached,
        connection: Connection,
    ) -> Vec<DirEntry> {
        let Some(children) = self.children.get(directory as usize) else {
            return Vec::new();
        };
        children
            .iter()
            .filter_map(|(name, child)| {
                let kind = match child {
                    Child::Directory(_) => Kind::Directory,
                    Child::View(_) => Kind::File,
                };
                let id = child.node_in(slot, container, connection)?;
                Some(DirEntry {
                    id,
                    kind,
                    name: name.clone(),
                })
            })
            .collect()
    }
}

impl Child {
    /// Its node for the container in `slot`; none for a view that is not on this connection.
    pub(super) fn node_in(
        self,
        slot: u64,
        container: &Attached,
        connection: Connection,
    ) -> Option<NodeId> {
        match self {
            Self::Directory(directory) => Some(NodeId::directory(slot, directory)),
            Self::View(index) => (container.connection(index) == Some(connection))
                .then(|| NodeId::view(slot, EMULATORS[index].facts().id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_share_directories_share_their_numbers() {
        let all = Directories::of(["/proc/stat", "/sys/a/x", "/proc/meminfo", "/sys/a/y"]);
        let Some(Child::Directory(proc)) = all.child(TOP, "proc") else {
            panic!()
        };
        assert_eq!(all.child(proc, "stat"), Some(Child::View(0)));
        assert_eq!(all.child(proc, "meminfo"), Some(Child::View(2)));
        let Some(Child::Directory(sys)) = all.child(TOP, "sys") else {
            panic!()
        };
        let Some(Child::Directory(a)) = all.child(sys, "a") else {
            panic!()
        };
        assert_eq!(
            (all.child(a, "x"), all.child(a, "y")),
            (Some(Child::View(1)), Some(Child::View(3)))
        );
        assert_eq!(all.child(a, "stat"), None);
        assert_eq!(all.children.len(), 4);
        assert_eq!(all.child(99, "x"), None);
    }
}
