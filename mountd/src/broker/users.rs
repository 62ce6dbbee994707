//! The user namespaces of callers. The server may not look at them, because that takes a capability. It sees which users a
//! namespace has, but a process in a container can make one inside of the container's that has the same.

use std::sync::Arc;

use crate::container::Described;
use crate::container::procfs::{Namespace, Proc};
use eci_fs_protocol::error::Result;
use eci_fs_protocol::link::UserNamespace;

/// The user namespaces by which the callers of a container are told apart.
#[derive(Debug)]
pub(super) struct Users {
    proc: Arc<Proc>,
    /// Our own, which is the host's.
    host: Namespace,
    container: Namespace,
}

impl Users {
    /// Returns those of a container that was just described.
    ///
    /// # Errors
    /// When the container has ended.
    pub(super) fn of(proc: &Arc<Proc>, described: &Described) -> Result<Self> {
        Ok(Self {
            proc: Arc::clone(proc),
            host: proc.namespace("self", "user")?,
            container: proc.namespace(described.subject.pid, "user")?,
        })
    }

    /// Returns the user namespace of a thread. The thread waits for the answer to its request, so its number is not
    /// another one's.
    pub(super) fn find(&self, pid: u32) -> UserNamespace {
        match self.proc.namespace(pid, "user") {
            Ok(found) if found == self.host => UserNamespace::Host,
            Ok(found) if found == self.container => UserNamespace::Container,
            _ => UserNamespace::Other,
        }
    }
}
