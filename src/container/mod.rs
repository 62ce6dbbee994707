//! One attached container, as the server has it: what its views are computed from, and their last versions.

mod sampler;
mod version;
mod versions;
mod view;
mod watcher;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use eci_fs_emulators as emulators;
use eci_fs_emulators::{
    Cgroup, Container, Context, Controller, DescriptorCache, EMULATORS, Hierarchy, HierarchyCache,
    History, Host, Identity, Load, Network, Pace, Settings, TUNABLES, Values,
};
use eci_fs_mountd::container::Facts;
use eci_fs_mountd::container::network::NetworkFacts;
use eci_fs_mountd::protocol::choices::Choices;
use eci_fs_mountd::protocol::link::{Connection, Secrets};
use parking_lot::Mutex;

use crate::error::Errno;
use crate::server::cpu_ids;
use crate::tree::{Freshness, Judged, STATIC_BOUND};
pub use sampler::{Sampled, Sampler};
pub use version::Version;
use view::View;
pub use watcher::{Changed, Watcher};

/// Bytes that the page cache can hold of a ticking view without a reader seeing two versions: one page of the
/// smallest size that Linux has.
const ONE_PAGE: usize = 4096;

/// A container that is served.
#[derive(Debug)]
pub struct Attached {
    slot: u64,
    /// What its views are computed from.
    container: Arc<Container>,
    /// Its root's user on the host.
    pub uid: u32,
    /// Its root's group on the host.
    pub gid: u32,
    /// Its users as the machine's, as /proc/\<pid>/uid_map of its process has it: the sign of its user namespace.
    pub uid_map: Vec<u8>,
    /// Who wrote last to a tunable that takes a capability.
    pub judged: Mutex<Option<Judged>>,
    /// How old its views may be, if that is set for it alone.
    pub freshness: Option<Freshness>,
    /// What its views are set to, if that is set for it alone.
    pub settings: Option<Settings>,
    sampled: Arc<Sampled>,
    views: Vec<View>,
    directories: Mutex<Vec<u16>>,
    handles: AtomicIsize,
    /// Whether it is told of each change of its limits.
    watched: AtomicBool,
    /// When it was told last.
    expired: Mutex<Option<Instant>>,
    /// When what is remembered of its limits was given up last, in nanoseconds of CLOCK_BOOTTIME.
    forgotten: AtomicU64,
}

