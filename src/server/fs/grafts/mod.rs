//! Directory grafts: directories of the kernel whose listing depends on the container, on the live connection.
//!
//! An emulator decides about each path below such a directory: it is hidden, computed, a link, or the kernel's own
//! file, which is then read here, from the host, and never written; or it is the kernel's own of the container's network
//! namespace (`network.rs`). A node id holds the number of a path (`src/server/ids/paths.rs`). The path is written to the
//! state when it gets its number, for the next server. A path that did not fit into the state is found again by walking.

mod network;
mod passthrough;
mod place;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eci_fs_emulators::EMULATORS;
use eci_fs_emulators::directory::NEEDS;
use eci_fs_emulators::{DIRECTORIES, Decision, Directory, Host};
use rustix::fs::OFlags;

use super::attr::{Attr, DirEntry, Kind};
use super::containers::{Containers, directory};
use super::content::Content;
use super::permission::Permissions;
use super::persistence::Persistence;
use super::render::Renderer;
use super::snapshots::Snapshots;
use crate::server::broker::BrokerClient;
use crate::server::container::Attached;
use crate::server::error::Errno;
use crate::server::ids::{Handle, Known, Node, NodeId, Owner, Paths, Request};
use crate::server::state::{Key, Record};
use network::NetworkFiles;
use passthrough::{Stat, read_whole};
pub(super) use place::Place;
use place::{covering, join, owner_of, split};

/// The directory grafts of all containers.
#[derive(Debug)]
pub(super) struct DirectoryGrafts {
    host: Arc<Host>,
    renderer: Arc<Renderer>,
    containers: Arc<Containers>,
    snapshots: Arc<Snapshots>,
    permissions: Arc<Permissions>,
    persistence: Persistence,
    network: NetworkFiles,
    /// Stands for the container that is going to be in a prepared slot.
    nobody: Arc<Attached>,
    /// The paths of the host. The names that a container chooses are its own ([`Attached::paths`]).
    paths: Paths,
}

impl DirectoryGrafts {
    /// Makes the part. What lies in a network namespace is asked of the daemon by `broker`, where there is one.
    pub(super) fn new(
        host: Arc<Host>,
        renderer: Arc<Renderer>,
        containers: Arc<Containers>,
        snapshots: Arc<Snapshots>,
        permissions: Arc<Permissions>,
        persistence: Persistence,
        broker: Option<Arc<BrokerClient>>,
    ) -> Self {
        Self {
            host,
            renderer,
            containers,
            snapshots,
            permissions,
            persistence,
            network: NetworkFiles::new(broker),
            nobody: Arc::new(Attached::unlimited()),
            paths: Paths::of_host(),
        }
    }

    /// Returns the place of the path `rel` below a directory whose files are grafted one by one; none where the container
    /// has none of them.
    ///
    /// # Errors
    /// ENOENT when nothing is in the slot.
    pub(super) fn by_file(
        &self,
        slot: u64,
        directory: &'static dyn Directory,
        rel: &str,
    ) -> Result<Option<Place>, Errno> {
        let container = self.containers.get(slot)?;
        let has_it = container.has_directory(directory.facts().id);
        Ok(has_it.then(|| Place {
            container,
            slot,
            directory,
            rel: rel.into(),
        }))
    }

    /// Returns the place of such a path in a slot whose container is still to come.
    pub(super) fn prepared(
        &self,
        slot: u64,
        directory: &'static dyn Directory,
        rel: &str,
    ) -> Place {
        Place {
            container: Arc::clone(&self.nobody),
            slot,
            directory,
            rel: rel.into(),
        }
    }

    /// Returns the place that a node of a prepared slot names; none for a node that does not lie on the way to single
    /// files of the host.
    ///
    /// # Errors
    /// ENOENT for a path that is not known.
    pub(super) fn prepared_place(&self, id: NodeId) -> Result<Option<Place>, Errno> {
        let Node::Below {
            slot,
            owner: Owner::Host,
            number,
        } = id.node()
        else {
            return Ok(None);
        };
        let (known, rel) = self.paths.path(number).ok_or(Errno::NOENT)?;
        let directory = directory(known).ok_or(Errno::NOENT)?;
        Ok(Some(self.prepared(slot, directory, &rel)))
    }

