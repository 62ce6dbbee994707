//! The origin of the connections: a server that lost its daemon, the service manager, or `/dev/fuse`.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::listen::listen;
use crate::broker::Broker;
use crate::connections::Connections;
use crate::container::procfs::Proc;
use crate::container::{has_ended, open_pidfd};
use crate::grafts::{Grafter, Origin};
use crate::persistent_descriptors::{HeldDescriptors, PersistentDescriptors};
use crate::runtime_dir::RuntimeDir;
use crate::service_manager::Stored;
use crate::supervisor::{HandedOver, Program, Server};
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::error::{Error, Result};

/// The origin of the connections, at the start of a daemon.
#[derive(Debug)]
pub(super) enum Connected {
    /// The connections have just been made.
    Anew,
    /// The connections are those of the daemon before, with the grafts in the containers.
    Before {
        /// The slots of the containers of the server that serves them; none when it has just been started.
        server: Option<BTreeSet<u64>>,
    },
}

/// The connections, and all that a daemon works with on them.
#[derive(Debug)]
pub(super) struct Inheritance {
    pub(super) connections: Connections,
    pub(super) grafter: Grafter,
    pub(super) descriptors: PersistentDescriptors,
    pub(super) server: Server,
    pub(super) connected: Connected,
}

/// The parts that a daemon has when it looks for connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) proc: &'a Arc<Proc>,
    pub(super) runtime: Option<&'a RuntimeDir>,
    pub(super) program: &'a Program,
    pub(super) broker: &'a Broker,
    pub(super) boot_id: &'a str,
}

/// The file in the runtime directory that says what was negotiated on the connections, for a daemon that finds these at
/// the service manager.
const FILE: &str = "connections.json";

/// The content of the file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Negotiated {
    boot_id: String,
    init: Vec<Vec<u8>>,
    replies: Vec<Vec<u8>>,
}

impl Found<'_> {
    /// Gets the connections from a server that lost its daemon, if one waits in the runtime directory; from the service
    /// manager, if it kept the descriptors; otherwise it makes them.
    ///
    /// # Errors
    /// When connections cannot be made, or a server cannot be started.
    pub(super) fn begin(self, stored: Option<Stored>) -> Result<Inheritance> {
        let Self {
            proc,
            runtime: Some(runtime),
            broker,
            ..
        } = self
        else {
            return self.anew();
        };
        match from_server(proc, runtime, broker) {
            Ok(Some(inheritance)) => return Ok(inheritance),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the server of the daemon before cannot be gone on with");
                end_orphan(proc, runtime);
            }
        }
        if let Some(stored) = stored {
            match self.with_stored(runtime, stored) {
                Ok(inheritance) => return Ok(inheritance),
                Err(error) => {
                    tracing::warn!(%error, "what the service manager kept cannot be gone on with");
                }
            }
        }
        self.anew()
    }

    fn with_stored(self, runtime: &RuntimeDir, stored: Stored) -> Result<Inheritance> {
        let text = runtime
            .read(FILE)?
            .ok_or_else(|| Error::not_found(format!("there is no {FILE}")))?;
        let negotiated: Negotiated = serde_json::from_str(&text)
            .map_err(|e| Error::io("understand", FILE, std::io::Error::from(e)))?;
        if negotiated.boot_id != self.boot_id {
            return Err(Error::refused(format!(
                "{FILE} was written before the machine was booted"
            )));
        }
        let Stored { fuse, state, held } = stored;
        let Negotiated { init, replies, .. } = negotiated;
        let mut connections = Connections::adopt(fuse, init, replies)?;
        let grafter = enter(self.proc, &held)?;
        let descriptors = PersistentDescriptors::kept(state, held)?;
        let server = Server::start(self.program, &mut connections, &descriptors, self.broker)?;
        tracing::info!("going on with the connections that the service manager kept");
        Ok(Inheritance {
            connections,
            grafter,
            descriptors,
            server,
            connected: Connected::Before { server: None },
        })
    }

    fn anew(self) -> Result<Inheritance> {
        let (mut connections, grafter) =
            Connections::open(|fuse| Grafter::start(Arc::clone(self.proc), Origin::Mount(fuse)))?;
        let held = match self.runtime {
            Some(runtime) => Some(HeldDescriptors {
                namespace: grafter.run(|mounts| mounts.namespace())?,
                rendezvous: listen(&runtime.rendezvous())?,
            }),
            None => None,
        };
        let descriptors = PersistentDescriptors::new(held)?;
        let server = Server::start(self.program, &mut connections, &descriptors, self.broker)?;
        if let Some(runtime) = self.runtime {
            let negotiated = Negotiated {
                boot_id: self.boot_id.to_owned(),
                init: connections.init(),
                replies: connections.replies(),
            };
            let text = serde_json::to_string(&negotiated)
                .map_err(|e| Error::io("encode", FILE, std::io::Error::from(e)))?;
            runtime.write(FILE, &text)?;
        }
        Ok(Inheritance {
            connections,
            grafter,
            descriptors,
            server,
            connected: Connected::Anew,
        })
    }
}

