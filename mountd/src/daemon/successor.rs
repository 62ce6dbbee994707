//! A daemon that takes the place of one that runs.
//!
//! 1. The one that runs starts the other and hands it every descriptor; it does nothing more until it has an answer.
//! 2. The other looks at all of it, and says whether it can go on with that.
//! 3. If so, the first one answers the person who asked and ends without undoing anything. When it has ended, the
//!    other speaks to the server for the first time. If not, the first one goes on.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::inherit::{Connected, Inheritance};
use super::operations::Daemon;
use super::upgrade::{as_installed, release_of};
use crate::broker::Broker;
use crate::connections::Connections;
use crate::container::procfs::Proc;
use crate::grafts::place::{Grafter, Origin};
use crate::service_manager;
use crate::state_file;
use crate::supervisor::{Belongings, Legacy, Server};
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::control::Upgraded;
use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::handover::{Handover, Taken, VERSION};

/// How long the other daemon may take to look at what it is handed.
const LIMIT: Duration = Duration::from_secs(10);

/// Start the daemon at `path`, or the one that lies now where this one was started from, and hand everything to it.
/// After the answer this process ends.
///
/// # Errors
/// When it cannot be started, or cannot go on with what it is handed: then this one goes on.
pub(super) fn start(daemon: &Daemon, path: Option<PathBuf>) -> Result<Upgraded> {
    let stays = |error: Error| error.context("the daemon that runs goes on");
    let Some(handles) = &daemon.handles else {
        return Err(stays(Error::refused(
            "a daemon of a single command cannot be upgraded",
        )));
    };
    let path = match path {
        Some(path) => path,
        None => as_installed("/proc/self/exe".as_ref()).map_err(stays)?,
    };
    release_of(&path).map_err(stays)?;
    let mut state = daemon.state.lock();
    let pause = daemon.broker.pause();
    // What is written down is what the other one goes on with.
    if let Some(runtime) = &daemon.runtime {
        state.registry.write_whole(runtime).map_err(stays)?;
    }
    let (ours, theirs) = Channel::pair().map_err(|e| Error::io("make", "a socket pair", e))?;
    ours.set_timeout(Some(LIMIT))
        .map_err(|e| Error::io("set up", "a socket pair", e))?;
    let mut child = Command::new(&path)
        .args(arguments())
        .stdin(Stdio::from(theirs.into_inner()))
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| stays(Error::io("start", &path, e)))?;
    let pid = i32::try_from(child.id()).unwrap_or(0);
    let taken = state.server().map(|_| ()).and_then(|()| {
        hand_over(&ours, handles, &state).and_then(|()| {
            let answer = ours.recv::<Taken>();
            match answer.map_err(|e| Error::io("hear from", "the new daemon", e))? {
                Some((Taken::Yes { release }, _)) => Ok(release),
                Some((Taken::No { why }, _)) => Err(Error::refused(why)),
                None => Err(Error::refused("the new daemon ended; its log says why")),
            }
        })
    });
    match taken {
        Ok(release) => {
            if let Some(server) = state.server.take() {
                daemon.watch.forget(server.pidfd());
                server.release();
            }
            state.ending = true;
            // It waits for our end, which closes this. The server is answered by the other one.
            std::mem::forget((ours, pause));
            daemon.handed_over.store(true, Ordering::SeqCst);
            tracing::info!(pid, %release, "another daemon takes the place of this one");
            Ok(Upgraded { pid, release })
        }
        Err(error) => {
            // Both fail only when it has ended.
            let _ = child.kill();
            let _ = child.wait();
            Err(stays(error))
        }
    }
}

/// What a daemon keeps only to hand it over.
#[derive(Debug)]
pub(super) struct Handles {
    pub(super) lock: OwnedFd,
    pub(super) listener: OwnedFd,
}

/// Our own arguments, for the other one.
fn arguments() -> Vec<std::ffi::OsString> {
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--successor") {
        arguments.push("--successor".into());
    }
    arguments
}

fn hand_over(to: &Channel, handles: &Handles, state: &super::operations::State) -> Result<()> {
    let legacy = state.belongings.legacy.as_ref();
    let (Some(server), Some(legacy)) = (&state.server, legacy) else {
        return Err(Error::refused("there is nothing to hand over"));
    };
    let Some(answers) = server.answers() else {
        return Err(Error::refused("the server cannot ask"));
    };
    let packet = Handover {
        version: VERSION,
        init: state.connections.init(),
        replies: state.connections.replies(),
        server: server.pid(),
        slots: state.registry.iter().map(|(slot, _)| slot).collect(),
    };
    let [cached, live] = state.connections.descriptors();
    let fds = [
        handles.lock.as_fd(),
        handles.listener.as_fd(),
        cached,
        live,
        legacy.namespace.as_fd(),
        state.belongings.state.as_fd(),
        legacy.rendezvous.as_fd(),
        server.link().as_fd(),
        answers.as_fd(),
    ];
    to.send(&packet, &fds)
        .map_err(|e| Error::io("speak to", "the new daemon", e))
}

