//! Waiting for the kernel, for all triggers in one thread.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::{ArmedTrigger, Triggers};
use crate::server::error::Errno;
use crate::server::ids::Handle;

impl Triggers {
    /// Waits for this trigger too.
    pub(super) fn watch(&self, armed: &ArmedTrigger, fd: &OwnedFd) -> Result<(), Errno> {
        let token = EventData::new_u64(armed.handle.0);
        epoll::add(&self.epoll, fd, token, EventFlags::PRI)
            .map_err(|error| Errno(error.raw_os_error()))
    }

    /// Waits for ever.
    pub(super) fn wait(&self) {
        let mut events = Vec::with_capacity(32);
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => {
                    return tracing::error!(%error, "pressure triggers are not waited for any more");
                }
            }
            for event in events.drain(..) {
                self.fired(Handle(event.data.u64()), event.flags);
            }
        }
    }

    fn fired(&self, handle: Handle, events: EventFlags) {
        let Some(armed) = self.armed.get(&handle).map(|armed| Arc::clone(&armed)) else {
            return;
        };
        let mut status = armed.status.lock();
        status.fired = true;
        if events.contains(EventFlags::ERR) {
            status.broken = true;
            if let Some(fd) = &status.fd {
                // The cgroup is gone, and would be reported for ever.
                let _ = epoll::delete(&self.epoll, fd);
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
