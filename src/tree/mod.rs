//! The file system as values: nodes, attributes, contents. No type of a FUSE library may appear here, so that
//! almost everything is tested without a mount, and the library can be exchanged.
//!
//! One [`Tree`] serves both connections. It has a directory for each container, named by its slot, and below it
//! the paths of the container's views: `/7/proc/meminfo`. A graft is a clone of the mount at such a path, so
//! *which mount was read* says which container asks.

mod attr;
mod cached;
mod directories;
mod live;
mod node;

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use eci_fs_emulators::{EMULATORS, Host, Settings};
use eci_fs_mountd::protocol::link::{Connection, Row};

pub use attr::{Attr, Kind};
pub use directories::DirEntry;
pub use live::Handle;
pub use node::{Node, NodeId};

use crate::container::{Attached, Sampler};
use crate::error::Errno;
use crate::triggers::Triggers;
use directories::Directories;

/// How the views are kept.
#[derive(Debug, Clone, Copy)]
pub struct Freshness {
    /// How old a view may be when it is opened.
    pub bound: Duration,
    /// The same, as the kernel is told: whole jiffies, rounded down, because it rounds up.
    pub timeout: Duration,
}

/// How much older a view may be for a reader that holds it open. Shells read byte by byte and the kernel asks
/// before every read(2): without this a pass over a file would often mix two versions.
pub const HELD_OPEN_FACTOR: u32 = 10;

/// Open snapshots that one container may have; more are refused, so that none can fill the server's memory.
pub const MAX_HANDLES: usize = 16_384;

/// Everything that is served.
#[derive(Debug)]
pub struct Tree {
    host: Host,
    settings: Settings,
    padding: bool,
    freshness: Freshness,
    directories: Directories,
    containers: DashMap<u64, Arc<Attached>>,
    handles: live::Handles,
    sampler: Sampler,
    triggers: Option<Arc<Triggers>>,
}

impl Tree {
    /// An empty tree on the machine `host`.
    ///
    /// Without `triggers`, nothing can be written.
    pub fn new(
        host: Host,
        triggers: Option<Arc<Triggers>>,
        settings: Settings,
        padding: bool,
        freshness: Duration,
    ) -> Arc<Self> {
        let paths = EMULATORS.iter().map(|emulator| emulator.facts().path);
        Arc::new(Self {
            host,
            settings,
            padding,
            freshness: Freshness {
                bound: freshness,
                timeout: whole_jiffies(freshness),
            },
            directories: Directories::of(paths),
            containers: DashMap::new(),
            handles: live::Handles::default(),
            sampler: Sampler::default(),
            triggers,
        })
    }

    /// Take in a container; returns what can be grafted into it.
    pub fn add(&self, slot: u64, container: Attached) -> Vec<Row> {
        let container = Arc::new(container);
        let rows = self.catalogue(&container);
        self.containers.insert(slot, Arc::clone(&container));
        rows
    }

    /// Let go of a container. What still holds one of its views meets ENOENT.
    pub fn remove(&self, slot: u64) {
        self.containers.remove(&slot);
        self.handles.remove_slot(slot);
        if let Some(triggers) = &self.triggers {
            triggers.remove_slot(slot);
        }
    }

    /// The machine.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Count the threads of all containers whose load averages somebody reads; runs until the process ends.
    pub fn sample_for_ever(&self) {
        self.sampler.run(&self.host);
    }

    /// One row for each view that exists for this container.
    fn catalogue(&self, container: &Attached) -> Vec<Row> {
        let mut rows = Vec::new();
        for (index, emulator) in EMULATORS.iter().enumerate() {
            let cx = container.context(&self.host, &self.settings, &self.sampler, *emulator);
            if !emulator.exists(&cx) {
                continue;
            }
            let connection =
                container.choose_connection(index, &cx, self.padding, self.freshness.bound);
            rows.push(Row {
                path: emulator.facts().path.to_owned(),
                connection,
                writable: emulator.facts().mode & 0o222 != 0,
                directory: false,
            });
        }
        rows
    }

    fn container(&self, slot: u64) -> Result<Arc<Attached>, Errno> {
        self.containers
            .get(&slot)
            .map(|entry| Arc::clone(&entry))
            .ok_or(Errno::NOENT)
    }

    /// The node named `name` in the directory `parent` of a connection.
    ///
    /// # Errors
    /// ENOENT; ENOTDIR when `parent` is a file.
    pub fn lookup(
        &self,
        connection: Connection,
        parent: NodeId,
        name: &str,
    ) -> Result<NodeId, Errno> {
        match parent.node() {
            Node::Root => {
                let slot = name.parse::<u64>().map_err(|_| Errno::NOENT)?;
                // "007" is not the name of 7.
                (self.containers.contains_key(&slot) && slot.to_string() == name)
                    .then(|| NodeId::directory(slot, directories::TOP))
                    .ok_or(Errno::NOENT)
            }
            Node::Directory { slot, directory } => {
                let container = self.container(slot)?;
                self.directories
                    .child(directory, name)
                    .and_then(|child| child.node_in(slot, &container, connection))
                    .ok_or(Errno::NOENT)
            }
            Node::View { .. } => Err(Errno::NOTDIR),
        }
    }

    /// The entries of a directory of a connection, "." and ".." left to the caller.
    ///
    /// # Errors
    /// ENOENT when its container is gone; ENOTDIR.
    pub fn entries(&self, connection: Connection, id: NodeId) -> Result<Vec<DirEntry>, Errno> {
        match id.node() {
            // Nobody needs to know who else is there: the root is never grafted, but it costs nothing.
            Node::Root => Ok(Vec::new()),
            Node::Directory { slot, directory } => {
                let container = self.container(slot)?;
                Ok(self
                    .directories
                    .entries(slot, directory, &container, connection))
            }
            Node::View { .. } => Err(Errno::NOTDIR),
        }
    }

    /// The view at `path` of the container in `slot`, whatever the connection.
    ///
    /// # Errors
    /// ENOENT when there is no such container or view; EIO when it cannot be computed.
    pub fn text(&self, slot: u64, path: &str) -> Result<Vec<u8>, Errno> {
        let container = self.container(slot)?;
        let emulator = EMULATORS
            .iter()
            .find(|e| e.facts().path == path)
            .ok_or(Errno::NOENT)?;
        let index = container.index(emulator.facts().id)?;
        container.render(
            index,
            &self.host,
            &self.settings,
            &self.sampler,
            self.padding,
        )
    }

    /// The attributes of a directory.
    fn directory_attr(&self, id: NodeId) -> Result<Attr, Errno> {
        match id.node() {
            Node::Root => Ok(Attr::directory(id, 0, 0)),
            Node::Directory { slot, .. } => {
                let container = self.container(slot)?;
                Ok(Attr::directory(id, container.uid, container.gid))
            }
            Node::View { .. } => Err(Errno::NOTDIR),
        }
    }
}

/// Round down to whole jiffies. A timeout is rounded up to jiffies by the kernel, and ends with the jiffy after
/// it, so what is sent must not be more than what is promised. One jiffy is the resolution of the coarse clock.
fn whole_jiffies(freshness: Duration) -> Duration {
    let jiffy = nix::time::clock_getres(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)
        .map(Duration::from)
        .unwrap_or(Duration::from_millis(1))
        .max(Duration::from_nanos(1));
    let jiffies = freshness.as_nanos() / jiffy.as_nanos();
    jiffy.saturating_mul(u32::try_from(jiffies).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
