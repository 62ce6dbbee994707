//! The open files of the live connection: each has a snapshot of the text that it shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dashmap::{DashMap, Entry};
use parking_lot::Mutex;

use super::containers::Containers;
use super::content::Content;
use super::permission::Caller;
use super::persistence::{Persistence, READ_WITHIN};
use crate::server::container::Attached;
use crate::server::error::Errno;
use crate::server::faults::{self, Point};
use crate::server::ids::{Handle, NodeId, Request};
use crate::server::{clock, state};

/// The number of open snapshots that one container may have. More are refused, so that no container can fill the
/// server's memory.
pub(super) const MAX_SNAPSHOTS: usize = 16_384;

/// The way in which a file was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// With a snapshot, or with nothing to read, and direct I/O.
    Direct(Handle),
    /// Through the page cache.
    Paged {
        /// True if the page cache holds the present text. If not, the kernel drops what it holds.
        keep: bool,
    },
}

impl Opened {
    /// Returns the number of the open file that the kernel is given.
    pub fn handle(self) -> Handle {
        match self {
            Self::Direct(handle) => handle,
            Self::Paged { .. } => Handle::PAGED,
        }
    }
}

/// A write(2).
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// The thread that writes.
    pub caller: Caller,
    /// The flags of the open file.
    pub flags: i32,
    /// The offset in bytes.
    pub offset: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl Write<'_> {
    /// Returns the offset as the kernel takes it: its files in /proc/sys have no size, so their end is their beginning.
    pub(super) fn offset(&self) -> u64 {
        match self.flags & libc::O_APPEND {
            0 => self.offset,
            _ => 0,
        }
    }
}

/// Returns the permission bits that an OPEN with `flags` wants.
pub(super) fn wanted(flags: i32) -> u16 {
    match flags & libc::O_ACCMODE {
        libc::O_RDONLY => 4,
        libc::O_WRONLY => 2,
        _ => 6,
    }
}

/// The snapshots of all open files.
#[derive(Debug)]
pub(super) struct Snapshots {
    containers: Arc<Containers>,
    persistence: Persistence,
    open: DashMap<Handle, Arc<Snapshot>>,
    /// The files that a server before this one opened, by the requests for it. The kernel may not have heard its answers.
    former: DashMap<u64, Handle>,
    last: AtomicU64,
}

#[derive(Debug)]
struct Snapshot {
    id: NodeId,
    request: u64,
    text: Mutex<Text>,
}

#[derive(Debug)]
struct Text {
    content: Content,
    /// The time of the first read. From then on a read at the beginning is a rewind, and wants the present. A file of a
    /// server before this one may have been read or not; it counts as read some time after it was opened.
    read: Option<Instant>,
}

impl Text {
    /// Returns whether a read at the beginning is a rewind.
    fn is_read(&self) -> bool {
        self.read.is_some_and(|since| since <= Instant::now())
    }
}

impl Snapshot {
    fn new(id: NodeId, request: u64, content: Content, read: Option<Instant>) -> Arc<Self> {
        let text = Mutex::new(Text { content, read });
        Arc::new(Self { id, request, text })
    }
}

impl Snapshots {
    /// Makes the table, with no file open.
    pub(super) fn new(containers: Arc<Containers>, persistence: Persistence) -> Self {
        Self {
            containers,
            persistence,
            open: DashMap::new(),
            former: DashMap::new(),
            last: AtomicU64::new(0),
        }
    }

