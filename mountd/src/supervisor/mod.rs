//! The daemon's end of a server process.

mod catalogue;
mod threads;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Signal;

use crate::broker::Broker;
use crate::connections::Connections;
use crate::container::Described;
use crate::persistent_descriptors::{HeldDescriptors, PersistentDescriptors};
use catalogue::checked;
pub(crate) use threads::{CpuTime, threads_of};

use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::choices::Choices;
use eci_fs_protocol::error::{Error, Kind, Result};
use eci_fs_protocol::host_sysctl::HostSysctl;
use eci_fs_protocol::link::{self, FromServer, Row, Secrets, Settings, ToServer, Usage};

/// The time that the server has for one answer. It computes nothing slow in them.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The most characters of a server's words that are logged and shown.
const MOST_WORDS: usize = 1000;
/// The time that the server has to tell what it has done for containers.
const MOMENT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000_000,
};

/// The time that a process which was killed has to be gone: it may be inside of the kernel.
const KILL_LIMIT: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// The program of a server.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable: `eci-fs`.
    pub path: PathBuf,
    /// The settings of the views.
    pub settings: Settings,
}

/// The connections and descriptors that a server without a daemon hands over to the next one.
#[derive(Debug)]
pub struct HandedOver {
    /// The connections.
    pub connections: Connections,
    /// The state, as the server has it: nobody has looked yet whether it is one.
    pub state: OwnedFd,
    /// The descriptors that the server held.
    pub held: HeldDescriptors,
    /// The slots of the containers that it serves.
    pub slots: Vec<u64>,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// None for a server that an earlier daemon started: the process that inherited it reaps it.
    child: Option<Child>,
    pid: i32,
    pidfd: OwnedFd,
    link: Channel,
    /// The broker's end of its channel, for the daemon that takes our place.
    broker_channel: Option<OwnedFd>,
    /// True if it gives containers generations ([`Secrets::generation`]).
    generations: bool,
    /// True if an answer to [`ToServer::Usage`] is still to come, for which nobody waits any more.
    owes_usage: bool,
    /// True if it lives on when the value is dropped.
    released: bool,
}

impl Server {
    /// Starts a server on the two connections. It answers no reader before [`Self::serve`].
    ///
    /// # Errors
    /// When it cannot be executed, does not answer, or negotiates what the connections do not have.
    pub fn start(
        program: &Program,
        connections: &mut Connections,
        descriptors: &PersistentDescriptors,
        broker: &Broker,
    ) -> Result<Self> {
        let (ours, theirs) = Channel::pair().map_err(|e| Error::io("make", "a socket pair", e))?;
        let mut command = Command::new(&program.path);
        command
            .arg("serve")
            .stdin(Stdio::from(theirs.into_inner()))
            .stdout(Stdio::null());
        crate::service_manager::hide_from(&mut command);
        let child = command
            .spawn()
            .map_err(|e| Error::io("start", &program.path, e))?;
        // The command holds the server's end of the link, whose end is seen only when no process holds it.
        drop(command);
        let pid = i32::try_from(child.id()).unwrap_or(0);
        let mut server = Self::over(ours, pid, Some(child))?;
        let (broker_channel, for_server) =
            Channel::pair().map_err(|e| Error::io("make", "a socket pair", e))?;
        server = server.with_broker(broker_channel.into_inner(), broker)?;
        let [cached, live] = connections.for_server()?;
        let mut fds = vec![
            cached.as_fd(),
            live.as_fd(),
            for_server.as_fd(),
            descriptors.state.as_fd(),
        ];
        if let Some(held) = &descriptors.held {
            fds.extend(connections.descriptors());
            fds.extend([held.namespace.as_fd(), held.rendezvous.as_fd()]);
        }
        let start = ToServer::Start {
            version: link::VERSION,
            init: connections.init(),
            settings: program.settings.clone(),
            held: descriptors.held.as_ref().map_or(0, |_| link::HELD),
            replies: Some(connections.replies()),
            broker: link::BROKER,
        };
        match server.call(&start, &fds)? {
            FromServer::Started {
                replies,
                generations,
            } => {
                connections.accept(replies)?;
                server.generations = generations;
            }
            other => return Err(unexpected(&other)),
        }
        Ok(server)
    }

