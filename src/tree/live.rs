//! The live connection: a snapshot an open, direct I/O.
//!
//! The size that a GETATTR measured is the size of what the OPEN right after it serves, because sendfile(2)
//! stops at the size that the kernel was told (design, "sendfile(2) and splice(2)").

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use eci_fs_emulators::EMULATORS;
use eci_fs_mountd::protocol::link::Resource;
use parking_lot::Mutex;

use super::{Attr, MAX_HANDLES, Node, NodeId, Tree};
use crate::container::Attached;
use crate::error::Errno;
use crate::triggers::{Done, Polled, Waker};

/// How long an OPEN may come after the GETATTR that belongs to it: the time of a system call, and of a process that
/// is not scheduled in the middle of it.
const MEASURED_FOR_OPEN: Duration = Duration::from_millis(50);

/// The number of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle(pub u64);

#[derive(Debug, Default)]
pub(super) struct Handles {
    open: DashMap<Handle, Arc<Snapshot>>,
    last: AtomicU64,
}

#[derive(Debug)]
struct Snapshot {
    id: NodeId,
    text: Mutex<Text>,
}

#[derive(Debug)]
struct Text {
    bytes: Arc<[u8]>,
    /// Whether something was read: a read at the beginning is then a rewind, and wants the present.
    read: bool,
}

impl Handles {
    /// Forget what a container had open.
    pub(super) fn remove_slot(&self, slot: u64) {
        self.open.retain(|_, snapshot| snapshot.id.slot() != slot);
    }

    /// What is read by this one from now on.
    pub(super) fn rewrite(&self, handle: Handle, bytes: &[u8]) {
        if let Some(snapshot) = self.open.get(&handle).map(|open| Arc::clone(&open)) {
            *snapshot.text.lock() = Text {
                bytes: bytes.into(),
                read: true,
            };
        }
    }
}

impl Tree {
    /// The attributes of a node on the live connection. Those of files are never believed for any time.
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
    pub fn live_open(&self, id: NodeId) -> Result<Handle, Errno> {
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
        let text = Mutex::new(Text { bytes, read: false });
        self.handles
            .open
            .insert(handle, Arc::new(Snapshot { id, text }));
        Ok(handle)
    }

    /// The bytes that a read at `offset` of an open file is served from.
    ///
    /// # Errors
    /// As [`Self::live_open`].
    pub fn live_read(&self, id: NodeId, handle: Handle, offset: u64) -> Result<Arc<[u8]>, Errno> {
        let open = self
            .handles
            .open
            .get(&handle)
            .map(|s| Arc::clone(&s))
            .filter(|s| s.id == id);
        let Some(snapshot) = open else {
            // Opened at a server that is dead: its snapshot is lost, the present is the best there is.
            let bytes = self.present(id)?;
            let text = Mutex::new(Text {
                bytes: Arc::clone(&bytes),
                read: true,
            });
            self.handles.last.fetch_max(handle.0, Ordering::Relaxed);
            self.handles
                .open
                .insert(handle, Arc::new(Snapshot { id, text }));
            return Ok(bytes);
        };
        let rewound = offset == 0 && snapshot.text.lock().read;
        let fresh = if rewound {
            Some(self.present(id)?)
        } else {
            None
        };
        let mut text = snapshot.text.lock();
        text.read = true;
        if let Some(fresh) = fresh {
            text.bytes = fresh;
        }
        Ok(Arc::clone(&text.bytes))
    }

    /// What a file says now.
    fn present(&self, id: NodeId) -> Result<Arc<[u8]>, Errno> {
        if let Some(place) = self.place(id)? {
            return self.place_text(&place).map(Arc::from);
        }
        let (container, index) = self.view(id)?;
        self.render(&container, index).map(Arc::from)
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
    pub fn live_write(&self, id: NodeId, handle: Handle, bytes: &[u8], done: Done) {
        let known = self.view(id).map(|(_, index)| index);
        let resource = known.map(|index| Resource::of_view(EMULATORS[index].facts().path));
        match (resource, &self.services) {
            (Err(errno), _) => done(Err(errno)),
            (Ok(Some(resource)), Some(services)) => {
                services
                    .triggers
                    .arm(id.slot(), handle, resource, bytes, done)
            }
            _ => done(Err(Errno::IO)),
        }
    }

    /// What poll(2) is told of an open view; `waker` is called when that changes. None for a view that is ready
    /// at all times, as files of procfs are.
    pub fn live_poll(&self, id: NodeId, handle: Handle, waker: Option<Waker>) -> Option<Polled> {
        let (_, index) = self.view(id).ok()?;
        Resource::of_view(EMULATORS[index].facts().path)?;
        Some(self.services.as_ref()?.triggers.poll(handle, waker))
    }

    /// Forget an open view.
    pub fn live_release(&self, id: NodeId, handle: Handle) {
        if let Some(services) = &self.services {
            services.triggers.disarm(handle);
        }
        if self.handles.open.remove(&handle).is_some()
            && let Ok(container) = self.container(id.slot())
        {
            container.count_handle(-1, MAX_HANDLES);
        }
    }
}
