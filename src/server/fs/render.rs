//! Computing a view: from which values, and where its text goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eci_fs_emulators::{Bound, Context, EMULATORS, Host, Load, Needs, Settings};
use parking_lot::Mutex;

use super::persistence::Persistence;
use crate::server::container::{Attached, Freshness, Sampler, SizeChange, Version, Watcher};
use crate::server::error::Errno;
use crate::server::faults::{self, Point};

/// The capacity in bytes of the largest buffer that is kept for the next view.
const LARGEST_BUFFER: usize = 1 << 16;

/// The longest time for which a thread in the middle of a read waits for a CPU, on a busy host. A view rests when it was
/// not asked for in this time and the freshness: in the freshness the kernel does not ask. By default both are 100 ms.
const UNSCHEDULED: Duration = Duration::from_millis(90);

/// The least time between two steps of a size, in multiples of the freshness. With one, 1 of 32 million reads was cut: a
/// reader that waits for a CPU between the page and the size can miss a step. For that reader [`UNSCHEDULED`] is enough: with
/// three times a long freshness, a text would be shown for minutes after it has changed.
const STEP: u32 = 3;

/// Computes views. All parts of the file system share one.
#[derive(Debug)]
pub(super) struct Renderer {
    host: Arc<Host>,
    settings: Settings,
    freshness: Freshness,
    sampler: Sampler,
    watcher: Option<Arc<Watcher>>,
    persistence: Persistence,
    /// One buffer for each thread that computes a view at the same time.
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Renderer {
    /// Makes a renderer of views of `host`, with the settings of the containers that have none of their own.
    pub(super) fn new(
        host: Arc<Host>,
        settings: Settings,
        freshness: Freshness,
        watcher: Option<Arc<Watcher>>,
        persistence: Persistence,
    ) -> Self {
        Self {
            host,
            settings,
            freshness,
            sampler: Sampler::new(persistence.state()),
            watcher,
            persistence,
            buffers: Mutex::default(),
        }
    }

    /// Returns the host.
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the settings of the containers that have none of their own.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the freshness of a container's views.
    pub(super) fn freshness(&self, container: &Attached) -> Freshness {
        container.freshness.unwrap_or(self.freshness)
    }

    /// Counts the threads of all containers whose load averages are read. It runs until the process ends.
    pub(super) fn sample_forever(&self) {
        self.sampler.run(&self.host);
    }

    /// Goes on with a load that a server before this one had counted up to `counted`.
    pub(super) fn restore_load(&self, container: &Attached, load: Load, counted: Instant) {
        self.sampler.restore(container, load, counted);
    }

    /// Returns the values that a view of a container with these needs is computed from at this moment.
    pub(super) fn context<'a>(&'a self, container: &'a Attached, needs: Needs) -> Context<'a> {
        // Where nothing depends on limits, nobody need look whether one has changed.
        if let Some(watcher) = self.watcher.as_ref().filter(|_| needs.cgroup) {
            watcher.catch_up();
        }
        let settings = container.settings.as_ref().unwrap_or(&self.settings);
        let sampler = needs.load.then_some(&self.sampler);
        container.context(&self.host, settings, sampler).only(needs)
    }

    /// Computes a view now, and returns what `make` makes of its text.
    pub(super) fn render<T>(
        &self,
        container: &Attached,
        index: usize,
        make: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Errno> {
        self.render_bounded(container, index, |text, _| make(text))
    }

    /// Computes a view now, and returns what `make` makes of its text and its bound.
    fn render_bounded<T>(
        &self,
        container: &Attached,
        index: usize,
        make: impl FnOnce(&[u8], Bound) -> T,
    ) -> Result<T, Errno> {
        let mut buffer = self.buffers.lock().pop().unwrap_or_default();
        let cx = self.context(container, EMULATORS[index].facts().needs);
        let result = container.render(index, &cx, &mut buffer);
        let made = result.map(|bound| {
            self.persistence.put_history(container);
            faults::at(Point::Render);
            faults::resize(EMULATORS[index].facts().path, &mut buffer);
            make(&buffer, bound)
        });
        if buffer.capacity() <= LARGEST_BUFFER {
            buffer.clear();
            self.buffers.lock().push(buffer);
        }
        made
    }

    /// Computes a view now, and makes it the version that is served.
    pub(super) fn renew(&self, container: &Attached, index: usize) -> Result<Version, Errno> {
        let started = Instant::now();
        self.render(container, index, |text| {
            container.replace(index, text, started)
        })
    }

    /// Computes a view now, and makes it what the view says on the cached connection, where its size changes in steps.
    /// Returns the version that is served.
    pub(super) fn renew_cached(
        &self,
        container: &Attached,
        index: usize,
    ) -> Result<Version, Errno> {
        let started = Instant::now();
        let freshness = self.freshness(container).bound;
        let change = SizeChange::InSteps {
            apart: freshness
                .saturating_mul(STEP)
                .min(UNSCHEDULED)
                .max(freshness),
            silence: freshness.saturating_add(UNSCHEDULED),
        };
        self.render_bounded(container, index, |text, bound| {
            container.follow(index, text, started, change, |version| {
                // The next server has to know what the kernel has only where the size can be another one by then.
                if bound.bytes(text.len()) != Some(text.len()) {
                    self.persistence.put_version(container, index, version);
                }
            })
        })
    }
}
