//! The views of the live connection that are no tunables: a snapshot for each open file, direct I/O.
//!
//! The size that a GETATTR measured is the size of the text that the OPEN right after it serves, because sendfile(2)
//! stops at the size that the kernel was told (design, "sendfile(2) and splice(2)").

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eci_fs_emulators::{EMULATORS, PressureResource};
use eci_fs_protocol::link::Resource;

use super::attr::Attr;
use super::containers::View;
use super::render::Renderer;
use super::snapshots::Snapshots;
use crate::server::error::Errno;
use crate::server::ids::{Handle, NodeId, Request};
use crate::server::psi::{Done, Polled, Triggers};

/// An OPEN comes within this time after the GETATTR that belongs to it: the time of a system call, and of a process that
/// is not scheduled in the middle of it.
const MEASURED_FOR_OPEN: Duration = Duration::from_millis(50);

/// The views on the live connection.
#[derive(Debug)]
pub(super) struct LiveViews {
    renderer: Arc<Renderer>,
    snapshots: Arc<Snapshots>,
    /// The pressure triggers, where containers can set them.
    triggers: Option<Arc<Triggers>>,
}

impl LiveViews {
    /// Makes the part.
    pub(super) fn new(
        renderer: Arc<Renderer>,
        snapshots: Arc<Snapshots>,
        triggers: Option<Arc<Triggers>>,
    ) -> Self {
        Self {
            renderer,
            snapshots,
            triggers,
        }
    }

    /// Returns the attributes of a view; with `handle`, those of its text in that open file.
    ///
    /// # Errors
    /// EIO when the view cannot be computed.
    pub(super) fn attr(&self, view: &View, handle: Option<Handle>) -> Result<Attr, Errno> {
        let open = handle.and_then(|handle| self.snapshots.size(view.id, handle));
        let (size, mtime) = match open {
            Some(size) => (size, SystemTime::now()),
            None => {
                let version = self.renderer.renew(&view.container, view.index)?;
                (version.text.len(), version.mtime)
            }
        };
        Ok(view.attr(size, mtime))
    }

    /// Returns whether an open finds the text that a GETATTR measured just before.
    pub(super) fn is_measured(&self, view: &View) -> bool {
        let measured = view.container.take_measured(view.index, MEASURED_FOR_OPEN);
        measured.is_some()
    }

    /// Opens a view.
    ///
    /// # Errors
    /// As [`Self::attr`]; ENFILE when the container has too many files open.
    pub(super) fn open(&self, view: &View, request: Request) -> Result<Handle, Errno> {
        let View {
            id,
            container,
            index,
        } = view;
        self.snapshots.open(*id, container, request, || {
            // The text that the GETATTR just before measured, so that its size is the size of this.
            let text = match container.take_measured(*index, MEASURED_FOR_OPEN) {
                Some(text) => text,
                None => self.renderer.renew(container, *index)?.text,
            };
            Ok(text.into())
        })
    }

    /// Returns the present text of a view.
    ///
    /// # Errors
    /// EIO when it cannot be computed.
    pub(super) fn text(&self, view: &View) -> Result<Arc<[u8]>, Errno> {
        self.renderer
            .render(&view.container, view.index, |text| text.into())
    }

    /// Writes to an open view, and calls `done` when that is decided, perhaps on another thread.
    ///
    /// Containers can write pressure triggers, at any offset as the kernel has it, and nothing else.
    pub(super) fn write(
        &self,
        view: &View,
        handle: Handle,
        bytes: &[u8],
        request: Request,
        done: Done,
    ) {
        match (resource(view), &self.triggers) {
            (Some(resource), Some(triggers)) => {
                triggers.arm(view.id.slot(), handle, resource, bytes, request, done);
            }
            _ => done(Err(Errno::IO)),
        }
    }

    /// Returns the answer to poll(2) of an open view. The kernel is woken with the number `poll` when the answer changes.
    /// A view without triggers is ready at all times, as files of procfs are.
    pub(super) fn poll(&self, view: &View, handle: Handle, poll: Option<u64>) -> Polled {
        match (resource(view), &self.triggers) {
            (Some(_), Some(triggers)) => triggers.poll(handle, poll),
            _ => Polled::Quiet,
        }
    }

    /// Closes an open file, with its trigger if it has one.
    pub(super) fn release(&self, id: NodeId, handle: Handle) {
        if let Some(triggers) = &self.triggers {
            triggers.disarm(handle);
        }
        self.snapshots.release(id, handle);
    }
}

/// Returns the resource whose pressure a view shows, as the daemon is told it; none for other views.
fn resource(view: &View) -> Option<Resource> {
    Some(match EMULATORS[view.index].facts().pressure? {
        PressureResource::Cpu => Resource::Cpu,
        PressureResource::Memory => Resource::Memory,
        PressureResource::Io => Resource::Io,
        PressureResource::Irq => Resource::Irq,
    })
}
