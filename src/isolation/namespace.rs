//! Namespaces that threads enter.

use std::os::fd::AsFd;

use eci_fs_protocol::error::{Error, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::owned_namespace::Kind;

/// Calls `work` on a thread in a namespace of this kind.
///
/// # Errors
/// When it cannot be entered, which is so for one of another kind, and those of `work`.
pub(super) fn inside<T: Send>(
    namespace: impl AsFd,
    kind: Kind,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let namespace = namespace.as_fd();
    let link = match kind {
        Kind::Network => LinkNameSpaceType::Network,
        Kind::Ipc => LinkNameSpaceType::InterProcessCommunication,
        Kind::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
        Kind::Time => LinkNameSpaceType::Time,
    };
    let entered = move || {
        move_into_link_name_space(namespace, Some(link))
            .map_err(|e| Error::io("enter", kind.name(), e))?;
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, entered);
        let thread = thread.map_err(|e| Error::io("start", "a thread", e))?;
        let ended = thread.join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
