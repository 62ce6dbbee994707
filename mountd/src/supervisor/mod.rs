//! The server process: started, spoken to, and started again when it has died.

mod catalogue;
mod threads;

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
pub(crate) use threads::threads_of;

use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::choices::Choices;
use eci_fs_protocol::error::{Error, Kind, Result};
use eci_fs_protocol::host_sysctl::HostSysctl;
use eci_fs_protocol::link::{self, FromServer, Row, Secrets, Settings, ToServer};

/// How long the server may take for one answer. It computes nothing slow in them.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long a process that was killed may take to be gone: it may be inside of the kernel.
const KILL_LIMIT: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// How to start a server.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable: `eci-fs`.
    pub path: PathBuf,
    /// What the views are set to.
    pub settings: Settings,
}

/// What a server without a daemon hands over to the next one.
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
    /// None for one that an earlier daemon started: it is reaped by whoever inherited it.
    child: Option<Child>,
    pid: i32,
    pidfd: OwnedFd,
    link: Channel,
    /// The daemon's end of the channel over which it asks, for the daemon that takes our place.
    broker_channel: Option<OwnedFd>,
    /// Whether it lives on when the value is dropped.
    released: bool,
}

impl Server {
    /// Start a server on the two connections. It answers nothing before [`Self::serve`].
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
        // It holds the server's end of the link, whose end is seen only when nobody does.
        drop(command);
        let pid = i32::try_from(child.id()).unwrap_or(0);
        let mut server = Self::over(ours, pid, Some(child))?;
        let (answers, asks) = Channel::pair().map_err(|e| Error::io("make", "a socket pair", e))?;
        server = server.answering(answers.into_inner(), broker)?;
        let [cached, live] = connections.for_server()?;
        let mut fds = vec![
            cached.as_fd(),
            live.as_fd(),
            asks.as_fd(),
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
        };
        match server.call(&start, &fds)? {
            FromServer::Started { replies } => connections.accept(replies)?,
            other => return Err(unexpected(&other)),
        }
        Ok(server)
    }

    /// Go on with a server whose daemon has died; `link` leads to its rendezvous.
    ///
    /// # Errors
    /// When it does not answer, is not what it must be, or hands over what cannot be the connections.
    pub fn adopt(link: Channel, broker: &Broker) -> Result<(Self, HandedOver)> {
        let trouble = |e: std::io::Error| Error::io("speak to", "the server without a daemon", e);
        link.ask_for_senders().map_err(trouble)?;
        link.set_timeout(Some(ANSWER_LIMIT)).map_err(trouble)?;
        let (answers, asks) = Channel::pair().map_err(|e| Error::io("make", "a socket pair", e))?;
        let adopt = ToServer::Adopt {
            version: link::VERSION,
        };
        link.send(&adopt, &[asks.as_fd()]).map_err(trouble)?;
        let packet = link
            .recv_signed::<FromServer>()
            .map_err(trouble)?
            .ok_or_else(|| {
                Error::refused("the server without a daemon speaks another version of the link")
            })?;
        let sender = packet.sender.filter(|sender| sender.uid == 0);
        let sender = sender
            .ok_or_else(|| Error::refused("what waits for a daemon is not a process of root's"))?;
        let FromServer::Held {
            init,
            replies,
            slots,
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
        let mut server = Self::over(link, sender.pid, None)?;
        // Only now is the pidfd that of the process which answers.
        server.ping()?;
        let server = server.answering(answers.into_inner(), broker)?;
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

    /// Answer what it asks at the other end of `answers`.
    ///
    /// # Errors
    /// When there are no more descriptors or threads.
    pub fn answering(mut self, answers: OwnedFd, broker: &Broker) -> Result<Self> {
        let kept = answers
            .try_clone()
            .map_err(|e| Error::io("duplicate", "a socket", e))?;
        broker.answer(Channel::new(answers))?;
        self.broker_channel = Some(kept);
        Ok(self)
    }

    /// A server that runs, at the other end of `link`.
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
            released: false,
        })
    }

    /// Hand over a container, with the pidfd of the process whose life is its; returns what can be grafted into it.
    pub fn add(
        &mut self,
        slot: u64,
        secrets: Secrets,
        described: &Described,
        choices: &Choices,
    ) -> Result<Vec<Row>> {
        let mut fds: Vec<BorrowedFd<'_>> = described.dirs.iter().map(AsFd::as_fd).collect();
        fds.push(described.subject.pidfd.as_fd());
        match self.call(
            &ToServer::Add {
                slot,
                secrets,
                facts: Box::new(described.facts.clone()),
                choices: choices.clone(),
            },
            &fds,
        )? {
            FromServer::Added { catalogue } => checked(catalogue),
            other => Err(unexpected(&other)),
        }
    }

    /// Have it know the names of a container that is going to come.
    pub fn expect(&mut self, slot: u64) -> Result<()> {
        match self.call(&ToServer::Expect { slot }, &[])? {
            FromServer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// What can be grafted into a container that it has.
    pub fn catalogue(&mut self, slot: u64) -> Result<Vec<Row>> {
        match self.call(&ToServer::Catalogue { slot }, &[])? {
            FromServer::Added { catalogue } => checked(catalogue),
            other => Err(unexpected(&other)),
        }
    }

    /// Hear whether it answers.
    pub fn ping(&mut self) -> Result<()> {
        match self.call(&ToServer::Ping, &[])? {
            FromServer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Have it take no more requests: each of its threads leaves after the one that it waits for.
    pub fn drain(&mut self) -> Result<()> {
        match self.call(&ToServer::Drain, &[])? {
            FromServer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// How many of its threads have not left yet, and requests that it has not answered.
    pub fn busy(&mut self) -> Result<u64> {
        match self.call(&ToServer::Drained, &[])? {
            FromServer::Left { busy } => Ok(busy),
            other => Err(unexpected(&other)),
        }
    }

    /// Let go of a container.
    pub fn remove(&mut self, slot: u64) -> Result<()> {
        match self.call(&ToServer::Remove { slot }, &[])? {
            FromServer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Begin to answer requests; with `resend`, have those sent again that the server before this one had read and
    /// not answered.
    pub fn serve(&mut self, resend: bool) -> Result<()> {
        match self.call(&ToServer::Serve { resend }, &[])? {
            FromServer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Have it tell what containers set these tunables to.
    pub fn watch_host_sysctls(&mut self, tunables: Vec<HostSysctl>) -> Result<()> {
        match self.call(&ToServer::HostSysctls { tunables }, &[])? {
            FromServer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether it has closed its end of the link, as it does when it ends, or just before that is noticed.
    pub fn is_gone(&self) -> bool {
        let mut poll = [PollFd::new(&self.link, PollFlags::empty())];
        let hung_up = rustix::event::poll(&mut poll, Some(&Timespec::default()));
        hung_up.is_ok() && poll[0].revents().contains(PollFlags::HUP)
    }

    /// Readable when the server has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The daemon's end of the link.
    pub fn link(&self) -> &Channel {
        &self.link
    }

    /// The daemon's end of the channel over which the server asks.
    pub fn broker_channel(&self) -> Option<&OwnedFd> {
        self.broker_channel.as_ref()
    }

    /// End it, whatever it is doing, and reap it.
    pub fn kill(&mut self) {
        // Each can only fail because it has ended already.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let mut poll = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let _ = rustix::event::poll(&mut poll, Some(&KILL_LIMIT));
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
    }

    /// Let it live on: another daemon has it now.
    pub fn release(mut self) {
        self.released = true;
    }

    /// One question and its answer. A server that does not answer in time is ended: what it says later would be taken
    /// for the answer to another question, and of what it was told nobody knows what it has taken.
    fn call(&mut self, packet: &ToServer, fds: &[BorrowedFd<'_>]) -> Result<FromServer> {
        let sent = self.link.send(packet, fds);
        match sent.and_then(|()| self.link.recv::<FromServer>()) {
            Ok(Some((FromServer::Failed { why, errno }, _))) => {
                Err(Error::new(Kind::System, why).with_errno(errno))
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
            Err(error) => Err(Error::io("speak to", "the server", error)),
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

fn unexpected(answer: &FromServer) -> Error {
    Error::refused(format!("the server answered out of turn: {answer:?}"))
}
