//! Workers answer the requests that session threads do not answer at once.
//!
//! Each container has a queue, and the workers take one request of each container in turn. So a container with a thousand
//! threads gets no more of them than one with a single thread. A container that has used up its share of CPU time waits
//! until that comes back ([`Account`]). A request is held until its turn comes. Only beyond [`MOST_WAITING`] it is refused.
//!
//! What may sleep has a queue and workers of its own, so a driver that never answers takes none of those that compute. As
//! many workers are started as have something to do, up to [`MOST_SLEEPING`] for what may sleep. They end when they are
//! idle.

mod queues;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::server::account::Account;
use crate::server::clock;
use crate::server::error::Errno;
use crate::server::sched_setattr;
pub use queues::Lane;
use queues::{Limits, Queues, Taken};

/// The number of requests of one container that may wait. Each is a thread of it, which waits in the kernel.
pub const MOST_WAITING: usize = 16_384;

/// The number of requests of all containers that may wait. One takes some 300 bytes.
const MOST_WAITING_OF_ALL: usize = 1 << 18;

/// The number of workers for what may sleep, for all containers together.
const MOST_SLEEPING: usize = 56;

/// The number of requests of one container that may sleep at the same time.
const SLEEPING_SHARE: usize = 2;

/// The fewest and the most workers that compute. There are half as many as CPUs, because the other half are readers.
const COMPUTING: std::ops::RangeInclusive<usize> = 2..=8;

/// The time that computing one answer may take. Nothing in it waits for anybody, so a worker that takes longer never ends;
/// unless the server gets no CPU.
const LIMIT: Duration = Duration::from_secs(5);

/// The requests of each container that may wait however many those of others are.
const WAITING_FLOOR: usize = 64;

/// The number of workers that stay when there is nothing to do.
const STAYING: usize = 2;

/// A worker beyond that ends when it had nothing to do for this long.
const IDLE: Duration = Duration::from_secs(5);

/// A request with everything that is needed to answer it.
pub trait Job: Debug + Send {
    /// Answers the request.
    fn answer(self: Box<Self>);
    /// Answers the request with an error.
    fn refuse(self: Box<Self>, errno: Errno);
}

/// Returns whether a thread of the server, other than the one that asks, runs or wants to.
pub type WantsCpu = Box<dyn Fn() -> bool + Send>;

/// The workers.
#[derive(Debug)]
pub struct Workers {
    pool: Mutex<Pool>,
    work: Condvar,
    /// A request is being computed, and nobody watches that.
    begun: Condvar,
}

#[derive(Debug)]
struct Pool {
    queues: Queues,
    threads: usize,
    /// The number of workers that wait for a request.
    idle: usize,
    /// The time at which one of them looks for the containers that get their share again; none while nobody does.
    looks_at: Option<Instant>,
    /// The times at which the requests were taken that are being computed, by the order in which they were.
    computing: BTreeMap<u64, Instant>,
    /// The number of requests that were taken.
    taken: u64,
    /// True if the thread that watches over them has a time at which it looks.
    watches: bool,
}

/// A request that a worker has not ended for [`LIMIT`].
#[derive(Debug, Clone, Copy)]
struct Late {
    number: u64,
    /// The CPU time that the server had used when that was seen first.
    used: Duration,
}

impl Workers {
    /// Makes workers that do not run yet.
    fn new(limits: Limits) -> Self {
        let pool = Mutex::new(Pool {
            queues: Queues::new(limits),
            threads: 0,
            idle: 0,
            looks_at: None,
            computing: BTreeMap::new(),
            taken: 0,
            watches: false,
        });
        Self {
            pool,
            work: Condvar::new(),
            begun: Condvar::new(),
        }
    }

