//! Packets as another program sends them: any bytes, and some descriptors.
//!
//! The first byte of such an input says which of the protocols it is of, the second what comes with it, and the rest is the
//! packet.

use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use eci_fs_protocol::channel::{Channel, MAX_FDS};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Takes an input apart.
pub fn split(input: &[u8]) -> Option<(u8, u8, &[u8])> {
    let (protocol, rest) = input.split_first()?;
    let (descriptors, packet) = rest.split_first()?;
    Some((*protocol, *descriptors, packet))
}

/// Returns as many descriptors as a byte says, of several kinds.
pub fn descriptors(count: u8) -> Vec<OwnedFd> {
    let kinds = ["/dev/null", "/proc", "/proc/self/status", "/dev/zero"];
    let count = usize::from(count) % (MAX_FDS + 1);
    let kinds = kinds.iter().cycle().take(count);
    kinds.map(|path| File::open(path).unwrap().into()).collect()
}

/// Sends a packet, and returns the end that receives it; the other end is closed after that.
pub fn sent(packet: &[u8], descriptors: &[OwnedFd]) -> Channel {
    let (theirs, ours) = Channel::pair().unwrap();
    send(&theirs, packet, descriptors);
    ours
}

/// Sends a packet.
pub fn send(channel: &Channel, packet: &[u8], descriptors: &[OwnedFd]) {
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let parts = [IoSlice::new(packet)];
    sendmsg(channel, &parts, &mut ancillary, SendFlags::NOSIGNAL).unwrap();
}

/// Receives a packet as a value. What is understood is the same after it was written and read.
pub fn received<T>(packet: &[u8], descriptors: &[OwnedFd]) -> Option<(T, Vec<OwnedFd>)>
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let (value, fds) = sent(packet, descriptors).recv::<T>().ok()??;
    assert_eq!(fds.len(), descriptors.len());
    let written = serde_json::to_vec(&value).unwrap();
    assert_eq!(serde_json::from_slice::<T>(&written).unwrap(), value);
    Some((value, fds))
}
