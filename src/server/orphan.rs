//! A server whose daemon has died: it serves on, and waits at its rendezvous for the next daemon, which takes back
//! what the server keeps for it.

use std::io;
use std::os::fd::OwnedFd;

use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::link::{self, FromServer, ToServer};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::SocketFlags;

use super::start::check_version;
use super::{Server, Sessions};

/// A program that has connected may take this long to say that it is a daemon.
const GREETING: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

impl Server {
    /// Waits for the next daemon, and returns its link; none when there is nothing to wait for.
    ///
    /// # Errors
    /// When poll(2) fails.
    pub(super) fn wait_for_daemon(&mut self) -> io::Result<Option<Channel>> {
        if self.held.is_none() || !self.serves_on() {
            return Ok(None);
        }
        tracing::warn!(
            containers = self.containers.len(),
            "the daemon is gone; serving on, and waiting for the next"
        );
        while !self.containers.is_empty() {
            let Some(connection) = self.wait()? else {
                continue;
            };
            match self.greet(connection) {
                Ok(link) => {
                    tracing::info!("there is a daemon again");
                    return Ok(Some(link));
                }
                Err(error) => tracing::warn!(%error, "who came is no daemon, ignoring"),
            }
        }
        tracing::info!("the last container has ended");
        Ok(None)
    }

    /// Returns whether this server has what it takes to serve without a daemon. A server that was drained goes on, unless
    /// another one has begun meanwhile.
    fn serves_on(&mut self) -> bool {
        match self.sessions {
            Sessions::Prepared(_) => false,
            Sessions::Serving(_) => true,
            Sessions::Draining(_) => match self.begin(false) {
                Ok(()) => true,
                Err(why) => {
                    tracing::info!(why, "ending");
                    false
                }
            },
        }
    }

    /// Waits until somebody connects, and returns the connection, or until containers end, which are then forgotten.
    fn wait(&mut self) -> io::Result<Option<OwnedFd>> {
        let Some(held) = &self.held else {
            return Ok(None);
        };
        let mut poll = vec![PollFd::new(&held.rendezvous, PollFlags::IN)];
        for pidfd in self.containers.values() {
            poll.push(PollFd::new(pidfd, PollFlags::IN));
        }
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, None))?;
        let somebody = !poll[0].revents().is_empty();
        let ended: Vec<u64> = self
            .containers
            .keys()
            .zip(&poll[1..])
            .filter(|(_, pidfd)| !pidfd.revents().is_empty())
            .map(|(slot, _)| *slot)
            .collect();
        let connection = if somebody {
            let accepted = rustix::net::accept_with(&held.rendezvous, SocketFlags::CLOEXEC);
            // The server may be out of descriptors. The daemon that comes next finds more.
            accepted
                .inspect_err(|error| tracing::warn!(%error, "somebody could not be let in"))
                .ok()
        } else {
            None
        };
        for slot in ended {
            self.remove(slot);
        }
        Ok(connection)
    }

    /// Has a daemon take over, if it is one.
    fn greet(&mut self, connection: OwnedFd) -> io::Result<Channel> {
        let link = Channel::new(connection);
        let peer = link.peer()?;
        if peer.uid != 0 {
            return Err(io::Error::other(format!("it is of user {}", peer.uid)));
        }
        let mut poll = [PollFd::new(&link, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&GREETING)))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let adopt = link.recv::<ToServer>()?;
        let Some((
            ToServer::Adopt {
                version,
                generations,
                broker: knows,
            },
            fds,
        )) = adopt
        else {
            return Err(io::Error::other("it did not say that it is a daemon"));
        };
        let (Some(held), Ok([broker])) = (&self.held, <[OwnedFd; 1]>::try_from(fds)) else {
            return Err(io::Error::other("it did not say how it can be asked"));
        };
        let suits = check_version(version).and_then(|()| {
            // The servers that it starts would give other generations, and the kernel would take the nodes for others.
            match generations || !self.fs.has_generations() {
                true => Ok(()),
                false => Err(
                    "eci-mountd knows no generations of containers, which this server has given: \
                    install the version that was running"
                        .to_owned(),
                ),
            }
        });
        if let Err(why) = suits {
            let failed = FromServer::Failed {
                why: why.clone(),
                errno: None,
            };
            link.send(&failed, &[])?;
            return Err(io::Error::other(why));
        }
        let answer = FromServer::Held {
            version: link::VERSION,
            init: self.init.clone(),
            replies: self.replies.clone(),
            settings: self.settings.clone(),
            slots: self.containers.keys().copied().collect(),
            generations: true,
        };
        link.send(&answer, &held.hand_over(&self.state))?;
        // The daemon says later of which sysctls it wants to hear and what it answers, if it does.
        self.fs.raise(Vec::new());
        self.fs.ask_for_user_namespaces(false);
        self.broker.replace(Channel::new(broker), knows);
        self.triggers.reopen_all();
        Ok(link)
    }
}
