//! The client of the broker: the server asks the daemon for what it may not open itself. A server that outlives its daemon
//! is given another channel by the next.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::link::{BrokerReply, BrokerRequest, UserNamespace};
use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::server::error::Errno;

/// Asks the daemon, whichever there is.
#[derive(Debug)]
pub struct BrokerClient {
    line: Mutex<Option<Arc<Line>>>,
    came: Condvar,
}

/// The channel of one daemon.
#[derive(Debug)]
struct Line {
    channel: Channel,
    /// True if an answer is still to come to a question that nobody waits for any more. It is locked while a thread asks, so
    /// that each answer comes to the thread that asked. A daemon that hangs has one question before it, however often it is
    /// asked.
    owed: Mutex<bool>,
}

/// The reason why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// The daemon is gone.
    Gone(io::Error),
    /// The answer takes too long.
    Late,
}

impl BrokerClient {
    /// Makes a client that asks over `channel`.
    pub fn new(channel: Channel) -> Self {
        Self {
            line: Mutex::new(Some(Line::new(channel))),
            came: Condvar::new(),
        }
    }

    /// Asks over `channel` from now on: there is another daemon.
    pub fn replace(&self, channel: Channel) {
        *self.line.lock() = Some(Line::new(channel));
        self.came.notify_all();
    }

    /// Tells the daemon that there is now, and waits until it has heard.
    ///
    /// # Errors
    /// When there is none, or no answer before `until`: then it may not have heard.
    pub fn tell(&self, ask: &BrokerRequest, until: Instant) -> Result<(), NoAnswer> {
        let line = self.line.lock().clone();
        let line = line.ok_or_else(|| NoAnswer::Gone(io::ErrorKind::NotConnected.into()))?;
        let told = line.ask(ask, until);
        if let Err(NoAnswer::Gone(_)) = &told {
            self.forget(&line);
        }
        told.map(drop)
    }

    /// Asks for a descriptor. While there is no daemon the call waits for the next one.
    ///
    /// # Errors
    /// The errno that the daemon answers; EAGAIN when there is no answer before `until`.
    pub fn ask(&self, ask: &BrokerRequest, until: Instant) -> Result<OwnedFd, Errno> {
        match self.answered(ask, until)? {
            (BrokerReply::Opened, fds) => fds.into_iter().next().ok_or(Errno::IO),
            _ => Err(Errno::IO),
        }
    }

    /// Asks for the entries of a directory: names, and whether each is a directory.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn list(&self, ask: &BrokerRequest, until: Instant) -> Result<Vec<(String, bool)>, Errno> {
        match self.answered(ask, until)? {
            (BrokerReply::Listed { entries }, fds) => match fds.into_iter().next() {
                Some(file) => {
                    let file = BufReader::new(File::from(file));
                    serde_json::from_reader(file).map_err(|_| Errno::IO)
                }
                None => Ok(entries),
            },
            _ => Err(Errno::IO),
        }
    }

    /// Asks for the user namespace of a thread that makes a request of the container in `slot`.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn user_namespace(
        &self,
        slot: u64,
        pid: u32,
        until: Instant,
    ) -> Result<UserNamespace, Errno> {
        match self.answered(&BrokerRequest::UserNamespace { slot, pid }, until)? {
            (BrokerReply::UserNamespace { namespace }, _) => Ok(namespace),
            _ => Err(Errno::IO),
        }
    }

    fn answered(
        &self,
        ask: &BrokerRequest,
        until: Instant,
    ) -> Result<(BrokerReply, Vec<OwnedFd>), Errno> {
        loop {
            let line = self.line(until).ok_or(Errno::AGAIN)?;
            match line.ask(ask, until) {
                Ok((BrokerReply::Refused { errno }, _)) => return Err(Errno(errno)),
                Ok(answer) => return Ok(answer),
                Err(NoAnswer::Late) => return Err(Errno::AGAIN),
                Err(NoAnswer::Gone(error)) => {
                    tracing::warn!(%error, "there is no daemon to ask, waiting for the next");
                    self.forget(&line);
                }
            }
        }
    }

    /// Forgets a channel on which nobody answers any more.
    fn forget(&self, line: &Arc<Line>) {
        let mut current = self.line.lock();
        if current.as_ref().is_some_and(|now| Arc::ptr_eq(now, line)) {
            *current = None;
        }
    }

    fn line(&self, until: Instant) -> Option<Arc<Line>> {
        let mut line = self.line.lock();
        while line.is_none() {
            if self.came.wait_until(&mut line, until).timed_out() {
                break;
            }
        }
        line.clone()
    }
}

impl Line {
    fn new(channel: Channel) -> Arc<Self> {
        Arc::new(Self {
            channel,
            owed: Mutex::new(false),
        })
    }

