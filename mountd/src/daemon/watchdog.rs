//! A server that lives and does not answer is ended like a dead one, so that another takes its place.
//!
//! While nobody reads, nothing is checked. The daemon's own descriptors of the connections become readable when the
//! kernel has a request that no server has taken. The event loop hears of that once. A second later both connections
//! are asked for a name that does not exist. If an answer does not come in time, and the server has answered no reader on
//! that connection meanwhile, it hangs and is ended. Then the loop hears of the next request again.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::event_set::EventSet;
use super::state::Shared;
use crate::container::procfs::Proc;
use crate::faults;
use crate::grafts::LivenessProbe;
use crate::supervisor::{CpuTime, threads_of};
use crate::threads::{self, Mend};
use eci_fs_protocol::error::Result;
use eci_fs_protocol::link::Connection;

/// The time from a request to the check.
pub(super) const AFTER: Duration = Duration::from_secs(1);

/// The time that the server has for an answer. It does nothing slow for this question; the host may be busy.
const LIMIT: Duration = Duration::from_secs(3);

/// The time that another thread may hold the state before it is not waited for.
const STATE_LIMIT: Duration = Duration::from_millis(500);

/// The requests of readers that the server has answered, on each of [`Connection::ALL`].
enum Progress {
    Answered(Vec<u64>),
    /// It cannot be asked now.
    Busy,
    /// It does not say so in time.
    Silent,
    /// It cannot tell.
    Unknown,
}

/// A question to both connections.
struct Question {
    answered: Receiver<Connection>,
    left: HashSet<Connection>,
}

impl Question {
    /// Waits for the answers that have not come, for `limit` at most. Returns the numbers of the connections, in
    /// [`Connection::ALL`], that have not answered.
    fn wait(&mut self, limit: Duration) -> Vec<usize> {
        let end = Instant::now() + limit;
        while !self.left.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            match self.answered.recv_timeout(left) {
                Ok(connection) => drop(self.left.remove(&connection)),
                Err(mpsc::RecvTimeoutError::Timeout) => break,
                // The question itself failed: no descriptors, no threads.
                Err(mpsc::RecvTimeoutError::Disconnected) => self.left.clear(),
            }
        }
        let all = Connection::ALL.iter().enumerate();
        all.filter_map(|(number, one)| self.left.contains(one).then_some(number))
            .collect()
    }
}

/// The check that the server answers.
#[derive(Debug)]
pub(super) struct Watchdog {
    shared: Arc<Shared>,
    proc: Arc<Proc>,
    probe: LivenessProbe,
    /// Both connections, to hear of requests on them.
    requests: [OwnedFd; 2],
    events: Arc<EventSet>,
    /// The pidfd of the server that is to answer now. None while there is none, or while one replaces another.
    answering: Mutex<Option<Arc<OwnedFd>>>,
}

impl Watchdog {
    pub(super) fn new(
        shared: Arc<Shared>,
        proc: Arc<Proc>,
        probe: LivenessProbe,
        requests: [OwnedFd; 2],
        events: Arc<EventSet>,
    ) -> Self {
        Self {
            shared,
            proc,
            probe,
            requests,
            events,
            answering: Mutex::default(),
        }
    }

    /// Has the server of this pidfd watched from now on; or none.
    pub(super) fn watch(&self, pidfd: Option<BorrowedFd<'_>>) {
        // If the descriptor cannot be duplicated, the server is not watched.
        *self.answering.lock() = pidfd
            .and_then(|fd| fd.try_clone_to_owned().ok())
            .map(Arc::new);
    }

    fn watched(&self) -> Option<Arc<OwnedFd>> {
        self.answering.lock().clone()
    }

    fn is_watched(&self, pidfd: &Arc<OwnedFd>) -> bool {
        self.watched().is_some_and(|now| Arc::ptr_eq(&now, pidfd))
    }

    /// Has the event loop hear of the next request on either connection; or of none.
    pub(super) fn hear_of_requests(&self, hear: bool) {
        // Without the lock of the state: its holder may be waiting for a server that hangs.
        for (number, fuse) in (0..).zip(&self.requests) {
            if let Err(error) = self.events.hear_of_request(number, fuse.as_fd(), hear) {
                tracing::warn!(%error, "the server is not watched over, ignoring");
            }
        }
    }

