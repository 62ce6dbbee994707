//! A packet channel: one JSON value and some descriptors a packet, over `SOCK_SEQPACKET`.
//!
//! Packets keep their boundaries and their descriptors, so there is no framing to get wrong. A packet
//! that does not fit is an error on the side that sends it, never cut on the side that receives it.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that a packet may hold. Lists are sent in pages, so this bounds one page.
pub const MAX_PACKET: usize = 128 * 1024;

/// Descriptors that a packet may carry (`SCM_MAX_FD` of the kernel is 253).
pub const MAX_FDS: usize = 64;

/// One end of a packet channel.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Returns the channel of a connected `SOCK_SEQPACKET` socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Returns two connected ends, both close-on-exec.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self::new(a), Self::new(b)))
    }

    /// Connects to a socket that listens at `path`. Returns none when there is no socket, or no process holds it any
    /// more. With a `limit`, nothing takes longer, connecting included (EAGAIN).
    ///
    /// # Errors
    /// The kernel's.
    pub fn connect(path: &Path, limit: Option<Duration>) -> io::Result<Option<Self>> {
        let address = SocketAddrUnix::new(path)?;
        let channel = Self::new(rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?);
        // Before it connects, which waits too when many do.
        channel.set_timeout(limit)?;
        match rustix::net::connect(&channel.socket, &address) {
            Ok(()) => Ok(Some(channel)),
            Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the socket, for a child's standard input for instance.
    pub fn into_inner(self) -> OwnedFd {
        self.socket
    }

    /// Limits the time that each [`Self::send`] and [`Self::recv`] may wait. After `limit` they fail with
    /// [`io::ErrorKind::WouldBlock`].
    pub fn set_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        use rustix::net::sockopt::{Timeout, set_socket_timeout};
        set_socket_timeout(&self.socket, Timeout::Recv, limit)?;
        set_socket_timeout(&self.socket, Timeout::Send, limit)?;
        Ok(())
    }

    /// Sends one value and its descriptors.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] with [`Fault::TooLarge`] when the value does not fit a packet; otherwise the
    /// socket's.
    pub fn send<T: Serialize>(&self, value: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_with(value, fds, SendFlags::empty())
    }

    /// As [`Self::send`], but it does not wait until the other end has read what was sent before.
    ///
    /// # Errors
    /// As [`Self::send`]; [`io::ErrorKind::WouldBlock`] while there is no room.
    pub fn try_send<T: Serialize>(&self, value: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_with(value, fds, SendFlags::DONTWAIT)
    }

    fn send_with<T: Serialize>(
        &self,
        value: &T,
        fds: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> io::Result<()> {
        let bytes = serde_json::to_vec(value)?;
        if bytes.len() > MAX_PACKET || fds.len() > MAX_FDS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                Fault::TooLarge {
                    bytes: bytes.len(),
                    descriptors: fds.len(),
                },
            ));
        }
        let mut space =
            vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(fds));
        }
        rustix::io::retry_on_intr(|| {
            sendmsg(
                &self.socket,
                &[IoSlice::new(&bytes)],
                &mut ancillary,
                flags | SendFlags::NOSIGNAL,
            )
        })?;
        Ok(())
    }

    /// Receives one value and its descriptors; `None` when the other end has closed.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for what is not such a value, and with a [`Fault`] for what did not come whole;
    /// [`io::ErrorKind::WouldBlock`] after [`Self::set_timeout`]; otherwise the socket's.
    pub fn recv<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        Ok(self.recv_signed()?.map(|packet| (packet.value, packet.fds)))
    }

    /// Has the kernel name the sender of each packet from now on. [`Self::peer`] names only the process that began to
    /// listen, which may be another one.
    pub fn ask_for_senders(&self) -> io::Result<()> {
        rustix::net::sockopt::set_socket_passcred(&self.socket, true)?;
        Ok(())
    }

    /// As [`Self::recv`], with the sender if [`Self::ask_for_senders`] was called.
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub fn recv_signed<T: DeserializeOwned>(&self) -> io::Result<Option<Packet<T>>> {
        let mut bytes = vec![0u8; MAX_PACKET + 1];
        let size = rustix::cmsg_space!(ScmRights(MAX_FDS), ScmCredentials(1));
        let mut space = vec![std::mem::MaybeUninit::uninit(); size];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let message = rustix::io::retry_on_intr(|| {
            recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        let mut fds = Vec::new();
        let mut sender = None;
        for part in ancillary.drain() {
            match part {
                RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
                RecvAncillaryMessage::ScmCredentials(cred) => {
                    sender = Some(Peer {
                        uid: cred.uid.as_raw(),
                        pid: cred.pid.as_raw_nonzero().get(),
                    });
                }
                _ => {}
            }
        }
        if message.bytes == 0 {
            return Ok(None);
        }
        let lost = [
            (ReturnFlags::TRUNC, Fault::Cut),
            (ReturnFlags::CTRUNC, Fault::NoRoom),
        ];
        if let Some((_, fault)) = lost.iter().find(|(flag, _)| message.flags.contains(*flag)) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, *fault));
        }
        let value = serde_json::from_slice(&bytes[..message.bytes])?;
        Ok(Some(Packet { value, fds, sender }))
    }

    /// Returns true if the other end is closed. What it has sent before can still be received.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_closed(&self) -> io::Result<bool> {
        let mut poll = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&Timespec::default())))?;
        Ok(poll[0]
            .revents()
            .intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR))
    }

    /// The user and process at the other end, as the kernel recorded them when it connected.
    pub fn peer(&self) -> io::Result<Peer> {
        // By nix: the process is 0 if it is in no namespace of ours, and the type that rustix returns cannot hold that.
        let cred =
            nix::sys::socket::getsockopt(&self.socket, nix::sys::socket::sockopt::PeerCredentials)?;
        Ok(Peer {
            uid: cred.uid(),
            pid: cred.pid(),
        })
    }
}

