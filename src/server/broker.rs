//! The client of the broker: the server asks the daemon for what it may not open itself. A server that outlives its daemon
//! is given another channel by the next.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::link::{BROKER, BrokerReply, BrokerRequest, UserNamespace, WatchedFile};
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::server::error::Errno;

/// Asks the daemon, whichever there is.
#[derive(Debug)]
pub struct BrokerClient {
    line: Mutex<Option<Arc<Line>>>,
    came: Condvar,
}

/// The channel of one daemon. Each container has one question under way. A daemon that hangs has one question of each
/// container before it, however often it is asked.
#[derive(Debug)]
struct Line {
    channel: Channel,
    /// The version of the broker.
    version: u32,
    inner: Mutex<Inner>,
    /// Answers have come, or a container has no question under way any more.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    /// The number of the last question.
    last: u64,
    /// The questions without an answer, by their numbers, which is the order in which they were sent.
    under_way: BTreeMap<u64, Question>,
    /// Answers that the threads which asked have not fetched yet.
    answers: BTreeMap<u64, Answer>,
    /// True while one of the threads that wait receives, for all of them.
    receiving: bool,
    /// True when there can be no more answers.
    gone: bool,
    /// True if the daemon answers by number.
    numbers: bool,
}

/// A question that has been sent.
#[derive(Debug)]
struct Question {
    lane: u64,
    /// True if a thread waits for the answer. Another answer is dropped when it comes.
    awaited: bool,
    sent: Instant,
}

type Answer = (BrokerReply, Vec<OwnedFd>);

/// The time after which an answer that nobody waits for is not expected any more.
const STALE: Duration = Duration::from_secs(60);

/// The most questions that are under way over all.
const MOST: usize = 64;

/// The reason why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// The daemon is gone.
    Gone(io::Error),
    /// The answer takes too long.
    Late,
}

impl BrokerClient {
    /// Makes a client that asks a broker of this version over `channel`.
    pub fn new(channel: Channel, version: u32) -> Self {
        Self {
            line: Mutex::new(Some(Line::new(channel, version))),
            came: Condvar::new(),
        }
    }

    /// Asks a broker of this version over `channel` from now on: there is another daemon.
    pub fn replace(&self, channel: Channel, version: u32) {
        *self.line.lock() = Some(Line::new(channel, version));
        self.came.notify_all();
    }

    /// Tells the daemon that there is now, and waits until it has heard.
    ///
    /// # Errors
    /// When there is none, or no answer before `until`: then it may not have heard.
    pub fn tell(&self, ask: &BrokerRequest, until: Instant) -> Result<(), NoAnswer> {
        let line = self.line.lock().clone();
        let line = line.ok_or_else(|| NoAnswer::Gone(io::ErrorKind::NotConnected.into()))?;
        let told = line.ask(ask, &[], until);
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
        match self.answered(ask, &[], until)? {
            (BrokerReply::Opened, fds) => fds.into_iter().next().ok_or(Errno::IO),
            _ => Err(Errno::IO),
        }
    }

    /// Asks for the entries of a directory: names, and whether each is a directory.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn list(&self, ask: &BrokerRequest, until: Instant) -> Result<Vec<(String, bool)>, Errno> {
        match self.answered(ask, &[], until)? {
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
        let number = None;
        let ask = BrokerRequest::UserNamespace { slot, pid, number };
        match self.answered(&ask, &[], until)? {
            (BrokerReply::UserNamespace { namespace }, _) => Ok(namespace),
            _ => Err(Errno::IO),
        }
    }

    /// Returns whether the daemon that there is, or was last, knows all requests. One of version 0.1.0 does not, and is
    /// not to be asked for [`Self::write`], [`Self::watch`] and [`Self::read_as_root`].
    pub fn is_complete(&self) -> bool {
        let line = self.line.lock();
        line.as_ref().is_none_or(|line| line.version >= BROKER)
    }

