//! Tunables: who may open and write them, as the kernel would judge if the container's user namespace were the
//! machine's, and what is written.
//!
//! `default_permissions` has the kernel look at modes and owners, but it lets capabilities override them, which those
//! of /proc/sys do not (`test_perm`, fs/proc/proc_sysctl.c).

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
        let lacks = |capability| !self.has_capability(write.caller, capability);
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

    /// Whether a thread has a capability in effect. One that cannot be looked at has none.
    fn has_capability(&self, caller: Caller, capability: Capability) -> bool {
        let status = self.host.read(&format!("/proc/{}/status", caller.pid));
        let status = status.unwrap_or_default();
        let effective = String::from_utf8_lossy(&status)
            .lines()
            .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
        effective.unwrap_or(0) >> (capability as u8) & 1 == 1
    }
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
