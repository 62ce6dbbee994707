//! The supervisor's process.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::link::SERVER_USERS;
use eci_fs_protocol::vet::{Container, FromVet, LISTENERS, Listener, ToVet, USER, VERSION};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{Program, name};
use crate::service_manager;

/// The time that a supervisor has for an answer, or to take a packet.
const LIMIT: Duration = Duration::from_secs(5);

/// The journal, and the listeners.
pub(super) type Kept = (OwnedFd, Vec<(Listener, OwnedFd)>);

/// A supervisor that runs. It lives on when the value is dropped after a failure of the channel only if it waits for the next
/// daemon, so it is ended.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    channel: Channel,
}

impl Process {
    /// Starts a supervisor.
    ///
    /// # Errors
    /// When it cannot be executed, or says why it cannot start.
    pub(super) fn start(
        program: &Program,
        journal: BorrowedFd<'_>,
        rendezvous: BorrowedFd<'_>,
    ) -> Result<Self> {
        let (ours, theirs) = Channel::pair().map_err(|e| Error::io("make", "a socket pair", e))?;
        ours.set_timeout(Some(LIMIT))
            .map_err(|e| Error::io("set up", "a socket pair", e))?;
        let mut command = Command::new(&program.path);
        command
            .arg("vet")
            .stdin(Stdio::from(theirs.into_inner()))
            .stdout(Stdio::null());
        service_manager::hide_from(&mut command);
        let child = command
            .spawn()
            .map_err(|e| Error::io("start", &program.path, e))?;
        // The command holds the other end of the channel.
        drop(command);
        let process = Self {
            child,
            channel: ours,
        };
        let start = ToVet::Start {
            version: VERSION,
            freshness_ms: program.settings.freshness_ms,
            cpu_share: program.settings.cpu_share,
        };
        let trouble = |e| Error::io("speak to", "the supervisor of system calls", e);
        process
            .channel
            .send(&start, &[journal, rendezvous])
            .map_err(trouble)?;
        match process.channel.recv::<FromVet>().map_err(trouble)? {
            Some((FromVet::Started, _)) => Ok(process),
            Some((FromVet::Failed { why }, _)) => Err(Error::refused(why)),
            _ => Err(Error::refused(
                "the supervisor of system calls ended at its start",
            )),
        }
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Hands a listener over. If that fails the supervisor has ended, or is ended: the next one gets it.
    pub(super) fn listen(&self, slot: u32, container: &Container, fd: BorrowedFd<'_>) {
        self.send(&ToVet::Listen(name(slot, container)), &[fd]);
    }

    pub(super) fn send(&self, packet: &ToVet, fds: &[BorrowedFd<'_>]) {
        if let Err(error) = self.channel.send(packet, fds) {
            tracing::warn!(%error, "the supervisor of system calls takes nothing");
            // Its end is heard, and another one is started.
            let _ = rustix::net::shutdown(&self.channel, rustix::net::Shutdown::Both);
        }
    }

    /// Returns the next packet; none when it has ended or says nothing sensible.
    pub(super) fn receive(&self) -> Option<FromVet> {
        let received = self.channel.recv::<FromVet>();
        let received = received.inspect_err(
            |error| tracing::warn!(%error, "the supervisor of system calls cannot be heard"),
        );
        received.ok().flatten().map(|(packet, _)| packet)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Listens where a supervisor without a daemon waits for the next one.
///
/// # Errors
/// When the socket of before cannot be removed, or another cannot be made.
pub(super) fn listen(path: &Path) -> Result<OwnedFd> {
    bind(path, SocketType::SEQPACKET)
}

/// Takes over what a supervisor has whose daemon has gone, and waits for its end; none if there is no supervisor.
///
/// # Errors
/// When it does not answer, or hands over what it cannot have.
pub(super) fn take_over(rendezvous: &Path) -> Result<Option<Kept>> {
    let trouble = |e| Error::io("speak to", "the supervisor without a daemon", e);
    let Some(channel) = Channel::connect(rendezvous, Some(LIMIT)).map_err(trouble)? else {
        return Ok(None);
    };
    channel.ask_for_senders().map_err(trouble)?;
    let ask = ToVet::HandOver { version: VERSION };
    channel.send(&ask, &[]).map_err(trouble)?;
    let mut journal = None;
    let mut all = Vec::new();
    loop {
        let packet = channel.recv_signed::<FromVet>().map_err(trouble)?;
        let packet = packet.ok_or_else(|| Error::refused("the supervisor ended"))?;
        let is_ours = |uid: u32| uid == USER || uid == SERVER_USERS[1];
        if !packet.sender.is_some_and(|sender| is_ours(sender.uid)) {
            return Err(Error::refused(
                "what waits for a daemon is no process of a supervisor's user",
            ));
        }
        let FromVet::Held { listeners, last } = packet.value else {
            return Err(Error::refused("the supervisor says what nobody asked"));
        };
        let mut fds = packet.fds.into_iter();
        if journal.is_none() {
            journal = fds.next();
        }
        all.extend(listeners.into_iter().zip(fds));
        if all.len() > LISTENERS as usize {
            return Err(Error::refused("the supervisor has too many listeners"));
        }
        if last {
            break;
        }
    }
    channel.send(&ToVet::End, &[]).map_err(trouble)?;
    // The next one begins when this one is gone: each slot has one user.
    if let Ok(Some(_)) = channel.recv::<FromVet>() {
        return Err(Error::refused("the supervisor does not end"));
    }
    let journal = journal.ok_or_else(|| Error::refused("the supervisor has no journal"))?;
    Ok(Some((journal, all)))
}

/// Makes a socket that root alone can connect to, in the place of what is at `path`.
pub(super) fn bind(path: &Path, kind: SocketType) -> Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("remove the stale socket", path, e)),
    }
    let trouble = |e| Error::io("listen on", path, e);
    let address = SocketAddrUnix::new(path).map_err(trouble)?;
    let flags = SocketFlags::CLOEXEC;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None).map_err(trouble)?;
    rustix::net::bind(&socket, &address).map_err(trouble)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|e| Error::io("set the mode of", path, e))?;
    rustix::net::listen(&socket, 128).map_err(trouble)?;
    Ok(socket)
}
