//! The operations of the file system: what a node is, and which part has it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eci_fs_emulators::{EMULATORS, Tunable};
use eci_fs_protocol::link::Connection;

use super::FileSystem;
use crate::server::error::Errno;
use crate::server::fs::attr::{Attr, DirEntry, Kind, Listing};
use crate::server::fs::containers::View;
use crate::server::fs::content::Content;
use crate::server::fs::directories::{DIRECTORY_TIMEOUT, PreparedSlots};
use crate::server::fs::grafts::Place;
use crate::server::fs::permission::Caller;
use crate::server::fs::request::Reply;
use crate::server::fs::snapshots::{Opened, Write};
use crate::server::ids::{Handle, Node, NodeId, Request};
use crate::server::psi::Polled;

/// A node, as far as the parts tell them apart.
pub(super) enum Target {
    /// A directory on the way to the views.
    Directory,
    /// A view or a tunable.
    View(View),
    /// A directory graft, or what lies below one.
    Graft(Place),
}

impl FileSystem {
    /// Returns the node named `name` in the directory `parent` of a connection.
    ///
    /// # Errors
    /// ENOENT; ENOTDIR when `parent` is a file.
    pub fn find(
        &self,
        connection: Connection,
        parent: NodeId,
        name: &str,
    ) -> Result<NodeId, Errno> {
        match parent.node() {
            Node::Root => self.directories.lookup_slot(name),
            Node::Directory { slot, directory } => {
                let found = self.directories.lookup(connection, slot, directory, name);
                match connection {
                    Connection::Live => found.or_else(|errno| {
                        let above = self.by_file(slot, directory)?.ok_or(errno)?;
                        self.grafts.lookup(&above, name)
                    }),
                    Connection::Cached => found,
                }
            }
            Node::View { .. } | Node::Below { .. } => match self.place(parent)? {
                Some(place) => self.grafts.lookup(&place, name),
                None => Err(Errno::NOTDIR),
            },
        }
    }

    /// Returns the place of a directory on the way, if an emulator of single files decides about its other names.
    fn by_file(&self, slot: u64, directory: u32) -> Result<Option<Place>, Errno> {
        let Some((directory, rel)) = self.directories.by_file(directory) else {
            return Ok(None);
        };
        match self.directories.is_prepared(slot) {
            true => Ok(Some(self.grafts.prepared(slot, directory, rel))),
            false => self.grafts.by_file(slot, directory, rel),
        }
    }

    /// Returns the place that a node names, also in a prepared slot; none for a node that is neither a directory graft
    /// nor below one.
    fn place(&self, id: NodeId) -> Result<Option<Place>, Errno> {
        match self.directories.is_prepared(id.slot()) {
            true => self.grafts.prepared_place(id),
            false => self.grafts.place(id),
        }
    }

    /// Returns what a lookup tells of a node, and for how long the kernel may believe the name. The kernel asks for the
    /// attributes again when it needs them, so those of a view that was never read have no size and no time, and an attach
    /// computes no view.
    ///
    /// # Errors
    /// ENOENT when the node is gone.
    pub fn entry(&self, id: NodeId) -> Result<(Attr, Duration), Errno> {
        if self.directories.is_prepared(id.slot()) {
            let place = self.grafts.prepared_place(id)?;
            let kind = place.map(|place| self.grafts.kind(&place)).transpose()?;
            return PreparedSlots::entry(id, kind);
        }
        match self.target(id)? {
            Target::Directory => Ok((self.directories.attr(id)?, DIRECTORY_TIMEOUT)),
            Target::View(view) => {
                // The size is that which was announced last: the kernel believes it, also for a reader who is in the
                // middle of the view.
                let (size, mtime) = view
                    .container
                    .version(view.index)
                    .map_or((0, SystemTime::UNIX_EPOCH), |version| {
                        (version.size, version.mtime)
                    });
                Ok((view.attr(size, mtime), Duration::ZERO))
            }
            Target::Graft(place) => {
                let attr = self.grafts.attr(id, &place, false)?;
                // The kernel believes neither the name nor the attributes of a file; but nobody sees those of a file that
                // is grafted over.
                let is_believed = attr.kind == Kind::Directory || self.grafts.is_covered(&place);
                let timeout = match is_believed {
                    true if place.is_way() => DIRECTORY_TIMEOUT,
                    true => self.grafts.directory_timeout(&place),
                    false => Duration::ZERO,
                };
                Ok((attr, timeout))
            }
        }
    }

