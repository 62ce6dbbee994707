//! The client of the broker: the server asks the daemon for what it may not open itself. A server that outlives its daemon
//! gets another channel from the next one.

mod line;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::link::{BROKER, BrokerReply, BrokerRequest, UserNamespace, WatchedFile};
use line::Line;
pub use line::NoAnswer;
use parking_lot::{Condvar, Mutex};

use crate::server::error::Errno;

/// The client of the present daemon's broker.
#[derive(Debug)]
pub struct BrokerClient {
    line: Mutex<Option<Arc<Line>>>,
    came: Condvar,
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

    /// Tells the present daemon something, and waits for its answer.
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

    /// Has `inotify` report writes to files. Returns the number of each watch; none for a file that is not there. `dirs`
    /// are the directories of the files.
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
