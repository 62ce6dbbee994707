//! The nodes of paths below directory grafts.
//!
//! A node id holds the number of a path (`src/server/ids/paths`). The path is written to the state when it gets its number,
//! for the next server. One that did not fit into the state has to be found by walking.

use super::place::{Place, owner_of};
use crate::server::container::Attached;
use crate::server::error::Errno;
use crate::server::fs::persistence::Persistence;
use crate::server::ids::{Known, NodeId, Owner, Paths};
use crate::server::state::{Key, Record};

/// The numbers of all paths below directory grafts.
#[derive(Debug)]
pub(super) struct Nodes {
    /// The paths of the host. The names that a container chooses are its own ([`Attached::paths`]).
    paths: Paths,
    persistence: Persistence,
}

impl Nodes {
    pub(super) fn new(persistence: Persistence) -> Self {
        Self {
            paths: Paths::of_host(),
            persistence,
        }
    }

    /// Returns the node of the path `rel` below the directory graft of `place`, and writes down which path that is.
    ///
    /// # Errors
    /// EIO when the path can have no number.
    pub(super) fn node(&self, place: &Place, rel: &str) -> Result<NodeId, Errno> {
        let (slot, directory) = (place.slot, place.directory.facts().id);
        if rel.is_empty() {
            return Ok(NodeId::view(slot, directory));
        }
        let owner = owner_of(place.directory);
        let paths = self.paths_of(owner, &place.container);
        let number = paths.number(slot, directory, rel, |learned| {
            let (number, path) = (learned.number, rel.to_owned());
            let record = || match owner {
                Owner::Host => Record::Path {
                    number,
                    directory,
                    path,
                },
                Owner::Container => Record::OwnPath {
                    slot,
                    number,
                    directory,
                    path,
                },
            };
            self.persistence.put(record, &[]);
            if let Some(number) = learned.forgotten {
                self.persistence.forget(Key::OwnPath(slot, number));
            }
        })?;
        Ok(NodeId::below(slot, owner, number))
    }

    /// Returns the node of a path in a listing. The paths of the host are learned, because all containers have the same.
    /// A container's names are not, with few exceptions: it can have any number of them, and the kernel asks for a name
    /// before it uses its node.
    ///
    /// # Errors
    /// As [`Self::node`].
    pub(super) fn listed(&self, place: &Place, rel: &str) -> Result<NodeId, Errno> {
        let (slot, directory) = (place.slot, place.directory.facts().id);
        let owner = owner_of(place.directory);
        if owner == Owner::Host {
            return self.node(place, rel);
        }
        let paths = self.paths_of(owner, &place.container);
        match paths.number_in_listing(slot, directory, rel)? {
            Some(number) => Ok(NodeId::below(slot, owner, number)),
            None => self.node(place, rel),
        }
    }

    /// Returns the path with this number that `owner` has in a container; none if it is not known.
    pub(super) fn known(&self, owner: Owner, container: &Attached, number: u64) -> Option<Known> {
        self.paths_of(owner, container).path(number)
    }

    /// Returns the path of the host with this number; none if it is not known.
    pub(super) fn of_host(&self, number: u64) -> Option<Known> {
        self.paths.path(number)
    }

    /// Learns the number of a path of the host that a server before this one has given out.
    pub(super) fn learn(&self, number: u64, directory: u16, path: &str) {
        self.paths.restore(number, directory, path);
    }

    /// Returns the table of the paths that `owner` has, as far as `container` sees them.
    fn paths_of<'a>(&'a self, owner: Owner, container: &'a Attached) -> &'a Paths {
        match owner {
            Owner::Host => &self.paths,
            Owner::Container => &container.paths,
        }
    }
}
