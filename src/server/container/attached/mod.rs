//! One attached container: the values that its views are computed from, and the last versions of these.

mod version;
mod versions;
mod view;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use eci_fs_emulators as emulators;
use eci_fs_emulators::{
    Bound, Cgroup, Container, Context, Controller, DescriptorCache, EMULATORS, Hierarchy,
    HierarchyCache, History, Host, IdMap, IdRange, Identity, Load, Network, Pace, Settings,
    TUNABLES, Values,
};
use eci_fs_protocol::capabilities::bounding_set_can_measure;
use eci_fs_protocol::choices::Choices;
use eci_fs_protocol::facts::Facts;
use eci_fs_protocol::facts::NetworkFacts;
use eci_fs_protocol::link::{Connection, Secrets, WatchedFile};
use parking_lot::Mutex;

use super::freshness::{Freshness, STATIC_BOUND};
use super::sampler::{LoadSample, Sampler};
use super::settings::{cpu_ids, cpu_quota};
use super::user_namespace::UserNamespaceCache;
use crate::server::account::{Account, Share};
use crate::server::budget::Part;
use crate::server::clock;
use crate::server::error::Errno;
use crate::server::ids::Paths;
pub use version::{SizeChange, Version};
use view::View;

/// The page cache can hold this many bytes of a ticking view without a reader seeing two versions: one page of the
/// smallest size that Linux has.
const ONE_PAGE: usize = 4096;

/// A container that is served. All numbers of users and groups are the host's.
#[derive(Debug)]
pub struct Attached {
    slot: u64,
    /// The generation of its nodes, which is never another one.
    pub generation: u32,
    /// The account of what the server does for it.
    pub account: Arc<Account>,
    /// The values that its views are computed from.
    pub(super) container: Arc<Container>,
    /// The process whose life is the container's, if the server was told of it.
    pub process: Option<u32>,
    /// The user that is root in the container.
    pub uid: u32,
    /// The group of that user.
    pub gid: u32,
    /// The users of its user namespace, as /proc/\<pid>/uid_map of its process has them. They tell that namespace from
    /// others.
    pub uid_map: Vec<u8>,
    /// The names in its network namespace below directory grafts.
    pub(in crate::server) paths: Paths,
    /// The user namespace of the thread that wrote last to a tunable that takes a capability.
    pub user_namespaces: UserNamespaceCache,
    /// The freshness of its views, if that is set for it alone.
    pub freshness: Option<Freshness>,
    /// The settings of its views, if they are set for it alone.
    pub settings: Option<Settings>,
    /// The paths that are not grafted.
    without: Vec<String>,
    /// The load, if somebody reads that.
    pub(super) sample: Arc<LoadSample>,
    views: Vec<View>,
    directories: Mutex<Vec<u16>>,
    /// The bytes of its open snapshots.
    pub(in crate::server) snapshots: Arc<Part>,
    /// True if [`Self::expire`] is called at each change of its limits.
    watched: AtomicBool,
    /// The time of the last call.
    expired: Mutex<Option<Instant>>,
    /// The time of the last look at what changes without an event, in nanoseconds of CLOCK_BOOTTIME.
    looked: AtomicU64,
}

impl Attached {
    /// Makes a container of what the daemon handed over: `dirs` are the directories of `facts.hierarchies`.
    ///
    /// # Errors
    /// In words for the daemon's log, when the directories are not as many, or of an unknown cgroup version.
    pub fn new(facts: &Facts, secrets: &Secrets, dirs: Vec<OwnedFd>) -> Result<Self, String> {
        if dirs.len() != facts.hierarchies.len() {
            return Err(format!(
                "{} hierarchies came with {} directories",
                facts.hierarchies.len(),
                dirs.len()
            ));
        }
        let hierarchies = facts
            .hierarchies
            .iter()
            .zip(dirs)
            .map(|(hierarchy, dir)| {
                let version = match hierarchy.version {
                    1 => emulators::Version::V1,
                    2 => emulators::Version::V2,
                    other => return Err(format!("there is no cgroup version {other}")),
                };
                // No view reads the other controllers.
                let controllers = hierarchy
                    .controllers
                    .iter()
                    .filter_map(|name| name.parse::<Controller>().ok())
                    .collect();
                Ok(Hierarchy {
                    version,
                    controllers,
                    dir,
                    depth: hierarchy.depth,
                    cache: HierarchyCache::default(),
                })
            })
            .collect::<Result<_, _>>()?;
        let identity = Identity {
            id: facts.id.clone(),
            start: Duration::from_nanos(facts.start_nsec),
            boottime_offset: facts.boottime_offset_nsec.map(i128::from),
            pid_level: facts.pid_level,
            pid_max_is_own: facts.pid_max_is_own,
            network: facts.network.as_ref().map(network),
            disks: facts
                .disks
                .iter()
                .map(|(major, minor)| (u64::from(*major), u64::from(*minor)))
                .collect(),
            boot_id: secrets.boot_id,
            host_secret: secrets.host_secret,
        };
        let container = Container {
            cgroup: Cgroup::new(hierarchies),
            identity,
            history: Default::default(),
            tunables: Default::default(),
            can_measure_cpus: AtomicBool::new(facts.can_measure_cpus),
        };
        let mut attached = Self::over(container, facts.uid, facts.gid);
        attached.generation = secrets.generation;
        Ok(attached)
    }

