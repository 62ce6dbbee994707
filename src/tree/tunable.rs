//! Tunables: who may open and write them, as the kernel would judge if the container's user namespace were the
//! machine's, and what is written.
//!
//! `default_permissions` has the kernel look at modes and owners, but it lets capabilities override them, which those
//! of /proc/sys do not (`test_perm`, fs/proc/proc_sysctl.c).

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use eci_fs_emulators::tunable;
use eci_fs_emulators::tunable::{Capability, Policy};
use rustix::process::Pid;
use rustix::thread::CapabilitySet;

use super::{Attr, Handle, Kind, Node, NodeId, Opened, Tree};
use crate::container::Attached;
use crate::error::Errno;
use crate::faults::{self, Point};
use crate::state::Record;

/// Who makes a request, by the machine's numbers.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its thread.
    pub pid: u32,
}

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
        // A limit that is written sends nothing to this connection.
        let believed = tunable(emulator).is_some_and(|it| it.policy != Policy::LimitedByPids);
        let Some(container) = self.container(slot).ok().filter(|_| believed) else {
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
        let lacks = |capability| !self.has_capability(&container, true, write.caller, capability);
        if forbidden || tunable.capability.is_some_and(lacks) {
            return Err(Errno(libc::EPERM));
        }
        let cx = match tunable.policy {
            Policy::LimitedByPids => self.context(&container, false),
            _ => self.context_without_limits(&container, false),
        };
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

    /// test_perm: the permission bits that hold for a caller.
    fn allowed(&self, container: &Attached, index: usize, caller: Caller) -> u16 {
        let mode = container.mode(index);
        let (owners, groups, others) = (mode >> 6 & 7, mode >> 3 & 7, mode & 7);
        // The machine's root looks after all containers.
        if caller.uid == container.uid || caller.uid == 0 {
            owners
        } else if groups != others && self.is_in_group(caller, container.gid) {
            groups
        } else {
            others
        }
    }

    /// in_egroup_p: whether a group is the caller's or among its supplementary groups.
    pub(super) fn is_in_group(&self, caller: Caller, gid: u32) -> bool {
        let status = || self.host.read_of_process(caller.pid, "status").ok();
        let is_among = |groups: String| {
            let mut groups = groups.split_ascii_whitespace();
            groups.any(|group| group.parse() == Ok(gid))
        };
        caller.gid == gid
            || status()
                .and_then(|status| field(&status, "Groups:"))
                .is_some_and(is_among)
    }

    /// Whether a thread has a capability in the user namespace of a container: it is in that or in the machine's. One
    /// that cannot be looked at has none. Without `in_container`, who is in the container's has none either.
    pub(super) fn has_capability(
        &self,
        container: &Attached,
        in_container: bool,
        caller: Caller,
        capability: Capability,
    ) -> bool {
        let wanted = CapabilitySet::from_bits_retain(1 << capability as u8);
        if !(self.capabilities)(caller.pid).contains(wanted) {
            return false;
        }
        let uid_map = self.uid_map(caller.pid);
        let own = || self.uid_map(std::process::id());
        !uid_map.is_empty()
            && (in_container && uid_map == container.uid_map
                || &uid_map == self.uid_map.get_or_init(own))
    }

    /// The users of the namespace of a process; nothing where it has ended.
    fn uid_map(&self, pid: u32) -> Vec<u8> {
        self.host
            .read_of_process(pid, "uid_map")
            .unwrap_or_default()
    }

    /// The same of the process behind a pidfd.
    pub fn uid_map_behind(&self, pidfd: &OwnedFd) -> Vec<u8> {
        let file = format!("fdinfo/{}", pidfd.as_raw_fd());
        let info = self.host.read_of_process(std::process::id(), &file);
        let pid = field(&info.unwrap_or_default(), "Pid:");
        pid.and_then(|pid| pid.parse().ok())
            .map_or_else(Vec::new, |pid| self.uid_map(pid))
    }
}

/// The capabilities that a thread has in effect, in its own user namespace; none of one that cannot be looked at.
pub(super) fn effective(pid: u32) -> CapabilitySet {
    // 0 is who has no number here; to the system call it would be this thread.
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.and_then(|pid| rustix::thread::capabilities(Some(pid)).ok())
        .map_or(CapabilitySet::empty(), |sets| sets.effective)
}

/// What a line that begins with `name` says.
fn field(text: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().to_owned())
}

#[cfg(test)]
#[path = "tunable_tests.rs"]
mod tests;
