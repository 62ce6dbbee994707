//! A server that lives and does not answer is ended like a dead one, so that another takes its place.
//!
//! Nothing is asked while nobody reads: the daemon's own descriptors of the connections become readable when the
//! kernel has a request that no server has taken. That is heard of once; a second later both connections are asked
//! for a name that does not exist, and if the answer is not there in time the server hangs. Then the next request is
//! listened for.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::operations::Daemon;
use crate::supervisor::threads_of;
use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::link::Connection;

/// How long after a request the server is asked whether it answers.
pub(super) const AFTER: Duration = Duration::from_secs(1);

/// How long it may take to answer. It does nothing slow for this question; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(3);

/// The server that is to answer at this moment; none while there is none, or while one takes the place of another.
#[derive(Debug, Default)]
pub(super) struct Answering {
    pidfd: Mutex<Option<Arc<OwnedFd>>>,
}

impl Answering {
    /// It is this one from now on.
    pub(super) fn set(&self, pidfd: Option<BorrowedFd<'_>>) {
        // Without a descriptor for it, it is not watched over.
        *self.pidfd.lock() = pidfd
            .and_then(|fd| fd.try_clone_to_owned().ok())
            .map(Arc::new);
    }

    fn get(&self) -> Option<Arc<OwnedFd>> {
        self.pidfd.lock().clone()
    }

    fn is(&self, pidfd: &Arc<OwnedFd>) -> bool {
        self.get().is_some_and(|now| Arc::ptr_eq(&now, pidfd))
    }
}

/// Start the thread that asks. Each `()` that is sent is one question.
///
/// # Errors
/// When there are no more threads.
pub(super) fn start(daemon: &Arc<Daemon>) -> Result<Sender<()>> {
    let (ask, asked) = mpsc::channel();
    let daemon = Arc::clone(daemon);
    std::thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(move || watch(&daemon, &asked))
        .map_err(|e| Error::io("start", "a thread", e))?;
    Ok(ask)
}

fn watch(daemon: &Daemon, asked: &Receiver<()>) {
    for () in asked {
        // The questions are requests themselves, and must not lead to others.
        daemon.listen_for_requests(false);
        if let Some(pidfd) = daemon.answering.get()
            && !answers(daemon)
            // Another server may have taken its place meanwhile; what hung before it is answered by that one.
            && daemon.answering.is(&pidfd)
        {
            let threads = threads_of(daemon.proc.pid_of(pidfd.as_fd()).unwrap_or_default());
            tracing::error!(threads, "the server does not answer: ending it");
            // It fails only when it has ended.
            let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
        }
        daemon.listen_for_requests(true);
    }
}

/// Whether both connections are answered in time.
pub(super) fn answers(daemon: &Daemon) -> bool {
    let (done, answered) = mpsc::channel();
    // Not by the grafter, which may be waiting for the server itself.
    if let Err(error) = daemon.prober.poke(1, &done) {
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
