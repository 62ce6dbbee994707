//! Sockets in the runtime directory that root alone can connect to.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use eci_fs_protocol::error::{Error, Result};

/// Listens on `path`. The lock is held, so a socket that is there belongs to no daemon any more.
///
/// # Errors
/// When the socket that is there cannot be removed, or another cannot be made.
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
