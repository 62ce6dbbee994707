//! The file system: it owns the parts, knows which of them a node belongs to, and hands each request to that.

mod class;
mod look;
mod operations;
mod perform;

use std::fmt::Debug;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use eci_fs_emulators::{EMULATORS, Host, Settings};
use eci_fs_protocol::host_sysctl::HostSysctl;
use eci_fs_protocol::link::{Connection, Row, Usage};
use rustix::thread::CapabilitySets;

pub(super) use class::Class;
pub use look::Looked;

use super::cached::CachedViews;
use super::catalogue::Catalogue;
use super::containers::Containers;
use super::directories::Directories;
use super::grafts::DirectoryGrafts;
use super::live::LiveViews;
use super::permission::{self, Permissions};
use super::persistence::Persistence;
use super::render::Renderer;
use super::snapshots::Snapshots;
use super::sysctls::Sysctls;
use crate::server::account::{Account, Share};
use crate::server::broker::BrokerClient;
use crate::server::budget::Budget;
use crate::server::clock;
use crate::server::container::{self, Attached, Freshness, Watcher};
use crate::server::error::Errno;
use crate::server::host_sysctls::HostSysctls;
use crate::server::ids::{NodeId, PATH_BYTES, PATH_FLOOR};
use crate::server::in_flight::InFlight;
use crate::server::psi::Triggers;
use crate::server::state::{Begin, NO_SLOT, Record, Remembered, State};

/// One tick of USER_HZ, which is the resolution of these files.
const TICK: Duration = Duration::from_millis(10);

/// The most files of cgroups that are kept open, and the share that they may take of the descriptors of the process.
const MOST_KEPT: usize = 4096;
const KEPT_SHARE: usize = 8;

/// The file system of all containers.
#[derive(Debug)]
pub struct FileSystem {
    host: Arc<Host>,
    containers: Arc<Containers>,
    renderer: Arc<Renderer>,
    persistence: Persistence,
    permissions: Arc<Permissions>,
    snapshots: Arc<Snapshots>,
    catalogue: Catalogue,
    directories: Directories,
    cached: CachedViews,
    live: LiveViews,
    sysctls: Sysctls,
    grafts: DirectoryGrafts,
    /// The bytes of the names that containers choose.
    names: Arc<Budget>,
    in_flight: InFlight,
    share: Share,
    /// The account of requests for slots in which nothing is.
    strangers: Arc<Account>,
    /// The watcher of limits. This and the next three are there only where the file system is served.
    watcher: Option<Arc<Watcher>>,
    /// The way to the daemon, which adds the watches.
    broker: Option<Arc<BrokerClient>>,
    /// The pressure triggers.
    triggers: Option<Arc<Triggers>>,
    /// The kernel's cache, which is told what it may not believe.
    kernel: Option<Arc<dyn KernelCache>>,
}

/// The kernel's cache of the answers that it was given.
pub trait KernelCache: Debug + Send + Sync {
    /// Has the kernel believe the attributes of a node no more, nor those that it is being told.
    fn distrust(&self, connection: Connection, id: NodeId);
}

/// The services of a file system that is served. One that is only looked at has none.
#[derive(Debug)]
pub struct Services {
    /// The way to the daemon, for what only that can see.
    pub broker: Arc<BrokerClient>,
    /// The pressure triggers of containers.
    pub triggers: Arc<Triggers>,
    /// The way to the daemon for what containers may raise on the host.
    pub host_sysctls: HostSysctls,
    /// The watcher of limits that change.
    pub watcher: Watcher,
    /// The state that the next server reads.
    pub state: Arc<State>,
    /// The kernel, to be told what it may not believe.
    pub kernel: Arc<dyn KernelCache>,
    /// The counter of requests that are answered by other threads.
    pub in_flight: InFlight,
}

impl FileSystem {
    /// Makes an empty file system of views of `host`. A view may be as old as `freshness`.
    ///
    /// Without `services`, nothing can be written, and changed limits show within the freshness.
    pub fn new(
        host: Host,
        services: Option<Services>,
        settings: Settings,
        freshness: Duration,
    ) -> Arc<Self> {
        let capabilities = permission::capabilities;
        Self::assemble(host, services, settings, freshness, capabilities)
    }

