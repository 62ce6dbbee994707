//! Who makes a request, and what he may, as the kernel would judge if the container's user namespace were the machine's.
//!
//! `default_permissions` has the kernel look at modes and owners, but it lets capabilities override them, which those
//! of /proc/sys do not (`test_perm`, fs/proc/proc_sysctl.c).

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use eci_fs_emulators::tunable::Capability;
use rustix::process::Pid;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::Tree;
use crate::server::container::{Attached, UserNamespace};

const NO_CAPABILITIES: CapabilitySets = CapabilitySets {
    effective: CapabilitySet::empty(),
    permitted: CapabilitySet::empty(),
    inheritable: CapabilitySet::empty(),
};

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

/// Whether it may be remembered for a moment in which user namespace a thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judge {
    /// It is looked at.
    Anew,
    /// It may.
    Remembered,
}

impl Tree {
    /// test_perm: the permission bits that hold for a caller.
    pub(super) fn allowed(&self, container: &Attached, index: usize, caller: Caller) -> u16 {
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
        judge: Judge,
    ) -> bool {
        let sets = (self.capabilities)(caller.pid);
        let wanted = CapabilitySet::from_bits_retain(1 << capability as u8);
        sets.effective.contains(wanted)
            && match self.users(container, caller, sets, judge) {
                UserNamespace::Host => true,
                UserNamespace::Container => in_container,
                UserNamespace::Other => false,
            }
    }

    /// Whose users the user namespace of a thread has.
    fn users(
        &self,
        container: &Attached,
        caller: Caller,
        sets: CapabilitySets,
        judge: Judge,
    ) -> UserNamespace {
        let now = Instant::now();
        if judge == Judge::Remembered
            && let Some(namespace) = container.user_namespaces.get(caller.pid, sets, now)
        {
            return namespace;
        }
        let uid_map = self.uid_map(caller.pid);
        let own = || self.uid_map(std::process::id());
        let users = if uid_map.is_empty() {
            UserNamespace::Other
        } else if &uid_map == self.uid_map.get_or_init(own) {
            UserNamespace::Host
        } else if uid_map == container.uid_map {
            UserNamespace::Container
        } else {
            UserNamespace::Other
        };
        container.user_namespaces.put(caller.pid, sets, users, now);
        users
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

/// The capabilities that a thread has in its own user namespace; none of one that cannot be looked at.
pub(super) fn capabilities(pid: u32) -> CapabilitySets {
    // 0 is who has no number here; to the system call it would be this thread.
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.and_then(|pid| rustix::thread::capabilities(Some(pid)).ok())
        .unwrap_or(NO_CAPABILITIES)
}

/// What a line that begins with `name` says.
fn field(text: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().to_owned())
}
