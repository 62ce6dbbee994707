//! Sysctls of the host that containers raise, where the host's administrator allows it, and that are given back.
//!
//! The server says what a container has set. The sysctls are a fixed list, the configuration has a ceiling for each, and
//! the number is checked here. So a hostile server can raise them to the ceiling and no more.
//!
//! | what | where |
//! |---|---|
//! | the requests of containers, and the values that follow from them | `ledger` |
//! | the record that the next daemon reads | [`record`] |
//! | the values of the host | `host_values` |

mod host_values;
mod ledger;
pub mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use crate::config::Ceilings;
use crate::runtime_dir::RuntimeDir;
use eci_fs_protocol::host_sysctl::HostSysctl;
use host_values::HostValues;
use ledger::Ledger;

/// The sysctls of the host that containers raise. Clones are the same ones.
#[derive(Debug, Clone, Default)]
pub struct HostSysctls {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    complete: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    /// None where nothing can be written down: then nothing is raised.
    ledger: Option<Ledger>,
    /// The slots of the containers.
    slots: BTreeSet<u64>,
    /// True once all containers of the daemon before this one have been entered.
    complete: bool,
    /// True if the last request could not be met. So a container cannot fill the log.
    failed: bool,
}

impl HostSysctls {
    /// Goes on with the record in `runtime`, if that was written since the host was booted. Without this nothing is
    /// raised.
    pub fn open(&self, runtime: RuntimeDir, boot_id: &str, ceilings: Ceilings) {
        self.open_at(Path::new("/"), runtime, boot_id, ceilings);
    }

    fn open_at(&self, root: &Path, runtime: RuntimeDir, boot_id: &str, ceilings: Ceilings) {
        let ledger = Ledger::open(HostValues::at(root), runtime, boot_id, ceilings);
        self.shared.inner.lock().ledger = Some(ledger);
    }

    /// Returns the sysctls that may be raised.
    pub fn tunables(&self) -> Vec<HostSysctl> {
        let inner = self.shared.inner.lock();
        let ledger = inner.ledger.as_ref();
        ledger.map_or_else(Vec::new, |ledger| ledger.ceilings.tunables())
    }

    /// Enters a container.
    pub fn enter(&self, slot: u64) {
        self.shared.inner.lock().slots.insert(slot);
    }

    /// Forgets a container that is gone, and its requests.
    pub fn leave(&self, slot: u64) {
        let mut inner = self.shared.inner.lock();
        inner.slots.remove(&slot);
        // Until then all requests are kept.
        if inner.complete
            && let Some(ledger) = &mut inner.ledger
        {
            ledger.remove(slot);
        }
    }

    /// Says that all containers of the daemon before this one have been entered. What the others had asked for is given
    /// back. Until then no request is answered.
    pub fn set_complete(&self) {
        let mut guard = self.shared.inner.lock();
        let inner = &mut *guard;
        inner.complete = true;
        if let Some(ledger) = &mut inner.ledger {
            ledger.keep(&inner.slots);
        }
        self.shared.complete.notify_all();
    }

    /// Takes note that a container has set a sysctl to `value`. The host's value is raised to that, or to the ceiling.
    ///
    /// # Errors
    /// EPERM for what is not to be raised, ESRCH when there is no such container, EIO when it could not be done; the
    /// log says why.
    pub fn request(&self, slot: u64, tunable: HostSysctl, value: u64) -> Result<(), Errno> {
        let mut inner = self.shared.inner.lock();
        while !inner.complete {
            self.shared.complete.wait(&mut inner);
        }
        if !inner.slots.contains(&slot) {
            return Err(Errno::SRCH);
        }
        let ledger = inner.ledger.as_mut().ok_or(Errno::PERM)?;
        if !ledger.is_allowed(tunable, value) {
            return Err(Errno::PERM);
        }
        let done = ledger.request(slot, tunable, value);
        let failed_before = std::mem::replace(&mut inner.failed, done.is_err());
        done.map_err(|error| {
            if !failed_before {
                tracing::error!(%error, slot, %tunable, value, "what a container set is not raised on the machine");
            }
            Errno::IO
        })
    }
}
