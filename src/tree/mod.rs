//! The file system as values: nodes, attributes, contents. No type of a FUSE library may appear here, so that
//! almost everything is tested without a mount, and the library can be exchanged.
//!
//! One [`Tree`] serves both connections. It has a directory for each container, named by its slot, and below it
//! the paths of the container's views: `/7/proc/meminfo`. A graft is a clone of the mount at such a path, so
//! *which mount was read* says which container asks.

mod attr;
mod cached;
mod caller;
mod catalogue;
mod compute;
mod directories;
mod emulated;
mod expected;
mod freshness;
mod kernels;
mod live;
mod namespaced;
mod node;
mod paged;
mod paths;
mod raise;
mod remembered;
mod tunable;

use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dashmap::{DashMap, DashSet};
use eci_fs_emulators::{DIRECTORIES, EMULATORS, Host, Settings};
use eci_fs_mountd::protocol::link::{Connection, Row};
use parking_lot::Mutex;
use rustix::thread::CapabilitySets;

pub use attr::{Attr, Kind};
pub use caller::{Caller, Judged};
pub use directories::DirEntry;
pub use freshness::Freshness;
pub use live::Handle;
pub use node::{Node, NodeId};
pub use paged::Opened;
pub use remembered::Request;
pub use tunable::{TunableWritten, Write};

use crate::asks::Asks;
use crate::container::{Attached, Changed, Sampler, Watcher};
use crate::error::Errno;
use crate::raises::Raises;
use crate::state::State;
use crate::triggers::Triggers;
use directories::Directories;

/// How much older a view may be for a reader that holds it open. Shells read byte by byte and the kernel asks
/// before every read(2): without this a pass over a file would often mix two versions.
pub const HELD_OPEN_FACTOR: u32 = 10;

/// How old a static view may be, whose every change but that of the machine's CPUs is told of.
pub const STATIC_BOUND: Duration = Duration::from_secs(1);

/// One tick of USER_HZ, the resolution of these files.
const TICK: Duration = Duration::from_millis(10);

/// Files of cgroups that are kept open at most, and which share of the descriptors that a process may have.
const MOST_KEPT: usize = 4096;
const KEPT_SHARE: usize = 8;

/// Open snapshots that one container may have; more are refused, so that none can fill the server's memory.
pub const MAX_HANDLES: usize = 16_384;

/// How long the kernel may believe the directories on the way to the views. Only the daemon walks them, to clone
/// mounts, and what they are called never changes; a slot that is gone is not given out again.
pub const DIRECTORY_TIMEOUT: Duration = Duration::from_secs(1);

/// Everything that is served.
#[derive(Debug)]
pub struct Tree {
    host: Host,
    settings: Settings,
    padding: bool,
    freshness: Freshness,
    /// [`TICK`], as the kernel is told.
    tick: Duration,
    directories: Directories,
    /// Whether each of [`EMULATORS`] can be cached on this machine.
    cacheable: Vec<bool>,
    containers: DashMap<u64, Arc<Attached>>,
    expected: DashSet<u64>,
    handles: live::Handles,
    paths: paths::Paths,
    sampler: Sampler,
    services: Option<Services>,
    /// The users of this process's namespace, once they were asked for: it has no right to enter another.
    uid_map: OnceLock<Vec<u8>>,
    /// The capabilities of the thread with a pid.
    capabilities: fn(u32) -> CapabilitySets,
    /// Room to compute views in: one for each thread that does at the same time.
    rooms: Mutex<Vec<Vec<u8>>>,
}

/// What a tree has that is served, and one that is only looked at has not.
#[derive(Debug)]
pub struct Services {
    /// For what only the daemon can see.
    pub asks: Arc<Asks>,
    /// For what containers write.
    pub triggers: Arc<Triggers>,
    /// For what containers may raise on the machine.
    pub raises: Raises,
    /// For limits that change.
    pub watcher: Watcher,
    /// For what the next server must know.
    pub state: Arc<State>,
}

impl Tree {
    /// An empty tree on the machine `host`.
    ///
    /// Without `services`, nothing can be written, and changed limits show within the freshness.
    pub fn new(
        host: Host,
        services: Option<Services>,
        settings: Settings,
        padding: bool,
        freshness: Duration,
    ) -> Arc<Self> {
        host.share_reads(freshness.min(TICK));
        host.set_hz(freshness::hz());
        host.descriptors().set_capacity(most_kept(&host));
        let views = EMULATORS.iter().map(|emulator| emulator.facts().path);
        let directories = DIRECTORIES.iter().map(|directory| directory.facts().path);
        let unlimited = Attached::unlimited();
        let cx = unlimited.context(&host, &settings, None);
        let cacheable = (0..EMULATORS.len())
            .map(|index| Attached::can_cache(index, &cx, padding))
            .collect();
        Arc::new(Self {
            cacheable,
            host,
            settings,
            padding,
            freshness: Freshness::of(freshness),
            tick: Freshness::of(TICK).timeout,
            directories: Directories::of(views, directories),
            containers: DashMap::new(),
            expected: DashSet::new(),
            handles: live::Handles::default(),
            paths: paths::Paths::default(),
            sampler: Sampler::new(
                services
                    .as_ref()
                    .map(|services| Arc::clone(&services.state)),
            ),
            services,
            uid_map: OnceLock::new(),
            capabilities: caller::capabilities,
            rooms: Mutex::default(),
        })
    }

    /// Take in a container; returns what can be grafted into it.
    pub fn add(&self, slot: u64, mut container: Attached) -> Vec<Row> {
        container.keep_in(self.host.descriptors());
        container.set_slot(slot);
        let container = Arc::new(container);
        let rows = self.catalogue(&container);
        self.containers.insert(slot, Arc::clone(&container));
        self.expected.remove(&slot);
        if let Some(services) = &self.services {
            services.watcher.add(slot, &container);
            // Where nothing may be older than the very moment, nothing is remembered.
            if container.is_watched() && !self.freshness_of(&container).bound.is_zero() {
                container.remember_limits();
            }
        }
        rows
    }

