//! The user that the server becomes.

use std::io;

use eci_fs_protocol::link::{BROKER, SERVER_USERS};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::confinement;

/// The user that a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// One of [`SERVER_USERS`].
    Own,
    /// Root without capabilities, as in version 0.1.0.
    Root,
}

impl User {
    /// Returns the user of a server whose daemon has a broker of this version. Without [`BROKER`] nobody reads and writes for it
    /// what only root may.
    pub fn beside(broker: u32) -> Self {
        match broker >= BROKER {
            true => Self::Own,
            false => Self::Root,
        }
    }
}

/// Becomes `user`, with a group of the same number, and leaves all other groups.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn become_user(user: User) -> io::Result<()> {
    if user == User::Root {
        return Ok(());
    }
    allow_threads();
    confinement::user::become_user(SERVER_USERS).map_err(|error| {
        io::Error::other(format!(
            "the server cannot become the user {}: {error}; start the daemon with CAP_SETUID and CAP_SETGID",
            SERVER_USERS[0]
        ))
    })
}

/// Sets no limit of processes. The threads of all servers of the host count for one user, and so would the processes of a
/// container without a user namespace that takes its number.
fn allow_threads() {
    let none = Rlimit {
        current: None,
        maximum: None,
    };
    if let Err(error) = setrlimit(Resource::Nproc, none) {
        // Without CAP_SYS_RESOURCE the hard limit stays.
        tracing::debug!(%error, "the limit of processes cannot be raised, ignoring");
    }
}
