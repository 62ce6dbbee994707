//! Sockets in the runtime directory, for root alone, and who knocks there.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::operations::Daemon;
use super::serve_control;
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::control::{Answer, Response, VERSION};
use eci_fs_protocol::error::{Error, Result};

/// Control connections served at once; more are turned away, so that nobody can use up the threads.
const MAX_CONNECTIONS: usize = 128;

/// Listen on `path`. The lock is held, so a socket that is there belongs to nobody any more.
pub(super) fn listen(path: &Path) -> Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Ok(()) => tracing::info!(path = %path.display(), "removed the socket of a dead daemon"),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("remove the stale socket", path, e)),
    }
    let trouble = |e| Error::io("listen on", path, e);
    let address = SocketAddrUnix::new(path).map_err(trouble)?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(trouble)?;
    rustix::net::bind(&socket, &address).map_err(trouble)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|e| Error::io("set the mode of", path, e))?;
    rustix::net::listen(&socket, 64).map_err(trouble)?;
    Ok(socket)
}

/// A descriptor that is given up when there are no others, to turn somebody away who would knock for ever.
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

/// Say why somebody is not let in. That may come to nothing: the command then says that there was no answer.
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

/// Let somebody in, on a thread of its own.
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
            serve_control::serve(&daemon, &served, || daemon.watch.wake());
            held.fetch_sub(1, Ordering::Relaxed);
        });
    if let Err(error) = spawned {
        connections.fetch_sub(1, Ordering::Relaxed);
        tracing::warn!(%error, "a thread could not be started: a connection is turned away");
        turn_away(&channel, error);
    }
}
