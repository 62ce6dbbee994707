//! One control connection: packets are received, operations are done, and answers are sent.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::asker::Asker;
use super::daemon::Daemon;
use super::{attach, ended, inspection_mounts, list, upgrade};
use crate::isolation::Isolation;
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::control::{
    Answer, Attach, Call, Isolate, Lock, Request, Response, VERSION, Watch,
};
use eci_fs_protocol::error::{Error, Kind, Reason, Result};

/// Answers until the other end closes. `after` is called after each answer that may have left nothing attached.
pub(super) fn serve(daemon: &Daemon, channel: &Channel, mut after: impl FnMut()) {
    let peer = match channel.peer() {
        Ok(peer) => peer,
        Err(error) => return tracing::warn!(%error, "a control connection has no peer"),
    };
    loop {
        let (call, fds) = match channel.recv::<Call>() {
            Ok(Some(packet)) => packet,
            Ok(None) => return,
            Err(error) => {
                let why = Error::refused(format!("a packet could not be understood: {error}"));
                let _ = reply(channel, Response::Failed(why), None);
                return;
            }
        };
        let ends_something = !matches!(call.request, Request::List { .. } | Request::Open { .. });
        let result = if peer.uid != 0 {
            Err(Error::new(
                Kind::Denied,
                format!("user {} may not control eci-mountd", peer.uid),
            )
            .remedy("run the command as root"))
        } else if call.version != VERSION {
            Err(Error::new(
                Kind::Version,
                format!(
                    "the command speaks version {} of the protocol, eci-mountd version {VERSION}",
                    call.version
                ),
            )
            .remedy("install both from the same release, and restart eci-mountd"))
        } else {
            answer(daemon, Asker::new(channel, peer.pid), call.request, fds)
        };
        let (response, fd) = result.unwrap_or_else(|error| {
            if error.reason == Some(Reason::CommandGone) {
                tracing::info!("{error}");
            } else {
                tracing::debug!(%error, "refused");
            }
            (Response::Failed(error), None)
        });
        let attached = matches!(&response, Response::Attached(attached) if !attached.already);
        if let Err(error) = reply(channel, response, fd) {
            tracing::debug!(%error, "a command did not wait for its answer");
        }
        if daemon.end.is_handed_over() {
            // The command has been answered: nothing is left to do here.
            daemon.end.set_over();
        }
        // A daemon of a single command has no next container.
        if attached && daemon.endpoint.is_some() {
            daemon.containers.prepare_signal.notify();
        }
        if ends_something {
            after();
        }
    }
}

fn reply(channel: &Channel, response: Response, fd: Option<OwnedFd>) -> std::io::Result<()> {
    let fds: Vec<BorrowedFd<'_>> = fd.iter().map(AsFd::as_fd).collect();
    channel.send(
        &Answer {
            version: VERSION,
            response,
        },
        &fds,
    )
}

fn answer(
    daemon: &Daemon,
    asker: Asker<'_>,
    request: Request,
    fds: Vec<OwnedFd>,
) -> Result<(Response, Option<OwnedFd>)> {
    let changes = !matches!(
        request,
        Request::List { .. } | Request::Open { .. } | Request::Forget { .. }
    );
    if changes {
        // Before the process behind a pidfd is looked at: an engine kills the container whose hook gave up. The check
        // is made again when the operations before have ended.
        asker.check()?;
    }
    let mut fds = fds.into_iter();
    let mut next = |what| {
        fds.next()
            .ok_or_else(|| Error::refused(format!("the packet carries no {what}")))
    };
    let response = match request {
        Request::Attach(wanted) => {
            let pidfd = next("pidfd")?;
            let overlays = match wanted.engine_root {
                Some(_) => Some([next("overlay")?, next("overlay")?]),
                None => None,
            };
            let containers = &daemon.containers;
            let attached = attach::attach(containers, asker, pidfd.as_fd(), wanted, None, overlays);
            Response::Attached(attached?)
        }
        Request::Lock(Lock { root, locks, views }) => {
            let pidfd = next("pidfd")?;
            let containers = &daemon.containers;
            let Some(wanted) = views else {
                attach::lock(containers, asker, pidfd.as_fd(), root, locks)?;
                return Ok((Response::Locked, None));
            };
            let overlays = match wanted.engine_root {
                Some(_) => Some([next("overlay")?, next("overlay")?]),
                None => None,
            };
            let wanted = Attach {
                root: Some(root),
                ..wanted
            };
            let locks = Some(locks);
            let pidfd = pidfd.as_fd();
            let attached = attach::attach(containers, asker, pidfd, wanted, locks, overlays);
            Response::Attached(attached?)
        }
        Request::Forget { id } => ended::forget(&daemon.containers, &id)?,
        Request::Detach(selector) => attach::detach(&daemon.containers, asker, &selector)?,
        Request::Mount { dir, created } => {
            let pidfd = next("pidfd")?;
            inspection_mounts::mount(
                &daemon.containers,
                pidfd.as_fd(),
                next("directory")?,
                &dir,
                created,
                asker,
            )?
        }
        Request::Unmount { dir } => inspection_mounts::unmount(&daemon.containers, asker, &dir)?,
        Request::List { after } => list::list(&daemon.containers, after),
        Request::Upgrade { part, path } => upgrade::upgrade(daemon, asker, part, path)?,
        Request::Open { container, path } => {
            return Ok((
                Response::Opened,
                Some(attach::open(&daemon.containers, &container, &path)?),
            ));
        }
        Request::Isolate(Isolate { key }) => {
            let pidfd = next("pidfd")?;
            let (isolated, namespace) = isolation(daemon)?.isolate(key, pidfd)?;
            return Ok((Response::Isolated(isolated), Some(namespace)));
        }
        Request::Join(Isolate { key }) => {
            let (pidfd, other) = (next("pidfd")?, next("pidfd of another container")?);
            let isolation = isolation(daemon)?;
            let (isolated, namespace) = isolation.join_container(&key, pidfd, other.as_fd())?;
            return Ok((Response::Isolated(isolated), Some(namespace)));
        }
        Request::Watch(Watch { engine_root }) => {
            let pidfd = next("pidfd")?;
            let overlays = [next("overlay")?, next("overlay")?];
            isolation(daemon)?.watch_overlays(pidfd, engine_root, overlays)?;
            Response::Watched
        }
    };
    Ok((response, None))
}

/// Returns the ranges of a daemon that does not end.
///
/// # Errors
/// [`Error::ending`] when it ends.
fn isolation(daemon: &Daemon) -> Result<&Arc<Isolation>> {
    if daemon.shared.state().ending {
        return Err(Error::ending());
    }
    Ok(&daemon.containers.isolation)
}
