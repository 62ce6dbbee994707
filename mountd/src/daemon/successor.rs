//! A daemon that takes the place of the one that runs: the side of the one that runs.
//!
//! 1. The one that runs starts its successor and hands it every descriptor. It does nothing more until it has an answer.
//! 2. The successor checks all of it, and says whether it can go on with that.
//! 3. If so, the first one answers the command and ends without undoing anything. When it has ended, the successor
//!    speaks to the server for the first time. If not, the first one goes on.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::daemon::{ControlEndpoint, Daemon};
use super::installed::{as_installed, release_of};
use super::state::DaemonState;
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::control::Upgraded;
use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::handover::{Handover, Taken, VERSION};

/// The time that the successor has to check what it is handed.
const LIMIT: Duration = Duration::from_secs(10);

/// Starts the daemon at `path`, or the one that lies now where this one was started from, and hands everything to it.
/// After the answer this process ends.
///
/// # Errors
/// When it cannot be started, or cannot go on with what it is handed: then this one goes on.
pub(super) fn start(daemon: &Daemon, path: Option<PathBuf>) -> Result<Upgraded> {
    let result = replace(daemon, path);
    result
        .map_err(|error| error.context("the daemon that runs goes on"))
        .inspect_err(|error| tracing::error!(%error, "no other daemon takes the place of this one"))
}

fn replace(daemon: &Daemon, path: Option<PathBuf>) -> Result<Upgraded> {
    let Some(endpoint) = &daemon.endpoint else {
        return Err(Error::refused(
            "a daemon of a single command cannot be upgraded",
        ));
    };
    let path = match path {
        Some(path) => path,
        None => as_installed("/proc/self/exe".as_ref())?,
    };
    release_of(&path)?;
    let mut state = daemon.shared.state();
    let pause = daemon.containers.broker.pause()?;
    // The successor goes on with what is written down.
    daemon.containers.journal.save_whole(&mut state.registry)?;
    let (ours, theirs) = Channel::pair().map_err(|e| Error::io("make", "a socket pair", e))?;
    ours.set_timeout(Some(LIMIT))
        .map_err(|e| Error::io("set up", "a socket pair", e))?;
    let mut child = Command::new(&path)
        .args(arguments())
        .stdin(Stdio::from(theirs.into_inner()))
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| Error::io("start", &path, e))?;
    let pid = i32::try_from(child.id()).unwrap_or(0);
    let taken = state.slot.server().map(|_| ()).and_then(|()| {
        hand_over(&ours, endpoint, &state).and_then(|()| {
            let answer = ours.recv::<Taken>();
            match answer.map_err(|e| Error::io("hear from", "the new daemon", e))? {
                Some((Taken::Yes { release }, _)) => Ok(release),
                Some((Taken::No { why }, _)) => Err(Error::refused(why)),
                None => Err(Error::refused("the new daemon ended; its log says why")),
            }
        })
    });
    match taken {
        Ok(release) => {
            if let Some(server) = state.slot.take() {
                daemon.containers.events.remove(server.pidfd());
                server.release();
            }
            state.ending = true;
            // The successor waits for our end, which closes this. It answers the server from then on.
            std::mem::forget((ours, pause));
            daemon.end.set_handed_over();
            tracing::info!(pid, %release, "another daemon takes the place of this one");
            Ok(Upgraded { pid, release })
        }
        Err(error) => {
            // Both fail only when the successor has ended.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Returns our own arguments, for the successor.
fn arguments() -> Vec<std::ffi::OsString> {
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--successor") {
        arguments.push("--successor".into());
    }
    arguments
}

fn hand_over(to: &Channel, endpoint: &ControlEndpoint, state: &DaemonState) -> Result<()> {
    let (connections, descriptors) = (state.slot.connections(), state.slot.descriptors());
    let (Some(server), Some(held)) = (state.slot.present(), &descriptors.held) else {
        return Err(Error::refused("there is nothing to hand over"));
    };
    let Some(broker_channel) = server.broker_channel() else {
        return Err(Error::refused("the server cannot ask"));
    };
    let packet = Handover {
        version: VERSION,
        init: connections.init(),
        replies: connections.replies(),
        server: server.pid(),
        slots: state.registry.iter().map(|(slot, _)| slot).collect(),
        generations: server.gives_generations(),
    };
    let [cached, live] = connections.descriptors();
    let fds = [
        endpoint.lock.as_fd(),
        endpoint.listener.as_fd(),
        cached,
        live,
        held.namespace.as_fd(),
        descriptors.state.as_fd(),
        held.rendezvous.as_fd(),
        server.link().as_fd(),
        broker_channel.as_fd(),
    ];
    to.send(&packet, &fds)
        .map_err(|e| Error::io("speak to", "the new daemon", e))
}
