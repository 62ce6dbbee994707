//! The server process: it hears from the daemon on the link, and serves both connections.
//!
//! Only the daemon starts it. It gets everything that it works with as descriptors, so it opens nothing by a container's
//! name, and once it is set up it holds no privilege ([`crate::server::sandbox`]).
//!
//! When its daemon dies it serves on, and waits for the next one (`orphan.rs`).
//!
//! A folder uses only those below it: this file with `start.rs` and `orphan.rs`, `fuse`, `fs`, `psi` and `host_sysctls`,
//! `container`, `state`, `ids`, and last `broker`, `workers`, `account`, `in_flight`, `progress`, `sandbox`, `faults`,
//! `clock`, `budget` and `error`.

pub mod account;
pub mod broker;
pub mod budget;
pub mod clock;
pub mod container;
pub mod error;
pub mod faults;
pub mod fs;
pub mod fuse;
pub mod host_sysctls;
pub mod ids;
pub mod in_flight;
mod orphan;
pub mod progress;
pub mod psi;
pub mod sandbox;
pub mod sched_setattr;
mod start;
pub mod state;
mod threads;
pub mod workers;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use eci_fs_protocol::channel::{Channel, Fault};
use eci_fs_protocol::link::{Connection, FromServer, SLOTS, Settings, ToServer};

use crate::server::broker::BrokerClient;
use crate::server::container::Attached;
use crate::server::fs::FileSystem;
use crate::server::in_flight::InFlight;
use crate::server::progress::Progress;
use crate::server::psi::Triggers;
use crate::server::sandbox::HostFiles;
use crate::server::state::State;
use crate::server::workers::Workers;

/// Serves until there is neither a daemon nor a container. `link` is the server's end of the link.
///
/// # Errors
/// When the first packet is not what it must be, or the connections cannot be served.
pub fn serve(link: OwnedFd) -> io::Result<()> {
    abort_on_panic();
    faults::arm();
    let mut link = Channel::new(link);
    let Some((first, fds)) = link.recv::<ToServer>()? else {
        return Ok(());
    };
    let mut server = match start::start(first, fds) {
        Ok(server) => {
            let replies = server.replies.clone();
            let started = FromServer::Started {
                replies,
                generations: true,
            };
            link.send(&started, &[])?;
            server
        }
        Err(error) => {
            link.send(
                &FromServer::Failed {
                    why: error.to_string(),
                    errno: error.raw_os_error(),
                },
                &[],
            )?;
            return Err(error);
        }
    };
    loop {
        server.follow(&link);
        match server.wait_for_daemon()? {
            Some(next) => link = next,
            None => return Ok(()),
        }
    }
}

/// Has the process end when a thread panics: the server would answer some requests and not others. The daemon starts
/// another.
fn abort_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        tracing::error!(%info, "the server panicked");
        std::process::abort();
    }));
}

/// The server, as the daemon speaks to it.
struct Server {
    fs: Arc<FileSystem>,
    backend: fuse::Backend,
    in_flight: InFlight,
    progress: Progress,
    workers: Arc<Workers>,
    broker: Arc<BrokerClient>,
    triggers: Arc<Triggers>,
    /// The descriptors that it serves by, in the order of [`Connection::ALL`].
    fuse: [OwnedFd; 2],
    /// The INIT requests, in the same order.
    init: Vec<Vec<u8>>,
    /// The answers to them, in the same order.
    replies: Vec<Vec<u8>>,
    settings: Settings,
    state: Arc<State>,
    /// The descriptors that it keeps for the next daemon.
    held: Option<Held>,
    /// What the server may read of the host. Landlock knows the files of procfs by these descriptors.
    _host_files: HostFiles,
    /// The process of each container, by slot.
    containers: BTreeMap<u64, OwnedFd>,
    sessions: Sessions,
}

/// Descriptors that the server keeps for the next daemon, and does not use.
struct Held {
    fuse: [OwnedFd; 2],
    namespace: OwnedFd,
    rendezvous: OwnedFd,
}

/// The sessions, one for each connection.
enum Sessions {
    /// The sessions do not serve yet.
    Prepared(Vec<fuse::Prepared>),
    /// The sessions take requests.
    Serving(Vec<fuse::Serving>),
    /// The sessions take no more requests.
    Draining(Vec<fuse::Serving>),
}

