//! The descriptors that the event loop waits for, as one epoll set that other threads add containers to.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

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
    epoll: Epoll,
    wake: EventFd,
}

impl EventSet {
    pub(super) fn new() -> Result<Self> {
        let trouble = |e| Error::io("make", "an epoll set", e);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(trouble)?;
        let wake = EventFd::from_flags(
            nix::sys::eventfd::EfdFlags::EFD_CLOEXEC | nix::sys::eventfd::EfdFlags::EFD_NONBLOCK,
        )
        .map_err(trouble)?;
        let this = Self { epoll, wake };
        this.add(this.wake.as_fd(), WAKE)?;
        Ok(this)
    }

    /// Waits for the next events and returns how many there are; 0 when a signal came first.
    pub(super) fn wait(&self, events: &mut [EpollEvent]) -> Result<usize> {
        match self.epoll.wait(events, EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => Ok(0),
            other => other.map_err(|e| Error::io("wait on", "the epoll set", e)),
        }
    }

    pub(super) fn add(&self, fd: BorrowedFd<'_>, token: u64) -> Result<()> {
        self.epoll
            .add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))
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
            true => EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT,
            false => EpollFlags::empty(),
        };
        let mut event = EpollEvent::new(flags, REQUEST + number);
        match self.epoll.modify(fuse, &mut event) {
            Err(nix::errno::Errno::ENOENT) => self.epoll.add(fuse, event),
            other => other,
        }
        .map_err(|e| Error::io("watch", "/dev/fuse", e))
    }

    /// Has the loop hear of the end of the container in `slot`, once: its descriptor stays readable.
    pub(super) fn add_container(&self, slot: u64, pidfd: BorrowedFd<'_>) -> Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
        self.epoll
            .add(pidfd, EpollEvent::new(flags, FIRST_SLOT + slot))
            .map_err(|e| Error::io("watch", "a process", e))
    }

    pub(super) fn remove(&self, fd: BorrowedFd<'_>) {
        // It can only fail because the descriptor is not in the set.
        let _ = self.epoll.delete(fd);
    }

    /// Has the loop look at the flags of the daemon.
    pub(super) fn wake(&self) {
        let _ = self.wake.write(1);
    }

    pub(super) fn clear_wake(&self) {
        let _ = self.wake.read();
    }
}