    /// Makes the parts and gives each what it needs. `capabilities` returns those of a thread.
    fn assemble(
        host: Host,
        services: Option<Services>,
        settings: Settings,
        freshness: Duration,
        capabilities: fn(u32) -> CapabilitySets,
    ) -> Arc<Self> {
        host.share_reads(freshness.min(TICK));
        host.set_hz(container::hz());
        host.descriptors().set_capacity(most_kept(&host));
        let (broker, triggers, host_sysctls, watcher, state, kernel, in_flight) = match services {
            Some(services) => (
                Some(services.broker),
                Some(services.triggers),
                Some(services.host_sysctls),
                Some(Arc::new(services.watcher)),
                Some(services.state),
                Some(services.kernel),
                services.in_flight,
            ),
            None => (None, None, None, None, None, None, InFlight::default()),
        };
        let host = Arc::new(host);
        let containers = Arc::new(Containers::default());
        let share = Share::default();
        let persistence = Persistence::new(state);
        let renderer = Arc::new(Renderer::new(
            Arc::clone(&host),
            settings,
            Freshness::of(freshness),
            watcher.clone(),
            persistence.clone(),
        ));
        let permissions = Arc::new(Permissions::new(
            Arc::clone(&host),
            broker.clone(),
            capabilities,
        ));
        let snapshots = Arc::new(Snapshots::new(Arc::clone(&containers), persistence.clone()));
        Arc::new(Self {
            catalogue: Catalogue::new(Arc::clone(&renderer)),
            directories: Directories::new(Arc::clone(&containers)),
            cached: CachedViews::new(Arc::clone(&renderer)),
            live: LiveViews::new(
                Arc::clone(&renderer),
                Arc::clone(&snapshots),
                triggers.clone(),
            ),
            sysctls: Sysctls::new(
                Arc::clone(&renderer),
                Arc::clone(&containers),
                Arc::clone(&snapshots),
                Arc::clone(&permissions),
                persistence.clone(),
                host_sysctls,
                TICK,
            ),
            grafts: DirectoryGrafts::new(
                Arc::clone(&host),
                Arc::clone(&renderer),
                Arc::clone(&containers),
                Arc::clone(&snapshots),
                Arc::clone(&permissions),
                persistence.clone(),
                broker.clone(),
            ),
            host,
            containers,
            renderer,
            persistence,
            permissions,
            snapshots,
            names: Budget::new(PATH_BYTES, PATH_FLOOR),
            in_flight,
            strangers: Arc::new(Account::new(NO_SLOT, share.clone(), Instant::now())),
            share,
            watcher,
            broker,
            triggers,
            kernel,
        })
    }

    /// Returns what was done for the container in `slot`, if there is one.
    pub fn usage(&self, slot: u64) -> Option<Usage> {
        Some(self.containers.get(slot).ok()?.account.usage())
    }

    /// Sets the share of the server's CPU time that each container has, in percent of one CPU; 0 for no limit.
    pub fn set_share(&self, percent: u32) {
        self.share.set(percent);
    }

    /// Takes in a container, and returns what can be grafted into it.
    pub fn add(&self, slot: u64, mut container: Attached) -> Vec<Row> {
        container.keep_in(self.host.descriptors());
        container.paths.charge_to(&self.names);
        container.set_slot(slot);
        container.account = Arc::new(Account::new(slot, self.share.clone(), Instant::now()));
        let container = Arc::new(container);
        let rows = self.catalogue.of(&container);
        self.containers.insert(slot, Arc::clone(&container));
        self.directories.has_come(slot);
        if let (Some(watcher), Some(broker)) = (&self.watcher, &self.broker) {
            watcher.add(slot, &container, broker);
            // Where nothing may be older than the very moment, no limits are cached.
            if container.is_watched() && !self.renderer.freshness(&container).bound.is_zero() {
                container.cache_limits();
            }
        }
        rows
    }

    /// Returns what can be grafted into the container in `slot`.
    ///
    /// # Errors
    /// ENOENT when there is none.
    pub fn catalogue_of(&self, slot: u64) -> Result<Vec<Row>, Errno> {
        Ok(self.catalogue.of(&*self.containers.get(slot)?))
    }

    /// Prepares a slot for a container with this generation that is going to be there.
    pub fn prepare(&self, slot: u64, generation: u32) {
        self.directories.prepare(slot, generation);
    }

    /// Returns whether a container has a generation.
    pub fn has_generations(&self) -> bool {
        let mut all = self.containers.iter();
        all.any(|container| container.generation != 0)
    }

    /// Removes a container. A program that still holds one of its views meets ENOENT.
    pub fn remove(&self, slot: u64) {
        if let Ok(container) = self.containers.get(slot) {
            container.account.close();
        }
        self.containers.remove(slot);
        self.snapshots.remove_slot(slot);
        if let Some(watcher) = &self.watcher {
            watcher.remove(slot);
        }
        if let Some(triggers) = &self.triggers {
            triggers.remove_slot(slot);
        }
        self.persistence.forget_slot(slot);
    }

    /// Returns the settings of the containers that have none of their own.
    pub fn settings(&self) -> &Settings {
        self.renderer.settings()
    }

    /// Returns the host's files.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the process behind a pidfd; none when it has ended.
    pub fn pid_behind(&self, pidfd: &OwnedFd) -> Option<u32> {
        self.permissions.pid_behind(pidfd)
    }

    /// Returns the users of the namespace of a process; nothing when it has ended.
    pub fn uid_map_of(&self, process: Option<u32>) -> Vec<u8> {
        process.map_or_else(Vec::new, |pid| self.permissions.uid_map(pid))
    }

