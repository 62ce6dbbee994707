//! Runtimes that hand over the descriptor of a filter, as the specification of OCI runtimes has it (`listenerPath`): one
//! message with the state of the container, and the descriptor.

use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::vet::Container;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
};
use serde::Deserialize;

use super::process::bind;

/// The most bytes of a message. It has the annotations of the container.
const MOST: u64 = 4 << 20;

/// The time that a runtime has for its message.
const LIMIT: Duration = Duration::from_secs(2);

/// The most descriptors of a message.
const MOST_FDS: usize = 8;

/// The link of /proc/PID/fd that only descriptors of filters have.
const FILTER: &str = "anon_inode:seccomp notify";

#[derive(Debug, Deserialize)]
struct ProcessState {
    #[serde(default)]
    fds: Vec<String>,
    state: State,
}

#[derive(Debug, Deserialize)]
struct State {
    id: String,
    pid: i32,
}

/// Listens for runtimes.
///
/// # Errors
/// When the socket of before cannot be removed, or another cannot be made.
pub(super) fn listen(path: &Path) -> Result<OwnedFd> {
    bind(path, SocketType::STREAM)
}

/// Takes what the next runtime hands over; none if it says nothing, as whoever looks whether the socket is there.
///
/// # Errors
/// When it is not root, and when that is not a filter.
pub(super) fn accept(listener: &OwnedFd) -> Result<Option<(Container, OwnedFd)>> {
    let trouble = |e: std::io::Error| Error::io("hear from", "a runtime", e);
    let socket =
        rustix::net::accept_with(listener, SocketFlags::CLOEXEC).map_err(|e| trouble(e.into()))?;
    // By nix: the process may be in no namespace of ours.
    let peer = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials)
        .map_err(|e| trouble(e.into()))?;
    if peer.uid() != 0 {
        return Err(Error::refused(format!(
            "the user {} hands over a filter of system calls, and is not root",
            peer.uid()
        )));
    }
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Recv,
        Some(LIMIT),
    )
    .map_err(|e| trouble(e.into()))?;
    let (mut bytes, fds) = receive(&socket).map_err(trouble)?;
    if bytes.is_empty() && fds.is_empty() {
        return Ok(None);
    }
    let is_whole = |bytes: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
    if !is_whole(trimmed(&bytes)) {
        // Of a long message the rest comes without descriptors.
        UnixStream::from(socket)
            .take(MOST)
            .read_to_end(&mut bytes)
            .map_err(trouble)?;
    }
    let state: ProcessState =
        serde_json::from_slice(trimmed(&bytes)).map_err(|e| trouble(e.into()))?;
    let at = state.fds.iter().position(|name| name == "seccompFd");
    let fd = at.and_then(|at| fds.into_iter().nth(at));
    let fd = fd.ok_or_else(|| Error::refused("a runtime hands over no filter of system calls"))?;
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).map_err(trouble)?;
    if link != Path::new(FILTER) {
        return Err(Error::refused(format!(
            "a runtime hands over {} as a filter of system calls",
            link.display()
        )));
    }
    let State { id, pid } = state.state;
    Ok(Some((Container { pid, id }, fd)))
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0);
    bytes
        .get(..end.map_or(0, |end| end + 1))
        .unwrap_or_default()
}

/// Receives the first part of a message, and the descriptors that come with it.
fn receive(socket: &OwnedFd) -> std::io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 64 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    bytes.truncate(message.bytes);
    Ok((bytes, fds))
}
