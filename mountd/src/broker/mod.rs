//! The broker: it does for the server what the server may not do itself.
//!
//! The server can ask for five things only: a pressure trigger on the cgroup of a container that it serves, a file in
//! the network namespace of such a container, a sysctl of the host at the value that a container has set, the text of one of a
//! few files of the host that only root may read, and watches of files of cgroups. The first three are
//! checked as if the container had asked. An answer takes no lock that an attach holds, because an attach waits for the
//! server.

mod as_root;
mod containers;
mod host;
mod network;
mod pressure;
mod watches;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::container::Described;
use crate::container::network::DirectoryEntry;
use crate::container::procfs::Proc;
use crate::host_sysctls::HostSysctls;
use as_root::copy_of;
use containers::{BrokerContainer, BrokerContainers};
use eci_fs_protocol::channel::{Channel, Fault, MAX_PACKET};
use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::link::{BrokerReply, BrokerRequest};
use host::read_host;
use network::{Network, NetworkFile};
use pressure::open_trigger;
use watches::watch;

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
        let (ask, fds) = match channel.recv::<BrokerRequest>() {
            Ok(Some(packet)) => packet,
            // A request that did not come whole, or that this daemon does not know, is no reason to answer none.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                let errno = Fault::of(&error).and_then(Fault::errno);
                let errno = errno.unwrap_or(Errno::INVAL.raw_os_error());
                return channel.send(&BrokerReply::Refused { errno }, &[]).is_ok();
            }
            Ok(None) | Err(_) => return false,
        };
        let answered = match ask {
            BrokerRequest::Trigger {
                slot,
                resource,
                trigger,
            } => open_trigger(self.containers.get(slot).as_deref(), resource, &trigger).map(opened),
            BrokerRequest::SetHostSysctl {
                slot,
                tunable,
                value,
            } => {
                let done = self.host_sysctls.request(slot, tunable, value);
                done.map(|()| (BrokerReply::HostSysctlSet, None))
            }
            BrokerRequest::Network { slot, path, access } => {
                let found = self.network(slot, |network| network.find(&path, access));
                found.and_then(|found| match found {
                    NetworkFile::Opened(fd) => Ok(opened(fd)),
                    NetworkFile::Listed(entries) => listed(entries),
                })
            }
            BrokerRequest::WriteNetwork {
                slot,
                path,
                offset,
                bytes,
            } => {
                let written = self.network(slot, |network| network.write(&path, offset, &bytes));
                written.map(|count| (BrokerReply::Written { count }, None))
            }
            BrokerRequest::Watch { files } => {
                watch(&files, &fds).map(|watches| (BrokerReply::Watched { watches }, None))
            }
            BrokerRequest::Host { path } => read_host(&path).map(opened),
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

    /// Returns what `ask` returns for the network namespace of the container in `slot`.
    fn network<T>(
        &self,
        slot: u64,
        ask: impl FnOnce(&Network) -> std::result::Result<T, Errno>,
    ) -> std::result::Result<T, Errno> {
        let known = self.containers.get(slot);
        let network = known.as_ref().and_then(|entry| entry.network.as_ref());
        ask(network.ok_or(Errno::SRCH)?)
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
    let file = copy_of(&text)?;
    let entries = Vec::new();
    Ok((BrokerReply::Listed { entries }, Some(file)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_request_that_is_none_is_refused_and_the_next_is_answered() {
        let (daemon, server) = Channel::pair().unwrap();
        let broker = Broker::default();
        broker.set_complete();
        broker.answer(daemon).unwrap();
        server
            .set_timeout(Some(std::time::Duration::from_secs(10)))
            .unwrap();
        let ask = |request: &str| {
            rustix::io::write(&server, request.as_bytes()).unwrap();
            let (reply, _) = server.recv::<BrokerReply>().unwrap().unwrap();
            reply
        };
        let refused = |errno: Errno| BrokerReply::Refused {
            errno: errno.raw_os_error(),
        };
        for request in ["{nonsense", r#"{"of-a-later-release":{"slot":1}}"#] {
            assert_eq!(ask(request), refused(Errno::INVAL), "{request}");
        }
        let unknown = r#"{"network":{"slot":1,"path":"core","access":"list"}}"#;
        assert_eq!(ask(unknown), refused(Errno::SRCH));
    }

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
