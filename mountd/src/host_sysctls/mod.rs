//! Raising tunables of the machine to what containers wish, where the host's administrator allows it, and giving
//! them back.
//!
//! The server says what a container has set. Which tunables there are is a fixed list, up to where each may be raised
//! is the configuration's to say, and the number is judged here: a hostile server can raise to the ceiling and no more.
//!
//! | what | where |
//! |---|---|
//! | who wishes what, and what comes of it | `ledger` |
//! | what is written down, and read again by the next daemon | [`record`] |
//! | the machine's values | `machine` |

mod ledger;
mod machine;
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
use ledger::Ledger;
use machine::Machine;

/// What raises; clones are the same one.
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
    /// The containers that there are.
    slots: BTreeSet<u64>,
    /// All containers of the daemon before this one have been entered.
    complete: bool,
    /// Whether the last wish could not be met, so that a container cannot fill the log.
    failed: bool,
}

impl HostSysctls {
    /// Go on with what is written down in `runtime`, if that was since the machine was booted. Without this nothing
    /// is raised.
    pub fn open(&self, runtime: RuntimeDir, boot_id: &str, ceilings: Ceilings) {
        self.open_at(Path::new("/"), runtime, boot_id, ceilings);
    }

    fn open_at(&self, root: &Path, runtime: RuntimeDir, boot_id: &str, ceilings: Ceilings) {
        let ledger = Ledger::open(Machine::at(root), runtime, boot_id, ceilings);
        self.shared.inner.lock().ledger = Some(ledger);
    }

    /// Those that may be raised.
    pub fn tunables(&self) -> Vec<HostSysctl> {
        let inner = self.shared.inner.lock();
        let ledger = inner.ledger.as_ref();
        ledger.map_or_else(Vec::new, |ledger| ledger.ceilings.tunables())
    }

    /// There is a container.
    pub fn enter(&self, slot: u64) {
        self.shared.inner.lock().slots.insert(slot);
    }

    /// It is gone, and what it wished.
    pub fn leave(&self, slot: u64) {
        let mut inner = self.shared.inner.lock();
        inner.slots.remove(&slot);
        // Before that all are looked at.
        if inner.complete
            && let Some(ledger) = &mut inner.ledger
        {
            ledger.remove(slot);
        }
    }

    /// All containers of the daemon before this one have been entered: what others wished is given back. Until then
    /// nobody is answered.
    pub fn set_complete(&self) {
        let mut guard = self.shared.inner.lock();
        let inner = &mut *guard;
        inner.complete = true;
        if let Some(ledger) = &mut inner.ledger {
            ledger.keep(&inner.slots);
        }
        self.shared.complete.notify_all();
    }

    /// A container has set a tunable to `value`: the machine's is raised to that, or to the ceiling.
    ///
    /// # Errors
    /// EPERM for what is not to be raised, ESRCH when there is no such container, EIO when it could not be done; the
    /// log says why.
    pub fn wish(&self, slot: u64, tunable: HostSysctl, value: u64) -> Result<(), Errno> {
        let mut inner = self.shared.inner.lock();
        while !inner.complete {
            self.shared.complete.wait(&mut inner);
        }
        if !inner.slots.contains(&slot) {
            return Err(Errno::SRCH);
        }
        let ledger = inner.ledger.as_mut().ok_or(Errno::PERM)?;
        if !ledger.may_be(tunable, value) {
            return Err(Errno::PERM);
        }
        let done = ledger.wish(slot, tunable, value);
        let failed_before = std::mem::replace(&mut inner.failed, done.is_err());
        done.map_err(|error| {
            if !failed_before {
                tracing::error!(%error, slot, %tunable, value, "what a container set is not raised on the machine");
            }
            Errno::IO
        })
    }
}
