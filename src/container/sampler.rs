//! The sampler of load averages: counts threads every five seconds, for those containers whose load somebody
//! reads, and sleeps when nobody does.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use eci_fs_emulators::{Container, Host, Load, Threads, initial_load, next_load, read_threads};
use parking_lot::{Condvar, Mutex};

use super::Attached;
use crate::clock;
use crate::state::{Key, Record};

/// The kernel's `LOAD_FREQ`.
const STEP: Duration = Duration::from_secs(5);

/// How long after its last reader a container is still sampled.
const INTEREST: Duration = Duration::from_secs(15 * 60);

/// What is known of one container's load.
#[derive(Debug, Default)]
pub struct Sampled {
    state: Mutex<Option<State>>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    load: Load,
    counted: Instant,
    asked: Instant,
}

/// Who is sampled.
#[derive(Debug, Default)]
pub struct Sampler {
    interesting: Mutex<Vec<Interesting>>,
    somebody_asks: Condvar,
    /// What the next server goes on with.
    state: Option<Arc<crate::state::State>>,
}

#[derive(Debug)]
struct Interesting {
    slot: u64,
    sampled: Weak<Sampled>,
    container: Weak<Container>,
}

impl Sampler {
    /// One that remembers what it has counted.
    pub fn new(state: Option<Arc<crate::state::State>>) -> Self {
        Self {
            state,
            ..Self::default()
        }
    }

    /// The load of a container. The first to ask has its threads counted and begins with that count.
    pub fn load(&self, attached: &Attached, host: &Host) -> Load {
        let now = Instant::now();
        let sampled = &attached.sampled;
        if let Some(state) = sampled.state.lock().as_mut() {
            state.asked = now;
            return state.load;
        }
        // Counted without the lock: it reads many files. A second reader may count too, to no harm.
        let threads = count(&attached.container, host);
        let load = Load {
            avenrun: initial_load(threads.active()),
            threads,
        };
        let mut state = sampled.state.lock();
        if let Some(state) = state.as_ref() {
            return state.load;
        }
        let first = State {
            load,
            counted: now,
            asked: now,
        };
        *state = Some(first);
        drop(state);
        self.remember(attached.slot(), &first);
        self.sample_too(attached);
        load
    }

    /// Go on with what a server before this one had counted up to `counted`.
    pub fn restore(&self, attached: &Attached, load: Load, counted: Instant) {
        *attached.sampled.state.lock() = Some(State {
            load,
            counted,
            asked: Instant::now(),
        });
        self.sample_too(attached);
    }

    fn sample_too(&self, attached: &Attached) {
        self.interesting.lock().push(Interesting {
            slot: attached.slot(),
            sampled: Arc::downgrade(&attached.sampled),
            container: Arc::downgrade(&attached.container),
        });
        self.somebody_asks.notify_one();
    }

    fn remember(&self, slot: u64, state: &State) {
        if let Some(to) = &self.state {
            let record = Record::Load {
                slot,
                load: state.load,
                counted_nsec: clock::to_nsec(state.counted),
            };
            to.put(&record, &[]);
        }
    }

    /// Sample for ever; on a thread of its own.
    pub fn run(&self, host: &Host) {
        loop {
            let mut interesting = self.interesting.lock();
            while interesting.is_empty() {
                self.somebody_asks.wait(&mut interesting);
            }
            self.somebody_asks.wait_for(&mut interesting, STEP);
            let all: Vec<_> = interesting
                .iter()
                .filter_map(|one| {
                    Some((one.slot, one.sampled.upgrade()?, one.container.upgrade()?))
                })
                .collect();
            drop(interesting);
            let now = Instant::now();
            for (slot, sampled, container) in &all {
                match sample(sampled, container, host, now) {
                    Sample::New(state) => self.remember(*slot, &state),
                    Sample::Same => {}
                    Sample::None => {
                        if let Some(state) = &self.state {
                            state.forget(Key::Load(*slot));
                        }
                    }
                }
            }
            drop(all);
            self.interesting.lock().retain(|one| {
                one.container.strong_count() > 0
                    && one
                        .sampled
                        .upgrade()
                        .is_some_and(|sampled| sampled.state.lock().is_some())
            });
        }
    }
}

/// What came of sampling a container.
enum Sample {
    New(State),
    /// It was counted less than a step ago.
    Same,
    /// Nobody is interested in it any more.
    None,
}

/// Bring one container up to `now`, by as many steps as have passed since it was counted last.
fn sample(sampled: &Sampled, container: &Container, host: &Host, now: Instant) -> Sample {
    let Some(before) = *sampled.state.lock() else {
        return Sample::None;
    };
    if now.duration_since(before.asked) > INTEREST {
        *sampled.state.lock() = None;
        return Sample::None;
    }
    let steps = now.duration_since(before.counted).as_nanos() / STEP.as_nanos();
    if steps == 0 {
        return Sample::Same;
    }
    let threads = count(container, host);
    let mut avenrun = before.load.avenrun;
    // After a suspended machine there can be many steps; beyond an hour's the averages have long settled.
    for _ in 0..steps.min(720) {
        avenrun = next_load(avenrun, threads.active());
    }
    let mut state = sampled.state.lock();
    let Some(state) = state.as_mut() else {
        return Sample::None;
    };
    state.load = Load { avenrun, threads };
    state.counted += STEP * u32::try_from(steps).unwrap_or(u32::MAX);
    Sample::New(*state)
}

/// A container whose threads cannot be counted has none: its cgroup is gone.
fn count(container: &Container, host: &Host) -> Threads {
    read_threads(host, container).unwrap_or_else(|error| {
        tracing::debug!(%error, id = %container.identity.id, "its threads cannot be counted");
        Threads::default()
    })
}
