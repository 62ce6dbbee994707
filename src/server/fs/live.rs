//! The live connection: a snapshot an open, direct I/O.
//!
//! The size that a GETATTR measured is the size of what the OPEN right after it serves, because sendfile(2)
//! stops at the size that the kernel was told (design, "sendfile(2) and splice(2)").

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::{DashMap, Entry};
use eci_fs_emulators::{EMULATORS, PressureResource};
use eci_fs_protocol::link::Resource;
use parking_lot::Mutex;

use super::remembered::READ_WITHIN;
use super::{Attr, MAX_HANDLES, Tree};
use crate::server::container::Attached;
use crate::server::error::Errno;
use crate::server::faults::{self, Point};
use crate::server::ids::{Handle, Node, NodeId, Request};
use crate::server::psi::{Done, Polled};
use crate::server::{clock, state};

/// How long an OPEN may come after the GETATTR that belongs to it: the time of a system call, and of a process that
/// is not scheduled in the middle of it.
const MEASURED_FOR_OPEN: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(super) struct Handles {
    open: DashMap<Handle, Arc<Snapshot>>,
    /// Those that a server before this one opened, by the requests for it. The kernel may not have heard its answers.
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
    bytes: Arc<[u8]>,
    /// Since when something was read: a read at the beginning is then a rewind, and wants the present. What a server
    /// before this one opened may have been read or not; it was, some time after it was opened.
    read: Option<Instant>,
}

impl Text {
    /// Whether a read at the beginning is a rewind.
    fn is_read(&self) -> bool {
        self.read.is_some_and(|since| since <= Instant::now())
    }
}

impl Snapshot {
    fn new(id: NodeId, request: u64, bytes: Arc<[u8]>, read: Option<Instant>) -> Arc<Self> {
        let text = Mutex::new(Text { bytes, read });
        Arc::new(Self { id, request, text })
    }
}

impl Handles {
    /// Forget what a container had open.
    pub(super) fn remove_slot(&self, slot: u64) {
        self.open.retain(|_, snapshot| snapshot.id.slot() != slot);
        self.former
            .retain(|_, handle| self.open.contains_key(handle));
    }

    /// Give out numbers above this one.
    pub(super) fn begin_at(&self, number: u64) {
        self.last.fetch_max(number, Ordering::Relaxed);
    }

    /// What a server before this one opened for a request that the kernel sends again.
    fn reopened(&self, id: NodeId, request: Request) -> Option<Handle> {
        if !request.again {
            return None;
        }
        let handle = *self.former.get(&request.number)?;
        let snapshot = self.open.get(&handle)?;
        (snapshot.id == id).then_some(handle)
    }
}

impl Tree {
    /// The attributes of a node on the live connection.
    ///
    /// # Errors
    /// ENOENT when the container is gone; EIO when the view cannot be computed.
    pub fn live_attr(&self, id: NodeId, handle: Option<Handle>) -> Result<Attr, Errno> {
        if let Some(place) = self.place(id)? {
            return self.place_attr(id, &place, true);
        }
        if !matches!(id.node(), Node::View { .. }) {
            return self.directory_attr(id);
        }
        let (container, index) = self.view(id)?;
        if EMULATORS[index].tunable().is_some() {
            let (size, mtime) = self.paged_attr(&container, index)?;
            return Ok(Attr::view(id, &container, index, size, mtime));
        }
        let open = handle.and_then(|handle| self.handles.open.get(&handle).map(|s| Arc::clone(&s)));
        let (size, mtime) = match open {
            Some(snapshot) if snapshot.id == id => (
                snapshot.text.lock().bytes.len(),
                std::time::SystemTime::now(),
            ),
            _ => {
                let version = self.renew(&container, index)?;
                (version.text.len(), version.mtime)
            }
        };
        Ok(Attr::view(id, &container, index, size, mtime))
    }

