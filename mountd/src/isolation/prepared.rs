//! The prepared user namespace: the daemon makes it before a container asks, because it nearly always knows which range it
//! gives next.

use std::os::fd::OwnedFd;

use super::{Isolation, user_namespace};
use eci_fs_protocol::error::Result;

/// The prepared user namespace. No process has been in it, and its maker has ended.
#[derive(Debug)]
pub(super) struct Prepared {
    first_id: u32,
    owned_by_root: bool,
    namespace: OwnedFd,
}

impl Isolation {
    /// Returns a user namespace with the range: the prepared one if it has that range, or a new one.
    ///
    /// # Errors
    /// When the kernel does not allow it.
    pub(super) fn namespace_of(&self, first_id: u32, owned_by_root: bool) -> Result<OwnedFd> {
        let wanted = (first_id, owned_by_root);
        let is_it = |prepared: &mut Prepared| (prepared.first_id, prepared.owned_by_root) == wanted;
        let prepared = self.prepared.lock().take_if(is_it);
        match prepared {
            Some(prepared) => Ok(prepared.namespace),
            None => user_namespace::make(&self.proc, first_id, owned_by_root),
        }
    }

    /// Makes the user namespace that the next container is expected to get. The daemon calls it while nobody waits.
    pub fn prepare_next(&self) {
        let expected = self.state.lock().expected;
        let Some((first_id, owned_by_root)) = expected else {
            return;
        };
        let is_made = |prepared: &Prepared| {
            (prepared.first_id, prepared.owned_by_root) == (first_id, owned_by_root)
        };
        if self.prepared.lock().as_ref().is_some_and(is_made) {
            return;
        }
        // The container that needs it finds out why it fails.
        if let Ok(namespace) = user_namespace::make(&self.proc, first_id, owned_by_root) {
            *self.prepared.lock() = Some(Prepared {
                first_id,
                owned_by_root,
                namespace,
            });
        }
    }
}
