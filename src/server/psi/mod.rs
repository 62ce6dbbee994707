//! Pressure triggers: what a container writes to /proc/pressure/* and then polls.
//!
//! The server may not open a file for writing, so the daemon opens the pressure file of the container's cgroup,
//! writes the trigger, and sends the descriptor. From then on the kernel watches, and one thread here waits for
//! all of them. A container can have [`MAX_TRIGGERS`] at a time; what it writes waits in a queue of its own thread,
//! so nothing that serves another container ever waits for the daemon.
//!
//! The kernel's trigger ends with the descriptor, so a server that takes over has the daemon open it anew. That one
//! fired is remembered until the container asks again, which it does after it was told: it may be told twice, but
//! never not at all.

mod wait;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use eci_fs_protocol::link::{BrokerRequest, Resource};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use parking_lot::Mutex;

use crate::server::broker::BrokerClient;
use crate::server::error::Errno;
use crate::server::faults::{self, Point};
use crate::server::ids::{Handle, Request};
use crate::server::state::{self, Key, Record};

/// Triggers that one container can have at a time.
pub const MAX_TRIGGERS: usize = 32;

/// Writes that wait for the daemon at a time; more are told to try again.
const QUEUE: usize = 64;

/// How long one who asks waits for a daemon, and for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is called with the number that the kernel gave to an open file when it polled it: there is news.
pub type Wake = Box<dyn Fn(u64) + Send + Sync>;

/// What is called when a write has been done.
pub type Done = Box<dyn FnOnce(Result<(), Errno>) + Send>;

/// What poll(2) is told of an open view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polled {
    /// Nothing has happened.
    Quiet,
    /// The trigger has fired since it was asked last.
    Fired,
    /// There is no trigger, or its cgroup is gone.
    Error,
}

/// All triggers of all containers.
pub struct Triggers {
    armed: DashMap<Handle, Arc<Armed>>,
    epoll: Epoll,
    jobs: Sender<Job>,
    /// Writes among the jobs.
    queued: AtomicUsize,
    asks: Arc<BrokerClient>,
    wake: Wake,
    state: Arc<state::State>,
}

impl std::fmt::Debug for Triggers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Triggers").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Armed {
    handle: Handle,
    slot: u64,
    resource: Resource,
    trigger: Vec<u8>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// None until the daemon has opened it anew.
    fd: Option<OwnedFd>,
    /// By which number the kernel knows who polls it.
    poll: Option<u64>,
    fired: bool,
    broken: bool,
    /// It is to be remembered no more.
    closed: bool,
    /// What of this is remembered.
    remembered: Option<(Option<u64>, bool)>,
}

enum Job {
    Write(Write),
    /// One of the server before this one.
    Again(Arc<Armed>),
}

struct Write {
    armed: Armed,
    until: Instant,
    /// Whether the kernel has sent it before.
    again: bool,
    done: Done,
}

impl Triggers {
    /// Start the two threads: one asks the daemon over `asks`, the other waits for the kernel and calls `wake`. What is
    /// armed is remembered in `state`.
    ///
    /// # Errors
    /// When there are no more descriptors or threads.
    pub fn start(
        asks: Arc<BrokerClient>,
        wake: Wake,
        state: Arc<state::State>,
    ) -> std::io::Result<Arc<Self>> {
        let (jobs, todo) = channel();
        let this = Arc::new(Self {
            armed: DashMap::new(),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            jobs,
            queued: AtomicUsize::new(0),
            asks,
            wake,
            state,
        });
        let asking = Arc::clone(&this);
        std::thread::Builder::new()
            .name("trigger-asks".to_owned())
            .spawn(move || asking.work(&todo))?;
        let waiting = Arc::clone(&this);
        std::thread::Builder::new()
            .name("trigger-wait".to_owned())
            .spawn(move || waiting.wait())?;
        Ok(this)
    }

    /// There is another daemon: ask it for what the last one did not open any more.
    pub fn ask_again(&self) {
        for armed in &self.armed {
            let state = armed.state.lock();
            if state.fd.is_none() && !state.broken {
                drop(state);
                self.send(Job::Again(Arc::clone(&armed)));
            }
        }
    }

    /// Have what a server before this one had armed.
    pub fn restore(&self, former: state::Trigger) {
        let state = State {
            poll: former.poll,
            fired: former.fired,
            remembered: Some((former.poll, former.fired)),
            ..State::default()
        };
        let handle = Handle(former.handle);
        let armed = Arc::new(Armed {
            handle,
            slot: former.slot,
            resource: former.resource,
            trigger: former.trigger,
            state: Mutex::new(state),
        });
        self.armed.insert(handle, Arc::clone(&armed));
        self.send(Job::Again(armed));
    }

