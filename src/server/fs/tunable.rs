//! Tunables: how they are opened, and what is written to them. Who may is judged in [`super::caller`].

use std::time::Duration;

use eci_fs_emulators::tunable;
use eci_fs_emulators::tunable::Policy;

use super::caller::{Caller, Judge};
use super::{Attr, Kind, Opened, Tree};
use crate::server::error::Errno;
use crate::server::faults::{self, Point};
use crate::server::ids::{Handle, Node, NodeId};
use crate::server::state::Record;

/// A write(2).
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// Who writes.
    pub caller: Caller,
    /// The flags of the open file.
    pub flags: i32,
    /// Where.
    pub offset: u64,
    /// What.
    pub bytes: &'a [u8],
}

impl Write<'_> {
    /// Where the kernel takes it to be: its files in /proc/sys have no size, so that their end is their beginning.
    pub(super) fn offset(&self) -> u64 {
        match self.flags & libc::O_APPEND {
            0 => self.offset,
            _ => 0,
        }
    }
}

/// The permission bits that an OPEN with `flags` wants.
pub(super) fn wanted(flags: i32) -> u16 {
    match flags & libc::O_ACCMODE {
        libc::O_RDONLY => 4,
        libc::O_WRONLY => 2,
        _ => 6,
    }
}

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunableWritten {
    /// The bytes that were taken, or what the kernel's handler says.
    pub answer: Result<usize, Errno>,
    /// Whether the kernel would be wrong about the size, or about what it holds of the text. It must believe its
    /// attributes no more before it is answered.
    pub is_distrusted: bool,
}

impl Tree {
    /// Judge whether a file may be opened with `flags`, where that is not the kernel's to say. How, where that is all
    /// there is to an OPEN: who can only write or only read needs no snapshot.
    ///
    /// # Errors
    /// EACCES; ENOENT when the container is gone.
    pub fn tunable_open(
        &self,
        id: NodeId,
        caller: Caller,
        flags: i32,
    ) -> Result<Option<Opened>, Errno> {
        let Node::View { slot, emulator } = id.node() else {
            return match self.place(id)? {
                Some(place) => self.namespaced_open(&place, caller, flags),
                None => Ok(None),
            };
        };
        if tunable(emulator).is_none() {
            return Ok(None);
        }
        let container = self.container(slot)?;
        let wanted = wanted(flags);
        let allowed = self.allowed(&container, container.index(emulator)?, caller);
        if wanted & !allowed != 0 {
            return Err(Errno(libc::EACCES));
        }
        match wanted {
            2 => Ok(Some(Opened::Direct(Handle::NONE))),
            4 => self.paged_open(id),
            _ => Ok(None),
        }
    }

    /// How long the kernel may believe attributes that it was told of a node of the live connection.
    ///
    /// Those of tunables for a tick at most: an open then takes a request less. An OPEN in that time serves the text
    /// whose size the kernel knows, and a write that changes the size has them distrusted.
    pub fn live_timeout(&self, attr: &Attr) -> Duration {
        if attr.kind == Kind::Directory {
            return self.directory_timeout(attr.id);
        }
        let Node::View { slot, emulator } = attr.id.node() else {
            return Duration::ZERO;
        };
        let is_tunable = tunable(emulator).is_some();
        let Some(container) = self.container(slot).ok().filter(|_| is_tunable) else {
            return Duration::ZERO;
        };
        if let Ok(index) = container.index(emulator) {
            container.announce(index, attr.size);
        }
        self.freshness_of(&container).timeout.min(self.tick)
    }

    /// Write to a tunable; none when `id` is something else.
    ///
    /// # Errors
    /// EPERM for who may not, EIO when the value that it begins with cannot be read, and what the kernel's handler says.
    pub fn tunable_write(
        &self,
        id: NodeId,
        handle: Handle,
        write: Write<'_>,
    ) -> Option<Result<TunableWritten, Errno>> {
        match id.node() {
            Node::View { slot, emulator } if tunable(emulator).is_some() => {
                Some(self.written(slot, emulator, handle, write))
            }
            _ => None,
        }
    }

    fn written(
        &self,
        slot: u64,
        emulator: u16,
        handle: Handle,
        write: Write<'_>,
    ) -> Result<TunableWritten, Errno> {
        let container = self.container(slot)?;
        let index = container.index(emulator)?;
        let tunable = tunable(emulator).ok_or(Errno::NOENT)?;
        // Who writes need not be who opened (sysctl_perm in proc_sys_call_handler).
        let forbidden = self.allowed(&container, index, write.caller) & 2 == 0;
        // What may change the machine is judged anew each time.
        let judge = match tunable.policy {
            Policy::Raise(_) => Judge::Anew,
            _ => Judge::Remembered,
        };
        let lacks =
            |capability| !self.has_capability(&container, true, write.caller, capability, judge);
        if forbidden || tunable.capability.is_some_and(lacks) {
            return Err(Errno(libc::EPERM));
        }
        let cx = self.context(&container, tunable.needs_of_write(container.tunables()));
        let save = |value: &[u8]| {
            let record = || Record::Tunable {
                slot,
                emulator,
                value: value.to_vec(),
            };
            self.remember(record, &[]);
        };
        let written = match tunable.write(&cx, write.offset(), write.bytes, save) {
            Ok(written) => written,
            Err(error) => {
                tracing::error!(slot, path = tunable.path(), %error, "the machine's value cannot be read");
                return Err(Errno(error.errno()));
            }
        };
        if let Some(value) = &written.value {
            container.rewritten(index);
            self.rewrite(handle, value);
            faults::at(Point::Write);
        }
        let answer = written.answer.map_err(|errno| Errno(errno as i32));
        // The kernel makes the size what was written where that is more.
        let end = match &answer {
            Ok(bytes) => write.offset.saturating_add(*bytes as u64),
            Err(_) => 0,
        };
        let size = written.value.as_ref().map(|value| value.len() as u64);
        let is_resized = container.is_resized(index, size, end);
        // Who holds it open reads the new text, too.
        let is_held = written.value.is_some() && container.is_paged(index);
        Ok(TunableWritten {
            answer,
            is_distrusted: is_resized || is_held,
        })
    }
}

#[cfg(test)]
#[path = "tunable_tests.rs"]
mod tests;
