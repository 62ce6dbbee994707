//! A server that lives and does not answer is ended like a dead one, so that another takes its place.
//!
//! While nobody reads, nothing is checked. The daemon's own descriptors of the connections become readable when the
//! kernel has a request that no server has taken. The event loop hears of that once. A second later both connections
//! are asked for a name that does not exist. If an answer does not come in time, the server hangs and is ended. Then
//! the loop hears of the next request again.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::event_set::EventSet;
use crate::container::procfs::Proc;
use crate::grafts::LivenessProbe;
use crate::supervisor::threads_of;
use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::link::Connection;

/// The time from a request to the check.
pub(super) const AFTER: Duration = Duration::from_secs(1);

/// The time that the server has for an answer. It does nothing slow for this question; the host may be busy.
const LIMIT: Duration = Duration::from_secs(3);

/// The check that the server answers.
#[derive(Debug)]
pub(super) struct Watchdog {
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
        proc: Arc<Proc>,
        probe: LivenessProbe,
        requests: [OwnedFd; 2],
        events: Arc<EventSet>,
    ) -> Self {
        Self {
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
        std::thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || this.run(&checks))
            .map_err(|e| Error::io("start", "a thread", e))?;
        Ok(check)
    }

    fn run(&self, checks: &Receiver<()>) {
        for () in checks {
            // The questions are requests themselves, and must not lead to others.
            self.hear_of_requests(false);
            if let Some(pidfd) = self.watched()
                && !self.answers()
                // Another server may have taken its place meanwhile; that one answers what hung before.
                && self.is_watched(&pidfd)
            {
                let threads = threads_of(self.proc.pid_of(pidfd.as_fd()).unwrap_or_default());
                tracing::error!(threads, "the server does not answer: ending it");
                // It fails only when the server has ended.
                let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
            }
            self.hear_of_requests(true);
        }
    }

    /// Returns true if both connections answer in time, or cannot be asked.
    pub(super) fn answers(&self) -> bool {
        let (done, answered) = mpsc::channel();
        // The grafter does not ask: it may be waiting for the server itself.
        if let Err(error) = self.probe.send(1, &done) {
            tracing::warn!(%error, "the server cannot be asked whether it answers, ignoring");
            return true;
        }
        drop(done);
        let end = Instant::now() + LIMIT;
        let mut left: HashSet<Connection> = Connection::ALL.into();
        while !left.is_empty() {
            match answered.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(connection) => left.remove(&connection),
                Err(mpsc::RecvTimeoutError::Timeout) => return false,
                // The question itself failed: no descriptors, no threads.
                Err(mpsc::RecvTimeoutError::Disconnected) => return true,
            };
        }
        true
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