    /// Returns the attributes of a node, and for how long the kernel may believe them. A GETATTR from a read carries the
    /// `handle` of an open file.
    ///
    /// # Errors
    /// ENOENT when the container is gone; EIO when the view cannot be computed.
    pub fn attr(
        &self,
        connection: Connection,
        id: NodeId,
        handle: Option<Handle>,
    ) -> Result<(Attr, Duration), Errno> {
        if connection == Connection::Cached {
            return match id.node() {
                Node::View { .. } => self
                    .cached
                    .attr(&self.containers.view(id)?, handle.is_some()),
                _ => Ok((self.directories.attr(id)?, DIRECTORY_TIMEOUT)),
            };
        }
        // The kernel asks for the attributes of each directory that the daemon walks through.
        if self.directories.is_prepared(id.slot())
            && let Node::Below { .. } = id.node()
        {
            return self.entry(id).and_then(|(attr, timeout)| match attr.kind {
                Kind::Directory => Ok((attr, timeout)),
                Kind::File | Kind::Symlink => Err(Errno::NOENT),
            });
        }
        match self.target(id)? {
            Target::Directory => Ok((self.directories.attr(id)?, DIRECTORY_TIMEOUT)),
            Target::View(view) => match view.tunable() {
                Some(_) => self.sysctls.attr(&view),
                None => Ok((self.live.attr(&view, handle)?, Duration::ZERO)),
            },
            Target::Graft(place) => {
                let attr = self.grafts.attr(id, &place, true)?;
                let timeout = match attr.kind {
                    Kind::Directory => self.grafts.directory_timeout(&place),
                    Kind::File | Kind::Symlink => Duration::ZERO,
                };
                Ok((attr, timeout))
            }
        }
    }

    /// Changes nothing, and returns the attributes. Shells open with O_TRUNC, which procfs takes and does nothing about.
    ///
    /// # Errors
    /// As [`Self::attr`]; EPERM with `is_access`, because neither the owner nor the permissions are a container's to
    /// change.
    pub fn set_attr(
        &self,
        connection: Connection,
        id: NodeId,
        handle: Option<Handle>,
        is_access: bool,
    ) -> Result<(Attr, Duration), Errno> {
        match is_access {
            true => Err(Errno(libc::EPERM)),
            false => self.attr(connection, id, handle),
        }
    }

    /// Returns the target of a symbolic link.
    ///
    /// # Errors
    /// EINVAL for what is no link; ENOENT.
    pub fn read_link(&self, id: NodeId) -> Result<Vec<u8>, Errno> {
        match self.grafts.place(id)? {
            Some(place) => self.grafts.read_link(&place),
            None => Err(Errno(libc::EINVAL)),
        }
    }

    /// Opens a file.
    ///
    /// # Errors
    /// ENOSYS on the cached connection: the kernel then stops sending OPEN and RELEASE there, for good. As
    /// [`Self::attr`]; EACCES; EISDIR; ENFILE when the container has too many open.
    pub fn open(
        &self,
        connection: Connection,
        id: NodeId,
        caller: Caller,
        flags: i32,
        request: Request,
    ) -> Result<Opened, Errno> {
        if connection == Connection::Cached {
            return Err(Errno::NOSYS);
        }
        match self.target(id)? {
            Target::Directory => Err(Errno::ISDIR),
            Target::View(view) => {
                if view.tunable().is_some()
                    && let Some(opened) = self.sysctls.open(&view, caller, flags)?
                {
                    return Ok(opened);
                }
                self.live.open(&view, request).map(Opened::Direct)
            }
            Target::Graft(place) => match self.grafts.check_open(&place, caller, flags)? {
                Some(opened) => Ok(opened),
                None => self.grafts.open(id, &place, request).map(Opened::Direct),
            },
        }
    }

    /// Returns the text that a read at `offset` of an open file is served from.
    ///
    /// # Errors
    /// As [`Self::attr`]; EISDIR; the kernel's for a file that it fails to read.
    pub fn read(
        &self,
        connection: Connection,
        id: NodeId,
        handle: Handle,
        offset: u64,
    ) -> Result<Arc<[u8]>, Errno> {
        if connection == Connection::Cached {
            return self.cached.read(&self.containers.view(id)?);
        }
        if handle == Handle::PAGED {
            return self.sysctls.read_paged(&self.sysctl(id)?);
        }
        self.snapshots
            .read(id, handle, offset, || match self.target(id)? {
                Target::Directory => Err(Errno::ISDIR),
                Target::View(view) => self.live.text(&view).map(Content::from),
                Target::Graft(place) => self.grafts.content(&place),
            })
    }

    /// Writes to an open file. The answer is the number of bytes that were taken; it may be sent by another thread.
    ///
    /// The errors are EROFS on the cached connection, ENOENT, EISDIR, EPERM for a caller who may not, EIO for what can
    /// only be read, and those of the kernel's handler.
    pub fn write(
        &self,
        connection: Connection,
        id: NodeId,
        handle: Handle,
        write: Write<'_>,
        request: Request,
        reply: impl Reply<usize>,
    ) {
        if connection == Connection::Cached {
            return reply.send(Err(Errno(libc::EROFS)));
        }
        match self.target(id) {
            Err(errno) => reply.send(Err(errno)),
            Ok(Target::Directory) => reply.send(Err(Errno::ISDIR)),
            Ok(Target::Graft(place)) => reply.send(self.grafts.write(&place, handle, write)),
            Ok(Target::View(view)) => match view.tunable() {
                Some(tunable) => {
                    self.write_sysctl(connection, &view, tunable, handle, write, reply);
                }
                None => {
                    let all = write.bytes.len();
                    let guard = self.in_flight.enter();
                    let done = move |result: Result<(), Errno>| {
                        reply.send(result.map(|()| all));
                        drop(guard);
                    };
                    self.live
                        .write(&view, handle, write.bytes, request, Box::new(done));
                }
            },
        }
    }

