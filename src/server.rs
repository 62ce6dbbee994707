//! The server process: hears from the daemon on the link, and serves both connections.
//!
//! It is started by the daemon only. Everything it works with comes to it as descriptors, so it opens nothing
//! by a container's name, and once it is set up it holds no privilege ([`crate::sandbox`]).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use eci_fs_emulators as emulators;
use eci_fs_emulators::Host;
use eci_fs_mountd::protocol::channel::Channel;
use eci_fs_mountd::protocol::link::{self, Connection, CpuIds, FromServer, Settings, ToServer};

use crate::container::{Attached, Changed, Watcher};
use crate::tree::{Services, Tree};
use crate::triggers::Triggers;
use crate::workers::Workers;
use crate::{fuse, sandbox};

/// Serve until the daemon closes the link. `link` is the server's end of it.
///
/// # Errors
/// When the first packet is not what it must be, or the connections cannot be served.
pub fn serve(link: OwnedFd) -> io::Result<()> {
    abort_on_panic();
    let link = Channel::new(link);
    let Some((first, fds)) = link.recv::<ToServer>()? else {
        return Ok(());
    };
    let mut server = match start(first, fds) {
        Ok((server, replies)) => {
            link.send(&FromServer::Started { replies }, &[])?;
            server
        }
        Err(error) => {
            link.send(
                &FromServer::Failed {
                    why: error.to_string(),
                },
                &[],
            )?;
            return Err(error);
        }
    };
    while let Some((packet, fds)) = link.recv::<ToServer>()? {
        let answer = server
            .answer(packet, fds)
            .unwrap_or_else(|why| FromServer::Failed { why });
        link.send(&answer, &[])?;
    }
    Ok(())
}

/// A thread that panics would leave a server that answers some requests and not others. The daemon starts another.
fn abort_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        tracing::error!(%info, "the server panicked");
        std::process::abort();
    }));
}

struct Server {
    tree: Arc<Tree>,
    fuse: Vec<OwnedFd>,
    /// Those that do not serve yet.
    sessions: Vec<fuse::Prepared>,
}

fn start(first: ToServer, fds: Vec<OwnedFd>) -> io::Result<(Server, Vec<Vec<u8>>)> {
    let ToServer::Start {
        version,
        init,
        settings,
    } = first
    else {
        return Err(io::Error::other("the daemon did not say how to start"));
    };
    if version != link::VERSION {
        return Err(io::Error::other(format!(
            "eci-mountd speaks version {version} of the link, eci-fs version {}: install both from one release",
            link::VERSION
        )));
    }
    let Ok([cached, live, asks]) = <[OwnedFd; 3]>::try_from(fds) else {
        return Err(io::Error::other(
            "the daemon did not hand over both connections and a channel",
        ));
    };
    let fds = [cached, live];
    if init.len() != fds.len() {
        return Err(io::Error::other(
            "the daemon did not hand over both INIT requests",
        ));
    }
    let host = Host::open().map_err(|error| io::Error::other(error.to_string()))?;
    sandbox::confine()?;
    let triggers = Triggers::start(Channel::new(asks))?;
    let tree = Tree::new(
        host,
        Some(Services {
            triggers,
            watcher: Watcher::new()?,
        }),
        view_settings(&settings),
        settings.padding,
        Duration::from_millis(settings.freshness_ms),
    );
    let kept = fds
        .iter()
        .map(OwnedFd::try_clone)
        .collect::<io::Result<_>>()?;
    let mut replies = Vec::new();
    let mut kernels = Vec::new();
    let workers = Workers::start()?;
    let mut sessions = Vec::new();
    for ((connection, fuse), init) in Connection::ALL.into_iter().zip(fds).zip(&init) {
        let (session, reply, kernel) = fuse::prepare(
            Arc::clone(&tree),
            Arc::clone(&workers),
            connection,
            fuse,
            init,
        )?;
        sessions.push(session);
        replies.push(reply);
        // Nothing is believed of a live node anyway.
        if connection == Connection::Cached {
            kernels.push(kernel);
        }
    }
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .map(drop)
    };
    let watched = Arc::clone(&tree);
    let changed: Changed = {
        let tree = Arc::clone(&tree);
        Box::new(move |slot| {
            for id in tree.cached_nodes(slot) {
                kernels.iter().for_each(|kernel| kernel.distrust(id));
            }
        })
    };
    spawn("limits", Box::new(move || watched.watch_for_ever(&changed)))?;
    let sampled = Arc::clone(&tree);
    spawn("sampler", Box::new(move || sampled.sample_for_ever()))?;
    Ok((
        Server {
            tree,
            fuse: kept,
            sessions,
        },
        replies,
    ))
}

/// The daemon's settings, as far as they change what views say.
pub fn view_settings(settings: &Settings) -> emulators::Settings {
    emulators::Settings {
        cpu_ids: match settings.cpu_ids {
            CpuIds::Physical => emulators::CpuIds::Physical,
            CpuIds::Dense => emulators::CpuIds::Dense,
        },
        host_clamp: settings.host_clamp,
    }
}

impl Server {
    fn answer(&mut self, packet: ToServer, fds: Vec<OwnedFd>) -> Result<FromServer, String> {
        match packet {
            ToServer::Start { .. } => Err("the server has started already".to_owned()),
            ToServer::Add {
                slot,
                secrets,
                facts,
            } => {
                let catalogue = self.tree.add(slot, Attached::new(&facts, &secrets, fds)?);
                Ok(FromServer::Added { catalogue })
            }
            ToServer::Remove { slot } => {
                self.tree.remove(slot);
                Ok(FromServer::Done)
            }
            ToServer::Serve { resend } => {
                for session in self.sessions.drain(..) {
                    // A connection without a session is a server that cannot be trusted to be one: the daemon starts
                    // another.
                    session
                        .serve(|| std::process::exit(1))
                        .map_err(|error| error.to_string())?;
                }
                for fuse in self.fuse.iter().filter(|_| resend) {
                    if let Err(error) = fuse::resend(fuse) {
                        tracing::warn!(%error, "requests of the dead server cannot be sent again");
                    }
                }
                Ok(FromServer::Done)
            }
        }
    }
}