    /// Returns whether a place on the way to single files is a directory, or a file.
    ///
    /// # Errors
    /// ENOENT for what is neither.
    pub(super) fn kind(&self, place: &Place) -> Result<Kind, Errno> {
        let cx = self.renderer.context(&place.container, NEEDS);
        match place.decide(&cx, &place.rel)? {
            Decision::Made => Ok(Kind::Directory),
            Decision::View { .. } => Ok(Kind::File),
            _ => Err(Errno::NOENT),
        }
    }

    /// Returns the node of a path below the directory graft of `place`, and writes down which path that is.
    fn node(&self, place: &Place, rel: &str) -> Result<NodeId, Errno> {
        let (slot, directory) = (place.slot, place.directory.facts().id);
        if rel.is_empty() {
            return Ok(NodeId::view(slot, directory));
        }
        let owner = owner_of(place.directory);
        let paths = self.paths_of(owner, &place.container);
        let number = paths.number(slot, directory, rel, |learned| {
            let (number, path) = (learned.number, rel.to_owned());
            let record = || match owner {
                Owner::Host => Record::Path {
                    number,
                    directory,
                    path,
                },
                Owner::Container => Record::OwnPath {
                    slot,
                    number,
                    directory,
                    path,
                },
            };
            self.persistence.put(record, &[]);
            if let Some(number) = learned.forgotten {
                self.persistence.forget(Key::OwnPath(slot, number));
            }
        })?;
        Ok(NodeId::below(slot, owner, number))
    }

    /// Returns the node of a path in a listing. The paths of the host are learned, because all containers have the same.
    /// A container's names are not, with few exceptions: it can have any number of them, and the kernel asks for a name
    /// before it uses its node.
    fn listed_node(&self, place: &Place, rel: &str) -> Result<NodeId, Errno> {
        let (slot, directory) = (place.slot, place.directory.facts().id);
        let owner = owner_of(place.directory);
        if owner == Owner::Host {
            return self.node(place, rel);
        }
        let paths = self.paths_of(owner, &place.container);
        match paths.number_in_listing(slot, directory, rel)? {
            Some(number) => Ok(NodeId::below(slot, owner, number)),
            None => self.node(place, rel),
        }
    }

    /// Returns the inode number of a node, which is the path `rel` below the graft of `place`. A file that has a graft of
    /// its own over it has the inode number of that graft, because a program finds that one at the name.
    fn inode(&self, place: &Place, rel: &str, id: NodeId) -> u32 {
        self.covering(place, rel)
            .map_or_else(|| id.inode(), u32::from)
    }

    /// Returns whether a file in a directory graft has a graft of its own over it.
    pub(super) fn is_covered(&self, place: &Place) -> bool {
        self.covering(place, &place.rel).is_some()
    }

    /// Returns the id of the emulator whose view is grafted over the path `rel` below the graft of `place`.
    fn covering(&self, place: &Place, rel: &str) -> Option<u16> {
        let emulator = EMULATORS[covering(place, rel)?];
        // A view that this version offers no more may be grafted in a container that a version before attached. The
        // directory has the kernel's own file there.
        emulator
            .is_offered(&self.renderer.context(&place.container, NEEDS))
            .then(|| emulator.facts().id)
    }

    /// Returns the directory that holds a place; none for a directory graft itself.
    pub(super) fn parent(&self, place: &Place) -> Result<Option<NodeId>, Errno> {
        let above = split(&place.rel).map(|(above, _)| self.node(place, above));
        above.transpose()
    }

    /// Returns the table of the paths that `owner` has, as far as `container` sees them.
    fn paths_of<'a>(&'a self, owner: Owner, container: &'a Attached) -> &'a Paths {
        match owner {
            Owner::Host => &self.paths,
            Owner::Container => &container.paths,
        }
    }