    /// Open a file on the live connection.
    ///
    /// # Errors
    /// As [`Self::live_attr`]; EISDIR; ENFILE when the container has too many open.
    pub fn live_open(&self, id: NodeId, request: Request) -> Result<Handle, Errno> {
        if let Some(handle) = self.handles.reopened(id, request) {
            return Ok(handle);
        }
        let (container, bytes) = match self.place(id)? {
            Some(place) => {
                let text = self.place_text(&place)?;
                (place.container, text.into())
            }
            None => {
                let (container, index) = self.view(id)?;
                // What the GETATTR just before measured, so that its size is the size of this.
                let text = match container.take_measured(index, MEASURED_FOR_OPEN) {
                    Some(text) => text,
                    None => self.renew(&container, index)?.text,
                };
                (container, text)
            }
        };
        if !container.count_handle(1, MAX_HANDLES) {
            return Err(Errno::NFILE);
        }
        let handle = Handle(self.handles.last.fetch_add(1, Ordering::Relaxed) + 1);
        self.remember_snapshot(handle.0, id, request.number, &bytes, false);
        let snapshot = Snapshot::new(id, request.number, bytes, None);
        self.handles.open.insert(handle, snapshot);
        faults::at(Point::Open);
        Ok(handle)
    }

    /// Know nothing of what is open any more.
    pub(super) fn close_all(&self) {
        self.handles.former.clear();
        self.handles.open.retain(|_, snapshot| {
            if let Ok(container) = self.container(snapshot.id.slot()) {
                container.count_handle(-1, MAX_HANDLES);
            }
            false
        });
    }

    /// Remember which open files have been read, for a server that takes the place of this one in an upgrade: it need not
    /// guess. It is not remembered at each first read, because that would be another write to the state for each OPEN.
    pub fn remember_read(&self) {
        for open in &self.handles.open {
            let (handle, snapshot) = open.pair();
            let text = snapshot.text.lock();
            if text.is_read() {
                let (id, request) = (snapshot.id, snapshot.request);
                self.remember_snapshot(handle.0, id, request, &text.bytes, true);
            }
        }
    }

    /// Have what a server before this one had opened.
    pub(super) fn restore_snapshot(
        &self,
        container: &Attached,
        former: state::Snapshot,
        bytes: Arc<[u8]>,
    ) {
        let (id, handle) = (NodeId::from_raw(former.node), Handle(former.handle));
        let taken = clock::from_nsec(former.taken_nsec).unwrap_or_else(Instant::now);
        let snapshot = Snapshot::new(id, former.request, bytes, Some(taken + READ_WITHIN));
        if self.handles.open.insert(handle, snapshot).is_none() {
            container.count_handle(1, usize::MAX);
        }
        self.handles.former.insert(former.request, handle);
    }

    /// The bytes that a read at `offset` of an open file is served from.
    ///
    /// # Errors
    /// As [`Self::live_open`].
    pub fn live_read(&self, id: NodeId, handle: Handle, offset: u64) -> Result<Arc<[u8]>, Errno> {
        if handle == Handle::PAGED {
            return self.paged_read(id);
        }
        let open = self
            .handles
            .open
            .get(&handle)
            .map(|s| Arc::clone(&s))
            .filter(|s| s.id == id);
        let Some(snapshot) = open else {
            return self.read_unknown(id, handle);
        };
        let rewound = offset == 0 && snapshot.text.lock().is_read();
        let fresh = if rewound {
            Some(self.present(id)?)
        } else {
            None
        };
        let mut text = snapshot.text.lock();
        if !text.is_read() {
            text.read = Some(Instant::now());
        }
        if let Some(fresh) = fresh {
            self.remember_snapshot(handle.0, id, snapshot.request, &fresh, true);
            text.bytes = fresh;
        }
        Ok(Arc::clone(&text.bytes))
    }

    /// What is read by an open file from now on.
    pub(super) fn rewrite(&self, handle: Handle, bytes: &[u8]) {
        if handle == Handle::NONE {
            return;
        }
        let open = self.handles.open.get(&handle).map(|open| Arc::clone(&open));
        if let Some(snapshot) = open {
            let mut text = snapshot.text.lock();
            self.remember_snapshot(handle.0, snapshot.id, snapshot.request, bytes, true);
            *text = Text {
                bytes: bytes.into(),
                read: Some(Instant::now()),
            };
        }
    }