    /// Starts the workers that stay. `wants_cpu` tells a server that gets no CPU from one that hangs.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(wants_cpu: WantsCpu) -> std::io::Result<Arc<Self>> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let computing = cpus.div_ceil(2).clamp(*COMPUTING.start(), *COMPUTING.end());
        let this = Arc::new(Self::new(Limits {
            all: [computing, MOST_SLEEPING],
            one: [computing / 2, SLEEPING_SHARE],
        }));
        this.pool.lock().threads = STAYING;
        (0..STAYING).try_for_each(|_| this.spawn())?;
        let watched = Arc::clone(&this);
        std::thread::Builder::new()
            .name("worker-watch".to_owned())
            .spawn(move || watched.watch(&wants_cpu))?;
        Ok(this)
    }

    fn spawn(self: &Arc<Self>) -> std::io::Result<()> {
        let worker = Arc::clone(self);
        std::thread::Builder::new()
            .name("worker".to_owned())
            .spawn(move || worker.run())
            .map(drop)
    }

    /// Has a request of a container answered when its turn comes. One that finds too many waiting is given back.
    ///
    /// # Errors
    /// The job itself, for its caller to refuse.
    pub fn run_later(
        self: &Arc<Self>,
        account: &Arc<Account>,
        lane: Lane,
        job: Box<dyn Job>,
    ) -> Result<(), Box<dyn Job>> {
        let mut pool = self.pool.lock();
        let is_full = pool.queues.waiting() >= MOST_WAITING_OF_ALL;
        if account.waiting() >= MOST_WAITING || is_full && account.waiting() >= WAITING_FLOOR {
            return Err(job);
        }
        pool.queues.push(account, lane, job);
        let call = pool.wants_worker();
        drop(pool);
        if let Some(grows) = call {
            self.call(grows);
        }
        Ok(())
    }

    /// Has all requests that wait answered soon, whatever the shares of their containers are: this server is about to leave.
    /// With false, the shares count again.
    pub fn hurry(&self, hurries: bool) {
        self.pool.lock().queues.hurry(hurries);
        self.work.notify_all();
    }

    /// Has one more worker look for a request.
    fn call(self: &Arc<Self>, grows: bool) {
        if !grows {
            self.work.notify_one();
        } else if let Err(error) = self.spawn() {
            self.pool.lock().threads -= 1;
            tracing::warn!(%error, "no more workers can be started, requests wait for those that run");
        }
    }

    /// Takes requests and answers them, until there is nothing to do for a while.
    fn run(self: &Arc<Self>) {
        if let Err(error) = sched_setattr::compute() {
            tracing::warn!(%error, "a worker competes with the threads that read requests, ignoring");
        }
        let mut used = clock::of_this_thread();
        let mut idle_since = None;
        let mut pool = self.pool.lock();
        loop {
            let now = Instant::now();
            let Some(taken) = pool.queues.take(now) else {
                let since = *idle_since.get_or_insert(now);
                let is_idle = now.saturating_duration_since(since) >= IDLE;
                if is_idle && pool.may_end() {
                    pool.threads -= 1;
                    return;
                }
                self.wait(&mut pool, now + IDLE);
                continue;
            };
            idle_since = None;
            let call = pool.wants_worker();
            let number = self.begin(&mut pool, taken.lane, now);
            drop(pool);
            if let Some(grows) = call {
                self.call(grows);
            }
            let Taken { account, lane, job } = taken;
            job.answer();
            let until = clock::of_this_thread();
            let cost = until.saturating_sub(used);
            match lane {
                Lane::Computing => account.charge(Instant::now(), cost),
                // No request of this kind is answered where others wait. So it does not make its container a slow one.
                Lane::Sleeping => account.spend(cost),
            }
            used = until;
            pool = self.pool.lock();
            pool.computing.remove(&number);
            pool.queues.done(&account, lane);
        }
    }

    /// Notes that a request is taken, and returns its number.
    fn begin(&self, pool: &mut Pool, lane: Lane, now: Instant) -> u64 {
        pool.taken += 1;
        if lane == Lane::Computing {
            pool.computing.insert(pool.taken, now);
            if !pool.watches {
                self.begun.notify_one();
            }
        }
        pool.taken
    }

    /// Ends the process when a worker does not end: the threads that read requests go on, so the daemon would not notice.
    /// Another server computes the answer.
    fn watch(&self, wants_cpu: &WantsCpu) {
        let mut late: Option<Late> = None;
        let mut pool = self.pool.lock();
        loop {
            let Some((number, taken)) = pool.oldest() else {
                pool.watches = false;
                self.begun.wait(&mut pool);
                continue;
            };
            let mut look = taken + LIMIT;
            if look <= Instant::now() {
                let (hangs, seen) = MutexGuard::unlocked(&mut pool, || {
                    let used = clock::of_this_process();
                    let known = late.filter(|late| late.number == number);
                    let seen = known.unwrap_or(Late { number, used });
                    (seen.hangs(used, wants_cpu), seen)
                });
                // It may have ended meanwhile.
                if hangs && pool.computing.contains_key(&number) {
                    tracing::error!("the server does not answer: a worker hangs");
                    std::process::abort();
                }
                late = Some(seen);
                look = Instant::now() + LIMIT;
            }
            pool.watches = true;
            self.begun.wait_until(&mut pool, look);
        }
    }

    /// Waits for a request, for a container that has its share again, or until `end`. One worker waits for shares, and the
    /// others do not wake up with it.
    fn wait(&self, pool: &mut parking_lot::MutexGuard<'_, Pool>, end: Instant) {
        let looks_at = pool.queues.next_at().filter(|_| pool.is_unwatched());
        if looks_at.is_some() {
            pool.looks_at = looks_at;
        }
        pool.idle += 1;
        let until = looks_at.map_or(end, |at| at.min(end));
        self.work.wait_until(pool, until);
        pool.idle -= 1;
        if looks_at.is_some() && pool.looks_at == looks_at {
            pool.looks_at = None;
        }
    }
}

