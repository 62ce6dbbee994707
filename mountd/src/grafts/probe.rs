//! Questions to our own file systems that may never be answered, each asked on a thread of its own. The threads have
//! descriptors of their own ([`own_descriptors`](super::own_descriptors)), and get those that they ask about over a socket.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::own_descriptors::keep_only;
use crate::threads::{self, Mend};
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::error::{Error, Kind, Result};
use eci_fs_protocol::link::Connection;

/// The question whether the file system of the descriptor that travels beside has an entry under a name that nothing has.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    /// The number in the name: two questions of one name would wait for each other in the kernel.
    number: usize,
}

/// The errno of an answer; none for success.
type Answer = Option<Errno>;

/// The receivers of answers, by the number of the question.
type Waiting = Arc<Mutex<HashMap<u64, Box<dyn FnOnce(Answer) + Send>>>>;

/// A thread that starts the threads that ask. The grafter must not start them: a thread shares the root and the
/// directory of the one that started it, and the grafter could enter no namespace while one of them hangs.
#[derive(Clone)]
pub(super) struct Probes {
    questions: Arc<Channel>,
    waiting: Waiting,
    last: Arc<AtomicU64>,
}

impl std::fmt::Debug for Probes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probes").finish_non_exhaustive()
    }
}

impl Probes {
    /// Starts the thread.
    pub(super) fn start() -> Result<Self> {
        let (questions, theirs) =
            Channel::pair().map_err(|e| Error::io("make", "a socket pair", e))?;
        let waiting = Waiting::default();
        let answers = Arc::clone(&waiting);
        let (ready, is_ready) = mpsc::channel();
        // The number of the socket belongs to another file in the daemon's own table, so it is not closed there.
        threads::start("prober", Mend::End, move || {
            let alone = keep_only(&theirs);
            let failed = alone.is_err();
            let _ = ready.send(alone);
            if !failed {
                serve(&theirs, &answers);
            }
        })?;
        is_ready.recv().map_err(|_| gone())??;
        Ok(Self {
            questions: Arc::new(questions),
            waiting,
            last: Arc::default(),
        })
    }

    /// Asks without waiting. `done` is called with the answer, if there is ever one.
    fn ask(
        &self,
        question: Question,
        about: BorrowedFd<'_>,
        done: impl FnOnce(Answer) + Send + 'static,
    ) -> Result<()> {
        let id = self.last.fetch_add(1, Ordering::Relaxed);
        self.waiting.lock().insert(id, Box::new(done));
        self.questions
            .send(&(id, question), &[about])
            .inspect_err(|_| drop(self.waiting.lock().remove(&id)))
            .map_err(|_| gone())
    }
}

fn serve(questions: &Channel, waiting: &Waiting) {
    loop {
        let ((id, question), fds) = match questions.recv::<(u64, Question)>() {
            Ok(Some(packet)) => packet,
            Ok(None) => return,
            // There is no room for the descriptor. Those that wait notice that nobody will answer.
            Err(_) => {
                waiting.lock().clear();
                continue;
            }
        };
        let Ok([about]) = <[OwnedFd; 1]>::try_from(fds) else {
            continue;
        };
        let waiting = Arc::clone(waiting);
        let ask = move || {
            // A LOOKUP in the root directory, whose entries are slots: no slot is called so.
            let name = format!("health-{}", question.number);
            let answer = statx(&about, name, AtFlags::empty(), StatxFlags::TYPE).err();
            let done = waiting.lock().remove(&id);
            if let Some(done) = done {
                done(answer);
            }
        };
        // If it is not started there is no answer, which is one too.
        let _ = std::thread::Builder::new()
            .name("probe".to_owned())
            .spawn(ask);
    }
}

/// The check whether a server answers on the two connections.
#[derive(Debug)]
pub struct LivenessProbe {
    probes: Probes,
    roots: [OwnedFd; 2],
}

impl LivenessProbe {
    pub(super) fn new(probes: Probes, roots: [OwnedFd; 2]) -> Self {
        Self { probes, roots }
    }

    /// Asks both connections for names that are not there, so that each of the threads that wait for a request gets
    /// one, up to `times`. `done` hears of each answer. This does not wait: a server may never answer.
    ///
    /// # Errors
    /// When the thread that asks has ended.
    pub fn send(&self, times: usize, done: &Sender<Connection>) -> Result<()> {
        for (connection, root) in Connection::ALL.into_iter().zip(&self.roots) {
            for number in 0..times {
                let done = done.clone();
                let hears = move |answer| {
                    if answer == Some(Errno::NOENT) {
                        // The receiver may have gone.
                        let _ = done.send(connection);
                    }
                };
                self.probes.ask(Question { number }, root.as_fd(), hears)?;
            }
        }
        Ok(())
    }
}

/// Returns the error for a thread of this module, or the grafter, that has ended.
pub(super) fn gone() -> Error {
    Error::new(Kind::System, "the grafter thread has ended").remedy("restart eci-mountd")
}

pub(super) fn duplicate(fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone()
        .map_err(|e| Error::io("duplicate", "a descriptor", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threads_that_ask_have_no_descriptor_of_the_others() {
        let (mut read, write) = std::io::pipe().unwrap();
        let probes = Probes::start().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let (answer, answered) = mpsc::channel();
        let done = move |errno| answer.send(errno).unwrap();
        let question = Question { number: 0 };
        probes.ask(question, root.as_fd(), done).unwrap();
        assert_eq!(answered.recv().unwrap(), Some(Errno::NOENT));
        drop(write);
        // If the thread had the other end, this would wait for ever.
        assert_eq!(std::io::Read::read(&mut read, &mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn a_name_that_is_not_there_is_asked_for() {
        let probes = Probes::start().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = || OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let probe = LivenessProbe::new(probes, [root(), root()]);
        let (done, answered) = mpsc::channel();
        probe.send(2, &done).unwrap();
        drop(done);
        assert_eq!(answered.iter().count(), 4);
    }
}
