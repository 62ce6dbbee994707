//! A path below a directory graft, and the emulator that decides about it.

use std::sync::Arc;

use eci_fs_emulators::{Context, Decision, Directory};

use crate::server::container::Attached;
use crate::server::error::Errno;
use crate::server::fs::containers::directory;
use crate::server::ids::{Node, NodeId, Owner};

/// A path below a directory graft of a container, or the graft itself.
pub(in crate::server::fs) struct Place {
    pub(super) container: Arc<Attached>,
    pub(super) slot: u64,
    pub(super) directory: &'static dyn Directory,
    /// The path below the graft; empty for the graft itself.
    pub(super) rel: Arc<str>,
}

impl Place {
    /// Returns whether it lies on the way to single files, or is one of these.
    pub(in crate::server::fs) fn is_way(&self) -> bool {
        self.directory.is_by_file()
    }

    /// Returns what the emulator decides about the path `rel` below the same graft.
    pub(super) fn decide(&self, cx: &Context<'_>, rel: &str) -> Result<Decision, Errno> {
        self.directory
            .entry(cx, rel)
            .map_err(|error| self.failed(&error))
    }

    /// Logs an error of the emulator, and returns its errno.
    pub(super) fn failed(&self, error: &eci_fs_emulators::Error) -> Errno {
        let errno = Errno(error.errno());
        if errno != Errno::NOENT {
            tracing::error!(path = self.directory.facts().path, rel = &*self.rel, %error, "cannot be computed");
        }
        errno
    }
}

/// Returns the owner of the paths below a directory graft. A container chooses names only in its network namespace.
pub(super) fn owner_of(directory: &dyn Directory) -> Owner {
    match directory.is_namespaced() {
        true => Owner::Container,
        false => Owner::Host,
    }
}

/// Returns whether a request about a node may sleep: for a driver, where a file of the host lies there, or for the daemon,
/// which looks into the container's network namespace.
pub(in crate::server::fs) fn can_sleep(id: NodeId) -> bool {
    match id.node() {
        Node::Below { .. } => true,
        Node::View { emulator, .. } => directory(emulator).is_some_and(|d| d.is_namespaced()),
        Node::Root | Node::Directory { .. } => false,
    }
}

/// Returns the path of `name` in the directory `rel`.
pub(super) fn join(rel: &str, name: &str) -> String {
    if rel.is_empty() {
        name.to_owned()
    } else {
        format!("{rel}/{name}")
    }
}