impl Late {
    /// Returns whether the worker hangs. `used` is the CPU time of the server now. It hangs if the server has used
    /// [`LIMIT`] of it since, of which the worker had its part, or if no thread of the server wants a CPU. Otherwise
    /// the host is so busy that the server gets no CPU, and another server would get none either.
    fn hangs(&self, used: Duration, wants_cpu: impl Fn() -> bool) -> bool {
        used.saturating_sub(self.used) >= LIMIT || !wants_cpu()
    }
}

impl Pool {
    /// Returns the number of the oldest request that is being computed, and the time at which it was taken.
    fn oldest(&self) -> Option<(u64, Instant)> {
        let first = self.computing.first_key_value();
        first.map(|(number, taken)| (*number, *taken))
    }

    /// Returns whether a worker is to be called, and if so, whether that is one more, which is counted. One that is called for
    /// a container whose share is used up would find nothing, and keep the caller from the lock.
    fn wants_worker(&mut self) -> Option<bool> {
        // Somebody has to wait for the containers that get their share again.
        (self.queues.is_ready() || self.is_unwatched()).then(|| self.grows())
    }

    /// Returns whether another worker is to be started, and counts it.
    fn grows(&mut self) -> bool {
        let grows = self.idle == 0 && self.threads < self.queues.wanted();
        self.threads += usize::from(grows);
        grows
    }

    /// Returns whether a container waits for its share, and no worker looks when it has that again.
    fn is_unwatched(&self) -> bool {
        let next = self.queues.next_at();
        next.is_some_and(|next| self.looks_at.is_none_or(|at| at > next))
    }

    /// Returns whether a worker that has nothing to do may end: enough others are left, and one of them looks for the
    /// containers that get their share again, if there are any. Those that are left may all be busy for long.
    fn may_end(&self) -> bool {
        self.threads > STAYING && !self.is_unwatched()
    }
}

#[cfg(test)]
mod tests;