    /// Writes to a tunable. The kernel is told what it may not believe any more, and the daemon hears of what it may
    /// raise, before the write is answered.
    fn write_sysctl(
        &self,
        connection: Connection,
        view: &View,
        tunable: &Tunable,
        handle: Handle,
        write: Write<'_>,
        reply: impl Reply<usize>,
    ) {
        let written = match self.sysctls.write(view, tunable, handle, write) {
            Ok(written) => written,
            Err(errno) => return reply.send(Err(errno)),
        };
        if let Some(kernel) = &self.kernel {
            let own = written.is_distrusted.then_some(view.id);
            for id in own.into_iter().chain(written.cleared) {
                kernel.distrust(connection, id);
            }
        }
        match self.sysctls.raised_by(tunable) {
            Some(raised) if written.answer.is_ok() => {
                let guard = self.in_flight.enter();
                let answer = move || {
                    reply.send(written.answer);
                    drop(guard);
                };
                self.sysctls.report(view, raised, Box::new(answer));
            }
            _ => reply.send(written.answer),
        }
    }

    /// Returns the answer to poll(2) of an open file. The kernel is woken with the number `wake` when it changes.
    pub fn poll(
        &self,
        connection: Connection,
        id: NodeId,
        handle: Handle,
        wake: Option<u64>,
    ) -> Polled {
        if connection == Connection::Cached {
            return Polled::Quiet;
        }
        match self.containers.view(id) {
            Ok(view) => self.live.poll(&view, handle, wake),
            // A file that is no view is ready at all times.
            Err(_) => Polled::Quiet,
        }
    }

    /// Closes an open file.
    pub fn release(&self, id: NodeId, handle: Handle) {
        match handle {
            Handle::NONE => {}
            Handle::PAGED => {
                if let Ok(view) = self.sysctl(id) {
                    self.sysctls.close_paged(&view);
                }
            }
            _ => self.live.release(handle),
        }
    }

    /// Returns what a directory of a connection holds.
    ///
    /// # Errors
    /// ENOENT when its container is gone; ENOTDIR.
    pub fn entries(&self, connection: Connection, id: NodeId) -> Result<Listing, Errno> {
        match id.node() {
            // Nobody needs to know who else is there: the root is never grafted, but it costs nothing.
            Node::Root => Ok(Listing {
                own: id.inode(),
                parent: id.inode(),
                entries: Vec::new(),
            }),
            Node::Directory { slot, directory } => {
                let mut listing = self.directories.entries(connection, slot, directory)?;
                if connection == Connection::Live
                    && let Some(place) = self.by_file(slot, directory)?
                {
                    let more = self.grafts.entries(&place)?.into_iter();
                    let is_new =
                        |one: &DirEntry| listing.entries.iter().all(|other| other.name != one.name);
                    let more: Vec<DirEntry> = more.filter(is_new).collect();
                    listing.entries.extend(more);
                }
                Ok(listing)
            }
            Node::View { .. } | Node::Below { .. } => {
                let place = self.grafts.place(id)?.ok_or(Errno::NOTDIR)?;
                let entries = self.grafts.entries(&place)?;
                // The directories on the way to single files are in the layout as far as they lead to views too.
                let way = place
                    .above_on_way()
                    .and_then(|above| self.directories.way(id.slot(), place.graft(), above));
                let parent = match way {
                    Some(way) => Some(way),
                    None => self.grafts.parent(&place)?,
                };
                let parent = parent
                    .unwrap_or_else(|| self.directories.parent_of_graft(id.slot(), place.graft()));
                Ok(Listing {
                    own: id.inode(),
                    parent: parent.inode(),
                    entries,
                })
            }
        }
    }

    /// Returns the text of the view at `path` of the container in `slot`, whatever the connection.
    ///
    /// # Errors
    /// ENOENT when there is no such container or view; EIO when it cannot be computed.
    pub fn text(&self, slot: u64, path: &str) -> Result<Vec<u8>, Errno> {
        let container = self.containers.get(slot)?;
        let emulator = EMULATORS
            .iter()
            .find(|e| e.facts().path == path)
            .ok_or(Errno::NOENT)?;
        let index = container.index(emulator.facts().id)?;
        self.renderer.render(&container, index, <[u8]>::to_vec)
    }

    /// Returns what a node of the live connection is.
    pub(super) fn target(&self, id: NodeId) -> Result<Target, Errno> {
        Ok(match id.node() {
            Node::Root | Node::Directory { .. } => Target::Directory,
            Node::View { .. } | Node::Below { .. } => match self.grafts.place(id)? {
                Some(place) => Target::Graft(place),
                None => Target::View(self.containers.view(id)?),
            },
        })
    }

    /// Returns the view of a node that is a tunable, or EISDIR.
    fn sysctl(&self, id: NodeId) -> Result<View, Errno> {
        let view = self.containers.view(id)?;
        match view.tunable() {
            Some(_) => Ok(view),
            None => Err(Errno::ISDIR),
        }
    }
}
