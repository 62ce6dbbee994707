//! The layout of the directories on the way to the views, which all containers share.

use std::collections::{BTreeMap, BTreeSet};

use eci_fs_emulators::{DIRECTORIES, EMULATORS};
use eci_fs_protocol::link::Connection;

use crate::server::container::Attached;
use crate::server::fs::attr::{DirEntry, Kind};
use crate::server::ids::{NodeId, fnv};

/// The number of a container's top directory.
pub(super) const TOP: u32 = 0;

/// The directories by number. A number is a hash of the path, and the same for every container and every release, because
/// the kernel believes a name for a while.
#[derive(Debug)]
pub(super) struct Layout {
    children: BTreeMap<u32, BTreeMap<String, Child>>,
    /// The index into [`DIRECTORIES`] of the graft at a name of a directory. The same name can be in `children` too.
    emulated: BTreeMap<(u32, String), usize>,
    /// The directories whose other names are up to an emulator of single files: the index into [`DIRECTORIES`] and the
    /// relative path.
    by_file: BTreeMap<u32, (usize, String)>,
}

/// An entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Child {
    Directory(u32),
    /// An index into [`EMULATORS`].
    View(usize),
}

/// Returns the number of a directory, which is never [`TOP`].
fn number(path: &str) -> u32 {
    (fnv(path.as_bytes()) as u32).max(TOP + 1)
}

impl Layout {
    /// Lays out the directories that lead to `views` and `directories`, which are absolute paths in the order of
    /// [`EMULATORS`] and of [`DIRECTORIES`]; each directory with true if its files are grafted one by one.
    pub(super) fn of<'a>(
        views: impl IntoIterator<Item = &'a str>,
        directories: impl IntoIterator<Item = (&'a str, bool)>,
    ) -> Self {
        let mut this = Self {
            children: BTreeMap::from([(TOP, BTreeMap::new())]),
            emulated: BTreeMap::new(),
            by_file: BTreeMap::new(),
        };
        for (index, path) in views.into_iter().enumerate() {
            let (at, name) = this.lead_to(path);
            this.children
                .entry(at)
                .or_default()
                .insert(name.to_owned(), Child::View(index));
        }
        let mut by_file = Vec::new();
        for (index, (path, is_by_file)) in directories.into_iter().enumerate() {
            let (at, name) = this.lead_to(path);
            if is_by_file {
                this.lead_to(&format!("{path}/"));
                by_file.push((index, path));
            } else {
                this.emulated.insert((at, name.to_owned()), index);
            }
        }
        for (index, path) in by_file {
            this.note_by_file(number(path), index, "");
        }
        this
    }

    /// Notes that a directory and the directories in it are ways to single files of `DIRECTORIES[index]`.
    fn note_by_file(&mut self, directory: u32, index: usize, rel: &str) {
        self.by_file.insert(directory, (index, rel.to_owned()));
        let children = self.children.get(&directory).into_iter().flatten();
        let below: Vec<(u32, String)> = children
            .filter_map(|(name, child)| match child {
                Child::Directory(number) if rel.is_empty() => Some((*number, name.clone())),
                Child::Directory(number) => Some((*number, format!("{rel}/{name}"))),
                Child::View(_) => None,
            })
            .collect();
        for (number, rel) in below {
            self.note_by_file(number, index, &rel);
        }
    }

    /// Returns the index into [`DIRECTORIES`] of the emulator of single files that the names of a directory are up to,
    /// and the path of the directory relative to it.
    pub(super) fn by_file(&self, directory: u32) -> Option<(usize, &str)> {
        let (index, rel) = self.by_file.get(&directory)?;
        Some((*index, rel))
    }

    /// Returns the number of the directory at the path `rel` below the emulator of single files with the id `emulator`; none
    /// if that leads to no view and no graft.
    pub(super) fn way(&self, emulator: u16, rel: &str) -> Option<u32> {
        let is_it = |(index, path): &(usize, String)| {
            DIRECTORIES[*index].facts().id == emulator && path == rel
        };
        let mut all = self.by_file.iter();
        all.find_map(|(number, way)| is_it(way).then_some(*number))
    }

