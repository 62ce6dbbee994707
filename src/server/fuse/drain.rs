//! Taking a session off its connection without losing a request.
//!
//! A thread of the FUSE library that waits for a request cannot be called back: it takes one more, answers it, and
//! then reads again. So the descriptor that it reads from is replaced by a socket whose other end has been shut down:
//! the next read finds its end, and the thread leaves. The library answers by the same descriptor, so the relay hands on
//! to the kernel what is written to the socket, a packet an answer.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::Builder;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType};

/// The most bytes of an answer. The answer to a read is no longer than the kernel asks for in one request.
const MAX_ANSWER: usize = (1 << 20) + 4096;

/// Hands on the answers of a session to the kernel, until the session has no descriptor any more.
#[derive(Debug)]
pub(super) struct Relay {
    socket: OwnedFd,
    /// The lock is held while an answer is handed on.
    busy: Mutex<()>,
}

impl Relay {
    /// Starts a relay to the `/dev/fuse` descriptor `fuse`, and returns the descriptor that is to be put in its place.
    ///
    /// # Errors
    /// When there are no more descriptors or threads.
    pub(super) fn start(fuse: OwnedFd) -> io::Result<(Arc<Self>, OwnedFd)> {
        let (theirs, socket) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::net::shutdown(&socket, Shutdown::Write)?;
        let this = Arc::new(Self {
            socket,
            busy: Mutex::new(()),
        });
        let relay = Arc::clone(&this);
        Builder::new()
            .name("relay".to_owned())
            .spawn(move || relay.run(&fuse))?;
        Ok((this, theirs))
    }

    /// Returns whether there is an answer that has not been handed on.
    pub(super) fn is_busy(&self) -> bool {
        let _idle = self.busy.lock();
        // After an error there may be an answer.
        self.poll(Some(&Timespec::default())).unwrap_or(true)
    }

    fn run(&self, fuse: &OwnedFd) {
        let mut answer = vec![0; MAX_ANSWER];
        loop {
            match self
                .poll(None)
                .and_then(|_| self.hand_on(fuse, &mut answer))
            {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    return tracing::error!(%error, "answers are not handed on any more");
                }
            }
        }
    }

    /// Hands on one answer; returns false when there are no more.
    fn hand_on(&self, fuse: &OwnedFd, answer: &mut [u8]) -> io::Result<bool> {
        let _busy = self.busy.lock();
        let length = match rustix::net::recv(&self.socket, &mut *answer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Ok(false),
            Ok((length, _)) => length,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        if let Err(error) = rustix::io::write(fuse, &answer[..length]) {
            // ENOENT: the program that asked was killed meanwhile.
            tracing::debug!(%error, "an answer that nobody waits for");
        }
        Ok(true)
    }

    fn poll(&self, limit: Option<&Timespec>) -> io::Result<bool> {
        let socket = self.socket.as_fd();
        let mut poll = [PollFd::new(&socket, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, limit))?;
        Ok(ready > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_finds_the_end_and_a_write_is_handed_on() {
        let (fuse, kernel) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let (relay, session) = Relay::start(fuse).unwrap();
        assert_eq!(rustix::io::read(&session, &mut [0; 16]).unwrap(), 0);
        rustix::io::write(&session, b"an answer").unwrap();
        rustix::io::write(&session, b"another").unwrap();
        let mut bytes = [0; 16];
        for answer in [&b"an answer"[..], b"another"] {
            let length = rustix::io::read(&kernel, &mut bytes).unwrap();
            assert_eq!(&bytes[..length], answer);
        }
        assert!(!relay.is_busy());
        drop(session);
        // The thread of the relay ends, and with it the last descriptor to the kernel.
        assert_eq!(rustix::io::read(&kernel, &mut bytes).unwrap(), 0);
    }
}
