//! The broker: it does for the server what the server may not do itself.
//!
//! The server can ask for four things only: a pressure trigger on the cgroup of a container that it serves, a file in the
//! network namespace of such a container, a sysctl of the host at the value that a container has set, and whether a thread
//! is in the user namespace of a container. All are checked as if the container had asked. An answer takes no lock that an attach holds, because an attach waits for the
//! server.

mod containers;
mod network;
mod pressure;
mod users;

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;

use crate::container::Described;
use crate::container::network::DirectoryEntry;
use crate::container::procfs::Proc;
use crate::host_sysctls::HostSysctls;
use containers::{BrokerContainer, BrokerContainers};
use eci_fs_protocol::channel::{Channel, MAX_PACKET};
use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::link::{BrokerReply, BrokerRequest};
use network::NetworkFile;
use pressure::open_trigger;

/// The broker. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Broker {
    containers: BrokerContainers,
    /// The sysctls of the host that containers may raise.
    pub host_sysctls: HostSysctls,
    /// Held while a request is taken and answered.
    answering: Arc<Mutex<()>>,
}

impl Broker {
    /// Enters a container.
    ///
    /// # Errors
    /// When no more descriptors can be had.
    pub fn enter(&self, slot: u64, proc: &Arc<Proc>, described: &Described) -> Result<()> {
        self.containers
            .insert(slot, BrokerContainer::of(proc, described)?);
        self.host_sysctls.enter(slot);
        Ok(())
    }

    /// Forgets a container that is gone.
    pub fn leave(&self, slot: u64) {
        self.containers.remove(slot);
        self.host_sysctls.leave(slot);
    }

    /// Says that all containers of the daemon before this one have been entered. Until then no server is answered: it
    /// serves them already, and would be told that they are not there.
    pub fn set_complete(&self) {
        self.containers.set_complete();
        self.host_sysctls.set_complete();
    }

    /// Stops the broker while the guard lives. So a daemon that takes our place finds each request either answered, or
    /// not taken.
    pub fn pause(&self) -> MutexGuard<'_, ()> {
        self.answering.lock()
    }

    /// Answers a server on a thread of its own, until the server is gone.
    ///
    /// # Errors
    /// When there are no more threads.
    pub fn answer(&self, channel: Channel) -> Result<()> {
        let this = self.clone();
        std::thread::Builder::new()
            .name("broker".to_owned())
            .spawn(move || while this.answer_one(&channel) {})
            .map(drop)
            .map_err(|e| Error::io("start", "a thread", e))
    }

    /// Answers the next request. Returns false when there can be no more.
    fn answer_one(&self, channel: &Channel) -> bool {
        let mut poll = [PollFd::new(channel, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, None)).is_err() {
            return false;
        }
        let _answering = self.answering.lock();
        let Ok(Some((ask, _))) = channel.recv::<BrokerRequest>() else {
            return false;
        };
        let answered = match ask {
            BrokerRequest::Trigger {
                slot,
                resource,
                trigger,
            } => open_trigger(self.containers.get(slot).as_deref(), resource, &trigger).map(opened),
            BrokerRequest::UserNamespace { slot, pid } => {
                let known = self.containers.get(slot);
                let users = known.as_ref().and_then(|entry| entry.users.as_ref());
                let found = users.map(|users| users.find(pid)).ok_or(Errno::SRCH);
                found.map(|namespace| (BrokerReply::UserNamespace { namespace }, None))
            }
            BrokerRequest::SetHostSysctl {
                slot,
                tunable,
                value,
            } => {
                let done = self.host_sysctls.request(slot, tunable, value);
                done.map(|()| (BrokerReply::HostSysctlSet, None))
            }
            BrokerRequest::Network { slot, path, access } => {
                let known = self.containers.get(slot);
                let network = known.as_ref().and_then(|entry| entry.network.as_ref());
                let found = network.ok_or(Errno::SRCH);
                found
                    .and_then(|network| network.find(&path, access))
                    .and_then(|found| match found {
                        NetworkFile::Opened(fd) => Ok(opened(fd)),
                        NetworkFile::Listed(entries) => listed(entries),
                    })
            }
        };
        let nothing: [BorrowedFd<'_>; 0] = [];
        let sent = match &answered {
            Ok((answer, Some(fd))) => channel.send(answer, &[fd.as_fd()]),
            Ok((answer, None)) => channel.send(answer, &nothing),
            Err(errno) => {
                let errno = errno.raw_os_error();
                channel.send(&BrokerReply::Refused { errno }, &nothing)
            }
        };
        sent.is_ok()
    }
}

/// Returns the reply for a descriptor.
fn opened(fd: OwnedFd) -> (BrokerReply, Option<OwnedFd>) {
    (BrokerReply::Opened, Some(fd))
}

/// Returns the reply for the entries of a directory. A container chooses how many there are, so they may not fit a packet.
fn listed(
    entries: Vec<DirectoryEntry>,
) -> std::result::Result<(BrokerReply, Option<OwnedFd>), Errno> {
    let text = serde_json::to_vec(&entries).map_err(|_| Errno::IO)?;
    if text.len() <= MAX_PACKET / 2 {
        return Ok((BrokerReply::Listed { entries }, None));
    }
    let mut file = File::from(memfd_create("entries", MemfdFlags::CLOEXEC)?);
    let written = file.write_all(&text).and_then(|()| file.rewind());
    written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let entries = Vec::new();
    Ok((BrokerReply::Listed { entries }, Some(file.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_do_not_fit_a_packet_travel_in_a_file() {
        let (daemon, server) = Channel::pair().unwrap();
        for count in [3, 20_000] {
            let all: Vec<_> = (0..count).map(|n| (format!("eth{n}"), true)).collect();
            let (reply, file) = listed(all.clone()).unwrap();
            let files = file.as_ref().map(AsFd::as_fd);
            daemon.send(&reply, files.as_slice()).unwrap();
            let (reply, files) = server.recv::<BrokerReply>().unwrap().unwrap();
            let BrokerReply::Listed { entries } = reply else {
                panic!("{reply:?}");
            };
            let entries = match files.into_iter().next() {
                Some(file) => serde_json::from_reader(File::from(file)).unwrap(),
                None => entries,
            };
            assert_eq!(entries, all);
        }
    }
}
