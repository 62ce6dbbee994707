//! Pressure triggers: a container writes one to a file of /proc/pressure and then polls that.
//!
//! The server may not open a file for writing, so the daemon opens the pressure file of the container's cgroup, writes the
//! trigger, and sends the descriptor. From then on the kernel watches, and one thread here waits for all triggers. A
//! container can have [`MAX_TRIGGERS`] at a time. A write waits in a queue that a thread of its own works off, so nothing
//! that serves another container ever waits for the daemon.
//!
//! The kernel takes some 20 ms to close a trigger (it waits for RCU). Another thread does that. A trigger counts until it is
//! closed. Both threads take one thing of each container in turn.
//!
//! The kernel's trigger ends with the descriptor, so a server that takes over has the daemon open it anew. The state says
//! that a trigger has fired until the container asks again, which it does after it was told: it may be told twice, but
//! never not at all.

mod turns;
mod wait;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use eci_fs_protocol::link::{BrokerRequest, Resource};
use parking_lot::Mutex;
use rustix::event::epoll;

use crate::server::broker::BrokerClient;
use crate::server::budget::{Budget, Charge, Part};
use crate::server::error::Errno;
use crate::server::faults::{self, Point};
use crate::server::ids::{Handle, Request};
use crate::server::state::{self, Key, Record};
use turns::Turns;

/// The number of triggers that one container can have at a time, with those that are being opened or closed.
pub const MAX_TRIGGERS: u64 = 32;

/// The share of the descriptors of the process that the triggers of all containers may take, as a divisor.
const OF_DESCRIPTORS: u64 = 8;

/// The triggers that each container can have however many the others have.
const TRIGGERS_FLOOR: u64 = 2;

/// The writes of all containers that wait for the daemon at a time. More are told to try again. One container alone can have
/// [`MAX_TRIGGERS`] of them, because a trigger that waits counts as one.
const WAITING: u64 = 256;

/// The writes of each container that can wait however many of the others do.
const WAITING_FLOOR: u64 = 1;

/// The time that a write waits for a daemon, and for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A function that is called with the number that the kernel gave to an open file when it polled it: there is news.
pub type Wake = Box<dyn Fn(u64) + Send + Sync>;

/// A function that is called when a write has been decided.
pub type Done = Box<dyn FnOnce(Result<(), Errno>) + Send>;

/// The answer to poll(2) of an open view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polled {
    /// Nothing has happened.
    Quiet,
    /// The trigger has fired since the last poll.
    Fired,
    /// There is no trigger, or its cgroup is gone.
    Error,
}

/// The triggers of all containers.
pub struct Triggers {
    armed: DashMap<Handle, Arc<ArmedTrigger>>,
    epoll: OwnedFd,
    jobs: Turns<Job>,
    /// The triggers that are to be closed.
    closing: Turns<Closing>,
    /// The triggers of all containers, each of which takes a descriptor.
    descriptors: Arc<Budget>,
    /// The writes among the jobs.
    waiting: Arc<Budget>,
    /// What each container has of both, by slot.
    parts: DashMap<u64, Parts>,
    broker: Arc<BrokerClient>,
    wake: Wake,
    state: Arc<state::State>,
}

impl std::fmt::Debug for Triggers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Triggers").finish_non_exhaustive()
    }
}

/// What a container has of the budgets.
#[derive(Debug, Default)]
struct Parts {
    descriptors: Arc<Part>,
    waiting: Arc<Part>,
}

/// A trigger that is to be closed: the descriptor goes before the charge for it.
#[derive(Debug)]
struct Closing {
    _fd: OwnedFd,
    _descriptor: Charge,
}

#[derive(Debug)]
struct ArmedTrigger {
    handle: Handle,
    slot: u64,
    resource: Resource,
    trigger: Vec<u8>,
    status: Mutex<Status>,
}

#[derive(Debug, Default)]
struct Status {
    /// The kernel's trigger; none until the daemon has opened it anew.
    fd: Option<OwnedFd>,
    /// The charge for its descriptor, given back when that is closed; none then.
    descriptor: Option<Charge>,
    /// The number by which the kernel knows who polls the trigger.
    poll: Option<u64>,
    fired: bool,
    broken: bool,
    /// True if it is to be written to the state no more.
    closed: bool,
    /// The `poll` and `fired` that the state has.
    recorded: Option<(Option<u64>, bool)>,
}

enum Job {
    Write(Write),
    /// A trigger of the server before this one, or of another daemon.
    Reopen(Arc<ArmedTrigger>),
}

struct Write {
    armed: ArmedTrigger,
    until: Instant,
    /// True if the kernel sends it again.
    again: bool,
    done: Done,
    /// Its place among the writes that wait.
    place: Charge,
}

/// The set of the kernel's triggers that are waited for. It is made before the server is confined.
#[derive(Debug)]
pub struct TriggerSet(OwnedFd);

impl TriggerSet {
    /// Makes an empty set.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }
}

