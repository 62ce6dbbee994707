//! Control connections: they are accepted, and each is served by a thread of its own.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::control;
use super::daemon::Daemon;
use crate::{faults, threads};
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::control::{Answer, Response, VERSION};
use eci_fs_protocol::error::{Error, Result};

/// Control connections served at once; more are turned away, so that nobody can use up the threads.
const MAX_CONNECTIONS: usize = 128;

/// A descriptor that is given up when there are no others, so that a command can be turned away that would wait for ever.
pub(super) struct Reserve {
    held: Option<std::fs::File>,
}

impl Default for Reserve {
    fn default() -> Self {
        Self {
            held: std::fs::File::open("/dev/null").ok(),
        }
    }
}

impl Reserve {
    fn turn_away(&mut self, listener: &OwnedFd, why: Errno) {
        self.held = None;
        if let Ok(socket) = rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
            turn_away(&Channel::new(socket), why.into());
        }
        *self = Self::default();
    }
}

/// Tells a command why it is turned away. If that fails, the command says that there was no answer.
fn turn_away(channel: &Channel, why: std::io::Error) {
    let error = Error::io("serve", "this command", why)
        .remedy("eci-mountd has reached a limit: see its log, and raise the limit");
    let answer = Answer {
        version: VERSION,
        response: Response::Failed(error),
    };
    if let Err(error) = channel.send(&answer, &[]) {
        tracing::debug!(%error, "ignoring");
    }
}

/// Accepts the next connection, and serves it on a thread of its own.
pub(super) fn accept(
    daemon: &Arc<Daemon>,
    listener: &OwnedFd,
    connections: &Arc<AtomicUsize>,
    reserve: &mut Reserve,
) {
    let socket = match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
        Ok(socket) => socket,
        Err(error @ (Errno::MFILE | Errno::NFILE)) => {
            tracing::error!(%error, "a control connection is turned away");
            return reserve.turn_away(listener, error);
        }
        Err(error) => return tracing::warn!(%error, "a connection could not be accepted, ignoring"),
    };
    if connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
        connections.fetch_sub(1, Ordering::Relaxed);
        return tracing::warn!(
            MAX_CONNECTIONS,
            "too many control connections: one is turned away"
        );
    }
    let channel = Arc::new(Channel::new(socket));
    let (daemon, held) = (Arc::clone(daemon), Arc::clone(connections));
    let served = Arc::clone(&channel);
    let spawned = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            let served = threads::guard("control", || {
                faults::at("control");
                control::serve(&daemon, &served, || daemon.containers.events.wake());
            })
            .map_err(|error| (error, served));
            if let Err((error, channel)) = served {
                let response = Response::Failed(error);
                // A command that does not hear it says that there was no answer.
                let _ = channel.send(
                    &Answer {
                        version: VERSION,
                        response,
                    },
                    &[],
                );
            }
            held.fetch_sub(1, Ordering::Relaxed);
        });
    if let Err(error) = spawned {
        connections.fetch_sub(1, Ordering::Relaxed);
        tracing::warn!(%error, "a thread could not be started: a connection is turned away");
        turn_away(&channel, error);
    }
}

/// Serves the command that started a private daemon, and ends the daemon with it.
///
/// # Errors
/// When there are no more descriptors or threads.
pub(super) fn serve_standard_input(daemon: &Arc<Daemon>) -> Result<()> {
    let socket = rustix::stdio::stdin()
        .try_clone_to_owned()
        .map_err(|e| Error::io("duplicate", "standard input", e))?;
    let daemon = Arc::clone(daemon);
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            // The daemon ends with its command, whatever the reason.
            let _ = threads::guard("control", || {
                control::serve(&daemon, &Channel::new(socket), || {});
            });
            daemon.end.set_over();
            daemon.containers.events.wake();
        })
        .map(drop)
        .map_err(|e| Error::io("start", "a thread", e))
}