    /// Learns the number of a path of the host that a server before this one has given out.
    pub(super) fn learn(&self, number: u64, directory: u16, path: &str) {
        self.paths.restore(number, directory, path);
    }

    /// Returns the place that a node names below a directory graft, or the graft itself; none for other nodes.
    pub(super) fn place(&self, id: NodeId) -> Result<Option<Place>, Errno> {
        match id.node() {
            Node::View { slot, emulator } => {
                let Some(directory) = directory(emulator) else {
                    return Ok(None);
                };
                let container = self.containers.get(slot)?;
                if !container.has_directory(emulator) {
                    return Err(Errno::NOENT);
                }
                Ok(Some(Place {
                    container,
                    slot,
                    directory,
                    rel: "".into(),
                }))
            }
            Node::Below {
                slot,
                owner,
                number,
            } => {
                let container = self.containers.get(slot)?;
                let known = match self.paths_of(owner, &container).path(number) {
                    Some(known) => Some(known),
                    None => self.walk_to(id, owner, &container)?,
                };
                let (directory_id, rel) = known.ok_or(Errno::NOENT)?;
                let directory = directory(directory_id).ok_or(Errno::NOENT)?;
                Ok(Some(Place {
                    container,
                    slot,
                    directory,
                    rel,
                }))
            }
            Node::Root | Node::Directory { .. } => Ok(None),
        }
    }

    /// Walks those directory grafts of a container in which `owner` has its paths, until the path with a node is found.
    fn walk_to(
        &self,
        id: NodeId,
        owner: Owner,
        container: &Arc<Attached>,
    ) -> Result<Option<Known>, Errno> {
        let slot = id.slot();
        let is_in = |directory: &&&dyn Directory| {
            owner_of(**directory) == owner && container.has_directory(directory.facts().id)
        };
        for directory in DIRECTORIES.iter().filter(is_in) {
            let mut open = vec![String::new()];
            while let Some(rel) = open.pop() {
                let place = Place {
                    container: Arc::clone(container),
                    slot,
                    directory: *directory,
                    rel: rel.as_str().into(),
                };
                let entries = self.entries(&place).unwrap_or_default();
                if let Some(found) = entries.iter().find(|entry| entry.id == id) {
                    let path = join(&rel, &found.name);
                    self.node(&place, &path)?;
                    return Ok(Some((directory.facts().id, path.into())));
                }
                let directories = entries.iter().filter(|e| e.kind == Kind::Directory);
                open.extend(directories.map(|entry| join(&rel, &entry.name)));
            }
        }
        Ok(None)
    }

    /// Returns the path of a place that is the kernel's own of the container's network namespace; none for another place.
    pub(super) fn namespaced(&self, place: &Place) -> Result<Option<String>, Errno> {
        if !place.directory.is_namespaced() {
            return Ok(None);
        }
        let cx = self.renderer.context(&place.container, NEEDS);
        Ok(match place.decide(&cx, &place.rel)? {
            Decision::Namespaced(path) => Some(path),
            _ => None,
        })
    }

    /// Returns for how long the kernel may believe a directory: what lies in it changes with limits and CPUs, as views do.
    pub(super) fn directory_timeout(&self, place: &Place) -> Duration {
        self.renderer.freshness(&place.container).timeout
    }

    /// Returns the node at `name` in a directory.
    ///
    /// # Errors
    /// ENOENT.
    pub(super) fn lookup(&self, place: &Place, name: &str) -> Result<NodeId, Errno> {
        let cx = self.renderer.context(&place.container, NEEDS);
        let rel = join(&place.rel, name);
        match place.decide(&cx, &rel)? {
            Decision::Hidden => Err(Errno::NOENT),
            Decision::Passthrough(host) => {
                self.host_stat(&host)?;
                self.node(place, &rel)
            }
            // The daemon walks to a single file when it attaches; it is not asked about that.
            Decision::Namespaced(_) if place.is_way() => self.node(place, &rel),
            Decision::Namespaced(path) => {
                self.network.stat(place.slot, &path)?;
                self.node(place, &rel)
            }
            Decision::View { .. } | Decision::Link(_) | Decision::Made => self.node(place, &rel),
            Decision::Tunable(id) => Ok(NodeId::view(place.slot, id)),
        }
    }