    /// Starts the thread that checks, once for each `()` that is sent to it.
    ///
    /// # Errors
    /// When there are no more threads.
    pub(super) fn start(self: &Arc<Self>) -> Result<Sender<()>> {
        let (check, checks) = mpsc::channel();
        let this = Arc::clone(self);
        threads::start("watchdog", Mend::Again, move || this.run(&checks))?;
        Ok(check)
    }

    fn run(&self, checks: &Receiver<()>) {
        for () in checks {
            // The questions are requests themselves, and must not lead to others.
            self.hear_of_requests(false);
            let checked = threads::guard("watchdog", || {
                faults::at("watchdog");
                self.check();
            });
            drop(checked);
            self.hear_of_requests(true);
        }
    }

    /// Ends the server if it hangs.
    fn check(&self) {
        if let Some(pidfd) = self.watched()
            && self.hangs(&pidfd)
            // Another server may have taken its place meanwhile; that one answers what hung before.
            && self.is_watched(&pidfd)
        {
            let threads = threads_of(self.proc.pid_of(pidfd.as_fd()).unwrap_or_default());
            tracing::error!(threads, "the server does not answer: ending it");
            // It fails only when the server has ended.
            let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
        }
    }

    /// Returns true if a connection does not answer, and no request of a reader was answered on it meanwhile. A question
    /// may wait behind those of many readers, and the server for a CPU.
    fn hangs(&self, pidfd: &Arc<OwnedFd>) -> bool {
        let cpu = self.proc.pid_of(pidfd.as_fd()).ok().and_then(CpuTime::of);
        let is_starved = || {
            let is_starved = cpu.is_some_and(|cpu| cpu.is_starved(LIMIT));
            if is_starved {
                tracing::info!("the server does not answer, and gets no CPU: waiting for it");
            }
            is_starved
        };
        let mut before = self.progress();
        while let Progress::Silent = before {
            if !self.is_watched(pidfd) {
                return false;
            }
            if !is_starved() {
                return true;
            }
            before = self.progress();
        }
        let Some(mut question) = self.ask() else {
            return false;
        };
        loop {
            let left = question.wait(LIMIT);
            if left.is_empty() || !self.is_watched(pidfd) {
                return false;
            }
            let now = self.progress();
            match (&before, &now) {
                // The server is told something, or is being replaced. That has a limit of its own.
                (_, Progress::Busy) => continue,
                (Progress::Answered(before), Progress::Answered(now))
                    if left.iter().all(|one| before.get(*one) < now.get(*one)) =>
                {
                    tracing::info!(
                        "the server is busy: it answers readers, and not yet the daemon"
                    );
                }
                (Progress::Busy | Progress::Silent, Progress::Answered(_)) => {}
                _ if is_starved() => {}
                _ => return true,
            }
            before = now;
        }
    }

    /// Asks the server how many requests it has answered.
    fn progress(&self) -> Progress {
        let Some(mut state) = self.shared.try_state(STATE_LIMIT) else {
            return Progress::Busy;
        };
        let server = state.slot.server();
        match server.and_then(|server| server.progress(LIMIT)) {
            Ok(Some(answered)) => Progress::Answered(answered),
            Ok(None) => Progress::Silent,
            // A server of a release before the question.
            Err(_) => Progress::Unknown,
        }
    }

    /// Asks both connections. Returns none when they cannot be asked.
    fn ask(&self) -> Option<Question> {
        let (done, answered) = mpsc::channel();
        // The grafter does not ask: it may be waiting for the server itself.
        if let Err(error) = self.probe.send(1, &done) {
            tracing::warn!(%error, "the server cannot be asked whether it answers, ignoring");
            return None;
        }
        let left = Connection::ALL.into();
        Some(Question { answered, left })
    }

    /// Returns true if both connections answer in time, or cannot be asked.
    pub(super) fn answers(&self) -> bool {
        let question = self.ask();
        question.is_none_or(|mut question| question.wait(LIMIT).is_empty())
    }

    /// Makes up to `count` requests on each connection, one for each thread of the server, and waits no longer than
    /// `limit` for one to be answered.
    ///
    /// # Errors
    /// When the thread that asks has ended.
    pub(super) fn make_requests(&self, count: usize, limit: Duration) -> Result<()> {
        let (done, answered) = mpsc::channel();
        self.probe.send(count, &done)?;
        // The caller goes on whether one is answered or none.
        let _ = answered.recv_timeout(limit);
        Ok(())
    }
}
