//! What the server asks of the daemon, because it may not do it itself.
//!
//! It can ask for three things only: a pressure trigger on the cgroup of a container that it serves, what is in the
//! network namespace of such a container, and that a tunable of the machine is raised to what it has set. All are checked
//! as if the container had asked.
//! Answering takes no lock that an attach holds, because an attach waits for the server.

mod containers;
mod network;
mod pressure;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::container::Described;
use crate::container::procfs::Proc;
use crate::host_sysctls::HostSysctls;
use containers::{Containers, Entry};
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::link::{BrokerReply, BrokerRequest};
use network::Found;
use pressure::open_trigger;

/// What answers servers; clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Broker {
    known: Containers,
    /// What raises tunables of the machine.
    pub host_sysctls: HostSysctls,
    /// Held while a question is taken and answered.
    answering: Arc<Mutex<()>>,
}

impl Broker {
    /// There is a container.
    ///
    /// # Errors
    /// When no more descriptors can be had.
    pub fn enter(&self, slot: u64, proc: &Arc<Proc>, described: &Described) -> Result<()> {
        self.known.insert(slot, Entry::of(proc, described)?);
        self.host_sysctls.enter(slot);
        Ok(())
    }

    /// It is gone.
    pub fn leave(&self, slot: u64) {
        self.known.remove(slot);
        self.host_sysctls.leave(slot);
    }

    /// All containers of the daemon before this one have been entered. Until then no server is answered: it serves
    /// them already, and would be told that they are not there.
    pub fn set_complete(&self) {
        self.known.set_complete();
        self.host_sysctls.set_complete();
    }

    /// No question is taken while this is held: whoever takes our place finds each either answered, or not taken.
    pub fn pause(&self) -> MutexGuard<'_, ()> {
        self.answering.lock()
    }

    /// Answer a server on a thread of its own, until it is gone.
    ///
    /// # Errors
    /// When there are no more threads.
    pub fn answer(&self, asks: Channel) -> Result<()> {
        let this = self.clone();
        std::thread::Builder::new()
            .name("asks".to_owned())
            .spawn(move || while this.answer_one(&asks) {})
            .map(drop)
            .map_err(|e| Error::io("start", "a thread", e))
    }

    /// Answer the next question; says whether there may be more.
    fn answer_one(&self, asks: &Channel) -> bool {
        let mut poll = [PollFd::new(asks, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, None)).is_err() {
            return false;
        }
        let _answering = self.answering.lock();
        let Ok(Some((ask, _))) = asks.recv::<BrokerRequest>() else {
            return false;
        };
        let answered = match ask {
            BrokerRequest::Trigger {
                slot,
                resource,
                trigger,
            } => open_trigger(self.known.get(slot).as_deref(), resource, &trigger).map(opened),
            BrokerRequest::SetHostSysctl {
                slot,
                tunable,
                value,
            } => {
                let done = self.host_sysctls.wish(slot, tunable, value);
                done.map(|()| (BrokerReply::HostSysctlSet, None))
            }
            BrokerRequest::Network { slot, path, access } => {
                let known = self.known.get(slot);
                let network = known.as_ref().and_then(|entry| entry.network.as_ref());
                let found = network.ok_or(Errno::SRCH);
                found
                    .and_then(|network| network.find(&path, access))
                    .map(|found| match found {
                        Found::Opened(fd) => opened(fd),
                        Found::Listed(entries) => (BrokerReply::Listed { entries }, None),
                    })
            }
        };
        let nothing: [BorrowedFd<'_>; 0] = [];
        let sent = match &answered {
            Ok((answer, Some(fd))) => asks.send(answer, &[fd.as_fd()]),
            Ok((answer, None)) => asks.send(answer, &nothing),
            Err(errno) => {
                let errno = errno.raw_os_error();
                asks.send(&BrokerReply::Refused { errno }, &nothing)
            }
        };
        sent.is_ok()
    }
}

/// The answer that a descriptor is.
fn opened(fd: OwnedFd) -> (BrokerReply, Option<OwnedFd>) {
    (BrokerReply::Opened, Some(fd))
}
