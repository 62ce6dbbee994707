//! The service manager (systemd), where there is one. It is told that the daemon is ready, and keeps the descriptors
//! that must outlive both programs (`FileDescriptorStoreMax=` in systemd.service(5)).

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use sd_notify::NotifyState;

use crate::connections::Connections;
use crate::persistent_descriptors::{HeldDescriptors, PersistentDescriptors};
use eci_fs_protocol::vet::{Container, Listener};

/// The names under which descriptors are kept, in the order in which [`Stored`] has them.
const NAMES: [&str; 5] = [
    "eci-fs-cached",
    "eci-fs-live",
    "eci-fs-namespace",
    "eci-fs-state",
    "eci-fs-rendezvous",
];

/// The name of the journal of system calls.
const JOURNAL: &str = "eci-fs-calls";

/// The beginning of the names of listeners. The slot, the pid and the id of the container follow.
const LISTENER: &str = "eci-fs-call.";

/// The most letters of a name. systemd has none that is longer.
const LONGEST: usize = 255;

/// The environment variables of a process that a service manager started.
const ENVIRONMENT: [&str; 4] = [
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// The descriptors that the service manager has kept.
#[derive(Debug)]
pub struct Stored {
    /// The `/dev/fuse` descriptors.
    pub fuse: [OwnedFd; 2],
    /// The state.
    pub state: OwnedFd,
    /// The descriptors that the server held for the next daemon.
    pub held: HeldDescriptors,
}

/// The listeners of system calls that the service manager has kept.
#[derive(Debug)]
pub struct StoredCalls {
    /// The journal.
    pub journal: OwnedFd,
    /// The listeners.
    pub listeners: Vec<(Listener, OwnedFd)>,
}

/// Says that the daemon is ready, and is this process, which need not be the one that was started.
pub fn ready() {
    let pid = std::process::id();
    tell(&[NotifyState::Ready, NotifyState::MainPid(pid)], &[]);
}

/// Has the service manager keep the descriptors that must outlive both programs.
pub fn store(connections: &Connections, descriptors: &PersistentDescriptors) {
    let Some(held) = &descriptors.held else {
        return;
    };
    let [cached, live] = connections.descriptors();
    let fds = [
        cached,
        live,
        held.namespace.as_fd(),
        descriptors.state.as_fd(),
        held.rendezvous.as_fd(),
    ];
    // Others of the same names may be kept already, of other descriptions.
    forget();
    for (name, fd) in NAMES.into_iter().zip(fds) {
        tell(&[NotifyState::FdStore, NotifyState::FdName(name)], &[fd]);
    }
}

/// Has the service manager keep them no more: there is nothing left to serve.
pub fn forget() {
    for name in NAMES {
        tell(
            &[NotifyState::FdStoreRemove, NotifyState::FdName(name)],
            &[],
        );
    }
}

/// Has the service manager keep the journal of system calls.
pub fn store_journal(journal: BorrowedFd<'_>) {
    // Another one may be kept already.
    forget_journal();
    tell(
        &[NotifyState::FdStore, NotifyState::FdName(JOURNAL)],
        &[journal],
    );
}

/// Has the service manager let go of the journal of system calls.
pub fn forget_journal() {
    tell(
        &[NotifyState::FdStoreRemove, NotifyState::FdName(JOURNAL)],
        &[],
    );
}

/// Has the service manager keep a listener. It lets go of that by itself when the last process with the filter has ended, and
/// of one that it keeps already it keeps no second one.
pub fn store_listener(slot: u32, container: &Container, listener: BorrowedFd<'_>) {
    let mut name = format!("{LISTENER}{slot}.{}.", container.pid);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-+.".contains(c);
    if container.id.chars().all(is_plain) && name.len() + container.id.len() <= LONGEST {
        name.push_str(&container.id);
    }
    tell(
        &[NotifyState::FdStore, NotifyState::FdName(&name)],
        &[listener],
    );
}

/// Returns the listener of which this is the name.
fn listener_of(name: &str) -> Option<Listener> {
    let mut parts = name.strip_prefix(LISTENER)?.splitn(3, '.');
    let slot = parts.next()?.parse().ok()?;
    let container = Container {
        pid: parts.next()?.parse().ok()?,
        id: parts.next()?.to_owned(),
    };
    Some(Listener { slot, container })
}

/// Returns the descriptors that were kept for this process: those of the connections, and those of system calls; none of either
/// kind when they are not complete.
pub fn take() -> (Option<Stored>, Option<StoredCalls>) {
    let mut kept: BTreeMap<String, OwnedFd> = inherited().collect();
    let journal = kept.remove(JOURNAL);
    let (calls, mut kept): (BTreeMap<_, _>, _) = kept
        .into_iter()
        .partition(|(name, _)| name.starts_with(LISTENER));
    let listeners = calls
        .into_iter()
        .filter_map(|(name, fd)| Some((listener_of(&name)?, fd)))
        .collect();
    let calls = journal.map(|journal| StoredCalls { journal, listeners });
    (take_connections(&mut kept), calls)
}

fn take_connections(kept: &mut BTreeMap<String, OwnedFd>) -> Option<Stored> {
    let mut next = |name: &str| kept.remove(name);
    Some(Stored {
        fuse: [next(NAMES[0])?, next(NAMES[1])?],
        held: HeldDescriptors {
            namespace: next(NAMES[2])?,
            rendezvous: next(NAMES[4])?,
        },
        state: next(NAMES[3])?,
    })
}

/// Returns the descriptors that this process was started with, by their names, as owned ones that no child inherits.
fn inherited() -> impl Iterator<Item = (String, OwnedFd)> {
    let numbers: Vec<_> = sd_notify::listen_fds_with_names()
        .map(Iterator::collect)
        .unwrap_or_default();
    let own = Pid::from_raw(i32::try_from(std::process::id()).unwrap_or(0))
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    numbers.into_iter().filter_map(move |(number, name)| {
        // The kernel turns a number into a descriptor if it is asked as for any process.
        let fd = pidfd_getfd(own.as_ref()?, number, PidfdGetfdFlags::empty()).ok();
        // It can only fail because there is no such descriptor.
        let _ = nix::unistd::close(number);
        fd.map(|fd| (name, fd))
    })
}

/// Hides the service manager from a child: it is not the child's business.
pub fn hide_from(command: &mut std::process::Command) {
    for name in ENVIRONMENT {
        command.env_remove(name);
    }
}

fn tell(what: &[NotifyState<'_>], fds: &[BorrowedFd<'_>]) {
    // Without a service manager this does nothing.
    if let Err(error) = sd_notify::notify_with_fds(what, fds) {
        tracing::warn!(%error, "the service manager cannot be told, ignoring");
    }
}
