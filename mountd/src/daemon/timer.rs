//! A timer that the event loop waits for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use eci_fs_protocol::error::{Error, Result};

/// A timer. It is readable when its time has come.
#[derive(Debug)]
pub(super) struct Timer {
    fd: OwnedFd,
}

impl Timer {
    pub(super) fn new() -> Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)
            .map_err(|e| Error::io("make", "a timer", e))?;
        Ok(Self { fd })
    }

    /// Sets the timer to `delay`, which is more than nothing.
    pub(super) fn set(&self, delay: Duration) {
        // It fails only for times that are out of range.
        let _ = Timespec::try_from(delay).map(|it_value| {
            let once = Itimerspec {
                it_interval: Timespec::default(),
                it_value,
            };
            timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)
        });
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
