//! The sampler of load averages: counts threads every five seconds, for those containers whose load somebody
//! reads, and sleeps when nobody does.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use eci_fs_emulators::{Container, Host, Load, Threads, advance, present, read_threads};
use parking_lot::{Condvar, Mutex};

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
    interesting: Mutex<Vec<(Weak<Sampled>, Weak<Container>)>>,
    somebody_asks: Condvar,
}

impl Sampler {
    /// The load of a container. The first to ask has its threads counted and begins with that count.
    pub fn load(&self, sampled: &Arc<Sampled>, container: &Arc<Container>, host: &Host) -> Load {
        let now = Instant::now();
        if let Some(state) = sampled.state.lock().as_mut() {
            state.asked = now;
            return state.load;
        }
        // Counted without the lock: it reads many files. A second reader may count too, to no harm.
        let threads = count(container, host);
        let load = Load {
            avenrun: present(threads.active()),
            threads,
        };
        let mut state = sampled.state.lock();
        if let Some(state) = state.as_ref() {
            return state.load;
        }
        *state = Some(State {
            load,
            counted: now,
            asked: now,
        });
        drop(state);
        self.interesting
            .lock()
            .push((Arc::downgrade(sampled), Arc::downgrade(container)));
        self.somebody_asks.notify_one();
        load
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
                .filter_map(|(sampled, container)| Some((sampled.upgrade()?, container.upgrade()?)))
                .collect();
            drop(interesting);
            let now = Instant::now();
            for (sampled, container) in &all {
                sample(sampled, container, host, now);
            }
            self.interesting.lock().retain(|(sampled, container)| {
                container.strong_count() > 0
                    && sampled
                        .upgrade()
                        .is_some_and(|sampled| sampled.state.lock().is_some())
            });
        }
    }
}

/// Bring one container up to `now`, by as many steps as have passed since it was counted last.
fn sample(sampled: &Sampled, container: &Container, host: &Host, now: Instant) {
    let Some(before) = *sampled.state.lock() else {
        return;
    };
    if now.duration_since(before.asked) > INTEREST {
        *sampled.state.lock() = None;
        return;
    }
    let steps = now.duration_since(before.counted).as_nanos() / STEP.as_nanos();
    if steps == 0 {
        return;
    }
    let threads = count(container, host);
    let mut avenrun = before.load.avenrun;
    // After a suspended machine there can be many steps; beyond an hour's the averages have long settled.
    for _ in 0..steps.min(720) {
        avenrun = advance(avenrun, threads.active());
    }
    if let Some(state) = sampled.state.lock().as_mut() {
        state.load = Load { avenrun, threads };
        state.counted += STEP * u32::try_from(steps).unwrap_or(u32::MAX);
    }
}

/// A container whose threads cannot be counted has none: its cgroup is gone.
fn count(container: &Container, host: &Host) -> Threads {
    read_threads(host, container).unwrap_or_else(|error| {
        tracing::debug!(%error, id = %container.identity.id, "its threads cannot be counted");
        Threads::default()
    })
}
