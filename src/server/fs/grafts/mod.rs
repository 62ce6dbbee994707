//! Directory grafts: directories of the kernel whose listing depends on the container, on the live connection.
//!
//! An emulator decides about each path below such a directory: it is hidden, computed, a link, or the kernel's own
//! file, which is then read here, from the host, and never written; or it is the kernel's own of the container's network
//! namespace (`network.rs`). A node id holds the number of a path (`nodes.rs`). A path whose number is not known any more is
//! found again by walking.

mod network;
mod nodes;
mod passthrough;
mod place;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eci_fs_emulators::EMULATORS;
use eci_fs_emulators::directory::NEEDS;
use eci_fs_emulators::{DIRECTORIES, Decision, Directory, Host};

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
use crate::server::ids::{Handle, Known, Node, NodeId, Owner, Request};
use network::NetworkFiles;
use nodes::Nodes;
use passthrough::Passthrough;
pub(super) use place::Place;
use place::{covering, join, owner_of, split};

/// The directory grafts of all containers.
#[derive(Debug)]
pub(super) struct DirectoryGrafts {
    renderer: Arc<Renderer>,
    containers: Arc<Containers>,
    snapshots: Arc<Snapshots>,
    permissions: Arc<Permissions>,
    nodes: Nodes,
    passthrough: Passthrough,
    network: NetworkFiles,
    /// Stands for the container that is going to be in a prepared slot.
    nobody: Arc<Attached>,
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
            renderer,
            containers,
            snapshots,
            permissions,
            nodes: Nodes::new(persistence),
            passthrough: Passthrough::new(host),
            network: NetworkFiles::new(broker),
            nobody: Arc::new(Attached::unlimited()),
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
        let (known, rel) = self.nodes.of_host(number).ok_or(Errno::NOENT)?;
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
        let above = split(&place.rel).map(|(above, _)| self.nodes.node(place, above));
        above.transpose()
    }

    /// Learns the number of a path of the host that a server before this one has given out.
    pub(super) fn learn(&self, number: u64, directory: u16, path: &str) {
        self.nodes.learn(number, directory, path);
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
                let known = match self.nodes.known(owner, &container, number) {
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
                    self.nodes.node(&place, &path)?;
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
                self.passthrough.stat(&host)?;
                self.nodes.node(place, &rel)
            }
            // The daemon walks to a single file when it attaches; it is not asked about that.
            Decision::Namespaced(_) if place.is_way() => self.nodes.node(place, &rel),
            Decision::Namespaced(path) => {
                self.network.stat(place.slot, &path)?;
                self.nodes.node(place, &rel)
            }
            Decision::View { .. } | Decision::Link(_) | Decision::Made => {
                self.nodes.node(place, &rel)
            }
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
                Decision::Passthrough(host) => match self.passthrough.stat(&host) {
                    Ok(stat) => stat.kind,
                    Err(_) => continue,
                },
            };
            let id = self.nodes.listed(place, &rel)?;
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
                    let id = self.nodes.listed(place, &rel)?;
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
                let stat = self.passthrough.stat(&host)?;
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
            Decision::Passthrough(host) => self.passthrough.content(&host),
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
            Decision::Passthrough(host) => self.passthrough.link(&host),
            _ => Err(Errno(libc::EINVAL)),
        }
    }
}

/// Returns the size of a file whose content is measured; 0 for one that cannot be read.
fn measured(content: Result<Content, Errno>) -> u64 {
    content.map_or(0, |content| content.text.len() as u64)
}