/// Why a packet could not be sent or received whole. It is inside of the [`io::Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The packet was not sent, because it does not fit.
    TooLarge {
        /// Bytes of the packet, of which [`MAX_PACKET`] fit.
        bytes: usize,
        /// Descriptors of the packet, of which [`MAX_FDS`] fit.
        descriptors: usize,
    },
    /// Bytes of it were cut off: the sender has other limits.
    Cut,
    /// Descriptors of it were lost, because the receiver has as many as it may have (EMFILE).
    NoRoom,
}

impl Fault {
    /// Returns the fault inside of an error of [`Channel`], if it has one.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }

    /// Returns the errno that says the same, if there is one.
    pub fn errno(self) -> Option<i32> {
        match self {
            Self::TooLarge { .. } => Some(Errno::MSGSIZE.raw_os_error()),
            Self::NoRoom => Some(Errno::MFILE.raw_os_error()),
            Self::Cut => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, descriptors } => write!(
                f,
                "a packet of {bytes} bytes and {descriptors} descriptors is too large"
            ),
            Self::Cut => f.write_str("a packet was cut"),
            Self::NoRoom => {
                f.write_str("there is no room for its descriptors: Too many open files")
            }
        }
    }
}

impl std::error::Error for Fault {}

/// A packet that was received.
#[derive(Debug)]
pub struct Packet<T> {
    /// The value.
    pub value: T,
    /// The descriptors that came with it.
    pub fds: Vec<OwnedFd>,
    /// The sender, as the kernel names it (`SCM_CREDENTIALS`).
    pub sender: Option<Peer>,
}

/// The process at the other end of a channel (`SO_PEERCRED`), or the sender of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// User id, in our user namespace.
    pub uid: u32,
    /// Process id, in our pid namespace; 0 when it is not in it.
    pub pid: i32,
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_descriptors_arrive_together() {
        let (a, b) = Channel::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        a.send(&vec![1u32, 2], &[file.as_fd(), file.as_fd()])
            .unwrap();
        let (value, fds): (Vec<u32>, _) = b.recv().unwrap().unwrap();
        assert_eq!((value, fds.len()), (vec![1, 2], 2));
    }

    #[test]
    fn a_closed_end_is_none_and_a_large_packet_is_refused_by_its_sender() {
        let (a, b) = Channel::pair().unwrap();
        let error = a.send(&"x".repeat(MAX_PACKET), &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(matches!(
            Fault::of(&error),
            Some(Fault::TooLarge { descriptors: 0, .. })
        ));
        drop(a);
        assert!(b.recv::<u32>().unwrap().is_none());
    }

    #[test]
    fn an_end_that_was_closed_is_noticed_before_its_last_packet_is_received() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&7u32, &[]).unwrap();
        assert!(!b.is_closed().unwrap());
        drop(a);
        assert!(b.is_closed().unwrap());
        assert_eq!(b.recv::<u32>().unwrap().unwrap().0, 7);
    }

    #[test]
    fn a_packet_says_who_sent_it_when_it_is_asked() {
        let (a, b) = Channel::pair().unwrap();
        b.ask_for_senders().unwrap();
        a.send(&1u32, &[]).unwrap();
        let packet = b.recv_signed::<u32>().unwrap().unwrap();
        let sender = packet.sender.unwrap();
        assert_eq!(u32::try_from(sender.pid), Ok(std::process::id()));
    }

    #[test]
    fn rubbish_is_invalid_data() {
        let (a, b) = Channel::pair().unwrap();
        rustix::net::send(&a, b"{nonsense", SendFlags::empty()).unwrap();
        assert_eq!(
            b.recv::<u32>().unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }

    #[test]
    fn a_silent_peer_is_waited_for_no_longer_than_asked() {
        let (a, _b) = Channel::pair().unwrap();
        a.set_timeout(Some(Duration::from_millis(10))).unwrap();
        assert_eq!(
            a.recv::<u32>().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }
}