impl Triggers {
    /// Starts the threads: one asks the daemon by `broker`, one closes triggers, and one waits for the kernel and calls
    /// `wake`. Armed triggers are written to `state`. The process may have `descriptors` open, of which triggers take a
    /// share.
    ///
    /// # Errors
    /// When there are no more threads.
    pub fn start(
        set: TriggerSet,
        broker: Arc<BrokerClient>,
        wake: Wake,
        state: Arc<state::State>,
        descriptors: u64,
    ) -> std::io::Result<Arc<Self>> {
        let this = Arc::new(Self {
            armed: DashMap::new(),
            epoll: set.0,
            jobs: Turns::default(),
            closing: Turns::default(),
            descriptors: Budget::new(descriptors / OF_DESCRIPTORS, TRIGGERS_FLOOR),
            waiting: Budget::new(WAITING, WAITING_FLOOR),
            parts: DashMap::new(),
            broker,
            wake,
            state,
        });
        let opening = Arc::clone(&this);
        std::thread::Builder::new()
            .name("trigger-open".to_owned())
            .spawn(move || opening.work())?;
        let closing = Arc::clone(&this);
        std::thread::Builder::new()
            .name("trigger-close".to_owned())
            .spawn(move || {
                loop {
                    drop(closing.closing.take());
                }
            })?;
        let waiting = Arc::clone(&this);
        std::thread::Builder::new()
            .name("trigger-wait".to_owned())
            .spawn(move || waiting.wait())?;
        Ok(this)
    }

    /// Asks a new daemon for the triggers that the last one did not open any more.
    pub fn reopen_all(&self) {
        for armed in &self.armed {
            let status = armed.status.lock();
            if status.fd.is_none() && !status.broken {
                drop(status);
                self.send(Job::Reopen(Arc::clone(&armed)));
            }
        }
    }

    /// Takes over a trigger that a server before this one had armed.
    pub fn restore(&self, former: state::Trigger) {
        let part = Arc::clone(&self.parts.entry(former.slot).or_default().descriptors);
        let status = Status {
            poll: former.poll,
            fired: former.fired,
            recorded: Some((former.poll, former.fired)),
            // The server before this one had room for it.
            descriptor: Some(self.descriptors.take_always(&part, 1)),
            ..Status::default()
        };
        let handle = Handle(former.handle);
        let armed = Arc::new(ArmedTrigger {
            handle,
            slot: former.slot,
            resource: former.resource,
            trigger: former.trigger,
            status: Mutex::new(status),
        });
        self.armed.insert(handle, Arc::clone(&armed));
        self.send(Job::Reopen(armed));
    }

    /// Arms a trigger for the open view `handle`, and calls `done` when that has been decided, on another thread.
    ///
    /// The errors are the kernel's (psi_write): EBUSY when the file has a trigger, EINVAL for what is none. They are EMFILE
    /// when the container has too many or the server has no descriptors left for it, EAGAIN when too much is waiting or
    /// no daemon answers in time. A write that the kernel sends again was done
    /// already.
    pub fn arm(
        &self,
        slot: u64,
        handle: Handle,
        resource: Resource,
        trigger: &[u8],
        request: Request,
        done: Done,
    ) {
        if let Some(known) = self.known(handle, trigger, request.again) {
            return done(known);
        }
        let (descriptor, place) = match self.charge(slot) {
            Ok(charges) => charges,
            Err(errno) => return done(Err(errno)),
        };
        let armed = ArmedTrigger {
            handle,
            slot,
            resource,
            trigger: trigger.to_vec(),
            status: Mutex::new(Status {
                descriptor: Some(descriptor),
                ..Status::default()
            }),
        };
        self.send(Job::Write(Write {
            armed,
            until: Instant::now() + PATIENCE,
            again: request.again,
            done,
            place,
        }));
    }

    /// Charges a container for a trigger, and for a write that waits.
    ///
    /// # Errors
    /// EMFILE when it has too many triggers, EAGAIN when too many of its writes wait.
    fn charge(&self, slot: u64) -> Result<(Charge, Charge), Errno> {
        let parts = self.parts.entry(slot).or_default();
        let descriptor = self.descriptors.take(&parts.descriptors, 1);
        let descriptor = descriptor.filter(|_| parts.descriptors.taken() <= MAX_TRIGGERS);
        let descriptor = descriptor.ok_or(Errno(libc::EMFILE))?;
        let place = self.waiting.take(&parts.waiting, 1);
        Ok((descriptor, place.ok_or(Errno::AGAIN)?))
    }

    /// Returns the answer to a write where there is a trigger already.
    fn known(&self, handle: Handle, trigger: &[u8], again: bool) -> Option<Result<(), Errno>> {
        let armed = self.armed.get(&handle)?;
        let done = again && armed.trigger == trigger;
        Some(if done {
            Ok(())
        } else {
            Err(Errno(libc::EBUSY))
        })
    }

    /// Returns what has happened to the trigger of `handle`. With `poll`, that number is woken when something does.
    pub fn poll(&self, handle: Handle, poll: Option<u64>) -> Polled {
        let Some(armed) = self.armed.get(&handle).map(|armed| Arc::clone(&armed)) else {
            return Polled::Error;
        };
        let mut status = armed.status.lock();
        if status.broken {
            return Polled::Error;
        }
        status.poll = poll.or(status.poll);
        if std::mem::take(&mut status.fired) {
            // The state forgets this at the next poll: then this answer has arrived.
            return Polled::Fired;
        }
        self.put(&armed, &mut status);
        Polled::Quiet
    }

