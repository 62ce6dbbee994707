//! Load averages, and the counts of threads that belong to them.
//!
//! A reader counts the threads anew when the last count is a second old. Every five seconds the sampler does so for those
//! containers whose load somebody reads, and takes the steps of their averages; it sleeps when nobody reads.
//!
//! A container chooses how many threads it has. So a reader counts only where that takes little, else the sampler does,
//! and a container is counted again only when a hundred times as long has passed as its last count took.

mod counted;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use eci_fs_emulators::{
    Container, Effort, Error, Host, Load, Threads, initial_load, read_few_threads, read_threads,
};
use parking_lot::{Condvar, Mutex};

use super::Attached;
use crate::server::account::Account;
use crate::server::clock;
use crate::server::state::{Record, State};
use counted::{Count, Counted, Due, INTEREST, STEP};

/// The load of one container, once somebody has read it.
#[derive(Debug, Default)]
pub struct LoadSample {
    counted: Mutex<Option<Counted>>,
    /// Held while somebody counts. Nobody waits for it with the other lock held.
    counting: Mutex<()>,
}

/// Samples the load of containers.
#[derive(Debug, Default)]
pub struct Sampler {
    list: Mutex<List>,
    changed: Condvar,
    /// The state, from which the next server goes on.
    state: Option<Arc<State>>,
}

/// The containers whose load somebody reads.
#[derive(Debug, Default)]
struct List {
    containers: Vec<Sampled>,
    /// True if the sampler has something to do before the next step.
    changed: bool,
}

#[derive(Debug)]
struct Sampled {
    sample: Weak<LoadSample>,
    container: Weak<Container>,
    account: Arc<Account>,
}

impl Sampler {
    /// Makes a sampler that writes to `state` what it has counted.
    pub fn new(state: Option<Arc<State>>) -> Self {
        Self {
            state,
            ..Self::default()
        }
    }

    /// Returns the load of a container.
    ///
    /// The first call counts its threads, and the averages begin as if there had been as many since the container
    /// started. After a time without readers the averages go on from where they were, as if there had been as many as
    /// there are now.
    pub fn load(&self, attached: &Attached, host: &Host) -> Load {
        let sample = &attached.sample;
        let due = |now| {
            let mut counted = sample.counted.lock();
            counted.as_mut().map_or(Due::Full, |one| one.due(now))
        };
        match due(Instant::now()) {
            Due::Nothing(load) => load,
            Due::Sampler(load) => {
                self.wake();
                load
            }
            Due::Few(load) => {
                // Whoever counts already will be done in a moment, and until then the last count is shown.
                let Some(_counting) = sample.counting.try_lock() else {
                    return load;
                };
                self.recount(attached, host).unwrap_or(load)
            }
            Due::Full => {
                let _counting = sample.counting.lock();
                // Somebody else may have counted meanwhile.
                match due(Instant::now()) {
                    Due::Full => self.begin(attached, host),
                    Due::Nothing(load) | Due::Sampler(load) | Due::Few(load) => load,
                }
            }
        }
    }

    /// Returns whether a reader of the load would have to count threads, which takes a while.
    pub fn is_due(attached: &Attached) -> bool {
        let counted = attached.sample.counted.lock();
        counted.is_none_or(|one| one.is_due(Instant::now()))
    }

    /// Counts for a reader, if that takes little. Otherwise the sampler counts soon.
    fn recount(&self, attached: &Attached, host: &Host) -> Option<Load> {
        let few = |host: &Host, container: &Container| {
            read_few_threads(host, container, Effort::OF_A_READ)
        };
        let count = count(&attached.container, host, few);
        let mut counted = attached.sample.counted.lock();
        let one = counted.as_mut()?;
        let Some(count) = count else {
            one.leave_to_the_sampler();
            drop(counted);
            self.wake();
            return None;
        };
        one.set(&count);
        let stepped = one.advance(count.at);
        let one = *one;
        drop(counted);
        if stepped {
            self.put(attached.slot(), &one);
        }
        Some(one.load)
    }

