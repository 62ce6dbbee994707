//! Questions to a file system that may never be answered, each asked on a thread of its own.

use std::os::fd::OwnedFd;
use std::sync::mpsc;

use rustix::fs::{AtFlags, StatxFlags, statx};

use super::place::{duplicate, gone};
use crate::error::{Error, Result};
use crate::protocol::link::Connection;

type Question = Box<dyn FnOnce() + Send>;

/// A thread that starts the threads that ask. They must not be the grafter's: a thread shares the root and the
/// directory of the one that started it, and the grafter could enter no namespace while one of them hangs.
#[derive(Debug, Clone)]
pub(super) struct Probes {
    questions: mpsc::Sender<Question>,
}

impl Probes {
    /// Start it.
    pub(super) fn start() -> Result<Self> {
        let (questions, inbox) = mpsc::channel::<Question>();
        let ask = |question: Question| {
            // If it is not started there is no answer, which is one too.
            let _ = std::thread::Builder::new()
                .name("probe".to_owned())
                .spawn(question);
        };
        std::thread::Builder::new()
            .name("prober".to_owned())
            .spawn(move || inbox.into_iter().for_each(ask))
            .map_err(|e| Error::io("start", "the prober thread", e))?;
        Ok(Self { questions })
    }

    /// Ask without waiting.
    pub(super) fn ask(&self, question: Question) -> Result<()> {
        self.questions.send(question).map_err(|_| gone())
    }
}

/// Asks the two connections whether somebody serves them.
#[derive(Debug)]
pub struct Prober {
    probes: Probes,
    roots: [OwnedFd; 2],
}

impl Prober {
    pub(super) fn new(probes: Probes, roots: [OwnedFd; 2]) -> Self {
        Self { probes, roots }
    }

    /// Ask both connections for names that are not there, so that each of the threads that wait for a request gets
    /// one, up to `times`; `done` hears of each answer. Nobody waits here: a server may never answer.
    ///
    /// # Errors
    /// When no more descriptors can be had.
    pub fn poke(&self, times: usize, done: &mpsc::Sender<Connection>) -> Result<()> {
        for (connection, root) in Connection::ALL.into_iter().zip(&self.roots) {
            for number in 0..times {
                let (root, done) = (duplicate(root)?, done.clone());
                let ask = move || {
                    // A LOOKUP in the root directory, whose entries are slots: no slot is called so. Two of one name
                    // would wait for each other in the kernel.
                    let name = format!("health-{number}");
                    let answer = statx(&root, name, AtFlags::empty(), StatxFlags::TYPE);
                    if matches!(answer, Err(rustix::io::Errno::NOENT)) {
                        let _ = done.send(connection);
                    }
                };
                self.probes.ask(Box::new(ask))?;
            }
        }
        Ok(())
    }
}