    /// Adopts a server whose daemon has died; `link` leads to its rendezvous.
    ///
    /// # Errors
    /// When it does not answer, is not what it must be, or hands over what cannot be the connections.
    pub fn adopt(link: Channel, broker: &Broker) -> Result<(Self, HandedOver)> {
        let trouble = |e: std::io::Error| Error::io("speak to", "the server without a daemon", e);
        link.ask_for_senders().map_err(trouble)?;
        link.set_timeout(Some(ANSWER_LIMIT)).map_err(trouble)?;
        let (broker_channel, for_server) =
            Channel::pair().map_err(|e| Error::io("make", "a socket pair", e))?;
        let adopt = ToServer::Adopt {
            version: link::VERSION,
            generations: true,
            broker: link::BROKER,
        };
        link.send(&adopt, &[for_server.as_fd()]).map_err(trouble)?;
        let packet = link
            .recv_signed::<FromServer>()
            .map_err(trouble)?
            .ok_or_else(|| {
                Error::refused("the server without a daemon speaks another version of the link")
            })?;
        // A server of version 0.1.0 is root.
        let is_server = |uid: u32| uid == 0 || link::SERVER_USERS.contains(&uid);
        let sender = packet.sender.filter(|sender| is_server(sender.uid));
        let sender = sender.ok_or_else(|| {
            Error::refused("what waits for a daemon is no process of a server's user")
        })?;
        let FromServer::Held {
            init,
            replies,
            slots,
            generations,
            ..
        } = packet.value
        else {
            return Err(unexpected(&packet.value));
        };
        let Ok([cached, live, namespace, state, rendezvous]) = <[OwnedFd; 5]>::try_from(packet.fds)
        else {
            return Err(Error::refused(
                "the server without a daemon did not hand over what it keeps",
            ));
        };
        let connections = Connections::adopt([cached, live], init, replies)?;
        let mut server = Self::over(link, sender.pid, None)?.with_generations(generations);
        // Only now is it known that the pidfd is that of the process which answers.
        server.ping()?;
        let server = server.with_broker(broker_channel.into_inner(), broker)?;
        let handed_over = HandedOver {
            connections,
            state,
            held: HeldDescriptors {
                namespace,
                rendezvous,
            },
            slots,
        };
        Ok((server, handed_over))
    }

    /// Has the broker answer the server at the other end of `channel`.
    ///
    /// # Errors
    /// When there are no more descriptors or threads.
    pub fn with_broker(mut self, channel: OwnedFd, broker: &Broker) -> Result<Self> {
        let kept = channel
            .try_clone()
            .map_err(|e| Error::io("duplicate", "a socket", e))?;
        broker.answer(Channel::new(channel))?;
        self.broker_channel = Some(kept);
        Ok(self)
    }

    /// Returns a server that runs, at the other end of `link`.
    ///
    /// # Errors
    /// When it has ended.
    pub fn over(link: Channel, pid: i32, child: Option<Child>) -> Result<Self> {
        link.set_timeout(Some(ANSWER_LIMIT))
            .map_err(|e| Error::io("set up", "the link", e))?;
        Ok(Self {
            child,
            pid,
            pidfd: crate::container::open_pidfd(pid)?,
            link,
            broker_channel: None,
            generations: false,
            owes_usage: false,
            released: false,
        })
    }

    /// Returns the server, of which it is known whether it gives generations.
    pub fn with_generations(mut self, generations: bool) -> Self {
        self.generations = generations;
        self
    }

    /// Returns whether it gives containers generations ([`Secrets::generation`]). One of version 0.1.0 does not.
    pub fn gives_generations(&self) -> bool {
        self.generations
    }

    /// Returns the generation of the next container; 0 if the server gives none.
    ///
    /// # Errors
    /// When the kernel has no randomness.
    pub fn new_generation(&self) -> Result<u32> {
        match self.generations {
            true => link::new_generation().map_err(|e| Error::io("get", "random bytes", e)),
            false => Ok(0),
        }
    }

