//! Sysctls: the tunables of a container, how they are opened, read and written.

mod paged;
mod raise;

use std::sync::Arc;
use std::time::Duration;

use eci_fs_emulators::Tunable;
use eci_fs_emulators::tunable::Policy;

use super::attr::Attr;
use super::containers::{Containers, View};
use super::permission::{Caller, Check, Permissions};
use super::persistence::Persistence;
use super::render::Renderer;
use super::snapshots::{Opened, Snapshots, Write, wanted};
use crate::server::container::Freshness;
use crate::server::error::Errno;
use crate::server::faults::{self, Point};
use crate::server::host_sysctls::HostSysctls;
use crate::server::ids::{Handle, NodeId};
use crate::server::state::Record;

/// The tunables of all containers.
#[derive(Debug)]
pub(super) struct Sysctls {
    renderer: Arc<Renderer>,
    containers: Arc<Containers>,
    snapshots: Arc<Snapshots>,
    permissions: Arc<Permissions>,
    persistence: Persistence,
    /// The way to the daemon, which raises sysctls of the host.
    host_sysctls: Option<HostSysctls>,
    /// The most that the kernel is told to believe attributes for.
    timeout: Duration,
}

/// The result of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    /// The number of bytes that were taken, or the error of the kernel's handler.
    pub(super) answer: Result<usize, Errno>,
    /// True if the kernel would be wrong about the size, or about the text that it holds. It must believe its attributes
    /// no more before it is answered.
    pub(super) is_distrusted: bool,
    /// The other tunable of a pair, which the write has made 0. The kernel must believe its attributes no more either.
    pub(super) cleared: Option<NodeId>,
}

impl Sysctls {
    /// Makes the part. The kernel is told to believe attributes for `tick` at most.
    pub(super) fn new(
        renderer: Arc<Renderer>,
        containers: Arc<Containers>,
        snapshots: Arc<Snapshots>,
        permissions: Arc<Permissions>,
        persistence: Persistence,
        host_sysctls: Option<HostSysctls>,
        tick: Duration,
    ) -> Self {
        Self {
            renderer,
            containers,
            snapshots,
            permissions,
            persistence,
            host_sysctls,
            timeout: Freshness::of(tick).timeout,
        }
    }

    /// Checks whether a tunable may be opened with `flags`, and opens it where that needs no snapshot: to write only, or
    /// to read only by way of the page cache.
    ///
    /// # Errors
    /// EACCES; EIO when the tunable cannot be computed.
    pub(super) fn open(
        &self,
        view: &View,
        caller: Caller,
        flags: i32,
    ) -> Result<Option<Opened>, Errno> {
        let wanted = wanted(flags);
        let allowed = self
            .permissions
            .allowed(&view.container, view.index, caller);
        if wanted & !allowed != 0 {
            return Err(Errno(libc::EACCES));
        }
        match wanted {
            2 => Ok(Some(Opened::Direct(Handle::NONE))),
            4 => self.open_paged(view),
            _ => Ok(None),
        }
    }

    /// Returns the attributes of a tunable, and for how long the kernel may believe them: for a tick at most. An open
    /// then takes a request less. An OPEN in that time serves the text whose size the kernel knows, and a write that
    /// changes the size has them distrusted.
    ///
    /// # Errors
    /// EIO when the tunable cannot be computed.
    pub(super) fn attr(&self, view: &View) -> Result<(Attr, Duration), Errno> {
        let version = self.present_version(view)?;
        let attr = view.attr(version.text.len(), version.mtime);
        view.container.announce(view.index, attr.size);
        let timeout = self.renderer.freshness(&view.container).timeout;
        Ok((attr, timeout.min(self.timeout)))
    }

    /// Writes to a tunable.
    ///
    /// # Errors
    /// EPERM for a caller who may not, EAGAIN when the daemon does not say who the caller is, EIO when the value that it begins with cannot be read.
    pub(super) fn write(
        &self,
        view: &View,
        tunable: &Tunable,
        handle: Handle,
        write: Write<'_>,
    ) -> Result<Written, Errno> {
        let View {
            container, index, ..
        } = view;
        let slot = view.id.slot();
        // The thread that writes need not be the one that opened (sysctl_perm in proc_sys_call_handler).
        let forbidden = self.permissions.allowed(container, *index, write.caller) & 2 == 0;
        // A write that may change the host is checked anew each time.
        let check = match tunable.policy {
            Policy::Raise(_) => Check::Anew,
            _ => Check::Cached,
        };
        let permissions = &self.permissions;
        let has_capability = |capability| {
            permissions.has_capability(container, true, write.caller, capability, check)
        };
        if forbidden || !tunable.capability.map_or(Ok(true), has_capability)? {
            return Err(Errno(libc::EPERM));
        }
        let needs = tunable.needs_of_write(container.tunables());
        let cx = self.renderer.context(container, needs);
        let save = |emulator, value: &[u8]| {
            let record = || Record::Tunable {
                slot,
                emulator,
                value: value.to_vec(),
            };
            self.persistence.put(record, &[]);
        };
        let written = match tunable.write(&cx, write.offset(), write.bytes, save) {
            Ok(written) => written,
            Err(error) => {
                tracing::error!(slot, path = tunable.path(), %error, "the host's value cannot be read");
                return Err(Errno(error.errno()));
            }
        };
        if let Some(value) = &written.value {
            container.rewritten(*index);
            self.snapshots.rewrite(handle, value.to_vec().into());
            faults::at(Point::Write);
        }
        let cleared = tunable.cleared_by(&written);
        if let Some(index) = cleared.and_then(|id| container.index(id).ok()) {
            container.rewritten(index);
            container.announce(index, 0);
        }
        let answer = written.answer.map_err(|errno| Errno(errno.raw_os_error()));
        // The kernel makes the size the end of the write where that is more.
        let end = match &answer {
            Ok(bytes) => write.offset.saturating_add(*bytes as u64),
            Err(_) => 0,
        };
        let size = written.value.as_ref().map(|value| value.len() as u64);
        let is_resized = container.is_resized(*index, size, end);
        // A reader that holds the tunable open reads the new text, too.
        let is_held = written.value.is_some() && container.is_paged(*index);
        Ok(Written {
            answer,
            is_distrusted: is_resized || is_held,
            cleared: cleared.map(|id| NodeId::view(slot, id)),
        })
    }
}
