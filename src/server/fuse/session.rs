//! Starting a session on a connection that may be in use already.
//!
//! The FUSE library insists on an INIT request, which the kernel sends once in the life of a connection. So a
//! session is always started on a socket pair:
//! 1. the INIT request that the daemon has kept is fed in at the other end,
//! 2. the answer is taken out there,
//! 3. `dup2` puts the `/dev/fuse` descriptor in the place of the socket.
//!
//! A first start and a takeover are thus the same code. The daemon decides what becomes of the answer.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use eci_fs_emulators::Host;
use eci_fs_protocol::link::Connection;
use fuser::{Config, Notifier, Session, SessionACL};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::adapter::Adapter;
use super::drain::Relay;
use super::init::{self, Negotiated};
use super::notifier::KernelNotifier;
use crate::server::fs::Dispatcher;

/// The most threads that serve one connection. There are half as many as can run at once, because the other half are
/// readers. With more, requests of one reader go to threads in turn, each of which has to be woken up, and finds little of
/// what it needs in its CPU's cache: an open on the live connection then takes a third longer.
const MAX_THREADS: usize = 8;

/// The name of the threads of the FUSE library, before their number.
const THREAD_NAME: &str = "fuser-";

/// The answer to an INIT request, as it goes to the kernel.
pub type InitReply = Vec<u8>;

/// A session that is ready to serve.
pub struct Prepared {
    session: Session<Adapter>,
    connection: Connection,
    notifier: Arc<KernelNotifier>,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

/// The two ends that all sessions share: requests go to the one, notifications come from the other.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Has requests answered.
    pub dispatcher: Arc<Dispatcher>,
    /// Tells the kernel things unasked.
    pub notifier: Arc<KernelNotifier>,
    /// The threads of a session.
    pub threads: usize,
}

/// Returns the number of threads of a session. It is asked before the server is confined, because it depends on quotas of its
/// cgroup.
pub fn threads() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .div_ceil(2)
        .min(MAX_THREADS)
}

/// Makes a session for `connection` on the `/dev/fuse` descriptor `fuse`. Nothing is read from it yet. `negotiated` is the
/// answer that `init` has got before.
///
/// # Errors
/// When the kept INIT request is not one.
pub fn prepare(
    backend: &Backend,
    connection: Connection,
    fuse: &OwnedFd,
    init: &[u8],
    negotiated: Negotiated<'_>,
) -> io::Result<(Prepared, InitReply)> {
    let (theirs, ours) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::send(&ours, init, SendFlags::NOSIGNAL)?;
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(backend.threads);
    // A request that was read through a cloned descriptor dies with the process.
    config.clone_fd = false;
    let session = Session::from_fd(
        Adapter::new(Arc::clone(&backend.dispatcher), connection),
        theirs,
        SessionACL::All,
        config,
    )?;
    let mut reply = vec![0; 4096];
    let (length, _) = rustix::net::recv(&ours, reply.as_mut_slice(), RecvFlags::DONTWAIT)?;
    reply.truncate(length);
    replace(session.as_fd().as_raw_fd(), fuse)?;
    Ok((
        Prepared {
            session,
            connection,
            notifier: Arc::clone(&backend.notifier),
        },
        init::reply(init, reply, negotiated),
    ))
}

impl Prepared {
    /// Tells the kernel things by this session from now on.
    pub fn notify(&self) {
        self.notifier.set(self.connection, self.session.notifier());
    }

    /// Serves on threads of its own. `ended` is called when the connection is no more, unless the session was drained.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn serve(self, ended: impl FnOnce() + Send + 'static) -> io::Result<Serving> {
        let Self {
            session,
            connection,
            ..
        } = self;
        let progress = Arc::new(Progress::default());
        let serving = Serving {
            number: session.as_fd().as_raw_fd(),
            _notifier: session.notifier(),
            relay: None,
            progress: Arc::clone(&progress),
        };
        std::thread::Builder::new()
            .name(connection.name().to_owned())
            .spawn(move || {
                let result = session.run();
                progress.over.store(true, Ordering::SeqCst);
                if progress.draining.load(Ordering::SeqCst) {
                    return;
                }
                if let Err(error) = result {
                    tracing::error!(%error, connection = connection.name(), "the session ended");
                }
                ended();
            })?;
        Ok(serving)
    }
}

/// A session that serves.
#[derive(Debug)]
pub struct Serving {
    /// The number of its descriptor, which [`Self::_notifier`] keeps open.
    number: RawFd,
    _notifier: Notifier,
    relay: Option<Arc<Relay>>,
    progress: Arc<Progress>,
}

/// The progress of a session.
#[derive(Debug, Default)]
struct Progress {
    draining: AtomicBool,
    over: AtomicBool,
}

impl Serving {
    /// Takes no more requests from the `/dev/fuse` descriptor `fuse`: each thread leaves after the one that it waits for.
    ///
    /// # Errors
    /// When there are no more descriptors or threads.
    pub fn drain(&mut self, fuse: &OwnedFd) -> io::Result<()> {
        if self.relay.is_some() {
            return Ok(());
        }
        let (relay, inert) = Relay::start(fuse.try_clone()?)?;
        self.progress.draining.store(true, Ordering::SeqCst);
        replace(self.number, &inert)?;
        self.relay = Some(relay);
        Ok(())
    }

    /// Returns whether a thread of the session has not left, or an answer is not with the kernel.
    pub fn is_busy(&self) -> bool {
        !self.progress.over.load(Ordering::SeqCst)
            || self.relay.as_ref().is_some_and(|relay| relay.is_busy())
    }
}

/// Returns the number of threads that serve sessions, drained ones included.
///
/// # Errors
/// When /proc cannot be read.
pub fn count_threads(host: &Host) -> Result<u64, eci_fs_emulators::Error> {
    let tasks = format!("/proc/{}/task", std::process::id());
    let mut count = 0;
    for thread in host.names(&tasks)? {
        // A thread that has left meanwhile has no name.
        let name = host
            .read_once(&format!("{tasks}/{thread}/comm"))
            .unwrap_or_default();
        count += u64::from(name.starts_with(THREAD_NAME.as_bytes()));
    }
    Ok(count)
}

/// Puts `fuse` in the place of a session's descriptor.
#[allow(
    unsafe_code,
    reason = "dup2 onto a descriptor that the library owns and only lends"
)]
fn replace(number: RawFd, fuse: &OwnedFd) -> io::Result<()> {
    // SAFETY: both descriptors are open for the call: `number` is that of a session, which is kept open by the
    // session itself or by its notifier in `Serving`. It stays valid and owned by the session: only what it refers
    // to changes, atomically. A safe dup2 wants to own its target, which the library does not give away.
    let result = unsafe { libc::dup3(fuse.as_raw_fd(), number, libc::O_CLOEXEC) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
