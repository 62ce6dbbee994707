//! A thread in a namespace of a container, for as long as some work takes.

use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use rustix::io::Errno;
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use eci_fs_protocol::error::{Error, Result};

/// The kind of a namespace that is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NamespaceKind {
    /// The mount namespace.
    Mount,
    /// The network namespace.
    Network,
    /// The pid namespace of processes that the thread starts. A procfs that the thread mounts belongs to it.
    Pid,
}

impl NamespaceKind {
    fn flag(self) -> ThreadNameSpaceType {
        match self {
            Self::Mount => ThreadNameSpaceType::MOUNT,
            Self::Network => ThreadNameSpaceType::NETWORK,
            Self::Pid => ThreadNameSpaceType::PROCESS_ID,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Mount => "the mount namespace",
            Self::Network => "the network namespace",
            Self::Pid => "the pid namespace",
        }
    }
}

/// Does `work` in the namespace of a container, and comes back to `home` whatever it returns. `there` is a pidfd, or
/// the namespace itself.
///
/// # Errors
/// When the namespace cannot be entered; [`eci_fs_protocol::error::Kind::NotFound`] when the process has ended. If there is no way
/// back the daemon cannot go on: it aborts, since a privileged thread that is lost in a container's namespace must not
/// do anything more.
pub(crate) fn in_namespace<T>(
    kind: NamespaceKind,
    there: impl AsFd,
    home: impl AsFd,
    work: impl FnOnce() -> T,
) -> Result<T> {
    move_into_thread_name_spaces(there.as_fd(), kind.flag()).map_err(|e| match e {
        Errno::SRCH => Error::not_found("the container has ended"),
        e => Error::io("enter", format!("{} of the container", kind.name()), e),
    })?;
    // A thread that panics comes back, too.
    let result = catch_unwind(AssertUnwindSafe(work));
    if let Err(error) = move_into_thread_name_spaces(home.as_fd(), kind.flag()) {
        tracing::error!(%error, "a thread cannot return to {}", kind.name());
        std::process::abort();
    }
    Ok(result.unwrap_or_else(|panic| resume_unwind(panic)))
}
