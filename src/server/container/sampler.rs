//! The sampler of load averages. It counts threads every five seconds, for those containers whose load somebody reads, and
//! sleeps when nobody does.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use eci_fs_emulators::{Container, Host, Load, Threads, initial_load, next_load, read_threads};
use parking_lot::{Condvar, Mutex};

use super::Attached;
use crate::server::clock;
use crate::server::state::{Key, Record, State};

/// The kernel's `LOAD_FREQ`.
const STEP: Duration = Duration::from_secs(5);

/// A container is sampled for this long after its load was read last.
const INTEREST: Duration = Duration::from_secs(15 * 60);

/// The load of one container, once somebody has read it.
#[derive(Debug, Default)]
pub struct LoadSample {
    counted: Mutex<Option<Counted>>,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    load: Load,
    /// The time up to which it is counted.
    until: Instant,
    /// The time at which somebody read it last.
    asked: Instant,
}

/// Samples the load of containers.
#[derive(Debug, Default)]
pub struct Sampler {
    containers: Mutex<Vec<Sampled>>,
    added: Condvar,
    /// The state, from which the next server goes on.
    state: Option<Arc<State>>,
}

#[derive(Debug)]
struct Sampled {
    slot: u64,
    sample: Weak<LoadSample>,
    container: Weak<Container>,
}

impl Sampler {
    /// Makes a sampler that writes to `state` what it has counted.
    pub fn new(state: Option<Arc<State>>) -> Self {
        Self {
            state,
            ..Self::default()
        }
    }

    /// Returns the load of a container. The first call counts its threads, and the load begins with that count.
    pub fn load(&self, attached: &Attached, host: &Host) -> Load {
        let now = Instant::now();
        let sample = &attached.sample;
        if let Some(counted) = sample.counted.lock().as_mut() {
            counted.asked = now;
            return counted.load;
        }
        // Counting reads many files, so no lock is held. A second reader may count too, to no harm.
        let threads = count(&attached.container, host);
        let load = Load {
            avenrun: initial_load(threads.active()),
            threads,
        };
        let mut counted = sample.counted.lock();
        if let Some(counted) = counted.as_ref() {
            return counted.load;
        }
        let first = Counted {
            load,
            until: now,
            asked: now,
        };
        *counted = Some(first);
        drop(counted);
        self.put(attached.slot(), &first);
        self.add(attached);
        load
    }

    /// Goes on with a load that a server before this one had counted up to `counted`.
    pub fn restore(&self, attached: &Attached, load: Load, counted: Instant) {
        *attached.sample.counted.lock() = Some(Counted {
            load,
            until: counted,
            asked: Instant::now(),
        });
        self.add(attached);
    }

    fn add(&self, attached: &Attached) {
        self.containers.lock().push(Sampled {
            slot: attached.slot(),
            sample: Arc::downgrade(&attached.sample),
            container: Arc::downgrade(&attached.container),
        });
        self.added.notify_one();
    }

    fn put(&self, slot: u64, counted: &Counted) {
        if let Some(state) = &self.state {
            let record = Record::Load {
                slot,
                load: counted.load,
                counted_nsec: clock::to_nsec(counted.until),
            };
            state.put(&record, &[]);
        }
    }

    /// Samples for ever, on a thread of its own.
    pub fn run(&self, host: &Host) {
        loop {
            let mut containers = self.containers.lock();
            while containers.is_empty() {
                self.added.wait(&mut containers);
            }
            self.added.wait_for(&mut containers, STEP);
            let all: Vec<_> = containers
                .iter()
                .filter_map(|one| Some((one.slot, one.sample.upgrade()?, one.container.upgrade()?)))
                .collect();
            drop(containers);
            let now = Instant::now();
            for (slot, sample, container) in &all {
                match advance_to(sample, container, host, now) {
                    Advanced::To(counted) => self.put(*slot, &counted),
                    Advanced::Same => {}
                    Advanced::Forgotten => {
                        if let Some(state) = &self.state {
                            state.forget(Key::Load(*slot));
                        }
                    }
                }
            }
            drop(all);
            self.containers.lock().retain(|one| {
                one.container.strong_count() > 0
                    && one
                        .sample
                        .upgrade()
                        .is_some_and(|sample| sample.counted.lock().is_some())
            });
        }
    }
}

/// The result of bringing a container up to the present.
enum Advanced {
    /// The container was counted, and this is its load.
    To(Counted),
    /// The container was counted less than a step ago.
    Same,
    /// Nobody reads the load any more.
    Forgotten,
}

/// Brings one container up to `now`, by as many steps as have passed since it was counted last.
fn advance_to(sample: &LoadSample, container: &Container, host: &Host, now: Instant) -> Advanced {
    let Some(before) = *sample.counted.lock() else {
        return Advanced::Forgotten;
    };
    if now.duration_since(before.asked) > INTEREST {
        *sample.counted.lock() = None;
        return Advanced::Forgotten;
    }
    let steps = now.duration_since(before.until).as_nanos() / STEP.as_nanos();
    if steps == 0 {
        return Advanced::Same;
    }
    let threads = count(container, host);
    let mut avenrun = before.load.avenrun;
    // After the host was suspended there can be many steps; beyond an hour's the averages have long settled.
    for _ in 0..steps.min(720) {
        avenrun = next_load(avenrun, threads.active());
    }
    let mut counted = sample.counted.lock();
    let Some(counted) = counted.as_mut() else {
        return Advanced::Forgotten;
    };
    counted.load = Load { avenrun, threads };
    counted.until += STEP * u32::try_from(steps).unwrap_or(u32::MAX);
    Advanced::To(*counted)
}

/// Counts the threads of a container. One whose threads cannot be counted has none: its cgroup is gone.
fn count(container: &Container, host: &Host) -> Threads {
    read_threads(host, container).unwrap_or_else(|error| {
        tracing::debug!(%error, id = %container.identity.id, "its threads cannot be counted");
        Threads::default()
    })
}
