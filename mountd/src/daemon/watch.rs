//! What the event loop waits for, as one epoll set that other threads add containers to.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::EventFd;

use eci_fs_protocol::error::{Error, Result};

/// Tokens of what is waited for; containers come after, by slot.
pub(super) const LISTENER: u64 = 0;
pub(super) const SIGNALS: u64 = 1;
pub(super) const SERVER: u64 = 2;
pub(super) const WAKE: u64 = 3;
/// A request that no server has taken yet, on either connection.
pub(super) const REQUEST: u64 = 4;
/// Time to ask whether the server answers.
pub(super) const ASK: u64 = 6;
/// Time to start a server.
pub(super) const START: u64 = 7;
pub(super) const FIRST_SLOT: u64 = 16;

/// The set of descriptors that the loop waits for; other threads add containers to it.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) epoll: Epoll,
    pub(super) wake: EventFd,
}

impl Watch {
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

    pub(super) fn add(&self, fd: BorrowedFd<'_>, token: u64) -> Result<()> {
        self.epoll
            .add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))
            .map_err(|e| Error::io("watch", "a descriptor", e))
    }

    /// Hear once of a request on the connection `number`, from now on; or of none.
    pub(super) fn request(&self, number: u64, fuse: BorrowedFd<'_>, hear: bool) -> Result<()> {
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

    /// Notice the end of the container in `slot`, once: its descriptor stays readable.
    pub(super) fn container(&self, slot: u64, pidfd: BorrowedFd<'_>) -> Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
        self.epoll
            .add(pidfd, EpollEvent::new(flags, FIRST_SLOT + slot))
            .map_err(|e| Error::io("watch", "a process", e))
    }

    /// Notice it no more.
    pub(super) fn forget(&self, pidfd: BorrowedFd<'_>) {
        // It can only fail because the descriptor is not in the set.
        let _ = self.epoll.delete(pidfd);
    }

    pub(super) fn wake(&self) {
        let _ = self.wake.write(1);
    }
}