impl Server {
    /// Does what the daemon says until the link ends.
    fn follow(&mut self, link: &Channel) {
        loop {
            let answer = match link.recv::<ToServer>() {
                Ok(Some((packet, fds))) => self
                    .answer(packet, fds)
                    .unwrap_or_else(|why| FromServer::Failed { why, errno: None }),
                Ok(None) => return,
                // The daemon waits for an answer to a packet that did not come whole.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => FromServer::Failed {
                    why: format!("the server cannot take what it is told: {error}"),
                    errno: Fault::of(&error).and_then(Fault::errno),
                },
                Err(error) => return tracing::warn!(%error, "the link to the daemon broke"),
            };
            if let Err(error) = link.send(&answer, &[]) {
                return tracing::warn!(%error, "the link to the daemon broke");
            }
        }
    }

    fn answer(&mut self, packet: ToServer, mut fds: Vec<OwnedFd>) -> Result<FromServer, String> {
        let fs = &self.fs;
        match packet {
            ToServer::Start { .. } | ToServer::Adopt { .. } => {
                return Err("the server has a daemon already".to_owned());
            }
            ToServer::Add {
                slot,
                secrets,
                facts,
                choices,
                process,
            } => {
                faults::at(faults::Point::Add);
                let pidfd = fds.pop().ok_or("a container came without its pidfd")?;
                check_slot(slot)?;
                let mut attached = Attached::new(&facts, &secrets, fds)?;
                attached.choose(&choices, fs.settings());
                attached.process = process.or_else(|| fs.pid_behind(&pidfd));
                attached.uid_map = fs.uid_map_of(attached.process);
                let catalogue = fs.add(slot, attached);
                self.containers.insert(slot, pidfd);
                return Ok(FromServer::Added { catalogue });
            }
            ToServer::Expect { slot, generation } => {
                check_slot(slot)?;
                fs.prepare(slot, generation);
            }
            ToServer::Usage { slots } => {
                let usage = |slot: u64| Some((slot, fs.usage(slot)?));
                let containers = slots.into_iter().filter_map(usage).collect();
                return Ok(FromServer::Usage { containers });
            }
            ToServer::Remove { slot } => self.remove(slot),
            ToServer::Catalogue { slot } => {
                faults::at(faults::Point::Catalogue);
                let catalogue = fs
                    .catalogue_of(slot)
                    .map_err(|_| format!("there is no container in slot {slot}"))?;
                return Ok(FromServer::Added { catalogue });
            }
            ToServer::Ping => {}
            ToServer::Progress => {
                let answered = self.progress.counts();
                return Ok(FromServer::Progress { answered });
            }
            ToServer::HostSysctls {
                tunables,
                user_namespaces,
            } => {
                fs.raise(tunables);
                fs.ask_for_user_namespaces(user_namespaces);
            }
            ToServer::Serve { resend } => self.begin(resend)?,
            ToServer::Drain => self.drain()?,
            ToServer::Drained => {
                let busy = self.busy()?;
                return Ok(FromServer::Left { busy });
            }
        }
        Ok(FromServer::Done)
    }

    fn remove(&mut self, slot: u64) {
        self.fs.remove(slot);
        self.containers.remove(&slot);
    }

    /// Begins to answer requests, for the first time or after the sessions were drained.
    fn begin(&mut self, resend: bool) -> Result<(), String> {
        let says = |error: io::Error| error.to_string();
        if matches!(self.sessions, Sessions::Serving(_)) {
            return Err("the server serves already".to_owned());
        }
        if !self.fs.begin().map_err(says)? {
            return Err("another server serves these connections".to_owned());
        }
        let taken = std::mem::replace(&mut self.sessions, Sessions::Serving(Vec::new()));
        let prepared = match taken {
            Sessions::Prepared(prepared) => prepared,
            Sessions::Serving(_) | Sessions::Draining(_) => {
                let replies = Some(self.replies.as_slice());
                prepare(&self.backend, &self.fuse, &self.init, replies)
                    .map_err(says)?
                    .0
            }
        };
        self.workers.hurry(false);
        prepared.iter().for_each(fuse::Prepared::notify);
        // The server before this one may have had other settings. Its attributes would not fit the texts of this one.
        let slots = self.containers.keys();
        slots.for_each(|slot| self.fs.distrust(*slot));
        // This comes before anything is read: a request that this server has read itself would come to it twice.
        for fuse in self.fuse.iter().filter(|_| resend) {
            if let Err(error) = fuse::resend(fuse) {
                tracing::warn!(%error, "requests of the dead server cannot be sent again");
            }
        }
        let mut serving = Vec::new();
        for session in prepared {
            // A connection without a session is a server that cannot be trusted to be one: the daemon starts another,
            // and if there is none, there are no mounts any more either.
            let session = session.serve(|| std::process::exit(1)).map_err(says)?;
            serving.push(session);
        }
        self.sessions = Sessions::Serving(serving);
        Ok(())
    }

    /// Has the sessions take no more requests.
    fn drain(&mut self) -> Result<(), String> {
        match std::mem::replace(&mut self.sessions, Sessions::Draining(Vec::new())) {
            Sessions::Prepared(prepared) => {
                self.sessions = Sessions::Prepared(prepared);
                Err("the server does not serve yet".to_owned())
            }
            Sessions::Serving(mut sessions) | Sessions::Draining(mut sessions) => {
                let drained = sessions
                    .iter_mut()
                    .zip(&self.fuse)
                    .try_for_each(|(session, fuse)| session.drain(fuse));
                self.sessions = Sessions::Draining(sessions);
                // What waits for its container's share is answered now.
                self.workers.hurry(true);
                drained.map_err(|error| error.to_string())
            }
        }
    }

    /// Returns the number of session threads that have not left and of requests that are not answered. When it is 0,
    /// another server may serve.
    fn busy(&mut self) -> Result<u64, String> {
        let Sessions::Draining(sessions) = &self.sessions else {
            return Err("the server was not told to leave".to_owned());
        };
        let threads = fuse::count_threads(self.fs.host()).map_err(|error| error.to_string())?;
        let in_flight = self.in_flight.count();
        // The sessions are looked at last, so that an answer is seen which a thread or a worker gave before it was gone.
        let sessions = sessions.iter().filter(|session| session.is_busy()).count();
        let busy = (threads + in_flight).max(sessions as u64);
        if busy == 0 {
            self.fs.end();
            self.state.end().map_err(|error| error.to_string())?;
        }
        Ok(busy)
    }
}

