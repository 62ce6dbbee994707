//! Network namespaces, which threads enter.

use std::os::fd::AsFd;

use eci_fs_protocol::error::{Error, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Calls `work` on a thread in a network namespace.
///
/// # Errors
/// When it cannot be entered, and those of `work`.
pub(super) fn inside<T: Send>(
    network: impl AsFd,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let network = network.as_fd();
    let entered = move || {
        move_into_link_name_space(network, Some(LinkNameSpaceType::Network))
            .map_err(|e| Error::io("enter", "a network namespace", e))?;
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, entered);
        let thread = thread.map_err(|e| Error::io("start", "a thread", e))?;
        let ended = thread.join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