    pub(crate) fn over(container: Container, uid: u32, gid: u32) -> Self {
        Self {
            slot: 0,
            generation: 0,
            account: Arc::new(Account::new(0, Share::default(), Instant::now())),
            paths: Paths::of_container(&container.identity.host_secret),
            container: Arc::new(container),
            process: None,
            uid,
            gid,
            uid_map: Vec::new(),
            user_namespaces: UserNamespaceCache::default(),
            freshness: None,
            settings: None,
            without: Vec::new(),
            sample: Arc::new(LoadSample::default()),
            views: EMULATORS.iter().map(|_| View::default()).collect(),
            directories: Mutex::default(),
            snapshots: Arc::default(),
            watched: AtomicBool::new(false),
            expired: Mutex::new(None),
            looked: AtomicU64::new(0),
        }
    }

    /// Sets what is chosen for this container alone. The rest is as in `settings`.
    pub fn choose(&mut self, choices: &Choices, settings: &Settings) {
        self.freshness = choices
            .freshness_ms
            .map(|freshness| Freshness::of(Duration::from_millis(freshness)));
        let chosen = Settings {
            cpu_ids: choices.cpu_ids.map_or(settings.cpu_ids, cpu_ids),
            cpu_quota: choices.cpu_quota.map(cpu_quota).or(settings.cpu_quota),
            ..*settings
        };
        self.settings = (chosen != *settings).then_some(chosen);
        self.without.clone_from(&choices.without);
    }

    /// Returns whether the entry at `path` is not to be grafted. The daemon leaves out the rows at these paths; the files
    /// of a directory that are grafted one by one have other paths.
    pub fn leaves_out(&self, path: &str) -> bool {
        self.without.iter().any(|without| without == path)
    }

    /// Returns the number of its directory in both connections; 0, which nobody has, until it has one.
    pub fn slot(&self) -> u64 {
        self.slot
    }

    /// Sets the number of its directory.
    pub fn set_slot(&mut self, slot: u64) {
        self.slot = slot;
    }

    /// Returns the values that it has written to tunables.
    pub fn tunables(&self) -> &Values {
        &self.container.tunables
    }

    /// Returns the counters that it was shown last.
    pub fn history(&self) -> &History {
        &self.container.history
    }

    /// Keeps the files of its cgroup open in a descriptor cache. Nobody else may hold the container yet.
    pub fn keep_in(&mut self, cache: &Arc<DescriptorCache>) {
        if let Some(container) = Arc::get_mut(&mut self.container) {
            container.cgroup.cache_descriptors_in(cache);
        }
    }

