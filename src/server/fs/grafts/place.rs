//! A path below a directory graft, and the emulator that decides about it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use eci_fs_emulators::{Context, Decision, Directory, EMULATORS};

use crate::server::container::Attached;
use crate::server::error::Errno;
use crate::server::ids::Owner;

/// A path below a directory graft of a container, or the graft itself.
pub(in crate::server::fs) struct Place {
    pub(super) container: Arc<Attached>,
    pub(super) slot: u64,
    pub(super) directory: &'static dyn Directory,
    /// The path below the graft; empty for the graft itself.
    pub(super) rel: Arc<str>,
}

impl Place {
    /// Returns the id of the directory graft.
    pub(in crate::server::fs) fn graft(&self) -> u16 {
        self.directory.facts().id
    }

    /// Returns whether it lies on the way to single files, or is one of these.
    pub(in crate::server::fs) fn is_way(&self) -> bool {
        self.directory.is_by_file()
    }

    /// Returns the path of the directory that holds it, if it lies on the way to single files.
    pub(in crate::server::fs) fn above_on_way(&self) -> Option<&str> {
        let (above, _) = split(&self.rel).filter(|_| self.is_way())?;
        Some(above)
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

/// The index of each emulator in [`EMULATORS`], by its path.
static INDICES: LazyLock<HashMap<&str, usize>> = LazyLock::new(|| {
    let paths = EMULATORS.iter().map(|emulator| emulator.facts().path);
    paths.zip(0..).collect()
});

/// Returns the index in [`EMULATORS`] of the view that is grafted over the path `rel` below the graft of `place`; none if
/// nothing is.
pub(super) fn covering(place: &Place, rel: &str) -> Option<usize> {
    let index = *INDICES.get(join(place.directory.facts().path, rel).as_str())?;
    place.container.connection(index)?;
    Some(index)
}

/// Returns the path of the directory that holds `rel`, and the name of `rel` in it; none for a directory graft itself.
pub(super) fn split(rel: &str) -> Option<(&str, &str)> {
    match rel.rsplit_once('/') {
        None if rel.is_empty() => None,
        None => Some(("", rel)),
        split => split,
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
