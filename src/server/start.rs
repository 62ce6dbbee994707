//! The start: from the first packet to a server that is ready to serve.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eci_fs_emulators::Host;
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::link::{self, HELD, ToServer};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::{Held, Server, Sessions, prepare, sched_setattr, threads};
use crate::server::broker::BrokerClient;
use crate::server::container::{Watcher, view_settings};
use crate::server::fs::{Dispatcher, FileSystem, KernelCache, Services};
use crate::server::fuse::{self, Backend, KernelBacklog, KernelNotifier};
use crate::server::host_sysctls::HostSysctls;
use crate::server::in_flight::InFlight;
use crate::server::progress::Progress;
use crate::server::psi::{TriggerSet, Triggers};
use crate::server::sandbox::{self, HostFiles, User};
use crate::server::state::State;
use crate::server::workers::Workers;

/// The time that a reader of a file which only root may read waits for the daemon.
const PATIENCE: Duration = Duration::from_secs(2);

/// The descriptors of the first packet.
struct Given {
    fuse: [OwnedFd; 2],
    broker: OwnedFd,
    state: OwnedFd,
    held: Option<Held>,
}

/// Sets the server up, and gives up all privileges.
///
/// # Errors
/// When the packet is not what it must be; the words are for the daemon's log.
pub(super) fn start(first: ToServer, fds: Vec<OwnedFd>) -> io::Result<Server> {
    let ToServer::Start {
        version,
        init,
        settings,
        held,
        replies,
        broker: knows,
    } = first
    else {
        return Err(io::Error::other("the daemon did not say how to start"));
    };
    check_version(version).map_err(io::Error::other)?;
    let given = Given::from(fds, held).ok_or_else(|| {
        io::Error::other("the daemon did not hand over the descriptors that it said")
    })?;
    if init.len() != given.fuse.len() {
        return Err(io::Error::other(
            "the daemon did not hand over both INIT requests",
        ));
    }
    let host = Host::open().map_err(|error| io::Error::other(error.to_string()))?;
    // The filter of system calls has no getrlimit(2).
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let files = HostFiles::open()?;
    let host = files.give(host)?;
    let readers = fuse::threads();
    // All threads inherit it.
    if let Err(error) = sched_setattr::read_requests() {
        tracing::warn!(%error, "requests wait longer on a busy host, ignoring");
    }
    sandbox::become_user(User::beside(knows))?;
    let watcher = Watcher::new()?;
    let set = TriggerSet::new()?;
    sandbox::confine(&files)?;
    let state = Arc::new(State::open(given.state)?);
    let notifier = Arc::new(KernelNotifier::default());
    let waking = Arc::clone(&notifier);
    let broker = Arc::new(BrokerClient::new(Channel::new(given.broker), knows));
    let asking = Arc::clone(&broker);
    host.set_read_as_root(Box::new(move |path| read_as_root(&asking, path)));
    let triggers = Triggers::start(
        set,
        Arc::clone(&broker),
        Box::new(move |poll| waking.wake(poll)),
        Arc::clone(&state),
        descriptors,
    )?;
    let in_flight = InFlight::default();
    let kernel: Arc<dyn KernelCache> = Arc::clone(&notifier) as _;
    let fs = FileSystem::new(
        host,
        Some(Services {
            broker: Arc::clone(&broker),
            triggers: Arc::clone(&triggers),
            host_sysctls: HostSysctls::new(Arc::clone(&broker)),
            watcher,
            state: Arc::clone(&state),
            kernel,
            in_flight: in_flight.clone(),
        }),
        view_settings(&settings),
        Duration::from_millis(settings.freshness_ms),
    );
    fs.set_share(settings.cpu_share);
    let counting = Arc::clone(&fs);
    let workers = Workers::start(Box::new(move || threads::wants_cpu(counting.host())))?;
    let progress = Progress::default();
    let dispatcher = Dispatcher::new(
        Arc::clone(&fs),
        Arc::clone(&workers),
        Arc::new(KernelBacklog::new(&given.fuse)?),
        in_flight.clone(),
        progress.clone(),
    );
    let backend = Backend {
        dispatcher: Arc::new(dispatcher),
        notifier,
        threads: readers,
    };
    let (sessions, replies) = prepare(&backend, &given.fuse, &init, replies.as_deref())?;
    start_threads(&fs)?;
    Ok(Server {
        fs,
        backend,
        in_flight,
        progress,
        workers,
        broker,
        triggers,
        fuse: given.fuse,
        init,
        replies,
        settings,
        state,
        held: given.held,
        _host_files: files,
        containers: BTreeMap::new(),
        sessions: Sessions::Prepared(sessions),
    })
}

/// Reads a file of the host that only root may read.
fn read_as_root(broker: &BrokerClient, path: &str) -> Result<Vec<u8>, Errno> {
    let read = broker.read_as_root(path, Instant::now() + PATIENCE);
    read.map_err(|error| Errno::from_raw_os_error(error.0))
}

/// Checks that a daemon of this version can be spoken to.
///
/// # Errors
/// In words, when it cannot.
pub(super) fn check_version(version: u32) -> Result<(), String> {
    if version == link::VERSION {
        return Ok(());
    }
    Err(format!(
        "eci-mountd speaks version {version} of the link, eci-fs version {}: install both from one release",
        link::VERSION
    ))
}

impl Given {
    /// Returns the descriptors by their meaning; none when they are not as many as there must be.
    fn from(fds: Vec<OwnedFd>, held: u32) -> Option<Self> {
        let mut fds = fds.into_iter();
        let mut next = || fds.next();
        let given = Self {
            fuse: [next()?, next()?],
            broker: next()?,
            state: next()?,
            held: match held {
                0 => None,
                HELD => Some(Held {
                    fuse: [next()?, next()?],
                    namespace: next()?,
                    rendezvous: next()?,
                }),
                _ => return None,
            },
        };
        fds.next().is_none().then_some(given)
    }
}

/// Starts the threads that live as long as the process, beside those of sessions.
fn start_threads(fs: &Arc<FileSystem>) -> io::Result<()> {
    let spawn = |name: &str, work: fn(&FileSystem)| {
        let fs = Arc::clone(fs);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&fs))
            .map(drop)
    };
    spawn("limits", FileSystem::watch_forever)?;
    spawn("sampler", FileSystem::sample_forever)?;
    spawn("host-sysctls", FileSystem::report_forever)
}