    /// Hands over a container, with the pidfd of the process whose life is its. Returns what can be grafted into it.
    ///
    /// # Errors
    /// When the container has a generation and the server gives none: its grafts would break.
    pub fn add(
        &mut self,
        slot: u64,
        secrets: Secrets,
        described: &Described,
        choices: &Choices,
    ) -> Result<Vec<Row>> {
        self.check_generation(secrets.generation)?;
        let mut fds: Vec<BorrowedFd<'_>> = described.dirs.iter().map(AsFd::as_fd).collect();
        fds.push(described.subject.pidfd.as_fd());
        match self.call(
            &ToServer::Add {
                slot,
                secrets,
                facts: Box::new(described.facts.clone()),
                choices: choices.clone(),
                process: u32::try_from(described.subject.pid).ok(),
            },
            &fds,
        )? {
            FromServer::Added { catalogue } => checked(catalogue),
            other => Err(unexpected(&other)),
        }
    }

    /// Tells the server of the slot of a container that is going to come. The server has its names from then on.
    pub fn expect(&mut self, slot: u64, generation: u32) -> Result<()> {
        self.check_generation(generation)?;
        match self.call(&ToServer::Expect { slot, generation }, &[])? {
            FromServer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Checks that the server can have containers with these generations.
    ///
    /// # Errors
    /// When it gives none.
    pub fn check_generation(&self, generation: u32) -> Result<()> {
        if generation == 0 || self.generations {
            return Ok(());
        }
        Err(Error::refused(
            "the server would break the grafts of containers, whose nodes have generations that it does not know",
        )
        .remedy("install the version that was running, or restart the containers"))
    }

    /// Returns what can be grafted into a container that it has.
    pub fn catalogue(&mut self, slot: u64) -> Result<Vec<Row>> {
        match self.call(&ToServer::Catalogue { slot }, &[])? {
            FromServer::Added { catalogue } => checked(catalogue),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks the server whether it answers.
    pub fn ping(&mut self) -> Result<()> {
        match self.call(&ToServer::Ping, &[])? {
            FromServer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns the number of requests that it has answered on each connection, in the order of
    /// [`Connection::ALL`](link::Connection::ALL); none if it does not say so within `limit`. It must be ended then: its
    /// answer would be taken for that to another packet.
    ///
    /// # Errors
    /// When it is of a release that cannot tell.
    pub fn progress(&mut self, limit: Duration) -> Result<Option<Vec<u64>>> {
        let trouble = |e| Error::io("speak to", "the server", e);
        self.link.send(&ToServer::Progress, &[]).map_err(trouble)?;
        let mut poll = [PollFd::new(&self.link, PollFlags::IN)];
        let limit = Timespec::try_from(limit).unwrap_or(KILL_LIMIT);
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&limit)));
        if ready.is_ok_and(|ready| ready == 0) {
            return Ok(None);
        }
        match self.link.recv::<FromServer>().map_err(trouble)? {
            Some((FromServer::Progress { answered }, _)) => Ok(Some(answered)),
            Some((other, _)) => Err(unexpected(&other)),
            None => Err(Error::new(Kind::System, "the server ended")),
        }
    }

    /// Has the server take no more requests: each of its threads leaves after the one that it waits for.
    pub fn drain(&mut self) -> Result<()> {
        match self.call(&ToServer::Drain, &[])? {
            FromServer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns the number of its threads that have not left yet, and requests that it has not answered.
    pub fn busy(&mut self) -> Result<u64> {
        match self.call(&ToServer::Drained, &[])? {
            FromServer::Left { busy } => Ok(busy),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns what the server has done for the containers in these slots. It waits for a moment only: a command that lists
    /// containers is to be answered also while the server hangs.
    ///
    /// # Errors
    /// When there is no answer in that time, or the server does not know the question.
    pub fn usage(&mut self, slots: Vec<u64>) -> Result<BTreeMap<u64, Usage>> {
        if self.owes_usage && !self.has_answer()? {
            return Err(late());
        }
        self.take_owed()?;
        let sent = self.link.send(&ToServer::Usage { slots }, &[]);
        sent.map_err(|error| Error::io("speak to", "the server", error))?;
        self.owes_usage = true;
        if !self.has_answer()? {
            return Err(late());
        }
        self.owes_usage = false;
        match self.answer()? {
            FromServer::Usage { containers } => Ok(containers.into_iter().collect()),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits for a moment, and returns whether the server has answered.
    fn has_answer(&self) -> Result<bool> {
        let mut poll = [PollFd::new(&self.link, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&MOMENT)));
        ready
            .map(|ready| ready > 0)
            .map_err(|error| Error::io("wait for", "the server", error))
    }

    /// Takes the answer to a question that nobody waits for any more.
    fn take_owed(&mut self) -> Result<()> {
        if self.owes_usage {
            self.answer()?;
            self.owes_usage = false;
        }
        Ok(())
    }

    /// Has the server forget a container.
    pub fn remove(&mut self, slot: u64) -> Result<()> {
        match self.call(&ToServer::Remove { slot }, &[])? {
            FromServer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Has the server begin to answer requests. With `resend`, the kernel sends those again that the server before this
    /// one had read and not answered.
    pub fn serve(&mut self, resend: bool) -> Result<()> {
        match self.call(&ToServer::Serve { resend }, &[])? {
            FromServer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Has the server tell what containers set these sysctls to, and ask for user namespaces.
    pub fn watch_host_sysctls(&mut self, tunables: Vec<HostSysctl>) -> Result<()> {
        let packet = ToServer::HostSysctls {
            tunables,
            user_namespaces: true,
        };
        match self.call(&packet, &[])? {
            FromServer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns true if it has closed its end of the link, as it does when it ends, or just before that is noticed.
    pub fn is_gone(&self) -> bool {
        let mut poll = [PollFd::new(&self.link, PollFlags::empty())];
        let hung_up = rustix::event::poll(&mut poll, Some(&Timespec::default()));
        hung_up.is_ok() && poll[0].revents().contains(PollFlags::HUP)
    }

    /// Returns the pidfd, which is readable when the server has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Returns its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns the daemon's end of the link.
    pub fn link(&self) -> &Channel {
        &self.link
    }

    /// Returns the broker's end of its channel.
    pub fn broker_channel(&self) -> Option<&OwnedFd> {
        self.broker_channel.as_ref()
    }

    /// Ends the server, whatever it is doing, and reaps it.
    pub fn kill(&mut self) {
        // Each can only fail because the server has ended already.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let mut poll = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let _ = rustix::event::poll(&mut poll, Some(&KILL_LIMIT));
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
    }

    /// Drops the value and lets the server live on: another daemon has it now.
    pub fn release(mut self) {
        self.released = true;
    }

    /// Sends one packet and returns the answer. A server that does not answer in time is ended: a later answer would be
    /// taken for that to another packet, and nobody knows what the server has taken of what it was told.
    fn call(&mut self, packet: &ToServer, fds: &[BorrowedFd<'_>]) -> Result<FromServer> {
        self.take_owed()?;
        let sent = self.link.send(packet, fds);
        sent.map_err(|error| Error::io("speak to", "the server", error))?;
        self.answer()
    }

    /// Returns the next answer.
    fn answer(&mut self) -> Result<FromServer> {
        match self.link.recv::<FromServer>() {
            Ok(Some((FromServer::Failed { why, errno }, _))) => {
                Err(Error::new(Kind::System, printable(&why)).with_errno(errno))
            }
            Ok(Some((answer, _))) => Ok(answer),
            Ok(None) => {
                Err(Error::new(Kind::System, "the server ended")
                    .remedy("see its log for the reason"))
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let threads = threads_of(self.pid);
                tracing::error!(threads, "the server does not answer its daemon: ending it");
                self.kill();
                Err(Error::new(
                    Kind::System,
                    "the server did not answer in time and was ended",
                )
                .remedy("try again: another one takes its place"))
            }
            Err(error) => {
                // What comes after rubbish would be taken for an answer to the next packet.
                if error.kind() == std::io::ErrorKind::InvalidData {
                    tracing::error!(%error, "the server answers with what is no answer: ending it");
                    self.kill();
                }
                Err(Error::io("speak to", "the server", error))
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.released {
            self.kill();
        }
    }
}

fn late() -> Error {
    Error::new(Kind::Busy, "the server does not tell what it has done").remedy("try again")
}

fn unexpected(answer: &FromServer) -> Error {
    let answer = printable(&format!("{answer:?}"));
    Error::refused(format!("the server answered out of turn: {answer}"))
}

/// Returns the words of a server as they may be logged and shown to a person: not too many, and without control characters.
fn printable(words: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    words.chars().take(MOST_WORDS).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_server_are_bounded_and_move_no_cursor() {
        assert_eq!(printable("no room\u{1b}[2J\nroot# "), "no room [2J root# ");
        assert_eq!(printable(&"x".repeat(100_000)).len(), MOST_WORDS);
    }
}
