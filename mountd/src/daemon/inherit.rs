//! How a daemon comes by the connections: from a server that lost its daemon, or anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::listen::listen;
use crate::connections::Connections;
use crate::container::procfs::Proc;
use crate::error::{Error, Result};
use crate::grafts::place::{Grafter, Origin};
use crate::protocol::channel::Channel;
use crate::runtime_dir::RuntimeDir;
use crate::state_file;
use crate::supervisor::asks::PressureDirs;
use crate::supervisor::{Belongings, HandedOver, Legacy, Program, Server};

/// What is known of the connections at the start of a daemon.
#[derive(Debug)]
pub(super) enum Connected {
    /// They have just been made.
    Anew,
    /// They are those of the daemon before, with the grafts in the containers.
    Before {
        /// The containers of the server that serves them; none when it has just been started.
        server: Option<BTreeSet<u64>>,
    },
}

/// What a daemon works with.
#[derive(Debug)]
pub(super) struct Inheritance {
    pub(super) connections: Connections,
    pub(super) grafter: Grafter,
    pub(super) belongings: Belongings,
    pub(super) server: Server,
    pub(super) connected: Connected,
}

/// From a server that lost its daemon, if one waits in the runtime directory; anew otherwise.
///
/// # Errors
/// When connections cannot be made, or a server cannot be started.
pub(super) fn begin(
    proc: &Arc<Proc>,
    runtime: Option<&RuntimeDir>,
    program: &Program,
    pressure: &PressureDirs,
) -> Result<Inheritance> {
    if let Some(runtime) = runtime {
        match from_server(proc, runtime, pressure) {
            Ok(Some(inheritance)) => return Ok(inheritance),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the server of the daemon before cannot be gone on with");
                end_orphan(proc, runtime);
            }
        }
    }
    anew(proc, runtime, program, pressure)
}

fn from_server(
    proc: &Arc<Proc>,
    runtime: &RuntimeDir,
    pressure: &PressureDirs,
) -> Result<Option<Inheritance>> {
    let Some(link) = find_orphan(runtime)? else {
        return Ok(None);
    };
    let (server, handed_over) = Server::adopt(link, pressure)?;
    let HandedOver {
        connections,
        belongings: Belongings { state, legacy },
        slots,
    } = handed_over;
    let Some(legacy) = legacy else {
        return Err(Error::refused(
            "the server kept nothing for its next daemon",
        ));
    };
    let namespace = legacy
        .namespace
        .try_clone()
        .map_err(|e| Error::io("duplicate", "a namespace", e))?;
    let grafter = Grafter::start(Arc::clone(proc), Origin::Namespace(namespace))?;
    tracing::info!(
        server = server.pid(),
        containers = slots.len(),
        "going on with the server of the daemon before"
    );
    Ok(Some(Inheritance {
        connections,
        grafter,
        belongings: Belongings {
            state: state_file::or_new(state)?,
            legacy: Some(legacy),
        },
        server,
        connected: Connected::Before {
            server: Some(slots.into_iter().collect()),
        },
    }))
}

/// A connection to the server that waits for a daemon; none when none waits.
fn find_orphan(runtime: &RuntimeDir) -> Result<Option<Channel>> {
    let path = runtime.rendezvous();
    let trouble = |e: rustix::io::Errno| Error::io("connect to", &path, e);
    let address = SocketAddrUnix::new(&path).map_err(trouble)?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(trouble)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok(Some(Channel::new(socket))),
        // No socket, or one that nobody holds any more.
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED) => Ok(None),
        Err(e) => Err(trouble(e)),
    }
}

/// End a server that waits for a daemon but cannot be gone on with: what it serves is grafted anew.
fn end_orphan(proc: &Proc, runtime: &RuntimeDir) {
    let ended = runtime.read_server().and_then(|noted| {
        let Some((pid, start_ticks)) = noted else {
            return Ok(());
        };
        let pidfd = crate::container::open_pidfd(pid)?;
        if proc.process(pid)?.start_ticks != start_ticks {
            return Ok(());
        }
        rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL)
            .map_err(|e| Error::io("end", format!("process {pid}"), e))?;
        let mut poll = [rustix::event::PollFd::new(
            &pidfd,
            rustix::event::PollFlags::IN,
        )];
        rustix::event::poll(&mut poll, None)
            .map(drop)
            .map_err(|e| Error::io("wait for", format!("process {pid}"), e))
    });
    if let Err(error) = ended {
        tracing::warn!(%error, "the server of the daemon before may still run");
    }
}

fn anew(
    proc: &Arc<Proc>,
    runtime: Option<&RuntimeDir>,
    program: &Program,
    pressure: &PressureDirs,
) -> Result<Inheritance> {
    let (mut connections, grafter) = Connections::open(Arc::clone(proc))?;
    let legacy = match runtime {
        Some(runtime) => Some(Legacy {
            namespace: grafter.run(|place| place.namespace())?,
            rendezvous: listen(&runtime.rendezvous())?,
        }),
        None => None,
    };
    let belongings = Belongings {
        state: state_file::create()?,
        legacy,
    };
    let server = Server::start(program, &mut connections, &belongings, pressure)?;
    Ok(Inheritance {
        connections,
        grafter,
        belongings,
        server,
        connected: Connected::Anew,
    })
}