    /// What can be grafted into the container in `slot`.
    ///
    /// # Errors
    /// ENOENT when there is none.
    pub fn catalogue_of(&self, slot: u64) -> Result<Vec<Row>, Errno> {
        Ok(self.catalogue(&*self.container(slot)?))
    }

    /// Let go of a container. What still holds one of its views meets ENOENT.
    pub fn remove(&self, slot: u64) {
        self.containers.remove(&slot);
        self.handles.remove_slot(slot);
        if let Some(services) = &self.services {
            services.watcher.remove(slot);
            services.triggers.remove_slot(slot);
            services.state.forget_slot(slot);
        }
    }

    /// Count the threads of all containers whose load averages somebody reads; runs until the process ends.
    pub fn sample_for_ever(&self) {
        self.sampler.run(&self.host);
    }

    /// Hear of changed limits, and tell `changed` the slot; runs until the process ends.
    pub fn watch_for_ever(&self, changed: &Changed) {
        if let Some(services) = &self.services {
            services.watcher.run(changed);
        }
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
                let is_there = self.containers.contains_key(&slot) || self.is_expected(slot);
                (is_there && slot.to_string() == name)
                    .then(|| NodeId::directory(slot, directories::TOP))
                    .ok_or(Errno::NOENT)
            }
            Node::Directory { slot, directory } => {
                let container = match self.is_expected(slot) {
                    true => None,
                    false => Some(self.container(slot)?),
                };
                self.directories
                    .child(slot, directory, name, container.as_deref(), connection)
                    .map(|(_, id)| id)
                    .ok_or(Errno::NOENT)
            }
            Node::View { .. } | Node::Below { .. } => match self.place(parent)? {
                Some(place) => self.place_lookup(&place, name),
                None => Err(Errno::NOTDIR),
            },
        }
    }

    /// What a lookup tells of a node: everything, but for a view that was never read its size and its time, which the
    /// kernel asks for when it needs them. So an attach computes no view.
    ///
    /// # Errors
    /// ENOENT when it is gone.
    pub fn looked_up(&self, id: NodeId) -> Result<(Attr, Duration), Errno> {
        if self.is_expected(id.slot()) {
            return self.expected_attr(id);
        }
        let attr = self.looked_up_attr(id)?;
        // Of a file neither the name nor the attributes; but of one that is grafted over nobody sees those.
        let timeout = match attr.kind {
            Kind::Directory => self.directory_timeout(id),
            _ if self.is_covered(id)? => self.directory_timeout(id),
            _ => Duration::ZERO,
        };
        Ok((attr, timeout))
    }

    /// How long the kernel may believe a directory: what lies in a directory graft changes with limits and CPUs, as
    /// views do.
    pub fn directory_timeout(&self, id: NodeId) -> Duration {
        if id.is_walked() {
            return DIRECTORY_TIMEOUT;
        }
        // Of a container that is gone nothing is believed.
        self.container(id.slot())
            .map_or(Duration::ZERO, |container| {
                self.freshness_of(&container).timeout
            })
    }

    /// How old the views of a container may be.
    fn freshness_of(&self, container: &Attached) -> Freshness {
        container.freshness.unwrap_or(self.freshness)
    }

    /// What the views of all containers are set to, but where one has settings of its own.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn looked_up_attr(&self, id: NodeId) -> Result<Attr, Errno> {
        if let Some(place) = self.place(id)? {
            return self.place_attr(id, &place, false);
        }
        let Node::View { slot, emulator } = id.node() else {
            return self.directory_attr(id);
        };
        let container = self.container(slot)?;
        let index = container.index(emulator)?;
        // As it was announced last: the kernel believes the size, also for a reader who is in the middle of the view.
        let (size, mtime) = container
            .version(index)
            .map_or((0, std::time::SystemTime::UNIX_EPOCH), |version| {
                (version.text.len(), version.mtime)
            });
        Ok(Attr::view(id, &container, index, size, mtime))
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
            Node::View { .. } | Node::Below { .. } => match self.place(id)? {
                Some(place) => self.place_entries(&place),
                None => Err(Errno::NOTDIR),
            },
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
        self.render(&container, index, <[u8]>::to_vec)
    }

    /// The attributes of a directory.
    fn directory_attr(&self, id: NodeId) -> Result<Attr, Errno> {
        match id.node() {
            Node::Root => Ok(Attr::directory(id, 0, 0)),
            Node::Directory { slot, .. } if self.is_expected(slot) => Ok(Attr::directory(id, 0, 0)),
            Node::Directory { slot, .. } => {
                let container = self.container(slot)?;
                Ok(Attr::directory(id, container.uid, container.gid))
            }
            Node::View { .. } | Node::Below { .. } => Err(Errno::NOTDIR),
        }
    }
}

/// How many files of cgroups and of the machine may be kept open. The limit is read from /proc: the filter of system calls has no
/// getrlimit(2).
fn most_kept(host: &Host) -> NonZeroUsize {
    let limits = host
        .read(&format!("/proc/{}/limits", std::process::id()))
        .unwrap_or_default();
    let limit = String::from_utf8_lossy(&limits).lines().find_map(|line| {
        let soft = line
            .strip_prefix("Max open files")?
            .split_ascii_whitespace()
            .next()?;
        soft.parse::<usize>().ok()
    });
    let most = limit.unwrap_or(0) / KEPT_SHARE;
    NonZeroUsize::new(most.min(MOST_KEPT)).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests;
