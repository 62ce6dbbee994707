//! The broker: it does for the server what the server may not do itself.
//!
//! The server can ask for six things only: a pressure trigger on the cgroup of a container that it serves, a file in the
//! network namespace of such a container, a sysctl of the host at the value that a container has set, whether a thread is
//! in the user namespace of a container, the text of one of a few files of the host that only root may read, and watches
//! of files of cgroups. The first four are checked as if the container had asked. An answer takes no lock that an attach
//! holds, because an attach waits for the server. No answer walks a path of a container, so none waits for anything but
//! the kernel.

mod as_root;
mod containers;
mod host;
mod lanes;
mod network;
mod pressure;
mod users;
mod watches;

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::container::Described;
use crate::container::network::DirectoryEntry;
use crate::container::procfs::Proc;
use crate::faults;
use crate::host_sysctls::HostSysctls;
use crate::threads::{self, Mend};
use as_root::copy_of;
use containers::{BrokerContainer, BrokerContainers};
use eci_fs_protocol::channel::{Channel, MAX_PACKET};
use eci_fs_protocol::error::{Error, Kind, Result};
use eci_fs_protocol::link::{BrokerReply, BrokerRequest};
use host::read_host;
use lanes::Lanes;
use network::{Network, NetworkFile};
use pressure::open_trigger;
use watches::watch;

/// The broker. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Broker {
    containers: BrokerContainers,
    /// The sysctls of the host that containers may raise.
    pub host_sysctls: HostSysctls,
    /// Held while a request is taken.
    taking: Arc<Mutex<()>>,
    lanes: Arc<Lanes<Question>>,
    /// The number of threads that answer.
    answers: Arc<Mutex<usize>>,
}

/// A request with its descriptors, and the channel by which its answer goes.
type Question = (Arc<Channel>, BrokerRequest, Vec<OwnedFd>);

/// Threads that answer. One of them at most is with the question of one container.
const ANSWERS: usize = 8;