    /// Returns what a directory holds.
    ///
    /// # Errors
    /// ENOENT; EAGAIN when the daemon does not answer.
    pub(super) fn entries(&self, place: &Place) -> Result<Vec<DirEntry>, Errno> {
        let cx = self.renderer.context(&place.container, NEEDS);
        let names = place
            .directory
            .names(&cx, &place.rel)
            .map_err(|error| place.failed(&error))?;
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            let rel = join(&place.rel, &name);
            let kind = match place.decide(&cx, &rel)? {
                Decision::Hidden => continue,
                Decision::View { .. } => Kind::File,
                Decision::Link(_) => Kind::Symlink,
                Decision::Made => Kind::Directory,
                Decision::Tunable(id) => {
                    let id = NodeId::view(place.slot, id);
                    entries.push(DirEntry::new(id, Kind::File, name));
                    continue;
                }
                Decision::Namespaced(_) if place.is_way() => Kind::File,
                // The container's network namespace lists those.
                Decision::Namespaced(_) => continue,
                // The file may have gone since it was listed.
                Decision::Passthrough(host) => match self.host_stat(&host) {
                    Ok(stat) => stat.kind,
                    Err(_) => continue,
                },
            };
            let id = self.listed_node(place, &rel)?;
            entries.push(DirEntry {
                ino: self.inode(place, &rel, id),
                ..DirEntry::new(id, kind, name)
            });
        }
        if let Some(path) = self.namespaced(place)? {
            for (name, kind) in self.network.entries(place.slot, &path)? {
                // A computed entry takes the place of the kernel's.
                let rel = join(&place.rel, &name);
                if let Decision::Namespaced(_) = place.decide(&cx, &rel)? {
                    let id = self.listed_node(place, &rel)?;
                    entries.push(DirEntry::new(id, kind, name));
                }
            }
        }
        Ok(entries)
    }

    /// Returns the attributes of a place. Without `measure`, no file of the host is read to know its size.
    ///
    /// A computed file always has its size: the kernel takes it from any answer, also from one to somebody else's
    /// lookup, and a sendfile(2) that is under way stops there.
    pub(super) fn attr(&self, id: NodeId, place: &Place, measure: bool) -> Result<Attr, Errno> {
        let cx = self.renderer.context(&place.container, NEEDS);
        let (mut uid, mut gid) = (place.container.uid, place.container.gid);
        let (kind, mode, size) = match place.decide(&cx, &place.rel)? {
            Decision::Hidden | Decision::Tunable(_) => return Err(Errno::NOENT),
            Decision::Made => (Kind::Directory, place.directory.facts().mode, 0),
            // The daemon walks to the graft when it attaches; it is not asked about that.
            Decision::Namespaced(_) if place.rel.is_empty() => {
                (Kind::Directory, place.directory.facts().mode, 0)
            }
            Decision::Namespaced(_) if place.is_way() && !measure => (Kind::File, 0, 0),
            Decision::Namespaced(path) => {
                let stat = self.network.stat(place.slot, &path)?;
                (uid, gid) = (stat.uid, stat.gid);
                let size = match stat.kind {
                    Kind::File if measure => measured(self.content(place)),
                    _ => 0,
                };
                (stat.kind, stat.mode, size)
            }
            Decision::Link(target) => (Kind::Symlink, 0o777, target.len() as u64),
            Decision::View { mode, .. } => {
                (Kind::File, mode, self.content(place)?.text.len() as u64)
            }
            Decision::Passthrough(host) => {
                let stat = self.host_stat(&host)?;
                let mode = if place.rel.is_empty() {
                    place.directory.facts().mode
                } else {
                    stat.mode
                };
                // A file of no size would be an empty one to sendfile(2).
                let size = match (stat.kind, stat.size) {
                    (Kind::File, 0) if measure => measured(self.content(place)),
                    (_, size) => size,
                };
                (stat.kind, mode, size)
            }
        };
        Ok(Attr {
            id,
            ino: self.inode(place, &place.rel, id),
            kind,
            size,
            mode,
            uid,
            gid,
            mtime: SystemTime::now(),
        })
    }

    /// Returns the content of a file.
    ///
    /// # Errors
    /// ENOENT; EISDIR; EINVAL for a link; EIO when the file cannot be computed; the kernel's when it cannot be opened.
    pub(super) fn content(&self, place: &Place) -> Result<Content, Errno> {
        let cx = self.renderer.context(&place.container, NEEDS);
        match place.decide(&cx, &place.rel)? {
            Decision::Hidden | Decision::Tunable(_) => Err(Errno::NOENT),
            Decision::Link(_) => Err(Errno(libc::EINVAL)),
            Decision::Made => Err(Errno::ISDIR),
            Decision::Namespaced(path) => {
                let mut content = self.network.content(place.slot, &path)?;
                content.text = place
                    .directory
                    .to_container(&cx, content.text.to_vec())
                    .into();
                Ok(content)
            }
            Decision::View { .. } => {
                let mut text = Vec::new();
                place
                    .directory
                    .render(&cx, &place.rel, &mut text)
                    .map_err(|error| place.failed(&error))?;
                Ok(text.into())
            }
            Decision::Passthrough(host) => self.pass(&host),
        }
    }

    /// Returns the content of a file of the host.
    fn pass(&self, path: &str) -> Result<Content, Errno> {
        use rustix::io::Errno as Kernels;
        let failed = |errno: Kernels| Errno(errno.raw_os_error());
        match self.host.open_flags(path, OFlags::RDONLY) {
            Ok(file) => read_whole(file),
            // The kernel lets root open some that only root may read. Who asked may, by the attributes of the file.
            Err(Kernels::ACCESS) => {
                let text = self.host.read_as_root(path).map_err(failed)?;
                Ok(Content::from(text))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Opens a file for reading. [`Self::check_open`] comes before.
    ///
    /// # Errors
    /// As [`Self::content`]; ENFILE when the container has too many files open.
    pub(super) fn open(
        &self,
        id: NodeId,
        place: &Place,
        request: Request,
    ) -> Result<Handle, Errno> {
        self.snapshots
            .open(id, &place.container, request, || self.content(place))
    }

    /// Returns the target of a symbolic link.
    ///
    /// # Errors
    /// EINVAL for what is no link; ENOENT.
    pub(super) fn read_link(&self, place: &Place) -> Result<Vec<u8>, Errno> {
        let cx = self.renderer.context(&place.container, NEEDS);
        match place.decide(&cx, &place.rel)? {
            Decision::Link(target) => Ok(target.into_bytes()),
            Decision::Passthrough(host) => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW;
                let fd = self
                    .host
                    .open_flags(&host, flags)
                    .map_err(|e| Errno(e.raw_os_error()))?;
                rustix::fs::readlinkat(&fd, "", Vec::new())
                    .map(std::ffi::CString::into_bytes)
                    .map_err(|e| Errno(e.raw_os_error()))
            }
            _ => Err(Errno(libc::EINVAL)),
        }
    }

    fn host_stat(&self, path: &str) -> Result<Stat, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let fd = self
            .host
            .open_flags(path, flags)
            .map_err(|e| Errno(e.raw_os_error()))?;
        Stat::of(&fd)
    }
}

/// Returns the size of a file whose content is measured; 0 for one that cannot be read.
fn measured(content: Result<Content, Errno>) -> u64 {
    content.map_or(0, |content| content.text.len() as u64)
}
