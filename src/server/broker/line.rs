//! The channel of one daemon, and the questions that are under way on it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::link::{BrokerReply, BrokerRequest};
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags, Timespec};

/// The channel of one daemon. Each container has at most one question under way, so a daemon that hangs has at most one of
/// each container to answer, and [`MOST`] in all.
#[derive(Debug)]
pub(super) struct Line {
    channel: Channel,
    /// The version of the broker.
    pub(super) version: u32,
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

pub(super) type Answer = (BrokerReply, Vec<OwnedFd>);

/// The time after which an answer that nobody waits for is not expected any more.
const STALE: Duration = Duration::from_secs(60);

/// The most questions that are under way over all.
pub(super) const MOST: usize = 64;

/// The reason why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// The daemon is gone.
    Gone(io::Error),
    /// The answer takes too long.
    Late,
}

impl Line {
    /// Makes the client's end of a channel to a broker of this version.
    pub(super) fn new(channel: Channel, version: u32) -> Arc<Self> {
        Arc::new(Self {
            channel,
            version,
            inner: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Asks a question, and waits until `until` for the answer.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub(super) fn ask(
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
    use super::*;

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
}