    /// Read what was opened at a server that is dead, and did not fit into the state: its snapshot is lost, the present
    /// is the best there is.
    fn read_unknown(&self, id: NodeId, handle: Handle) -> Result<Arc<[u8]>, Errno> {
        let bytes = self.present(id)?;
        let container = self.container(id.slot())?;
        match self.handles.open.entry(handle) {
            // Another read of it was faster.
            Entry::Occupied(open) if open.get().id == id => {
                return Ok(Arc::clone(&open.get().text.lock().bytes));
            }
            // It is no number that was given to this file.
            Entry::Occupied(_) => return Ok(bytes),
            Entry::Vacant(vacant) => {
                vacant.insert(Snapshot::new(
                    id,
                    0,
                    Arc::clone(&bytes),
                    Some(Instant::now()),
                ));
            }
        }
        container.count_handle(1, usize::MAX);
        self.remember_snapshot(handle.0, id, 0, &bytes, true);
        Ok(bytes)
    }

    /// What a file says now.
    fn present(&self, id: NodeId) -> Result<Arc<[u8]>, Errno> {
        if let Some(place) = self.place(id)? {
            return self.place_text(&place).map(Arc::from);
        }
        let (container, index) = self.view(id)?;
        self.render(&container, index, |text| text.into())
    }

    /// The container and the emulator of a view.
    fn view(&self, id: NodeId) -> Result<(Arc<Attached>, usize), Errno> {
        let Node::View { slot, emulator } = id.node() else {
            return Err(Errno::ISDIR);
        };
        let container = self.container(slot)?;
        let index = container.index(emulator)?;
        Ok((container, index))
    }

    /// Write to an open view that is no tunable; `done` is called when that is decided, perhaps on another thread.
    ///
    /// Those are pressure triggers, which as the kernel has it are written at any offset.
    pub fn live_write(
        &self,
        id: NodeId,
        handle: Handle,
        bytes: &[u8],
        request: Request,
        done: Done,
    ) {
        let known = self.view(id).map(|(_, index)| index);
        let resource = known.map(|index| EMULATORS[index].facts().pressure);
        match (resource, &self.services) {
            (Err(errno), _) => done(Err(errno)),
            (Ok(Some(resource)), Some(services)) => {
                services
                    .triggers
                    .arm(id.slot(), handle, wire(resource), bytes, request, done)
            }
            _ => done(Err(Errno::IO)),
        }
    }

    /// What poll(2) is told of an open view; who has the number `poll` is woken when that changes. None for a view that
    /// is ready at all times, as files of procfs are.
    pub fn live_poll(&self, id: NodeId, handle: Handle, poll: Option<u64>) -> Option<Polled> {
        let (_, index) = self.view(id).ok()?;
        EMULATORS[index].facts().pressure?;
        Some(self.services.as_ref()?.triggers.poll(handle, poll))
    }

    /// Forget an open view.
    pub fn live_release(&self, id: NodeId, handle: Handle) {
        match handle {
            Handle::NONE => return,
            Handle::PAGED => return self.paged_release(id),
            _ => {}
        }
        if let Some(services) = &self.services {
            services.triggers.disarm(handle);
        }
        let Some((_, snapshot)) = self.handles.open.remove(&handle) else {
            return;
        };
        self.handles.former.remove(&snapshot.request);
        if let Some(services) = &self.services {
            services.state.forget(state::Key::Snapshot(handle.0));
        }
        if let Ok(container) = self.container(id.slot()) {
            container.count_handle(-1, MAX_HANDLES);
        }
    }
}

/// Returns the resource as the daemon is told it.
fn wire(resource: PressureResource) -> Resource {
    match resource {
        PressureResource::Cpu => Resource::Cpu,
        PressureResource::Memory => Resource::Memory,
        PressureResource::Io => Resource::Io,
        PressureResource::Irq => Resource::Irq,
    }
}