    fn ask(
        &self,
        ask: &BrokerRequest,
        until: Instant,
    ) -> Result<(BrokerReply, Vec<OwnedFd>), NoAnswer> {
        let mut owed = self.owed.try_lock_until(until).ok_or(NoAnswer::Late)?;
        if *owed {
            self.answer(until)?;
            *owed = false;
        }
        self.channel.send(ask, &[]).map_err(NoAnswer::Gone)?;
        *owed = true;
        let answer = self.answer(until)?;
        *owed = false;
        Ok(answer)
    }

    /// Returns the next answer.
    fn answer(&self, until: Instant) -> Result<(BrokerReply, Vec<OwnedFd>), NoAnswer> {
        if !self.wait(until).map_err(NoAnswer::Gone)? {
            return Err(NoAnswer::Late);
        }
        let answer = self.channel.recv::<BrokerReply>().map_err(NoAnswer::Gone)?;
        answer.ok_or_else(|| NoAnswer::Gone(io::ErrorKind::UnexpectedEof.into()))
    }

    /// Waits for an answer, and returns whether it comes before `until`.
    fn wait(&self, until: Instant) -> io::Result<bool> {
        let left = until.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut poll = [PollFd::new(&self.channel, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&limit)))?;
        Ok(ready > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, BorrowedFd};
    use std::time::Duration;

    use eci_fs_protocol::link::Resource;

    use super::*;

    fn ask(slot: u64) -> BrokerRequest {
        BrokerRequest::Trigger {
            slot,
            resource: Resource::Cpu,
            trigger: b"some 1 2".to_vec(),
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    /// Takes the next question and answers it; returns its slot.
    fn answer(daemon: &Channel, fds: &[BorrowedFd<'_>]) -> u64 {
        let (
            BrokerRequest::Trigger { slot, .. }
            | BrokerRequest::SetHostSysctl { slot, .. }
            | BrokerRequest::UserNamespace { slot, .. }
            | BrokerRequest::Network { slot, .. },
            _,
        ) = daemon.recv().unwrap().unwrap();
        daemon.send(&BrokerReply::Opened, fds).unwrap();
        slot
    }

    #[test]
    fn what_is_asked_while_there_is_no_daemon_is_answered_by_the_next() {
        let (first, server) = Channel::pair().unwrap();
        let broker = BrokerClient::new(server);
        drop(first);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| broker.ask(&ask(7), soon()));
            let (next, server) = Channel::pair().unwrap();
            broker.replace(server);
            let null = std::fs::File::open("/dev/null").unwrap();
            assert_eq!(answer(&next, &[null.as_fd()]), 7);
            assert!(asked.join().unwrap().is_ok());
        });
    }

    #[test]
    fn without_a_daemon_one_is_told_to_try_again() {
        let (daemon, server) = Channel::pair().unwrap();
        let broker = BrokerClient::new(server);
        drop(daemon);
        let got = broker.ask(&ask(1), Instant::now());
        assert_eq!(got.unwrap_err(), Errno::AGAIN);
    }

    #[test]
    fn who_tells_does_not_wait_for_the_next_daemon() {
        let (daemon, server) = Channel::pair().unwrap();
        let broker = BrokerClient::new(server);
        drop(daemon);
        for _ in 0..2 {
            let told = broker.tell(&ask(1), soon());
            assert!(matches!(told, Err(NoAnswer::Gone(_))), "{told:?}");
        }
    }

    #[test]
    fn a_daemon_that_hangs_has_one_question_before_it() {
        let (daemon, server) = Channel::pair().unwrap();
        let broker = BrokerClient::new(server);
        for slot in 1..=3 {
            let told = broker.tell(&ask(slot), Instant::now());
            assert!(matches!(told, Err(NoAnswer::Late)), "{told:?}");
        }
        assert_eq!(answer(&daemon, &[]), 1);
        std::thread::scope(|scope| {
            let told = scope.spawn(|| broker.tell(&ask(4), soon()));
            assert_eq!(answer(&daemon, &[]), 4);
            assert!(told.join().unwrap().is_ok());
        });
    }

    #[test]
    fn an_answer_that_comes_too_late_is_nobody_elses() {
        let (daemon, server) = Channel::pair().unwrap();
        let broker = BrokerClient::new(server);
        assert_eq!(
            broker.ask(&ask(1), Instant::now()).unwrap_err(),
            Errno::AGAIN
        );
        assert_eq!(answer(&daemon, &[]), 1);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| broker.ask(&ask(2), soon()));
            let (_, _) = daemon.recv::<BrokerRequest>().unwrap().unwrap();
            let refused = BrokerReply::Refused {
                errno: libc::EINVAL,
            };
            daemon.send(&refused, &[]).unwrap();
            assert_eq!(asked.join().unwrap().unwrap_err(), Errno(libc::EINVAL));
        });
    }
}
