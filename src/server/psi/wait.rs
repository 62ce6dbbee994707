//! Waiting for the kernel: for all triggers, in one thread.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};

use super::{Armed, Triggers};
use crate::server::error::Errno;
use crate::server::ids::Handle;

impl Triggers {
    /// Wait for this one too.
    pub(super) fn watch(&self, armed: &Armed, fd: &OwnedFd) -> Result<(), Errno> {
        let event = EpollEvent::new(EpollFlags::EPOLLPRI, armed.handle.0);
        self.epoll
            .add(fd.as_fd(), event)
            .map_err(|error| Errno(error as i32))
    }

    /// Wait for ever.
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
        let mut state = armed.state.lock();
        state.fired = true;
        if events.contains(EpollFlags::EPOLLERR) {
            state.broken = true;
            if let Some(fd) = &state.fd {
                // Its cgroup is gone, and would be reported for ever.
                let _ = self.epoll.delete(fd);
            }
        }
        self.remember(&armed, &mut state);
        let poll = state.poll;
        drop(state);
        if let Some(poll) = poll {
            (self.wake)(poll);
        }
    }
}