impl Attached {
    /// From what the daemon handed over: `dirs` are the directories of `facts.hierarchies`.
    ///
    /// # Errors
    /// When a controller or version is none that is known; the words are for the daemon's log.
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
                // A controller that no view asks is none of ours.
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
            boot_id: secrets.boot_id,
            host_secret: secrets.machine_secret,
        };
        let container = Container {
            cgroup: Cgroup::new(hierarchies),
            identity,
            history: Default::default(),
            tunables: Default::default(),
        };
        Ok(Self::over(container, facts.uid, facts.gid))
    }

    pub(crate) fn over(container: Container, uid: u32, gid: u32) -> Self {
        Self {
            slot: 0,
            container: Arc::new(container),
            uid,
            gid,
            uid_map: Vec::new(),
            judged: Mutex::new(None),
            freshness: None,
            settings: None,
            sampled: Arc::new(Sampled::default()),
            views: EMULATORS.iter().map(|_| View::default()).collect(),
            directories: Mutex::default(),
            handles: AtomicIsize::new(0),
            watched: AtomicBool::new(false),
            expired: Mutex::new(None),
            forgotten: AtomicU64::new(0),
        }
    }

    /// What is set for it alone; the rest is as in `settings`.
    pub fn choose(&mut self, choices: &Choices, settings: &Settings) {
        self.freshness = choices
            .freshness_ms
            .map(|freshness| Freshness::of(Duration::from_millis(freshness)));
        self.settings = choices.cpu_ids.map(|ids| Settings {
            cpu_ids: cpu_ids(ids),
            ..*settings
        });
    }

    /// The number of its directory in both connections; 0, which nobody has, until it has one.
    pub fn slot(&self) -> u64 {
        self.slot
    }

    /// It has the directory with this number.
    pub fn set_slot(&mut self, slot: u64) {
        self.slot = slot;
    }

    /// What it has written to tunables.
    pub fn tunables(&self) -> &Values {
        &self.container.tunables
    }

    /// The counters that it was shown last.
    pub fn history(&self) -> &History {
        &self.container.history
    }

    /// Have the files of its cgroup kept open, for as long as nobody else holds it.
    pub fn keep_in(&mut self, cache: &Arc<DescriptorCache>) {
        if let Some(container) = Arc::get_mut(&mut self.container) {
            container.cgroup.cache_descriptors_in(cache);
        }
    }

    /// What its views are computed from at this moment; with `sampler`, its threads and their load too.
    pub fn context<'a>(
        &'a self,
        host: &'a Host,
        settings: &'a Settings,
        sampler: Option<&Sampler>,
    ) -> Context<'a> {
        let load = sampler.map(|sampler| sampler.load(self, host));
        let boottime = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
            .map(Duration::from)
            .unwrap_or_default();
        host.set_time(boottime);
        self.bound_memory(boottime);
        let cx = Context::new(host, &self.container, settings, boottime).with_cgroup();
        load.map_or(cx, |load| cx.with_load(load))
    }

    /// Give up what is remembered of limits when it is [`STATIC_BOUND`] old: not every change is told of.
    fn bound_memory(&self, now: Duration) {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let before = self.forgotten.load(Ordering::Relaxed);
        if u128::from(now.saturating_sub(before)) >= STATIC_BOUND.as_nanos() {
            self.forgotten.store(now, Ordering::Relaxed);
            self.forget_limits();
        }
    }

    /// Read limits only when one was written, from now on.
    pub fn remember_limits(&self) {
        self.container.cgroup.cache_limits();
    }

    /// A limit was written, or may have been.
    pub fn forget_limits(&self) {
        self.container.cgroup.invalidate_limits();
    }

    /// A container without a cgroup: it has no limit, so what bounds its views bounds those of all others.
    pub fn unlimited() -> Self {
        let container = Container {
            cgroup: Cgroup::new(Vec::new()),
            identity: Identity::default(),
            history: Default::default(),
            tunables: Default::default(),
        };
        Self::over(container, 0, 0)
    }

    /// Whether the view of `EMULATORS[index]` can be cached: static views at any size, a ticking one if it has a
    /// constant size of one page at most, padded. Asked of [`Self::unlimited`], so that no later change of limits can
    /// make it untrue.
    pub fn can_cache(index: usize, unlimited: &Context<'_>, padding: bool) -> bool {
        let emulator = EMULATORS[index];
        match emulator.facts().pace {
            Pace::Static => true,
            Pace::Ticking => {
                let mut text = Vec::new();
                let cx = unlimited
                    .with_load(Load::default())
                    .only(emulator.facts().needs);
                let bound = emulator.render(&cx, &mut text);
                let bytes = bound.ok().and_then(|bound| bound.bytes(text.len()));
                padding && bytes.is_some_and(|bytes| bytes <= ONE_PAGE)
            }
        }
    }

    /// Serve the view of `EMULATORS[index]` on `connection`, with these permission bits.
    pub fn set_served(&self, index: usize, connection: Connection, mode: u16) {
        self.views[index].mode.store(mode, Ordering::Relaxed);
        *self.views[index].connection.lock() = Some(connection);
    }

    /// Which directory grafts it has, by the ids of their emulators.
    pub fn set_directories(&self, ids: Vec<u16>) {
        *self.directories.lock() = ids;
    }

    /// Whether it has the directory graft with `id`.
    pub fn has_directory(&self, id: u16) -> bool {
        self.directories.lock().contains(&id)
    }

    /// Where the view of `EMULATORS[index]` is served; none where the container does not have it.
    pub fn connection(&self, index: usize) -> Option<Connection> {
        *self.views.get(index)?.connection.lock()
    }

    /// The index into [`EMULATORS`] of the one with `id`.
    ///
    /// # Errors
    /// ENOENT when there is none, or this container does not have it.
    pub fn index(&self, id: u16) -> Result<usize, Errno> {
        emulators::registry::index(id)
            .filter(|index| self.connection(*index).is_some())
            .ok_or(Errno::NOENT)
    }

    /// Permission bits of the view of `EMULATORS[index]`.
    pub fn mode(&self, index: usize) -> u16 {
        self.views[index].mode.load(Ordering::Relaxed)
    }

    /// Compute the view of `EMULATORS[index]`.
    ///
    /// # Errors
    /// What the emulator's error is as an errno; the reason is logged, once until it works again.
    pub fn render(
        &self,
        index: usize,
        cx: &Context<'_>,
        padding: bool,
        text: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let emulator = EMULATORS[index];
        let failing = &self.views[index].failing;
        match emulators::render_view(emulator, cx, padding, text) {
            Ok(()) => {
                if failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(id = %self.container.identity.id, path = emulator.facts().path, "the view is back");
                }
                Ok(())
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

    /// From now on [`Self::expire`] is called at each change of its limits.
    pub fn set_watched(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// Whether [`Self::expire`] is called at each change of its limits.
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// Paths of the files whose change changes views, for inotify.
    pub fn limit_paths(&self) -> Vec<String> {
        let cgroup = &self.container.cgroup;
        let hierarchies = cgroup.hierarchies();
        emulators::limit_files(cgroup)
            .iter()
            .filter_map(|file| {
                Some(watcher::path_of(
                    &hierarchies.get(file.hierarchy)?.dir,
                    &file.name,
                ))
            })
            .collect()
    }

    /// Count open snapshots: `by` is 1 or -1. False when there would be more than `limit`.
    pub fn count_handle(&self, by: isize, limit: usize) -> bool {
        let count = self.handles.fetch_add(by, Ordering::Relaxed) + by;
        if by > 0 && count > isize::try_from(limit).unwrap_or(isize::MAX) {
            self.handles.fetch_sub(by, Ordering::Relaxed);
            return false;
        }
        true
    }
}

/// Which tunables the kernel keeps for a network namespace.
fn network(facts: &NetworkFacts) -> Network {
    let all = TUNABLES.iter().copied().flatten();
    let kept = all.filter(|tunable| {
        let is_settable = |path: &String| path == tunable.path();
        tunable.in_network && facts.settable.iter().any(is_settable)
    });
    Network {
        own_tunables: kept.map(|tunable| tunable.id()).collect(),
    }
}
