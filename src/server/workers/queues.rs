//! The requests that wait, a queue for each container, and the order in which they are taken.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::Job;
use crate::server::account::Account;

/// The kind of a request that waits. The two kinds have queues and workers of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// It takes nothing but a CPU.
    Computing,
    /// It may sleep, for a driver of the host or for the daemon.
    Sleeping,
}

impl Lane {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Computing, Self::Sleeping];
}

/// The number of requests that are answered at the same time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Of each kind, for all containers together.
    pub(super) all: [usize; 2],
    /// Of each kind, for one container.
    pub(super) one: [usize; 2],
}

/// The queues of all containers that have requests which wait or are being answered.
#[derive(Debug)]
pub(super) struct Queues {
    limits: Limits,
    containers: HashMap<u64, Queue>,
    /// The containers whose turn comes, in that order. Each is listed once.
    ready: [VecDeque<u64>; 2],
    /// The containers that have used up their share, by the time at which their requests are taken again.
    parked: BTreeSet<(Instant, u64)>,
    running: [usize; 2],
    waiting: usize,
    /// True if all requests are to be answered soon, whatever the shares are.
    hurries: bool,
}

#[derive(Debug)]
struct Queue {
    /// The account of the container that is in the slot now. Requests of one before it may still wait.
    account: Arc<Account>,
    lanes: [LaneQueue; 2],
    is_parked: bool,
}

#[derive(Debug, Default)]
struct LaneQueue {
    /// The requests, each with the account that it was entered in.
    jobs: VecDeque<(Arc<Account>, Box<dyn Job>)>,
    running: usize,
    is_listed: bool,
}

/// A request that is taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) account: Arc<Account>,
    pub(super) lane: Lane,
    pub(super) job: Box<dyn Job>,
}

impl Queues {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            containers: HashMap::new(),
            ready: Default::default(),
            parked: BTreeSet::new(),
            running: [0; 2],
            waiting: 0,
            hurries: false,
        }
    }

    /// Returns whether nothing waits and nothing is being answered.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    /// Returns the number of requests that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Adds a request to the queue of its container.
    pub(super) fn push(&mut self, account: &Arc<Account>, lane: Lane, job: Box<dyn Job>) {
        account.enter();
        self.waiting += 1;
        let slot = account.slot();
        let queue = self.containers.entry(slot).or_insert_with(|| Queue {
            account: Arc::clone(account),
            lanes: Default::default(),
            is_parked: false,
        });
        if !Arc::ptr_eq(&queue.account, account) {
            queue.account = Arc::clone(account);
        }
        let job = (Arc::clone(account), job);
        queue.lanes[lane as usize].jobs.push_back(job);
        self.list(slot, lane);
    }

    /// Takes the next request of the container whose turn it is.
    pub(super) fn take(&mut self, now: Instant) -> Option<Taken> {
        self.unpark(now);
        for lane in Lane::ALL {
            while self.has_room(lane)
                && let Some(slot) = self.ready[lane as usize].pop_front()
            {
                if let Some(taken) = self.take_of(slot, lane, now) {
                    return Some(taken);
                }
            }
        }
        None
    }

    fn has_room(&self, lane: Lane) -> bool {
        self.running[lane as usize] < self.limits.all[lane as usize]
    }

    fn take_of(&mut self, slot: u64, lane: Lane, now: Instant) -> Option<Taken> {
        let queue = self.containers.get_mut(&slot)?;
        queue.lanes[lane as usize].is_listed = false;
        if queue.is_parked {
            return None;
        }
        if !self.hurries {
            let ready_at = queue.account.ready_at(now);
            if ready_at > now {
                queue.is_parked = true;
                self.parked.insert((ready_at, slot));
                return None;
            }
        }
        let one = &mut queue.lanes[lane as usize];
        let (account, job) = one.jobs.pop_front()?;
        one.running += 1;
        self.running[lane as usize] += 1;
        self.waiting -= 1;
        account.taken(lane == Lane::Sleeping);
        self.list(slot, lane);
        Some(Taken { account, lane, job })
    }

    /// Notes that a request of the container in `slot` has been answered.
    pub(super) fn done(&mut self, account: &Account, lane: Lane) {
        if lane == Lane::Computing {
            account.done();
        }
        self.running[lane as usize] -= 1;
        let slot = account.slot();
        if let Some(queue) = self.containers.get_mut(&slot) {
            queue.lanes[lane as usize].running -= 1;
            let is_over = |lane: &LaneQueue| lane.running == 0 && lane.jobs.is_empty();
            if queue.lanes.iter().all(is_over) {
                // It may be listed or parked no more: it was when it had requests.
                self.containers.remove(&slot);
            }
        }
        self.list(slot, lane);
    }

    /// Lets a container have its turn, if it has requests and not too many of them are being answered.
    fn list(&mut self, slot: u64, lane: Lane) {
        let limit = self.limits.one[lane as usize];
        let Some(queue) = self.containers.get_mut(&slot) else {
            return;
        };
        let one = &mut queue.lanes[lane as usize];
        if !queue.is_parked && !one.is_listed && !one.jobs.is_empty() && one.running < limit {
            one.is_listed = true;
            self.ready[lane as usize].push_back(slot);
        }
    }

    /// Lets the containers have their turns again whose share has come back.
    fn unpark(&mut self, now: Instant) {
        while let Some((at, slot)) = self.parked.first().copied()
            && (self.hurries || at <= now)
        {
            self.parked.pop_first();
            if let Some(queue) = self.containers.get_mut(&slot) {
                queue.is_parked = false;
            }
            Lane::ALL.into_iter().for_each(|lane| self.list(slot, lane));
        }
    }

    /// Has all requests answered soon, whatever the shares are; or no longer.
    pub(super) fn hurry(&mut self, hurries: bool) {
        self.hurries = hurries;
    }

    /// Returns the time at which a container has its turn again; none while none waits for its share.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.parked.first().map(|(at, _)| *at)
    }

    /// Returns the number of workers that have something to do.
    pub(super) fn wanted(&self) -> usize {
        Lane::ALL
            .map(|lane| {
                let wanted = self.running[lane as usize] + self.ready[lane as usize].len();
                wanted.min(self.limits.all[lane as usize])
            })
            .iter()
            .sum::<usize>()
            // One waits for those that get their share again.
            + usize::from(!self.parked.is_empty())
    }

    /// Returns whether a worker that is free would find a request.
    pub(super) fn is_ready(&self) -> bool {
        let is_ready = |lane: Lane| self.has_room(lane) && !self.ready[lane as usize].is_empty();
        Lane::ALL.into_iter().any(is_ready)
    }
}
