//! Starting a session on a connection that may be in use already.
//!
//! The FUSE library insists on an INIT request, which the kernel sends once in the life of a connection. So a
//! session is always started on a socket pair:
//! 1. the INIT request that the daemon has kept is fed in at the other end,
//! 2. the answer is taken out there,
//! 3. `dup2` puts the `/dev/fuse` descriptor in the place of the socket.
//!
//! A first start and a takeover are thus the same code; what is done with the answer is the daemon's business.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use eci_fs_mountd::protocol::link::Connection;
use fuser::{Config, INodeNo, Notifier, Session, SessionACL};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::adapter::Adapter;
use crate::tree::{NodeId, Tree};
use crate::workers::Workers;

/// Threads that serve one connection: as many as can run at once, but for very large machines.
const MAX_THREADS: usize = 8;

/// `FUSE_NOTIFY_RESEND` of include/uapi/linux/fuse.h (Linux 6.9).
const FUSE_NOTIFY_RESEND: i32 = 7;

/// The answer to an INIT request, as it goes to the kernel.
pub type Reply = Vec<u8>;

/// The kernel's side of a connection, to be told things unasked.
#[derive(Debug)]
pub struct Kernel {
    notifier: Notifier,
}

impl Kernel {
    /// Have it believe the attributes of a node no more. Its pages stay until it has asked: so nothing is waited
    /// for here that waits for this server.
    pub fn distrust(&self, id: NodeId) {
        if let Err(error) = self.notifier.inval_inode(INodeNo(id.raw()), -1, 0) {
            // ENOENT: it does not know the node, so there is nothing that it could believe.
            tracing::trace!(%error, "nothing to invalidate");
        }
    }
}

/// A session that is ready to serve.
pub struct Prepared {
    session: Session<Adapter>,
    connection: Connection,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

/// Make a session for `connection` on the `/dev/fuse` descriptor `fuse`. Nothing is read from it yet.
///
/// # Errors
/// When the kept INIT request is not one.
pub fn prepare(
    tree: Arc<Tree>,
    workers: Arc<Workers>,
    connection: Connection,
    fuse: OwnedFd,
    init: &[u8],
) -> io::Result<(Prepared, Reply, Kernel)> {
    let (theirs, ours) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::send(&ours, init, SendFlags::NOSIGNAL)?;
    let mut config = Config::default();
    config.acl = SessionACL::All;
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_THREADS);
    config.n_threads = Some(threads);
    // Never clone_fd: what was read through a cloned descriptor dies with the process.
    config.clone_fd = false;
    let session = Session::from_fd(
        Adapter::new(tree, workers, connection),
        theirs,
        SessionACL::All,
        config,
    )?;
    let mut reply = vec![0; 4096];
    let (length, _) = rustix::net::recv(&ours, reply.as_mut_slice(), RecvFlags::DONTWAIT)?;
    reply.truncate(length);
    replace(&session, &fuse)?;
    let kernel = Kernel {
        notifier: session.notifier(),
    };
    Ok((
        Prepared {
            session,
            connection,
        },
        reply,
        kernel,
    ))
}

impl Prepared {
    /// Serve, on threads of its own; `ended` is called when the connection is no more.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn serve(self, ended: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let Self {
            session,
            connection,
        } = self;
        std::thread::Builder::new()
            .name(connection.name().to_owned())
            .spawn(move || {
                if let Err(error) = session.run() {
                    tracing::error!(%error, connection = connection.name(), "the session ended");
                }
                ended();
            })?;
        Ok(())
    }
}

/// Put `fuse` where the session has its socket.
#[allow(
    unsafe_code,
    reason = "dup2 onto a descriptor that the library owns and only lends"
)]
fn replace(session: &Session<Adapter>, fuse: &OwnedFd) -> io::Result<()> {
    // SAFETY: both descriptors are open and borrowed for the call. The number stays valid and owned by the
    // session: only what it refers to changes, atomically, and no thread of the session runs yet. A safe dup2
    // wants to own its target, which the library does not give away.
    let result = unsafe {
        libc::dup3(
            fuse.as_raw_fd(),
            session.as_fd().as_raw_fd(),
            libc::O_CLOEXEC,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Have the kernel send again what a dead server had read and not answered. A kernel without this (before 6.9)
/// says EINVAL: then those requests are lost, and there is nothing that could be done about it here.
pub fn resend(fuse: &OwnedFd) -> io::Result<()> {
    // struct fuse_out_header { u32 len; i32 error; u64 unique; } with the code in `error` and no unique.
    let mut header = [0; 16];
    header[..4].copy_from_slice(&16u32.to_ne_bytes());
    header[4..8].copy_from_slice(&FUSE_NOTIFY_RESEND.to_ne_bytes());
    rustix::io::write(fuse, &header)?;
    Ok(())
}