    /// Disarms the trigger of an open view that is closed.
    pub fn disarm(&self, handle: Handle) {
        if let Some((_, armed)) = self.armed.remove(&handle) {
            self.state.forget(Key::Trigger(handle.0));
            self.close(&armed);
        }
    }

    /// Forgets all triggers, which the state keeps.
    pub fn disarm_all(&self) {
        self.close_all(|_| true);
    }

    /// Forgets the triggers of a container.
    pub fn remove_slot(&self, slot: u64) {
        self.close_all(|armed| armed.slot == slot);
        self.parts.remove(&slot);
    }

    fn close_all(&self, which: impl Fn(&ArmedTrigger) -> bool) {
        let handle = |armed: &ArmedTrigger| which(armed).then_some(armed.handle);
        let handles: Vec<Handle> = self
            .armed
            .iter()
            .filter_map(|armed| handle(&armed))
            .collect();
        for handle in handles {
            if let Some((_, armed)) = self.armed.remove(&handle) {
                self.close(&armed);
            }
        }
    }

    /// Has the kernel's trigger closed by the thread that does so.
    fn close(&self, armed: &ArmedTrigger) {
        let mut status = armed.status.lock();
        status.closed = true;
        let (fd, descriptor) = (status.fd.take(), status.descriptor.take());
        drop(status);
        if let (Some(fd), Some(descriptor)) = (fd, descriptor) {
            // Closing the descriptor takes it out of the epoll set too, but not before it is closed.
            let _ = epoll::delete(&self.epoll, &fd);
            let closing = Closing {
                _fd: fd,
                _descriptor: descriptor,
            };
            self.closing.push(armed.slot, closing);
        }
    }

    fn send(&self, job: Job) {
        let slot = match &job {
            Job::Write(write) => write.armed.slot,
            Job::Reopen(armed) => armed.slot,
        };
        self.jobs.push(slot, job);
    }

    fn work(&self) {
        loop {
            match self.jobs.take() {
                Job::Write(write) => {
                    drop(write.place);
                    let done = write.done;
                    done(self.open(write.armed, write.until, write.again));
                }
                Job::Reopen(armed) => self.reopen(&armed),
            }
        }
    }

    /// Arms a trigger that a container has written.
    fn open(&self, armed: ArmedTrigger, until: Instant, again: bool) -> Result<(), Errno> {
        // The kernel may send again a write that this server has read itself, while that waits in the queue.
        if let Some(known) = self.known(armed.handle, &armed.trigger, again) {
            return known;
        }
        let fd = self.broker.ask(&armed.ask(), until)?;
        let armed = Arc::new(armed);
        let mut status = armed.status.lock();
        self.watch(&armed, &fd)?;
        status.fd = Some(fd);
        self.armed.insert(armed.handle, Arc::clone(&armed));
        self.put(&armed, &mut status);
        faults::at(Point::Write);
        Ok(())
    }

    /// Arms a trigger anew.
    fn reopen(&self, armed: &ArmedTrigger) {
        let waits = |armed: &ArmedTrigger| self.armed.contains_key(&armed.handle);
        // The file may have been closed, or another daemon have opened the trigger, since this was wanted.
        if armed.status.lock().fd.is_some() || !waits(armed) {
            return;
        }
        let opened = self.broker.ask(&armed.ask(), Instant::now() + PATIENCE);
        let mut status = armed.status.lock();
        match opened.and_then(|fd| self.watch(armed, &fd).map(|()| fd)) {
            // The file was closed meanwhile.
            Ok(fd) if status.closed => return drop(fd),
            Ok(fd) => status.fd = Some(fd),
            // The next daemon is asked.
            Err(Errno::AGAIN) => return,
            Err(error) => {
                tracing::warn!(%error, slot = armed.slot, "a pressure trigger cannot be set again");
                status.broken = true;
            }
        }
        let poll = status.poll.filter(|_| status.broken || status.fired);
        drop(status);
        if let Some(poll) = poll {
            (self.wake)(poll);
        }
    }

    /// Writes to the state what would be lost with this server, unless it has that.
    fn put(&self, armed: &ArmedTrigger, status: &mut Status) {
        let now = (status.poll, status.fired);
        if status.closed || status.recorded == Some(now) {
            return;
        }
        status.recorded = Some(now);
        let record = Record::Trigger(state::Trigger {
            slot: armed.slot,
            handle: armed.handle.0,
            resource: armed.resource,
            trigger: armed.trigger.clone(),
            poll: status.poll,
            fired: status.fired,
        });
        self.state.put(&record, &[]);
    }
}

impl ArmedTrigger {
    fn ask(&self) -> BrokerRequest {
        BrokerRequest::Trigger {
            slot: self.slot,
            resource: self.resource,
            trigger: self.trigger.clone(),
            number: None,
        }
    }
}