    /// Arm a trigger for the open view `handle`; `done` is called when that has been decided, on another thread.
    ///
    /// As the kernel has it (psi_write): EBUSY when it has one, EINVAL for what is none. EMFILE when the container
    /// has too many, EAGAIN when too much is waiting. A write that the kernel sends again was done already.
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
        if self.armed.iter().filter(|armed| armed.slot == slot).count() >= MAX_TRIGGERS {
            return done(Err(Errno(libc::EMFILE)));
        }
        if self.queued.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            return done(Err(Errno::AGAIN));
        }
        let armed = Armed {
            handle,
            slot,
            resource,
            trigger: trigger.to_vec(),
            state: Mutex::default(),
        };
        self.send(Job::Write(Write {
            armed,
            until: Instant::now() + PATIENCE,
            again: request.again,
            done,
        }));
    }

    /// What comes of a write where there is a trigger already.
    fn known(&self, handle: Handle, trigger: &[u8], again: bool) -> Option<Result<(), Errno>> {
        let armed = self.armed.get(&handle)?;
        let done = again && armed.trigger == trigger;
        Some(if done {
            Ok(())
        } else {
            Err(Errno(libc::EBUSY))
        })
    }

    /// What has happened to the trigger of `handle`; with `poll`, that number is woken when something does.
    pub fn poll(&self, handle: Handle, poll: Option<u64>) -> Polled {
        let Some(armed) = self.armed.get(&handle).map(|armed| Arc::clone(&armed)) else {
            return Polled::Error;
        };
        let mut state = armed.state.lock();
        if state.broken {
            return Polled::Error;
        }
        state.poll = poll.or(state.poll);
        if std::mem::take(&mut state.fired) {
            // Forgotten when it is asked again: then this answer has arrived.
            return Polled::Fired;
        }
        self.remember(&armed, &mut state);
        Polled::Quiet
    }

    /// The open view is closed.
    pub fn disarm(&self, handle: Handle) {
        if let Some((_, armed)) = self.armed.remove(&handle) {
            let mut state = armed.state.lock();
            state.closed = true;
            self.state.forget(Key::Trigger(handle.0));
            if let Some(fd) = state.fd.take() {
                // Closing the descriptor takes it out too.
                let _ = self.epoll.delete(fd);
            }
        }
    }

    /// Know nothing of what is armed any more.
    pub fn disarm_all(&self) {
        self.armed.retain(|_, armed| {
            armed.state.lock().closed = true;
            false
        });
    }

    /// The container is gone.
    pub fn remove_slot(&self, slot: u64) {
        self.armed.retain(|_, armed| armed.slot != slot);
    }

    fn send(&self, job: Job) {
        // The thread that takes them lives as long as this.
        let _ = self.jobs.send(job);
    }

    fn work(&self, jobs: &Receiver<Job>) {
        for job in jobs {
            match job {
                Job::Write(write) => {
                    self.queued.fetch_sub(1, Ordering::Relaxed);
                    let done = write.done;
                    done(self.set(write.armed, write.until, write.again));
                }
                Job::Again(armed) => self.set_again(&armed),
            }
        }
    }

    /// Arm what a container has written.
    fn set(&self, armed: Armed, until: Instant, again: bool) -> Result<(), Errno> {
        // The kernel may send again what this server has read itself, while it waits in the queue.
        if let Some(known) = self.known(armed.handle, &armed.trigger, again) {
            return known;
        }
        let fd = self.asks.ask(&armed.ask(), until)?;
        let armed = Arc::new(armed);
        let mut state = armed.state.lock();
        self.watch(&armed, &fd)?;
        state.fd = Some(fd);
        self.armed.insert(armed.handle, Arc::clone(&armed));
        self.remember(&armed, &mut state);
        faults::at(Point::Write);
        Ok(())
    }

    /// Arm what the server before this one had armed.
    fn set_again(&self, armed: &Armed) {
        let waits = |armed: &Armed| self.armed.contains_key(&armed.handle);
        // It may have been closed, or another daemon have opened it, since that was wanted.
        if armed.state.lock().fd.is_some() || !waits(armed) {
            return;
        }
        let opened = self.asks.ask(&armed.ask(), Instant::now() + PATIENCE);
        let mut state = armed.state.lock();
        match opened.and_then(|fd| self.watch(armed, &fd).map(|()| fd)) {
            Ok(fd) => state.fd = Some(fd),
            // The next daemon is asked.
            Err(Errno::AGAIN) => return,
            Err(error) => {
                tracing::warn!(%error, slot = armed.slot, "a pressure trigger cannot be set again");
                state.broken = true;
            }
        }
        let poll = state.poll.filter(|_| state.broken || state.fired);
        drop(state);
        if let Some(poll) = poll {
            (self.wake)(poll);
        }
    }

    /// Remember what would be lost with this server, unless it is remembered.
    fn remember(&self, armed: &Armed, state: &mut State) {
        let now = (state.poll, state.fired);
        if state.closed || state.remembered == Some(now) {
            return;
        }
        state.remembered = Some(now);
        let record = Record::Trigger(state::Trigger {
            slot: armed.slot,
            handle: armed.handle.0,
            resource: armed.resource,
            trigger: armed.trigger.clone(),
            poll: state.poll,
            fired: state.fired,
        });
        self.state.put(&record, &[]);
    }
}

impl Armed {
    fn ask(&self) -> BrokerRequest {
        BrokerRequest::Trigger {
            slot: self.slot,
            resource: self.resource,
            trigger: self.trigger.clone(),
        }
    }
}