    /// Has bytes written, and returns the number of those that were taken.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn write(&self, ask: &BrokerRequest, until: Instant) -> Result<u64, Errno> {
        match self.answered(ask, &[], until)? {
            (BrokerReply::Written { count }, _) => Ok(count),
            _ => Err(Errno::IO),
        }
    }

    /// Has `inotify` report writes to files. Returns the number of each watch; none for a file that is not there. `dirs` are those
    /// of the files.
    ///
    /// # Errors
    /// As [`Self::ask`]; ENOSYS from a daemon that does not know the request.
    pub fn watch(
        &self,
        inotify: BorrowedFd<'_>,
        dirs: &[BorrowedFd<'_>],
        files: Vec<WatchedFile>,
        until: Instant,
    ) -> Result<Vec<Option<i32>>, Errno> {
        if !self.is_complete() {
            return Err(Errno::NOSYS);
        }
        let number = None;
        let fds = [&[inotify], dirs].concat();
        match self.answered(&BrokerRequest::Watch { files, number }, &fds, until)? {
            (BrokerReply::Watched { watches }, _) => Ok(watches),
            _ => Err(Errno::IO),
        }
    }

    /// Returns the content of a file of the host that only root may read.
    ///
    /// # Errors
    /// As [`Self::ask`]; EACCES from a daemon that does not know the request.
    pub fn read_as_root(&self, path: &str, until: Instant) -> Result<Vec<u8>, Errno> {
        if !self.is_complete() {
            return Err(Errno(libc::EACCES));
        }
        let path = path.to_owned();
        let copy = self.ask(&BrokerRequest::Host { path, number: None }, until)?;
        let mut text = Vec::new();
        let read = File::from(copy).read_to_end(&mut text);
        read.map(|_| text)
            .map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EIO)))
    }

    fn answered(
        &self,
        ask: &BrokerRequest,
        fds: &[BorrowedFd<'_>],
        until: Instant,
    ) -> Result<(BrokerReply, Vec<OwnedFd>), Errno> {
        loop {
            let line = self.line(until).ok_or(Errno::AGAIN)?;
            match line.ask(ask, fds, until) {
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
    fn new(channel: Channel, version: u32) -> Arc<Self> {
        Arc::new(Self {
            channel,
            version,
            inner: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    fn ask(
        &self,
        ask: &BrokerRequest,
        fds: &[BorrowedFd<'_>],
        until: Instant,
    ) -> Result<Answer, NoAnswer> {
        let mut inner = self.inner.lock();
        let lane = ask.lane();
        inner.forget_stale(STALE);
        let number = loop {
            if inner.gone {
                return Err(NoAnswer::Gone(io::ErrorKind::UnexpectedEof.into()));
            }
            if inner.is_full(lane) {
                self.wait(&mut inner, until)?;
                continue;
            }
            let number = inner.last + 1;
            // Under the lock, so that they are sent in the order of their numbers.
            match self.channel.try_send(&ask.numbered(number), fds) {
                Ok(()) => break number,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    MutexGuard::unlocked(&mut inner, || self.wait_for_room(until))?;
                }
                Err(error) => return Err(NoAnswer::Gone(error)),
            }
        };
        inner.last = number;
        let question = Question {
            lane,
            awaited: true,
            sent: Instant::now(),
        };
        inner.under_way.insert(number, question);
        loop {
            if let Some(answer) = inner.answers.remove(&number) {
                return Ok(answer);
            }
            if let Err(error) = self.wait(&mut inner, until) {
                // It may have come at the last moment.
                if let Some(answer) = inner.answers.remove(&number) {
                    return Ok(answer);
                }
                if let Some(question) = inner.under_way.get_mut(&number) {
                    question.awaited = false;
                }
                return Err(error);
            }
        }
    }

    /// Waits until a daemon that does not read what it is sent has read some of it.
    fn wait_for_room(&self, until: Instant) -> Result<(), NoAnswer> {
        let ready = ready(&self.channel, PollFlags::OUT, until).map_err(NoAnswer::Gone)?;
        ready.then_some(()).ok_or(NoAnswer::Late)
    }

    /// Waits until something has changed. One of the threads that wait receives for all.
    fn wait(&self, inner: &mut MutexGuard<'_, Inner>, until: Instant) -> Result<(), NoAnswer> {
        if inner.gone {
            return Err(NoAnswer::Gone(io::ErrorKind::UnexpectedEof.into()));
        }
        if inner.receiving {
            let waited = self.changed.wait_until(inner, until);
            return match waited.timed_out() {
                true => Err(NoAnswer::Late),
                false => Ok(()),
            };
        }
        inner.receiving = true;
        let received = MutexGuard::unlocked(inner, || self.receive(until));
        inner.receiving = false;
        // The others have an answer, or one of them is to receive.
        self.changed.notify_all();
        match received {
            Ok(Some(answer)) => {
                inner.sort(answer);
                Ok(())
            }
            Ok(None) => Err(NoAnswer::Late),
            Err(error) => {
                inner.gone = true;
                Err(NoAnswer::Gone(error))
            }
        }
    }

    /// Returns the next answer; none when there is none before `until`.
    fn receive(&self, until: Instant) -> io::Result<Option<Answer>> {
        if !ready(&self.channel, PollFlags::IN, until)? {
            return Ok(None);
        }
        let answer = self.channel.recv::<BrokerReply>()?;
        answer
            .map(Some)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Returns whether a channel is ready before `until`.
fn ready(channel: &Channel, what: PollFlags, until: Instant) -> io::Result<bool> {
    let left = until.saturating_duration_since(Instant::now());
    let limit = Timespec::try_from(left).map_err(io::Error::other)?;
    let mut poll = [PollFd::new(channel, what)];
    let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&limit)))?;
    Ok(ready > 0)
}

impl Inner {
    /// Returns true if a question of `lane` has to wait before it may be asked.
    fn is_full(&self, lane: u64) -> bool {
        let mut under_way = self.under_way.values();
        self.under_way.len() >= MOST || under_way.any(|question| question.lane == lane)
    }

    /// Forgets questions that a daemon has lost. One that answers in order has lost none: it answers them before others.
    fn forget_stale(&mut self, after: Duration) {
        let numbers = self.numbers;
        self.under_way
            .retain(|_, question| !numbers || question.awaited || question.sent.elapsed() < after);
    }

    /// Gives an answer to the question that it belongs to. A daemon of a release before numbers answers in order.
    fn sort(&mut self, (reply, fds): Answer) {
        let (number, reply) = match reply {
            BrokerReply::Numbered { number, reply } => {
                self.numbers = true;
                (Some(number), *reply)
            }
            reply => (self.under_way.keys().next().copied(), reply),
        };
        let question = number.and_then(|number| Some((number, self.under_way.remove(&number)?)));
        match question {
            Some((number, question)) if question.awaited => {
                self.answers.insert(number, (reply, fds));
            }
            Some(_) => {}
            // It was not expected any more.
            None => tracing::debug!("an answer that nobody waits for"),
        }
    }
}

#[cfg(test)]
mod tests {
    use eci_fs_protocol::link::Access;
    use std::os::fd::{AsFd, BorrowedFd};

    use super::*;

    fn ask(slot: u64) -> BrokerRequest {
        BrokerRequest::Network {
            slot,
            path: "core/somaxconn".to_owned(),
            access: Access::Read,
            number: None,
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    /// Takes the next question and answers it, as a daemon of a release before numbers; returns its slot.
    fn answer(daemon: &Channel, fds: &[BorrowedFd<'_>]) -> u64 {
        let (request, _) = daemon.recv::<BrokerRequest>().unwrap().unwrap();
        daemon.send(&BrokerReply::Opened, fds).unwrap();
        request.lane()
    }

    #[test]
    fn a_daemon_that_does_not_read_delays_nobody_for_longer_than_they_want() {
        let (daemon, server) = Channel::pair().unwrap();
        let broker = BrokerClient::new(server, BROKER);
        // Each container may have a question under way. These do not fit into the channel.
        let trigger = |slot| BrokerRequest::Trigger {
            slot,
            resource: eci_fs_protocol::link::Resource::Cpu,
            trigger: vec![255; 4096],
            number: None,
        };
        for slot in 0..MOST as u64 - 1 {
            let told = broker.tell(&trigger(slot), Instant::now());
            assert!(matches!(told, Err(NoAnswer::Late)), "{told:?}");
        }
        // Once it reads, it is asked again.
        let asking = std::thread::spawn(move || broker.tell(&ask(1 << 20), soon()));
        loop {
            let (request, _) = daemon.recv::<BrokerRequest>().unwrap().unwrap();
            let BrokerRequest::Network { slot, number, .. } = request else {
                continue;
            };
            assert_eq!(slot, 1 << 20);
            let number = number.unwrap();
            let reply = Box::new(BrokerReply::HostSysctlSet);
            let reply = BrokerReply::Numbered { number, reply };
            daemon.send(&reply, &[]).unwrap();
            break;
        }
        asking.join().unwrap().unwrap();
    }

    #[test]
    fn a_trigger_does_not_wait_for_another_question_of_its_container() {
        let trigger = BrokerRequest::Trigger {
            slot: 7,
            resource: eci_fs_protocol::link::Resource::Cpu,
            trigger: b"some 1 2".to_vec(),
            number: None,
        };
        let (daemon, server) = Channel::pair().unwrap();
        let broker = BrokerClient::new(server, BROKER);
        for request in [ask(7), trigger] {
            let told = broker.tell(&request, Instant::now());
            assert!(matches!(told, Err(NoAnswer::Late)), "{told:?}");
            // Both have been sent.
            let (sent, _) = daemon.recv::<BrokerRequest>().unwrap().unwrap();
            assert_eq!(sent.lane(), request.lane());
        }
    }

    #[test]
    fn containers_ask_at_the_same_time_and_answers_come_in_any_order() {
        let (daemon, server) = Channel::pair().unwrap();
        let broker = BrokerClient::new(server, BROKER);
        std::thread::scope(|scope| {
            let asked: Vec<_> = (1..=3)
                .map(|slot| {
                    scope.spawn({
                        let broker = &broker;
                        move || broker.ask(&ask(slot), soon())
                    })
                })
                .collect();
            let mut requests: Vec<_> = (0..3)
                .map(|_| daemon.recv::<BrokerRequest>().unwrap().unwrap().0)
                .collect();
            requests.reverse();
            for request in requests {
                let errno = i32::try_from(request.lane()).unwrap();
                let reply = Box::new(BrokerReply::Refused { errno });
                let number = request.number().unwrap();
                daemon
                    .send(&BrokerReply::Numbered { number, reply }, &[])
                    .unwrap();
            }
            for (slot, asked) in (1..=3).zip(asked) {
                assert_eq!(asked.join().unwrap().unwrap_err(), Errno(slot));
            }
        });
    }

    #[test]
    fn what_is_asked_while_there_is_no_daemon_is_answered_by_the_next() {
        let (first, server) = Channel::pair().unwrap();
        let broker = BrokerClient::new(server, BROKER);
        drop(first);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| broker.ask(&ask(7), soon()));
            let (next, server) = Channel::pair().unwrap();
            broker.replace(server, BROKER);
            let null = std::fs::File::open("/dev/null").unwrap();
            assert_eq!(answer(&next, &[null.as_fd()]), 7);
            assert!(asked.join().unwrap().is_ok());
        });
    }

    #[test]
    fn without_a_daemon_one_is_told_to_try_again() {
        let (daemon, server) = Channel::pair().unwrap();
        let broker = BrokerClient::new(server, BROKER);
        drop(daemon);
        let got = broker.ask(&ask(1), Instant::now());
        assert_eq!(got.unwrap_err(), Errno::AGAIN);
    }

    #[test]
    fn who_tells_does_not_wait_for_the_next_daemon() {
        let (daemon, server) = Channel::pair().unwrap();
        let broker = BrokerClient::new(server, BROKER);
        drop(daemon);
        for _ in 0..2 {
            let told = broker.tell(&ask(1), soon());
            assert!(matches!(told, Err(NoAnswer::Gone(_))), "{told:?}");
        }
    }

    #[test]
    fn a_daemon_that_hangs_has_one_question_of_each_container_before_it() {
        let (daemon, server) = Channel::pair().unwrap();
        let broker = BrokerClient::new(server, BROKER);
        for slot in [1, 1, 2, 1, 2] {
            let told = broker.tell(&ask(slot), Instant::now());
            assert!(matches!(told, Err(NoAnswer::Late)), "{told:?}");
        }
        assert_eq!(answer(&daemon, &[]), 1);
        assert_eq!(answer(&daemon, &[]), 2);
        std::thread::scope(|scope| {
            let told = scope.spawn(|| broker.tell(&ask(1), soon()));
            assert_eq!(answer(&daemon, &[]), 1);
            assert!(told.join().unwrap().is_ok());
        });
    }

    #[test]
    fn a_question_that_is_lost_does_not_keep_its_container_from_asking_for_ever() {
        let question = |awaited| Question {
            lane: 1,
            awaited,
            sent: Instant::now(),
        };
        for (numbers, awaited, full) in [
            (true, false, false),
            (true, true, true),
            (false, false, true),
        ] {
            let mut inner = Inner {
                numbers,
                under_way: [(1, question(awaited))].into(),
                ..Inner::default()
            };
            inner.forget_stale(STALE);
            assert!(inner.is_full(1));
            inner.forget_stale(Duration::ZERO);
            assert_eq!(inner.is_full(1), full);
        }
    }

    #[test]
    fn a_daemon_that_hangs_has_a_bounded_number_of_questions_before_it() {
        let (daemon, server) = Channel::pair().unwrap();
        let broker = BrokerClient::new(server, BROKER);
        for slot in 0..200 {
            let told = broker.tell(&ask(slot), Instant::now());
            assert!(matches!(told, Err(NoAnswer::Late)), "{told:?}");
        }
        drop(broker);
        let mut questions = 0;
        while daemon.recv::<BrokerRequest>().unwrap().is_some() {
            questions += 1;
        }
        assert_eq!(questions, MOST);
    }

    #[test]
    fn an_answer_that_comes_too_late_is_nobody_elses() {
        let (daemon, server) = Channel::pair().unwrap();
        let broker = BrokerClient::new(server, BROKER);
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
