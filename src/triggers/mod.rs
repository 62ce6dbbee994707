//! Pressure triggers: what a container writes to /proc/pressure/* and then polls.
//!
//! The server may not open a file for writing, so the daemon opens the pressure file of the container's cgroup,
//! writes the trigger, and sends the descriptor. From then on the kernel watches, and one thread here waits for
//! all of them. A container can have [`MAX_TRIGGERS`] at a time; what it writes waits in a queue of its own thread,
//! so nothing that serves another container ever waits for the daemon.

mod asks;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use dashmap::DashMap;
use eci_fs_mountd::protocol::channel::Channel;
use eci_fs_mountd::protocol::link::{Ask, Resource};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use parking_lot::Mutex;

use crate::error::Errno;
use crate::tree::Handle;
use asks::{Asks, PATIENCE};

/// Triggers that one container can have at a time.
pub const MAX_TRIGGERS: usize = 32;

/// Writes that wait for the daemon at a time; more are told to try again.
const QUEUE: usize = 64;

/// What is called when a trigger has fired, once.
pub type Waker = Box<dyn FnOnce() + Send>;

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
#[derive(Debug)]
pub struct Triggers {
    armed: DashMap<Handle, Arc<Armed>>,
    epoll: Epoll,
    queue: SyncSender<Write>,
    asks: Asks,
}

struct Armed {
    slot: u64,
    fd: OwnedFd,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    fired: bool,
    broken: bool,
    waker: Option<Waker>,
}

impl std::fmt::Debug for Armed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Armed")
            .field("slot", &self.slot)
            .field("fd", &self.fd)
            .finish_non_exhaustive()
    }
}

struct Write {
    slot: u64,
    handle: Handle,
    resource: Resource,
    trigger: Vec<u8>,
    until: Instant,
    done: Done,
}

impl Triggers {
    /// Start the two threads: one asks the daemon over `asks`, the other waits for the kernel.
    ///
    /// # Errors
    /// When there are no more descriptors or threads.
    pub fn start(asks: Channel) -> std::io::Result<Arc<Self>> {
        let (queue, writes) = sync_channel(QUEUE);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let this = Arc::new(Self {
            armed: DashMap::new(),
            epoll,
            queue,
            asks: Asks::new(asks),
        });
        let asking = Arc::clone(&this);
        std::thread::Builder::new()
            .name("trigger-asks".to_owned())
            .spawn(move || asking.ask(&writes))?;
        let waiting = Arc::clone(&this);
        std::thread::Builder::new()
            .name("trigger-wait".to_owned())
            .spawn(move || waiting.wait())?;
        Ok(this)
    }

    /// There is another daemon: ask it over `asks` from now on.
    pub fn ask_over(&self, asks: Channel) {
        self.asks.replace(asks);
    }

    /// Arm a trigger for the open view `handle`; `done` is called when that has been decided, on another thread.
    ///
    /// As the kernel has it (psi_write): EBUSY when it has one, EINVAL for what is none. EMFILE when the container
    /// has too many, EAGAIN when too much is waiting.
    pub fn arm(&self, slot: u64, handle: Handle, resource: Resource, trigger: &[u8], done: Done) {
        if self.armed.contains_key(&handle) {
            return done(Err(Errno(libc::EBUSY)));
        }
        if self.armed.iter().filter(|armed| armed.slot == slot).count() >= MAX_TRIGGERS {
            return done(Err(Errno(libc::EMFILE)));
        }
        let write = Write {
            slot,
            handle,
            resource,
            trigger: trigger.to_vec(),
            until: Instant::now() + PATIENCE,
            done,
        };
        if let Err(refused) = self.queue.try_send(write) {
            let (std::sync::mpsc::TrySendError::Full(write)
            | std::sync::mpsc::TrySendError::Disconnected(write)) = refused;
            (write.done)(Err(Errno::AGAIN));
        }
    }

    /// What has happened to the trigger of `handle`; `waker` is called when something does.
    pub fn poll(&self, handle: Handle, waker: Option<Waker>) -> Polled {
        let Some(armed) = self.armed.get(&handle).map(|armed| Arc::clone(&armed)) else {
            return Polled::Error;
        };
        let mut state = armed.state.lock();
        if state.broken {
            return Polled::Error;
        }
        if std::mem::take(&mut state.fired) {
            return Polled::Fired;
        }
        if waker.is_some() {
            state.waker = waker;
        }
        Polled::Quiet
    }

    /// The open view is closed.
    pub fn disarm(&self, handle: Handle) {
        if let Some((_, armed)) = self.armed.remove(&handle) {
            // Closing the descriptor would take it out too, once nobody else holds it.
            let _ = self.epoll.delete(&armed.fd);
        }
    }

    /// The container is gone.
    pub fn remove_slot(&self, slot: u64) {
        self.armed.retain(|_, armed| armed.slot != slot);
    }

    fn ask(&self, writes: &Receiver<Write>) {
        for Write {
            slot,
            handle,
            resource,
            trigger,
            until,
            done,
        } in writes
        {
            let ask = Ask::Trigger {
                slot,
                resource,
                trigger,
            };
            let result = self.asks.ask(&ask, until);
            done(result.and_then(|fd| self.watch(slot, handle, fd)));
        }
    }

    fn watch(&self, slot: u64, handle: Handle, fd: OwnedFd) -> Result<(), Errno> {
        let armed = Arc::new(Armed {
            slot,
            fd,
            state: Mutex::default(),
        });
        let event = EpollEvent::new(EpollFlags::EPOLLPRI, handle.0);
        self.epoll
            .add(armed.fd.as_fd(), event)
            .map_err(|e| Errno(e as i32))?;
        self.armed.insert(handle, armed);
        Ok(())
    }

    fn wait(&self) {
        let mut events = [EpollEvent::empty(); 32];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => {
                    return tracing::error!(%error, "pressure triggers are not waited for any more");
                }
            };
            for event in &events[..count] {
                let handle = Handle(event.data());
                let Some(armed) = self.armed.get(&handle).map(|armed| Arc::clone(&armed)) else {
                    continue;
                };
                let waker = {
                    let mut state = armed.state.lock();
                    state.fired = true;
                    if event.events().contains(EpollFlags::EPOLLERR) {
                        state.broken = true;
                        // Its cgroup is gone, and would be reported for ever.
                        let _ = self.epoll.delete(&armed.fd);
                    }
                    state.waker.take()
                };
                if let Some(waker) = waker {
                    waker();
                }
            }
        }
    }
}
