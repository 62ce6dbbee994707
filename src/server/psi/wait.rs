//! Waiting for the kernel, for all triggers in one thread.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};

use super::{ArmedTrigger, Triggers};
use crate::server::error::Errno;
use crate::server::ids::Handle;

impl Triggers {
    /// Waits for this trigger too.
    pub(super) fn watch(&self, armed: &ArmedTrigger, fd: &OwnedFd) -> Result<(), Errno> {
        let event = EpollEvent::new(EpollFlags::EPOLLPRI, armed.handle.0);
        self.epoll
            .add(fd.as_fd(), event)
            .map_err(|error| Errno(error as i32))
    }

    /// Waits for ever.
    pub(super) fn wait(&self) {
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
                self.fired(Handle(event.data()), event.events());
            }
        }
    }

    fn fired(&self, handle: Handle, events: EpollFlags) {
        let Some(armed) = self.armed.get(&handle).map(|armed| Arc::clone(&armed)) else {
            return;
        };
        let mut status = armed.status.lock();
        status.fired = true;
        if events.contains(EpollFlags::EPOLLERR) {
            status.broken = true;
            if let Some(fd) = &status.fd {
                // The cgroup is gone, and would be reported for ever.
                let _ = self.epoll.delete(fd);
            }
        }
        self.put(&armed, &mut status);
        let poll = status.poll;
        drop(status);
        if let Some(poll) = poll {
            (self.wake)(poll);
        }
    }
}
