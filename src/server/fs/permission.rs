//! The permission check: who makes a request, and what the kernel would let him do if the container's user namespace
//! were the host's.
//!
//! `default_permissions` has the kernel look at modes and owners, but it lets capabilities override them, which those
//! of /proc/sys do not (`test_perm`, fs/proc/proc_sysctl.c).

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use eci_fs_emulators::tunable::Capability;
use eci_fs_emulators::{EMULATORS, Host};
use eci_fs_protocol::link::UserNamespace;
use rustix::process::Pid;
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::server::broker::BrokerClient;
use crate::server::container::Attached;
use crate::server::error::Errno;
use crate::server::ids::{Node, NodeId};

/// The time that the daemon's answer is waited for: a daemon may be about to be replaced.
const PATIENCE: Duration = Duration::from_secs(10);

const NO_CAPABILITIES: CapabilitySets = CapabilitySets {
    effective: CapabilitySet::empty(),
    permitted: CapabilitySet::empty(),
    inheritable: CapabilitySet::empty(),
};

/// The thread that makes a request, by the host's numbers.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The number.
    pub pid: u32,
}

/// The age that an answer about the user namespace of a thread may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// The namespace is looked at anew.
    Anew,
    /// The container's cache of a moment ago may answer.
    Cached,
}

/// Checks the permissions of callers.
#[derive(Debug)]
pub(super) struct Permissions {
    host: Arc<Host>,
    /// The users of this process's namespace, once they were asked for. The process has no right to enter another.
    own_uid_map: OnceLock<Vec<u8>>,
    /// The way to the daemon, which can tell namespaces with the same users apart.
    broker: Option<Arc<BrokerClient>>,
    /// True if the daemon says that it answers.
    is_answered: AtomicBool,
    /// Returns the capabilities of the thread with a number.
    capabilities: fn(u32) -> CapabilitySets,
}

impl Permissions {
    /// Looks at the threads of `host`, and at their capabilities by `capabilities`. Without a `broker`, and with a daemon
    /// of version 0.1.0, a user namespace is known by its users alone.
    pub(super) fn new(
        host: Arc<Host>,
        broker: Option<Arc<BrokerClient>>,
        capabilities: fn(u32) -> CapabilitySets,
    ) -> Self {
        Self {
            host,
            own_uid_map: OnceLock::new(),
            broker,
            is_answered: AtomicBool::new(false),
            capabilities,
        }
    }

    /// Asks the daemon for user namespaces from now on, or does not any more.
    pub(super) fn ask_for_user_namespaces(&self, is_answered: bool) {
        self.is_answered.store(is_answered, Ordering::Relaxed);
    }

    /// Returns the permission bits that hold for a caller (test_perm).
    pub(super) fn allowed(&self, container: &Attached, index: usize, caller: Caller) -> u16 {
        let mode = container.mode(index);
        let (owners, groups, others) = (mode >> 6 & 7, mode >> 3 & 7, mode & 7);
        // The host's root looks after all containers.
        if caller.uid == container.uid || caller.uid == 0 {
            owners
        } else if groups != others && self.is_in_group(caller, container.gid) {
            groups
        } else {
            others
        }
    }

    /// Returns whether a group is the caller's or among its supplementary groups (in_egroup_p).
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

    /// Returns whether a thread has a capability in the user namespace of a container: it is in that or in the host's. A
    /// thread in a namespace inside of the container's has none, whatever its users are (ns_capable). A thread that cannot
    /// be looked at has none. Without `in_container`, a thread in the container's has none either.
    ///
    /// # Errors
    /// EAGAIN when the daemon, which knows the namespace, does not answer.
    pub(super) fn has_capability(
        &self,
        container: &Attached,
        in_container: bool,
        caller: Caller,
        capability: Capability,
        check: Check,
    ) -> Result<bool, Errno> {
        let sets = (self.capabilities)(caller.pid);
        let wanted = CapabilitySet::from_bits_retain(1 << capability as u8);
        if !sets.effective.contains(wanted) {
            return Ok(false);
        }
        let namespace = self.user_namespace(container, caller, sets, check)?;
        Ok(match namespace {
            UserNamespace::Host => true,
            UserNamespace::Container => in_container,
            UserNamespace::Other => false,
        })
    }

    fn user_namespace(
        &self,
        container: &Attached,
        caller: Caller,
        sets: CapabilitySets,
        check: Check,
    ) -> Result<UserNamespace, Errno> {
        let now = Instant::now();
        let cache = &container.user_namespaces;
        if check == Check::Cached
            && let Some(namespace) = cache.get(caller.pid, sets, now)
        {
            return Ok(namespace);
        }
        let uid_map = self.uid_map(caller.pid);
        let own = || self.uid_map(std::process::id());
        let by_users = if uid_map.is_empty() {
            UserNamespace::Other
        } else if &uid_map == self.own_uid_map.get_or_init(own) {
            UserNamespace::Host
        } else if uid_map == container.uid_map {
            UserNamespace::Container
        } else {
            UserNamespace::Other
        };
        let namespace = match by_users {
            UserNamespace::Other => UserNamespace::Other,
            _ => self.identified(container, caller, by_users)?,
        };
        cache.put(caller.pid, sets, namespace, now);
        Ok(namespace)
    }

    /// Returns the user namespace of a thread that is `by_users` if only its users are looked at. A process with CAP_SETUID
    /// can make another one with the same users inside of its own.
    fn identified(
        &self,
        container: &Attached,
        caller: Caller,
        by_users: UserNamespace,
    ) -> Result<UserNamespace, Errno> {
        match &self.broker {
            Some(broker) if self.is_answered.load(Ordering::Relaxed) => {
                let until = Instant::now() + PATIENCE;
                broker.user_namespace(container.slot(), caller.pid, until)
            }
            _ => Ok(by_users),
        }
    }

    /// Returns the users of the namespace of a process; nothing when the process has ended.
    pub(super) fn uid_map(&self, pid: u32) -> Vec<u8> {
        self.host
            .read_of_process(pid, "uid_map")
            .unwrap_or_default()
    }

    /// Returns the process behind a pidfd; none when it has ended.
    pub(super) fn pid_behind(&self, pidfd: &OwnedFd) -> Option<u32> {
        let file = format!("fdinfo/{}", pidfd.as_raw_fd());
        let info = self.host.read_of_process(std::process::id(), &file);
        field(&info.unwrap_or_default(), "Pid:")?.parse().ok()
    }
}

/// Returns whether a write to a node may ask the daemon for the user namespace of its caller.
pub(super) fn takes_capability(id: NodeId) -> bool {
    let Node::View { emulator, .. } = id.node() else {
        return false;
    };
    let mut all = EMULATORS.iter();
    let found = all.find(|one| one.facts().id == emulator);
    let tunable = found.and_then(|one| one.tunable());
    tunable.is_some_and(|tunable| tunable.capability.is_some())
}

/// Returns the capabilities that a thread has in its own user namespace; none for a thread that cannot be looked at.
pub(super) fn capabilities(pid: u32) -> CapabilitySets {
    // 0 is a thread that has no number here; to the system call it would be this thread.
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.and_then(|pid| rustix::thread::capabilities(Some(pid)).ok())
        .unwrap_or(NO_CAPABILITIES)
}

/// Returns the rest of the line that begins with `name`.
fn field(text: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().to_owned())
}