    /// Counts all threads, for averages that begin or go on, and has the sampler go on with them.
    fn begin(&self, attached: &Attached, host: &Host) -> Load {
        let count = full_count(&attached.container, host);
        let mut counted = attached.sample.counted.lock();
        let one = counted.get_or_insert_with(|| {
            let boottime = Duration::from_nanos(clock::since_boot_nsec());
            let identity = &attached.container.identity;
            // A time namespace can say any age. The averages are of the time in which the container did run.
            let age = identity.age(boottime).min(identity.runtime(boottime));
            let load = Load {
                avenrun: initial_load(count.threads.active(), age),
                threads: count.threads,
            };
            Counted::new(load, count.at)
        });
        one.set(&count);
        one.advance(count.at);
        one.sampled = true;
        let one = *one;
        drop(counted);
        self.put(attached.slot(), &one);
        self.add(attached);
        one.load
    }

    /// Goes on with a load that a server before this one had counted up to `counted`.
    pub fn restore(&self, attached: &Attached, load: Load, counted: Instant) {
        *attached.sample.counted.lock() = Some(Counted::new(load, counted));
        self.add(attached);
    }

    fn add(&self, attached: &Attached) {
        let mut list = self.list.lock();
        let sample = Arc::downgrade(&attached.sample);
        // The sampler may just be about to take it out, and then finds that it is read again.
        if !list.containers.iter().any(|one| one.sample.ptr_eq(&sample)) {
            list.containers.push(Sampled {
                sample,
                container: Arc::downgrade(&attached.container),
                account: Arc::clone(&attached.account),
            });
        }
        list.changed = true;
        self.changed.notify_one();
    }

    fn wake(&self) {
        self.list.lock().changed = true;
        self.changed.notify_one();
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
            let mut list = self.list.lock();
            while list.containers.is_empty() {
                self.changed.wait(&mut list);
            }
            if !list.changed {
                self.changed.wait_for(&mut list, STEP);
            }
            list.changed = false;
            let all: Vec<_> = list
                .containers
                .iter()
                .filter_map(|one| {
                    let account = Arc::clone(&one.account);
                    Some((account, one.sample.upgrade()?, one.container.upgrade()?))
                })
                .collect();
            drop(list);
            for (account, sample, container) in &all {
                let before = clock::of_this_thread();
                if let Some(counted) = sample_one(sample, container, host) {
                    self.put(account.slot(), &counted);
                }
                account.spend(clock::of_this_thread().saturating_sub(before));
            }
            drop(all);
            self.list.lock().containers.retain(|one| {
                one.container.strong_count() > 0
                    && one.sample.upgrade().is_some_and(|sample| {
                        sample.counted.lock().is_some_and(|counted| counted.sampled)
                    })
            });
        }
    }
}

/// Brings one container up to the present: counts its threads if a step is due or a reader wants it, and takes the steps.
/// Returns its load after a step.
fn sample_one(sample: &LoadSample, container: &Container, host: &Host) -> Option<Counted> {
    let _counting = sample.counting.lock();
    let now = Instant::now();
    let affordable = {
        let mut counted = sample.counted.lock();
        let one = counted.as_mut()?;
        if now.duration_since(one.asked) > INTEREST {
            one.sampled = false;
            return None;
        }
        if !one.has_work(now) {
            return None;
        }
        one.is_affordable(now)
    };
    let count = affordable.then(|| full_count(container, host));
    let mut counted = sample.counted.lock();
    let one = counted.as_mut()?;
    if let Some(count) = &count {
        one.set(count);
    }
    one.advance(now).then_some(*one)
}

fn full_count(container: &Container, host: &Host) -> Count {
    let full =
        |host: &Host, container: &Container| read_threads(host, container, Effort::FULL).map(Some);
    count(container, host, full).unwrap_or_else(|| Count {
        threads: Threads::default(),
        at: Instant::now(),
        cost: Duration::ZERO,
    })
}

/// Counts the threads of a container. One whose threads cannot be counted has none: its cgroup is gone.
fn count(
    container: &Container,
    host: &Host,
    read: impl Fn(&Host, &Container) -> Result<Option<Threads>, Error>,
) -> Option<Count> {
    let before = clock::of_this_thread();
    let threads = read(host, container).unwrap_or_else(|error| {
        tracing::debug!(%error, id = %container.identity.id, "its threads cannot be counted");
        Some(Threads::default())
    });
    threads.map(|threads| Count {
        threads,
        at: Instant::now(),
        cost: clock::of_this_thread().saturating_sub(before),
    })
}