fn enter(proc: &Arc<Proc>, held: &HeldDescriptors) -> Result<Grafter> {
    let namespace = held
        .namespace
        .try_clone()
        .map_err(|e| Error::io("duplicate", "a namespace", e))?;
    Grafter::start(Arc::clone(proc), Origin::Namespace(namespace))
}

fn from_server(
    proc: &Arc<Proc>,
    runtime: &RuntimeDir,
    broker: &Broker,
) -> Result<Option<Inheritance>> {
    // The service manager may hold the socket of a server that has died: nobody would answer there.
    if has_ended_since(proc, runtime)? {
        return Ok(None);
    }
    let path = runtime.rendezvous();
    let found = Channel::connect(&path, None).map_err(|e| Error::io("connect to", &path, e))?;
    let Some(link) = found else {
        return Ok(None);
    };
    let (server, handed_over) = Server::adopt(link, broker)?;
    let HandedOver {
        connections,
        state,
        held,
        slots,
    } = handed_over;
    let grafter = enter(proc, &held)?;
    tracing::info!(
        server = server.pid(),
        containers = slots.len(),
        "going on with the server of the daemon before"
    );
    Ok(Some(Inheritance {
        connections,
        grafter,
        descriptors: PersistentDescriptors::kept(state, held)?,
        server,
        connected: Connected::Before {
            server: Some(slots.into_iter().collect()),
        },
    }))
}

/// Returns true if the server of the daemon before is known to have ended.
fn has_ended_since(proc: &Proc, runtime: &RuntimeDir) -> Result<bool> {
    let Some((pid, start_ticks)) = runtime.read_server()? else {
        return Ok(false);
    };
    let Ok(pidfd) = open_pidfd(pid) else {
        return Ok(true);
    };
    let other = proc
        .process(pid)
        .map_or(true, |process| process.start_ticks != start_ticks);
    // The process may not have been reaped yet.
    Ok(other || has_ended(pidfd.as_fd())?)
}

/// Ends a server that waits for a daemon and cannot be adopted. Its containers are grafted anew.
fn end_orphan(proc: &Proc, runtime: &RuntimeDir) {
    let ended = runtime.read_server().and_then(|noted| {
        let Some((pid, start_ticks)) = noted else {
            return Ok(());
        };
        let pidfd = open_pidfd(pid)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A daemon of another release reads it.
    #[test]
    fn the_bytes_of_what_was_negotiated_are_kept() {
        let negotiated = Negotiated {
            boot_id: "b".to_owned(),
            init: vec![vec![1], vec![2]],
            replies: vec![vec![3], vec![4]],
        };
        let bytes = r#"{"boot_id":"b","init":[[1],[2]],"replies":[[3],[4]]}"#;
        assert_eq!(serde_json::to_string(&negotiated).unwrap(), bytes);
        let read: Negotiated = serde_json::from_str(bytes).unwrap();
        assert_eq!(read, negotiated);
    }
}