    /// Asks the daemon for the user namespaces of callers from now on, or does not any more.
    pub fn ask_for_user_namespaces(&self, is_answered: bool) {
        self.permissions.ask_for_user_namespaces(is_answered);
    }

    /// Tells the daemon of these sysctls of the host from now on, also of what was written already.
    pub fn raise(&self, tunables: Vec<HostSysctl>) {
        self.sysctls.raise(tunables);
    }

    /// Counts the threads of all containers whose load averages are read. It runs until the process ends.
    pub fn sample_forever(&self) {
        self.renderer.sample_forever();
    }

    /// Hears of changed limits, and has the kernel believe no attributes that change with them. It runs until the process
    /// ends.
    pub fn watch_forever(&self) {
        if let Some(watcher) = &self.watcher {
            watcher.run(|slot| self.distrust(slot));
        }
    }

    /// Tells the daemon of what containers write to tunables. It runs until the process ends.
    pub fn report_forever(&self) {
        self.sysctls.report_forever();
    }

    /// Makes the kernel drop the attributes of those views of a container that change with limits or settings.
    pub fn distrust(&self, slot: u64) {
        if let Some(kernel) = &self.kernel {
            for (connection, id) in self.limited_nodes(slot) {
                kernel.distrust(connection, id);
            }
        }
    }

    /// Returns the nodes of a container that the kernel may hold attributes of which change with its limits. A view that
    /// is served on the live connection may be grafted from the cached one, if the freshness was not 0 then.
    fn limited_nodes(&self, slot: u64) -> Vec<(Connection, NodeId)> {
        let Ok(container) = self.containers.get(slot) else {
            return Vec::new();
        };
        let limited = |index: usize| {
            let _is_served = container.connection(index)?;
            let emulator = EMULATORS[index];
            let connection = match emulator.tunable() {
                None => Connection::Cached,
                Some(tunable) if tunable.follows_limits() => Connection::Live,
                Some(_) => return None,
            };
            Some((connection, NodeId::view(slot, emulator.facts().id)))
        };
        (0..EMULATORS.len()).filter_map(limited).collect()
    }

    /// Takes over from the server before this one; false while another one serves. Before that nothing may be read.
    ///
    /// # Errors
    /// When it cannot be known which server serves.
    pub fn begin(&self) -> io::Result<bool> {
        // Without a table that would have to be kept, no number is given to two files: a server gives them out more
        // slowly than one in a nanosecond.
        self.snapshots.begin_at(clock::since_boot_nsec());
        let is_served = |slot| slot == NO_SLOT || self.containers.contains(slot);
        match self.persistence.begin(is_served)? {
            Begin::Another => return Ok(false),
            Begin::Already => {}
            Begin::Read(remembered) => {
                // After another server than this one, that has opened and closed.
                self.snapshots.close_all();
                if let Some(triggers) = &self.triggers {
                    triggers.disarm_all();
                }
                remembered.into_iter().for_each(|one| self.restore(one));
            }
        }
        self.sysctls.report_all();
        Ok(true)
    }

    /// Writes down what a server must know that takes the place of this one in an upgrade.
    pub fn end(&self) {
        self.snapshots.persist_read();
    }

    /// Takes over a record of the server before this one.
    fn restore(&self, Remembered { record, text }: Remembered) {
        if let Record::Path {
            number,
            directory,
            path,
        } = &record
        {
            // Version 0.1.0 numbered the names of containers like these. Who holds one open reaches it by that number.
            self.grafts.learn(*number, *directory, path);
            return;
        }
        let Ok(container) = self.containers.get(record.slot()) else {
            return;
        };
        match record {
            Record::History { shown, .. } => container.history().restore(shown),
            Record::Load {
                load, counted_nsec, ..
            } => {
                // The record may be of another boot.
                if let Some(counted) = clock::from_nsec(counted_nsec) {
                    self.renderer.restore_load(&container, load, counted);
                }
            }
            Record::OwnPath {
                number,
                directory,
                path,
                ..
            } => container.paths.restore(number, directory, &path),
            Record::Path { .. } => {}
            Record::Snapshot(snapshot) => {
                self.snapshots.restore(&container, snapshot, text.into());
            }
            Record::Tunable {
                emulator, value, ..
            } => container.tunables().restore(emulator, &value),
            Record::Version {
                emulator,
                size,
                mtime,
                ..
            } => {
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                if let Ok(index) = container.index(emulator)
                    && let Some(mtime) = SystemTime::UNIX_EPOCH.checked_add(mtime)
                {
                    container.restore_version(index, text.into(), size, mtime);
                }
            }
            Record::Trigger(trigger) => {
                if let Some(triggers) = &self.triggers {
                    triggers.restore(trigger);
                }
            }
        }
    }
}

/// Returns the number of files of cgroups and of the host that may be kept open. The limit is read from /proc: the filter
/// of system calls has no getrlimit(2).
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
mod prepared_tests;
#[cfg(test)]
mod sysctl_tests;
#[cfg(test)]
mod tests;
