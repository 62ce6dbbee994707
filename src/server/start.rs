//! From the first packet to a server that is ready to serve.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use eci_fs_emulators::Host;
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::link::{self, HELD, ToServer};

use super::{Held, Server, Sessions, prepare};
use crate::server::broker::BrokerClient;
use crate::server::container::{Watcher, view_settings};
use crate::server::fs::{Services, Tree};
use crate::server::fuse::{Kernel, Means, Unanswered};
use crate::server::host_sysctls::HostSysctls;
use crate::server::psi::Triggers;
use crate::server::sandbox;
use crate::server::state::State;
use crate::server::workers::Workers;

/// The descriptors of the first packet.
struct Given {
    fuse: [OwnedFd; 2],
    asks: OwnedFd,
    state: OwnedFd,
    held: Option<Held>,
}

/// Set the server up, and give up all privileges.
///
/// # Errors
/// When the packet is not what it must be; the words are for the daemon's log.
pub(super) fn start(first: ToServer, fds: Vec<OwnedFd>) -> io::Result<Server> {
    let ToServer::Start {
        version,
        init,
        settings,
        held,
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
    sandbox::confine()?;
    let state = Arc::new(State::open(given.state)?);
    let kernel = Arc::new(Kernel::default());
    let waking = Arc::clone(&kernel);
    let asks = Arc::new(BrokerClient::new(Channel::new(given.asks)));
    let triggers = Triggers::start(
        Arc::clone(&asks),
        Box::new(move |poll| waking.wake(poll)),
        Arc::clone(&state),
    )?;
    let tree = Tree::new(
        host,
        Some(Services {
            asks: Arc::clone(&asks),
            triggers: Arc::clone(&triggers),
            raises: HostSysctls::new(Arc::clone(&asks)),
            watcher: Watcher::new()?,
            state: Arc::clone(&state),
        }),
        view_settings(&settings),
        settings.padding,
        Duration::from_millis(settings.freshness_ms),
    );
    let means = Means {
        tree,
        workers: Workers::start()?,
        unanswered: Unanswered::default(),
        kernel,
    };
    let (sessions, replies) = prepare(&means, &given.fuse, &init)?;
    start_threads(&means)?;
    Ok(Server {
        means,
        asks,
        triggers,
        fuse: given.fuse,
        init,
        replies,
        settings,
        state,
        held: given.held,
        containers: BTreeMap::new(),
        sessions: Sessions::Prepared(sessions),
    })
}

/// Whether a daemon of this version can be spoken to.
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
    fn from(fds: Vec<OwnedFd>, held: u32) -> Option<Self> {
        let mut fds = fds.into_iter();
        let mut next = || fds.next();
        let given = Self {
            fuse: [next()?, next()?],
            asks: next()?,
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

/// The threads that live as long as the process, beside those of sessions.
fn start_threads(means: &Means) -> io::Result<()> {
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .map(drop)
    };
    let watched = Arc::clone(&means.tree);
    let changed = {
        let (tree, kernel) = (Arc::clone(&means.tree), Arc::clone(&means.kernel));
        move |slot| {
            for (connection, id) in tree.limited_nodes(slot) {
                kernel.distrust(connection, id);
            }
        }
    };
    spawn("limits", Box::new(move || watched.watch_for_ever(changed)))?;
    let sampled = Arc::clone(&means.tree);
    spawn("sampler", Box::new(move || sampled.sample_for_ever()))?;
    let raised = Arc::clone(&means.tree);
    spawn("raises", Box::new(move || raised.tell_for_ever()))
}