/// The time in which a server must take an answer.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// The time in which the requests that have been taken must be answered before another daemon goes on.
const PAUSE_LIMIT: Duration = Duration::from_secs(5);

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
    ///
    /// # Errors
    /// [`Kind::Busy`] when a request is not answered in time.
    pub fn pause(&self) -> Result<MutexGuard<'_, ()>> {
        let taking = self.taking.lock();
        if self.lanes.wait_until_empty(PAUSE_LIMIT) {
            return Ok(taking);
        }
        Err(Error::new(
            Kind::Busy,
            "a request of the server takes too long to be answered",
        )
        .remedy("try again"))
    }

    /// Answers a server until it is gone: one thread takes its requests, and those that serve all servers answer them.
    ///
    /// # Errors
    /// When there are no more threads.
    pub fn answer(&self, channel: Channel) -> Result<()> {
        self.start_answers()?;
        // A server that does not take its answers must not keep the threads from another.
        channel
            .set_timeout(Some(SEND_LIMIT))
            .map_err(|e| Error::io("set up", "the channel of the broker", e))?;
        let (this, channel) = (self.clone(), Arc::new(channel));
        threads::start("broker", Mend::Again, move || while this.take(&channel) {})
    }

    /// Starts the threads that answer, once.
    fn start_answers(&self) -> Result<()> {
        let mut started = self.answers.lock();
        while *started < ANSWERS {
            let this = self.clone();
            threads::start("answers", Mend::Again, move || {
                loop {
                    this.answer_next();
                }
            })?;
            *started += 1;
        }
        Ok(())
    }

    /// Takes the next request. Returns false when there can be no more.
    fn take(&self, channel: &Arc<Channel>) -> bool {
        let mut poll = [PollFd::new(channel, PollFlags::IN)];
        if let Err(error) = rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, None)) {
            return give_up(channel, error.into());
        }
        let _taking = self.taking.lock();
        let (request, fds) = match channel.recv::<BrokerRequest>() {
            // No other request has descriptors. Those that a server sends with one do not wait here.
            Ok(Some((request @ BrokerRequest::Watch { .. }, fds))) => (request, fds),
            Ok(Some((request, _))) => (request, Vec::new()),
            Ok(None) => return false,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
            // Its number, if it has one, cannot be told. The server waits for it no longer than for any other.
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                tracing::warn!(%error, "a request of the server cannot be understood");
                let errno = Errno::INVAL.raw_os_error();
                reply(channel, None, BrokerReply::Refused { errno }, None);
                return true;
            }
            Err(error) => return give_up(channel, error),
        };
        let (lane, number) = (request.lane(), request.number());
        let added = threads::guard("broker", || {
            faults::at("broker");
            let question = (Arc::clone(channel), request, fds);
            self.lanes.add(lane, question).map_err(|_| Errno::AGAIN)
        });
        if let Err(errno) = added.unwrap_or(Err(Errno::IO)) {
            let errno = errno.raw_os_error();
            reply(channel, number, BrokerReply::Refused { errno }, None);
        }
        true
    }

    /// Answers the next request.
    fn answer_next(&self) {
        let mut turn = self.lanes.next();
        let Some((channel, request, fds)) = turn.question.take() else {
            return;
        };
        let number = request.number();
        let answered = threads::guard("answers", || {
            faults::at("answers");
            self.answer_to(request, &fds)
        });
        let (answer, fd) = match answered.unwrap_or(Err(Errno::IO)) {
            Ok(answered) => answered,
            Err(errno) => {
                let errno = errno.raw_os_error();
                (BrokerReply::Refused { errno }, None)
            }
        };
        reply(&channel, number, answer, fd);
    }

    fn answer_to(
        &self,
        request: BrokerRequest,
        fds: &[OwnedFd],
    ) -> std::result::Result<(BrokerReply, Option<OwnedFd>), Errno> {
        match request {
            BrokerRequest::Trigger {
                slot,
                resource,
                trigger,
                ..
            } => open_trigger(self.containers.get(slot).as_deref(), resource, &trigger).map(opened),
            BrokerRequest::UserNamespace { slot, pid, .. } => {
                let known = self.containers.get(slot);
                let users = known.as_ref().and_then(|entry| entry.users.as_ref());
                let namespace = users.ok_or(Errno::SRCH)?.find(pid);
                Ok((BrokerReply::UserNamespace { namespace }, None))
            }
            BrokerRequest::SetHostSysctl {
                slot,
                tunable,
                value,
                ..
            } => {
                let done = self.host_sysctls.request(slot, tunable, value);
                done.map(|()| (BrokerReply::HostSysctlSet, None))
            }
            BrokerRequest::Network {
                slot, path, access, ..
            } => match self.network(slot, |network| network.find(&path, access))? {
                NetworkFile::Opened(fd) => Ok(opened(fd)),
                NetworkFile::Listed(entries) => listed(entries),
            },
            BrokerRequest::WriteNetwork {
                slot,
                path,
                offset,
                bytes,
                ..
            } => {
                let count = self.network(slot, |network| network.write(&path, offset, &bytes))?;
                Ok((BrokerReply::Written { count }, None))
            }
            BrokerRequest::Watch { files, .. } => {
                let watches = watch(&files, fds)?;
                Ok((BrokerReply::Watched { watches }, None))
            }
            BrokerRequest::Host { path, .. } => read_host(&path).map(opened),
        }
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

/// Ends a channel that cannot be heard on. The server notices, and says EAGAIN to its readers.
fn give_up(channel: &Channel, error: std::io::Error) -> bool {
    tracing::error!(%error, "the requests of a server cannot be heard any more");
    // It fails only when the other end is closed.
    let _ = rustix::net::shutdown(channel, rustix::net::Shutdown::Both);
    false
}

/// Sends a reply. One that cannot be sent as it is becomes an errno for the container that asked, and nobody else notices.
fn reply(channel: &Channel, number: Option<u64>, answer: BrokerReply, fd: Option<OwnedFd>) {
    let numbered = |reply: BrokerReply| match number {
        Some(number) => BrokerReply::Numbered {
            number,
            reply: Box::new(reply),
        },
        None => reply,
    };
    let fds: Vec<BorrowedFd<'_>> = fd.iter().map(AsFd::as_fd).collect();
    let Err(error) = channel.send(&numbered(answer), &fds) else {
        return;
    };
    tracing::debug!(%error, "an answer could not be sent");
    // A server that takes no answers does not take a shorter one either.
    if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::WouldBlock) {
        return;
    }
    let errno = Errno::NOMEM.raw_os_error();
    if let Err(error) = channel.send(&numbered(BrokerReply::Refused { errno }), &[]) {
        tracing::warn!(%error, "a question of the server stays without an answer");
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

    fn question(slot: u64, number: Option<u64>) -> BrokerRequest {
        let path = "core".to_owned();
        let access = eci_fs_protocol::link::Access::Look;
        BrokerRequest::Network {
            slot,
            path,
            access,
            number,
        }
    }

    #[test]
    fn an_answer_that_cannot_be_sent_is_an_errno_and_nothing_ends() {
        let (daemon, server) = Channel::pair().unwrap();
        let too_long = BrokerReply::Listed {
            entries: vec![("x".repeat(MAX_PACKET), false)],
        };
        reply(&daemon, Some(7), too_long, None);
        let errno = Errno::NOMEM.raw_os_error();
        let wanted = BrokerReply::Numbered {
            number: 7,
            reply: Box::new(BrokerReply::Refused { errno }),
        };
        assert_eq!(server.recv::<BrokerReply>().unwrap().unwrap().0, wanted);
    }

    #[test]
    fn what_cannot_be_understood_is_refused_and_the_next_question_is_answered() {
        let broker = Broker::default();
        broker.set_complete();
        let (daemon, server) = Channel::pair().unwrap();
        broker.answer(daemon).unwrap();
        server.send(&"nonsense", &[]).unwrap();
        let errno = Errno::INVAL.raw_os_error();
        let (refused, _) = server.recv::<BrokerReply>().unwrap().unwrap();
        assert_eq!(refused, BrokerReply::Refused { errno });
        // With a number and without one, as a server of an older release asks.
        let errno = Errno::SRCH.raw_os_error();
        server.send(&question(3, Some(8)), &[]).unwrap();
        let (numbered, _) = server.recv::<BrokerReply>().unwrap().unwrap();
        let refused = BrokerReply::Refused { errno };
        let reply = Box::new(refused);
        assert_eq!(numbered, BrokerReply::Numbered { number: 8, reply });
        server.send(&question(3, None), &[]).unwrap();
        let (plain, _) = server.recv::<BrokerReply>().unwrap().unwrap();
        assert_eq!(plain, BrokerReply::Refused { errno });
    }

    #[test]
    fn the_question_of_one_container_does_not_wait_for_that_of_another() {
        let broker = Broker::default();
        broker.set_complete();
        let (daemon, server) = Channel::pair().unwrap();
        // The turn of the first container does not end.
        let (one, other) = (Channel::pair().unwrap(), Arc::new(daemon));
        broker
            .lanes
            .add(1, (Arc::new(one.0), question(1, None), Vec::new()))
            .unwrap();
        let under_way = broker.lanes.next();
        let daemon = Arc::try_unwrap(other).unwrap();
        broker.answer(daemon).unwrap();
        server.send(&question(1, Some(1)), &[]).unwrap();
        server.send(&question(2, Some(2)), &[]).unwrap();
        let (first, _) = server.recv::<BrokerReply>().unwrap().unwrap();
        assert!(matches!(first, BrokerReply::Numbered { number: 2, .. }));
        drop(under_way);
        let (second, _) = server.recv::<BrokerReply>().unwrap().unwrap();
        assert!(matches!(second, BrokerReply::Numbered { number: 1, .. }));
        assert!(broker.pause().is_ok());
    }

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
