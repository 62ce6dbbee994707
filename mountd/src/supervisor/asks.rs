//! What the server asks of the daemon, because it may not do it itself.
//!
//! It can ask for two things only: a pressure trigger on the cgroup of a container that it serves, and that a tunable
//! of the machine is raised to what such a container has set. Both are checked as if the container had asked.
//! Answering takes no lock that an attach holds, because an attach waits for the server.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags};

use super::pressure::{PressureDirs, open_trigger};
use crate::error::{Error, Result};
use crate::protocol::channel::Channel;
use crate::protocol::link::{Ask, AskAnswer};
use crate::raise::Raiser;

/// What answers servers; clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Answerer {
    pressure: PressureDirs,
    /// What raises tunables of the machine.
    pub raiser: Raiser,
    /// Held while a question is taken and answered.
    turn: Arc<Mutex<()>>,
}

impl Answerer {
    /// There is a container; `dir` is its v2 cgroup directory, if it has one.
    pub fn enter(&self, slot: u64, dir: Option<OwnedFd>) {
        if let Some(dir) = dir {
            self.pressure.insert(slot, dir);
        }
        self.raiser.enter(slot);
    }

    /// It is gone.
    pub fn leave(&self, slot: u64) {
        self.pressure.remove(slot);
        self.raiser.leave(slot);
    }

    /// All containers of the daemon before this one have been entered. Until then no server is answered: it serves
    /// them already, and would be told that they are not there.
    pub fn set_complete(&self) {
        self.pressure.set_complete();
        self.raiser.set_complete();
    }

    /// No question is taken while this is held: whoever takes our place finds each either answered, or not taken.
    pub fn pause(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// Answer a server on a thread of its own, until it is gone.
    ///
    /// # Errors
    /// When there are no more threads.
    pub fn answer(&self, asks: Channel) -> Result<()> {
        let this = self.clone();
        std::thread::Builder::new()
            .name("asks".to_owned())
            .spawn(move || while this.answer_one(&asks) {})
            .map(drop)
            .map_err(|e| Error::io("start", "a thread", e))
    }

    /// Answer the next question; says whether there may be more.
    fn answer_one(&self, asks: &Channel) -> bool {
        let mut poll = [PollFd::new(asks, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, None)).is_err() {
            return false;
        }
        let _turn = self.turn.lock();
        let Ok(Some((ask, _))) = asks.recv::<Ask>() else {
            return false;
        };
        let answered = match ask {
            Ask::Trigger {
                slot,
                resource,
                trigger,
            } => open_trigger(&self.pressure, slot, resource, &trigger).map(Some),
            Ask::Raise {
                slot,
                tunable,
                value,
            } => self.raiser.wish(slot, tunable, value).map(|()| None),
        };
        let nothing: [BorrowedFd<'_>; 0] = [];
        let sent = match &answered {
            Ok(Some(fd)) => asks.send(&AskAnswer::Opened, &[fd.as_fd()]),
            Ok(None) => asks.send(&AskAnswer::Raised, &nothing),
            Err(errno) => {
                let errno = errno.raw_os_error();
                asks.send(&AskAnswer::Refused { errno }, &nothing)
            }
        };
        sent.is_ok()
    }
}
