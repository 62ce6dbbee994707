//! The descriptors that the event loop waits for, as one epoll set that other threads add containers to.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use eci_fs_protocol::error::{Error, Result};

/// Tokens of the descriptors. Those of containers come after them, by slot.
pub(super) const LISTENER: u64 = 0;
pub(super) const SIGNALS: u64 = 1;
pub(super) const SERVER: u64 = 2;
pub(super) const WAKE: u64 = 3;
/// A request that no server has taken yet. Each connection has a token: this one and the next.
pub(super) const REQUEST: u64 = 4;
/// The time to check whether the server answers.
pub(super) const CHECK: u64 = 6;
/// The time to start a server.
pub(super) const START: u64 = 7;
pub(super) const FIRST_SLOT: u64 = 16;

/// The set.
#[derive(Debug)]
pub(super) struct EventSet {
    epoll: OwnedFd,
    wake: OwnedFd,
}

impl EventSet {
    pub(super) fn new() -> Result<Self> {
        let trouble = |e| Error::io("make", "an epoll set", e);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(trouble)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(trouble)?;
        let this = Self { epoll, wake };
        this.add(this.wake.as_fd(), WAKE)?;
        Ok(this)
    }

    /// Waits for the next events and appends them to `events`, as far as its capacity goes; none when a signal came
    /// first.
    pub(super) fn wait(&self, events: &mut Vec<Event>) -> Result<()> {
        match epoll::wait(&self.epoll, spare_capacity(events), None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(Error::io("wait on", "the epoll set", e)),
        }
    }

    pub(super) fn add(&self, fd: BorrowedFd<'_>, token: u64) -> Result<()> {
        epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN)
            .map_err(|e| Error::io("watch", "a descriptor", e))
    }

    /// Has the loop hear of the next request on the connection `number`, once; or of none.
    pub(super) fn hear_of_request(
        &self,
        number: u64,
        fuse: BorrowedFd<'_>,
        hear: bool,
    ) -> Result<()> {
        let flags = match hear {
            true => EventFlags::IN | EventFlags::ONESHOT,
            false => EventFlags::empty(),
        };
        let token = EventData::new_u64(REQUEST + number);
        match epoll::modify(&self.epoll, fuse, token, flags) {
            Err(Errno::NOENT) => epoll::add(&self.epoll, fuse, token, flags),
            other => other,
        }
        .map_err(|e| Error::io("watch", "/dev/fuse", e))
    }

    /// Has the loop hear of the end of the container in `slot`, once: its descriptor stays readable.
    pub(super) fn add_container(&self, slot: u64, pidfd: BorrowedFd<'_>) -> Result<()> {
        let flags = EventFlags::IN | EventFlags::ONESHOT;
        let token = EventData::new_u64(FIRST_SLOT + slot);
        epoll::add(&self.epoll, pidfd, token, flags).map_err(|e| Error::io("watch", "a process", e))
    }

    pub(super) fn remove(&self, fd: BorrowedFd<'_>) {
        // It can only fail because the descriptor is not in the set.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Has the loop look at the flags of the daemon.
    pub(super) fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    pub(super) fn clear_wake(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }
}