/// Checks that a node id has room for a slot: one that is too large would be that of another container.
fn check_slot(slot: u64) -> Result<(), String> {
    match (1..SLOTS).contains(&slot) {
        true => Ok(()),
        false => Err(format!(
            "{slot} is no slot: these are the numbers from 1 to {}",
            SLOTS - 1
        )),
    }
}

/// Returns a session for each connection, and the answers to the INIT requests. `given` are the answers that these have
/// got; none from a daemon of version 0.1.0.
fn prepare(
    backend: &fuse::Backend,
    fuse: &[OwnedFd; 2],
    init: &[Vec<u8>],
    given: Option<&[Vec<u8>]>,
) -> io::Result<(Vec<fuse::Prepared>, Vec<Vec<u8>>)> {
    let mut sessions = Vec::new();
    let mut replies = Vec::new();
    let each = Connection::ALL.into_iter().zip(fuse).zip(init);
    for (index, ((connection, fuse), init)) in each.enumerate() {
        let wanted = match given.map(|given| given.get(index)) {
            None => fuse::Negotiated::Before,
            Some(None) => fuse::Negotiated::Nothing,
            Some(Some(reply)) => fuse::Negotiated::Reply(reply),
        };
        let (session, reply) = fuse::prepare(backend, connection, fuse, init, wanted)?;
        sessions.push(session);
        replies.push(reply);
    }
    Ok((sessions, replies))
}

impl Held {
    /// Returns what is handed to the next daemon, in the order of [`FromServer::Held`].
    fn hand_over<'a>(&'a self, state: &'a State) -> [BorrowedFd<'a>; 5] {
        let [cached, live] = &self.fuse;
        [
            cached.as_fd(),
            live.as_fd(),
            self.namespace.as_fd(),
            state.file().as_fd(),
            self.rendezvous.as_fd(),
        ]
    }
}
