//! The containers about which a server may ask, and the descriptors that answers take.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::network::Network;
use super::pressure::has_sys_resource;
use super::users::Users;
use crate::container::Described;
use crate::container::procfs::Proc;
use eci_fs_protocol::error::{Error, Result};

/// The descriptors of one container that answers take.
#[derive(Debug, Default)]
pub(super) struct BrokerContainer {
    /// The v2 cgroup directory of the container, where its pressure is, if it has one.
    pub(super) pressure: Option<OwnedFd>,
    /// The network namespace of the container, if that is not that of the host.
    pub(super) network: Option<Network>,
    /// The user namespaces by which callers are told apart.
    pub(super) users: Option<Users>,
    /// True if its processes can have CAP_SYS_RESOURCE on the host.
    pub(super) has_sys_resource: bool,
}

/// The containers by slot. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct BrokerContainers {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    complete: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<u64, Arc<BrokerContainer>>,
    complete: bool,
}

impl BrokerContainer {
    /// Returns the entry of a container that was just described.
    ///
    /// # Errors
    /// When no more descriptors can be had.
    pub(super) fn of(proc: &Arc<Proc>, described: &Described) -> Result<Self> {
        Ok(Self {
            pressure: v2_directory(described)?,
            network: Network::of(proc, described)?,
            users: Some(Users::of(proc, described)?),
            has_sys_resource: has_sys_resource(proc, described.subject.pid)?,
        })
    }
}

impl BrokerContainers {
    /// Enters a container.
    pub(super) fn insert(&self, slot: u64, entry: BrokerContainer) {
        self.shared
            .inner
            .lock()
            .entries
            .insert(slot, Arc::new(entry));
    }

    /// Removes a container.
    pub(super) fn remove(&self, slot: u64) {
        self.shared.inner.lock().entries.remove(&slot);
    }

    /// Says that all containers of the daemon before this one have been entered. Until then no server is answered: it
    /// serves them already, and would be told that they are not there.
    pub(super) fn set_complete(&self) {
        self.shared.inner.lock().complete = true;
        self.shared.complete.notify_all();
    }

    /// Returns the container in `slot`. Waits until all are entered.
    pub(super) fn get(&self, slot: u64) -> Option<Arc<BrokerContainer>> {
        let mut inner = self.shared.inner.lock();
        while !inner.complete {
            self.shared.complete.wait(&mut inner);
        }
        inner.entries.get(&slot).cloned()
    }
}

/// Returns the container's directory in the v2 hierarchy. The root of v2 has the pressure of the host, not that of the
/// container.
fn v2_directory(described: &Described) -> Result<Option<OwnedFd>> {
    let hierarchies = described.facts.hierarchies.iter();
    hierarchies
        .zip(&described.dirs)
        .find(|(hierarchy, _)| hierarchy.version == 2 && hierarchy.depth > 0)
        .map(|(_, dir)| {
            dir.try_clone()
                .map_err(|e| Error::io("duplicate", "a cgroup directory", e))
        })
        .transpose()
}