/// What the daemon that ran has handed over.
#[derive(Debug)]
pub(super) struct Predecessor {
    channel: Channel,
    pub(super) handles: Handles,
    packet: Handover,
    connections: Connections,
    belongings: Belongings,
    link: OwnedFd,
    answers: OwnedFd,
}

impl Predecessor {
    /// Hear from it, on standard input.
    ///
    /// # Errors
    /// When that is not what it must be.
    pub(super) fn hear() -> Result<Self> {
        let trouble = |e| Error::io("hear from", "the daemon that runs", e);
        let socket = rustix::stdio::stdin()
            .try_clone_to_owned()
            .map_err(trouble)?;
        // The copy that children would inherit: its end is how the other one knows that we are gone, and the reverse.
        super::standard_streams::let_go_of_input()?;
        let channel = Channel::new(socket);
        channel.set_timeout(Some(LIMIT)).map_err(trouble)?;
        let Some((packet, fds)) = channel.recv::<Handover>().map_err(trouble)? else {
            return Err(Error::refused("the daemon that runs said nothing"));
        };
        let this = Self::of(channel, packet, fds);
        match this {
            Ok(this) => Ok(this),
            Err((channel, error)) => {
                let why = error.to_string();
                // If it is not heard, our end is.
                let _ = channel.send(&Taken::No { why }, &[]);
                Err(error)
            }
        }
    }

    fn of(
        channel: Channel,
        packet: Handover,
        fds: Vec<OwnedFd>,
    ) -> std::result::Result<Self, (Channel, Error)> {
        if packet.version != VERSION {
            let versions = format!(
                "the daemon that runs speaks version {} of the handover, the new one version {VERSION}",
                packet.version
            );
            return Err((channel, Error::refused(versions)));
        }
        let Ok(fds) = <[OwnedFd; 9]>::try_from(fds) else {
            let error = Error::refused("the daemon that runs did not hand over all it has");
            return Err((channel, error));
        };
        let [
            lock,
            listener,
            cached,
            live,
            namespace,
            state,
            rendezvous,
            link,
            answers,
        ] = fds;
        let (init, replies) = (packet.init.clone(), packet.replies.clone());
        match Connections::adopt([cached, live], init, replies) {
            Ok(connections) => Ok(Self {
                channel,
                handles: Handles { lock, listener },
                packet,
                connections,
                belongings: Belongings {
                    state,
                    legacy: Some(Legacy {
                        namespace,
                        rendezvous,
                    }),
                },
                link,
                answers,
            }),
            Err(error) => Err((channel, error)),
        }
    }

    /// Say that we cannot go on in its place.
    pub(super) fn refuse(&self, error: &Error) {
        let why = error.to_string();
        // If it is not heard, our end is.
        let _ = self.channel.send(&Taken::No { why }, &[]);
    }

    /// Go on in its place, once it has ended.
    ///
    /// # Errors
    /// When we cannot; it goes on then.
    pub(super) fn take_over(
        self,
        proc: &Arc<Proc>,
        broker: &Broker,
    ) -> Result<(Inheritance, Handles)> {
        let Self {
            channel,
            handles,
            packet,
            connections,
            belongings,
            link,
            answers,
        } = self;
        let prepared = (|| {
            let legacy = belongings
                .legacy
                .as_ref()
                .ok_or_else(|| Error::refused("there is no namespace"))?;
            let namespace = legacy
                .namespace
                .try_clone()
                .map_err(|e| Error::io("duplicate", "a namespace", e))?;
            let grafter = Grafter::start(Arc::clone(proc), Origin::Namespace(namespace))?;
            let server = Server::over(Channel::new(link), packet.server, None)?;
            Ok((grafter, server))
        })();
        let (grafter, server) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                let error: Error = error;
                let why = error.to_string();
                let _ = channel.send(&Taken::No { why }, &[]);
                return Err(error);
            }
        };
        let release = format!("eci-mountd {}", env!("CARGO_PKG_VERSION"));
        let said = channel
            .send(&Taken::Yes { release }, &[])
            // Nobody answers any more: this is its end.
            .and_then(|()| channel.set_timeout(None))
            .and_then(|()| channel.recv::<Taken>());
        if let Err(error) = said
            && error.kind() != std::io::ErrorKind::ConnectionReset
        {
            server.release();
            return Err(Error::io("hear from", "the daemon that ran", error));
        }
        let server = server.answering(answers, broker)?;
        service_manager::ready();
        let inheritance = Inheritance {
            connections,
            grafter,
            belongings: Belongings {
                state: state_file::or_new(belongings.state)?,
                legacy: belongings.legacy,
            },
            server,
            connected: Connected::Before {
                server: Some(packet.slots.into_iter().collect()),
            },
        };
        Ok((inheritance, handles))
    }
}