    /// Returns the number of the directory that holds `path`, which is made if need be, and the name in it.
    fn lead_to<'a>(&mut self, path: &'a str) -> (u32, &'a str) {
        let mut at = TOP;
        let (dirs, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut so_far = String::new();
        for part in dirs.split('/').filter(|part| !part.is_empty()) {
            so_far.push('/');
            so_far.push_str(part);
            let next = number(&so_far);
            self.children
                .entry(at)
                .or_default()
                .insert(part.to_owned(), Child::Directory(next));
            self.children.entry(next).or_default();
            at = next;
        }
        (at, name)
    }

    /// Returns the node at `name` in the directory numbered `directory`, for the container in `slot`; without a container,
    /// the node that any container could have there.
    ///
    /// A directory graft lies on the live connection; on the cached one the same path leads to single views.
    pub(super) fn child(
        &self,
        slot: u64,
        directory: u32,
        name: &str,
        container: Option<&Attached>,
        connection: Connection,
    ) -> Option<(Kind, NodeId)> {
        if connection == Connection::Live
            && let Some(index) = self.emulated.get(&(directory, name.to_owned()))
        {
            let id = DIRECTORIES[*index].facts().id;
            if container.is_none_or(|container| container.has_directory(id)) {
                return Some((Kind::Directory, NodeId::view(slot, id)));
            }
        }
        let child = *self.children.get(&directory)?.get(name)?;
        let kind = match child {
            Child::Directory(_) => Kind::Directory,
            Child::View(_) => Kind::File,
        };
        Some((kind, child.node_in(slot, container, connection)?))
    }

    /// Returns the number of the directory that holds a directory; none for the top.
    pub(super) fn parent(&self, directory: u32) -> Option<u32> {
        let holds = |children: &BTreeMap<String, Child>| {
            let mut children = children.values();
            children.any(|child| *child == Child::Directory(directory))
        };
        let mut all = self.children.iter();
        all.find_map(|(above, children)| holds(children).then_some(*above))
    }

    /// Returns the number of the directory that holds the directory graft with the id `graft`; none if there is no such
    /// graft.
    pub(super) fn parent_of_graft(&self, graft: u16) -> Option<u32> {
        let mut all = self.emulated.iter();
        all.find_map(|((above, _), index)| {
            (DIRECTORIES[*index].facts().id == graft).then_some(*above)
        })
    }

    /// Returns all entries that a container has in a directory, on one connection.
    pub(super) fn entries(
        &self,
        slot: u64,
        directory: u32,
        container: &Attached,
        connection: Connection,
    ) -> Vec<DirEntry> {
        let plain = self
            .children
            .get(&directory)
            .into_iter()
            .flat_map(BTreeMap::keys);
        let emulated = self
            .emulated
            .keys()
            .filter(|(at, _)| *at == directory)
            .map(|(_, name)| name);
        let names: BTreeSet<&String> = plain.chain(emulated).collect();
        names
            .into_iter()
            .filter_map(|name| {
                let (kind, id) = self.child(slot, directory, name, Some(container), connection)?;
                Some(DirEntry::new(id, kind, name.clone()))
            })
            .collect()
    }
}

impl Child {
    /// Returns the node of the entry for the container in `slot`; none for a view that is not on this connection.
    fn node_in(
        self,
        slot: u64,
        container: Option<&Attached>,
        connection: Connection,
    ) -> Option<NodeId> {
        let is_there = |index: usize| {
            container.is_none_or(|container| container.connection(index) == Some(connection))
        };
        match self {
            Self::Directory(directory) => Some(NodeId::directory(slot, directory)),
            Self::View(index) => {
                is_there(index).then(|| NodeId::view(slot, EMULATORS[index].facts().id))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_directories_of_the_registry_have_one_number_or_one_inode_number() {
        let paths: BTreeSet<&str> = EMULATORS
            .iter()
            .map(|emulator| emulator.facts().path)
            .chain(DIRECTORIES.iter().map(|directory| directory.facts().path))
            .flat_map(|path| path.match_indices('/').skip(1).map(|(end, _)| &path[..end]))
            .collect();
        let numbers: BTreeSet<u32> = paths.iter().map(|path| number(path)).collect();
        assert_eq!(numbers.len(), paths.len());
        let ids = numbers.iter().map(|number| NodeId::directory(1, *number));
        let inodes: BTreeSet<u32> = ids.map(NodeId::inode).collect();
        assert_eq!(inodes.len(), paths.len());
        assert!(!inodes.contains(&NodeId::directory(1, TOP).inode()));
    }

    /// Grafts outlive servers: the number of a directory is part of what a release promises to the next.
    #[test]
    fn the_numbers_of_directories_are_kept() {
        assert_eq!(number("/proc"), 0xde53_0372);
        assert_eq!(number("/sys/devices/system"), 0x4a16_1231);
    }

    #[test]
    fn paths_that_share_directories_share_their_numbers() {
        let all = Layout::of(
            ["/proc/stat", "/sys/a/x", "/proc/meminfo", "/sys/a/y"],
            [("/sys/a", false), ("/sys/b/c", false)],
        );
        let get = |at: u32, name: &str| all.children[&at].get(name).copied();
        let Some(Child::Directory(proc)) = get(TOP, "proc") else {
            panic!()
        };
        assert_eq!(get(proc, "stat"), Some(Child::View(0)));
        assert_eq!(get(proc, "meminfo"), Some(Child::View(2)));
        let Some(Child::Directory(sys)) = get(TOP, "sys") else {
            panic!()
        };
        let Some(Child::Directory(a)) = get(sys, "a") else {
            panic!()
        };
        assert_eq!(
            (get(a, "x"), get(a, "y")),
            (Some(Child::View(1)), Some(Child::View(3)))
        );
        assert_eq!(get(a, "stat"), None);
        let Some(Child::Directory(b)) = get(sys, "b") else {
            panic!()
        };
        assert_eq!(all.emulated.get(&(sys, "a".to_owned())), Some(&0));
        assert_eq!(all.emulated.get(&(b, "c".to_owned())), Some(&1));
        assert_eq!((all.parent(a), all.parent(b)), (Some(sys), Some(sys)));
        assert_eq!((all.parent(sys), all.parent(TOP)), (Some(TOP), None));
    }

    #[test]
    fn the_ways_to_single_files_lie_among_the_others() {
        let all = Layout::of(
            ["/sys/a/b/x", "/proc/stat"],
            [("/sys/a", true), ("/sys/a/c/d", false)],
        );
        let at = |path: &str| all.by_file(number(path));
        assert_eq!(at("/sys/a"), Some((0, "")));
        assert_eq!(at("/sys/a/b"), Some((0, "b")));
        assert_eq!(at("/sys/a/c"), Some((0, "c")));
        assert_eq!(at("/sys"), None);
        assert_eq!(at("/proc"), None);
        assert_eq!(all.emulated.len(), 1);
    }
}