    /// Opens a file of a container with the content that `content` returns.
    ///
    /// # Errors
    /// The errors of `content`; ENFILE when the container has too many files open.
    pub(super) fn open(
        &self,
        id: NodeId,
        container: &Attached,
        request: Request,
        content: impl FnOnce() -> Result<Content, Errno>,
    ) -> Result<Handle, Errno> {
        if let Some(handle) = self.reopened(id, request) {
            return Ok(handle);
        }
        let content = content()?;
        if !container.count_snapshot(1, MAX_SNAPSHOTS) {
            return Err(Errno::NFILE);
        }
        let handle = Handle(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        self.persist(handle, id, request.number, &content, false);
        let snapshot = Snapshot::new(id, request.number, content, None);
        self.open.insert(handle, snapshot);
        faults::at(Point::Open);
        Ok(handle)
    }

    /// Returns the file that a server before this one opened for a request that the kernel sends again.
    fn reopened(&self, id: NodeId, request: Request) -> Option<Handle> {
        if !request.again {
            return None;
        }
        let handle = *self.former.get(&request.number)?;
        let snapshot = self.open.get(&handle)?;
        (snapshot.id == id).then_some(handle)
    }

    /// Returns the size of the text of an open file; none when `handle` is no open file of this node.
    pub(super) fn size(&self, id: NodeId, handle: Handle) -> Option<usize> {
        let snapshot = self.get(handle).filter(|snapshot| snapshot.id == id)?;
        let size = snapshot.text.lock().content.text.len();
        Some(size)
    }

    /// Returns whether a read at `offset` of an open file is answered from its snapshot: it is no rewind.
    pub(super) fn is_stored(&self, id: NodeId, handle: Handle, offset: u64) -> bool {
        let open = self.open.get(&handle);
        open.is_some_and(|snapshot| {
            snapshot.id == id && (offset != 0 || !snapshot.text.lock().is_read())
        })
    }

    /// Returns the bytes that a read at `offset` of an open file is served from. `present` returns the present content.
    ///
    /// # Errors
    /// The errors of `present`, and that of the content; ENOENT when the container is gone.
    pub(super) fn read(
        &self,
        id: NodeId,
        handle: Handle,
        offset: u64,
        present: impl FnOnce() -> Result<Content, Errno>,
    ) -> Result<Arc<[u8]>, Errno> {
        let open = self.get(handle).filter(|snapshot| snapshot.id == id);
        let Some(snapshot) = open else {
            return self.read_unknown(id, handle, offset, present);
        };
        let rewound = offset == 0 && snapshot.text.lock().is_read();
        let fresh = if rewound { Some(present()?) } else { None };
        let mut text = snapshot.text.lock();
        if !text.is_read() {
            text.read = Some(Instant::now());
        }
        if let Some(fresh) = fresh {
            self.persist(handle, id, snapshot.request, &fresh, true);
            text.content = fresh;
        }
        text.content.at(offset)
    }

    /// Reads a file that was opened at a server that is dead, and did not fit into the state. Its snapshot is lost, and the
    /// present text is the best there is.
    fn read_unknown(
        &self,
        id: NodeId,
        handle: Handle,
        offset: u64,
        present: impl FnOnce() -> Result<Content, Errno>,
    ) -> Result<Arc<[u8]>, Errno> {
        let content = present()?;
        let container = self.containers.get(id.slot())?;
        match self.open.entry(handle) {
            // Another read of the file was faster.
            Entry::Occupied(open) if open.get().id == id => {
                return open.get().text.lock().content.at(offset);
            }
            // The number was never given to this file.
            Entry::Occupied(_) => return content.at(offset),
            Entry::Vacant(vacant) => {
                vacant.insert(Snapshot::new(id, 0, content.clone(), Some(Instant::now())));
            }
        }
        container.count_snapshot(1, usize::MAX);
        self.persist(handle, id, 0, &content, true);
        content.at(offset)
    }

    /// Makes `content` what an open file shows from now on.
    pub(super) fn rewrite(&self, handle: Handle, content: Content) {
        if handle == Handle::NONE {
            return;
        }
        if let Some(snapshot) = self.get(handle) {
            let mut text = snapshot.text.lock();
            self.persist(handle, snapshot.id, snapshot.request, &content, true);
            *text = Text {
                content,
                read: Some(Instant::now()),
            };
        }
    }

    /// Closes an open file.
    pub(super) fn release(&self, id: NodeId, handle: Handle) {
        let Some((_, snapshot)) = self.open.remove(&handle) else {
            return;
        };
        self.former.remove(&snapshot.request);
        self.persistence.forget(state::Key::Snapshot(handle.0));
        if let Ok(container) = self.containers.get(id.slot()) {
            container.count_snapshot(-1, MAX_SNAPSHOTS);
        }
    }

    /// Forgets the open files of a container.
    pub(super) fn remove_slot(&self, slot: u64) {
        self.open.retain(|_, snapshot| snapshot.id.slot() != slot);
        self.former
            .retain(|_, handle| self.open.contains_key(handle));
    }

    /// Gives out numbers above this one.
    pub(super) fn begin_at(&self, number: u64) {
        self.last.fetch_max(number, Ordering::Relaxed);
    }

    /// Forgets all open files.
    pub(super) fn close_all(&self) {
        self.former.clear();
        self.open.retain(|_, snapshot| {
            if let Ok(container) = self.containers.get(snapshot.id.slot()) {
                container.count_snapshot(-1, MAX_SNAPSHOTS);
            }
            false
        });
    }

    /// Writes down which open files have been read, for a server that takes the place of this one in an upgrade: that one
    /// need not guess. This is not done at each first read, because that would be another write to the state for each
    /// OPEN.
    pub(super) fn persist_read(&self) {
        for open in &self.open {
            let (handle, snapshot) = open.pair();
            let text = snapshot.text.lock();
            if text.is_read() {
                let (id, request) = (snapshot.id, snapshot.request);
                self.persist(*handle, id, request, &text.content, true);
            }
        }
    }

    /// Takes over a file that a server before this one had open.
    pub(super) fn restore(&self, container: &Attached, former: state::Snapshot, bytes: Arc<[u8]>) {
        let (id, handle) = (NodeId::from_raw(former.node), Handle(former.handle));
        let taken = clock::from_nsec(former.taken_nsec).unwrap_or_else(Instant::now);
        let read = Some(taken + READ_WITHIN);
        let snapshot = Snapshot::new(id, former.request, bytes.into(), read);
        if self.open.insert(handle, snapshot).is_none() {
            container.count_snapshot(1, usize::MAX);
        }
        self.former.insert(former.request, handle);
    }

    /// Writes the content of an open file to the state. One that fails is not written: the next server reads it again.
    fn persist(&self, handle: Handle, id: NodeId, request: u64, content: &Content, is_read: bool) {
        if content.failure.is_some() {
            return self.persistence.forget(state::Key::Snapshot(handle.0));
        }
        let text = &content.text;
        self.persistence
            .put_snapshot(handle.0, id, request, text, is_read);
    }

    fn get(&self, handle: Handle) -> Option<Arc<Snapshot>> {
        self.open.get(&handle).map(|snapshot| Arc::clone(&snapshot))
    }
}
