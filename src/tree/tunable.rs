//! Tunables: who may open and write them, as the kernel would judge if the container's user namespace were the
//! machine's, and what is written.
//!
//! `default_permissions` has the kernel look at modes and owners, but it lets capabilities override them, which those
//! of /proc/sys do not (`test_perm`, fs/proc/proc_sysctl.c).

use std::os::fd::{AsRawFd, OwnedFd};

use eci_fs_emulators::tunable;
use eci_fs_emulators::tunable::Capability;

use super::{Handle, Node, NodeId, Tree};
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

impl Tree {
    /// Whether a file may be opened with `flags`, where that is not the kernel's to say.
    ///
    /// # Errors
    /// EACCES; ENOENT when the container is gone.
    pub fn may_open(&self, id: NodeId, caller: Caller, flags: i32) -> Result<(), Errno> {
        let Node::View { slot, emulator } = id.node() else {
            return Ok(());
        };
        if tunable(emulator).is_none() {
            return Ok(());
        }
        let container = self.container(slot)?;
        let wanted = match flags & libc::O_ACCMODE {
            libc::O_RDONLY => 4,
            libc::O_WRONLY => 2,
            _ => 6,
        };
        let allowed = allowed(&container, container.index(emulator)?, caller);
        (wanted & !allowed == 0)
            .then_some(())
            .ok_or(Errno(libc::EACCES))
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
    ) -> Option<Result<usize, Errno>> {
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
    ) -> Result<usize, Errno> {
        let container = self.container(slot)?;
        let index = container.index(emulator)?;
        let tunable = tunable(emulator).ok_or(Errno::NOENT)?;
        // Who writes need not be who opened (sysctl_perm in proc_sys_call_handler).
        let forbidden = allowed(&container, index, write.caller) & 2 == 0;
        let lacks = |capability| !self.has_capability(&container, write.caller, capability);
        if forbidden || tunable.capability.is_some_and(lacks) {
            return Err(Errno(libc::EPERM));
        }
        // The kernel's file has no size, so that its end is its beginning.
        let offset = match write.flags & libc::O_APPEND {
            0 => write.offset,
            _ => 0,
        };
        let cx = self.context(&container, false);
        let save = |value: &[u8]| {
            let record = || Record::Tunable {
                slot,
                emulator,
                value: value.to_vec(),
            };
            self.remember(record, &[]);
        };
        let written = match tunable.write(&cx, offset, write.bytes, save) {
            Ok(written) => written,
            Err(error) => {
                tracing::error!(slot, path = tunable.path(), %error, "the machine's value cannot be read");
                return Err(Errno(error.errno()));
            }
        };
        if let Some(value) = &written.value {
            container.outdate(index);
            self.rewrite(handle, value);
            faults::at(Point::Write);
        }
        written.answer.map_err(|errno| Errno(errno as i32))
    }

    /// Whether a thread has a capability in the user namespace of a container: it is in that or in the machine's. One
    /// that cannot be looked at has none.
    fn has_capability(&self, container: &Attached, caller: Caller, capability: Capability) -> bool {
        let uid_map = self.uid_map(caller.pid);
        let is_above = uid_map == container.uid_map || uid_map == self.uid_map(std::process::id());
        let status = self.host.read(&format!("/proc/{}/status", caller.pid));
        let effective = field(&status.unwrap_or_default(), "CapEff:")
            .and_then(|effective| u64::from_str_radix(&effective, 16).ok());
        is_above && effective.unwrap_or(0) >> (capability as u8) & 1 == 1
    }

    /// The users of the namespace of a process; nothing where it has ended.
    fn uid_map(&self, pid: u32) -> Vec<u8> {
        let path = format!("/proc/{pid}/uid_map");
        self.host
            .read(&path)
            .map_or_else(|_| Vec::new(), |text| text.to_vec())
    }

    /// The same of the process behind a pidfd.
    pub fn uid_map_behind(&self, pidfd: &OwnedFd) -> Vec<u8> {
        let own = std::process::id();
        let path = format!("/proc/{own}/fdinfo/{}", pidfd.as_raw_fd());
        let pid = field(&self.host.read(&path).unwrap_or_default(), "Pid:");
        pid.and_then(|pid| pid.parse().ok())
            .map_or_else(Vec::new, |pid| self.uid_map(pid))
    }
}

/// What a line that begins with `name` says.
fn field(text: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().to_owned())
}

/// test_perm: the permission bits that hold for a caller.
fn allowed(container: &Attached, index: usize, caller: Caller) -> u16 {
    let mode = container.mode(index);
    // The machine's root looks after all containers.
    let shift = if caller.uid == container.uid || caller.uid == 0 {
        6
    } else if caller.gid == container.gid {
        3
    } else {
        0
    };
    mode >> shift & 7
}