    /// Returns the values that its views are computed from at this moment; with `sampler`, its threads and their load too.
    pub fn context<'a>(
        &'a self,
        host: &'a Host,
        settings: &'a Settings,
        sampler: Option<&Sampler>,
    ) -> Context<'a> {
        let load = sampler.map(|sampler| sampler.load(self, host));
        let boottime = Duration::from_nanos(clock::since_boot_nsec());
        host.set_time(boottime);
        if self.is_time_to_look(boottime) {
            self.forget_limits();
            self.look_at_capabilities(host);
        }
        let cx = Context::new(host, &self.container, settings, boottime).with_cgroup();
        load.map_or(cx, |load| cx.with_load(load))
    }

    /// Returns whether the last look at what changes without an event is [`STATIC_BOUND`] ago. If so, the time of the last
    /// look is now.
    fn is_time_to_look(&self, now: Duration) -> bool {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let before = self.looked.load(Ordering::Relaxed);
        let is_time = u128::from(now.saturating_sub(before)) >= STATIC_BOUND.as_nanos();
        if is_time {
            self.looked.store(now, Ordering::Relaxed);
        }
        is_time
    }

    /// Notes that the container can measure CPUs no more, if its process has given up the capabilities for that. A process
    /// never gets them back, and neither does a program that it executes.
    fn look_at_capabilities(&self, host: &Host) {
        let can_measure = &self.container.can_measure_cpus;
        if !can_measure.load(Ordering::Relaxed) {
            return;
        }
        let Some(process) = self.process else {
            return;
        };
        let status = host.read_of_process(process, "status").unwrap_or_default();
        if bounding_set_can_measure(&String::from_utf8_lossy(&status)) == Some(false) {
            can_measure.store(false, Ordering::Relaxed);
        }
    }

    /// Caches limits from now on: they are read again only when one was written.
    pub fn cache_limits(&self) {
        self.container.cgroup.cache_limits();
    }

    /// Empties the cache of limits, because one was written or may have been.
    pub fn forget_limits(&self) {
        self.container.cgroup.invalidate_limits();
    }

    /// Returns a container without a cgroup. It has no limit, so the bounds of its views bound those of all others.
    pub fn unlimited() -> Self {
        let container = Container {
            cgroup: Cgroup::new(Vec::new()),
            identity: Identity::default(),
            history: Default::default(),
            tunables: Default::default(),
            can_measure_cpus: AtomicBool::new(false),
        };
        Self::over(container, 0, 0)
    }

    /// Returns whether the view of `EMULATORS[index]` can be cached: a static view at any size, a ticking one if it never
    /// exceeds one page. The context is that of [`Self::unlimited`], so that no later change of limits can make the answer
    /// untrue.
    pub fn can_cache(index: usize, unlimited: &Context<'_>) -> bool {
        let emulator = EMULATORS[index];
        match emulator.facts().pace {
            Pace::Static => true,
            Pace::Resizing => false,
            Pace::Ticking => {
                let mut text = Vec::new();
                let cx = unlimited
                    .with_load(Load::default())
                    .only(emulator.facts().needs);
                let bound = emulator.render(&cx, &mut text);
                let bytes = bound.ok().and_then(|bound| bound.bytes(text.len()));
                bytes.is_some_and(|bytes| bytes <= ONE_PAGE)
            }
        }
    }

    /// Serves the view of `EMULATORS[index]` on `connection` from now on, with these permission bits.
    pub fn set_served(&self, index: usize, connection: Connection, mode: u16) {
        self.views[index].mode.store(mode, Ordering::Relaxed);
        *self.views[index].connection.lock() = Some(connection);
    }

    /// Sets the directory grafts that it has, by the ids of their emulators.
    pub fn set_directories(&self, ids: Vec<u16>) {
        *self.directories.lock() = ids;
    }

    /// Returns whether it has the directory graft with `id`.
    pub fn has_directory(&self, id: u16) -> bool {
        self.directories.lock().contains(&id)
    }

    /// Returns the connection that serves the view of `EMULATORS[index]`; none where the container does not have it.
    pub fn connection(&self, index: usize) -> Option<Connection> {
        *self.views.get(index)?.connection.lock()
    }

    /// Returns the index into [`EMULATORS`] of the one with `id`.
    ///
    /// # Errors
    /// ENOENT when there is none, or this container does not have it.
    pub fn index(&self, id: u16) -> Result<usize, Errno> {
        emulators::registry::index(id)
            .filter(|index| self.connection(*index).is_some())
            .ok_or(Errno::NOENT)
    }

    /// Returns the permission bits of the view of `EMULATORS[index]`.
    pub fn mode(&self, index: usize) -> u16 {
        self.views[index].mode.load(Ordering::Relaxed)
    }

    /// Computes the view of `EMULATORS[index]`, and returns its bound.
    ///
    /// # Errors
    /// The errno of the emulator's error. The reason is logged, once until the view works again.
    pub fn render(
        &self,
        index: usize,
        cx: &Context<'_>,
        text: &mut Vec<u8>,
    ) -> Result<Bound, Errno> {
        let emulator = EMULATORS[index];
        let failing = &self.views[index].failing;
        match emulators::render_view(emulator, cx, text) {
            Ok(bound) => {
                if failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(id = %self.container.identity.id, path = emulator.facts().path, "the view is back");
                }
                Ok(bound)
            }
            Err(error) => {
                if !failing.swap(true, Ordering::Relaxed) {
                    let (id, path) = (&self.container.identity.id, emulator.facts().path);
                    tracing::error!(%id, path, %error, "the view cannot be computed");
                }
                Err(Errno(error.errno()))
            }
        }
    }

    /// Notes that [`Self::expire`] is called at each change of its limits from now on.
    pub fn set_watched(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// Returns whether [`Self::expire`] is called at each change of its limits.
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// Returns the files whose change changes views, and the directories of the cgroup to which their names are relative.
    pub fn limit_files(&self) -> (Vec<BorrowedFd<'_>>, Vec<WatchedFile>) {
        let cgroup = &self.container.cgroup;
        let dirs = cgroup.hierarchies().iter().map(|one| one.dir.as_fd());
        let files = emulators::limit_files(cgroup).into_iter();
        let files = files.filter_map(|file| {
            let dir = u32::try_from(file.hierarchy).ok()?;
            let name = file.name;
            Some(WatchedFile { dir, name })
        });
        (dirs.collect(), files.collect())
    }
}

/// Returns the tunables that the kernel keeps for the container's network namespace.
fn network(facts: &NetworkFacts) -> Network {
    let all = TUNABLES.iter().copied().flatten();
    let kept = all.filter(|tunable| {
        let is_settable = |path: &String| path == tunable.path();
        tunable.in_network && facts.settable.iter().any(is_settable)
    });
    let range = |&(inside, outside, count): &(u32, u32, u32)| IdRange {
        inside,
        outside,
        count,
    };
    Network {
        own_tunables: kept.map(|tunable| tunable.id()).collect(),
        groups: IdMap::new(facts.groups.iter().map(range).collect()),
    }
}
