//! A timer that the event loop waits for.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::timer::TimerSetTimeFlags;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags};

use eci_fs_protocol::error::{Error, Result};

/// A timer. It is readable when its time has come.
#[derive(Debug)]
pub(super) struct Timer {
    fd: TimerFd,
}

impl Timer {
    pub(super) fn new() -> Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let fd = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)
            .map_err(|e| Error::io("make", "a timer", e))?;
        Ok(Self { fd })
    }

    /// Sets the timer to `delay`, which is more than nothing.
    pub(super) fn set(&self, delay: Duration) {
        // It fails only for times that are out of range.
        let _ = self.fd.set(
            Expiration::OneShot(delay.into()),
            TimerSetTimeFlags::empty(),
        );
    }

    /// Makes the timer unreadable again.
    pub(super) fn clear(&self) {
        // It fails only when nothing has to be cleared.
        let _ = rustix::io::read(&self.fd, &mut [0; 8]);
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
